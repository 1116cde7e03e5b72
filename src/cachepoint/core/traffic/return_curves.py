"""How likely a prefix is to come back, and how soon: return curves by kind of boundary.

A curve is an actuarial life table over a few time buckets. A visit that has not been followed by
another yet counts as at risk only in the buckets its age has passed, and half in the one it is in: long
gaps take long to show, and an open gap is no failure. A prior, worth a few visits, serves until
evidence comes. Every visit weighs the same in all it is counted in, by when it was made: a wait that is
open, one that ended, here or in another process, and one that was given up.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from cachepoint.core.traffic.evidence import (
    AT_RISK,
    BEGUN,
    ELSEWHERE,
    EPOCH,
    EVENTS,
    FOLLOWED,
    N_COUNTERS,
    NO_COUNTS,
    SOONER,
    Counts,
    Delta,
    added,
    carried,
    epoch_of,
    weight,
)
from cachepoint.core.traffic.kinds import (
    BUCKETS,
    COARSE,
    N_BUCKETS,
    UNTIL_1H,
    UNTIL_5M,
    CurveKey,
    Role,
    bucket,
    coarser,
)
from cachepoint.core.traffic.waits import Ages

PRIOR_WEIGHT = 2.0
"""A prior counts as much as this many visits: a handful of wasted writes overrules it."""
OWN_PRIOR_WEIGHT = 1.0
"""What a boundary's kind says counts as much as this many returns of its own."""
OWN_VISITS_WEIGHT = 8.0
"""How often a boundary came back speaks as loud as its kind's curve from this many visits on."""
SOON = tuple(float(index >= UNTIL_5M - 1) for index in range(N_BUCKETS))
"""The spread of a return within five minutes, as a read tells."""
LATE_SEEN = 0.5
"""Returns between five minutes and an hour from which on a kind is known to have such: one of yesterday is."""
HALFWAY = 0.5
"""A visit whose age is inside a bucket has been at risk in it for half of it, on average."""
UNPROVEN = 8
"""Returns elsewhere believed in a row that no read has borne out: a history trimmed by its user looks the same."""
PART_SEEN = 1.0
"""From so many returns elsewhere on, how many visits follow is no longer judged by those seen here."""
LONGEST_WAIT = BUCKETS[-1]
"""Seconds until a wait is given up: no entry lives longer. A boundary has shown by then how it lasts."""
OUT_OF_ORDER = 120.0
"""Seconds by which requests may come out of order; a time further back is a clock that was set back."""

_SLOW = (0.15, 0.35, 0.6, 0.8, 0.92, 0.98, 1.0)
_FAST = (0.6, 0.85, 0.95, 0.98, 0.99, 1.0, 1.0)


class Outlook(NamedTuple):
    """What to expect of a boundary: further visits, and the chance that the next comes in time."""

    visits: float
    within_5m: float
    within_1h: float


class Forecast(NamedTuple):
    """What a kind of boundary promises: the chance of a return by the end of each bucket, and visits that follow.

    `late` says that returns after five minutes and within an hour were seen: an hour is never bought on a prior.
    """

    returns: Sequence[float]
    visits: float = math.inf
    late: bool = False


class Prior(NamedTuple):
    """The chance of a return at all, and how returns spread over the buckets (cumulative)."""

    returns: float
    spread: Sequence[float]

    @property
    def forecast(self) -> Forecast:
        """The chance of a return by the end of each bucket."""
        return Forecast(tuple(self.returns * share for share in self.spread))


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
CAUTIOUS = Prior(0.1, _SLOW)
"""Where sizes are not told apart, the least that any role promises: what is lumped together must prove itself."""

_FIRST = {role: prior.forecast for role, prior in PRIORS.items()}
_AGAIN, _COARSE = AGAIN.forecast, CAUTIOUS.forecast


def prior_forecast(kind: CurveKey) -> Forecast:
    """What is assumed of a kind of boundary without evidence."""
    role, again, size = kind
    return _COARSE if size == COARSE else _AGAIN if again else _FIRST[role]


class Happened(NamedTuple):
    """What one request shows of habits.

    `waits` are the kinds of its boundaries whose return is awaited from now on; `returned` are the waits
    that ended with it and `superseded` those that its conversation went on without, each as its kind and
    its beginning in wall seconds. `begun` are the kinds that boundaries became, `followed` the kinds
    whose boundaries had one more visit.
    """

    waits: Sequence[CurveKey] = ()
    returned: Sequence[tuple[CurveKey, float]] = ()
    superseded: Sequence[tuple[CurveKey, float]] = ()
    begun: Sequence[CurveKey] = ()
    followed: Sequence[CurveKey] = ()


@dataclass(slots=True)
class ReturnCurve:
    """The evidence of one kind of boundary: its counters, in the numbers of an epoch, and what is under way.

    `waits` are the visits whose return is awaited, `young` the boundaries that became one of the kind
    within the last hour. `unproven` returns elsewhere in a row were borne out by no read.
    """

    counts: array[float] = field(default_factory=lambda: array("d", NO_COUNTS))
    waits: Ages = field(default_factory=Ages)
    young: Ages = field(default_factory=Ages)
    unproven: int = 0

    def counted(self, epoch: int, now: float) -> list[float]:
        """The counters with what is under way as far as it has come, in the numbers of an epoch."""
        counts = list(self.counts)
        waits = self.waits.slots()
        if waits:
            reached, further = [0.0] * N_BUCKETS, 0.0
            for begun, count in waits:
                reached[bisect_right(BUCKETS, now - begun)] += count * weight(begun, epoch)
            for index in range(N_BUCKETS - 1, -1, -1):
                counts[AT_RISK + index] += further + HALFWAY * reached[index]
                further += reached[index]
        for begun, count in self.young.slots():
            had = min(max((now - begun) / LONGEST_WAIT, 0.0), 1.0)
            counts[BEGUN] += count * had * weight(begun, epoch)
        return counts

    def forecast(self, prior: Forecast, epoch: int, now: float, at: float) -> Forecast:
        """What the kind promises at `now`, given what is assumed without evidence; evidence fades until `at`."""
        counts, believed = as_they_came(self.counted(epoch, now)), PRIOR_WEIGHT * weight(at, epoch)
        returns = _product_limit(prior.returns, believed, counts)
        late = sum(counts[EVENTS + UNTIL_5M : EVENTS + UNTIL_1H]) >= LATE_SEEN * weight(at, epoch)
        if counts[ELSEWHERE] * PRIOR_WEIGHT >= PART_SEEN * believed:
            return Forecast(returns, late=late)  # other processes visit them too: what follows here says nothing
        visits = (counts[FOLLOWED] + believed * _for_ever(returns)) / (counts[BEGUN] + believed)
        return Forecast(returns, max(visits, 0.0), late)


def as_they_came(counts: Sequence[float]) -> list[float]:
    """Counters with the late returns that others came before taken for returns within five minutes.

    Two keepers of the same evidence may both have found that of one return: no more are moved than there are.
    """
    result = list(counts)
    if not any(result[SOONER:]):
        return result
    for late in range(UNTIL_5M, N_BUCKETS):
        moved = min(counts[SOONER + late - UNTIL_5M], counts[EVENTS + late])
        result[EVENTS + late] -= moved
        result[EVENTS + UNTIL_5M - 1] += moved
        for index in range(AT_RISK + UNTIL_5M, AT_RISK + late + 1):
            result[index] = max(result[index] - moved, 0.0)
    return result


def _product_limit(prior: Sequence[float], believed: float, counts: Sequence[float]) -> tuple[float, ...]:
    """Kaplan and Meier's estimate of returns by bucket, with a prior that is worth so many visits."""
    survived, before, result = 1.0, 0.0, []
    for index, by in enumerate(prior):
        at_risk = counts[AT_RISK + index] + believed * (1.0 - before)
        returned = counts[EVENTS + index] + believed * (by - before)
        if at_risk > 0 < returned:
            survived *= 1.0 - returned / at_risk if returned < at_risk else 0.0
        result.append(1.0 - survived)
        before = by
    return tuple(result)


@dataclass
class Habits:
    """The return curves of one scope, one for each kind of boundary: a keeper of deltas.

    `undated` is what a profile tells, as plain counts: they fade from their first use on, not while the
    profile lies in a file.
    """

    curves: dict[CurveKey, ReturnCurve] = field(default_factory=dict)
    undated: Mapping[CurveKey, Counts] = field(default_factory=dict)
    epoch: int = 0
    newest: float = -math.inf
    _clock: float = -math.inf

    def learn(self, delta: Delta) -> None:
        """Add a delta."""
        self._enter(max(delta.epoch, self.epoch))
        # A keeper whose clock is ahead: before an epoch's start its numbers are not to be read, nor to be added to.
        self.newest = max(self.newest, self.epoch * EPOCH)
        self._learn(delta.in_epoch(self.epoch).rows)

    def evidence(self, now: float) -> Delta:
        """All that is known by now, what is under way as far as it has come."""
        rows = {kind: tuple(curve.counted(self.epoch, now)) for kind, curve in self.curves.items()}
        return Delta(self.epoch, rows).merged(Delta.at(self._fading_until(now), self.undated))

    def counted(self, now: float) -> dict[CurveKey, Counts]:
        """The same as plain counts."""
        return self.evidence(now).counted(self._fading_until(now))

    def curve(self, kind: CurveKey) -> ReturnCurve:
        """The curve that counts for a kind of boundary, made when first asked for."""
        found = self.curves.get(kind) or self.curves.get(coarser(kind))
        if found is None:
            found = self.curves[kind] = ReturnCurve()
        return found

    def forecasts(self, kinds: Iterable[CurveKey], now: float, *, withdrawn: bool = False) -> dict[CurveKey, Forecast]:
        """What kinds of boundary promise by the evidence so far; `withdrawn`: where nothing is assumed without it."""
        at = self._at(now)
        return {kind: self._forecast(kind, now, at, withdrawn=withdrawn) for kind in kinds}

    def shared(self, kinds: Iterable[CurveKey], now: float) -> bool:
        """Whether other processes are known to visit boundaries of any of these kinds."""
        least = PART_SEEN * weight(self._at(now), self.epoch)
        curves = (self.curves.get(kind) for kind in kinds)
        return any(
            curve is not None and curve.unproven <= UNPROVEN and curve.counts[ELSEWHERE] >= least for curve in curves
        )

    def observe(self, happened: Happened, now: float) -> None:
        """One request came."""
        at = self._at(now)
        if now < self._clock - OUT_OF_ORDER:
            self._give_up_waiting(self._clock)
            self._clock = now
        self._clock = max(self._clock, now)
        rows: dict[CurveKey, list[float]] = {}
        for kind, begun in happened.returned:
            if self.curve(kind).waits.remove(begun):
                found = bucket(now - begun)
                row = self._passed(rows, kind, self._weight(begun, at), found + 1)
                row[EVENTS + found] += self._weight(begun, at)
        for kind, begun in happened.superseded:
            if self.curve(kind).waits.remove(begun):
                self._passed(rows, kind, self._weight(begun, at), N_BUCKETS)
        each = self._weight(now, at)
        for kind, times in Counter(happened.followed).items():
            self._row(rows, kind)[FOLLOWED] += times * each
        for kind, times in Counter(happened.waits).items():
            waits = self.curve(kind).waits
            for begun, count in waits.take_before(now - LONGEST_WAIT):
                self._passed(rows, kind, count * self._weight(begun, at), N_BUCKETS)
            waits.add(now, times)
        for kind, times in Counter(happened.begun).items():
            young = self.curve(kind).young
            for begun, count in young.take_before(now - LONGEST_WAIT):
                self._row(rows, kind)[BEGUN] += count * self._weight(begun, at)
            young.add(now, times)
        self._learn(rows)

    def forgotten(self, waits: Iterable[tuple[CurveKey, float]], now: float) -> None:
        """Boundaries whose return was awaited are no longer remembered: they count as far as they have come."""
        at, rows = self._at(now), dict[CurveKey, list[float]]()
        for kind, begun in waits:
            if self.curve(kind).waits.remove(begun):
                self._come_so_far(rows, kind, self._weight(begun, at), now - begun)
        self._learn(rows)

    def returned_elsewhere(self, kind: CurveKey, spread: Sequence[float] | None, now: float, *, read: bool) -> None:
        """A visit like these came back to another process: one fewer is waited for here.

        `spread` is the chance that it had come by the end of each bucket, by default that of the kind, and within five
        minutes where nothing else was seen of it. `read` says
        that a read shows it, without which only some are believed.
        """
        curve, at = self.curve(kind), self._at(now)
        curve.unproven = 0 if read else curve.unproven + 1
        if curve.unproven > UNPROVEN:
            return
        if spread is None:
            forecast = self._forecast(kind, now, at)
            whole = forecast.returns[-1 if forecast.late else UNTIL_5M - 1]
            spread = [min(by / whole, 1.0) if whole else 1.0 for by in forecast.returns]
        begun = curve.waits.remove_oldest()
        rows: dict[CurveKey, list[float]] = {}
        row, each, before = self._row(rows, kind), self._weight(now if begun is None else begun, at), 0.0
        row[ELSEWHERE] += self._weight(now, at)
        for index, by in enumerate(spread):
            row[AT_RISK + index] += each * (1 - before)
            row[EVENTS + index] += each * (by - before)
            before = by
        self._learn(rows)

    def returned_sooner(self, kind: CurveKey, gap: float, now: float) -> None:
        """Others came in between: the return that ended a wait of `gap` seconds, if one did, came within minutes."""
        curve, at, late = self.curve(kind), self._at(now), bucket(gap)
        curve.unproven = 0
        rows: dict[CurveKey, list[float]] = {}
        row, each = self._row(rows, kind), self._weight(now - gap, at)
        row[ELSEWHERE] += self._weight(now, at)
        if late >= UNTIL_5M:
            place = SOONER + late - UNTIL_5M
            # Half a return may be the rounding of a whole one.
            if curve.counts[EVENTS + late] - curve.counts[place] > HALFWAY * each:
                row[place] += each
        self._learn(rows)

    def coarsen(self, kept: int) -> None:
        """Lump sizes together, in the role that has most, until at most so many curves are left, or nothing to lump."""
        while len(self.curves) > kept:
            sizes: dict[CurveKey, list[CurveKey]] = {}
            for kind in self.curves:
                if not kind[1] and kind[2] != COARSE:
                    sizes.setdefault(coarser(kind), []).append(kind)
            if not sizes:
                return
            coarse = max(sizes, key=lambda kind: (len(sizes[kind]), kind))
            total = self.curves.pop(coarse, None) or ReturnCurve()
            for kind in sizes[coarse]:
                fine = self.curves.pop(kind)
                total.counts = array("d", added(tuple(total.counts), tuple(fine.counts)))
                total.waits.put_in(fine.waits)
                total.young.put_in(fine.young)
                total.unproven = max(total.unproven, fine.unproven)
            self.curves[coarse] = total

    # -- parts ------------------------------------------------------------------------------------

    def _forecast(self, kind: CurveKey, now: float, at: float, *, withdrawn: bool = False) -> Forecast:
        prior, found = _COARSE if withdrawn else prior_forecast(kind), self.curves.get(kind)
        if found is None and (found := self.curves.get(coarser(kind))) is not None:
            prior = _COARSE
        return prior if found is None else found.forecast(prior, self.epoch, now, at)

    def _fading_until(self, now: float) -> float:
        """Evidence is never younger than its newest part: a clock set back stands still for it."""
        return max(now, self.newest)

    def _at(self, now: float) -> float:
        """The time that evidence fades to, which from now on it has faded to."""
        self.newest = at = self._fading_until(now)
        if self.undated:
            undated, self.undated = self.undated, {}
            self.learn(Delta.at(at, undated))
        self._enter(epoch_of(at))
        return at

    def _enter(self, epoch: int) -> None:
        if epoch > self.epoch:
            each, self.epoch = carried(epoch - self.epoch), epoch
            for curve in self.curves.values():
                curve.counts = array("d", (count * each for count in curve.counts))

    def _weight(self, begun: float, at: float) -> float:
        # No wait is longer, and none begins later than now: what seems to was told by a clock that was set since, and
        # would count nothing, or beyond all numbers.
        return weight(min(max(begun, at - LONGEST_WAIT), at), self.epoch)

    def _row(self, rows: dict[CurveKey, list[float]], kind: CurveKey) -> list[float]:
        found = rows.get(kind)
        if found is None:
            found = rows[kind] = [0.0] * N_COUNTERS
        return found

    def _passed(self, rows: dict[CurveKey, list[float]], kind: CurveKey, weighed: float, buckets: int) -> list[float]:
        row = self._row(rows, kind)
        for index in range(AT_RISK, AT_RISK + min(buckets, N_BUCKETS)):
            row[index] += weighed
        return row

    def _come_so_far(self, rows: dict[CurveKey, list[float]], kind: CurveKey, weighed: float, age: float) -> None:
        reached = bucket(age)
        self._passed(rows, kind, weighed, reached)[AT_RISK + reached] += HALFWAY * weighed

    def _give_up_waiting(self, now: float) -> None:
        """All waits end as far as they have come, and young boundaries as old as they are."""
        at, rows = self._fading_until(now), dict[CurveKey, list[float]]()
        for kind, curve in self.curves.items():
            for begun, count in curve.waits.take_before(math.inf):
                self._come_so_far(rows, kind, count * self._weight(begun, at), now - begun)
            for begun, count in curve.young.take_before(math.inf):
                self._row(rows, kind)[BEGUN] += count * self._weight(begun, at)
        self._learn(rows)

    def _learn(self, rows: Mapping[CurveKey, Sequence[float]]) -> None:
        """Add rows in the numbers of this epoch."""
        for kind, row in rows.items():
            counts = self.curve(kind).counts
            for index, count in enumerate(row):
                if count:
                    counts[index] += count


def outlook(forecast: Forecast, seen: float = 0, gaps: Sequence[float] = ()) -> Outlook:
    """What to expect of a boundary seen `seen` times before, with these gaps by bucket, given its kind's forecast.

    What came back so often is expected as often again, whatever its kind does on average.
    """
    cumulative = forecast.returns
    returns = min(max(cumulative[-1], 1e-6), 1 - 1e-6)
    total = sum(gaps)
    by_5m = (sum(gaps[:UNTIL_5M]) + OWN_PRIOR_WEIGHT * cumulative[UNTIL_5M - 1] / returns) / (total + OWN_PRIOR_WEIGHT)
    kept = cumulative[(UNTIL_1H if forecast.late else UNTIL_5M) - 1]
    by_1h = (sum(gaps[:UNTIL_1H]) + OWN_PRIOR_WEIGHT * kept / returns) / (total + OWN_PRIOR_WEIGHT)
    promised = _for_ever(cumulative) + seen / (OWN_VISITS_WEIGHT * (1 - returns))
    return Outlook(min(promised, max(forecast.visits, seen)), min(by_5m, 1.0), min(by_1h, 1.0))


def returns_by_bucket(forecast: Forecast, gaps: Sequence[float] = ()) -> tuple[float, ...]:
    """The chance that a boundary with these gaps comes back by the end of each bucket, given its kind's forecast."""
    cumulative, total = forecast.returns, sum(gaps)
    if not total or not cumulative[-1]:
        return tuple(cumulative)
    own, found = 0.0, []
    for gap, by in zip(gaps, cumulative, strict=True):
        own += gap
        found.append((own * cumulative[-1] + OWN_PRIOR_WEIGHT * by) / (total + OWN_PRIOR_WEIGHT))
    return tuple(found)


def first_outlook(first: Forecast, again: Forecast) -> Outlook:
    """What to expect of a boundary not seen before: that it comes back, and then as those that came back before."""
    next_one, later = outlook(first), outlook(again)
    visits = min(first.returns[-1] * (1 + later.visits), first.visits)
    share = min(1 / visits, 1.0) if visits else 1.0
    return Outlook(
        visits,
        share * next_one.within_5m + (1 - share) * later.within_5m,
        share * next_one.within_1h + (1 - share) * later.within_1h,
    )


def _for_ever(cumulative: Sequence[float]) -> float:
    """The visits that follow if the chance of a return never changes."""
    returns = min(max(cumulative[-1], 1e-6), 1 - 1e-6)
    return returns / (1 - returns)
