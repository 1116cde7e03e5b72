"""What the synthetic rows are made of: gaps between turns, conversations, tool steps.

Sizes are tokens, gaps seconds.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence

from capture_lib.prose import prose
from capture_lib.requests import Knobs, Message, Text, Tool, ToolResult, ToolUse, assistant, text, user

HOUR = 3600.0
HUMAN_SPREAD = 0.8
"""Sigma of the log-normal gaps between a person's turns: one in five is twice the median or more."""


def rng_of(knobs: Knobs, row: str) -> random.Random:
    """The row's own numbers, other ones each day."""
    return random.Random(f"league/{row}/{knobs.today}")


def human_gap(knobs: Knobs, rng: random.Random, median: float) -> float:
    """How long a person takes for the next turn."""
    return rng.lognormvariate(math.log(median), HUMAN_SPREAD) * knobs.gaps


def kept(knobs: Knobs, tokens: float, *key: object) -> str:
    """A text that stays from day to day."""
    return prose(knobs.tokens(tokens), knobs.seed, *key)


def new(knobs: Knobs, tokens: float, *key: object) -> str:
    """A text of this day."""
    return prose(knobs.tokens(tokens), knobs.today, *key)


def exchange(
    knobs: Knobs, key: Sequence[object], turn: int, *, asked: float = 60, answered: float = 200
) -> list[Message]:
    """A turn's question and its answer."""
    return [
        user(new(knobs, asked, "asked", *key, turn)),
        assistant(new(knobs, answered, "answered", *key, turn)),
    ]


def dialogue(
    knobs: Knobs, key: Sequence[object], turns: int, *, asked: float = 60, answered: float = 200
) -> Iterator[tuple[int, tuple[Message, ...]]]:
    """Each turn with the messages up to its question."""
    history: tuple[Message, ...] = ()
    for turn in range(turns):
        question, answer = exchange(knobs, key, turn, asked=asked, answered=answered)
        yield turn, (*history, question)
        history = (*history, question, answer)


def toolbox(knobs: Knobs, key: str, count: int, tokens: float = 120) -> tuple[Tool, ...]:
    """So many tools of about so many tokens."""
    return tuple(
        Tool(
            f"{key}_{number}",
            kept(knobs, tokens, "tool", key, number),
            {
                "type": "object",
                "properties": {"query": {"type": "string", "description": kept(knobs, 15, "query", key, number)}},
            },
        )
        for number in range(count)
    )


def step(
    knobs: Knobs, key: Sequence[object], number: int, tools: Sequence[Tool], result: str
) -> tuple[Message, Message]:
    """One tool call with a thought before it, and its result."""
    tool = tools[number % len(tools)]
    name = f"call_{'_'.join(map(str, key))}_{number}".replace(" ", "_").replace("-", "_")
    thought: Text = text(new(knobs, 40, "thought", *key, number))
    use = ToolUse(name, tool.name, {"query": new(knobs, 10, "argument", *key, number)})
    return Message("assistant", (thought, use)), Message("user", (ToolResult(name, tool.name, result),))
