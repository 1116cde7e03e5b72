"""What every static plan would have in the cache by now, had it been followed from the beginning.

The cache of each plan is kept in the shadow, from digests and times alone: by digest, which plans pointed at it or
read it, and when. Whatever a plan points at is alive from then on, read or written, so that is all there is to know.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

from cachepoint.core.provider.rules import TTL_SECONDS
from cachepoint.core.traffic.static_plans import LONG, Habit

Slots = tuple[tuple[float, int], ...]
"""Times of use, each with the bits of the plans that used the prefix then for the last time."""


class Stamp(NamedTuple):
    """A prefix that plans would read or write, as bits."""

    digest: bytes
    bits: int


class Shadowed(NamedTuple):
    """What one request would have cost by each plan, in input tokens, and what each would have in the cache after it.

    The last of `costs` is that of the planner unguarded; `longer` is how much of each was paid for an hour of life
    instead of five minutes. `charge` is what the plan followed cost beyond what it costs
    in its shadow, because its entries were not there; `largest` is the prompt in tokens.
    """

    habit: Habit
    at: float
    costs: Sequence[float]
    longer: Sequence[float]
    stamps: Sequence[Stamp]
    charge: float = 0.0
    largest: float = 0.0


@dataclass(slots=True)
class Shadows:
    """The shadow caches of one scope; what was used longest ago is dropped first, a miss for every plan alike."""

    slots: dict[bytes, Slots] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.slots)

    def alive(self, digest: bytes, now: float) -> int:
        """The plans that could read a prefix."""
        result = 0
        for used_at, bits in self.slots.get(digest, ()):
            age = now - used_at
            if age < TTL_SECONDS["5m"]:
                result |= bits
            elif age < TTL_SECONDS["1h"]:
                result |= bits & LONG
        return result

    def began(self, shadowed: Shadowed) -> None:
        """The response began: what each plan would have written can be read."""
        for digest, bits in shadowed.stamps:
            kept = tuple(
                (used_at, left)
                for used_at, before in self.slots.pop(digest, ())
                if (left := before & ~bits) and shadowed.at - used_at < TTL_SECONDS["1h"]
            )
            self.slots[digest] = (*kept, (shadowed.at, bits))

    def lost(self, digests: Iterable[bytes], before: float) -> None:
        """The service no longer had what was sure to be there: what plans had of it by then is gone as well."""
        for digest in digests:
            slots = tuple(slot for slot in self.slots.get(digest, ()) if slot[0] >= before)
            if slots:
                self.slots[digest] = slots
            else:
                self.slots.pop(digest, None)

    def keep(self, most: int) -> None:
        """Keep at most so many prefixes, those used last."""
        for digest in list(islice(self.slots, max(len(self.slots) - most, 0))):
            del self.slots[digest]
