"""What is known of one request's boundaries, as the planner gets it: a frozen view.

Times are wall seconds.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import exp2
from typing import NamedTuple

from cachepoint.core.prompt.tokens import NOT_CALIBRATED, Calibration
from cachepoint.core.traffic.entries import Cold, Entry, Shape
from cachepoint.core.traffic.evidence import HALF_LIFE
from cachepoint.core.traffic.guard import Followed
from cachepoint.core.traffic.kinds import (
    AGAIN_KIND,
    FIRST_KINDS,
    N_BUCKETS,
    NAMED,
    SIZE_LIMITS,
    STATIC,
    TAILS,
    UNTIL_5M,
    CurveKey,
    Role,
    bucket,
)
from cachepoint.core.traffic.refusals import NOTHING_REFUSED, Refusals
from cachepoint.core.traffic.return_curves import (
    Forecast,
    Outlook,
    first_outlook,
    outlook,
    prior_forecast,
    returns_by_bucket,
)
from cachepoint.core.traffic.static_plans import Habit
from cachepoint.core.traffic.waste import Waste


class Seen(NamedTuple):
    """A boundary's visits: how many, when last (wall seconds), what it was then, and its gaps by bucket.

    `times` and `gaps` fade with time and stand as of the last visit. `born` is the kind it had at its first visit.
    `last` is None where a profile tells of visits on another day: the time since is no gap. `waits_since` is
    the last visit where its kind's curve waits for the next.
    """

    times: float
    last: float | None
    kind: CurveKey
    born: CurveKey
    gaps: tuple[float, ...] = ()
    waits_since: float | None = None

    @property
    def visits(self) -> int:
        """How often it was visited, those of days ago counting for less."""
        return round(self.times)

    def gaps_by(self, now: float) -> tuple[float, ...]:
        """Its gaps with the one that ends now."""
        return self.gaps if self.last is None else with_gap(self.gaps, now - self.last)

    def faded_by(self, now: float) -> float:
        """What is left of a visit up to the last by now."""
        return 1.0 if self.last is None else _faded(now - self.last)


class Step(NamedTuple):
    """A boundary of a request on its way into the traffic; `tokens` is the likely size of its prefix.

    `before` is that of the request before, as the turns tell whether or not it was seen.
    """

    digest: bytes
    role: Role
    tokens: float = 0.0
    before: float = 0.0


class Turn(NamedTuple):
    """The request before this one, as the turns of the prompt tell it: its tail, and the end of its history."""

    tail: Step
    history: bytes


@dataclass(frozen=True, slots=True)
class View:
    """What the traffic knows about one request's boundaries, before that request.

    `known` and `alive` are how far, in likely tokens, boundaries were seen before and entries live. `shadows` are the
    plans that could read a prefix, `habit` is what the request counts to, `followed` the plan to follow, None where
    the request is not guarded. `common` is the last boundary shared with the last
    request of the same habit. From boundary `changed` on stands what is another text than in that request, by
    convention a static one: nothing is assumed of it, and `withdrawn` are its forecasts. `left_out` is what the request
    leaves out, by what `refusals` tell.
    """

    seen: Mapping[bytes, Seen] = field(default_factory=dict)
    entries: Mapping[bytes, Entry] = field(default_factory=dict)
    forecasts: Mapping[CurveKey, Forecast] = field(default_factory=dict)
    calibration: Calibration = NOT_CALIBRATED
    learned_minimum: int = 0
    waste: Waste = Waste()
    left_out: tuple[str, ...] = ()
    splits_trusted: bool = True
    lapsed: Mapping[bytes, Entry] = field(default_factory=dict)
    recent: tuple[Shape, ...] = ()
    other_scope: bool = False
    now: float = 0.0
    known: float = 0.0
    alive: float = 0.0
    shadows: Mapping[bytes, int] = field(default_factory=dict)
    habit: Habit | None = None
    followed: Followed | None = None
    shared: bool = False
    common: int = -1
    changed: int | None = None
    withdrawn: Mapping[CurveKey, Forecast] = field(default_factory=dict)
    refusals: Refusals = NOTHING_REFUSED

    def with_waste(self, waste: Waste) -> View:
        """The same view with the accounts as they stand by now."""
        return replace(self, waste=waste)

    def with_refusals(self, refusals: Refusals, now: float) -> View:
        """The same view with what is known by now of what the service refuses."""
        return replace(self, refusals=refusals, left_out=tuple(sorted(refusals.left_out(now))))

    def leaving_out(self, features: Iterable[str]) -> View:
        """The same view for a request that leaves out these as well."""
        return replace(self, left_out=tuple(sorted({*self.left_out, *features})))

    def calibrated(self, calibration: Calibration) -> View:
        """The same view with another calibration."""
        return replace(self, calibration=calibration)

    def refreshed(self, fresh: View) -> View:
        """The same request's view after a wait: what lives now, but not its own visit as one before it."""
        return replace(
            self, entries=fresh.entries, lapsed=fresh.lapsed, waste=fresh.waste, left_out=fresh.left_out,
            calibration=fresh.calibration, alive=fresh.alive, now=fresh.now, shadows=fresh.shadows,
            refusals=fresh.refusals,
        )  # fmt: skip

    def kind(self, step: Step) -> CurveKey:
        """Which return curve speaks for a boundary: by its role, whether it was seen, and what a first visit adds."""
        return kinds_of((step,), self.seen, self.known)[0]

    def outlook(self, step: Step, *, changed: bool = False) -> Outlook:
        """What to expect of a boundary of this prompt, this visit not counted.

        `changed` says that it stands behind what changed since the last request of the habit.
        """
        kind, seen = self.kind(step), self.seen.get(step.digest)
        if seen is None:
            found = self.withdrawn.get(kind) if changed else None
            first = found or self.forecasts.get(kind) or prior_forecast(kind)
            again = self.forecasts.get(AGAIN_KIND[step.role])
            return outlook(first) if again is None else first_outlook(first, again)
        forecast = self.forecasts.get(kind) or prior_forecast(kind)
        return outlook(forecast, seen.visits, seen.gaps_by(self.now))

    def proven(self, kind: CurveKey) -> bool:
        """Whether a kind of boundary promises more than was assumed of it."""
        forecast = self.forecasts.get(kind)
        return forecast is not None and forecast.returns[-1] > prior_forecast(kind).returns[-1]

    def returns(self, step: Step) -> tuple[float, ...]:
        """The chance that a boundary of this prompt comes back by the end of each bucket of time."""
        kind, seen = self.kind(step), self.seen.get(step.digest)
        forecast = self.forecasts.get(kind) or prior_forecast(kind)
        return returns_by_bucket(forecast, () if seen is None else seen.gaps_by(self.now))

    def cold(self, steps: Sequence[Step]) -> tuple[Cold, ...]:
        """The boundaries beyond what is believed alive."""
        beyond = [step for step in steps if step.tokens > self.alive]
        return tuple(self._cold(step) for step in beyond if step.role in NAMED or step.digest in self.seen)

    def foreign(self, steps: Sequence[Step], before: Turn | None) -> Cold | None:
        """The tail of the request before this one where another process made that.

        Nothing of its turn was seen, and what was seen ends where a request of this process did, or before the
        conversation: a prompt that parts from a conversation in its middle was edited, trimmed or cleared. Behind a
        static text that changed, nothing can have been seen.
        """
        if before is None or before.history in self.seen or before.tail.digest in self.seen or self.changed is not None:
            return None
        last = next((step for step in reversed(steps) if step.digest in self.seen), None)
        if last is not None and last.role not in STATIC and self.seen[last.digest].kind[0] not in TAILS:
            return None
        return self._cold(before.tail)

    def _cold(self, step: Step) -> Cold:
        tokens, seen = step.tokens * self.calibration.factor, self.seen.get(step.digest)
        if seen is None or seen.last is None:
            return Cold(step.digest, tokens, self.kind(step), None)
        return Cold(step.digest, tokens, seen.kind, self.now - seen.last)


def kinds_of(steps: Sequence[Step], seen: Container[bytes], known: float) -> list[CurveKey]:
    """The kind of each boundary, given those seen before and how far in tokens they reach."""
    return [
        AGAIN_KIND[role] if digest in seen
        else FIRST_KINDS[role][bisect_right(SIZE_LIMITS, tokens - max(known, before))]
        for digest, role, tokens, before in steps
    ]  # fmt: skip


def revisited(
    steps: Sequence[Step], kinds: Sequence[CurveKey], seen: Mapping[bytes, Seen], awaited: Container[int], now: float
) -> list[tuple[bytes, Seen]]:
    """What is remembered of each boundary with the visit that comes now; `awaited` are indices of steps.

    Boundaries that always came together share one value, which is worked out once: most of a long prompt does.
    """
    result: list[tuple[bytes, Seen]] = []
    shared: dict[tuple[int, int, bool], Seen] = {}  # by identity, which is quicker to look up; all live meanwhile
    passed: dict[tuple[tuple[float, ...], float | None], tuple[float, tuple[float, ...]]] = {}
    last_before, last_kind, last_waits, after = None, None, False, None
    for index, (step, kind) in enumerate(zip(steps, kinds, strict=True)):
        before, waits = seen.get(step[0]), index in awaited
        if after is None or before is not last_before or kind is not last_kind or waits is not last_waits:
            last_before, last_kind, last_waits = before, kind, waits
            key = (id(before), id(kind), waits)
            after = shared.get(key)
            if after is None:
                after = shared[key] = _visited(before, kind, now if waits else None, passed, now)
        result.append((step[0], after))
    return result


def _visited(
    before: Seen | None,
    kind: CurveKey,
    waits_since: float | None,
    passed: dict[tuple[tuple[float, ...], float | None], tuple[float, tuple[float, ...]]],
    now: float,
) -> Seen:
    """What is remembered after one more visit; `passed` keeps what time did to gaps, by these and the last visit."""
    if before is None:
        return Seen(1.0, now, kind, kind, (), waits_since)
    since = before.gaps, before.last
    found = passed.get(since)
    if found is None:
        found = passed[since] = before.faded_by(now), before.gaps_by(now)
    return Seen(before.times * found[0] + 1, now, kind, before.born, found[1], waits_since)


def with_gap(gaps: tuple[float, ...], gap: float) -> tuple[float, ...]:
    """Gaps by bucket with one more, in seconds, for which the others have faded."""
    faded = _faded(gap)
    counts = [count and count * faded for count in gaps] or [0.0] * N_BUCKETS  # a bucket without any takes no memory
    counts[bucket(gap)] += 1
    return tuple(counts)


def sooner(gaps: tuple[float, ...], gap: float) -> tuple[float, ...]:
    """Gaps by bucket with one of `gap` seconds, the last, taken for one within five minutes."""
    counts, late = list(gaps), bucket(gap)
    if late >= UNTIL_5M and late < len(counts):
        moved = min(counts[late], 1.0)
        counts[late] -= moved
        counts[UNTIL_5M - 1] += moved
    return tuple(counts)


def _faded(seconds: float) -> float:
    """What is left of one after a time; a clock set back makes nothing of it."""
    return exp2(min(-seconds / HALF_LIFE, 0.0))
