"""What each boundary of a prompt is: end of tools, of system, of context, of history, tail, inner, cut."""

from __future__ import annotations

from cachepoint.core.prompt import Prompt
from cachepoint.core.returns import Role
from cachepoint.core.view import Step

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
        found[ends[-1]] = _tail(prompt)
    return found


def _tail(prompt: Prompt) -> Role:
    if prompt.blocks[-1].kind == "tool_result":
        return "tail_tools"
    if not prompt.has_turns:
        return "tail_single"
    sizes: dict[int | None, float] = {}
    for block in prompt.blocks:
        if block.role == "user":
            sizes[block.where.message] = sizes.get(block.where.message, 0.0) + block.tokens
    last = sizes.pop(prompt.last_user, 0.0)
    return "tail_stuffed" if sizes and last > STUFFED * max(sizes.values()) else "tail_turns"


def role(named: dict[int, Role], prompt: Prompt, boundary: int) -> Role:
    """What one boundary is, given the named ones."""
    return named.get(boundary) or ("inner" if prompt.boundaries[boundary].offset is None else "cut")


def steps(prompt: Prompt) -> list[Step]:
    """The boundaries of a prompt for the store, in wire order, with what each is."""
    named = roles(prompt)
    return [
        Step(digest, named.get(i) or ("inner" if offset is None else "cut"), tokens)
        for i, (_, offset, digest, tokens) in enumerate(prompt.boundaries)
    ]
