"""What each boundary of a prompt is: end of tools, of system, of context, of history, tail, inner, cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cachepoint.core.prompt.prompt import Block, Prompt
from cachepoint.core.traffic.entries import Ending
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


TOOL_CHOICES = ("toolConfig.toolChoice", "tool_choice")
"""The settings, by API, that say whether a tool has to be called."""
_OF_TURNS = ("history_end", "tail_turns", "tail_stuffed", "tail_tools")
_NAMED_BOUNDARIES = "named_boundaries"
STUFFED = 4
"""A last user message this many times larger than any before it looks like one with documents put in."""


def roles(prompt: Prompt) -> dict[int, Role]:
    """The named boundaries of a prompt, by index; all others are inner block ends or cuts.

    Worked out once for a prompt and kept with it, as a cached property is.
    """
    found: dict[int, Role] | None = vars(prompt).get(_NAMED_BOUNDARIES)
    if found is None:
        found = vars(prompt)[_NAMED_BOUNDARIES] = _roles(prompt)
    return found


def _roles(prompt: Prompt) -> dict[int, Role]:
    found: dict[int, Role] = {}
    ends = prompt.ends
    if prompt.tools_end >= 0:
        found[ends[prompt.tools_end]] = "tools_end"
    if prompt.system_end >= 0:
        found[ends[prompt.system_end]] = "system_end"
    contexts = [index for index, block in enumerate(prompt.blocks) if block.context]
    found.update((ends[index], "context_end") for index in contexts)
    if prompt.history_end >= 0 and prompt.has_turns:
        found[ends[prompt.history_end]] = "history_end"
    if prompt.blocks and prompt.blocks[-1].where.section == "messages":
        found[ends[-1]] = _tail_of(prompt, len(prompt.blocks) - 1)
    return found


def _tail_of(prompt: Prompt, last: int) -> Role:
    """What the end of a request is that ends with block `last`; an agent's first question comes again in its loop."""
    found = _tail(prompt.blocks, last)
    return "tail_turns" if found == "tail_single" and prompt.tools_end >= 0 and not _forced(prompt) else found


def _forced(prompt: Prompt) -> bool:
    """Whether a tool has to be called, as for an answer in a schema: then no loop follows."""
    return any(setting.digest and setting.path in TOOL_CHOICES for setting in prompt.settings)


def turn_before(prompt: Prompt) -> Turn | None:
    """The request before this one; None where it was the first of its conversation, or there was none."""
    blocks, last = prompt.blocks, prompt.previous_end
    while last >= 0 and blocks[last].role != "assistant":  # found near the end, however long the conversation
        last -= 1
    answer = blocks[last].where.message if last >= 0 else None
    if not answer:
        return None
    first = last
    while first and blocks[first - 1].where.message == answer:
        first -= 1
    end = prompt.end(prompt.previous_end)
    tail = Step(end.digest, _tail_of(prompt, prompt.previous_end), end.tokens, prompt.end(first - 1).tokens)
    return Turn(tail, prompt.end(last).digest) if first else None


def ending(prompt: Prompt, last: int) -> Ending | None:
    """How a request that ends with a block ends, None where it is too short to be told from others."""
    ends = tuple(block.content for block in prompt.blocks[max(last - 1, 0) : last + 1] if block.content)
    return ends if len(ends) > 1 else None


def _tail(blocks: Sequence[Block], last: int) -> Role:
    """What the end of a prompt is that ends with block `last`; it looks back no further than it has to."""
    if blocks[last].kind == "tool_result":
        return "tail_tools"
    sizes, answered = list[float](), False  # of user messages, the last one first
    message = None
    for index in range(last, -1, -1):
        block = blocks[index]
        if block.where.message is None:
            break
        if block.role == "assistant":
            answered = answered or bool(sizes)
        if block.role != "user":
            continue
        if block.where.message == message:
            sizes[-1] += block.tokens
            continue
        if answered and len(sizes) > 1 and sizes[0] <= STUFFED * sizes[-1]:
            return "tail_turns"
        message = block.where.message
        sizes.append(block.tokens)
    if not answered:
        return "tail_single"
    # Where the model may call tools, documents put in for one turn come back within it.
    stuffed = blocks[0].where.section != "tools" and len(sizes) > 1 and sizes[0] > STUFFED * max(sizes[1:])
    return "tail_stuffed" if stuffed else "tail_turns"


def role(named: Mapping[int, Role], prompt: Prompt, boundary: int) -> Role:
    """What one boundary is, given the named ones."""
    return named.get(boundary) or ("inner" if prompt.boundaries[boundary].offset is None else "cut")


def steps(prompt: Prompt) -> list[Step]:
    """The boundaries of a prompt for the store, in wire order, with what each is."""
    new = tuple.__new__  # a named tuple's own makes this twice as slow, and a long prompt has many
    found = [
        new(Step, (digest, "inner" if offset is None else "cut", tokens, 0.0))
        for _, offset, digest, tokens in prompt.boundaries
    ]
    named = roles(prompt)
    for boundary in named:
        found[boundary] = step(named, prompt, boundary)
    return found


def step(named: Mapping[int, Role], prompt: Prompt, boundary: int) -> Step:
    """One boundary for the store, given the named ones."""
    here, what = prompt.boundaries[boundary], role(named, prompt, boundary)
    if what not in _OF_TURNS or prompt.previous_end < 0:
        return Step(here.digest, what, here.tokens)
    return Step(here.digest, what, here.tokens, prompt.end(prompt.previous_end).tokens)
