"""Where checkpoints go in one request: marks, prior and learned reuse, reads kept within lookback.

Every choice is one question: is this prefix expected to be read again, within its TTL, often enough to
pay for writing it? The steps: the prefixes and which of them live (`prefixes`); candidates and their outlook
(`candidates`); the best set beyond what is read (`placement`); a checkpoint that keeps the read within lookback;
spare slots for prefixes that others share; what may be risked (`waste`); a static plan in their place, where one has
been cheaper (`guard`); the user's marks; legality.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from cachepoint._cached import cached_property
from cachepoint.core.planning.candidates import shortlist
from cachepoint.core.planning.expectation import NOTHING_SAID, Expectation
from cachepoint.core.planning.legality import Legal, legalise
from cachepoint.core.planning.placement import (
    Candidate,
    Choice,
    choose,
    nested,
    saving,
    shared_out,
)
from cachepoint.core.planning.plan import Checkpoint, Expected, Plan, Split, with_paths
from cachepoint.core.planning.policy import CachePolicy
from cachepoint.core.planning.prefixes import Live, Prefixes
from cachepoint.core.planning.reasons import HeldCode, Placed, Rejected
from cachepoint.core.planning.risk import segments
from cachepoint.core.planning.shadow_bill import ShadowBill, places_of
from cachepoint.core.prompt.prompt import Prompt
from cachepoint.core.provider.prices import Rates
from cachepoint.core.provider.rules import TTL, ModelRule
from cachepoint.core.traffic.entries import LIKELY_TOLERANCE, Entry
from cachepoint.core.traffic.guard import Followed
from cachepoint.core.traffic.kinds import Role
from cachepoint.core.traffic.refusals import LONG_TTL, SPLIT
from cachepoint.core.traffic.static_plans import FAMILY, OURS, OURS_1H, OWN
from cachepoint.core.traffic.view import View
from cachepoint.core.traffic.waste import Risk

SELDOM = 0.5
"""The share of returns within five minutes below which a prefix seldom comes back so soon: half."""


def plan(
    prompt: Prompt,
    rule: ModelRule | None,
    policy: CachePolicy,
    view: View,
    rates: Rates,
    now: float,
    expected: Expectation = NOTHING_SAID,
) -> Plan:
    """Decide the checkpoints of one request; the same arguments give the same plan.

    `rule` is None when the model cannot be told (an opaque ARN): nothing is changed then. Of the entries in
    `view` those count that live at `now`, in wall seconds. `expected` is what the user said of requests to come.
    """
    if rule is None or not prompt.blocks:
        return Plan(rejected=(Rejected("", "unknown_model" if rule is None else "empty_prompt"),))
    if LONG_TTL in view.left_out:
        rule = replace(rule, ttls=("5m",))
    guarded = _planner(prompt, rule, policy, view, rates, now, expected)
    if view.followed is None or expected != NOTHING_SAID:  # who knows needs no guard
        return guarded.plan()
    static = None if view.followed.plan == OURS else guarded.following(view.followed)
    planned = static or guarded.plan()
    shadow = {
        digest: Entry("1h" if plans >> OURS_1H & 1 else "5m", now, tokens=_exact(view, digest))
        for digest, plans in view.shadows.items()
        if plans & OWN
    }
    real = {digest: entry.ttl for digest, entry in view.entries.items() if entry.readable and entry.lives(now)}
    if static is None and real == {digest: entry.ttl for digest, entry in shadow.items()}:
        return planned
    unguarded = _planner(prompt, rule, policy, replace(view, entries=shadow), rates, now, expected).plan()
    return replace(planned, own=unguarded.own)


def _exact(view: View, digest: bytes) -> int | None:
    known = view.entries.get(digest) or view.lapsed.get(digest)
    return known.tokens if known else None


def _planner(
    prompt: Prompt, rule: ModelRule, policy: CachePolicy, view: View, rates: Rates, now: float, expected: Expectation
) -> _Planner:
    splits = policy.split_text and view.splits_trusted and SPLIT not in view.left_out
    prefixes = Prefixes(prompt, view, now, splits=splits, expected=expected)
    return _Planner(prompt, rule, policy, view, rates, prefixes)


@dataclass
class _Planner:
    prompt: Prompt
    rule: ModelRule
    policy: CachePolicy
    view: View
    rates: Rates
    prefixes: Prefixes
    rejected: list[Rejected] = field(default_factory=list)

    def plan(self) -> Plan:
        """The steps of the module, in their order."""
        return self._legal(self._affordable)

    def following(self, followed: Followed) -> Plan | None:
        """The checkpoints of a static plan, and the read of what lives; None where going over to it is too dear now."""
        plan = FAMILY[followed.plan]
        if self._none_of_our_own(self._cap) is not None or (plan.places and plan.ttl not in self._ttls):
            return None
        bill = self.shadow_bill
        places = places_of(followed.plan, bill.places())
        base, ttl, reads = self._base, plan.ttl, bill.read_by(followed.plan)
        if base is not None and base.entry.ttl != ttl and places and base.boundary >= places[0][0]:
            return None  # what lives goes on being read as it is, and is not written anew for another lifetime
        charge = (self.rates.write(ttl) - self.rates.read) * max(reads - (base.tokens if base else 0.0), 0.0)
        if charge > followed.credit:
            return None
        return replace(self._legal(partial(self._static, followed.plan, places)), charge=charge)

    def _static(
        self, plan: int, places: Sequence[tuple[int, TTL]], marks: Sequence[Checkpoint], slots: int
    ) -> list[Checkpoint]:
        points = []
        for boundary, ttl in places:
            if self.prefixes.is_cut(boundary) and not self.prefixes.splits:
                continue
            reason = Placed("static_plan", self.prefixes.role(boundary), text=str(FAMILY[plan]))
            points.append(self._checkpoint(boundary, ttl, reason, self.prefixes.size(boundary).mid))
        if self._base is not None and slots:
            points = self._with_read(points, self._base, slots)
        if not points:
            self.rejected.append(Rejected("", "static_plan"))
        return self._within_allowance(marks, points[:slots], slots)

    def _legal(self, own_points: Callable[[Sequence[Checkpoint], int], list[Checkpoint]]) -> Plan:
        marks, cap = list(self._marks()), self._cap
        own: list[Checkpoint] = []
        if (nothing := self._none_of_our_own(cap)) is None:
            own = own_points(marks, cap - len({mark.boundary for mark in marks}))
        elif not self.prompt.marks:
            self.rejected.append(Rejected("", nothing))
        live = {found.boundary: found.entry.ttl for found in self.prefixes.live}
        legal = legalise(self.prompt, self.rule, [*marks, *own], cap=cap, live=live, left_out=self.view.left_out)
        return self._assembled(legal)

    @property
    def _cap(self) -> int:
        return min(self.policy.max_checkpoints, self.rule.max_checkpoints)

    @cached_property
    def _readable(self) -> list[Live]:
        return [found for found in self.prefixes.live if found.entry.readable]

    @property
    def _base(self) -> Live | None:
        """The deepest live prefix that can be read by now."""
        return self._readable[-1] if self._readable else None

    @cached_property
    def shadow_bill(self) -> ShadowBill:
        """The request as every static plan would send it."""
        return ShadowBill.of(self.prompt, self.rule, self.rates, self.view)

    @cached_property
    def _minimum(self) -> int:
        return max(self.rule.minimum, self.view.learned_minimum)

    @cached_property
    def _ttls(self) -> tuple[TTL, ...]:
        """The TTLs the planner's own points may have."""
        asked = self.policy.ttl
        if asked == "auto":
            return self.rule.ttls
        return (asked,) if asked in self.rule.ttls else ("5m",)

    def _none_of_our_own(self, cap: int) -> HeldCode | None:
        """Why the planner places no checkpoints of its own, None where it may."""
        if not self.rule.explicit:
            return "model_without_checkpoints"
        if self.policy.mode == "explicit":
            return "not_marked"
        if not cap:
            return "none_allowed"
        return None

    def _marks(self) -> Iterator[Checkpoint]:
        for mark in self.prompt.marks:
            if mark.block is None:
                self.rejected.append(Rejected(mark.where.path, "first_in_list"))
                continue
            ttl: TTL = mark.ttl or ("1h" if self.policy.ttl == "1h" else "5m")
            boundary = self.prompt.ends[mark.block]
            worth = self.prefixes.size(boundary).mid
            point = self._checkpoint(boundary, ttl, Placed("marked"), worth)
            yield replace(point, marked=True, fixed=mark.ttl is not None)

    # -- the planner's own points -----------------------------------------------------------------

    def _own(self, slots: int) -> list[Checkpoint]:
        """What pays, what keeps the read, and what others share, in at most so many points."""
        if slots < 1:
            return []
        may_cut = self.prefixes.splits and self.policy.learn
        found = shortlist(self.prefixes, self.rule, self._minimum, may_cut=may_cut)
        self.rejected += found.rejected
        kept, base = self._best(found.candidates, slots)
        points = [
            self._checkpoint(pick.candidate.boundary, pick.ttl, pick.candidate.reason, pick.worth)
            for pick in kept.picks
        ]
        points = self._with_read(points, base, slots) if base else self._with_bridge(points, slots)
        points = self._with_shared(points, base, slots)
        self._explain(found.candidates, points, slots)
        return points

    def _best(self, candidates: Sequence[Candidate], slots: int) -> tuple[Choice, Live | None]:
        """The best set beyond the deepest live prefix, or beyond a 1h one if a 5m one is better written anew for 1h."""
        readable, base = self._readable, self._base
        kept = self._beyond(candidates, base, slots)
        if base is not None and base.entry.ttl == "5m" and "1h" in self._ttls:
            longer = next((found for found in reversed(readable) if found.entry.ttl == "1h"), None)
            rewritten = self._beyond(candidates, longer, slots)
            hours = any(pick.ttl == "1h" for pick in rewritten.picks)  # without one what lives is read all the same
            if hours and self._pays_anew(candidates, base, longer, rewritten.value - kept.value):
                return rewritten, longer
        return kept, base

    def _beyond(self, candidates: Sequence[Candidate], base: Live | None, slots: int) -> Choice:
        further = [found for found in candidates if base is None or found.boundary > base.boundary]
        after_5m = base is not None and base.entry.ttl == "5m" and "5m" in self._ttls
        ttls: tuple[TTL, ...] = ("5m",) if after_5m else self._ttls
        return choose(further, base.tokens if base else 0.0, self.rates, ttls, slots)

    def _pays_anew(self, candidates: Sequence[Candidate], base: Live, longer: Live | None, more: float) -> bool:
        """Whether to write the live 5m prefix beyond a 1h one anew for an hour, which promises so many tokens `more`.

        What the live prefix goes on saving is set against that, and of a part that others read as well, what writing
        it costs now is shared out over them.
        """
        own = Candidate(base.boundary, base.tokens, self.prefixes.outlook(base.boundary), Placed("keeps_read"))
        start, above = (longer.tokens, longer.boundary) if longer else (0.0, -1)
        inside = [found for found in candidates if above < found.boundary < base.boundary]
        deeper = [found for found in candidates if found.boundary > base.boundary]
        parts = nested([*inside, own, *deeper])
        gain, prices = more, []
        for found in parts[: len(inside) + 1]:
            tokens, start = found.tokens - start, found.tokens
            gain += tokens * (self.rates.write_5m - 1 - saving(found.outlook, self.rates, "5m", written=False))
            prices.append((tokens * (self.rates.write_5m - self.rates.read), found.outlook.visits))
        last = parts[-1].outlook.visits
        return gain > sum(price - shared_out(price, gain, visits - last) for price, visits in prices)

    def _affordable(self, marks: Sequence[Checkpoint], slots: int) -> list[Checkpoint]:
        """The best points that may be risked: of both TTLs, or where that is cut short and saves less, of 5m alone.

        What seldom comes back within five minutes is not tried again for five: a short prefix that is read for an hour
        soon wins what a longer one costs.
        """
        wanted = self._own(slots)
        kept = self._within_allowance(marks, wanted, slots)
        alone = not self.view.shared  # else others may keep it warm in between
        late = alone and any(point.ttl == "1h" and point.reason.within_5m < SELDOM for point in wanted)
        if late or len(self._ttls) == 1 or self._saving(kept) >= self._saving(wanted):
            return kept
        cheaper = replace(self, rule=replace(self.rule, ttls=("5m",)), rejected=[])
        instead = cheaper._within_allowance(marks, cheaper._own(slots), slots)
        if self._saving(instead) <= self._saving(kept):
            return kept
        self.rejected = cheaper.rejected
        return instead

    def _saving(self, points: Sequence[Checkpoint]) -> float:
        """What these points are expected to save, the read of what lives with them, in input tokens."""
        read = self._read_by(points)
        written = sum(point.worth for point in points if point.reason.code != "keeps_read")
        return written + (read.tokens * (1 - self.rates.read) if read else 0.0)

    def _within_allowance(
        self, marks: Sequence[Checkpoint], points: Sequence[Checkpoint], slots: int
    ) -> list[Checkpoint]:
        """The points, of which the deepest are written as far only as what may be risked covers.

        What lives is read all the same, unless not even that is covered: a read that does not come is a write.
        """
        spare = [point for point in points if point.reason.code == "shared"]
        base = self._base
        kept = sorted((point for point in points if point not in spare), key=lambda point: point.boundary)
        while kept and not self._covered([*marks, *kept]):
            lost = kept.pop()
            self.rejected.append(Rejected(lost.where.path, "allowance_spent"))
            if base is None or lost.boundary > base.boundary:
                shorter = self._shortened(lost, [*marks, *kept], base)
                kept += [shorter] if shorter else []
            if base is not None and lost.boundary > base.boundary:
                kept = sorted(self._with_read(kept, base, slots), key=lambda point: point.boundary)
        if not kept:
            kept = next(
                ([read] for read in map(self._reading, reversed(self._readable)) if self._covered([*marks, read])), []
            )
        end = kept[-1].boundary if kept else -1
        return [*kept, *(point for point in spare if point.boundary < end)][:slots]

    def _shortened(self, point: Checkpoint, others: Sequence[Checkpoint], base: Live | None) -> Checkpoint | None:
        """A checkpoint that may not be written in full, at the last boundary up to which it may; None where none is.

        Whoever comes back to a prefix comes back to the beginning of it.
        """
        start = max([other.boundary for other in others] + ([base.boundary] if base else [-1])) + 1

        def too_dear(boundary: int) -> bool:
            return not self._covered([*others, self._checkpoint(boundary, point.ttl, point.reason, 0.0)])

        boundary = start + bisect_left(range(start, point.boundary), x=True, key=too_dear) - 1
        while boundary >= start and self.prefixes.size(boundary).mid >= self._minimum:
            if self._may_end(boundary):
                share = self.prefixes.size(boundary).mid / self.prefixes.size(point.boundary).mid
                return self._checkpoint(boundary, point.ttl, point.reason, point.worth * share)
            boundary -= 1
        return None

    def _may_end(self, boundary: int) -> bool:
        """Whether a prefix may be written up to here."""
        if self.prefixes.is_cut(boundary) and not (self.prefixes.splits and self.policy.learn):
            return False
        section = self.prefixes.where(boundary).section
        return section in self.rule.sections and section not in self.view.left_out

    def _covered(self, points: Sequence[Checkpoint]) -> bool:
        risk = self._risk(points, self._base)
        return self.view.waste.covers(risk) and (not risk.ours or self.view.waste.sustains(risk))

    def _risk(self, points: Sequence[Checkpoint], read: Live | None) -> Risk:
        """What these checkpoints can cost, where a live prefix is to be read."""
        boundaries = self.prompt.boundaries
        return Risk(
            segments(
                [*points, *self._inside(points)],
                lambda boundary: boundaries[boundary].digest,
                self._role,
                self.rates,
                hour_is_asked=self.policy.ttl == "1h",
            ),
            self.prefixes.size(len(boundaries) - 1),
            price=self.rates.write_5m - 1,
            read=boundaries[read.boundary].digest if read else b"",
            kept=read.tokens if read else 0.0,
            excused=self._excused,
            authorised=self._authorised(points, read.tokens if read else 0.0),
            again=all(point.marked or boundaries[point.boundary].digest in self.view.seen for point in points),
        )

    @cached_property
    def _excused(self) -> frozenset[bytes]:
        """The live entries that the user alone had written, and has not had back."""
        found = ((self.prompt.boundaries[live.boundary].digest, live.entry.stake) for live in self._readable)
        # What was authorised was an estimate, so that a little of the write may have been the planner's.
        users = ((digest, stake) for digest, stake in found if stake and stake.asked > 0)
        return frozenset(digest for digest, stake in users if stake.general <= LIKELY_TOLERANCE * stake.asked)

    def _inside(self, points: Sequence[Checkpoint]) -> Iterator[Checkpoint]:
        """Live prefixes before checkpoints, as those would write them: what is proven of a part pays for that part."""
        taken = {point.boundary for point in points}
        for live in self._readable:
            after = [point for point in points if point.boundary > live.boundary]
            if after and live.boundary not in taken:
                following = min(after, key=lambda point: point.boundary)
                yield replace(self._reading(live), ttl=following.ttl, marked=following.marked)

    def _role(self, point: Checkpoint) -> Role:
        """What has to be proven to pay for it: the entry there, else the boundary wanted, which may be deeper."""
        entry = self.view.entries.get(self.prompt.boundaries[point.boundary].digest)
        if entry is not None and entry.stake is not None:
            return entry.stake.role
        return (
            point.reason.role
            if point.reason.code in ("expected_again", "expected")
            else self.prefixes.role(point.boundary)
        )

    @cached_property
    def _authorising(self) -> frozenset[int]:
        """The boundaries that the user said come back and that were never written: one write of each is authorised."""
        known, boundaries = {**self.view.entries, **self.view.lapsed}, self.prompt.boundaries
        return frozenset(i for i in self.prefixes.said.subjects if boundaries[i].digest not in known)

    def _authorised(self, points: Sequence[Checkpoint], start: float) -> float:
        """What of the surcharge of these checkpoints, beyond the first `start` tokens, the user has authorised."""
        total = found = 0.0
        for point in sorted(points, key=lambda point: point.boundary):
            total += max(point.tokens - start, 0.0) * (self.rates.write(point.ttl) - 1)
            start = max(float(point.tokens), start)
            found = total if point.boundary in self._authorising else found
        return found

    def _with_read(self, points: list[Checkpoint], base: Live, slots: int) -> list[Checkpoint]:
        """With a checkpoint that reads the live prefix, unless one of those wanted is near enough."""
        if any(point.ttl == base.entry.ttl and self._reaches(point, base.boundary) for point in points):
            return points
        return [self._reading(base), *sorted(points, key=lambda point: point.worth, reverse=True)[: slots - 1]]

    def _reading(self, live: Live) -> Checkpoint:
        reason = Placed("keeps_read", tokens=live.tokens, ttl=live.entry.ttl)
        return self._checkpoint(live.boundary, live.entry.ttl, reason, live.tokens * (1 - self.rates.read))

    def _with_bridge(self, points: list[Checkpoint], slots: int) -> list[Checkpoint]:
        """Without memory, the end of the request before this one is where its tail was."""
        if self.prompt.previous_end < 0 or len(points) >= slots or not points:
            return points
        boundary, tail = self.prompt.ends[self.prompt.previous_end], points[-1]
        if tail.boundary <= boundary or self._reaches(tail, boundary):
            return points
        reason = Placed("bridge", blocks=self.prefixes.distance(boundary, tail.boundary))
        return [*points, self._checkpoint(boundary, tail.ttl, reason, 0.0)]

    def _with_shared(self, points: list[Checkpoint], base: Live | None, slots: int) -> list[Checkpoint]:
        """Spare slots go to prefixes others share, inside what is read or written anyway: there they cost nothing."""
        if not points:
            return points
        end = max([point.boundary for point in points] + ([base.boundary] if base else []))
        ttl_at = {found.boundary: found.entry.ttl for found in self.prefixes.live}
        for boundary in self._shared(end, {point.boundary for point in points}):
            if len(points) >= slots:
                break
            following: TTL = "1h" if any(point.ttl == "1h" for point in points if point.boundary > boundary) else "5m"
            before: TTL = "5m" if any(point.ttl == "5m" for point in points if point.boundary < boundary) else "1h"
            ttl = ttl_at.get(boundary, following)
            if ttl == following or (ttl == "1h" == before):
                reason = Placed("shared", self.prefixes.role(boundary))
                points = [*points, self._checkpoint(boundary, ttl, reason, 0.0)]
        return points

    def _shared(self, end: int, taken: Collection[int]) -> Iterator[int]:
        """Where most requests parted before, then the ends of context, system, tools and the system prompt's blocks.

        None is inside a text, which would have to be split for it.
        """
        ends = [i for i, name in self.prefixes.named.items() if name in ("tools_end", "system_end", "context_end")]
        parted = [i for i in self.prefixes.parted if not self.prefixes.is_cut(i)]
        system = self.prompt.ends[self.prompt.tools_end + 1 : max(self.prompt.system_end, 0)]
        for boundary in dict.fromkeys((*parted, *sorted(ends, reverse=True), *system)):
            if boundary >= end or boundary in taken or self.prefixes.size(boundary).high < self._minimum:
                continue
            if self.prefixes.where(boundary).section not in self.view.left_out:
                yield boundary

    def _explain(
        self,
        candidates: Sequence[Candidate],
        points: Sequence[Checkpoint],
        slots: int,
    ) -> None:
        """Why the prefix goes uncached from the last checkpoint on."""
        end = max((point.boundary for point in points), default=-1)
        for found in candidates:
            if found.boundary <= end:
                continue
            path = self.prefixes.where(found.boundary).path
            if len(points) >= slots and any(saving(found.outlook, self.rates, ttl) > 0 for ttl in self._ttls):
                self.rejected.append(Rejected(path, "over_cap", limit=slots))
            else:
                reason: HeldCode = "not_expected" if self.prefixes.told(found.boundary) else "no_return_expected"
                self.rejected.append(Rejected(path, reason, visits=found.outlook.visits))

    def _reaches(self, point: Checkpoint, boundary: int) -> bool:
        """Whether a checkpoint finds an entry at a boundary, which is its own or an earlier one."""
        return point.boundary >= boundary and self.prefixes.distance(boundary, point.boundary) < self.rule.lookback

    def _checkpoint(self, boundary: int, ttl: TTL, reason: Placed, worth: float) -> Checkpoint:
        where, offset = self.prefixes.where(boundary), self.prompt.boundaries[boundary].offset
        return Checkpoint(boundary, where, offset, ttl, round(self.prefixes.size(boundary).mid), reason, worth=worth)

    # -- the plan ---------------------------------------------------------------------------------

    def _assembled(self, legal: Legal) -> Plan:
        read = self._read_by(legal.points)
        cuts = {self.prefixes.index[digest] for digest in read.entry.splits} if read else set()
        cuts |= {point.boundary for point in legal.points if point.offset is not None}
        deepest = max((point.tokens for point in legal.points), default=0)
        return Plan(
            checkpoints=tuple(with_paths(self.prompt, legal.points, cuts)),
            rejected=(*self.rejected, *legal.rejected),
            warnings=legal.warnings,
            marks=self.prompt.marks,
            splits=tuple(self._split(cut) for cut in sorted(cuts)),
            plain=self.prompt.plain,
            own=tuple((point.boundary, point.ttl) for point in legal.points),
            risk=self._risk(legal.points, read),
            expected=Expected(
                read=read.tokens if read else 0.0,
                read_exact=read is not None and read.entry.tokens is not None,
                read_boundary=read.boundary if read else None,
                read_ttl=read.entry.ttl if read else None,
                written=max(deepest - read.tokens if read else deepest, 0.0),
            ),
        )

    def _split(self, cut: int) -> Split:
        return Split(cut, self.prefixes.where(cut), self.prompt.boundaries[cut].offset or 0)

    def _read_by(self, points: Sequence[Checkpoint]) -> Live | None:
        """The deepest live prefix that one of the checkpoints finds."""
        for found in reversed(self.prefixes.live):
            if found.entry.readable and any(self._reaches(point, found.boundary) for point in points):
                return found
        return None
