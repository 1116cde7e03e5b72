"""Cache entries as far as they are known from here, and what of a request is kept until its answer.

Frozen values keyed by digest, no text; times are wall seconds.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, overload

from cachepoint.core.prompt.prompt import DIGEST_BYTES, Setting
from cachepoint.core.provider.prices import Rates
from cachepoint.core.provider.rules import TTL, TTL_SECONDS
from cachepoint.core.traffic.kinds import CurveKey
from cachepoint.core.traffic.shadows import Shadowed

IN_FLIGHT_SECONDS = 120.0
"""An entry whose response never began is given up after this time."""
EXACT_TOLERANCE = 0.02
"""Positions of checkpoints move by a token or two over months (C10)."""
LIKELY_TOLERANCE = 0.25
"""An estimated read that comes this much shorter is still the one expected."""
_SKEW_SECONDS = 1.0
"""Calls of several threads start slightly out of order."""


class Entry(NamedTuple):
    """A cache entry believed alive.

    `splits` are the digests of the cuts its bytes were split at; `tokens` its exact size, where usage
    told it, else None.
    """

    ttl: TTL
    used_at: float
    splits: tuple[bytes, ...] = ()
    readable: bool = True
    tokens: int | None = None

    def lives(self, now: float) -> bool:
        """Whether it can still be read; a clock gone backwards ends its life rather than prolong it."""
        limit = TTL_SECONDS[self.ttl] if self.readable else IN_FLIGHT_SECONDS
        return -_SKEW_SECONDS <= now - self.used_at < limit


def by_life(entries: Mapping[bytes, Entry], now: float) -> tuple[dict[bytes, Entry], dict[bytes, Entry]]:
    """Those that live and those that lapsed."""
    living = {digest: entry for digest, entry in entries.items() if entry.lives(now)}
    return living, {digest: entry for digest, entry in entries.items() if digest not in living}


class Digests(Sequence[bytes]):
    """Digests in one piece: a fifth of the memory of as many objects."""

    __slots__ = ("_joined",)

    def __init__(self, digests: Sequence[bytes]) -> None:
        self._joined = b"".join(digests)

    def __len__(self) -> int:
        return len(self._joined) // DIGEST_BYTES

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | Sequence[bytes]:
        if isinstance(index, slice):
            return tuple(self)[index]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        start = (index % len(self)) * DIGEST_BYTES
        return self._joined[start : start + DIGEST_BYTES]

    def __iter__(self) -> Iterator[bytes]:
        for start in range(0, len(self._joined), DIGEST_BYTES):
            yield self._joined[start : start + DIGEST_BYTES]


class Shape(NamedTuple):
    """A recent request for comparison: per block its prefix digest and size in bytes; what was cached of it.

    `sections` are the indices of the last tool and the last system block; `cached` is in likely tokens.
    """

    digests: Sequence[bytes]
    sizes: Sequence[int]
    sections: tuple[int, int]
    settings: tuple[Setting, ...]
    cached: float
    ttl: TTL
    used_at: float

    def kept(self, cached: float, used_at: float, blocks: int) -> Shape:
        """The same after its answer, packed; of more than so many blocks, the first."""
        return self._replace(
            digests=Digests(self.digests[:blocks]),
            sizes=array("q", self.sizes[:blocks]),
            cached=cached,
            used_at=used_at,
        )


class Cold(NamedTuple):
    """A boundary no entry was believed alive under: its likely tokens, and the curve that awaited it.

    `gap` are the seconds since its last visit, None where none was known of.
    """

    digest: bytes
    tokens: float
    kind: CurveKey
    gap: float | None


class SentPoint(NamedTuple):
    """A prefix that is written or read: its digest, TTL, likely tokens and splits; `exact` if usage told them."""

    digest: bytes
    ttl: TTL
    tokens: float
    splits: tuple[bytes, ...] = ()
    exact: bool = False


Ending = tuple[int, ...]
"""How a request ends: the contents of its last blocks as hashes of this process, which knows its own again by them."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What of a planned request the traffic keeps until its answer: digests and sizes only.

    `points` are in wire order; `read` is the entry the request is expected to read, `written` the tokens
    it is expected to write; `estimated` is the whole prompt before calibration; `cold` are boundaries whose
    read would be a surprise, `foreign` the tail of the request before this one if another process made that, which it
    did not where one was sent that ends like it. `shadowed` is what static plans would have paid. `authorised` is what
    of the surcharge the user has authorised, in input tokens.
    """

    points: tuple[SentPoint, ...] = ()
    read: SentPoint | None = None
    written: float = 0.0
    estimated: float = 0.0
    minimum: int = 0
    rates: Rates = Rates()
    shape: Shape | None = None
    cold: tuple[Cold, ...] = ()
    foreign: Cold | None = None
    ends_like: Ending | None = None
    before_ends_like: Ending | None = None
    shadowed: Shadowed | None = None
    authorised: float = 0.0

    @property
    def surcharge(self) -> float:
        """The most the expected write can cost beyond no caching and what was authorised, in input tokens."""
        dearest = max((self.rates.write(point.ttl) for point in self.points), default=1.0)
        return max(self.written * (dearest - 1) - self.authorised, 0.0)


def arrived(expected: SentPoint, read: int) -> bool:
    """Whether an expected read came, given the tokens read."""
    tolerance = EXACT_TOLERANCE if expected.exact else LIKELY_TOLERANCE
    return read >= expected.tokens * (1 - tolerance)
