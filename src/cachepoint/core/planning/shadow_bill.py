"""What one request would cost by every static plan, and by the planner unguarded, given what is alive in their shadows.

By the provider's rules (docs/rules.md): a checkpoint reads the deepest entry within lookback, and writes what lies
between. All plans are worked out at once, as bits; those that read and write the same share the work.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from cachepoint.core.prompt.prompt import Boundary, Prompt
from cachepoint.core.provider.prices import Rates
from cachepoint.core.provider.rules import TTL, ModelRule
from cachepoint.core.traffic.refusals import LONG_TTL
from cachepoint.core.traffic.shadows import Shadowed, Stamp
from cachepoint.core.traffic.static_plans import FAMILY, LONG, OURS, OURS_1H, OWN, Habit, bits, places
from cachepoint.core.traffic.view import View

_ALL = (1 << OURS) - 1


class _Point(NamedTuple):
    block: int
    tokens: float
    digest: bytes
    plans: int


@dataclass(frozen=True)
class ShadowBill:
    """One request as all plans would send it; `factor` turns the prompt's estimates into likely tokens.

    `alive` are the plans that could read each prefix; `common` is the last boundary shared with the last request of the
    habit; `minimum` is the fewest tokens the model caches.
    """

    prompt: Prompt
    rule: ModelRule
    rates: Rates
    alive: Mapping[bytes, int]
    common: int
    minimum: float
    factor: float
    left_out: Sequence[str] = ()

    @classmethod
    def of(cls, prompt: Prompt, rule: ModelRule, rates: Rates, view: View) -> ShadowBill:
        """The request of a prompt, given what is known of its boundaries."""
        minimum = max(rule.minimum, view.learned_minimum)
        return cls(
            prompt, rule, rates, view.shadows, view.common, minimum, view.calibration.factor, view.left_out
        )  # fmt: skip

    def places(self) -> dict[int, int]:
        """The boundaries that get checkpoints, with the bits of the plans that have one there."""
        sections = tuple(section for section in self.rule.sections if section not in self.left_out)
        found = places(self.prompt, sections, self.common)
        for mark in self.prompt.marks:
            if mark.block is not None:  # of plans with another TTL it is left out, which makes them look dearer
                found[self.prompt.ends[mark.block]] = _ALL & (LONG if mark.ttl == "1h" else ~LONG)
        if "1h" not in self.rule.ttls or LONG_TTL in self.left_out:
            found = {boundary: plans & ~LONG for boundary, plans in found.items()}
        least = self.minimum / self.factor
        return {
            boundary: plans for boundary, plans in found.items() if self.prompt.boundaries[boundary].tokens >= least
        }

    def bill(self, habit: Habit, own: Sequence[tuple[int, TTL]], at: float, charge: float) -> Shadowed:
        """What each plan would pay, `own` being where the planner unguarded would have its checkpoints."""
        at_boundary = self.places()
        for boundary, ttl in own:
            at_boundary[boundary] = at_boundary.get(boundary, 0) | 1 << (OURS if ttl == "5m" else OURS_1H)
        points = [self._point(boundary, at_boundary[boundary]) for boundary in sorted(at_boundary, reverse=True)]
        reads, touched = self._reads(points)
        total = self.factor * self.prompt.tokens
        costs, longer = self._costs(points, reads, total)
        stamps = [self._stamp(point) for point in points]
        return Shadowed(habit, at, costs, longer, (*touched, *stamps), charge, total)

    def _point(self, boundary: int, plans: int) -> _Point:
        here = self.prompt.boundaries[boundary]
        return _Point(here.block, here.tokens * self.factor, here.digest, plans)

    def _stamp(self, point: _Point) -> Stamp:
        """What is alive after a checkpoint; what the planner has there keeps its lifetime, whatever reads it (C7)."""
        kept = self.alive.get(point.digest, 0) & OWN if point.plans & OWN else 0
        return Stamp(point.digest, point.plans & ~OWN | kept if kept else point.plans)

    def read_by(self, plan: int) -> float:
        """The tokens that a plan would read in its shadow, the plan's own entries being there."""
        points = [self._point(boundary, plans) for boundary, plans in sorted(self.places().items(), reverse=True)]
        return self._reads([point for point in points if point.plans >> plan & 1])[0].get(plan, 0.0)

    def _reads(self, points: Sequence[_Point]) -> tuple[dict[int, float], list[Stamp]]:
        """What each plan reads, and the prefixes read."""
        reads: dict[int, float] = {}
        touched: list[Stamp] = []
        done = 0
        for boundary in self._reachable(points):
            alive = self.alive.get(boundary.digest, 0) & ~done
            if not alive:
                continue
            reach = 0
            for point in points:
                if point.block < boundary.block or point.tokens < boundary.tokens * self.factor:
                    break
                if point.block - boundary.block < self.rule.lookback:
                    reach |= point.plans
            if reach & OWN:
                reach |= OWN  # a checkpoint of either TTL reads the planner's entries
            found = alive & reach
            if not found:
                continue
            if found & OWN:
                done |= OWN
            done |= found
            touched.append(Stamp(boundary.digest, found))
            for plan in bits(found):
                reads.setdefault(min(plan, OURS), boundary.tokens * self.factor)
        return reads, touched

    def _reachable(self, points: Sequence[_Point]) -> Iterator[Boundary]:
        """The boundaries within lookback of a point that may be alive, deepest first."""
        boundaries, ends = self.prompt.boundaries, self.prompt.ends
        lowest = len(boundaries)
        for point in points:
            highest = min(lowest - 1, ends[point.block])
            first = point.block - self.rule.lookback + 1
            lowest = min(lowest, 0 if first <= 0 else ends[first - 1] + 1)
            for index in range(highest, lowest - 1, -1):
                if boundaries[index].digest in self.alive:
                    yield boundaries[index]

    def _costs(
        self, points: Sequence[_Point], reads: Mapping[int, float], total: float
    ) -> tuple[list[float], list[float]]:
        """What each plan would pay, and how much of that for a life longer than five minutes."""
        rates = self.rates
        last = [0.0] * (OURS_1H + 1)
        done = 0
        for point in points:
            for plan in bits(point.plans & ~done):
                last[plan] = point.tokens
            done |= point.plans
        last[OURS] = max(last[OURS], last[OURS_1H])
        costs, longer = [], []
        for plan in range(OURS + 1):
            read = reads.get(plan, 0.0)
            end = max(last[plan], read)
            long_end = end if LONG >> plan & 1 else max(last[OURS_1H], read) if plan == OURS else read
            more = (rates.write_1h - rates.write_5m) * (long_end - read)
            costs.append(total + (rates.read - 1) * read + (rates.write_5m - 1) * (end - read) + more)
            longer.append(more)
        return costs, longer


def places_of(plan: int, at_boundary: Mapping[int, int]) -> list[tuple[int, TTL]]:
    """The boundaries at which one static plan has checkpoints, with its TTL."""
    return [(boundary, FAMILY[plan].ttl) for boundary, plans in sorted(at_boundary.items()) if plans >> plan & 1]
