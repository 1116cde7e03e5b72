"""A sum of money that calls may cost, and what of it is spent or may be while calls are under way.

A call is let through while what is spent and what the others under way may cost stays below the budget. What it may
cost itself does not count yet, or a budget smaller than one estimate would let no call through. So calls at the same
time overspend a budget by no more than one of them does alone: by the estimate of the last that was let through.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from cachepoint._forks import Lock
from cachepoint._later import catch_up
from cachepoint.core.accounts.record import CallRecord
from cachepoint.core.prompt.tokens import IMAGE_TOKENS, MEDIA_BYTES_PER_TOKEN, PROFILES
from cachepoint.core.provider.prices import Cost, exactly, plain
from cachepoint.core.provider.usage import Usage, count
from cachepoint.errors import BudgetExceeded, ConfigurationError

UNDER_WAY_KEPT = 10_000
"""Of more calls under way than this, the oldest count as spent: a call that never tells its end is one of them."""
USUAL_OUTPUT = 4_096
"""Tokens of an answer whose request sets no limit. Most are shorter; with the models' own limits, up to 128,000 tokens,
a budget of a few USD would let only one call at a time through."""
_LIMITS = ("max_tokens", "maxTokens", "max_tokens_to_sample", "max_completion_tokens", "max_output_tokens")
_DENSEST = min(profile.dense for profile in PROFILES.values())
_LEAST_MEDIA = 1_000
"""A string of ASCII without a space in so many characters is no text but base64."""
_SPACE = re.compile(r"\s")
_PER_OBJECT = max(profile.per_message for profile in PROFILES.values())
_DEEPEST = 20
"""No request is nested deeper; one that holds itself is, and must not be followed."""


@dataclass(frozen=True, slots=True)
class Budget:
    """At most so many USD; None sets no limit."""

    usd: Decimal | None = None

    @classmethod
    def of(cls, given: Decimal | float | str | None) -> Budget:
        """The budget a user gave; a float counts as it is written. Raises ConfigurationError for what is no amount."""
        if given is None:
            return cls()
        try:
            amount = Decimal(str(given))
        except InvalidOperation:
            amount = Decimal("nan")
        if isinstance(given, bool) or not amount.is_finite() or amount < 0:
            raise ConfigurationError(f"budget_usd={given!r}: give an amount in USD, 0 or more")
        return cls(amount)

    def check(self, spent: Decimal, kept: Decimal = Decimal(0)) -> None:
        """Raise BudgetExceeded if nothing is left for another call, beside what is kept for calls of unknown cost."""
        if self.usd is not None and exactly(spent, kept) >= self.usd:
            taken = f"{plain(spent)} USD are spent"
            if kept:
                taken += f", and {plain(kept)} USD are kept for calls under way, cut off or cancelled,"
            raise BudgetExceeded(
                f"{taken} of a budget of {plain(self.usd)} USD; the next call was not sent. Raise budget_usd to go on"
            )


class Spending:
    """What is spent of a budget, and what calls under way may cost; safe to share between threads.

    `recorded` gives what the calls cost that have ended, in USD: a call is settled after it was recorded.
    """

    def __init__(self, budget: Budget, recorded: Callable[[], Decimal]) -> None:
        self.budget = budget
        self._recorded = recorded
        self._under_way: dict[Hashable, Decimal] = {}
        self._untold = Decimal(0)
        self._lock = Lock(self._in_child)

    def _in_child(self) -> None:
        """A child process has what is left of the budget; the calls under way are its parent's."""
        self._under_way.clear()

    @property
    def limited(self) -> bool:
        """Whether there is a limit to keep to."""
        return self.budget.usd is not None

    def check(self) -> None:
        """Raise BudgetExceeded if nothing is left for another call."""
        if self.limited:
            catch_up()  # a stream that was left is under way until then, and would count twice with its record
            self._check(*self._taken())

    def reserve(self, call: Hashable, usd: Decimal) -> None:
        """Keep what a call may cost until it is settled; raises BudgetExceeded if nothing is left for it."""
        if not self.limited:
            return
        catch_up()  # as above
        with self._lock.held:
            untold, under_way = self._taken()
            self._under_way[call] = usd
            while len(self._under_way) > UNDER_WAY_KEPT:
                self._untold = exactly(self._untold, self._under_way.pop(next(iter(self._under_way))))
        try:
            self._check(untold, under_way)
        except BudgetExceeded:
            self.settle(call)
            raise

    def _taken(self) -> tuple[Decimal, Decimal]:
        with self._lock.held:
            return self._untold, exactly(*self._under_way.values())

    def _check(self, untold: Decimal, under_way: Decimal) -> None:
        # After those were looked up, and without the lock: what is no longer under way has been recorded by now.
        self.budget.check(self._recorded(), exactly(untold, under_way))

    def settle(self, call: Hashable, record: CallRecord | None = None) -> None:
        """A call has ended, and its record has been counted; None where it was no call at all.

        One that may have been billed more than its record tells, or was answered and tells no usage, counts at its
        estimate where that is more.
        """
        with self._lock.held:
            usd = self._under_way.pop(call, None)
            if usd is not None and record is not None and (record.at_least or _tells_nothing(record)):
                told = record.cost.usd if record.cost is not None else Decimal(0)
                self._untold = exactly(self._untold, max(usd - told, Decimal(0)))


def _tells_nothing(record: CallRecord) -> bool:
    return record.usage is None and record.error is None


# -- estimates ------------------------------------------------------------------------------------


def estimate(price: Callable[[Usage], Cost | None], request: Any, options: Mapping[str, Any]) -> Decimal:
    """The most in USD that a request is likely to cost, 0 where its price is unknown.

    Its prompt counts at the dearest of reading nothing and writing all of it, its answer at the limit that the request
    or its `options` set, else at `USUAL_OUTPUT`.
    """
    prompt, output = round(prompt_tokens(request)), output_limit(options)
    ways = (Usage(prompt, output=output), Usage(0, 0, prompt, 0, output), Usage(0, 0, 0, prompt, output))
    return max((cost.usd for cost in map(price, ways) if cost is not None), default=Decimal(0))


def output_limit(options: Mapping[str, Any]) -> int:
    """The most tokens of output that a request asks for, by whatever name its API or framework has for that."""
    places = [options, options.get("inferenceConfig"), options.get("model_kwargs")]
    limits = [count(place.get(name)) for place in places if isinstance(place, Mapping) for name in _LIMITS]
    return max((limit for limit in limits if limit), default=USUAL_OUTPUT)


def prompt_tokens(value: Any, depth: int = 0) -> float:
    """As many tokens as a request, or a part of one, is not likely to have more of."""
    if isinstance(value, str):
        if len(value) > _LEAST_MEDIA and value.isascii() and not _SPACE.search(value, 0, _LEAST_MEDIA):
            return _media_tokens(len(value) * 3 / 4)  # base64, as frameworks have images
        return len(value.encode(errors="replace")) / _DENSEST
    if isinstance(value, bytes | bytearray):
        return _media_tokens(len(value))
    if depth == _DEEPEST:
        return 0.0
    if isinstance(value, Mapping):
        return _PER_OBJECT + sum(prompt_tokens(each, depth + 1) for pair in value.items() for each in pair)
    if isinstance(value, list | tuple):
        return sum(prompt_tokens(each, depth + 1) for each in value)
    return 1.0


def _media_tokens(size: float) -> float:
    return max(size / MEDIA_BYTES_PER_TOKEN, IMAGE_TOKENS)
