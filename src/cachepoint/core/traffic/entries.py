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
from cachepoint.core.provider.usage import Usage
from cachepoint.core.traffic.kinds import CurveKey, Role
from cachepoint.core.traffic.shadows import Shadowed
from cachepoint.core.traffic.waste import Risk, Saving, Stake, Surcharge

LATEST_TIME = 253_402_300_800.0
"""The end of the year 9999, where Python's dates end; a clock that counts milliseconds is past it."""
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
    told it, else None; `stake` is what writing it has cost.
    """

    ttl: TTL
    used_at: float
    splits: tuple[bytes, ...] = ()
    readable: bool = True
    tokens: int | None = None
    stake: Stake | None = None

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


class Reach(NamedTuple):
    """A prefix that a request may read, in likely tokens, and what its boundary is now."""

    digest: bytes
    tokens: float
    role: Role


@dataclass(frozen=True, slots=True)
class Sent:
    """What of a planned request the traffic keeps until its answer: digests and sizes only.

    `points` are in wire order; `read` is the entry the request is expected to read, `reaches` are all it may read, in
    wire order, and `risk` is what it can cost beyond no caching; `estimated` is the whole prompt before calibration;
    `cold` are boundaries whose read would be a surprise, `foreign` the tail of the request before this one if another
    process made that, which it did not where one was sent that ends like it. `shadowed` is what static plans would
    have paid.
    """

    points: tuple[SentPoint, ...] = ()
    read: SentPoint | None = None
    reaches: tuple[Reach, ...] = ()
    risk: Risk = Risk()
    estimated: float = 0.0
    minimum: int = 0
    rates: Rates = Rates()
    shape: Shape | None = None
    cold: tuple[Cold, ...] = ()
    foreign: Cold | None = None
    ends_like: Ending | None = None
    before_ends_like: Ending | None = None
    shadowed: Shadowed | None = None


def arrived(expected: SentPoint, read: int) -> bool:
    """Whether an expected read came, given the tokens read."""
    tolerance = EXACT_TOLERANCE if expected.exact else LIKELY_TOLERANCE
    return read >= expected.tokens * (1 - tolerance)


def saved(sent: Sent, usage: Usage | None, entries: Mapping[bytes, Entry]) -> list[tuple[bytes, Saving]]:
    """What a read saved, shared out over the entries it covered, by their digests."""
    result: list[tuple[bytes, Saving]] = []
    if usage is None or not usage.cache_read:
        return result
    start, each = 0.0, 1 - sent.rates.read
    within = [reach for reach in sent.reaches if reach.tokens <= usage.cache_read * (1 + LIKELY_TOLERANCE)]
    for reach in within:
        end = float(usage.cache_read) if reach is within[-1] else min(reach.tokens, usage.cache_read)
        entry = entries.get(reach.digest)
        saving = Saving(reach.role, max(end - start, 0.0) * each, entry.stake if entry else None)
        result.append((reach.digest, saving))
        start = max(start, end)
    return result


def paid(sent: Sent, usage: Usage | None) -> list[tuple[bytes, Surcharge]]:
    """What a write cost beyond no caching, shared out over the checkpoints, by their digests.

    Without usage, all that was sent counts as written. What was written in truth is the sum, whatever was expected.
    """
    if usage is None:
        amounts = {segment.digest: segment.tokens for segment in sent.risk.segments}
        total = None
    else:
        amounts = _written(sent, usage)
        total = (sent.rates.write_5m - 1) * usage.cache_write_5m + (sent.rates.write_1h - 1) * usage.cache_write_1h
        if not total:
            return []
    asked = [(segment, amounts.get(segment.digest, 0.0) * segment.asked) for segment in sent.risk.segments]
    own = {segment.digest: amounts.get(segment.digest, 0.0) * segment.own for segment in sent.risk.segments}
    if total is not None:
        left, expected = max(total - sum(amount for _, amount in asked), 0.0), sum(own.values())
        if not sent.risk.segments:
            return [(b"", Surcharge(None, left))]
        own = {digest: amount * left / expected if expected else 0.0 for digest, amount in own.items()}
    result, authorised = [], sent.risk.authorised
    for segment, theirs in asked:
        taken = min(own[segment.digest], authorised)
        authorised -= taken
        if own[segment.digest] or theirs:
            result.append((segment.digest, Surcharge(segment.role, own[segment.digest] - taken, theirs + taken)))
    return result


def _written(sent: Sent, usage: Usage) -> dict[bytes, float]:
    """The tokens written up to each checkpoint beyond the one before and beyond what was read."""
    cached = float(usage.cache_read + usage.cache_write)
    deepest = max((point.tokens for point in sent.points), default=0.0)
    start, result = float(usage.cache_read), {}
    for point in sent.points:
        end = point.tokens * cached / deepest if deepest else cached
        result[point.digest] = max(end - start, 0.0)
        start = max(start, end)
    return result
