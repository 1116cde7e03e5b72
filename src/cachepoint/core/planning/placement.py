"""The cheapest set of boundaries to write: a small dynamic program over boundary, TTL and slots.

With input price 1, read r, write w(T), N further visits to a boundary and F(T) the chance that the next
comes within T, a token of prefix kept there saves N(F(1-r) - (1-F)(w-1)) - (w-1). A chosen set cuts the
prefix into segments, and each segment's tokens come back as often as the boundary that ends it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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
    options = _options(candidates, rates, ttls)
    ending: dict[tuple[int, TTL], Choice] = {}
    for _ in range(slots):
        longer: dict[tuple[int, TTL], Choice] = {}
        for option in options:
            found = longer[option.place, option.ttl] = _ending_at(option, candidates, ending, start, rates)
            if found.value > best.value:
                best = found
        if len(ending) == len(longer) and all(ending[end].value == found.value for end, found in longer.items()):
            break  # one more pick improved nothing, so another will not either
        ending = longer
    return best


class _Option(NamedTuple):
    """A boundary with a TTL: what a token of its segment saves, and how much of that only an hour does."""

    place: int
    ttl: TTL
    rate: float
    gain: float


def _options(candidates: Sequence[Candidate], rates: Rates, ttls: Sequence[TTL]) -> list[_Option]:
    """What is worth trying, deepest first: what saves by itself, and an hour that a deeper one may pay for."""
    options: list[_Option] = []
    gained = False
    for index in range(len(candidates) - 1, -1, -1):
        soon = max(saving(candidates[index].outlook, rates, "5m"), 0.0) if "5m" in ttls else 0.0
        if soon > 0:
            options.append(_Option(index, "5m", soon, 0.0))
        if "1h" in ttls:
            rate = saving(candidates[index].outlook, rates, "1h")
            if rate > 0 or gained:
                options.append(_Option(index, "1h", rate, rate - soon))
            gained = gained or rate > soon
    return options


def _ending_at(
    option: _Option,
    candidates: Sequence[Candidate],
    ending: Mapping[tuple[int, TTL], Choice],
    start: float,
    rates: Rates,
) -> Choice:
    """The best set that ends with an option."""
    index, ttl, rate, gain = option
    candidate = candidates[index]
    here, visits = candidate.tokens, candidate.outlook.visits
    value, after = (here - start) * rate, NOTHING
    for (earlier, before), choice in ending.items():
        if earlier >= index or (before == "5m" and ttl == "1h"):
            continue
        part = candidates[earlier]
        further = here - part.tokens
        total = choice.value + further * rate
        if gain > 0:
            begun = choice.picks[-2].candidate.tokens if len(choice.picks) > 1 else start
            price = (part.tokens - begun) * (rates.write_1h - rates.write_5m)
            total += shared_out(price, further * gain, part.outlook.visits - visits)
        if total > value:
            value, after = total, choice
    begun = after.picks[-1].candidate.tokens if after.picks else start
    return Choice(value, (*after.picks, Pick(candidate, ttl, (here - begun) * rate)))


def shared_out(price: float, gain: float, others: float) -> float:
    """What others pay of a price that so many share with this request, each for as much as this one gains by it.

    What stands behind a part may live for an hour only where the part does: whoever reads it on gains by that.
    """
    if gain <= 0 or others <= 0:
        return 0.0
    return price if others == math.inf else min(price * others / (1 + others), gain * others)
