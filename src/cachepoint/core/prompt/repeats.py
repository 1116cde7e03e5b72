"""Beginnings of requests that were read before: what a conversation repeats is not digested again.

Of each reading a few points are kept at which it can be taken up again, with the blocks and boundaries before them, and
a mark of every block: its length and Python's hash, 64 bits under a secret of this process (SipHash, PEP 456). No text
is kept. Objects are never known again by their identity, for callers change theirs in place; a string remembers its
hash, so that one which comes again is not even looked through. Nothing depends on what is kept here but the time it
takes: reading is as pure as without.
"""

from __future__ import annotations

import marshal
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from cachepoint.core.prompt.prompt import Block, Boundary, ListKey

if TYPE_CHECKING:
    from hashlib import blake2b

Trace = tuple[object, ...]
"""What a block is known again by, within one process: its length and hash, behind what else makes it what it is."""

READ_BOUNDARIES_KEPT = 16_384
"""In all readings together; one takes some 500 bytes with its block and its trace, so that these stay below 8 MiB."""
_SLACK = 8
"""Room is made for an eighth of all at a time, so that it is seldom counted."""
POINTS_APART = 16
"""Blocks between two points, besides those near the end: a point is a hash's state of some 400 bytes."""

KEYED = bool(sys.flags.hash_randomization) and sys.hash_info.hash_bits >= 64
"""Without a secret, as with PYTHONHASHSEED=0, two texts could be made to have one hash: all is digested then."""


def trace_of(value: Any, *before: object) -> Trace | None:
    """What a JSON value with bytes in it is known again by; None where it has something else in it, as an open file."""
    try:
        # The quickest way to all of a value: exact in types and order. Version 2 has no references in it, which would
        # tell equal values apart.
        content = marshal.dumps(value, 2)
    except ValueError:
        return None
    return (*before, len(content), hash(content))


class Point(NamedTuple):
    """Where a reading can be taken up: the state of the digest, and how much had been read by then.

    `messages` is the number of messages begun, `items` of blocks in the last of them, or in the section.
    """

    state: blake2b
    blocks: int
    boundaries: int
    tokens: float
    size: int
    messages: int
    items: int


@dataclass(frozen=True, slots=True)
class Reading:
    """What was made of the blocks from an origin on, whose traces are `traces`."""

    traces: Sequence[Trace]
    points: Mapping[int, Point]
    """By the number of blocks read."""
    blocks: Sequence[Block]
    boundaries: Sequence[Boundary]
    ends: Sequence[int]
    roles: Sequence[str]
    starts: Sequence[int]
    plain: Collection[ListKey]

    @property
    def weight(self) -> int:
        """What it takes, in boundaries: a point takes about two, and the rest of it four."""
        return len(self.boundaries) + 2 * len(self.points) + 4

    def point(self, traces: Sequence[Trace]) -> int:
        """The deepest point at which blocks with these traces can go on from here, 0 where there is none."""
        for count in sorted(self.points, reverse=True):
            if count <= len(traces) and self.traces[:count] == traces[:count]:
                return count
        return 0


class Readings:
    """The readings used last, by the state they began with and their first block.

    Threads share it without a lock, which a fork would leave shut: each step is one of a dict's own, and the worst that
    a race costs is to read a prompt once more.
    """

    def __init__(self, most: int = READ_BOUNDARIES_KEPT) -> None:
        self._most = most
        self._weight = 0
        self._kept: dict[Trace, Reading] = {}

    def get(self, origin: Trace) -> Reading | None:
        """The last reading from there."""
        return self._kept.get(origin)

    def put(self, origin: Trace, reading: Reading) -> None:
        """Keep one in the place of the last from there; those used longest ago give way."""
        before = self._kept.pop(origin, None)
        self._weight -= before.weight if before is not None else 0
        if reading.weight > self._most:
            return
        self._kept[origin] = reading
        self._weight += reading.weight
        if self._weight > self._most:
            self._make_room()

    def _make_room(self) -> None:
        kept = list(self._kept.items())
        weight = sum(
            reading.weight for _, reading in kept
        )  # counted anew, for threads may have counted past each other
        for origin, reading in kept:
            if weight <= self._most - self._most // _SLACK:
                break
            self._kept.pop(origin, None)
            weight -= reading.weight
        self._weight = weight


READINGS = Readings()
