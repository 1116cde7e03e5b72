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

from cachepoint.bedrock.pricing import price_of
from cachepoint.bedrock.warn import warn_once
from cachepoint.bedrock.wire.dialect import CONTRACT, mapping
from cachepoint.catalogue.price_book import STANDARD_TIERS, PriceBook, Quote, published_quote
from cachepoint.core.accounts.record import Told, read_contract, status_of
from cachepoint.core.provider.prices import Cost, Prices
from cachepoint.core.provider.rules import TTL
from cachepoint.core.provider.usage import Usage, count, oddities, told_oddly

_ANTHROPIC = "anthropic"
_WRITES_AND_READS = ("cache_read", "ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens", "cache_creation")
_WHOLE = ("input_tokens", "output_tokens")


def told_of(metadata: Mapping[str, Any]) -> Told | None:
    """What an answer's `response_metadata` tells of its call, None where neither its model nor its client is ours."""
    try:
        return read_contract(metadata["prompt_cache"] if "prompt_cache" in metadata else metadata[CONTRACT])
    except (KeyError, TypeError, ValueError, ArithmeticError):  # another's key of the same name, or none
        return None


def usage_of(reported: object, unreported_ttl: TTL = "5m") -> Usage | None:
    """Tokens by class from LangChain's `usage_metadata`; None where a count of it is none.

    Its `input_tokens` count the cached ones too; a model that leaves them out is believed where the
    counts prove it. Writes given by TTL come first, for some models repeat them in `cache_creation`;
    writes beyond them count as of `unreported_ttl`.
    """
    details = mapping(mapping(reported).get("input_token_details"))
    places = [(details, name) for name in _WRITES_AND_READS] + [(mapping(reported), name) for name in _WHOLE]
    counts = [count(0 if place.get(name) is None else place[name]) for place, name in places]
    if not isinstance(reported, Mapping) or None in counts:
        return None
    read, write_5m, write_1h, created, given, output = (tokens or 0 for tokens in counts)
    unreported = max(created - write_5m - write_1h, 0)
    if unreported_ttl == "1h":
        write_1h += unreported
    else:
        write_5m += unreported
    uncached = given - read - write_5m - write_1h
    return Usage(given if uncached < 0 else uncached, read, write_5m, write_1h, output)


def warn_of_oddities(model: str, reported: object, usage: Usage | None) -> None:
    """Name a model once that reports its tokens in its own way, with the types of what it told."""
    details = mapping(mapping(reported).get("input_token_details"))
    named = {name if name.endswith("tokens") else f"{name} tokens": value for name, value in details.items()}
    if odd := (*oddities(reported, "usage_metadata"), *oddities(named)):
        warn_once(*told_oddly(model, odd, usage))


def asked_ttl(messages: Iterable[BaseMessage]) -> TTL:
    """The TTL of a request's marks where they agree, else 5m.

    ChatAnthropicBedrock's streams report a write without its TTL; the request tells.
    """
    blocks = [block for message in messages if isinstance(message.content, list) for block in message.content]
    marks = [block["cache_control"] for block in blocks if isinstance(block, dict) and block.get("cache_control")]
    return "1h" if marks and all(mark.get("ttl") == "1h" for mark in marks) else "5m"


def answered_from_cache(reported: Mapping[str, Any] | None) -> bool:
    """Whether LangChain's own LLM cache gave the answer: it repeats the first call's usage, at a cost of 0."""
    return mapping(reported).get("total_cost") == 0


def model_of(metadata: Mapping[str, Any]) -> str | None:
    """The model that an answer's `response_metadata` names."""
    named = (metadata.get(key) for key in ("model_name", "model_id", "model"))
    return next((name for name in named if isinstance(name, str) and name), None)


def tier_of(metadata: Mapping[str, Any]) -> str | None:
    """The service tier that served an answer, None where it says none."""
    tier = metadata.get("serviceTier") or metadata.get("service_tier")
    if tier is None:
        tier = mapping(metadata.get("usage")).get("service_tier")
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
        usage = self.usage
        warn_of_oddities(self.model, self.reported, usage)
        if usage is None:
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
            return price_of(self._prices, model, usage, at=at, service_tier=tier, region=region)
        quote = None if tier else _anthropic_quote(model, datetime.fromtimestamp(at, UTC).date())
        return None if quote is None else quote.prices.cost(usage, quote.as_of)


@lru_cache(maxsize=512)
def _anthropic_quote(model: str, day: date) -> Quote | None:
    return published_quote(model, datetime(day.year, day.month, day.day, 12, tzinfo=UTC), _ANTHROPIC)
