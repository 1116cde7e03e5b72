"""From any set of wanted checkpoints to one the service accepts (V1 to V7 of docs/rules.md).

One function that tells what the service refuses of a place, and the pass that moves, merges, drops and orders.
A checkpoint that may not stand where it was wanted moves to the nearest earlier place, because a
shorter prefix is a prefix still; its TTL follows the model and the order rule.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from cachepoint._cached import cached_property
from cachepoint.core.planning.plan import Checkpoint
from cachepoint.core.planning.reasons import HeldCode, Obstacle, Rejected, Repair
from cachepoint.core.prompt.prompt import Kind, Prompt
from cachepoint.core.provider.rules import TTL, ModelRule, Section

_NEVER_AFTER: Mapping[Kind, Obstacle] = {
    "reasoning": "after_reasoning", "video": "after_video", "citations": "after_citations",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Legal:
    """The points that may be sent, in wire order, and what became of the rest."""

    points: tuple[Checkpoint, ...]
    rejected: tuple[Rejected, ...] = ()
    warnings: tuple[Repair, ...] = ()


def legalise(
    prompt: Prompt,
    rule: ModelRule,
    wanted: Iterable[Checkpoint],
    *,
    cap: int,
    live: Mapping[int, TTL] | None = None,
    left_out: Sequence[str] = (),
) -> Legal:
    """Make a legal set of at most `cap` points of those wanted.

    `live` maps boundaries to the TTL of an entry believed live there; `left_out` names sections in which
    the service refused a checkpoint before. User marks go before the planner's own points.
    """
    places = Places(prompt, rule, left_out)
    rejected: list[Rejected] = []
    warnings = list(_first_in_their_lists(prompt))
    settled: dict[int, Checkpoint] = {}
    for point in wanted:
        moved, problem = point, places.problem(prompt.boundaries[point.boundary].block)
        if problem is not None:
            earlier = places.moved(point)
            if point.marked:
                to = earlier.where.path if earlier else ""
                warnings.append(Repair("moved" if earlier else "left_out", point.where.path, problem, to=to))
            if earlier is None:
                rejected.append(Rejected(point.where.path, problem))
                continue
            moved = earlier
        if moved.ttl not in rule.ttls:
            if moved.marked:
                warnings.append(Repair("lowered", moved.where.path, "ttl_unknown", ttl=moved.ttl))
            moved = replace(moved, ttl="5m")
        settled[moved.boundary] = _merged(settled.get(moved.boundary), moved)
    points = sorted(settled.values(), key=lambda p: p.boundary)
    points = _capped(points, min(cap, rule.max_checkpoints), rejected, warnings)
    points = _in_ttl_order(points, live or {}, rejected, warnings)
    return Legal(tuple(points), tuple(rejected), tuple(warnings))


@dataclass(frozen=True)
class Places:
    """Where checkpoints may stand in one prompt; however many are wanted, no block is looked at twice."""

    prompt: Prompt
    rule: ModelRule
    left_out: Sequence[str] = ()
    _nearest: dict[int, int] = field(default_factory=dict)

    def problem(self, block: int) -> HeldCode | None:
        """Why a checkpoint may not stand after a block, or inside it, None where it may."""
        return "refused" if self.prompt.blocks[block].where.section in self.left_out else self.obstacle(block)

    def obstacle(self, block: int) -> Obstacle | None:
        """What the service refuses of a checkpoint after a block, None where it takes one."""
        found = self.prompt.blocks[block]
        section = found.where.section
        if not self.rule.explicit:
            return "model_without_checkpoints"
        if section not in self.rule.sections:
            return "section_without_checkpoints"
        if found.blank:
            return "after_blank_text"
        if found.kind in _NEVER_AFTER:
            return _NEVER_AFTER[found.kind]
        if section == "messages":
            if self.rule.after_text_only and found.kind != "text":
                return "only_after_text"
            if self._first_guard is not None and self._first_guard <= block:
                return "after_guard"
        # What is refused is the block that follows a document; a document itself may carry a checkpoint.
        if found.kind == "document" and not self.prompt.attached:
            if found.textual:
                return "after_document"
            first = self._first_content.get((section, found.where.message))
            return "nothing_before" if first is None or first > block else None
        return None

    def moved(self, point: Checkpoint) -> Checkpoint | None:
        """A point at the nearest earlier block that may carry it, None where there is none."""
        block = self._nearest_to(self.prompt.boundaries[point.boundary].block)
        if block < 0:
            return None
        boundary = self.prompt.ends[block]
        tokens = round(self.prompt.boundaries[boundary].tokens)
        return replace(point, boundary=boundary, where=self.prompt.blocks[block].where, tokens=tokens, offset=None)

    def _nearest_to(self, block: int) -> int:
        """The deepest block up to this one that may carry a checkpoint, -1 where there is none."""
        walked = []
        while block >= 0 and block not in self._nearest and self.problem(block) is not None:
            walked.append(block)
            block -= 1
        found = self._nearest.get(block, block)
        self._nearest.update(dict.fromkeys(walked, found))
        return found

    @cached_property
    def _first_guard(self) -> int | None:
        """The first guarded block of the last turn."""
        first = None
        for block in range(len(self.prompt.blocks) - 1, -1, -1):
            found = self.prompt.blocks[block]
            if found.where.message is None or found.where.message < self.prompt.last_user:
                break
            if found.kind == "guard":
                first = block
        return first

    @cached_property
    def _first_content(self) -> dict[tuple[Section, int | None], int]:
        """The first block of each list that is more than a document or blank text."""
        first: dict[tuple[Section, int | None], int] = {}
        for block, found in enumerate(self.prompt.blocks):
            if found.kind != "document" and not found.blank:
                first.setdefault((found.where.section, found.where.message), block)
        return first


def _first_in_their_lists(prompt: Prompt) -> Iterator[Repair]:
    """What becomes of the user's marks that stand first in their list."""
    for mark in prompt.marks:
        if mark.leading and mark.block is None:
            yield Repair("left_out", mark.where.path, "first_in_list")
        elif mark.leading and mark.block is not None:
            yield Repair("moved", mark.where.path, "first_in_list", to=prompt.blocks[mark.block].where.path)


def _merged(before: Checkpoint | None, point: Checkpoint) -> Checkpoint:
    """One of two points at the same boundary: the user's, else the earlier, with what the other adds to it."""
    if before is None:
        return point
    kept, other = (before, point) if before.marked or not point.marked else (point, before)
    ttl: TTL = kept.ttl if kept.marked and not other.marked else max(kept.ttl, other.ttl, key=("5m", "1h").index)
    return replace(kept, ttl=ttl, worth=max(kept.worth, other.worth))


def _capped(points: list[Checkpoint], cap: int, rejected: list[Rejected], warnings: list[Repair]) -> list[Checkpoint]:
    """The user's points before the planner's, of either those worth most."""
    ranked = sorted(points, key=lambda p: (p.marked, p.worth, p.tokens), reverse=True)
    for point in ranked[cap:]:
        rejected.append(Rejected(point.where.path, "over_cap", limit=cap))
        if point.marked:
            warnings.append(Repair("left_out", point.where.path, "over_cap", limit=cap))
    return sorted(ranked[:cap], key=lambda p: p.boundary)


def _in_ttl_order(
    points: list[Checkpoint], live: Mapping[int, TTL], rejected: list[Rejected], warnings: list[Repair]
) -> list[Checkpoint]:
    """The points with no 1h after a 5m: the earlier is raised, unless a live 5m entry would be lost by that."""
    kept: list[Checkpoint] = []
    long_after = marked_long_after = False
    for point in reversed(_within_fixed_ttls(points)):
        raised = long_after and point.ttl == "5m"
        if raised and not point.marked and live.get(point.boundary) == "5m":
            rejected.append(Rejected(point.where.path, "shorter_live"))
            continue
        if raised and point.marked and marked_long_after:
            warnings.append(Repair("raised", point.where.path, "ttl_order"))
        kept.append(replace(point, ttl="1h") if raised else point)
        long_after = long_after or point.ttl == "1h"
        marked_long_after = marked_long_after or (point.marked and kept[-1].ttl == "1h")
    return kept[::-1]


def _within_fixed_ttls(points: Sequence[Checkpoint]) -> list[Checkpoint]:
    """After a mark that names 5m the planner's own points are 5m: what the user wrote is not raised for them."""
    result: list[Checkpoint] = []
    fixed = False
    for point in points:
        result.append(replace(point, ttl="5m") if fixed and not point.marked else point)
        fixed = fixed or (point.fixed and point.ttl == "5m")
    return result
