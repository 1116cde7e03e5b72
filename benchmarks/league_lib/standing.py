"""How cachepoint stands on one row: its bill beside the bound, no caching, the peers and every static plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from capture_lib.contenders import Cachepoint
from capture_lib.measure import Outcome, run
from capture_lib.requests import Knobs, Workload
from capture_lib.stage import MODEL, minimum_of, rates
from capture_lib.traffic import Traffic
from capture_lib.workers import learn

import cachepoint
from cachepoint.catalogue.table import load_rules
from cachepoint.core.provider.usage import Usage
from league_lib.statics import PEERS, Rendered, StaticBill, static_bills

SLACK = 0.03
"""What the guard may cost over the best static plan, as a share: issue 10's measured bound."""
LOST_PREFIX = 1.15
"""One lost prefix, in largest prompts: what a 5-minute write that nobody reads costs over reading it."""
LISTED = 0.25
"""Rows this many largest prompts above the slack are listed with their reason: a lost 5-minute write."""

WASTE_SHARE, WASTE_WRITES = 0.015, 2 * 0.25
"""Bound A after the first paid read, against no caching: this share, and two surcharges of the largest prompt."""

Verdict = Literal["over", "listed", "within", "ahead"]


@dataclass(frozen=True)
class Standing:
    """A row's figures; bills are input sides over no caching.

    `plans` are the static plans' bills and `best` the name of the cheapest. `withheld` counts calls that the
    allowance for waste kept from a write. `largest` is the largest prompt over no caching. `warm` and `hinted` are
    None where they were not asked for.
    """

    row: str
    title: str
    requests: int
    largest_tokens: int
    largest: float
    bound: float
    cold: float
    warm: float | None
    hinted: float | None
    plans: Mapping[str, float]
    refused: int
    withheld: int

    @property
    def best(self) -> str:
        return min(self.plans, key=self.plans.__getitem__)

    @property
    def best_bill(self) -> float:
        return self.plans[self.best]

    @property
    def distance(self) -> float:
        """How far ours is above what issue 10 allows; below 0 is within."""
        return (self.lost_prefixes - LOST_PREFIX) * self.largest

    @property
    def lost_prefixes(self) -> float:
        """How many largest prompts ours is above the slack; below 0 is within the slack alone."""
        return (self.cold - (1 + SLACK) * self.best_bill) / self.largest

    @property
    def above_bound_a(self) -> float:
        """How far ours is above bound A without the stake of proven kinds; at most 0 where that is not needed."""
        return self.cold - 1 - WASTE_SHARE - WASTE_WRITES * self.largest

    @property
    def over_best(self) -> float:
        """Ours over the best static plan."""
        return self.cold / self.best_bill

    @property
    def verdict(self) -> Verdict:
        if self.cold <= self.best_bill:
            return "ahead"
        if self.distance > 0:
            return "over"
        return "listed" if self.lost_prefixes > LISTED else "within"


@dataclass(frozen=True)
class Match:
    """A row rendered once, with every static plan billed on it."""

    workload: Workload
    knobs: Knobs
    prompts: tuple[Rendered, ...]
    traffic: Traffic
    statics: tuple[StaticBill, ...]

    @classmethod
    def of(cls, workload: Workload, knobs: Knobs) -> Match:
        prompts = tuple(Rendered.of(request) for request in workload.requests(knobs))
        requests = tuple(prompt.request for prompt in prompts)
        with minimum_of(workload.minimum):
            rule = load_rules().resolve(MODEL)
            assert rule is not None
            bills = tuple(static_bills(prompts, rule, rates()))
        traffic = Traffic.rendered(workload, requests, (prompt.pieces for prompt in prompts))
        return cls(workload, knobs, prompts, traffic, bills)

    @property
    def best(self) -> StaticBill:
        return min(self.statics, key=lambda bill: bill.ratio)

    def static(self, plan: str) -> StaticBill:
        """The bill of one plan; raises KeyError where it places the same as another, whose name it goes by."""
        return {bill.plan: bill for bill in self.statics}[plan]

    @property
    def baseline(self) -> int:
        return sum(prompt.whole.total for prompt in self.prompts)

    def play(self, contender: Cachepoint) -> Outcome:
        return run(contender, self.traffic, fast=True)

    def warm(self) -> float:
        """Ours with a profile that another day of the same row left."""
        knobs = self.knobs
        with TemporaryDirectory() as folder:
            profile = str(Path(folder) / "profile")
            with minimum_of(self.workload.minimum):
                learn(self.workload, Knobs(knobs.seed, knobs.sizes, knobs.gaps, knobs.count, knobs.day + 1), profile)
            return self.play(Cachepoint(profile=profile)).bill / self.baseline


def standing(workload: Workload, knobs: Knobs, *, warm: bool = False) -> Standing:
    """Play a row: ours cold, with a profile on demand, and with hints where its requests have any."""
    match = Match.of(workload, knobs)
    ours = Cachepoint()
    cold = match.play(ours)
    hinted = hasattr(cachepoint, "expect") and any(prompt.request.expect for prompt in match.prompts)
    largest = max(prompt.whole.total for prompt in match.prompts)
    return Standing(
        row=workload.name,
        title=workload.title,
        requests=len(match.prompts),
        largest_tokens=largest,
        largest=largest / match.baseline,
        bound=match.traffic.bound / match.traffic.baseline,
        cold=cold.bill / match.baseline,
        warm=match.warm() if warm else None,
        hinted=match.play(Cachepoint(hints=True)).bill / match.baseline if hinted else None,
        plans={bill.plan: bill.ratio for bill in match.statics},
        refused=cold.refused,
        withheld=sum(_withheld(told) for told in ours.told.values()),
    )


def _withheld(told: Mapping[str, Any]) -> bool:
    return any(place["reason"] == "allowance_spent" for place in told["held"])


def peers(plans: Mapping[str, float]) -> Sequence[float]:
    """langchain-aws's bills, for 5 minutes and for an hour."""
    return [plans[name] for name in PEERS.values()]


def usage_of(told: Mapping[str, Any]) -> Usage:
    """The usage of a call that told of itself."""
    return Usage(**told["usage"])
