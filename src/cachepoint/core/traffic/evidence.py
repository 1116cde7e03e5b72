"""Evidence that fades with time and merges: counters by kind of boundary, as frozen deltas.

Fading forwards (Cormode et al., "Forward Decay", ICDE 2009): instead of shrinking old counts, a new one
weighs more, by 2 to the power of its half-lives since a fixed start, the epoch's. Counters of one epoch
then merge by plain addition, in any order and grouping and without reading the clock, also where the
keeper can only add numbers (Redis HINCRBYFLOAT). A later epoch is a whole power of two away, so that
carrying a counter over is exact.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import exp2, inf, ldexp
from types import MappingProxyType

from cachepoint.core.traffic.kinds import N_BUCKETS, UNTIL_5M, CurveKey
from cachepoint.errors import ConfigurationError

HALF_LIFE = 86_400.0
"""Seconds until evidence counts half: a day, since traffic has the rhythm of one.

A shorter one forgets over night what the morning needs, and the last bucket takes an hour to be seen at
all; a longer one follows a new release of the caller's prompts, which come a few a week, too slowly.
"""
EPOCH_HALF_LIVES = 64
"""Half-lives in an epoch: weights reach 2 to the 64th, far from a double's limits, and few epochs are ever begun."""
EPOCH = EPOCH_HALF_LIVES * HALF_LIFE

EVENTS = 0
"""Counters of a kind, in their order: returns by bucket …"""
AT_RISK = EVENTS + N_BUCKETS
"""… visits at risk of returning by bucket …"""
FOLLOWED = AT_RISK + N_BUCKETS
"""… visits that followed a boundary's first one of the kind …"""
BEGUN = FOLLOWED + 1
"""… boundaries that became one of the kind …"""
ELSEWHERE = BEGUN + 1
"""… visits that came back to another process …"""
SOONER = ELSEWHERE + 1
"""… and late returns, by bucket after the fifth minute, of visits that others had come back to within minutes.

They are counted as returns as well and taken off when read: a correction that adds, which can be made twice.
"""
N_COUNTERS = SOONER + N_BUCKETS - UNTIL_5M

Counts = tuple[float, ...]
"""One row: the counters of a kind, `N_COUNTERS` of them."""
NO_COUNTS: Counts = (0.0,) * N_COUNTERS


def epoch_of(at: float) -> int:
    """The epoch of a time in wall seconds."""
    return int(at // EPOCH)


def weight(at: float, epoch: int) -> float:
    """What one event at a time counts in an epoch's numbers."""
    return exp2((at - epoch * EPOCH) / HALF_LIFE)


def carried(epochs: int) -> float:
    """What a number is multiplied by when it is carried so many epochs on; exact."""
    return ldexp(1.0, -EPOCH_HALF_LIVES * epochs)


@dataclass(frozen=True, slots=True)
class Delta:
    """Counters by kind of boundary, in the numbers of one epoch; merging is adding."""

    epoch: int = 0
    rows: Mapping[CurveKey, Counts] = field(default_factory=lambda: MappingProxyType({}))

    @classmethod
    def at(cls, at: float, counts: Mapping[CurveKey, Counts]) -> Delta:
        """A delta of plain counts that stand as of a time."""
        epoch = epoch_of(at)
        each = weight(at, epoch)
        return cls(epoch, {kind: tuple(count * each for count in row) for kind, row in counts.items()})

    def check(self) -> None:
        """Raise ConfigurationError where these cannot be counters: another length, or no number from nothing up."""
        for kind, row in self.rows.items():
            if len(row) != N_COUNTERS or not all(0 <= count < inf for count in row):
                raise ConfigurationError(
                    f"a delta's row {kind!r} is to have {N_COUNTERS} numbers, none below 0 (docs/planner.md); it has "
                    f"{list(row)!r}"
                )

    def in_epoch(self, epoch: int) -> Delta:
        """The same evidence in the numbers of a later epoch."""
        if epoch == self.epoch:
            return self
        each = carried(epoch - self.epoch)
        return Delta(epoch, {kind: tuple(count * each for count in row) for kind, row in self.rows.items()})

    def merged(self, other: Delta) -> Delta:
        """Both together."""
        epoch = max(self.epoch, other.epoch)
        here, there = self.in_epoch(epoch).rows, other.in_epoch(epoch).rows
        return Delta(epoch, {kind: added(here.get(kind), there.get(kind)) for kind in {**here, **there}})

    def counted(self, at: float) -> dict[CurveKey, Counts]:
        """Plain counts as they stand at a time, not before the delta's epoch."""
        later = self.in_epoch(max(self.epoch, epoch_of(at)))
        each = 1 / weight(at, later.epoch)
        return {kind: tuple(count * each for count in row) for kind, row in later.rows.items()}


def added(one: Counts | None, other: Counts | None) -> Counts:
    """Two rows together; no row counts nothing."""
    if one is None or other is None:
        return one or other or NO_COUNTS
    return tuple(here + there for here, there in zip(one, other, strict=True))


def merged(deltas: Iterable[Delta]) -> Delta:
    """Many deltas together."""
    total = Delta()
    for delta in deltas:
        total = total.merged(delta)
    return total
