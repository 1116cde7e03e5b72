"""What passes between the planner and the store: what is known of a request's boundaries, what was sent.

Frozen values keyed by digest; times are wall seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from cachepoint.core.prompt.prompt import Setting
from cachepoint.core.prompt.tokens import NOT_CALIBRATED, Calibration
from cachepoint.core.provider.prices import Rates
from cachepoint.core.provider.rules import TTL, TTL_SECONDS
from cachepoint.core.traffic.return_curves import (
    N_BUCKETS,
    NAMED,
    UNTIL_5M,
    CurveKey,
    Forecast,
    Outlook,
    Role,
    bucket,
    outlook,
    prior_forecast,
    size_class,
)
from cachepoint.core.traffic.waste import Waste

IN_FLIGHT_SECONDS = 120.0
"""An entry whose response never began is given up after this time."""
EXACT_TOLERANCE = 0.02
"""Positions of checkpoints move by a token or two over months (C10)."""
LIKELY_TOLERANCE = 0.25
"""An estimated read that comes this much shorter is still the one expected."""
_SKEW_SECONDS = 1.0
"""Calls of several threads start slightly out of order."""
_GAPS_REMEMBERED = 32


class Seen(NamedTuple):
    """A boundary's visits: how many, when last (wall seconds), what it was then, and its gaps by bucket.

    `born` is the kind it had at its first visit. `last` is None where a profile tells of visits on another
    day: the time since is no gap.
    """

    visits: int
    last: float | None
    kind: CurveKey
    born: CurveKey
    gaps: tuple[int, ...] = ()

    def gaps_by(self, now: float) -> tuple[int, ...]:
        """Its gaps with the one that ends now."""
        return self.gaps if self.last is None else with_gap(self.gaps, now - self.last)


class Entry(NamedTuple):
    """A cache entry believed alive.

    `splits` are the digests of the cuts its bytes were split at; `tokens` its exact size, where usage
    told it, else None.
    """

    ttl: TTL
    used_at: float
    splits: tuple[bytes, ...] = ()
    readable: bool = True
    tokens: int | None = None

    def lives(self, now: float) -> bool:
        """Whether it can still be read; a clock gone backwards ends its life rather than prolong it."""
        limit = TTL_SECONDS[self.ttl] if self.readable else IN_FLIGHT_SECONDS
        return -_SKEW_SECONDS <= now - self.used_at < limit


class Shape(NamedTuple):
    """A recent request for comparison: per block its prefix digest and size; what was cached of it.

    `sections` are the indices of the last tool and the last system block; `cached` is in likely tokens.
    """

    digests: tuple[bytes, ...]
    sizes: tuple[int, ...]
    sections: tuple[int, int]
    settings: tuple[Setting, ...]
    cached: float
    ttl: TTL
    used_at: float


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
    """What the traffic knows about one request's boundaries, before that request."""

    seen: Mapping[bytes, Seen] = field(default_factory=dict)
    entries: Mapping[bytes, Entry] = field(default_factory=dict)
    forecasts: Mapping[CurveKey, Forecast] = field(default_factory=dict)
    calibration: Calibration = NOT_CALIBRATED
    learned_minimum: int = 0
    waste: Waste = Waste()
    refused: tuple[str, ...] = ()
    splits_trusted: bool = True
    lapsed: Mapping[bytes, Entry] = field(default_factory=dict)
    recent: tuple[Shape, ...] = ()
    other_scope: bool = False
    now: float = 0.0
    known: float = 0.0
    alive: float = 0.0

    def calibrated(self, calibration: Calibration) -> View:
        """The same view with another calibration."""
        return replace(self, calibration=calibration)

    def refreshed(self, fresh: View) -> View:
        """The same request's view after a wait: what lives now, but not its own visit as one before it."""
        return replace(
            self, entries=fresh.entries, lapsed=fresh.lapsed, waste=fresh.waste, refused=fresh.refused,
            calibration=fresh.calibration, alive=fresh.alive, now=fresh.now,
        )  # fmt: skip

    def kind(self, step: Step) -> CurveKey:
        """Which return curve speaks for a boundary: by its role, whether it was seen, and what a first visit adds."""
        if step.digest in self.seen:
            return (step.role, True, 0)
        return (step.role, False, size_class(step.tokens - max(self.known, step.before)))

    def outlook(self, step: Step) -> Outlook:
        """What to expect of a boundary of this prompt, this visit not counted."""
        kind, seen = self.kind(step), self.seen.get(step.digest)
        forecast = self.forecasts.get(kind) or prior_forecast(kind)
        if seen is None:
            return outlook(forecast)
        return outlook(forecast, seen.visits, seen.gaps_by(self.now))

    def cold(self, steps: Sequence[Step]) -> tuple[Cold, ...]:
        """The boundaries beyond what is believed alive."""
        found = [step for step in steps if step.role in NAMED or step.digest in self.seen]
        return tuple(self._cold(step) for step in found if step.tokens > self.alive)

    def foreign(self, before: Turn | None) -> Cold | None:
        """The tail of the request before this one where another process made that: nothing of its turn was seen."""
        if before is None or before.history in self.seen or before.tail.digest in self.seen:
            return None
        return self._cold(before.tail)

    def _cold(self, step: Step) -> Cold:
        tokens, seen = step.tokens * self.calibration.factor, self.seen.get(step.digest)
        if seen is None or seen.last is None:
            return Cold(step.digest, tokens, self.kind(step), None)
        return Cold(step.digest, tokens, seen.kind, self.now - seen.last)


class Cold(NamedTuple):
    """A boundary no entry was believed alive under: its likely tokens, and the curve that awaited it.

    `gap` are the seconds since its last visit, None where none was known of.
    """

    digest: bytes
    tokens: float
    kind: CurveKey
    gap: float | None


class SentPoint(NamedTuple):
    """A prefix that is written or read: its digest, TTL, likely tokens and splits; `exact` if usage told them."""

    digest: bytes
    ttl: TTL
    tokens: float
    splits: tuple[bytes, ...] = ()
    exact: bool = False


@dataclass(frozen=True, slots=True)
class Sent:
    """What of a planned request the traffic keeps until its answer: digests and sizes only.

    `points` are in wire order; `read` is the entry the request is expected to read, `written` the tokens
    it is expected to write; `estimated` is the whole prompt before calibration; `cold` are boundaries whose
    read would be a surprise, `foreign` the tail of the request before this one if another process made that.
    """

    points: tuple[SentPoint, ...] = ()
    read: SentPoint | None = None
    written: float = 0.0
    estimated: float = 0.0
    minimum: int = 0
    rates: Rates = Rates()
    shape: Shape | None = None
    cold: tuple[Cold, ...] = ()
    foreign: Cold | None = None

    @property
    def surcharge(self) -> float:
        """The most the expected write can cost beyond no caching, in input tokens."""
        dearest = max((self.rates.write(point.ttl) for point in self.points), default=1.0)
        return self.written * (dearest - 1)


def arrived(expected: SentPoint, read: int) -> bool:
    """Whether an expected read came, given the tokens read."""
    tolerance = EXACT_TOLERANCE if expected.exact else LIKELY_TOLERANCE
    return read >= expected.tokens * (1 - tolerance)


def with_gap(gaps: tuple[int, ...], gap: float) -> tuple[int, ...]:
    """Gaps by bucket with one more, in seconds; old ones fade once there are many."""
    counts = list(gaps) or [0] * N_BUCKETS
    if sum(counts) >= _GAPS_REMEMBERED:
        counts = [count // 2 for count in counts]
    counts[bucket(gap)] += 1
    return tuple(counts)


def sooner(gaps: tuple[int, ...], gap: float) -> tuple[int, ...]:
    """Gaps by bucket with one of `gap` seconds taken for one within five minutes."""
    counts, late = list(gaps), bucket(gap)
    if late >= UNTIL_5M and late < len(counts) and counts[late]:
        counts[late] -= 1
        counts[UNTIL_5M - 1] += 1
    return tuple(counts)
