"""Why tokens that could have been read were not.

Reasons follow Anthropic's names where it has one (R3.22). Only what the traffic proves is named: a first
request is no miss, and where nothing explains it the reason is `evicted_or_rerouted`, not the prompt.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import takewhile

from cachepoint.core.accounts.record import Miss, MissReason
from cachepoint.core.planning.plan import Plan
from cachepoint.core.prompt.prompt import IMAGES, Block, Prompt, Setting
from cachepoint.core.provider.rules import SECTIONS, TTL_SECONDS, ModelRule, Section
from cachepoint.core.provider.usage import Usage
from cachepoint.core.traffic.entries import SentPoint, Shape, arrived
from cachepoint.core.traffic.view import View

HINTS: dict[MissReason, str] = {
    "model_changed": "the same prefix is cached for another model; entries are not shared between models",
    "tools_changed": "keep tool definitions, their order and their JSON key order the same from call to call",
    "system_changed": "keep what changes (times, ids, memory) out of the system prompt or in its last block",
    "messages_changed": "an earlier message changed; append to the history and trim it in chunks, not every turn",
    "expired": "the gap was longer than the entry lives; a 1h TTL pays when such gaps are common",
    "lookback": "more blocks were added than a checkpoint looks back; add a checkpoint where the last request ended",
    "below_minimum": "the prefix is shorter than the model caches",
    "concurrent_write": "another request is still writing this prefix; fan_out() sends one ahead",
    "evicted_or_rerouted": "the prompt did not change; the service dropped the entry or routed the call elsewhere",
    "not_marked": "no checkpoint was sent; mode 'auto' would place one",
}
SETTING_HINT = "this setting changed, and a prefix is cached for each of its values apart; keep it the same"
IMAGES_HINT = "the first image came or the last one went, which the service takes for other messages; keep it in or out"
CHANGED: dict[Section, MissReason] = {
    "tools": "tools_changed", "system": "system_changed", "messages": "messages_changed",
}  # fmt: skip
_SIMILAR, _SIMILAR_BYTES = 0.02, 64
"""A block whose size changed by more than this is another document, not the same one edited, unless …"""
_TELLING_BYTES = 128
"""… as much as this follows it in blocks of the very sizes they had."""


def diagnose(prompt: Prompt, plan: Plan, view: View, usage: Usage, rule: ModelRule | None, now: float) -> Miss | None:
    """The miss of a call, None when nothing was lost that is known of."""
    factor = view.calibration.factor
    expected = plan.expected
    if expected.read and not arrived(SentPoint(b"", "5m", expected.read, exact=expected.read_exact), usage.cache_read):
        return _miss("evicted_or_rerouted", _path(prompt, expected.read_boundary), expected.read - usage.cache_read)
    if rule is None or not rule.explicit:
        return None
    if expected.read or usage.cache_read:
        return _changed(prompt, plan, view, rule, now, usage.cache_read)
    return (
        _unreachable(prompt, plan, view, factor)
        or _lapsed(prompt, view, factor, now)
        or _other_scope(prompt, view)
        or _changed(prompt, plan, view, rule, now, 0)
        or _too_small(prompt, plan, usage)
    )


def _miss(reason: MissReason, path: str, lost: float) -> Miss:
    return Miss(reason, path, max(round(lost), 0), HINTS[reason])


def _path(prompt: Prompt, boundary: int | None) -> str:
    if boundary is None:
        return ""
    return prompt.blocks[prompt.boundaries[boundary].block].where.path


def _unreachable(prompt: Prompt, plan: Plan, view: View, factor: float) -> Miss | None:
    for index in range(len(prompt.boundaries) - 1, -1, -1):
        entry = view.entries.get(prompt.boundaries[index].digest)
        if entry is None:
            continue
        lost = prompt.boundaries[index].tokens * factor
        if not entry.readable:
            return _miss("concurrent_write", _path(prompt, index), lost)
        return _miss("lookback" if plan.checkpoints else "not_marked", _path(prompt, index), lost)
    return None


def _lapsed(prompt: Prompt, view: View, factor: float, now: float) -> Miss | None:
    for index in range(len(prompt.boundaries) - 1, -1, -1):
        boundary = prompt.boundaries[index]
        entry = view.lapsed.get(boundary.digest)
        if entry is not None and now - entry.used_at >= TTL_SECONDS[entry.ttl]:
            return _miss("expired", _path(prompt, index), boundary.tokens * factor)
    return None


def _other_scope(prompt: Prompt, view: View) -> Miss | None:
    if not view.other_scope:
        return None
    return _miss("model_changed", "", prompt.tokens)


def _changed(prompt: Prompt, plan: Plan, view: View, rule: ModelRule, now: float, read: int) -> Miss | None:
    """Compare with the newest request of the same kind whose entry must still be alive; `read` tokens are not lost."""
    factor, read_boundary = view.calibration.factor, plan.expected.read_boundary
    if read and max([shape.cached for shape in view.recent], default=0.0) - read < rule.minimum:
        return None  # as much was read as any of them had cached
    for shape in reversed(view.recent):
        if not 0 <= now - shape.used_at < TTL_SECONDS[shape.ttl] or not shape.cached:
            continue
        block = _first_difference(prompt, shape)
        if block is None or (read_boundary is not None and read_boundary >= prompt.ends[block]):
            continue  # what was read goes on where this one parts
        setting = _changed_setting(prompt, shape, block)
        if setting is None and not _alike(prompt, shape, block):
            continue
        shared = prompt.end(block - 1).tokens if block else 0.0
        reach = prompt.tokens if setting is None else prompt.end(len(_same_sizes(prompt, shape, 0, 0)) - 1).tokens
        lost = min(shape.cached, reach * factor) - max(shared * factor, read)
        # Beside a read, or another setting, a loss too small to be cached alone says nothing.
        if lost < rule.minimum and (read or setting is not None):
            return None
        section, here = _section(prompt, shape, block), prompt.blocks[block].where
        if setting is None:
            return _miss(CHANGED[section], here.path if here.section == section else section, lost)
        hint = IMAGES_HINT if setting.path == IMAGES else SETTING_HINT
        return Miss(CHANGED[section], setting.path, round(lost), hint)
    return None


def _first_difference(prompt: Prompt, shape: Shape) -> int | None:
    blocks = range(min(len(shape.digests), len(prompt.blocks)))
    # A prefix that differs differs in all that follows.
    block = bisect_left(blocks, x=True, key=lambda block: prompt.end(block).digest != shape.digests[block])
    return block if block < len(blocks) else None


def _section(prompt: Prompt, shape: Shape, block: int) -> Section:
    """The section that differs at a block, which one of the two may not have there."""
    if block <= max(prompt.tools_end, shape.sections[0]):
        return "tools"
    # With more or fewer system blocks it is another kind of call, whichever of the two this says.
    return "system" if block <= prompt.system_end else "messages"


def _changed_setting(prompt: Prompt, shape: Shape, block: int) -> Setting | None:
    """The setting that explains a difference from a block on: the blocks it invalidates have the sizes they had."""
    if (prompt.tools_end, prompt.system_end) != shape.sections:
        return None
    turns, same = max(shape.sections) + 1, _same_sizes(prompt, shape, 0, 0)
    if block < turns:
        known = len(same) >= turns
    else:
        whole = len(same) >= min(len(prompt.blocks), len(shape.sizes)) - 1
        known = (whole and _telling(same[turns:])) or _with_an_answer(same[turns:])
    if not known:
        return None
    reaches = SECTIONS.index(prompt.blocks[block].where.section)
    for now, before in zip(prompt.settings, shape.settings, strict=False):
        if now.digest != before.digest and SECTIONS.index(now.section) <= reaches:
            return now if now.digest else before  # where it was set
    return None


def _alike(prompt: Prompt, shape: Shape, block: int) -> bool:
    """Whether the requests are of one kind: the changed block has about the size it had, or what follows it has."""
    where, same_sections = prompt.blocks[block].where, (prompt.tools_end, prompt.system_end) == shape.sections
    if where.section == "messages" and (where.message or 0) == 0 and same_sections:
        return False  # another conversation, not a changed one
    here, there = prompt.blocks[block].size, shape.sizes[block]
    similar = len(prompt.blocks) > 1 and abs(here - there) <= max(_SIMILAR * max(here, there), _SIMILAR_BYTES)
    if same_sections and similar:
        return True
    section = _section(prompt, shape, block)
    if section == "tools":
        return _same_after_tools(prompt, shape)
    return section == "messages" and same_sections and _same_after(prompt, shape, block)


def _same_after_tools(prompt: Prompt, shape: Shape) -> bool:
    """Whether tools came or went before the same system prompt, or without one before the same messages."""
    tools_end, system_end = shape.sections
    system = max(system_end - tools_end, 0)
    same = _same_sizes(prompt, shape, prompt.tools_end + 1, tools_end + 1)
    return max(prompt.system_end - prompt.tools_end, 0) == system <= len(same) and _telling(same)


def _same_after(prompt: Prompt, shape: Shape, block: int) -> bool:
    """Whether one block of the history was replaced, put in or taken out: an answer follows it that is the same."""
    after = ((block + 1, block + 1), (block + 1, block), (block, block + 1))
    return any(_with_an_answer(_same_sizes(prompt, shape, here, there)) for here, there in after)


def _same_sizes(prompt: Prompt, shape: Shape, here: int, there: int) -> list[Block]:
    """The blocks from `here` on as long as they have the sizes of those from `there` on."""
    pairs = zip(prompt.blocks[here:], shape.sizes[there:], strict=False)
    return [block for block, _ in takewhile(lambda pair: pair[0].size == pair[1], pairs)]


def _with_an_answer(blocks: list[Block]) -> bool:
    return _telling(blocks) and any(block.role == "assistant" for block in blocks)


def _telling(blocks: list[Block]) -> bool:
    return sum(block.size for block in blocks) >= _TELLING_BYTES


def _too_small(prompt: Prompt, plan: Plan, usage: Usage) -> Miss | None:
    if plan.checkpoints and not usage.cache_write:
        return _miss("below_minimum", plan.checkpoints[-1].path, 0)
    small = [place for place in plan.rejected if place.reason == "below_minimum"]
    if small and prompt.marks and not plan.checkpoints:
        return _miss("below_minimum", small[-1].path, 0)
    return None
