"""Whether a prefix is worth a small request that renews its life, and when that is due.

An entry lives for its TTL from its last use (R3.8). Just before the end a renewal costs a read; what it may save is
what a write costs beyond a read, should the next request come after the end and within the life renewed. The chance of
that is the return curve's, given that nothing came so far, or what the user said of the next request. Several renewals
in a row are weighed together: each is sent only if nothing came before it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Literal, NamedTuple

from cachepoint.core.provider.rules import TTL, TTL_SECONDS
from cachepoint.core.traffic.kinds import BUCKETS

MARGIN_SECONDS = 20.0
"""A renewal is sent so long before the end of a life: other renewals and a slow connection may hold it up."""

Verdict = Literal["wait", "renew", "leave"]


class Standing(NamedTuple):
    """An entry that may be renewed; times are wall seconds.

    `visited` is when a request last used it, `used` when anything did. `returns` is the chance that the next request
    comes by the end of each bucket of time; the user may have said that it is `sure` to come, or `back_in` so many
    seconds. `renewed` is how often the entry was renewed since the last request.
    """

    ttl: TTL
    visited: float
    used: float
    returns: Sequence[float]
    sure: bool = False
    back_in: float | None = None
    renewed: int = 0

    def returned_by(self, age: float) -> float:
        """The chance that the next request has come so many seconds after the last."""
        if self.back_in is not None:
            return float(age >= self.back_in)
        found = _between(self.returns, age)
        return found / self.returns[-1] if self.sure and found else found


def due(ttl: TTL, used: float) -> float:
    """When the life of an entry is to be renewed, given when it was last used."""
    return used + TTL_SECONDS[ttl] - MARGIN_SECONDS


def verdict(standing: Standing, now: float, *, costs: float, saves: float, at_most: int) -> Verdict:
    """What to do about an entry now, with at most so many renewals between two requests.

    `costs` is what a renewal costs and `saves` what a request saves that finds the entry alive: one unit for both.
    """
    if now < due(standing.ttl, standing.used):
        return "wait"
    if now >= standing.used + TTL_SECONDS[standing.ttl]:
        return "leave"
    return "renew" if _worth(standing, now, costs, saves, at_most - standing.renewed) > 0 else "leave"


def _worth(standing: Standing, now: float, costs: float, saves: float, left: int) -> float:
    """What the best number of renewals in a row is expected to save beyond its cost, given that nothing came so far."""
    life = TTL_SECONDS[standing.ttl]
    sent, end = now - standing.visited, standing.used + life - standing.visited
    still_open = 1 - standing.returned_by(sent)
    best = total = 0.0
    for _ in range(left if still_open > 0 else 0):
        open_then = 1 - standing.returned_by(sent)
        found_alive = standing.returned_by(sent + life) - standing.returned_by(end)
        if not open_then or (sent >= BUCKETS[-1] and standing.back_in is None):
            break  # it has come by then, or nobody knows when it would
        total += (found_alive * saves - open_then * costs) / still_open
        best, end, sent = max(best, total), sent + life, sent + life - MARGIN_SECONDS
    return best


def _between(returns: Sequence[float], age: float) -> float:
    """The chance by an age, on a straight line inside each bucket; beyond the last limit nothing is known to come.

    Returns come rather early in a bucket than late, so a line promises no life too much for its end.
    """
    index = bisect_right(BUCKETS, age)
    if index >= len(BUCKETS):
        return returns[len(BUCKETS) - 1]
    begin, before = (BUCKETS[index - 1], returns[index - 1]) if index else (0.0, 0.0)
    return before + (returns[index] - before) * max(age - begin, 0.0) / (BUCKETS[index] - begin)
