"""Learned traffic of one scope: prefixes seen, entries believed alive, and what usage confirmed.

A scope is (credentials' scope, Region, model or profile id, API); what belongs to the base model is in the
`Pool` that its scopes share. Everything is keyed by digest; no text is kept. `Traffic` is changed only
through its methods, each of which takes `now`; a store holds one per scope and guards it. What the
planner gets is a frozen `View`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field

from cachepoint.core.provider.usage import Usage
from cachepoint.core.traffic.entries import (
    LIKELY_TOLERANCE,
    Cold,
    Entry,
    Sent,
    SentPoint,
    Shape,
    arrived,
    by_life,
    paid,
    saved,
)
from cachepoint.core.traffic.kinds import AGAIN_KIND, NAMED, STATIC, CurveKey
from cachepoint.core.traffic.latest import Latest, Room
from cachepoint.core.traffic.pool import Pool
from cachepoint.core.traffic.refusals import NOTHING_REFUSED, Outcome, Refusals
from cachepoint.core.traffic.return_curves import LONGEST_WAIT, SOON, Habits, Happened
from cachepoint.core.traffic.shadows import Shadows
from cachepoint.core.traffic.static_plans import Habit
from cachepoint.core.traffic.view import Seen, Step, View, kinds_of, revisited, sooner
from cachepoint.core.traffic.waste import Stake, Waste

_SHAPES_REMEMBERED = 16
_SHAPE_BLOCKS = 4096
"""Blocks remembered of one request: of a longer one the first, where tools and system stand."""
_TAILS_SHARE = 10
"""Histories whose tail is remembered: one in so many boundaries, since a turn has a few of these …"""
_TAILS = 64
"""… and so many more, where there are few."""
_SHADOWS = 2
"""Prefixes in the shadow for one entry: static plans together point at several places of a request."""
_UNREADABLE_BEFORE_LEARNING = 3
_SPLITS_FAILED_BEFORE_STOPPING = 3
_CALIBRATED = 3
_STRAYS = 3


@dataclass
class Traffic:
    """The learned traffic of one scope."""

    pool: Pool = field(default_factory=Pool)
    refusals: Refusals = NOTHING_REFUSED
    splits_trusted: bool = True
    entries: Latest[Entry] = field(default_factory=Latest)
    recent: deque[Shape] = field(default_factory=deque)
    blocks: int = 0
    latest: float = 0.0
    seen: Latest[Seen] = field(default_factory=Latest)
    tails: Latest[bytes] = field(default_factory=Latest)
    shadows: Shadows = field(default_factory=Shadows)
    opened: dict[Habit, float] = field(default_factory=dict)
    _splits_failed: int = 0

    @property
    def habits(self) -> Habits:
        """How boundaries come back, by kind: the base model's."""
        return self.pool.habits

    def visit(self, steps: Sequence[Step], history: bytes | None, now: float, habit: Habit | None = None) -> View:
        """Remember that a request with these boundaries came, and say what was known before.

        `history` is the digest at the end of the history of a prompt that has turns. The last step
        is the prompt's tail. A request without a `habit` is not guarded.
        """
        view, kinds = self._view(steps, now, self.pool.guard.known(habit) if habit else None)
        self.latest = max(self.latest, now)
        if view.habit is not None:
            self.opened[view.habit] = now
        self._remember(steps, kinds, view, history, now)
        return view

    def view(self, steps: Sequence[Step], now: float) -> View:
        """What is known about these boundaries."""
        return self._view(steps, now, None)[0]

    def kept(self) -> Room:
        """How much it keeps."""
        return Room(len(self.seen), len(self.entries), self.blocks)

    def keep(self, most: Room, now: float) -> None:
        """Keep at most so much: what was used last. What guards money stays."""
        if (boundaries := len(self.seen) - most.boundaries) > 0:
            lost = [seen for _, seen in self.seen.take_oldest(boundaries)]
            self.habits.forgotten([(s.kind, s.waits_since) for s in lost if s.waits_since is not None], now)
        self.tails.take_oldest(len(self.tails) - len(self.seen) // _TAILS_SHARE - _TAILS)
        self.entries.take_oldest(len(self.entries) - most.entries)
        self.shadows.keep(_SHADOWS * most.entries)
        while self.blocks > most.blocks:
            oldest = self.recent.popleft()
            self.blocks -= len(oldest.sizes)
            if not self.recent and most.blocks:
                self._recall(oldest.kept(oldest.cached, oldest.used_at, most.blocks))

    def leave_what_is_under_way(self) -> None:
        """Calls under way are another process's from now on: what of their entries comes is not heard of here."""
        for digest in [digest for digest, entry in self.entries.items() if not entry.readable]:
            del self.entries[digest]

    def sent(self, sent: Sent, now: float) -> Waste | None:
        """A planned request goes out: its new entries are in flight.

        Where what may be risked by now does not cover it, nothing is remembered, and the accounts are given back.
        """
        if not self.pool.waste.covers(sent.risk):
            return self.pool.waste
        self.pool.waste = self.pool.waste.reserved(sent.risk)
        if sent.ends_like:
            self.pool.ended(sent.ends_like)
        for point in sent.points:
            entry = self.entries.get(point.digest)
            if entry is None or not entry.lives(now) or entry.splits != point.splits:
                self.entries.put(point.digest, Entry(point.ttl, now, point.splits, readable=False))
        return None

    def began(self, sent: Sent) -> None:
        """The response began: what the request wrote can be read."""
        if sent.shadowed is not None:
            self.shadows.began(sent.shadowed)
            self.pool.guard.began(sent.shadowed)
        for point in sent.points:
            entry = self.entries.get(point.digest)
            if entry is not None and not entry.readable:
                self.entries[point.digest] = entry._replace(readable=True)

    def failed(self, sent: Sent, *, lost: bool = False) -> None:
        """The request failed before its response began: it wrote nothing.

        Or nobody knows, where the answer was `lost` on its way: then it may have been billed in full, and what it may
        have written is believed to be over.
        """
        if lost:
            self._settle_waste(sent, None)
        else:
            self.pool.waste = self.pool.waste.released(sent.risk)
        for point in sent.points:
            entry = self.entries.get(point.digest)
            if entry is not None and not entry.readable:
                del self.entries[point.digest]
                if lost:
                    self.entries.put(point.digest, entry._replace(used_at=entry.used_at - LONGEST_WAIT, readable=True))

    def settled(self, sent: Sent, usage: Usage | None, started: float) -> None:
        """The answer is complete; `usage` is None when it never arrived, `started` is wall time."""
        stakes = self._settle_waste(sent, usage)
        if usage is None:
            self._remember_stakes(stakes)
            return
        self._check_splits(sent, usage)
        self.pool.calibration = self.pool.calibration.updated(sent.estimated, usage.prompt)
        self._correct(sent, usage, started)
        self._remember_stakes(stakes)
        self._learn_of_others(sent, usage)
        cached = usage.cache_read + usage.cache_write
        if sent.shape is not None and cached:
            self._recall(sent.shape.kept(cached, started, _SHAPE_BLOCKS))

    def renewed(self, sent: Sent, usage: Usage, started: float) -> None:
        """A request that was sent for nothing but its prefix was answered: it tells of entries, and of no habit.

        What it cost is no waste: its user gave it a budget.
        """
        self._correct(sent, usage, started)

    def holds(self, digests: Sequence[bytes], now: float) -> bool:
        """Whether an entry of any of these prefixes is believed alive."""
        return any((entry := self.entries.get(digest)) is not None and entry.lives(now) for digest in digests)

    def test(self, now: float) -> Refusals | None:
        """A request goes out that tests what is refused; where another does, what is known is given."""
        after = self.refusals.tested(now)
        if after is None:
            return self.refusals
        self.refusals = after
        return None

    def refuse(self, outcome: Outcome) -> None:
        """What became of a request tells more of what is refused."""
        self.refusals = self.refusals.after(outcome)

    # -- parts ------------------------------------------------------------------------------------

    def _recall(self, shape: Shape) -> None:
        """Remember a recent request, and the number of blocks of all of them."""
        self.recent.append(shape)
        self.blocks += len(shape.sizes)
        if len(self.recent) > _SHAPES_REMEMBERED:
            self.blocks -= len(self.recent.popleft().sizes)

    def _view(self, steps: Sequence[Step], now: float, habit: Habit | None) -> tuple[View, list[CurveKey]]:
        remembered, told, believed = self.seen.get, self.pool.told.get, self.entries
        seen = {step[0]: known for step in steps if (known := remembered(step[0]) or told(step[0])) is not None}
        reached = next((step.tokens for step in reversed(steps) if step.digest in seen), 0.0)
        entries, lapsed = by_life({digest: believed[digest] for digest in seen if digest in believed}, now)
        alive = next((step.tokens for step in reversed(steps) if step.digest in entries), 0.0) if entries else 0.0
        shadowed = self.shadows.slots
        shadows = {digest: self.shadows.alive(digest, now) for digest in seen if digest in shadowed}
        kinds = kinds_of(steps, seen, reached)
        common, changed = self._since_the_last(steps, seen, habit)
        new = set() if changed is None else {
            kind for kind, step in zip(kinds[changed:], steps[changed:], strict=True) if step.digest not in seen
        }  # fmt: skip
        later = {AGAIN_KIND[step.role] for step in steps if step.role in STATIC and step.digest not in seen}
        shared = self.habits.shared({kind for kind, step in zip(kinds, steps, strict=True) if step.role in NAMED}, now)
        # No shadow here knows of what other processes read of what this one writes.
        followed = self.pool.guard.followed(habit) if habit is not None and not shared else None
        view = View(
            seen, entries, self.habits.forecasts({*kinds, *later}, now), self.pool.calibration,
            self.pool.learned_minimum, self.pool.waste, tuple(sorted(self.refusals.left_out(now))),
            self.splits_trusted, lapsed,
            tuple(self.recent), now=now, known=reached, alive=alive, shadows=shadows, habit=habit,
            followed=followed, shared=shared, common=common, changed=changed,
            withdrawn=self.habits.forecasts(new, now, withdrawn=True), refusals=self.refusals,
        )  # fmt: skip
        return view, kinds

    def _since_the_last(
        self, steps: Sequence[Step], seen: Mapping[bytes, Seen], habit: Habit | None
    ) -> tuple[int, int | None]:
        """The last boundary shared with the last request of the habit, and the first static one that changed since.

        A boundary seen no earlier than that request came is taken for one of it: at worst it is one that another
        request has brought since.
        """
        last = self.opened.get(habit) if habit else None
        if last is None:
            return -1, None
        common = known = -1
        for index in range(len(steps) - 1, -1, -1):
            found = seen.get(steps[index].digest)
            if found is None:
                continue
            known = max(known, index)
            if found.last is not None and found.last >= last:
                common = index
                break
        changed = next((i for i in range(known + 1, len(steps)) if steps[i].role in STATIC), None)
        return common, changed

    def _remember(
        self, steps: Sequence[Step], kinds: Sequence[CurveKey], view: View, history: bytes | None, now: float
    ) -> None:
        seen = view.seen
        parting = next((i for i in range(len(steps) - 1, -1, -1) if steps[i].digest in seen), -1)
        awaited = {
            index
            for index, (digest, role, _, _) in enumerate(steps)
            if index == parting
            or (digest not in seen and (role == "inner" or (role == "cut" and _ends_a_string(steps, index))))
            or role in NAMED
        }
        self.habits.observe(self._happened(steps, kinds, view, awaited), now)
        self.seen.put_all(revisited(steps, kinds, seen, awaited, now))
        if history is not None and steps:
            self.tails.put(history, steps[-1].digest)

    def _happened(
        self, steps: Sequence[Step], kinds: Sequence[CurveKey], view: View, awaited: Container[int]
    ) -> Happened:
        waits: list[CurveKey] = []
        returned: list[tuple[CurveKey, float]] = []
        superseded: list[tuple[CurveKey, float]] = []
        begun: list[CurveKey] = []
        followed: list[CurveKey] = []
        tails, remembered = self.tails, view.seen.get
        here = {step[0] for step in steps} if tails else ()
        for index, (digest, role, _, _) in enumerate(steps):
            known = remembered(digest)
            if index in awaited:
                waits.append(kinds[index])
            if known is not None:
                if known.waits_since is not None:
                    returned.append((known.kind, known.waits_since))
                if digest in tails and (over := self._supersede(digest, here)) is not None:
                    superseded.append(over)
            if role == "cut":  # hundreds in a long text
                continue
            if known is None or not known.kind[1]:
                begun.append(kinds[index])
            if known is not None:
                followed.append(known.kind)
                if known.born != known.kind:
                    followed.append(known.born)
        return Happened(waits, returned, superseded, begun, followed)

    def _supersede(self, history: bytes, here: Container[bytes]) -> tuple[CurveKey, float] | None:
        """A conversation that goes on without the tail it had last time will not come back to it."""
        tail = self.tails.get(history)
        if tail is None or tail in here:
            return None
        del self.tails[history]
        known = self.seen.get(tail)
        if known is None or known.waits_since is None:
            return None
        self.seen[tail] = known._replace(waits_since=None)
        return known.kind, known.waits_since

    def _learn_of_others(self, sent: Sent, usage: Usage) -> None:
        """What a read beyond the entries believed alive tells, or turns that this process never saw."""
        read, expected = usage.cache_read, sent.read.tokens if sent.read else 0.0
        if read > expected * (1 + LIKELY_TOLERANCE):
            cold = [*sent.cold, sent.foreign] if sent.foreign else sent.cold
            found = min(cold, key=lambda cold: abs(cold.tokens - read), default=None)
            if found is not None and abs(found.tokens - read) <= LIKELY_TOLERANCE * read:
                self._kept_warm(found)
        elif sent.foreign is not None and sent.before_ends_like not in self.pool.endings:
            self.habits.returned_elsewhere(sent.foreign.kind, None, self.latest, read=False)

    def _kept_warm(self, found: Cold) -> None:
        """Others keep this prefix warm, so it came back within minutes."""
        if found.gap is None:
            self.habits.returned_elsewhere(found.kind, SOON, self.latest, read=True)
            return
        self.habits.returned_sooner(found.kind, found.gap, self.latest)
        seen = self.seen.get(found.digest)
        if seen is not None:
            self.seen[found.digest] = seen._replace(gaps=sooner(seen.gaps, found.gap))

    def _settle_waste(self, sent: Sent, usage: Usage | None) -> dict[bytes, Stake]:
        """Settle the accounts; what was read has its stake repaid at once, the stakes of what was written are given."""
        savings, surcharges = saved(sent, usage, self.entries), paid(sent, usage)
        prompt = sent.risk.prompt.mid or sent.estimated if usage is None else usage.prompt
        after, read, written = self.pool.waste.released(sent.risk).settled(
            prompt, [saving for _, saving in savings], [surcharge for _, surcharge in surcharges]
        )
        self.pool.waste = after
        self._remember_stakes(
            {digest: stake for (digest, _), stake in zip(savings, read, strict=True) if stake is not None}
        )
        return {digest: stake for (digest, _), stake in zip(surcharges, written, strict=True) if stake is not None}

    def _remember_stakes(self, stakes: Mapping[bytes, Stake]) -> None:
        for digest, stake in stakes.items():
            entry = self.entries.get(digest)
            if entry is not None:
                self.entries[digest] = entry._replace(stake=stake)

    def _correct(self, sent: Sent, usage: Usage, started: float) -> None:
        """What usage says of the entries, against what was believed."""
        cached = usage.cache_read + usage.cache_write
        for point in sent.points:
            self._settle_point(point, sent, cached, started, last=point is sent.points[-1])
        if sent.read is not None:
            self._settle_read(sent.read, usage, started)
            if sent.shadowed is not None and sent.shape is not None and not arrived(sent.read, usage.cache_read):
                on_the_way = {*sent.shape.digests, *(stamp.digest for stamp in sent.shadowed.stamps)}
                self.shadows.lost(on_the_way, sent.shadowed.at)
        self._learn_minimum(sent, cached)

    def _settle_point(self, point: SentPoint, sent: Sent, cached: int, started: float, *, last: bool) -> None:
        # Every checkpoint that reaches the minimum makes an entry, and the last one ends what was cached.
        if not cached or point.tokens < sent.minimum * (1 - LIKELY_TOLERANCE):
            self.entries.pop(point.digest, None)
            return
        before = self.entries.get(point.digest)
        if before is not None and before.readable and before.splits == point.splits:
            used_at = max(started, before.used_at)  # a request that began later may have answered first
            if before.lives(used_at):
                tokens = cached if last else before.tokens
                self.entries.put(point.digest, before._replace(used_at=used_at, tokens=tokens))
                return
        exact = cached if last else None
        self.entries.put(point.digest, Entry(point.ttl, started, point.splits, tokens=exact))

    def _settle_read(self, expected: SentPoint, usage: Usage, started: float) -> None:
        came = arrived(expected, usage.cache_read)
        entry = self.entries.get(expected.digest)
        if came and entry is not None:
            self.entries.put(expected.digest, entry._replace(used_at=max(started, entry.used_at)))
        elif not came and entry is not None and (entry.used_at != started or not usage.cache_write):
            del self.entries[expected.digest]
        if expected.splits:
            self._splits_failed = 0 if came else self._splits_failed + 1
            self._judge_splits()

    def _check_splits(self, sent: Sent, usage: Usage) -> None:
        """A split that makes a prompt notably dearer in tokens than its like is not borne out."""
        known = self.pool.calibration
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
        pool, largest = self.pool, max((point.tokens for point in sent.points), default=0.0)
        if cached:
            pool.unreadable = 0
            if cached < pool.learned_minimum:
                pool.learned_minimum = 0
        elif largest > max(sent.minimum, pool.learned_minimum) * (1 + LIKELY_TOLERANCE):
            pool.unreadable += 1
            if pool.unreadable >= _UNREADABLE_BEFORE_LEARNING:
                pool.learned_minimum, pool.unreadable = int(largest * (1 + LIKELY_TOLERANCE)), 0


def _ends_a_string(steps: Sequence[Step], index: int) -> bool:
    """Whether a cut is the last one in a text that ends at a named boundary: of hundreds, the one worth waiting for."""
    return index + 1 < len(steps) and steps[index + 1].role in NAMED
