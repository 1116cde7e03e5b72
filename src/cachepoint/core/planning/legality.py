"""From any set of wanted checkpoints to one the service accepts (rules.md sections 2 and 8).

A table of obstacles, one function that reads it, and the pass that moves, merges, drops and orders.
A checkpoint that may not stand where it was wanted moves to the nearest earlier place, because a
shorter prefix is a prefix still; its TTL follows the model and the order rule.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from cachepoint.core.planning.plan import Checkpoint, Obstacle, Rejected
from cachepoint.core.prompt.prompt import Prompt
from cachepoint.core.provider.rules import TTL, ModelRule

OBSTACLES: Mapping[Obstacle, str] = {
    "model_without_checkpoints": "the model takes no checkpoints",
    "section_without_checkpoints": "the model takes no checkpoints in this section",
    "nothing_before": "nothing but documents stands before it in its list, and the service finds nothing to cache",
    "after_reasoning": "a checkpoint may not follow a reasoning block",
    "after_document": "a checkpoint may not follow a document that is not a PDF",
    "after_video": "a checkpoint may not follow a video",
    "after_blank_text": "a checkpoint may not follow blank text",
    "after_guard": "a checkpoint may not follow guarded content of the last turn",
    "only_after_text": "this model takes checkpoints in messages only after text",
    "after_citations": "a checkpoint may not follow citations",
}

LONG_TTL = "ttl:1h"
"""Refused instead of a section where the service has no 1h for a model: the planner takes 1h from its rule then."""


@dataclass(frozen=True, slots=True)
class Legal:
    """The points that may be sent, in wire order, and what became of the rest."""

    points: tuple[Checkpoint, ...]
    rejected: tuple[Rejected, ...] = ()
    warnings: tuple[str, ...] = ()


def obstacle(prompt: Prompt, rule: ModelRule, block: int) -> Obstacle | None:
    """Why the service would refuse a checkpoint after a block, None where it would not."""
    found = prompt.blocks[block]
    section = found.where.section
    if not rule.explicit:
        return "model_without_checkpoints"
    if section not in rule.sections:
        return "section_without_checkpoints"
    if found.blank:
        return "after_blank_text"
    if found.kind == "reasoning":
        return "after_reasoning"
    if found.kind == "video":
        return "after_video"
    if found.kind == "citations":
        return "after_citations"
    if section == "messages":
        if rule.after_text_only and found.kind != "text":
            return "only_after_text"
        if _guarded(prompt, block):
            return "after_guard"
    # What is refused is the block that follows a document; a document itself may carry a checkpoint.
    if found.kind == "document" and not prompt.attached:
        return "after_document" if found.textual else _alone(prompt, block)
    return None


def _alone(prompt: Prompt, block: int) -> Obstacle | None:
    here = prompt.blocks[block].where
    for earlier in range(block - 1, -1, -1):
        other = prompt.blocks[earlier]
        if (other.where.section, other.where.message) != (here.section, here.message):
            break
        if other.kind != "document" and not other.blank:
            return None
    return "nothing_before"


def _guarded(prompt: Prompt, block: int) -> bool:
    where = prompt.blocks[block].where
    if where.message is None or where.message < prompt.last_user:
        return False
    return any(
        found.kind == "guard" and found.where.message is not None and found.where.message >= prompt.last_user
        for found in prompt.blocks[: block + 1]
    )


def legalise(
    prompt: Prompt,
    rule: ModelRule,
    wanted: Iterable[Checkpoint],
    *,
    cap: int,
    live: Mapping[int, TTL] | None = None,
    refused: Sequence[str] = (),
) -> Legal:
    """Make a legal set of at most `cap` points of those wanted.

    `live` maps boundaries to the TTL of an entry believed live there; `refused` names sections in which
    the service refused a checkpoint before. User marks go before the planner's own points.
    """
    rejected: list[Rejected] = []
    warnings = list(_leading(prompt))
    settled: dict[int, Checkpoint] = {}
    for point in wanted:
        moved, problem = _settle(prompt, rule, point, refused)
        if problem:
            (warnings if point.marked else []).append(_told(point, moved, problem))
        if moved is None:
            rejected.append(Rejected(point.path or point.where.path, problem or ""))
            continue
        if moved.ttl not in rule.ttls:
            if moved.marked:
                warnings.append(
                    f"the checkpoint after {moved.where.path} was lowered to 5m: the model has no {moved.ttl}"
                )
            moved = replace(moved, ttl="5m")
        settled[moved.boundary] = _merged(settled.get(moved.boundary), moved)
    points = sorted(settled.values(), key=lambda p: p.boundary)
    points = _capped(points, min(cap, rule.max_checkpoints), rejected, warnings)
    points = _in_ttl_order(points, live or {}, rejected, warnings)
    return Legal(tuple(points), tuple(rejected), tuple(warnings))


def _leading(prompt: Prompt) -> Iterator[str]:
    """What becomes of the user's marks that stand first in their list."""
    for mark in prompt.marks:
        if mark.leading:
            done = "left out" if mark.block is None else f"moved to after {prompt.blocks[mark.block].where.path}"
            yield f"the checkpoint at {mark.where.path} was {done}: nothing stands before it in its list"


def _settle(
    prompt: Prompt, rule: ModelRule, point: Checkpoint, refused: Sequence[str]
) -> tuple[Checkpoint | None, str | None]:
    start = prompt.boundaries[point.boundary]
    first: str | None = None
    if point.where.section in refused:
        first = "the service refused a checkpoint in this section before"
    elif start.offset is not None:
        if not rule.explicit or point.where.section not in rule.sections:
            return None, OBSTACLES["section_without_checkpoints"]
        if not _guarded(prompt, start.block):
            return point, None
    for block in range(start.block, -1, -1):
        section = prompt.blocks[block].where.section
        problem = obstacle(prompt, rule, block)
        if problem is None and section not in refused:
            if block == start.block:
                return point, first
            boundary = prompt.ends[block]
            tokens = round(prompt.boundaries[boundary].tokens)
            return replace(
                point, boundary=boundary, where=prompt.blocks[block].where, tokens=tokens, offset=None
            ), first
        if first is None:
            first = OBSTACLES[problem] if problem else None
    return None, first


def _told(point: Checkpoint, moved: Checkpoint | None, problem: str) -> str:
    done = "was left out" if moved is None else f"was moved to after {moved.where.path}"
    return f"the checkpoint after {point.where.path} {done}: {problem}"


def _merged(before: Checkpoint | None, point: Checkpoint) -> Checkpoint:
    if before is None:
        return point
    kept, other = (before, point) if before.marked or not point.marked else (point, before)
    ttl: TTL = kept.ttl if kept.marked and not other.marked else max(kept.ttl, other.ttl, key=("5m", "1h").index)
    return replace(kept, ttl=ttl, worth=max(kept.worth, other.worth))


def _capped(points: list[Checkpoint], cap: int, rejected: list[Rejected], warnings: list[str]) -> list[Checkpoint]:
    ranked = sorted(points, key=lambda p: (p.marked, p.worth, p.tokens), reverse=True)
    for point in ranked[cap:]:
        why = f"only {cap} checkpoints may be sent and this one is worth least"
        rejected.append(Rejected(point.where.path, why))
        if point.marked:
            warnings.append(f"the checkpoint after {point.where.path} was left out: {why}")
    kept = ranked[:cap]
    return [point for point in points if point in kept]


def _in_ttl_order(
    points: list[Checkpoint], live: Mapping[int, TTL], rejected: list[Rejected], warnings: list[str]
) -> list[Checkpoint]:
    kept: list[Checkpoint] = []
    later_1h = False
    for point in reversed(_within_said_ttls(points)):
        if later_1h and point.ttl == "5m":
            if not point.marked and live.get(point.boundary) == "5m":
                rejected.append(Rejected(point.where.path, "its live 5m entry may not stand before a 1h checkpoint"))
                continue
            if point.marked and any(later.marked and later.ttl == "1h" for later in kept):
                warnings.append(
                    f"the checkpoint after {point.where.path} was raised from 5m to 1h: "
                    "a 1h checkpoint may not come after a 5m one"
                )
            kept.append(replace(point, ttl="1h"))
            continue
        later_1h = later_1h or point.ttl == "1h"
        kept.append(point)
    return kept[::-1]


def _within_said_ttls(points: Sequence[Checkpoint]) -> list[Checkpoint]:
    """After a mark that says 5m the planner's own points are 5m: what the user said is not raised for them."""
    result: list[Checkpoint] = []
    said_5m = False
    for point in points:
        result.append(replace(point, ttl="5m") if said_5m and not point.marked else point)
        said_5m = said_5m or (point.said and point.ttl == "5m")
    return result
