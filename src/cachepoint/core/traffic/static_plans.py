"""The family of static plans: fixed sets of named places, each with one TTL, that need no memory and no thought.

They are what people write by hand and what other libraries send. Each plan has a bit, so that what holds of many
plans is one number.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

from cachepoint.core.prompt.prompt import Prompt
from cachepoint.core.provider.rules import TTL, Section

Place = Literal["tools", "first_system", "system", "first_block", "first_message", "history", "end", "common"]
"""Where a static plan may put a checkpoint: at the end of the tools, of the first system block, of the system prompt,
of the first block and of all of the first user message, of the history, of the prompt, and of what it has in common
with the last request of its habit."""

SETS: tuple[tuple[Place, ...], ...] = (
    ("system",),
    ("first_system",),
    ("tools", "system"),
    ("history",),
    ("system", "history"),
    ("end",),
    ("system", "end"),
    ("tools", "system", "history", "end"),  # langchain-aws 1.9.1, BedrockPromptCachingMiddleware
    ("first_block",),
    ("system", "first_block"),
    ("first_system", "system", "history"),
    ("first_system", "system", "end"),
    ("first_message",),
    ("system", "first_message"),
    ("system", "first_message", "end"),
    ("common",),
)


class StaticPlan(NamedTuple):
    """Places that get a checkpoint in every request, all with one TTL; no places: nothing is cached."""

    places: tuple[Place, ...]
    ttl: TTL = "5m"

    def __str__(self) -> str:
        return " + ".join(self.places).replace("_", " ") + f" at {self.ttl}" if self.places else "nothing"


FAMILY = (StaticPlan(()), *(StaticPlan(places, ttl) for ttl in ("5m", "1h") for places in SETS))
"""Every static plan; its index is its bit."""
NOTHING = 0
OURS = len(FAMILY)
"""The planner's own plan, which takes part as if nothing guarded it; its entries of an hour have a bit more."""
OURS_1H = OURS + 1
OWN = 1 << OURS | 1 << OURS_1H
"""The bits of the planner's own entries."""
LONG = sum(1 << index for index, plan in enumerate(FAMILY) if plan.ttl == "1h") | 1 << OURS_1H
"""The bits of what lives for an hour."""
AT: Mapping[Place, int] = {
    place: sum(1 << index for index, plan in enumerate(FAMILY) if place in plan.places)
    for places in SETS
    for place in places
}
"""The bits of the plans that have a checkpoint at a place."""


class Habit(NamedTuple):
    """What kind of request it is, as far as that shows without its text: requests of a kind are judged together.

    A conversation keeps its habit: what one of its requests writes another reads, so that no plan can be judged by
    its openings alone. `ttl` is that of the policy; `size` is in tokens, of all up to the end of the first message.
    """

    ttl: str
    tools: bool
    system: bool
    size: float

    def like(self, other: Habit) -> bool:
        """Whether both are one: a call that rephrases a question is a small part of the one that answers it."""
        return self[:3] == other[:3] and other.size <= ALIKE * self.size and self.size <= ALIKE * other.size


ALIKE = 2.0
"""Times as large as another an opening may be and still be of its habit."""


def habit_of(prompt: Prompt, ttl: str) -> Habit:
    """The habit of a request."""
    opening = next((boundary for place, boundary in _places(prompt, -1) if place == "first_message"), -1)
    return Habit(ttl, prompt.tools_end >= 0, prompt.system_end >= 0, prompt.boundaries[opening].tokens)


def places(prompt: Prompt, sections: tuple[Section, ...], common: int) -> dict[int, int]:
    """The boundaries where static plans have checkpoints, with the bits of those plans.

    `sections` are those that take checkpoints; `common` is the last boundary that the prompt shares with the last
    request of its habit, -1 where there is none.
    """
    result: dict[int, int] = {}
    for place, boundary in _places(prompt, common):
        if boundary >= 0 and prompt.blocks[prompt.boundaries[boundary].block].where.section in sections:
            result[boundary] = result.get(boundary, 0) | AT[place]
    return result


def _places(prompt: Prompt, common: int) -> Iterator[tuple[Place, int]]:
    def end(block: int) -> int:
        return prompt.ends[block] if block >= 0 else -1

    first_system = prompt.tools_end + 1 if prompt.system_end >= 0 else -1
    messages = max(prompt.tools_end, prompt.system_end) + 1
    yield "tools", end(prompt.tools_end)
    yield "first_system", end(first_system)
    yield "system", end(prompt.system_end)
    if messages < len(prompt.blocks):
        first = prompt.blocks[messages].where.message
        last = messages
        while last + 1 < len(prompt.blocks) and prompt.blocks[last + 1].where.message == first:
            last += 1
        yield "first_block", end(messages)
        yield "first_message", end(last)
        yield "end", end(len(prompt.blocks) - 1)
    yield "history", end(prompt.history_end)
    yield "common", common


def bits(of: int) -> Iterator[int]:
    """The indices of the bits that are set."""
    while of:
        lowest = of & -of
        yield lowest.bit_length() - 1
        of ^= lowest
