"""What was served and what it costs.

The emulator judges the ledger, so the arithmetic here is its own: it shares the rows of the model table, which outside
sources pin, and decides by itself which row a model id has and in which zone, at which tier, for which length and TTL a
token is priced.
Ids such as P2 are entries of docs/rules.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Context, Decimal, localcontext

from cachepoint.catalogue.table import PriceZone, TableRow, load_table
from cachepoint.core.provider.usage import Usage
from cachepoint.emulator._reading.request import Json, Operation

# Tokens x price x factors has some 30 digits at most; with 60 no amount is rounded.
_EXACT = Context(prec=60)
_MILLION = Decimal(1_000_000)
# GovCloud costs a fifth more than list price where a row has no GovCloud price (P2, from litellm's map).
_GOVCLOUD = Decimal("1.2")
# What stands before the provider's name in a profile's id: a geography, of two letters or one of these.
_GEOGRAPHY = re.compile(r"^(?:global|us-gov|apac|[a-z]{2})\.(?=[\w-]+\.)")
_PROMPT_CLASSES = ("input", "cache_read", "cache_write_5m", "cache_write_1h")


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


@dataclass(frozen=True, slots=True)
class Earlier:
    """Served calls that are no longer kept one by one: how many, their tokens, and USD of those with a price."""

    calls: int = 0
    usage: Usage = Usage()
    usd: Decimal = Decimal(0)

    def with_line(self, line: BillLine) -> Earlier:
        """These and one more call."""
        with localcontext(_EXACT):
            return Earlier(self.calls + 1, self.usage + line.usage, self.usd + (line.usd or 0))


@dataclass(frozen=True)
class Bill:
    """What all served calls cost; `unreported` are those whose usage no caller saw, which cost the same.

    Lost answers that botocore asked for again are unreported, and streams cut or abandoned before their end.
    With `keep_calls` the lines are those of the last calls only; `usage` and `total` count the `earlier` ones too.
    """

    lines: tuple[BillLine, ...]
    earlier: Earlier = Earlier()

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
        """Tokens of all served calls."""
        return self.earlier.usage + total_usage(self.lines)

    @property
    def total(self) -> Decimal:
        """USD of all served calls that have a price."""
        with localcontext(_EXACT):
            return self.earlier.usd + total_usd(self.lines)


def total_usage(lines: Iterable[BillLine]) -> Usage:
    """Tokens of some lines."""
    return sum((line.usage for line in lines), Usage())


def total_usd(lines: Iterable[BillLine]) -> Decimal:
    """USD of those lines that have a price."""
    with localcontext(_EXACT):
        return sum((line.usd for line in lines if line.usd is not None), Decimal(0))


def bill_of(calls: Iterable[ServedCall], earlier: Earlier = Earlier()) -> Bill:
    """The bill of the calls that were served."""
    return Bill(tuple(line for call in calls if (line := line_of(call))), earlier)


def line_of(call: ServedCall) -> BillLine | None:
    """A call's line on the bill; None when it was not served."""
    return None if call.usage is None else BillLine(call, call.usage, _usd(call, call.usage))


def _usd(call: ServedCall, usage: Usage) -> Decimal | None:
    """The price of a call; None when its model, its tier or a class with tokens has none."""
    model_id = call.priced_as or call.model_id
    row = row_of(model_id)
    tier = None if row is None else _tier(row, call.service_tier)
    if row is None or tier is None:
        return None
    zone = _zone(model_id, call.region)
    prompt = sum(getattr(usage, name) for name in _PROMPT_CLASSES)
    usd = Decimal(0)
    with localcontext(_EXACT):
        for name in (*_PROMPT_CLASSES, "output"):
            tokens, price = getattr(usage, name), _price(row, zone, name)
            if tokens and price is None:
                return None
            usd += tokens * (price or 0) * _length_factor(row, prompt, name)
        return usd * tier / _MILLION


def row_of(model_id: str) -> TableRow | None:
    """The first row whose pattern is in the id without ARN and geography; None for an ARN that hides its model."""
    if model_id.startswith("arn:") and not re.search(r":(?:foundation-model|inference-profile)/", model_id):
        return None
    base = _GEOGRAPHY.sub("", model_id.rpartition("/")[2], count=1)
    return next((row for row in load_table().rows if re.search(row.rule.pattern, base)), None)


def _price(row: TableRow, zone: PriceZone, name: str) -> Decimal | None:
    """USD per million tokens of a class in a zone."""
    listed = row.prices.get(zone)
    factor = Decimal(1)
    if listed is None and zone == "us-gov":
        listed, factor = row.prices.get("global"), _GOVCLOUD
    price: Decimal | None = getattr(listed, name, None)
    return None if price is None else price * factor


def _length_factor(row: TableRow, prompt: int, name: str) -> Decimal:
    """How many times the price a token of a class costs in a request with so long a prompt (P3)."""
    longer = row.long_prompt
    if longer is None or prompt <= longer.above:
        return Decimal(1)
    return longer.output if name == "output" else longer.input


def _tier(row: TableRow, name: str | None) -> Decimal | None:
    """How many times the standard price a service tier costs; None when the table does not say."""
    return Decimal(1) if name in (None, "default", "standard") else row.service_tiers.get(name)


def _zone(model_id: str, region: str) -> PriceZone:
    """Where a call is priced: `global.` profiles at list price, GovCloud apart, all else regionally (P2)."""
    name = model_id.rpartition("/")[2]
    called_in = model_id.split(":")[3] if model_id.startswith("arn:") else region
    if name.startswith("global."):
        return "global"
    return "us-gov" if name.startswith("us-gov.") or called_in.startswith("us-gov-") else "regional"
