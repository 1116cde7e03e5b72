"""What a call cost, what it would have cost without caching, and the difference, exactly.

The facts (P1 to P4 of docs/rules.md):
- The five classes of tokens have a price each, in USD per million tokens; they never overlap.
- Above a threshold of prompt tokens, cached ones included, some models price the whole request
  higher: every token, not only those above the threshold (P3).
- Without caching, every prompt token would have cost the input price.

Amounts are `Decimal` and computed in a context of this module's own, so that a program which
changed the ambient precision, rounding or traps still gets the exact amount.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from decimal import Context, Decimal, DivisionByZero, InvalidOperation, localcontext
from typing import Protocol

from cachepoint.core.provider.rules import TTL
from cachepoint.core.provider.usage import Usage
from cachepoint.errors import ConfigurationError

# Tokens x price needs some 30 digits at most; with 60 no amount is ever rounded.
_EXACT = Context(prec=60, traps=[InvalidOperation, DivisionByZero])
_NOTHING = Decimal(0)
_MOST_DIGITS = 15  # a thousand billion USD: no call costs that much
_TOKENS_PER_PRICE = 6  # prices are per 10**6 tokens


@dataclass(frozen=True, slots=True)
class Cost:
    """What a call cost, what it would have cost uncached, and the saving, in USD.

    `saved_usd` is negative when caching cost money. `prices_as_of` is the date of the prices, in a
    sum the newest; empty when the user gave them without a date. `write_usd` is the part of `usd` that
    went into cache writes; two costs compare equal without it.
    """

    usd: Decimal = Decimal(0)
    uncached_usd: Decimal = Decimal(0)
    saved_usd: Decimal = Decimal(0)
    prices_as_of: str = ""
    write_usd: Decimal = field(default=Decimal(0), compare=False)

    def __add__(self, other: Cost) -> Cost:
        add = _EXACT.add
        return Cost(
            add(self.usd, other.usd),
            add(self.uncached_usd, other.uncached_usd),
            add(self.saved_usd, other.saved_usd),
            max(self.prices_as_of, other.prices_as_of),
            add(self.write_usd, other.write_usd),
        )

    def moved(self, usd: Decimal) -> Cost:
        """This cost with an amount more, taken from the saving."""
        with localcontext(_EXACT):
            return replace(self, usd=self.usd + usd, saved_usd=self.saved_usd - usd)

    def to_dict(self) -> dict[str, str]:
        """The amounts in plain notation, as the call contract prints them."""
        return {
            "usd": plain(self.usd),
            "uncached_usd": plain(self.uncached_usd),
            "saved_usd": plain(self.saved_usd),
            "prices_as_of": self.prices_as_of,
        }


def wrong_with(given: object) -> str | None:
    """What is wrong with a cost that somebody else's prices gave, by its type; None where nothing is.

    An amount has to be finite and of a size that can be printed: Decimal("1e999999") has a million digits.
    """
    if given is None:
        return None
    if not isinstance(given, Cost):
        return f"a {type(given).__name__}"
    for name in ("usd", "uncached_usd", "saved_usd", "write_usd"):
        amount: object = getattr(given, name)
        if not isinstance(amount, Decimal):
            return f"a Cost whose {name} is a {type(amount).__name__}"
        if (
            not amount.is_finite()
            or not -_EXACT.prec < amount.adjusted() < _MOST_DIGITS
            or _places(amount) > _EXACT.prec
        ):
            return f"a Cost whose {name} is no amount"
    if given.usd < 0 or given.uncached_usd < 0 or given.write_usd < 0:
        return "a Cost below zero"
    as_of: object = given.prices_as_of
    return None if isinstance(as_of, str) else f"a Cost whose prices_as_of is a {type(as_of).__name__}"


def _places(amount: Decimal) -> int:
    exponent = amount.as_tuple().exponent
    return -exponent if isinstance(exponent, int) else 0


def exactly(*amounts: Decimal) -> Decimal:
    """The sum of amounts, to the last digit."""
    total = _NOTHING
    for amount in amounts:
        total = _EXACT.add(total, amount)
    return total


def plain(amount: Decimal) -> str:
    """An amount exactly, without exponent and without trailing zeros."""
    text = format(amount, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


@dataclass(frozen=True, slots=True)
class TokenPrices:
    """Prices in USD per million tokens; None where a class has no known price."""

    input: Decimal
    output: Decimal
    cache_read: Decimal | None = None
    cache_write_5m: Decimal | None = None
    cache_write_1h: Decimal | None = None

    @classmethod
    def of(cls, prices: Mapping[str, object], where: str = "price table") -> TokenPrices:
        """Prices from numbers under this class's field names; a float counts as it is written.

        Raises ConfigurationError, which names `where` and the wrong field.
        """
        names = [field.name for field in fields(cls)]
        for name in prices:
            if name not in names:
                raise ConfigurationError(f"{where}: unknown price {name!r}; use any of {', '.join(names)}")
        for name in ("input", "output"):
            if prices.get(name) is None:
                raise ConfigurationError(f"{where}: no {name!r} price; give it in USD per million tokens")
        return cls(**{name: _price(value, f"{where}: {name}") for name, value in prices.items() if value is not None})

    def times(self, prompt: Decimal, output: Decimal | None = None) -> TokenPrices:
        """These prices times a factor, or times one for the prompt's classes and one for output."""
        with localcontext(_EXACT):
            return TokenPrices(
                input=self.input * prompt,
                output=self.output * (prompt if output is None else output),
                cache_read=None if self.cache_read is None else self.cache_read * prompt,
                cache_write_5m=None if self.cache_write_5m is None else self.cache_write_5m * prompt,
                cache_write_1h=None if self.cache_write_1h is None else self.cache_write_1h * prompt,
            )

    def amount(self, usage: Usage) -> Decimal | None:
        """What the tokens cost in USD; None when a class with tokens has no price."""
        parts = self.parts(usage)
        return None if parts is None else _usd(*parts)

    def parts(self, usage: Usage) -> tuple[Decimal, ...] | None:
        """What the tokens cost by class, output second, in millionths of a USD; None as above."""
        parts = []
        for count, price in (
            (usage.input, self.input),
            (usage.output, self.output),
            (usage.cache_read, self.cache_read),
            (usage.cache_write_5m, self.cache_write_5m),
            (usage.cache_write_1h, self.cache_write_1h),
        ):
            if count and price is None:
                return None
            parts.append(_EXACT.multiply(price, count) if count and price is not None else _NOTHING)
        return tuple(parts)


def _usd(*parts: Decimal) -> Decimal:
    total = _NOTHING
    for part in parts:
        if part is not _NOTHING:
            total = _EXACT.add(total, part)
    return _EXACT.scaleb(total, -_TOKENS_PER_PRICE)


def _price(value: object, where: str) -> Decimal:
    try:
        price = Decimal(str(value))
    except InvalidOperation:
        price = Decimal("nan")
    if price.is_finite() and price >= 0:
        return price
    raise ConfigurationError(f"{where} is {value!r}; give a price in USD per million tokens, 0 or more")


@dataclass(frozen=True, slots=True)
class ModelPrices:
    """The prices of one model id, with its long-prompt tiers.

    `tiers` are (prompt tokens, prices) in ascending order: a request whose whole prompt is longer
    than that many tokens is priced so, all of it.
    """

    standard: TokenPrices
    tiers: tuple[tuple[int, TokenPrices], ...] = ()

    def for_prompt(self, tokens: int) -> TokenPrices:
        """The prices of a request whose whole prompt has so many tokens, cached ones included."""
        above = [prices for threshold, prices in self.tiers if tokens > threshold]
        return above[-1] if above else self.standard

    def times(self, factor: Decimal) -> ModelPrices:
        """These prices times a factor, in every tier."""
        return ModelPrices(
            self.standard.times(factor),
            tuple((threshold, prices.times(factor)) for threshold, prices in self.tiers),
        )

    def cost(self, usage: Usage, prices_as_of: str = "") -> Cost | None:
        """The cost of a call; None when a class with tokens has no price."""
        prices = self.for_prompt(usage.prompt)
        parts = prices.parts(usage)
        if parts is None:
            return None
        usd, written = _usd(*parts), _usd(*parts[3:])
        uncached = _usd(_EXACT.multiply(prices.input, usage.prompt), parts[1])
        return Cost(usd, uncached, _EXACT.subtract(uncached, usd), prices_as_of, written)


class Prices(Protocol):
    """Where the ledger gets the cost of a call from."""

    def price(
        self,
        model_id: str,
        usage: Usage,
        *,
        at: float | datetime,
        service_tier: str | None = None,
        region: str | None = None,
    ) -> Cost | None:
        """The cost of a call that started `at` (Unix seconds, or a datetime); None when unknown.

        `region` is the client's, for ids that do not say where they are served.
        """


@dataclass(frozen=True, slots=True)
class Rates:
    """Prices relative to uncached input: a read, a 5m write, a 1h write. Defaults are P1's."""

    read: float = 0.1
    write_5m: float = 1.25
    write_1h: float = 2.0

    def write(self, ttl: TTL) -> float:
        """The relative price of writing with a TTL."""
        return self.write_5m if ttl == "5m" else self.write_1h
