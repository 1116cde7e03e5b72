"""What a set of checkpoints can cost beyond no caching, and who bears it: the planner, or the user who asked for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cachepoint.core.planning.plan import Checkpoint
from cachepoint.core.provider.prices import Rates
from cachepoint.core.traffic.kinds import Role
from cachepoint.core.traffic.waste import Segment


def segments(
    points: Sequence[Checkpoint],
    digest: Callable[[int], bytes],
    role: Callable[[Checkpoint], Role],
    rates: Rates,
    *,
    hour_is_asked: bool = False,
) -> tuple[Segment, ...]:
    """What each checkpoint adds to the one before, in wire order.

    `digest` is that of a boundary, `role` what has to be proven for a checkpoint to be paid for by what was won. Up to
    a mark the user has it written, at the mark's price: a checkpoint of the planner's before it costs only what its own
    TTL is dearer. `hour_is_asked`: the user set the TTL, and what an hour is dearer than five minutes is his.
    """
    found: list[Segment] = []
    by_place, marked = sorted(points, key=lambda point: point.boundary), 0.0
    for index in range(len(by_place) - 1, -1, -1):
        point, before = by_place[index], by_place[index - 1].tokens if index else 0
        price = rates.write(point.ttl) - 1
        marked = price if point.marked else marked
        asked = max(marked, price - (rates.write_5m - 1)) if hour_is_asked else marked
        tokens = float(max(point.tokens - before, 0))
        found.append(Segment(digest(point.boundary), role(point), tokens, max(price - asked, 0.0), asked))
    return tuple(found[::-1])
