"""Why tokens that could have been read were not.

Reasons follow Anthropic's names where it has one. Only what the traffic proves is named: a first
request is no miss, and where nothing explains it the reason is `evicted_or_rerouted`, not the prompt.
"""

from __future__ import annotations

from bisect import bisect_left

from cachepoint.core.plan import Plan
from cachepoint.core.prompt import Prompt
from cachepoint.core.record import Miss, MissReason
from cachepoint.core.rules import TTL_SECONDS, ModelRule
from cachepoint.core.usage import Usage
from cachepoint.core.view import SentPoint, Shape, View, arrived

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
_SIMILAR, _SIMILAR_BYTES = 0.02, 64
"""A block whose size changed by more than this is another document, not the same one edited."""


def diagnose(prompt: Prompt, plan: Plan, view: View, usage: Usage, rule: ModelRule | None, now: float) -> Miss | None:
    """The miss of a call, None when nothing was lost that is known of."""
    factor = view.calibration.factor
    expected = plan.expected
    if expected.read and not arrived(SentPoint(b"", "5m", expected.read, exact=expected.read_exact), usage.cache_read):
        return _miss("evicted_or_rerouted", _path(prompt, expected.read_boundary), expected.read - usage.cache_read)
    if rule is None or not rule.explicit:
        return None
    if expected.read or usage.cache_read:
        # A shorter prefix than last time is lost history, unless the loss is too small to be cached alone.
        changed = _changed(prompt, view, factor, now, usage.cache_read)
        return changed if changed and changed.lost_tokens >= rule.minimum else None
    return (
        _unreachable(prompt, plan, view, factor)
        or _lapsed(prompt, view, factor, now)
        or _elsewhere(prompt, view)
        or _changed(prompt, view, factor, now, 0)
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


def _elsewhere(prompt: Prompt, view: View) -> Miss | None:
    if not view.elsewhere:
        return None
    return _miss("model_changed", "", prompt.tokens)


def _changed(prompt: Prompt, view: View, factor: float, now: float, read: int) -> Miss | None:
    """Compare with the newest request of the same shape whose entry must still be alive; `read` tokens are not lost."""
    for shape in reversed(view.recent):
        if not 0 <= now - shape.used_at < TTL_SECONDS[shape.ttl] or not shape.cached:
            continue
        block = _first_difference(prompt, shape)
        if block is None or not _alike(prompt, shape, block):
            continue
        shared = prompt.end(block - 1).tokens if block else 0.0
        section = prompt.blocks[block].where.section
        reason: MissReason = (
            "tools_changed" if section == "tools" else "system_changed" if section == "system" else "messages_changed"
        )
        return _miss(reason, prompt.blocks[block].where.path, shape.cached - max(shared * factor, read))
    return None


def _first_difference(prompt: Prompt, shape: Shape) -> int | None:
    blocks = range(min(len(shape.digests), len(prompt.blocks)))
    # A prefix that differs differs in all that follows.
    block = bisect_left(blocks, True, key=lambda block: prompt.end(block).digest != shape.digests[block])
    return block if block < len(blocks) else None


def _alike(prompt: Prompt, shape: Shape, block: int) -> bool:
    """Whether the requests are of one kind: the changed block has about the size it had."""
    if block >= len(shape.sizes) or (prompt.tools_end, prompt.system_end) != shape.sections:
        return False
    here, there = prompt.blocks[block].size, shape.sizes[block]
    where = prompt.blocks[block].where
    if where.section == "messages" and (where.message or 0) == 0:
        return False  # another conversation, not a changed one
    return len(prompt.blocks) > 1 and abs(here - there) <= max(_SIMILAR * max(here, there), _SIMILAR_BYTES)


def _too_small(prompt: Prompt, plan: Plan, usage: Usage) -> Miss | None:
    if plan.checkpoints and not usage.cache_write:
        return _miss("below_minimum", plan.checkpoints[-1].path, 0)
    small = [place for place in plan.rejected if "below the minimum" in place.why]
    if small and prompt.marks and not plan.checkpoints:
        return _miss("below_minimum", small[-1].path, 0)
    return None
