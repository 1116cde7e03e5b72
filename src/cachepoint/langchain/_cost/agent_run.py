"""What the calls of one agent run came to, as plain JSON types: it lives in the agent's state and its checkpoints."""

from __future__ import annotations

import time
from collections.abc import Mapping
from decimal import Decimal
from functools import lru_cache
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage

from cachepoint.core.accounts.record import Told, status_of
from cachepoint.core.accounts.totals import Totals
from cachepoint.core.provider.prices import Cost
from cachepoint.core.provider.usage import Usage
from cachepoint.langchain._cost.reported import ChatPrices, answered_from_cache, model_of, tier_of, told_of, usage_of

_AMOUNTS = ("usd", "uncached_usd", "saved_usd")
_SUMS = ("calls", "usage", "cost", "hit_rate", "misses", "unpriced")


def nothing_spent() -> dict[str, Any]:
    """The sums of a run without a call, under the names of `Totals.to_dict`."""
    return _shown(Totals())


def spent_after(spent: Mapping[str, Any], message: AIMessage, model: BaseChatModel) -> dict[str, Any]:
    """The sums with one more answer; one that came from LangChain's own LLM cache cost nothing and does not count."""
    if answered_from_cache(message.usage_metadata):
        return dict(spent)
    told = _told(message, model)
    misses = dict(spent["misses"])
    if told.miss:
        misses[told.miss.reason] = misses.get(told.miss.reason, 0) + 1
    cost = spent["cost"]
    before = Cost(**{name: Decimal(cost[name]) for name in _AMOUNTS}, prices_as_of=cost["prices_as_of"])
    return _shown(
        Totals(
            calls=spent["calls"] + 1,
            usage=Usage(**spent["usage"]) + (told.usage or Usage()),
            cost=before + (told.cost or Cost()),
            misses=misses,
            unpriced=spent["unpriced"] + (told.usage is not None and told.cost is None),
        )
    )


def _shown(totals: Totals) -> dict[str, Any]:
    sums = totals.to_dict()
    return {name: sums[name] for name in _SUMS}


def _told(message: AIMessage, model: BaseChatModel) -> Told:
    metadata = message.response_metadata
    if told := told_of(metadata):
        return told
    if not message.usage_metadata:
        return Told("off", None, None, None)
    usage = usage_of(message.usage_metadata)
    named = model._get_ls_params()
    cost = _prices().price(
        usage,
        provider=named.get("ls_provider"),
        model=model_of(metadata) or str(named.get("ls_model_name")),
        at=time.time(),
        tier=tier_of(metadata),
        region=getattr(model, "region_name", None),
    )
    return Told("off", status_of(usage), usage, cost)


@lru_cache(maxsize=1)
def _prices() -> ChatPrices:
    return ChatPrices()
