"""The cheapest set of boundaries to write: a small dynamic program over boundary, TTL and slots.

With input price 1, read r, write w(T), N further visits to a boundary and F(T) the chance that the next
comes within T, a token of prefix kept there saves N(F(1-r) - (1-F)(w-1)) - (w-1). A chosen set cuts the
prefix into segments, and each segment's tokens come back as often as the boundary that ends it.

N and F are estimates, and of several choices the one that looks best is the one most likely overestimated:
the dearer write must promise more than its price.
"""

from __future__ import annotations

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
    """A chosen boundary; `worth` is what its segment is expected to save, in input tokens."""

    candidate: Candidate
    ttl: TTL
    worth: float


class Choice(NamedTuple):
    """A set of picks in wire order and what it is expected to save in all, in input tokens."""

    value: float
    picks: tuple[Pick, ...]


NOTHING = Choice(0.0, ())

LONGER_MARGIN = 0.25
"""The longer TTL must be expected to save its extra price and this share of it."""


def saving(outlook: Outlook, rates: Rates, ttl: TTL, *, written: bool = True) -> float:
    """Expected saving a token of prefix, in input prices; `written`: it has to be written first."""
    within = outlook.within_5m if ttl == "5m" else outlook.within_1h
    write = rates.write(ttl)
    again = outlook.visits * (within * (1 - rates.read) - (1 - within) * (write - 1))
    return again - (write - 1) - LONGER_MARGIN * (write - rates.write_5m) if written else again


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
    savings = {(i, ttl): saving(each.outlook, rates, ttl) for i, each in enumerate(candidates) for ttl in ttls}
    ending: dict[tuple[int, TTL], Choice] = {}
    for _ in range(slots):
        longer: dict[tuple[int, TTL], Choice] = {}
        for (index, ttl), rate in savings.items():
            found = longer[index, ttl] = _extend(candidates, ending, index, ttl, rate, start)
            if found.value > best.value:
                best = found
        ending = longer
    return best


def _extend(
    candidates: Sequence[Candidate],
    ending: dict[tuple[int, TTL], Choice],
    index: int,
    ttl: TTL,
    rate: float,
    start: float,
) -> Choice:
    candidate = candidates[index]
    worth = (candidate.tokens - start) * rate
    best = Choice(worth, (Pick(candidate, ttl, worth),))
    for (earlier, before), choice in ending.items():
        if earlier >= index or (before == "5m" and ttl == "1h"):
            continue
        worth = (candidate.tokens - candidates[earlier].tokens) * rate
        if choice.value + worth > best.value:
            best = Choice(choice.value + worth, (*choice.picks, Pick(candidate, ttl, worth)))
    return best
