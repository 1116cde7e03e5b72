"""tau-bench: 200 recorded runs of an airline's agent, in the words that were really said, unscaled.

The data has the policy, the user's turns, the answers and the tool calls with their results; each answer was a request.
It has no times and no definitions of the tools: those come from the calls, with made-up descriptions of usual length.
As an evaluation, ten runs are under way at a time and each step takes seconds; as conversations with people, runs begin
through a day and a person takes about a minute for a turn. Sizes other than 1 cut or repeat the texts word by word.
"""

from __future__ import annotations

import gzip
import heapq
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from capture_lib.requests import Knobs, Message, Request, Text, Tool, ToolResult, ToolUse, in_order, text

from league_lib.talk import HOUR, human_gap, kept, rng_of

RUNS = Path(__file__).resolve().parents[3] / "shared" / "data" / "tau-bench" / "airline.json.gz"
AT_ONCE = 10
"""Runs under way at a time: what tau-bench's own instructions run."""
PEOPLE_TAKE = 60
_STEP = (2, 8)
"""Seconds that a call of the model and of a tool, or of the model that plays the user, take."""


@dataclass(frozen=True)
class Runs:
    """The runs as requests; `people` has persons take the user's turns. `count` takes the first runs."""

    people: bool

    def __call__(self, knobs: Knobs) -> Iterator[Request]:
        rng = rng_of(knobs, f"tau-bench/{self.people}")
        runs = recorded()[: knobs.many(len(recorded()))]
        tools = toolbox(knobs)
        free = [0.0] * AT_ONCE
        found: list[Request] = []
        for run in runs:
            at = rng.uniform(0, 8 * HOUR) * knobs.gaps if self.people else heapq.heappop(free)
            system, prompts = _prompts(run, knobs)
            for messages, answers_person in prompts:
                found.append(Request(at, messages, system, tools))
                at += rng.uniform(*_STEP) * knobs.gaps
                if self.people and answers_person:
                    at += human_gap(knobs, rng, PEOPLE_TAKE)
            if not self.people:
                heapq.heappush(free, at)
        return in_order(found)


@lru_cache(maxsize=1)
def recorded() -> tuple[Sequence[Mapping[str, Any]], ...]:
    """The messages of each run."""
    with gzip.open(RUNS, "rt", encoding="utf-8") as file:
        return tuple(run["traj"] for run in json.load(file))


def toolbox(knobs: Knobs) -> tuple[Tool, ...]:
    """The tools that were called, with the arguments that they got."""
    arguments: dict[str, set[str]] = {}
    for run in recorded():
        for message in run:
            for call in message.get("tool_calls") or ():
                given = json.loads(call["function"]["arguments"])
                arguments.setdefault(call["function"]["name"], set()).update(given)
    return tuple(
        Tool(
            name,
            kept(knobs, 70, "airline tool", name),
            {
                "type": "object",
                "properties": {
                    each: {"type": "string", "description": kept(knobs, 18, "airline argument", name, each)}
                    for each in sorted(taken)
                },
            },
        )
        for name, taken in sorted(arguments.items())
    )


def _prompts(
    run: Sequence[Mapping[str, Any]], knobs: Knobs
) -> tuple[tuple[Text, ...], Iterator[tuple[tuple[Message, ...], bool]]]:
    """The system prompt; and the messages before each answer, with whether the answer went to a person."""
    policy, *rest = run
    said = [_message(each, knobs) for each in with_ids_of_their_own(rest)]
    answers = [number for number, each in enumerate(rest) if each["role"] == "assistant"]
    prompts = ((tuple(said[:number]), not rest[number].get("tool_calls")) for number in answers)
    return (text(_sized(policy["content"], knobs.sizes)),), prompts


def with_ids_of_their_own(run: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The messages with an id for each tool call, as Bedrock wants it: these runs were of a model that repeats them."""
    given: Counter[str] = Counter()

    def own(name: str) -> str:
        return f"{name}-{given[name]}" if given[name] > 1 else name

    renamed: list[Mapping[str, Any]] = []
    for message in run:
        calls = message.get("tool_calls") or ()
        given.update(call["id"] for call in calls)
        if calls:
            message = {**message, "tool_calls": [{**call, "id": own(call["id"])} for call in calls]}  # noqa: PLW2901
        elif message["role"] == "tool":
            message = {**message, "tool_call_id": own(message["tool_call_id"])}  # noqa: PLW2901
        renamed.append(message)
    return renamed


def _message(given: Mapping[str, Any], knobs: Knobs) -> Message:
    words = _sized(given["content"] or "", knobs.sizes)
    if given["role"] == "tool":
        return Message("user", (ToolResult(given["tool_call_id"], given["name"], words),))
    if given["role"] == "user":
        return Message("user", (text(words),))
    uses = (
        ToolUse(call["id"], call["function"]["name"], _strings(json.loads(call["function"]["arguments"])))
        for call in given.get("tool_calls") or ()
    )
    return Message("assistant", (*((text(words),) if words else ()), *uses))


def _strings(arguments: Mapping[str, Any]) -> dict[str, str]:
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in arguments.items()}


@lru_cache(maxsize=32_768)
def _sized(given: str, sizes: float) -> str:
    if sizes == 1 or not given:
        return given
    words = given.split(" ")
    wanted = max(round(len(words) * sizes), 1)
    return " ".join((words * -(-wanted // len(words)))[:wanted])
