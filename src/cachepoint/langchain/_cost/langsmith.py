"""Exact cost in LangSmith's traces.

LangSmith takes costs computed by the client from a run's `metadata.usage_metadata`, in place of its own
table's. LangChain's tracer copies the message's usage there, and a message's usage must hold whole
numbers only, so the costs are added where the run leaves for LangSmith: in the client.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, cast

from cachepoint.bedrock.settings import check_options
from cachepoint.core.provider.prices import Cost, Prices
from cachepoint.core.provider.usage import Usage
from cachepoint.langchain._cost.reported import Answer, ChatPrices, answered_from_cache, usage_of

if TYPE_CHECKING:
    from langsmith import Client

_CLASSES = {
    "cache_read": "cache_read",
    "cache_write_5m": "ephemeral_5m_input_tokens",
    "cache_write_1h": "ephemeral_1h_input_tokens",
}
"""Classes of tokens that have a price of their own, and LangSmith's names of them."""
_FINEST = Decimal("1e-15")


def with_exact_cost(client: Client | None = None, prices: Prices | None = None) -> Client:
    """A LangSmith client like the one given, by default the usual one, that adds exact cost to chat models' runs.

    `langsmith.configure(client=with_exact_cost())` does so for a whole program.
    """
    check_options({"prices": prices})
    if client is None:
        from langsmith.run_trees import get_cached_client

        client = get_cached_client()
    return cast("Client", client if isinstance(client, _CostClient) else _CostClient(client, prices))


@contextmanager
def exact_costs(prices: Prices | None = None) -> Iterator[None]:
    """Where LangSmith traces, add exact cost to the runs that LangChain starts in the block."""
    from langsmith.run_helpers import get_tracing_context, tracing_context
    from langsmith.utils import tracing_is_enabled

    if not tracing_is_enabled():
        yield
        return
    context = get_tracing_context()
    with tracing_context(**{**context, "client": with_exact_cost(context.get("client"), prices)}):
        yield


class _CostClient:
    """Passes everything on to a LangSmith client; what ends a chat model's run, with its cost."""

    def __init__(self, client: Client, prices: Prices | None) -> None:
        self._client = client
        self._prices = ChatPrices(prices)

    def update_run(self, run_id: Any, **fields: Any) -> None:
        """Send the end of a run."""
        self._client.update_run(run_id, **_with_cost(fields, self._prices))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


def _with_cost(fields: dict[str, Any], prices: ChatPrices) -> dict[str, Any]:
    extra = fields.get("extra") or {}
    metadata = extra.get("metadata") or {}
    reported = metadata.get("usage_metadata")
    if not isinstance(reported, Mapping) or answered_from_cache(reported):
        return fields
    response = _response_metadata(fields.get("outputs"))
    started = fields.get("start_time")
    answer = Answer(
        prices,
        response,
        reported,
        provider=metadata.get("ls_provider"),
        asked_model=str(metadata.get("ls_model_name") or ""),
        region=(metadata.get("ls_invocation_params") or {}).get("region_name"),
        at=started.timestamp() if isinstance(started, datetime) else time.time(),
    )
    usage = usage_of(reported)
    costs = {} if usage is None else _costs(usage, answer)
    return {**fields, "extra": {**extra, "metadata": {**metadata, "usage_metadata": {**reported, **costs}}}}


def _costs(usage: Usage, answer: Answer) -> dict[str, Any]:
    """LangSmith's cost fields; only the total where the call tells another than these prices give."""
    told, cost, prompt = answer.told.cost, answer.price(usage), answer.price(replace(usage, output=0))
    if cost is None or prompt is None or told is None or told.usd != cost.usd:
        return {} if told is None else {"total_cost": float(told.usd)}
    price = answer.price
    return {
        "input_cost": float(prompt.usd),
        "output_cost": float(cost.usd - prompt.usd),
        "total_cost": float(cost.usd),
        "input_cost_details": _details(usage, cost, price),
    }


def _details(usage: Usage, cost: Cost, price: Callable[[Usage], Cost | None]) -> dict[str, float]:
    """The cost of each cached class: what its tokens would cost as input, and what they cost beyond that."""
    details = {}
    for name, theirs in _CLASSES.items():
        tokens = getattr(usage, name)
        as_input = price(replace(usage, **{name: 0, "input": usage.input + tokens})) if tokens else None
        uncached = price(Usage(input=usage.prompt)) if tokens else None
        if as_input is not None and uncached is not None:
            share = (uncached.usd * tokens / usage.prompt).quantize(_FINEST)
            details[theirs] = float(cost.usd - as_input.usd + share)
    return details


def _response_metadata(outputs: Any) -> Mapping[str, Any]:
    try:
        metadata = outputs["generations"][0][0]["message"]["kwargs"]["response_metadata"]
    except (KeyError, IndexError, TypeError):
        return {}
    return metadata if isinstance(metadata, Mapping) else {}
