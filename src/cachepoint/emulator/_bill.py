"""What was served and what it costs, priced from the model table and not through the ledger's code."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Context, Decimal, localcontext
from typing import TYPE_CHECKING

from cachepoint.catalogue.table import load_table, model_prices
from cachepoint.core.provider.usage import Usage
from cachepoint.emulator._reading.request import Json, Operation

if TYPE_CHECKING:
    from cachepoint.core.provider.prices import ModelPrices

_EXACT = Context(prec=60)
_MILLION = Decimal(1_000_000)


@dataclass(frozen=True, slots=True)
class ServedCall:
    """One request the emulator answered or refused.

    `time` is the emulator clock's at arrival. `status` is 0 where the connection was reset instead of an answer.
    `usage` is None for what was not served; `delivered` says whether the answer went out to the caller as far as
    its usage. `priced_as` is the model behind an opaque ARN. `body` is the request, only with `keep_text`.
    """

    time: float
    operation: Operation | None
    model_id: str
    region: str
    account: str
    status: int
    error: str | None = None
    usage: Usage | None = None
    delivered: bool = True
    points: int = 0
    priced_as: str = ""
    service_tier: str | None = None
    body: Json | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class BillLine:
    """One served call and its price in USD; None when the model table has no price for it."""

    call: ServedCall
    usage: Usage
    usd: Decimal | None


@dataclass(frozen=True)
class Bill:
    """What all served calls cost; `unreported` are those whose usage no caller saw, which cost the same.

    Lost answers that botocore asked for again are unreported, and streams cut or abandoned before their end.
    """

    lines: tuple[BillLine, ...]

    @property
    def unreported(self) -> tuple[BillLine, ...]:
        """Lines whose usage no caller saw."""
        return tuple(line for line in self.lines if not line.call.delivered)

    @property
    def reported(self) -> tuple[BillLine, ...]:
        """Lines whose usage reached the caller."""
        return tuple(line for line in self.lines if line.call.delivered)

    @property
    def usage(self) -> Usage:
        """Tokens of all lines."""
        return total_usage(self.lines)

    @property
    def total(self) -> Decimal:
        """USD of all lines that have a price."""
        return total_usd(self.lines)


def total_usage(lines: Iterable[BillLine]) -> Usage:
    """Tokens of some lines."""
    return sum((line.usage for line in lines), Usage())


def total_usd(lines: Iterable[BillLine]) -> Decimal:
    """USD of those lines that have a price."""
    with localcontext(_EXACT):
        return sum((line.usd for line in lines if line.usd is not None), Decimal(0))


@dataclass(frozen=True, slots=True)
class _Tariff:
    prices: ModelPrices
    service_tiers: Mapping[str, Decimal]


def bill_of(calls: Iterable[ServedCall]) -> Bill:
    """The bill of the calls that were served."""
    tariffs: dict[tuple[str, str], _Tariff | None] = {}
    lines = []
    for call in calls:
        if call.usage is None:
            continue
        key = (call.priced_as or call.model_id, call.region)
        if key not in tariffs:
            tariffs[key] = _tariff(*key)
        lines.append(BillLine(call, call.usage, _price(call, call.usage, tariffs[key])))
    return Bill(tuple(lines))


def _tariff(model_id: str, region: str) -> _Tariff | None:
    prices, row = model_prices(model_id, region=region), load_table().row(model_id)
    return None if prices is None or row is None else _Tariff(prices, row.service_tiers)


def _tier(call: ServedCall, tariff: _Tariff | None) -> Decimal | None:
    """How many times the standard price the call's service tier costs; None when the table does not say."""
    if call.service_tier in (None, "default"):
        return Decimal(1)
    return tariff.service_tiers.get(call.service_tier) if tariff else None


def _price(call: ServedCall, usage: Usage, tariff: _Tariff | None) -> Decimal | None:
    tier = _tier(call, tariff)
    if tariff is None or tier is None:
        return None
    rates = tariff.prices.for_prompt(usage.prompt)
    classes = (
        (usage.input, rates.input),
        (usage.cache_read, rates.cache_read),
        (usage.cache_write_5m, rates.cache_write_5m),
        (usage.cache_write_1h, rates.cache_write_1h),
        (usage.output, rates.output),
    )
    usd = Decimal(0)
    with localcontext(_EXACT):
        for tokens, rate in classes:
            if tokens and rate is None:
                return None
            usd += tokens * (rate or Decimal(0))
        return usd * tier / _MILLION
