"""Learned traffic of one scope: prefixes seen, entries believed alive, and what usage confirmed.

A scope is (credentials' scope, Region, model or profile id, API). Everything is keyed by digest; no
text is kept. `Traffic` is changed only through its methods, each of which takes `now`; a store holds
one per scope and guards it. What the planner gets is a frozen `View`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

from cachepoint.core.prompt.tokens import Calibration
from cachepoint.core.provider.usage import Usage
from cachepoint.core.traffic.return_curves import LATE, NAMED, SOON, CurveKey, Habits
from cachepoint.core.traffic.view import (
    LIKELY_TOLERANCE,
    Cold,
    Entry,
    Seen,
    Sent,
    SentPoint,
    Shape,
    Step,
    View,
    arrived,
    sooner,
)
from cachepoint.core.traffic.waste import Waste

_V = TypeVar("_V")


@dataclass
class _Generations(Generic[_V]):
    """A mapping that forgets what has not been touched for a while: two dicts that take turns."""

    limit: int
    young: dict[bytes, _V] = field(default_factory=dict)
    old: dict[bytes, _V] = field(default_factory=dict)

    def get(self, digest: bytes) -> _V | None:
        found = self.young.get(digest)
        return found if found is not None else self.old.get(digest)

    def put(self, digest: bytes, value: _V) -> None:
        self.young[digest] = value
        if len(self.young) > self.limit:
            self.old, self.young = self.young, {}

    def drop(self, digest: bytes) -> None:
        self.young.pop(digest, None)
        self.old.pop(digest, None)

    def items(self) -> Iterator[tuple[bytes, _V]]:
        yield from self.young.items()
        yield from ((digest, value) for digest, value in self.old.items() if digest not in self.young)

    def __len__(self) -> int:
        return len(self.young) + len(self.old)


_SHAPES_REMEMBERED = 16
_UNREADABLE_BEFORE_LEARNING = 3
_SPLITS_FAILED_BEFORE_STOPPING = 3
_CALIBRATED = 3
_STRAYS = 3


@dataclass
class Traffic:
    """The learned traffic of one scope; `boundaries_kept` bounds its memory (about 300 bytes each)."""

    boundaries_kept: int = 50_000
    calibration: Calibration = field(default_factory=Calibration)
    waste: Waste = field(default_factory=Waste)
    learned_minimum: int = 0
    refused: frozenset[str] = frozenset()
    splits_trusted: bool = True
    habits: Habits = field(default_factory=Habits)
    entries: dict[bytes, Entry] = field(default_factory=dict)
    recent: deque[Shape] = field(default_factory=lambda: deque(maxlen=_SHAPES_REMEMBERED))
    latest: float = 0.0
    _unreadable: int = 0
    _splits_failed: int = 0

    def __post_init__(self) -> None:
        self.seen: _Generations[Seen] = _Generations(self.boundaries_kept // 2)
        self.tails: _Generations[bytes] = _Generations(self.boundaries_kept // 20)
        self._entries_kept = self.boundaries_kept // 10

    def visit(self, steps: Sequence[Step], history: bytes | None, now: float) -> View:
        """Remember that a request with these boundaries came, and say what was known before.

        `history` is the digest at the end of the history of a prompt that has turns. The last step
        is the prompt's tail.
        """
        view = self.view(steps, now)
        self.latest = max(self.latest, now)
        self._remember(steps, view, history, now)
        return view

    def view(self, steps: Sequence[Step], now: float) -> View:
        """What is known about these boundaries."""
        seen: dict[bytes, Seen] = {}
        entries: dict[bytes, Entry] = {}
        lapsed: dict[bytes, Entry] = {}
        reached = alive = 0.0
        for digest, _, tokens, _ in steps:
            known = self.seen.get(digest)
            if known is not None:
                seen[digest], reached = known, tokens
                entry = self.entries.get(digest)
                if entry is not None and entry.lives(now):
                    entries[digest], alive = entry, tokens
                elif entry is not None:
                    lapsed[digest] = entry
        view = View(
            seen, entries, {}, self.calibration, self.learned_minimum, self.waste,
            tuple(sorted(self.refused)), self.splits_trusted, lapsed, tuple(self.recent), now=now, known=reached,
            alive=alive,
        )  # fmt: skip
        kinds = {view.kind(step) for step in steps}
        return replace(view, forecasts={kind: self.habits.forecast(kind, now) for kind in kinds})

    def limit_boundaries(self, kept: int) -> None:
        """Keep at most about this many boundaries from now on."""
        self.seen.limit = max(kept // 2, 250)
        self.tails.limit = max(kept // 20, 25)
        self._entries_kept = max(kept // 10, 50)
        self.habits.limit_pending(kept // 100)

    def sent(self, sent: Sent, now: float) -> None:
        """A planned request goes out: its new entries are in flight."""
        self.waste = self.waste.with_commitment(sent.surcharge)
        for point in sent.points:
            entry = self.entries.get(point.digest)
            if entry is None or not entry.lives(now) or entry.splits != point.splits:
                self.entries[point.digest] = Entry(point.ttl, now, point.splits, readable=False)
        if len(self.entries) > self._entries_kept:
            # Down to half, so that this is rare; those used last are worth most.
            alive = sorted(
                (kept for kept in self.entries.items() if kept[1].lives(now)), key=lambda kept: kept[1].used_at
            )
            self.entries = dict(alive[-self._entries_kept // 2 :])

    def began(self, sent: Sent) -> None:
        """The response began: what the request wrote can be read."""
        for point in sent.points:
            entry = self.entries.get(point.digest)
            if entry is not None and not entry.readable:
                self.entries[point.digest] = entry._replace(readable=True)

    def failed(self, sent: Sent) -> None:
        """The request failed before its response began: it wrote nothing."""
        self.waste = self.waste.with_commitment(-sent.surcharge)
        for point in sent.points:
            entry = self.entries.get(point.digest)
            if entry is not None and not entry.readable:
                del self.entries[point.digest]

    def settled(self, sent: Sent, usage: Usage | None, started: float) -> None:
        """The answer is complete; `usage` is None when it never arrived, `started` is wall time."""
        self.waste = self.waste.with_commitment(-sent.surcharge)
        if usage is None:
            lost = Usage(cache_write_5m=round(sent.written), input=max(round(sent.estimated - sent.written), 0))
            self.waste = self.waste.settled(lost, sent.rates)
            return
        self.waste = self.waste.settled(usage, sent.rates)
        self._check_splits(sent, usage)
        self.calibration = self.calibration.updated(sent.estimated, usage.prompt)
        self._correct(sent, usage, started)
        self._learn_of_others(sent, usage)
        cached = usage.cache_read + usage.cache_write
        if sent.shape is not None and cached:
            self.recent.append(sent.shape._replace(cached=cached, used_at=started))

    def holds(self, digests: Sequence[bytes], now: float) -> bool:
        """Whether an entry of any of these prefixes is believed alive."""
        return any((entry := self.entries.get(digest)) is not None and entry.lives(now) for digest in digests)

    def like(self) -> Traffic:
        """Traffic that starts with what this one learned of habits and sizes, but believes no entry alive."""
        copy = replace(
            self,
            habits=self.habits.without_waits(self.latest),
            waste=Waste(),
            entries={},
            recent=deque(maxlen=_SHAPES_REMEMBERED),
        )
        for digest, seen in self.seen.items():
            copy.seen.put(digest, seen._replace(last=None))
        return copy

    def refuse(self, refused: str) -> None:
        """The service refused checkpoints in a section, or a TTL: none is placed there, or with it, again."""
        self.refused |= {refused}

    # -- parts ------------------------------------------------------------------------------------

    def _remember(self, steps: Sequence[Step], view: View, history: bytes | None, now: float) -> None:
        here = {step.digest for step in steps}
        parting = max((i for i, step in enumerate(steps) if step.digest in view.seen), default=-1)
        for index, step in enumerate(steps):
            known = view.seen.get(step.digest)
            kind = view.kind(step)
            self._count(step, known, kind, now)
            if known is not None:
                if known.last is not None:
                    self.habits.curve(known.kind).returned(step.digest, now - known.last)
                self._supersede(step.digest, here)
            if index == parting or step.role in NAMED or (known is None and step.role == "inner"):
                self.habits.curve(kind).visited(step.digest, now)
        if history is not None and steps:
            self.tails.put(history, steps[-1].digest)

    def _count(self, step: Step, known: Seen | None, kind: CurveKey, now: float) -> None:
        """One more visit; for how long boundaries last, from the first visit on and from the second on."""
        visits, born, gaps = (known.visits + 1, known.born, known.gaps_by(now)) if known else (1, kind, ())
        self.seen.put(step.digest, Seen(visits, now, kind, born, gaps))
        if step.role == "cut":  # hundreds in a long text
            return
        if visits <= 2:
            self.habits.curve(kind).lasting.began(now, self.habits.pending_kept)
        if known is not None:
            self.habits.curve(born).lasting.followed += 1
            if known.kind != born:
                self.habits.curve(known.kind).lasting.followed += 1

    def _supersede(self, history: bytes, here: Collection[bytes]) -> None:
        """A conversation that goes on without the tail it had last time will not come back to it."""
        tail = self.tails.get(history)
        if tail is None or tail in here:
            return
        self.tails.drop(history)
        known = self.seen.get(tail)
        if known is not None:
            self.habits.curve(known.kind).lapsed(tail)

    def _learn_of_others(self, sent: Sent, usage: Usage) -> None:
        """What a read beyond the entries believed alive tells, or turns that this process never saw."""
        read, expected = usage.cache_read, sent.read.tokens if sent.read else 0.0
        if read > expected * (1 + LIKELY_TOLERANCE):
            cold = [*sent.cold, sent.foreign] if sent.foreign else sent.cold
            found = min(cold, key=lambda cold: abs(cold.tokens - read), default=None)
            if found is not None and abs(found.tokens - read) <= LIKELY_TOLERANCE * read:
                self._kept_warm(found)
        elif sent.foreign is not None:
            kind = sent.foreign.kind
            reached = any(point.tokens >= sent.foreign.tokens for point in sent.points)
            spread = LATE if reached else self.habits.spread(kind, self.latest)
            self.habits.curve(kind).returned_elsewhere(spread, read=False)

    def _kept_warm(self, found: Cold) -> None:
        """Others keep this prefix warm, so it came back within minutes."""
        curve = self.habits.curve(found.kind)
        if found.gap is None:
            curve.returned_elsewhere(SOON, read=True)
            return
        curve.returned_sooner(found.gap)
        seen = self.seen.get(found.digest)
        if seen is not None:
            self.seen.put(found.digest, seen._replace(gaps=sooner(seen.gaps, found.gap)))

    def _correct(self, sent: Sent, usage: Usage, started: float) -> None:
        """What usage says of the entries, against what was believed."""
        cached = usage.cache_read + usage.cache_write
        for point in sent.points:
            self._settle_point(point, sent, cached, started, last=point is sent.points[-1])
        if sent.read is not None:
            self._settle_read(sent.read, usage, started)
        self._learn_minimum(sent, cached)

    def _settle_point(self, point: SentPoint, sent: Sent, cached: int, started: float, *, last: bool) -> None:
        # Every checkpoint that reaches the minimum makes an entry, and the last one ends what was cached.
        if not cached or point.tokens < sent.minimum * (1 - LIKELY_TOLERANCE):
            self.entries.pop(point.digest, None)
            return
        before = self.entries.get(point.digest)
        kept = before is not None and before.readable and before.lives(started) and before.splits == point.splits
        exact = cached if last else before.tokens if before is not None and kept else None
        ttl = before.ttl if before is not None and kept else point.ttl
        used_at = max(started, before.used_at) if before is not None and kept else started
        self.entries[point.digest] = Entry(ttl, used_at, point.splits, tokens=exact)

    def _settle_read(self, expected: SentPoint, usage: Usage, started: float) -> None:
        came = arrived(expected, usage.cache_read)
        entry = self.entries.get(expected.digest)
        if came and entry is not None:
            self.entries[expected.digest] = entry._replace(used_at=max(started, entry.used_at))
        elif not came and entry is not None and (entry.used_at != started or not usage.cache_write):
            del self.entries[expected.digest]
        if expected.splits:
            self._splits_failed = 0 if came else self._splits_failed + 1
            self._judge_splits()

    def _check_splits(self, sent: Sent, usage: Usage) -> None:
        """A split that makes a prompt notably dearer in tokens than its like is not borne out."""
        known = self.calibration
        if known.samples < _CALIBRATED or not sent.estimated or not any(point.splits for point in sent.points):
            return
        likely = known.factor * sent.estimated
        if usage.prompt > likely * (1 + max(_STRAYS * known.spread, LIKELY_TOLERANCE)):
            self._splits_failed += 1
            self._judge_splits()

    def _judge_splits(self) -> None:
        if self._splits_failed >= _SPLITS_FAILED_BEFORE_STOPPING:
            self.splits_trusted = False

    def _learn_minimum(self, sent: Sent, cached: int) -> None:
        largest = max((point.tokens for point in sent.points), default=0.0)
        if cached:
            self._unreadable = 0
            if cached < self.learned_minimum:
                self.learned_minimum = 0
        elif largest > max(sent.minimum, self.learned_minimum) * (1 + LIKELY_TOLERANCE):
            self._unreadable += 1
            if self._unreadable >= _UNREADABLE_BEFORE_LEARNING:
                self.learned_minimum, self._unreadable = int(largest * (1 + LIKELY_TOLERANCE)), 0
