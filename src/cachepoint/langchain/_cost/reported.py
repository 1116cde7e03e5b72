"""What the answer of any LangChain chat model reports of its tokens, its model and its price.

A model or a client of ours tells what its call cost; what others report is priced. `Answer.told` is the one place that
knows which.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import lru_cache
from typing import Any

from langchain_core.messages import BaseMessage

from cachepoint.bedrock.wire.dialect import CONTRACT
from cachepoint.catalogue.price_book import STANDARD_TIERS, PriceBook, Quote, published_quote
from cachepoint.core.accounts.record import Told, read_contract, status_of
from cachepoint.core.provider.prices import Cost, Prices
from cachepoint.core.provider.rules import TTL
from cachepoint.core.provider.usage import Usage

_ANTHROPIC = "anthropic"


def told_of(metadata: Mapping[str, Any]) -> Told | None:
    """What an answer's `response_metadata` tells of its call, None where neither its model nor its client is ours."""
    try:
        return read_contract(metadata["prompt_cache"] if "prompt_cache" in metadata else metadata[CONTRACT])
    except (KeyError, TypeError, ValueError, ArithmeticError):  # another's key of the same name, or none
        return None


def usage_of(reported: Mapping[str, Any], unreported_ttl: TTL = "5m") -> Usage:
    """Tokens by class from LangChain's `usage_metadata`.

    Its `input_tokens` count the cached ones too; a model that leaves them out is believed where the
    counts prove it. Writes given by TTL come first, for some models repeat them in `cache_creation`;
    writes beyond them count as of `unreported_ttl`.
    """
    details = reported.get("input_token_details") or {}
    read = _count(details, "cache_read")
    write_1h = _count(details, "ephemeral_1h_input_tokens")
    write_5m = _count(details, "ephemeral_5m_input_tokens")
    unreported = max(_count(details, "cache_creation") - write_5m - write_1h, 0)
    if unreported_ttl == "1h":
        write_1h += unreported
    else:
        write_5m += unreported
    given = _count(reported, "input_tokens")
    uncached = given - read - write_5m - write_1h
    return Usage(given if uncached < 0 else uncached, read, write_5m, write_1h, _count(reported, "output_tokens"))


def _count(counts: Mapping[str, Any], name: str) -> int:
    value = counts.get(name)
    return value if isinstance(value, int) else 0


def asked_ttl(messages: Iterable[BaseMessage]) -> TTL:
    """The TTL of a request's marks where they agree, else 5m.

    ChatAnthropicBedrock's streams report a write without its TTL; the request tells.
    """
    blocks = [block for message in messages if isinstance(message.content, list) for block in message.content]
    marks = [block["cache_control"] for block in blocks if isinstance(block, dict) and block.get("cache_control")]
    return "1h" if marks and all(mark.get("ttl") == "1h" for mark in marks) else "5m"


def answered_from_cache(reported: Mapping[str, Any] | None) -> bool:
    """Whether LangChain's own LLM cache gave the answer: it repeats the first call's usage, at a cost of 0."""
    return reported is not None and reported.get("total_cost") == 0


def model_of(metadata: Mapping[str, Any]) -> str | None:
    """The model that an answer's `response_metadata` names."""
    named = (metadata.get(key) for key in ("model_name", "model_id", "model"))
    return next((name for name in named if isinstance(name, str) and name), None)


def tier_of(metadata: Mapping[str, Any]) -> str | None:
    """The service tier that served an answer, None where it says none."""
    tier = metadata.get("serviceTier") or metadata.get("service_tier")
    if tier is None and isinstance(metadata.get("usage"), Mapping):
        tier = metadata["usage"].get("service_tier")
    if isinstance(tier, Mapping):
        tier = tier.get("type")
    return tier if isinstance(tier, str) else None


@dataclass(frozen=True)
class Answer:
    """One answer: what it reports, and what was asked where it does not say.

    `metadata` is the message's `response_metadata`, `reported` its `usage_metadata`, None where there is none. `at` is
    when the call started, in wall time. `base_models` has model ids behind opaque ARNs; `unreported_ttl` is that of
    writes reported without theirs.
    """

    prices: ChatPrices
    metadata: Mapping[str, Any]
    reported: Mapping[str, Any] | None
    provider: str | None
    asked_model: str
    region: str | None
    at: float
    base_models: Mapping[str, str] = field(default_factory=dict)
    unreported_ttl: TTL = "5m"

    @property
    def model(self) -> str:
        """The model that answered, by the id that was asked for where the answer says no more than a part of it.

        InvokeModel answers `claude-haiku-4-5` (35 of 35 recorded answers); geography and version set the price.
        """
        answered = model_of(self.metadata)
        return self.asked_model if answered is None or answered in self.asked_model else answered

    @property
    def base_model(self) -> str | None:
        """The model behind it, where that is an ARN which the user has named."""
        return self.base_models.get(self.model)

    @property
    def usage(self) -> Usage | None:
        """Its tokens, as LangChain counts them."""
        return usage_of(self.reported, self.unreported_ttl) if self.reported else None

    @property
    def told(self) -> Told:
        """What its call tells, or by LangChain's own means what it used, with a price."""
        if told := told_of(self.metadata):
            return told
        if (usage := self.usage) is None:
            return Told("off", None, None, None)
        return Told("off", status_of(usage), usage, self.price(usage))

    def price(self, usage: Usage) -> Cost | None:
        """What such a call costs with this usage; None where the price is unknown."""
        return self.prices.price(
            usage,
            provider=self.provider,
            model=self.base_model or self.model,
            at=self.at,
            tier=tier_of(self.metadata),
            region=self.region,
        )


class ChatPrices:
    """Prices the calls of any of LangChain's chat models; safe to share between threads.

    Models of Anthropic's own API cost what `genai-prices` says, all others what `prices` say, by default a
    `PriceBook` of Bedrock's. None where a price is unknown.
    """

    def __init__(self, prices: Prices | None = None) -> None:
        self._prices = PriceBook() if prices is None else prices

    def price(
        self, usage: Usage, *, provider: str | None, model: str, at: float, tier: str | None, region: str | None
    ) -> Cost | None:
        """The cost of a call that started `at` a wall time."""
        tier = None if tier in STANDARD_TIERS else tier
        if provider != _ANTHROPIC:
            return self._prices.price(model, usage, at=at, service_tier=tier, region=region)
        quote = None if tier else _anthropic_quote(model, datetime.fromtimestamp(at, UTC).date())
        return None if quote is None else quote.prices.cost(usage, quote.as_of)


@lru_cache(maxsize=512)
def _anthropic_quote(model: str, day: date) -> Quote | None:
    return published_quote(model, datetime(day.year, day.month, day.day, 12, tzinfo=UTC), _ANTHROPIC)
