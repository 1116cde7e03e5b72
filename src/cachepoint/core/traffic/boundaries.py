"""What each boundary of a prompt is: end of tools, of system, of context, of history, tail, inner, cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cachepoint.core.prompt.prompt import Block, Prompt
from cachepoint.core.traffic.kinds import Role
from cachepoint.core.traffic.view import Step, Turn

ROLE_NAMES: dict[Role, str] = {
    "tools_end": "end of tools",
    "system_end": "end of system",
    "context_end": "end of a context block",
    "history_end": "end of the history",
    "tail_single": "end of a first question",
    "tail_turns": "tail of a conversation",
    "tail_stuffed": "tail of a conversation, after a message much larger than those before",
    "tail_tools": "tail after tool results",
    "inner": "end of a block",
    "cut": "where requests part inside a text",
}


_OF_TURNS = ("history_end", "tail_turns", "tail_stuffed", "tail_tools")
STUFFED = 4
"""A last user message this many times larger than any before it looks like one with documents put in."""


def roles(prompt: Prompt) -> dict[int, Role]:
    """The named boundaries of a prompt, by index; all others are inner block ends or cuts."""
    found: dict[int, Role] = {}
    ends = prompt.ends
    if prompt.tools_end >= 0:
        found[ends[prompt.tools_end]] = "tools_end"
    if prompt.system_end >= 0:
        found[ends[prompt.system_end]] = "system_end"
    found.update((ends[index], "context_end") for index, block in enumerate(prompt.blocks) if block.context)
    if prompt.history_end >= 0 and prompt.has_turns:
        found[ends[prompt.history_end]] = "history_end"
    if prompt.blocks and prompt.blocks[-1].where.section == "messages":
        found[ends[-1]] = _tail(prompt.blocks)
    return found


def turn_before(prompt: Prompt) -> Turn | None:
    """The request before this one; None where it was the first of its conversation, or there was none."""
    blocks = prompt.blocks[: prompt.previous_end + 1]
    answer = max((block.where.message or 0 for block in blocks if block.role == "assistant"), default=0)
    first = sum(1 for block in blocks if block.where.message is None or block.where.message < answer)
    if not answer or not first:
        return None
    end, history = prompt.end(prompt.previous_end), sum(1 for block in blocks if (block.where.message or 0) <= answer)
    tail = Step(end.digest, _tail(blocks), end.tokens, prompt.end(first - 1).tokens)
    return Turn(tail, prompt.end(history - 1).digest)


def _tail(blocks: Sequence[Block]) -> Role:
    if blocks[-1].kind == "tool_result":
        return "tail_tools"
    sizes: dict[int, float] = {}
    for block in blocks:
        if block.role == "user" and block.where.message is not None:
            sizes[block.where.message] = sizes.get(block.where.message, 0.0) + block.tokens
    last_user = max(sizes, default=0)
    if not any(block.role == "assistant" and (block.where.message or 0) < last_user for block in blocks):
        return "tail_single"
    last = sizes.pop(last_user)
    # Where the model may call tools, documents put in for one turn come back within it.
    stuffed = blocks[0].where.section != "tools" and sizes and last > STUFFED * max(sizes.values())
    return "tail_stuffed" if stuffed else "tail_turns"


def role(named: Mapping[int, Role], prompt: Prompt, boundary: int) -> Role:
    """What one boundary is, given the named ones."""
    return named.get(boundary) or ("inner" if prompt.boundaries[boundary].offset is None else "cut")


def steps(prompt: Prompt) -> list[Step]:
    """The boundaries of a prompt for the store, in wire order, with what each is."""
    named = roles(prompt)
    return [step(named, prompt, boundary) for boundary in range(len(prompt.boundaries))]


def step(named: Mapping[int, Role], prompt: Prompt, boundary: int) -> Step:
    """One boundary for the store, given the named ones."""
    here, what = prompt.boundaries[boundary], role(named, prompt, boundary)
    if what not in _OF_TURNS or prompt.previous_end < 0:
        return Step(here.digest, what, here.tokens)
    return Step(here.digest, what, here.tokens, prompt.end(prompt.previous_end).tokens)
