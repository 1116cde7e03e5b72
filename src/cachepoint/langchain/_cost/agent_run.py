"""What the calls of one agent run came to, as plain JSON types: it lives in the agent's state and its checkpoints."""

from __future__ import annotations

import time
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage

from cachepoint.bedrock.environment import prices_by, table_in_force
from cachepoint.core.accounts.totals import Totals
from cachepoint.core.provider.prices import Cost
from cachepoint.core.provider.usage import Usage
from cachepoint.langchain._cost.reported import Answer, ChatPrices, answered_from_cache

_AMOUNTS = ("usd", "uncached_usd", "saved_usd")
_SUMS = ("calls", "usage", "cost", "hit_rate", "misses", "unpriced")


def nothing_spent() -> dict[str, Any]:
    """The sums of a run without a call, under the names of `Totals.to_dict`."""
    return _shown(Totals())


def spent_after(spent: Mapping[str, Any], message: AIMessage, model: BaseChatModel) -> dict[str, Any]:
    """The sums with one more answer; one that came from LangChain's own LLM cache cost nothing and does not count."""
    if answered_from_cache(message.usage_metadata):
        return dict(spent)
    told = _answer(message, model).told
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


def _answer(message: AIMessage, model: BaseChatModel) -> Answer:
    named = model._get_ls_params()
    return Answer(
        _prices(),
        message.response_metadata,
        message.usage_metadata,
        provider=named.get("ls_provider"),
        asked_model=str(named.get("ls_model_name")),
        region=getattr(model, "region_name", None),
        at=time.time(),
    )


def _prices() -> ChatPrices:
    return ChatPrices(prices_by(table_in_force()))
