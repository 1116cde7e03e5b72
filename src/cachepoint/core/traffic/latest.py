"""How much is kept, and what of it is given up first: what was used longest ago."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import NamedTuple, TypeVar

_V = TypeVar("_V")


class Latest(dict[bytes, _V]):
    """A mapping in the order in which its digests were last put in."""

    __slots__ = ()

    def put(self, digest: bytes, value: _V) -> None:
        """Put in what is latest now."""
        self.pop(digest, None)
        self[digest] = value

    def put_all(self, latest: Iterable[tuple[bytes, _V]]) -> None:
        """Put in many, one after the other."""
        for digest, value in latest:
            self.pop(digest, None)
            self[digest] = value

    def take_oldest(self, count: int) -> list[tuple[bytes, _V]]:
        """Take out those put in longest ago."""
        return [(digest, self.pop(digest)) for digest in list(islice(self, max(count, 0)))]


class Room(NamedTuple):
    """How much is kept, or may be: boundaries, entries, blocks of recent requests."""

    boundaries: int
    entries: int
    blocks: int


EMPTY = Room(0, 0, 0)
