"""A model of the provider's prompt cache: what a request reads, writes and leaves as input.

The facts (ids are those of docs/rules.md):
- An entry is an exact prefix, cumulative in wire order (R3.1). It is written only at a checkpoint
  that reaches the minimum, and at every such checkpoint, not only the last (R3.7).
- A checkpoint finds an entry at its own position or up to lookback positions before it (R3.7).
- With A the highest entry found, C the last checkpoint that reaches the minimum and B the highest
  1h checkpoint after A: read = A, 1h write = B - A, 5m write = C - B, input = the rest (R3.3).
- An entry lives 5 minutes or 1 hour from the start of the request that wrote or last read it, so that
  four minutes of streaming leave one of a 5-minute entry (R3.8).
- It can be read only once the response to the request that wrote it has begun (R3.9).

What the sources leave open is a switch of `CacheSwitches` with its default explained there.
The model keeps entries between calls but has no clock: every method takes `now` in seconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from cachepoint.core.provider.rules import TTL, TTL_SECONDS, ModelRule
from cachepoint.core.provider.usage import Usage


@dataclass(frozen=True, slots=True)
class CacheSwitches:
    """What public sources leave open about the provider's cache, one switch each.

    - `ttl_shared`: a checkpoint of one TTL reads an entry written with the other. Default True:
      a 5m checkpoint read a 1h entry two seconds after it was written (C7, one pair).
    - `lookback_extra`: positions added to the documented lookback. Default 0, the documents' 20
      positions; one measurement on Bedrock found two more (D4), which planning must not rely on.
    - `refresh_inner`: a read restarts the time of entries at the request's own checkpoints before
      the one read, not only of the one read. Default True: they are matched all the same.
    - `clock_from_response`: an entry's time starts when the response begins, not with the request.
      Default False: Anthropic's prompt caching page (Nov 2026) counts it from the request's start (R3.8).
      Nobody measured it on Bedrock, which is why there is a switch.
    - `in_flight_readable`: an entry can be read before its response began. Default False (R3.9).
    - `cap_drops_entry`: a prefix above the model's cap is not cached at all, instead of being cached
      as if there were no cap. Default False: behaviour above Nova's cap is unknown.
    """

    ttl_shared: bool = True
    lookback_extra: int = 0
    refresh_inner: bool = True
    clock_from_response: bool = False
    in_flight_readable: bool = False
    cap_drops_entry: bool = False


@dataclass(frozen=True, slots=True)
class Position:
    """The end of one block in wire order.

    `digest` identifies everything up to here; `tokens` counts it, cumulatively.
    """

    digest: bytes
    tokens: int


@dataclass(frozen=True, slots=True)
class Point:
    """A checkpoint after the block at `position` (an index into the request's positions)."""

    position: int
    ttl: TTL = "5m"


@dataclass(frozen=True, slots=True)
class CacheRequest:
    """What the cache sees of a request.

    `scope` is whatever entries are not shared across (account, Region, model, API).
    `total` is the whole prompt in tokens, what follows the last position included.
    """

    scope: str
    positions: Sequence[Position]
    points: Sequence[Point]
    total: int


@dataclass(frozen=True, slots=True)
class Served:
    """What a request read and wrote.

    `read_position` is the index of the block whose end was read up to, None on a miss.
    `written` are the positions at which new entries were made; they become readable with
    `begin_response`.
    """

    scope: str
    usage: Usage
    read_position: int | None
    written: tuple[tuple[Position, TTL], ...] = ()


@dataclass(slots=True)
class _Entry:
    ttl: TTL
    used_at: float
    readable: bool

    def lives(self, now: float) -> bool:
        # A clock that went backwards must not lengthen a life: the earlier reading counts from here on.
        self.used_at = min(self.used_at, now)
        return now - self.used_at < TTL_SECONDS[self.ttl]


_Key = tuple[str, bytes, TTL | None]


@dataclass
class CacheModel:
    """The entries alive, and the one step that serves a request against them."""

    switches: CacheSwitches = field(default_factory=CacheSwitches)
    _entries: dict[_Key, _Entry] = field(default_factory=dict, repr=False)

    def serve(self, request: CacheRequest, rule: ModelRule, now: float) -> Served:
        """Serve one request: find the read, make the entries, split the tokens.

        Output tokens are left at 0. New entries are in flight until `begin_response`.
        """
        points = [point for point in request.points if self._reaches(request, point, rule)]
        read = self._read(request, rule, now)
        self._refresh(request, points, read, now)
        read_tokens = request.positions[read].tokens if read is not None else 0
        write_5m, write_1h = self._split(request, points, read_tokens)
        usage = Usage(
            input=request.total - read_tokens - write_5m - write_1h,
            cache_read=read_tokens,
            cache_write_5m=write_5m,
            cache_write_1h=write_1h,
        )
        written = tuple(self._write(request, points, read_tokens, now))
        return Served(request.scope, usage, read, written)

    def begin_response(self, served: Served, now: float) -> None:
        """Make the entries of a served request readable: its response has begun."""
        for position, ttl in served.written:
            entry = self._entries.get(self._key(served.scope, position.digest, ttl))
            if entry is not None:
                entry.readable = True
                if self.switches.clock_from_response:
                    entry.used_at = now

    def abandon(self, served: Served) -> None:
        """Forget the entries of a request that failed before its response began."""
        for position, ttl in served.written:
            key = self._key(served.scope, position.digest, ttl)
            entry = self._entries.get(key)
            if entry is not None and not entry.readable:
                del self._entries[key]

    def evict(self, scope: str | None = None) -> int:
        """Drop every entry (of one scope); says how many."""
        doomed = [key for key in self._entries if scope is None or key[0] == scope]
        for key in doomed:
            del self._entries[key]
        return len(doomed)

    def drop_dead(self, now: float) -> int:
        """Drop the entries whose time is over, which nothing can read again; says how many."""
        doomed = [key for key, entry in self._entries.items() if not entry.lives(now)]
        for key in doomed:
            del self._entries[key]
        return len(doomed)

    def drop_oldest(self, keep: int) -> int:
        """Drop the entries that were used longest ago, beyond so many; says how many."""
        beyond = len(self._entries) - keep
        if beyond <= 0:
            return 0
        doomed = sorted(self._entries, key=lambda key: self._entries[key].used_at)[:beyond]
        for key in doomed:
            del self._entries[key]
        return beyond

    def live(self, now: float) -> int:
        """How many entries are alive."""
        return sum(entry.lives(now) for entry in self._entries.values())

    # -- the step in parts ------------------------------------------------------------------------

    def _reaches(self, request: CacheRequest, point: Point, rule: ModelRule) -> bool:
        tokens = request.positions[point.position].tokens
        cap = rule.max_cached_tokens
        above_cap = self.switches.cap_drops_entry and cap is not None and tokens > cap
        return tokens >= rule.minimum and not above_cap

    def _key(self, scope: str, digest: bytes, ttl: TTL) -> _Key:
        return (scope, digest, None if self.switches.ttl_shared else ttl)

    def _find(self, scope: str, digest: bytes, ttl: TTL, now: float) -> _Entry | None:
        key = self._key(scope, digest, ttl)
        entry = self._entries.get(key)
        if entry is None:
            return None
        if not entry.lives(now):
            del self._entries[key]
            return None
        return entry

    def _read(self, request: CacheRequest, rule: ModelRule, now: float) -> int | None:
        reach = rule.lookback + self.switches.lookback_extra
        best: int | None = None
        for point in request.points:
            lowest = max(point.position - reach + 1, 0 if best is None else best + 1)
            for position in range(point.position, lowest - 1, -1):
                entry = self._find(request.scope, request.positions[position].digest, point.ttl, now)
                if entry and (entry.readable or self.switches.in_flight_readable):
                    best = position
                    break
        return best

    def _refresh(self, request: CacheRequest, points: Sequence[Point], read: int | None, now: float) -> None:
        if read is None:
            return
        refreshed = {read}
        if self.switches.refresh_inner:
            refreshed |= {point.position for point in points if point.position < read}
        for position in refreshed:
            digest = request.positions[position].digest
            for ttl in TTL_SECONDS:
                entry = self._find(request.scope, digest, ttl, now)
                if entry and entry.readable:
                    entry.used_at = now

    def _split(self, request: CacheRequest, points: Sequence[Point], read: int) -> tuple[int, int]:
        last = max((request.positions[p.position].tokens for p in points), default=0)
        last_1h = max((request.positions[p.position].tokens for p in points if p.ttl == "1h"), default=0)
        end = max(last, read)
        turn = min(max(last_1h, read), end)
        return end - turn, turn - read

    def _write(
        self, request: CacheRequest, points: Sequence[Point], read: int, now: float
    ) -> Iterator[tuple[Position, TTL]]:
        for point in points:
            position = request.positions[point.position]
            if position.tokens <= read and self._find(request.scope, position.digest, point.ttl, now):
                continue
            # What can be read here was read, so an entry that is replaced is one in flight.
            key = self._key(request.scope, position.digest, point.ttl)
            self._entries[key] = _Entry(point.ttl, now, readable=False)
            yield position, point.ttl
