"""The guard: which static plan, if any, has been cheaper than the planner by more than noise, and is followed.

The static plans and the unguarded planner are experts in a game that each habit plays on its own. What each would
have cost is known from its shadow. Followed is the one that is cheapest so far, where to the cost of each a handicap
is added that was drawn once and grows with the bill (Hutter and Poland, "Adaptive Online Prediction by Following the
Perturbed Leader", JMLR 6, 2005): a lead has to be larger than what chance explains. docs/planner.md has the bound.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from cachepoint.core.traffic.evidence import HALF_LIFE
from cachepoint.core.traffic.shadows import Shadowed
from cachepoint.core.traffic.static_plans import FAMILY, NOTHING, OURS, Habit

HABITS_KEPT = 64
"""Habits told apart; what is more is judged as one."""
HANDICAP = 0.0015
"""The unit of the handicaps, as a share of the cheapest plan's bill …"""
HANDICAP_LEAST = 0.09
"""… and at least this share of the largest prompt."""
OURS_LIKELY = 0.9999
"""The chance that the planner is the right one to begin with; the static plans share the rest."""

COUNTED_BY_HALF = 900.0
"""Seconds in which half of the price of an hour counts."""
SPENT_ON_CHANGING = 0.5
"""The share of a lead that may be spent on going over: the rest stays won, however many prefixes live."""

OTHERS = Habit("", tools=False, system=False, size=0.0)
"""What is more than the habits kept: of many TTLs, it is judged between nothing and the planner alone."""


class Followed(NamedTuple):
    """The plan to follow, and what its lead allows to be paid for going over to it, in input tokens."""

    plan: int = OURS
    credit: float = 0.0


@dataclass(slots=True)
class Standing:
    """How the plans of one habit stand: what each has cost, and what changing over to the one followed has (`charged`).

    `largest` is the largest prompt in tokens, `at` when the last request came.

    What was paid for an hour of life counts as that hour goes by; `owed` is what has not counted yet. Otherwise a plan
    would look dear for what it has just laid out.
    """

    costs: list[float] = field(default_factory=lambda: [0.0] * (OURS + 1))
    owed: list[float] = field(default_factory=lambda: [0.0] * (OURS + 1))
    followed: int = OURS
    charged: float = 0.0
    largest: float = 0.0
    at: float = -math.inf


@dataclass(slots=True)
class Guard:
    """The standings of one model's habits; `seed` draws the perturbations."""

    seed: bytes = b""
    standings: dict[Habit, Standing] = field(default_factory=dict)
    _handicaps: tuple[float, ...] = ()

    def known(self, habit: Habit) -> Habit:
        """The habit that a request counts to: one like it that came before, else its own, known from now on."""
        if habit in self.standings:
            return habit
        found = next((each for each in self.standings if each.like(habit)), None)
        if found is None:
            found = habit if len(self.standings) < HABITS_KEPT else OTHERS
            self.standings.setdefault(found, Standing())
        return found

    def followed(self, habit: Habit) -> Followed:
        """Which plan a request of a known habit is to follow."""
        standing = self.standings[habit]
        lead = standing.costs[OURS] - standing.costs[standing.followed]
        return Followed(standing.followed, SPENT_ON_CHANGING * lead - standing.charged)

    def began(self, shadowed: Shadowed) -> None:
        """A request was sent and its response began."""
        standing = self.standings.get(shadowed.habit)
        if standing is None:  # of another process, or of one that was forgotten
            return
        apart = max(shadowed.at - standing.at, 0.0)  # from the first one without end, and there is nothing to fade
        faded, left = math.exp2(-apart / HALF_LIFE), math.exp2(-apart / COUNTED_BY_HALF)
        due, hours = 1 - left, shadowed.longer
        standing.costs = [
            before * faded + cost - hour + owed * due
            for before, cost, hour, owed in zip(standing.costs, shadowed.costs, hours, standing.owed, strict=True)
        ]
        standing.owed = [owed * left + hour for owed, hour in zip(standing.owed, hours, strict=True)]
        standing.charged = standing.charged * faded + shadowed.charge
        standing.largest = max(standing.largest, shadowed.largest)
        standing.at = max(standing.at, shadowed.at)
        self._change_over(standing, shadowed.habit)

    def _change_over(self, standing: Standing, habit: Habit) -> None:
        """Follow the plan that leads."""
        self._handicaps = self._handicaps or handicaps(self.seed)
        unit = max(HANDICAP * min(standing.costs), HANDICAP_LEAST * standing.largest)
        scores = [cost + handicap * unit for cost, handicap in zip(standing.costs, self._handicaps, strict=True)]
        allowed: Iterable[int] = range(OURS + 1)
        if habit.ttl != "auto":
            allowed = (plan for plan in allowed if plan in (NOTHING, OURS) or FAMILY[plan].ttl == habit.ttl)
        first = min(allowed, key=scores.__getitem__)
        if first != standing.followed:
            standing.followed, standing.charged = first, 0.0


def handicaps(seed: bytes) -> tuple[float, ...]:
    """The handicap of each plan in units: more the less it is held likely to begin with, less its luck."""
    prior = [(1 - OURS_LIKELY) / len(FAMILY)] * len(FAMILY) + [OURS_LIKELY]
    return tuple(-math.log(share) + math.log(_drawn(seed, plan)) for plan, share in enumerate(prior))


def _drawn(seed: bytes, plan: int) -> float:
    """A number above 0 and up to 1, the same for the same seed."""
    digest = hashlib.blake2b(plan.to_bytes(2), key=seed[:64], digest_size=7).digest()
    return (int.from_bytes(digest) + 1) / (1 << 56)
