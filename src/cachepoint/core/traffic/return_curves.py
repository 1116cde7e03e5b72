"""How likely a prefix is to come back, and how soon: return curves by kind of boundary.

A curve is an actuarial life table over a few time buckets. A visit that has not been followed by
another yet counts as at risk only in the buckets its age has passed, and half in the one it is in: long
gaps take long to show, and an open gap is no failure. A prior, worth a few visits, serves until
evidence comes; evidence fades, so that a change of traffic is followed.
"""

from __future__ import annotations

import math
from bisect import bisect_right, insort
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, get_args

Role = Literal[
    "tools_end", "system_end", "context_end", "history_end",
    "tail_single", "tail_turns", "tail_stuffed", "tail_tools", "inner", "cut",
]  # fmt: skip
"""What a boundary is in its prompt: the evidence of like boundaries is shared."""
NAMED: frozenset[Role] = frozenset(get_args(Role)) - {"inner", "cut"}
"""The roles that the prompt's structure gives, seen before or not."""

BUCKETS = (15.0, 45.0, 120.0, 300.0, 900.0, 3600.0)
"""Bucket limits in seconds; the last bucket is everything later."""
N_BUCKETS = len(BUCKETS) + 1
UNTIL_5M = BUCKETS.index(300.0) + 1
UNTIL_1H = BUCKETS.index(3600.0) + 1

PRIOR_WEIGHT = 2.0
"""A prior counts as much as this many visits: a handful of wasted writes overrules it."""
OWN_PRIOR_WEIGHT = 1.0
"""What a boundary's kind says counts as much as this many returns of its own."""
OWN_VISITS_WEIGHT = 8.0
"""How often a boundary came back speaks as loud as its kind's curve from this many visits on."""
FADING = 0.998
"""Each new event weighs the older ones down by this much: about five hundred events are remembered."""
SOON = tuple(float(index >= UNTIL_5M - 1) for index in range(N_BUCKETS))
"""The spread of a return within five minutes, as a read tells."""
LATE = tuple(float(index >= UNTIL_5M) for index in range(N_BUCKETS))
"""The spread of a return after five minutes, as a read tells that did not come."""
HALFWAY = 0.5
"""A visit whose age is inside a bucket has been at risk in it for half of it, on average."""
UNPROVEN = 8
"""Returns elsewhere believed in a row that no read has borne out: a history trimmed by its user looks the same."""
PART_SEEN = 1.0
"""From so many returns elsewhere on, how many visits follow is no longer judged by those seen here."""
PENDING_KEPT = 1024
"""Visits a curve waits for; of older ones it is remembered only how long they were waited for."""
_FEWEST_PENDING = 16

_SLOW = (0.15, 0.35, 0.6, 0.8, 0.92, 0.98, 1.0)
_FAST = (0.6, 0.85, 0.95, 0.98, 0.99, 1.0, 1.0)


class Outlook(NamedTuple):
    """What to expect of a boundary: further visits, and the chance that the next comes in time."""

    visits: float
    within_5m: float
    within_1h: float


class Forecast(NamedTuple):
    """What a kind of boundary promises: the chance of a return by the end of each bucket, and visits that follow."""

    returns: Sequence[float]
    visits: float = math.inf


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


SIZE_LIMITS = tuple(64 << power for power in range(10))
"""Limits in tokens of the classes of what a first visit adds to the prefixes known: 64 to 32,768."""


def size_class(added: float) -> int:
    """The class of a boundary's first visit, by the tokens it adds: large additions come back less often."""
    return bisect_right(SIZE_LIMITS, added)


@dataclass(slots=True)
class Lasting:
    """How many visits follow a boundary's first one of its kind, on average.

    A rate of returns promises what comes if it stays for ever; conversations end, so this is the limit.
    """

    followed: float = 0.0
    begun: float = 0.0
    followed_elsewhere: float = 0.0
    young: deque[float] = field(default_factory=deque)
    _young_sum: float = 0.0

    def began(self, now: float, kept: int) -> None:
        """A boundary became one of this kind; `kept` young ones are told apart by age."""
        self.followed *= FADING
        self.begun *= FADING
        self.followed_elsewhere *= FADING
        self.young.append(now)
        self._young_sum += now
        while len(self.young) > kept or now - self.young[0] > BUCKETS[-1]:
            self._young_sum -= self.young.popleft()
            self.begun += 1

    def mature(self, now: float) -> float:
        """How many began, a young one by the part of an hour it has had."""
        had = (len(self.young) * now - self._young_sum) / BUCKETS[-1]
        return self.begun + min(max(had, 0.0), len(self.young))

    def visits(self, promised: float, now: float) -> float:
        """The mean, given what is promised without evidence; no limit where other processes visit them too."""
        if self.followed_elsewhere >= PART_SEEN:
            return math.inf
        return (self.followed + PRIOR_WEIGHT * promised) / (self.mature(now) + PRIOR_WEIGHT)


@dataclass(slots=True)
class ReturnCurve:
    """Evidence of one kind of boundary: gaps that ended, visits that never came back, open gaps."""

    events: list[float] = field(default_factory=lambda: [0.0] * N_BUCKETS)
    at_risk: list[float] = field(default_factory=lambda: [0.0] * N_BUCKETS)
    pending: OrderedDict[bytes, float] = field(default_factory=OrderedDict)
    pending_kept: int = PENDING_KEPT
    lasting: Lasting = field(default_factory=Lasting)
    unproven: int = 0
    _begun: list[float] = field(default_factory=list)
    _over: list[float] = field(default_factory=list)

    def visited(self, digest: bytes, now: float) -> None:
        """A visit whose return is awaited."""
        self._end(digest)
        self.pending[digest] = now
        insort(self._begun, now)
        while len(self.pending) > self.pending_kept:
            oldest = next(iter(self.pending))
            reached = bucket(now - self._end(oldest))
            self._passed(reached)
            self.at_risk[reached] += HALFWAY
        while now - self.pending[next(iter(self.pending))] > BUCKETS[-1]:
            self.lapsed(next(iter(self.pending)))

    def returned(self, digest: bytes, gap: float) -> None:
        """The awaited return came after `gap` seconds."""
        if digest not in self.pending:
            return
        self._end(digest)
        found = bucket(gap)
        self._passed(found + 1)
        self.events[found] += 1

    def lapsed(self, digest: bytes) -> None:
        """A visit that will not come back: its conversation went on without it, or an hour passed."""
        if digest in self.pending:
            self._end(digest)
            self._passed(N_BUCKETS)

    def returned_elsewhere(self, spread: Sequence[float], *, read: bool) -> None:
        """A visit like these came back to another process: one fewer is waited for here.

        `spread` is the chance that it had come by the end of each bucket; `read` says that a read shows it, without
        which only some are believed.
        """
        self.unproven = 0 if read else self.unproven + 1
        if self.unproven > UNPROVEN:
            return
        if self.pending:
            self._end(next(iter(self.pending)))
        self._passed(0)
        self.lasting.followed_elsewhere += 1
        before = 0.0
        for index, by in enumerate(spread):
            self.at_risk[index] += 1 - before
            self.events[index] += by - before
            before = by

    def returned_sooner(self, gap: float) -> None:
        """Others came in between: the return that ended a wait of `gap` seconds, if one did, came within minutes."""
        late = bucket(gap)
        self.unproven = 0
        self.lasting.followed_elsewhere += 1
        if late < UNTIL_5M or self.events[late] < 1:
            return
        self.events[late] -= 1
        self.events[UNTIL_5M - 1] += 1
        for index in range(UNTIL_5M, late + 1):
            self.at_risk[index] = max(self.at_risk[index] - 1, self.events[index])

    def cumulative(self, prior: Sequence[float], now: float) -> list[float]:
        """The chance of a return by the end of each bucket, given what is assumed without evidence."""
        return _product_limit(prior, PRIOR_WEIGHT, self.events, self.exposed(now))

    def exposed(self, now: float) -> list[float]:
        """How many visits were at risk in each bucket, those still awaited as far as they have come."""
        at_risk = list(self.at_risk)
        waiting = len(self.pending)
        for index, limit in enumerate(BUCKETS):
            older = bisect_right(self._begun, now - limit) - bisect_right(self._over, now - limit)
            at_risk[index] += older + HALFWAY * (waiting - older)
            waiting = older
        return at_risk

    def without_waits(self, now: float) -> ReturnCurve:
        """The same evidence with nothing awaited."""
        lasting = Lasting(self.lasting.followed, self.lasting.mature(now), self.lasting.followed_elsewhere)
        return ReturnCurve(list(self.events), self.exposed(now), lasting=lasting)

    def _end(self, digest: bytes) -> float:
        """Stop waiting; visits over are counted, not searched for, and both lists dropped once all is over."""
        begun = self.pending.pop(digest, None)
        if begun is None:
            return 0.0
        insort(self._over, begun)
        if len(self._over) > 2 * self.pending_kept or not self.pending:
            self._begun, self._over = sorted(self.pending.values()), []
        return begun

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


CurveKey = tuple[Role, bool, int]
"""A kind of boundary: its role, whether it was seen before, and the class of what a first visit adds, else 0."""


@dataclass
class Habits:
    """The return curves of one scope, one for each kind of boundary."""

    curves: dict[CurveKey, ReturnCurve] = field(default_factory=dict)
    pending_kept: int = PENDING_KEPT

    def limit_pending(self, kept: int) -> None:
        """Await at most about this many returns of each kind from now on."""
        kept = max(min(kept, PENDING_KEPT), _FEWEST_PENDING)
        if kept != self.pending_kept:
            self.pending_kept = kept
            for curve in self.curves.values():
                curve.pending_kept = kept

    def curve(self, kind: CurveKey) -> ReturnCurve:
        """The curve of a kind of boundary, made when first asked for."""
        found = self.curves.get(kind)
        if found is None:
            found = self.curves[kind] = ReturnCurve(pending_kept=self.pending_kept)
        return found

    def forecast(self, kind: CurveKey, now: float) -> Forecast:
        """What a kind of boundary promises by the evidence so far."""
        found = self.curves.get(kind)
        if found is None:
            return prior_forecast(kind)
        returns = found.cumulative(prior_forecast(kind).returns, now)
        return Forecast(returns, found.lasting.visits(_for_ever(returns), now))

    def spread(self, kind: CurveKey, now: float) -> list[float]:
        """How soon a kind of boundary comes back if it does: the chance by the end of each bucket."""
        returns = self.forecast(kind, now).returns
        return [by / returns[-1] if returns[-1] else 1.0 for by in returns]

    def without_waits(self, now: float) -> Habits:
        """The same evidence with nothing awaited: open waits count as far as they have come."""
        return Habits({kind: curve.without_waits(now) for kind, curve in self.curves.items()})


def prior_forecast(kind: CurveKey) -> Forecast:
    """What is assumed of a kind of boundary without evidence."""
    role, again, _ = kind
    return Forecast((AGAIN if again else PRIORS[role]).cumulative)


def outlook(forecast: Forecast, seen: int = 0, gaps: Sequence[int] = ()) -> Outlook:
    """What to expect of a boundary seen `seen` times before, with these gaps by bucket, given its kind's forecast.

    What came back so often is expected as often again, whatever its kind does on average.
    """
    cumulative = forecast.returns
    returns = min(max(cumulative[-1], 1e-6), 1 - 1e-6)
    total = sum(gaps)
    by_5m = (sum(gaps[:UNTIL_5M]) + OWN_PRIOR_WEIGHT * cumulative[UNTIL_5M - 1] / returns) / (total + OWN_PRIOR_WEIGHT)
    by_1h = (sum(gaps[:UNTIL_1H]) + OWN_PRIOR_WEIGHT * cumulative[UNTIL_1H - 1] / returns) / (total + OWN_PRIOR_WEIGHT)
    promised = _for_ever(cumulative) + seen / (OWN_VISITS_WEIGHT * (1 - returns))
    return Outlook(min(promised, max(forecast.visits, seen)), min(by_5m, 1.0), min(by_1h, 1.0))


def _for_ever(cumulative: Sequence[float]) -> float:
    """The visits that follow if the chance of a return never changes."""
    returns = min(max(cumulative[-1], 1e-6), 1 - 1e-6)
    return returns / (1 - returns)
