"""What belongs to a base model, pooled over all accounts, endpoints, Regions, profiles and APIs of a process.

Entries, refusals and boundaries stay by scope. How boundaries of a kind come back, and how large prompts are in
truth, is the same wherever the model runs: a new Region, or one more tenant's inference profile, starts with it. What
caching may cost is bounded for the model as a whole, so that no number of scopes multiplies it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from cachepoint.core.prompt.tokens import Calibration
from cachepoint.core.traffic.entries import Ending
from cachepoint.core.traffic.guard import Guard
from cachepoint.core.traffic.latest import Latest, Room
from cachepoint.core.traffic.return_curves import Habits
from cachepoint.core.traffic.view import Seen
from cachepoint.core.traffic.waste import Waste

ENDINGS_KEPT = 1024
"""Requests of which it is remembered how they ended, some 200 bytes each: conversations under way at once."""


class Scope(NamedTuple):
    """What a call's cache entries are kept apart by, and the base model whose habits it shares.

    `name` tells apart account, endpoint, Region, model or profile id, and API. `model` is the base model's id without
    its Region prefix.
    """

    name: str = ""
    model: str = ""


@dataclass
class Pool:
    """What is learned of one base model.

    `told` are the boundaries a profile knows: any scope of the model may meet them again.
    """

    habits: Habits = field(default_factory=Habits)
    calibration: Calibration = field(default_factory=Calibration)
    learned_minimum: int = 0
    unreadable: int = 0
    told: Latest[Seen] = field(default_factory=Latest)
    guard: Guard = field(default_factory=Guard)
    endings: dict[Ending, None] = field(default_factory=dict)
    waste: Waste = field(default_factory=Waste)

    def ended(self, like: Ending) -> None:
        """Remember how a request ended."""
        self.endings.pop(like, None)
        self.endings[like] = None
        if len(self.endings) > ENDINGS_KEPT:
            del self.endings[next(iter(self.endings))]

    def leave_what_is_under_way(self) -> None:
        """Calls under way are another process's from now on, and may cost that one what they may cost.

        Of what reads have won, a process that starts with this has so much as one that starts with a profile.
        """
        self.waste = self.waste.at_rest()

    def kept(self) -> Room:
        """How much it keeps besides its curves."""
        return Room(len(self.told), 0, 0)

    def keep(self, most: Room, _: float) -> None:
        """Keep at most so much of what a profile told."""
        self.told.take_oldest(len(self.told) - most.boundaries)
