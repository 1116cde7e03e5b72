"""One application in many places: a tenant's calls under its own inference profile, calls in a second Region.

Entries are not shared between profiles nor Regions, habits are. The traffic is chats behind one system prompt.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from capture_lib.requests import Knobs, Message, Request, Workload, profile_arn, text

from league_lib.chats import paced
from league_lib.talk import HOUR, rng_of

SECOND_REGION = "us-west-2"
_SPILLED = 0.05
"""Share of calls that a throttled Region hands on."""


@dataclass(frozen=True)
class Tenants:
    """300 chats of 8 turns, begun within 2 hours, each of a tenant drawn at random.

    Without `profiles` they share a scope, and the tenant's name stands first, so that entries are kept apart as well.
    """

    tenants: int
    profiles: bool = True

    def __call__(self, knobs: Knobs) -> Iterator[Request]:
        rng = rng_of(knobs, f"tenants/{self.tenants}")
        owner: dict[Message, int] = {}
        for request in paced("tenant profiles", 45, 300, 8, 3_000, knobs):
            tenant = owner.setdefault(request.messages[0], rng.randrange(self.tenants))
            if self.profiles:
                yield replace(request, model=profile_arn(tenant))
            else:
                named = text(f"You serve tenant {tenant}.\n\n{request.system[0].whole}")
                yield replace(request, system=(named,))


@dataclass(frozen=True)
class Regions:
    """40 chats of 20 turns, begun within 2 hours; `there` says which calls go to the second Region."""

    row: str
    there: Callable[[float, int, random.Random], bool]

    def __call__(self, knobs: Knobs) -> Iterator[Request]:
        rng = rng_of(knobs, self.row)
        for number, request in enumerate(paced("regions", 55, 40, 20, 6_000, knobs)):
            away = self.there(request.at / knobs.gaps, number, rng)
            yield replace(request, region=SECOND_REGION) if away else request


def failed_over(at: float, number: int, rng: random.Random) -> bool:  # noqa: ARG001 - a way like the others
    """The usual Region is out for half an hour."""
    return HOUR <= at < 1.5 * HOUR


def spilled(at: float, number: int, rng: random.Random) -> bool:  # noqa: ARG001
    return rng.random() < _SPILLED


def round_robin(at: float, number: int, rng: random.Random) -> bool:  # noqa: ARG001
    return number % 2 == 1


def _tenants(count: int) -> Workload:
    title = f"{count} tenants of one application, an inference profile each"
    return Workload(f"tenants-{count}", title, Tenants(count), 250, profiles=count)


ROWS: tuple[Workload, ...] = (
    *(_tenants(count) for count in (20, 100, 200)),
    Workload("tenants-named", "100 tenants in one scope, each named first", Tenants(100, profiles=False), 250),
    Workload("failover", "chats; the Region fails for half an hour", Regions("failover", failed_over), 250),
    Workload("spill", "chats; 5% of calls spill into a second Region", Regions("spill", spilled), 250),
    Workload(
        "round-robin", "chats; every other call goes to a second Region", Regions("round-robin", round_robin), 250
    ),
)
