"""How likely a prefix is to come back, and how soon: return curves by kind of boundary.

A curve is a product-limit estimate over a few time buckets. A visit that has not been followed by
another yet counts as at risk only in the buckets its age has passed: long gaps take long to show, and
an open gap is no failure. A prior, worth a few visits, serves until evidence comes; evidence fades, so
that a change of traffic is followed.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

Role = Literal[
    "tools_end", "system_end", "context_end", "history_end",
    "tail_single", "tail_turns", "tail_stuffed", "tail_tools", "inner", "cut",
]  # fmt: skip
"""What a boundary is in its prompt: the evidence of like boundaries is shared."""

BUCKETS = (15.0, 45.0, 120.0, 300.0, 900.0, 3600.0)
"""Bucket limits in seconds; the last bucket is everything later."""
N_BUCKETS = len(BUCKETS) + 1
UNTIL_5M = BUCKETS.index(300.0) + 1
UNTIL_1H = BUCKETS.index(3600.0) + 1

PRIOR_WEIGHT = 2.0
"""A prior counts as much as this many visits: a handful of wasted writes overrules it."""
OWN_PRIOR_WEIGHT = 1.0
"""What a boundary's kind says counts as much as this many returns of its own."""
FADING = 0.99
"""Each new event weighs the older ones down by this much: about a hundred events are remembered."""
PENDING_KEPT = 128

_SLOW = (0.15, 0.35, 0.6, 0.8, 0.92, 0.98, 1.0)
_FAST = (0.6, 0.85, 0.95, 0.98, 0.99, 1.0, 1.0)


class Outlook(NamedTuple):
    """What to expect of a boundary: further visits, and the chance that the next comes in time."""

    visits: float
    within_5m: float
    within_1h: float


class Prior(NamedTuple):
    """The chance of a return at all, and how returns spread over the buckets (cumulative)."""

    returns: float
    spread: Sequence[float]

    @property
    def cumulative(self) -> list[float]:
        """The chance of a return by the end of each bucket."""
        return [self.returns * share for share in self.spread]


PRIORS: Mapping[Role, Prior] = {
    # Static by convention: the same for every request of an application.
    "tools_end": Prior(0.8, _SLOW),
    "system_end": Prior(0.75, _SLOW),
    # The user said that context ends here, which is worth saying only where it is used again.
    "context_end": Prior(0.6, _SLOW),
    # A conversation that has turns usually goes on; the history is then a prefix of the next request.
    "history_end": Prior(0.6, _SLOW),
    "tail_turns": Prior(0.7, _SLOW),
    # A last message far larger than those before it carries documents that the history will not keep.
    "tail_stuffed": Prior(0.2, _SLOW),
    # An agent that has just got tool results asks again within seconds.
    "tail_tools": Prior(0.9, _FAST),
    # A first question alone is most often the only one.
    "tail_single": Prior(0.1, _SLOW),
    # Ends of other blocks and places inside text: nothing is known until they are seen twice.
    "inner": Prior(0.1, _SLOW),
    "cut": Prior(0.1, _SLOW),
}
AGAIN = Prior(0.7, _SLOW)
"""After a boundary has come back once: prefixes that return tend to go on returning."""


def bucket(gap: float) -> int:
    """The bucket a gap in seconds falls into; a clock gone backwards counts as no gap."""
    return bisect_right(BUCKETS, gap)


SIZE_LIMITS = (1024, 4096, 16384)
"""Limits in tokens of the classes of what a first visit adds to the prefixes known."""


def size_class(added: float) -> int:
    """The class of a boundary's first visit, by the tokens it adds: large additions come back less often."""
    return bisect_right(SIZE_LIMITS, added)


@dataclass(slots=True)
class ReturnCurve:
    """Evidence of one kind of boundary: gaps that ended, visits that never came back, open gaps."""

    events: list[float] = field(default_factory=lambda: [0.0] * N_BUCKETS)
    at_risk: list[float] = field(default_factory=lambda: [0.0] * N_BUCKETS)
    pending: OrderedDict[bytes, float] = field(default_factory=OrderedDict)

    def visited(self, digest: bytes, now: float) -> None:
        """A visit whose return is awaited."""
        self.pending[digest] = now
        self.pending.move_to_end(digest)
        while len(self.pending) > PENDING_KEPT:
            _, then = self.pending.popitem(last=False)
            self._passed(bucket(now - then))
        while self.pending:
            oldest = next(iter(self.pending))
            if now - self.pending[oldest] <= BUCKETS[-1]:
                break
            self.lapsed(oldest)

    def returned(self, digest: bytes, gap: float) -> None:
        """The awaited return came after `gap` seconds."""
        if self.pending.pop(digest, None) is None:
            return
        found = bucket(gap)
        self._passed(found + 1)
        self.events[found] += 1

    def lapsed(self, digest: bytes) -> None:
        """A visit that will not come back: its conversation went on without it, or an hour passed."""
        if self.pending.pop(digest, None) is not None:
            self._passed(N_BUCKETS)

    def cumulative(self, prior: Sequence[float], now: float) -> list[float]:
        """The chance of a return by the end of each bucket, given what is assumed without evidence."""
        visits = sorted(self.pending.values())
        at_risk = list(self.at_risk)
        for index, limit in enumerate(BUCKETS):
            at_risk[index] += bisect_right(visits, now - limit)
        return _product_limit(prior, PRIOR_WEIGHT, self.events, at_risk)

    def _passed(self, buckets: int) -> None:
        for index in range(N_BUCKETS):
            self.events[index] *= FADING
            self.at_risk[index] *= FADING
        for index in range(min(buckets, N_BUCKETS)):
            self.at_risk[index] += 1


def _product_limit(
    prior: Sequence[float], weight: float, events: Sequence[float], at_risk: Sequence[float]
) -> list[float]:
    survived, before, result = 1.0, 0.0, []
    for index in range(N_BUCKETS):
        expected = prior[index]
        staying = 1.0 - before
        hazard = (expected - before) / staying if staying > 0 else 0.0
        pseudo = weight * staying
        total = at_risk[index] + pseudo
        survived *= 1.0 - min((events[index] + pseudo * hazard) / total if total else 0.0, 1.0)
        result.append(1.0 - survived)
        before = expected
    return result


CurveKey = tuple[Role, int | None]
"""A kind of boundary: its role, and of a first visit the class of what it adds, of later ones None."""

_ANY_SIZE = -1


@dataclass
class Habits:
    """The return curves of one scope. First visits have one for their role and one for their size in it.

    What a size has not shown yet is assumed from its role, and what a role has not, from its prior.
    """

    curves: dict[CurveKey, ReturnCurve] = field(default_factory=dict)

    def visited(self, kind: CurveKey, digest: bytes, now: float) -> None:
        """A visit whose return is awaited."""
        for curve in self._curves_of(kind):
            curve.visited(digest, now)

    def returned(self, kind: CurveKey, digest: bytes, gap: float) -> None:
        """The awaited return came after `gap` seconds."""
        for curve in self._curves_of(kind):
            curve.returned(digest, gap)

    def lapsed(self, kind: CurveKey, digest: bytes) -> None:
        """It will not come."""
        for curve in self._curves_of(kind):
            curve.lapsed(digest)

    def forecast(self, kind: CurveKey, now: float) -> list[float]:
        """The chance of a return by the end of each bucket."""
        found = prior_forecast(kind)
        for key in _keys(kind):
            curve = self.curves.get(key)
            if curve is not None:
                found = curve.cumulative(found, now)
        return found

    def copy(self) -> Habits:
        """The same evidence without the visits still awaited."""
        return Habits({key: ReturnCurve(list(c.events), list(c.at_risk)) for key, c in self.curves.items()})

    def _curves_of(self, kind: CurveKey) -> list[ReturnCurve]:
        return [self.curves.setdefault(key, ReturnCurve()) for key in _keys(kind)]


def _keys(kind: CurveKey) -> tuple[CurveKey, ...]:
    role, size = kind
    return (kind,) if size is None else ((role, _ANY_SIZE), kind)


def prior_forecast(kind: CurveKey) -> list[float]:
    """What is assumed of a kind of boundary without evidence."""
    role, size = kind
    return (AGAIN if size is None else PRIORS[role]).cumulative


def outlook(cumulative: Sequence[float], seen: int = 0, gaps: Sequence[int] = ()) -> Outlook:
    """What to expect of a boundary seen `seen` times before, with these gaps by bucket, given its kind's curve."""
    returns = min(max(cumulative[-1], 1e-6), 1 - 1e-6)
    total = sum(gaps)
    by_5m = (sum(gaps[:UNTIL_5M]) + OWN_PRIOR_WEIGHT * cumulative[UNTIL_5M - 1] / returns) / (total + OWN_PRIOR_WEIGHT)
    by_1h = (sum(gaps[:UNTIL_1H]) + OWN_PRIOR_WEIGHT * cumulative[UNTIL_1H - 1] / returns) / (total + OWN_PRIOR_WEIGHT)
    visits = (seen + PRIOR_WEIGHT * returns) / (PRIOR_WEIGHT * (1 - returns))
    return Outlook(visits, min(by_5m, 1.0), min(by_1h, 1.0))
