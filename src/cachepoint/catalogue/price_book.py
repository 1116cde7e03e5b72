"""What a call on Bedrock costs: `genai-prices`, and what that library lacks.

The order in which prices are looked up, the first that knows the model id wins:
1. the user's own: `overrides`, then prices in the file that CACHEPOINT_RULES names;
2. `genai-prices`, except for GovCloud, to which it gives the commercial Regions' premium;
3. the model table (`catalogue/table.py`), for ids and geographies that library does not list.

ARNs of foundation models and system inference profiles are taken apart first. Service tiers cost
what the model table says; a tier it does not know has no price.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import cache
from typing import TYPE_CHECKING, Literal

from cachepoint.catalogue.table import ModelTable, PriceZone, TableRow, load_table, price_zone
from cachepoint.core.provider.prices import Cost, ModelPrices, TokenPrices
from cachepoint.core.provider.rules import ModelRef, parse_model_id
from cachepoint.core.provider.usage import Usage
from cachepoint.errors import ConfigurationError

if TYPE_CHECKING:
    from genai_prices.types import ModelPrice, Provider, TieredPrices

PriceSource = Literal["overrides", "rules file", "genai-prices", "model table"]
STANDARD_TIERS = (None, "default", "standard")
"""Tiers at list price: none named, Converse's name for it, and what Anthropic's usage reports as `service_tier`."""
_REMEMBERED = 2048
_DATE = re.compile(r"\b20\d\d-[01]\d-[0-3]\d\b")


@dataclass(frozen=True, slots=True)
class Quote:
    """The prices of a model id, where they come from, and the date of that source.

    `as_of` is an ISO date: of genai-prices the newest its entries name up to the call's day, of a
    table's row the day it was checked; empty for `overrides`.
    """

    prices: ModelPrices
    source: PriceSource
    as_of: str = ""


class PriceBook:
    """Prices a call exactly; safe to share between threads.

    `overrides` maps a model id, a base id (for every geography of it) or an ARN to prices in USD
    per million tokens, which are taken as they are: `TokenPrices`, `ModelPrices`, or a mapping
    with the fields of `TokenPrices`. Raises ConfigurationError when one of them is none. `table` is used in place of
    the one that CACHEPOINT_RULES names in `environ`.

    The first one made in a process imports `genai-prices` (0.1 to 0.9 s), so that no call does; where that is not
    installed, the model table alone is used. Prices of a day are looked up once.
    """

    def __init__(
        self,
        overrides: Mapping[str, TokenPrices | ModelPrices | Mapping[str, object]] | None = None,
        *,
        environ: Mapping[str, str] | None = None,
        table: ModelTable | None = None,
    ) -> None:
        self._overrides = {model_id: _own(model_id, prices) for model_id, prices in (overrides or {}).items()}
        self._table = load_table(environ) if table is None else table
        _load_published()
        self._quotes: dict[tuple[str, str | None, str | None, date], Quote | None] = {}

    def price(
        self,
        model_id: str,
        usage: Usage,
        *,
        at: float | datetime,
        service_tier: str | None = None,
        region: str | None = None,
    ) -> Cost | None:
        """The cost of a call that started `at` (Unix seconds, or a datetime, naive ones in UTC).

        None when the model, its service tier or a class with tokens has no known price. `region` is
        the client's; it prices ids that do not say where they are served.
        """
        quote = self.quote(model_id, at=at, service_tier=service_tier, region=region)
        return None if quote is None else quote.prices.cost(usage, quote.as_of)

    def quote(
        self,
        model_id: str,
        *,
        at: float | datetime,
        service_tier: str | None = None,
        region: str | None = None,
    ) -> Quote | None:
        """The prices in force `at` a time, of a service tier; None when unknown."""
        started = _in_utc(at)
        # No lock: a race costs a second look-up, and dropping all at once replaces the dictionary.
        quotes, key = self._quotes, (model_id, service_tier, region, started.date())
        if key not in quotes:
            if len(quotes) >= _REMEMBERED:
                quotes = self._quotes = {}
            quotes[key] = self._look_up(model_id, started, service_tier, region)
        return quotes[key]

    def _look_up(self, model_id: str, started: datetime, service_tier: str | None, region: str | None) -> Quote | None:
        ref = parse_model_id(model_id)
        row = self._table.row(model_id)
        quote = self._standard(ref, row, price_zone(ref, region), started)
        if quote is None or service_tier in STANDARD_TIERS:
            return quote
        factor = row.service_tiers.get(service_tier or "") if row else None
        return None if factor is None else replace(quote, prices=quote.prices.times(factor))

    def _standard(self, ref: ModelRef, row: TableRow | None, zone: PriceZone, started: datetime) -> Quote | None:
        own = self._overrides.get(ref.given) or self._overrides.get(ref.base or "")
        if own:
            return Quote(own, "overrides")
        listed = row.prices_in(zone) if row else None
        if row and listed and zone in row.users_zones:
            return Quote(listed, "rules file", row.rule.checked)
        published = None
        if ref.base and zone != "us-gov":
            published = published_quote(f"{ref.geo}.{ref.base}" if ref.geo else ref.base, started)
        if published is None and row and listed:
            return Quote(listed, "model table", row.rule.checked)
        return published


def _own(model_id: str, prices: TokenPrices | ModelPrices | Mapping[str, object]) -> ModelPrices:
    if isinstance(prices, ModelPrices):
        return prices
    if isinstance(prices, TokenPrices):
        return ModelPrices(prices)
    if isinstance(prices, Mapping):
        return ModelPrices(TokenPrices.of(prices, f"price override of {model_id!r}"))
    raise ConfigurationError(
        f"price override of {model_id!r} is {prices!r}; give TokenPrices, ModelPrices or a mapping of prices"
    )


def _in_utc(at: float | datetime) -> datetime:
    if isinstance(at, datetime):
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    return datetime.fromtimestamp(at, UTC)


# -- genai-prices ---------------------------------------------------------------------------------


@cache
def _load_published() -> None:
    """Have genai-prices imported, and what it puts off until a price is asked for."""
    published_quote("anthropic.claude-sonnet-4-5-20250929-v1:0", datetime.now(UTC))


def published_quote(model_ref: str, started: datetime, provider: str = "aws") -> Quote | None:
    """What genai-prices says of a provider's model; its data only, the arithmetic is the core's own."""
    try:
        import genai_prices
    except ImportError:
        return None
    try:
        found = genai_prices.calc_price(
            genai_prices.Usage(), model_ref, provider_id=provider, genai_request_timestamp=started
        )
    except LookupError:
        return None
    prices = _model_prices(found.model_price)
    return None if prices is None else Quote(prices, "genai-prices", _as_of(found.provider, started.date()))


def _model_prices(published: ModelPrice) -> ModelPrices | None:
    by_class = {
        "input": getattr(published, "input_mtok", None),
        "output": getattr(published, "output_mtok", None),
        "cache_read": getattr(published, "cache_read_mtok", None),
        # Where no write price is published a write costs what input costs (P4).
        "cache_write_5m": getattr(published, "cache_write_mtok", None) or getattr(published, "input_mtok", None),
        "cache_write_1h": getattr(published, "cache_write_1h_mtok", None),
    }
    if by_class["input"] is None or by_class["output"] is None:
        return None
    thresholds = sorted({tier.start for price in by_class.values() for tier in getattr(price, "tiers", ())})
    standard, *longer = (
        TokenPrices.of({name: _above(price, threshold) for name, price in by_class.items()})
        for threshold in (-1, *thresholds)
    )
    return ModelPrices(standard, tuple(zip(thresholds, longer, strict=True)))


def _above(price: Decimal | TieredPrices | None, threshold: int) -> Decimal | None:
    if price is None or isinstance(price, Decimal):
        return price
    reached = [tier.price for tier in price.tiers if tier.start <= threshold]
    return reached[-1] if reached else price.base


def _as_of(provider: Provider, called: date) -> str:
    """The newest date up to the call's that the provider's entries name; the data carry no date of their own."""
    return max((day for day in _dates(provider) if day <= called.isoformat()), default="")


def _dates(provider: Provider) -> Iterable[str]:
    for model in provider.models:
        yield from _DATE.findall(model.price_comments or "")
        if isinstance(model.prices, list):
            for conditional in model.prices:
                start = getattr(conditional.constraint, "start_date", None)
                if start is not None:
                    yield start.isoformat()
