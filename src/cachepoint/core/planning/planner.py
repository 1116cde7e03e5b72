"""Where checkpoints go in one request: marks, prior and learned reuse, reads kept within lookback.

Every choice is one question: is this prefix expected to be read again, within its TTL, often enough to
pay for writing it? The steps: entries believed alive; candidates and their outlook; the best set beyond
what is read (`placement`); a checkpoint that keeps the read within lookback; spare slots for prefixes
that others share; the user's marks; legality.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace

from cachepoint.core.planning.legality import LONG_TTL, Legal, legalise
from cachepoint.core.planning.placement import NOTHING, Candidate, Choice, Pick, choose, nested, saving, surcharge
from cachepoint.core.planning.plan import Checkpoint, Expected, Plan, Rejected, Split, with_paths
from cachepoint.core.planning.policy import CachePolicy
from cachepoint.core.prompt.prompt import Prompt
from cachepoint.core.prompt.tokens import PROFILES, Band
from cachepoint.core.provider.prices import Rates
from cachepoint.core.provider.rules import TTL, ModelRule
from cachepoint.core.traffic.boundaries import ROLE_NAMES, role, roles, step
from cachepoint.core.traffic.return_curves import Role
from cachepoint.core.traffic.view import Entry, View

CANDIDATES = 10
"""Boundaries weighed in one request: the named ones, and of the rest those where most visits part."""
VOLATILE_DISCOUNT = 0.1
"""A prefix with a time of day, a UUID or a request id in it seldom comes back unchanged …"""
VOLATILE_PROOF = 3
"""… unless it came this often: two requests may fall into the same second."""


def plan(prompt: Prompt, rule: ModelRule | None, policy: CachePolicy, view: View, rates: Rates, now: float) -> Plan:
    """Decide the checkpoints of one request; the same arguments give the same plan.

    `rule` is None when the model cannot be told (an opaque ARN): nothing is changed then.
    """
    if rule is None or not prompt.blocks:
        return Plan()
    return _Planner(prompt, rule, policy, view, rates, now).plan()


@dataclass(frozen=True, slots=True)
class _Live:
    boundary: int
    tokens: float
    entry: Entry


@dataclass
class _Planner:
    prompt: Prompt
    rule: ModelRule
    policy: CachePolicy
    view: View
    rates: Rates
    now: float
    rejected: list[Rejected] = field(default_factory=list)

    def __post_init__(self) -> None:
        if LONG_TTL in self.view.refused:
            self.rule = replace(self.rule, ttls=("5m",))
        self.index = {boundary.digest: i for i, boundary in enumerate(self.prompt.boundaries)}
        self.roles = roles(self.prompt)
        self.exact = sorted(
            (self.prompt.boundaries[self.index[digest]].tokens, entry.tokens)
            for digest, entry in {**self.view.lapsed, **self.view.entries}.items()
            if entry.tokens is not None
        )
        self.minimum = max(self.rule.minimum, self.view.learned_minimum)
        asked = self.policy.ttl
        self.ttls: tuple[TTL, ...] = (
            self.rule.ttls if asked == "auto" else (asked,) if asked in self.rule.ttls else ("5m",)
        )

    def plan(self) -> Plan:
        """The steps of the module, in their order."""
        marks = list(self._marks())
        cap = min(self.policy.max_checkpoints, self.rule.max_checkpoints)
        live = self._live()
        own: list[Checkpoint] = []
        if self.policy.mode != "explicit" and self.rule.explicit:
            own = self._own(live, max(cap - len({mark.boundary for mark in marks}), 0))
        legal = legalise(
            self.prompt, self.rule, [*marks, *own], cap=cap,
            live={found.boundary: found.entry.ttl for found in live}, refused=self.view.refused,
        )  # fmt: skip
        return self._assembled(legal, live)

    # -- what is there ----------------------------------------------------------------------------

    def _band(self, boundary: int) -> Band:
        """An estimate of the prefix: exact up to the last entry whose size usage told, likely from there."""
        raw = self.prompt.boundaries[boundary].tokens
        calibration, profile = self.view.calibration, PROFILES[self.prompt.tokenizer]
        anchors = bisect_right(self.exact, (raw, math.inf))
        if not anchors:
            return calibration.band(raw, profile)
        known = self.exact[anchors - 1]
        rest = calibration.band(raw - known[0], profile)
        return Band(known[1] + rest.low, known[1] + rest.mid, known[1] + rest.high)

    def _live(self) -> list[_Live]:
        found = [
            _Live(self.index[digest], self._band(self.index[digest]).mid, entry)
            for digest, entry in self.view.entries.items()
            if self._splittable(entry.splits)
        ]
        return sorted(found, key=lambda live: live.boundary)

    def _splittable(self, splits: tuple[bytes, ...]) -> bool:
        if splits and not (self.policy.split_text and self.view.splits_trusted):
            return False
        return all(digest in self.index for digest in splits)

    def _marks(self) -> Iterable[Checkpoint]:
        for mark in self.prompt.marks:
            if mark.block is None:
                self.rejected.append(Rejected(mark.where.path, "nothing stands before it"))
                continue
            boundary = self.prompt.ends[mark.block]
            ttl: TTL = mark.ttl or ("1h" if self.policy.ttl == "1h" else "5m")
            tokens = self._band(boundary).mid
            where = self.prompt.blocks[mark.block].where
            said = mark.ttl is not None
            yield Checkpoint(boundary, where, None, ttl, round(tokens), "you marked it", True, said, worth=tokens)

    # -- the planner's own points -----------------------------------------------------------------

    def _own(self, live: Sequence[_Live], slots: int) -> list[Checkpoint]:
        if not slots or self.view.waste.overdrawn(self.view.calibration.factor * self.prompt.tokens, self.rates):
            return []
        readable = [found for found in live if found.entry.readable]
        base = readable[-1] if readable else None
        in_flight = max((found.boundary for found in live if not found.entry.readable), default=-1)
        candidates = self._candidates(in_flight)
        kept = self._beyond(candidates, base, slots)
        if base is not None and base.entry.ttl == "5m" and "1h" in self.ttls:
            longer = next((found for found in reversed(readable) if found.entry.ttl == "1h"), None)
            rewritten = self._beyond(candidates, longer, slots)
            if rewritten.value > kept.value + self._worth_of_keeping(candidates, base, longer):
                kept, base = rewritten, longer
        picks = self._within_allowance(kept.picks, base)
        points = [self._checkpoint(pick.candidate.boundary, pick.ttl, pick.candidate.why, pick.worth) for pick in picks]
        points = self._with_read(points, base, slots)
        return self._with_shared(points, base, live, slots)

    def _candidates(self, in_flight: int) -> list[Candidate]:
        found = []
        for boundary in self._shortlist():
            if boundary <= in_flight:
                self._reject(boundary, "a request under way is writing this prefix")
            elif (candidate := self._weigh(boundary)) is not None:
                found.append(candidate)
        return nested(found)

    def _shortlist(self) -> list[int]:
        room = max(CANDIDATES - len(self.roles), CANDIDATES // 2)
        return sorted({*self.roles, *self._parting()[:room]})

    def _parting(self) -> list[int]:
        """Boundaries past which fewer requests went, those first where most tokens of most requests end."""
        boundaries = self.prompt.boundaries
        known = [self.view.seen.get(boundary.digest) for boundary in boundaries]
        found: list[tuple[float, int]] = []
        for index, here in enumerate(known):
            if here is None or index in self.roles or not self._may_end(index):
                continue
            after = known[index + 1] if index + 1 < len(known) else None
            fewer = here.visits - (after.visits if after else 0)
            if fewer > 0:
                found.append((fewer * boundaries[index].tokens, index))
        return [index for _, index in sorted(found, reverse=True)]

    def _may_end(self, index: int) -> bool:
        if self.prompt.boundaries[index].offset is None:
            return True
        usable = self.policy.split_text and self.policy.learn and self.view.splits_trusted
        return usable and self._band(index).mid >= self.minimum

    def _weigh(self, boundary: int) -> Candidate | None:
        here = self.prompt.boundaries[boundary]
        section = self.prompt.blocks[here.block].where.section
        if section in self.view.refused or section not in self.rule.sections:
            return None
        band = self._band(boundary)
        if band.high < self.minimum:
            self._reject(boundary, f"about {band.mid:.0f} tokens, below the minimum of {self.minimum}")
            return None
        cap = self.rule.max_cached_tokens
        if cap is not None and band.low > cap:
            self._reject(boundary, f"about {band.mid:.0f} tokens, above the {cap} the model caches")
            return None
        found: Role = role(self.roles, self.prompt, boundary)
        outlook = self.view.outlook(step(self.roles, self.prompt, boundary))
        seen = self.view.seen.get(here.digest)
        if (seen.visits if seen else 0) < VOLATILE_PROOF and self._volatile(here.block):
            outlook = outlook._replace(visits=outlook.visits * VOLATILE_DISCOUNT)
        known = f"seen {seen.visits} times before" if seen else "not seen before"
        why = (
            f"{ROLE_NAMES[found]}: {known}, about {outlook.visits:.1f} more visits expected, "
            f"{outlook.within_5m:.0%} within 5m"
        )
        return Candidate(boundary, band.mid, outlook, why)

    def _volatile(self, block: int) -> bool:
        return any(found.volatile for found in self.prompt.blocks[: block + 1])

    def _reject(self, boundary: int, why: str) -> None:
        block = self.prompt.boundaries[boundary].block
        self.rejected.append(Rejected(self.prompt.blocks[block].where.path, why))

    def _beyond(self, candidates: Sequence[Candidate], base: _Live | None, slots: int) -> Choice:
        start = base.boundary if base else -1
        ttls = ("5m",) if base is not None and base.entry.ttl == "5m" else self.ttls
        ttls = tuple(ttl for ttl in ttls if ttl in self.ttls) or self.ttls
        further = [candidate for candidate in candidates if candidate.boundary > start]
        return choose(further, base.tokens if base else 0.0, self.rates, ttls, slots) if further else NOTHING

    def _worth_of_keeping(self, candidates: Sequence[Candidate], base: _Live, longer: _Live | None) -> float:
        """What reading the live 5m prefix beyond a 1h one saves, now and later, in input tokens."""
        own = self.view.outlook(step(self.roles, self.prompt, base.boundary))
        start, above = (longer.tokens, longer.boundary) if longer else (0.0, -1)
        inside = [found for found in candidates if above < found.boundary < base.boundary]
        deeper = [found for found in candidates if found.boundary > base.boundary]
        total = 0.0
        for found in nested([*inside, Candidate(base.boundary, base.tokens, own, ""), *deeper]):
            if found.boundary <= base.boundary:
                again = saving(found.outlook, self.rates, "5m", written=False)
                total += (found.tokens - start) * (1 - self.rates.read + again)
                start = found.tokens
        return total

    def _within_allowance(self, picks: Sequence[Pick], base: _Live | None) -> tuple[Pick, ...]:
        allowed = self.view.waste.allowance(self.view.calibration.factor * self.prompt.tokens, self.rates)
        start = base.tokens if base else 0.0
        kept = tuple(picks)
        while kept and surcharge(kept, start, self.rates) > allowed:
            self._reject(kept[-1].candidate.boundary, "the allowance for writes that may never be read is spent")
            kept = kept[:-1]
        return kept

    def _with_read(self, points: list[Checkpoint], base: _Live | None, slots: int) -> list[Checkpoint]:
        if base is None:
            return self._with_bridge(points, slots)
        ahead = [point for point in points if point.boundary >= base.boundary and point.ttl == base.entry.ttl]
        if any(self._distance(base.boundary, point.boundary) < self.rule.lookback for point in ahead):
            return points
        why = f"keeps a live {base.entry.ttl} entry of {base.tokens:.0f} tokens within reach"
        reading = self._checkpoint(base.boundary, base.entry.ttl, why, base.tokens * (1 - self.rates.read))
        room = sorted(points, key=lambda point: point.worth, reverse=True)[: slots - 1]
        return [reading, *sorted(room, key=lambda point: point.boundary)]

    def _with_bridge(self, points: list[Checkpoint], slots: int) -> list[Checkpoint]:
        """Without memory, the end of the request before this one is where its tail was."""
        previous = self.prompt.previous_end
        if previous < 0 or len(points) >= slots or not points:
            return points
        boundary = self.prompt.ends[previous]
        tail = points[-1]
        if tail.boundary <= boundary or self._distance(boundary, tail.boundary) < self.rule.lookback:
            return points
        apart = self._distance(boundary, tail.boundary)
        why = f"bridge: the request before this one ended here, {apart} blocks before the last checkpoint"
        return [*points, self._checkpoint(boundary, tail.ttl, why, 0.0)]

    def _distance(self, earlier: int, later: int) -> int:
        cuts = sum(
            1 for b in self.prompt.boundaries[earlier:later] if b.offset is not None and b.digest in self.view.entries
        )
        return self.prompt.boundaries[later].block - self.prompt.boundaries[earlier].block + cuts

    def _with_shared(
        self, points: list[Checkpoint], base: _Live | None, live: Sequence[_Live], slots: int
    ) -> list[Checkpoint]:
        """Spare slots go to prefixes others share, inside what is read or written anyway: there they cost nothing."""
        if not points:
            return points
        end = max([point.boundary for point in points] + ([base.boundary] if base else []))
        ttl_at = {found.boundary: found.entry.ttl for found in live}
        for index in self._shared(end, {point.boundary for point in points}):
            if len(points) >= slots:
                break
            following: TTL = "1h" if any(point.ttl == "1h" for point in points if point.boundary > index) else "5m"
            before: TTL = "5m" if any(point.ttl == "5m" for point in points if point.boundary < index) else "1h"
            ttl = ttl_at.get(index, following)
            if ttl == following or (ttl == "1h" == before):
                what = ROLE_NAMES[role(self.roles, self.prompt, index)]
                why = f"{what}: others part here, and inside the prefix cached anyway it costs nothing"
                points = [*points, self._checkpoint(index, ttl, why, 0.0)]
        return points

    def _shared(self, end: int, taken: Collection[int]) -> list[int]:
        """Where requests parted before, then the ends of context, system and tools; without text to split."""
        ends = [i for i, name in self.roles.items() if name in ("tools_end", "system_end", "context_end")]
        parted = [i for i in self._parting() if self.prompt.boundaries[i].offset is None]
        return [
            i for i in (*parted, *sorted(ends, reverse=True))
            if i < end and i not in taken and self._band(i).high >= self.minimum
            and self.prompt.blocks[self.prompt.boundaries[i].block].where.section not in self.view.refused
        ]  # fmt: skip

    def _checkpoint(self, boundary: int, ttl: TTL, why: str, worth: float) -> Checkpoint:
        here = self.prompt.boundaries[boundary]
        where = self.prompt.blocks[here.block].where
        return Checkpoint(boundary, where, here.offset, ttl, round(self._band(boundary).mid), why, worth=worth)

    # -- the plan ---------------------------------------------------------------------------------

    def _assembled(self, legal: Legal, live: Sequence[_Live]) -> Plan:
        points = legal.points
        read = self._read_by(points, live)
        splits = {digest for found in live if found == read for digest in found.entry.splits}
        held = {self.index[digest] for digest in splits}
        cuts = held | {point.boundary for point in points if point.offset is not None}
        deepest = max((point.tokens for point in points), default=0)
        return Plan(
            checkpoints=tuple(with_paths(self.prompt, points, cuts)),
            rejected=(*self.rejected, *legal.rejected),
            warnings=legal.warnings,
            marks=self.prompt.marks,
            splits=tuple(self._split(cut) for cut in sorted(cuts)),
            plain=self.prompt.plain,
            expected=Expected(
                read=read.tokens if read else 0.0,
                read_exact=read is not None and read.entry.tokens is not None,
                read_boundary=read.boundary if read else None,
                read_ttl=read.entry.ttl if read else None,
                written=max(deepest - read.tokens if read else deepest, 0.0),
            ),
        )  # fmt: skip

    def _split(self, cut: int) -> Split:
        here = self.prompt.boundaries[cut]
        return Split(self.prompt.blocks[here.block].where, here.offset or 0)

    def _read_by(self, points: Sequence[Checkpoint], live: Sequence[_Live]) -> _Live | None:
        for found in reversed(live):
            if found.entry.readable and any(
                point.boundary >= found.boundary and self._distance(found.boundary, point.boundary) < self.rule.lookback
                for point in points
            ):
                return found
        return None
