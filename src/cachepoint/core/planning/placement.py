"""The cheapest set of boundaries to write: a small dynamic program over boundary, TTL and slots.

With input price 1, read r, write w(T), N further visits to a boundary and F(T) the chance that the next
comes within T, a token of prefix kept there saves N(F(1-r) - (1-F)(w-1)) - (w-1). A chosen set cuts the
prefix into segments, and each segment's tokens come back as often as the boundary that ends it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from cachepoint.core.planning.reasons import Placed
from cachepoint.core.provider.prices import Rates
from cachepoint.core.provider.rules import TTL
from cachepoint.core.traffic.return_curves import Outlook


@dataclass(frozen=True, slots=True)
class Candidate:
    """A boundary that may be written: its index, its prefix in calibrated tokens, its outlook, and the reason."""

    boundary: int
    tokens: float
    outlook: Outlook
    reason: Placed


class Pick(NamedTuple):
    """A chosen boundary; `worth` is what its segment is expected to save by itself, in input tokens."""

    candidate: Candidate
    ttl: TTL
    worth: float


class Choice(NamedTuple):
    """A set of picks in wire order and what it is expected to save in all, in input tokens."""

    value: float
    picks: tuple[Pick, ...]


NOTHING = Choice(0.0, ())


def saving(outlook: Outlook, rates: Rates, ttl: TTL, *, written: bool = True) -> float:
    """Expected saving a token of prefix, in input prices; `written`: it has to be written first."""
    within = outlook.within_5m if ttl == "5m" else outlook.within_1h
    write = rates.write(ttl)
    again = outlook.visits * (within * (1 - rates.read) - (1 - within) * (write - 1))
    return again - (write - 1) if written else again


def nested(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The candidates with no boundary expected back less often than a deeper one: whoever passes that passes it."""
    result: list[Candidate] = []
    for candidate in reversed(candidates):
        deeper = result[-1].outlook if result else candidate.outlook
        result.append(candidate if candidate.outlook.visits >= deeper.visits else replace(candidate, outlook=deeper))
    return result[::-1]


def choose(candidates: Sequence[Candidate], start: float, rates: Rates, ttls: Sequence[TTL], slots: int) -> Choice:
    """The set of at most `slots` candidates that saves most beyond the first `start` tokens.

    TTLs never grow along the prefix. The empty set is chosen when nothing pays.
    """
    best = NOTHING
    program = _Program(candidates, start, rates)
    rates_of = {
        (index, ttl): rate
        for index, each in enumerate(candidates)
        for ttl in ttls
        if (rate := saving(each.outlook, rates, ttl)) > 0 or ttl == "1h"  # others may pay for an hour
    }
    ending: dict[tuple[int, TTL], Choice] = {}
    for _ in range(slots):
        longer: dict[tuple[int, TTL], Choice] = {}
        for (index, ttl), rate in rates_of.items():
            gain = rate - max(rates_of.get((index, "5m"), 0.0), 0.0) if ttl == "1h" else 0.0
            found = longer[index, ttl] = program.ending_at(index, ttl, rate, gain, ending)
            if found.value > best.value:
                best = found
        if len(ending) == len(longer) and all(ending[end].value == found.value for end, found in longer.items()):
            break  # one more pick improved nothing, so another will not either
        ending = longer
    return best


@dataclass(frozen=True, slots=True)
class _Program:
    candidates: Sequence[Candidate]
    start: float
    rates: Rates

    def ending_at(
        self, index: int, ttl: TTL, rate: float, gain: float, ending: dict[tuple[int, TTL], Choice]
    ) -> Choice:
        """The best set with one more pick, `gain` being what a token of it saves beyond the shorter TTL."""
        candidate = self.candidates[index]
        worth = (candidate.tokens - self.start) * rate
        best = Choice(worth, (Pick(candidate, ttl, worth),))
        for (earlier, before), choice in ending.items():
            if earlier >= index or (before == "5m" and ttl == "1h"):
                continue
            further = candidate.tokens - self.candidates[earlier].tokens
            value = choice.value + further * rate
            if gain > 0:
                begun = choice.picks[-2].candidate.tokens if len(choice.picks) > 1 else self.start
                price = (self.candidates[earlier].tokens - begun) * _longer(self.rates)
                others = self.candidates[earlier].outlook.visits - candidate.outlook.visits
                value += shared_out(price, further * gain, others)
            if value > best.value:
                best = Choice(value, (*choice.picks, Pick(candidate, ttl, further * rate)))
        return best


def shared_out(price: float, gain: float, others: float) -> float:
    """What others pay of a price that so many share with this request, each for as much as this one gains by it.

    What stands behind a part may live for an hour only where the part does: whoever reads it on gains by that.
    """
    if gain <= 0 or others <= 0:
        return 0.0
    return price if others == math.inf else min(price * others / (1 + others), gain * others)


def _longer(rates: Rates) -> float:
    """What an hour costs beyond five minutes, a token."""
    return rates.write_1h - rates.write_5m
