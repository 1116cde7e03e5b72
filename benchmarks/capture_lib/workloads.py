"""The made-up rows: A1 to A10 and the hostile H1 and H2. Sizes are tokens, gaps seconds."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator

from capture_lib.prose import prose
from capture_lib.requests import (
    Knobs,
    Message,
    Request,
    Text,
    Tool,
    ToolResult,
    ToolUse,
    Workload,
    assistant,
    in_order,
    text,
    user,
)

HOUR = 3600.0
QUESTION = "\n\nQuestion: "


def _rng(knobs: Knobs, row: str) -> random.Random:
    return random.Random(f"{row}/{knobs.today}")


def _steadily(knobs: Knobs, row: str, count: int, mean_gap: float) -> Iterator[tuple[int, float]]:
    """Independent arrivals at a mean gap."""
    rng, at = _rng(knobs, row), 0.0
    for number in range(knobs.many(count)):
        yield number, at
        at += rng.expovariate(1 / (mean_gap * knobs.gaps))


# -- one document, many questions ------------------------------------------------------------------


def _document(knobs: Knobs) -> str:
    return prose(knobs.tokens(7_800), knobs.seed, "document")


def _question(knobs: Knobs, number: int) -> str:
    return prose(knobs.tokens(25), knobs.today, "question", number)


def one_string(knobs: Knobs) -> Iterator[Request]:
    for number, at in _steadily(knobs, "A1", 200, 20):
        yield Request(at, (user(text(_document(knobs), QUESTION + _question(knobs, number))),))


def document_in_system(knobs: Knobs) -> Iterator[Request]:
    for number, at in _steadily(knobs, "A2", 200, 20):
        yield Request(at, (user(_question(knobs, number)),), system=(text(_document(knobs)),))


def two_blocks(knobs: Knobs) -> Iterator[Request]:
    for number, at in _steadily(knobs, "A3", 200, 20):
        yield Request(at, (user(_document(knobs), _question(knobs, number)),))


def rare_prefix(knobs: Knobs) -> Iterator[Request]:
    rng, at = _rng(knobs, "A7"), 0.0
    system = (text(prose(knobs.tokens(20_000), knobs.seed, "rare")),)
    for number in range(knobs.many(120)):
        yield Request(at, (user(_question(knobs, number)),), system=system)
        at += rng.uniform(12 * 60, 25 * 60) * knobs.gaps


def tenants(knobs: Knobs) -> Iterator[Request]:
    rng = _rng(knobs, "A8 tenants")
    shared = text(prose(knobs.tokens(3_000), knobs.seed, "shared"))
    for number, at in _steadily(knobs, "A8", 1_200, 4.25):
        tenant = rng.randrange(40)
        own = text(prose(knobs.tokens(6_000), knobs.seed, "tenant", tenant))
        yield Request(at, (user(_question(knobs, number)),), system=(shared, own))


def fan_out(knobs: Knobs) -> Iterator[Request]:
    system = (text(prose(knobs.tokens(10_000), knobs.seed, "fan-out")),)
    for number in range(knobs.many(50)):
        yield Request(0.0, (user(_question(knobs, number)),), system=system, group="burst")


# -- conversations ---------------------------------------------------------------------------------


def chats(knobs: Knobs) -> Iterator[Request]:
    rng, found = _rng(knobs, "A4"), []
    system = (text(prose(knobs.tokens(1_500), knobs.seed, "chat system")),)
    for chat in range(knobs.many(20)):
        at = rng.uniform(0, HOUR) * knobs.gaps
        history: tuple[Message, ...] = ()
        for turn in range(40):
            asked = user(prose(knobs.tokens(80), knobs.today, "said", chat, turn))
            found.append(Request(at, (*history, asked), system))
            history = (*history, asked, assistant(prose(knobs.tokens(250), knobs.today, "answer", chat, turn)))
            at += rng.lognormvariate(math.log(120), 0.9) * knobs.gaps
    return in_order(found)


def rag_chats(knobs: Knobs) -> Iterator[Request]:
    rng, found = _rng(knobs, "A10"), []
    system = (text(prose(knobs.tokens(900), knobs.seed, "rag system")),)
    for chat in range(knobs.many(12)):
        at = rng.uniform(0, HOUR / 2) * knobs.gaps
        history: tuple[Message, ...] = ()
        for turn in range(20):
            question = prose(knobs.tokens(40), knobs.today, "asked", chat, turn)
            documents = prose(knobs.tokens(2_500), knobs.today, "retrieved", chat, turn)
            found.append(Request(at, (*history, user(f"{documents}{QUESTION}{question}")), system))
            answer = prose(knobs.tokens(250), knobs.today, "rag answer", chat, turn)
            history = (*history, user(question), assistant(answer))
            at += rng.lognormvariate(math.log(75), 0.7) * knobs.gaps
    return in_order(found)


# -- agents ----------------------------------------------------------------------------------------


def _tools(knobs: Knobs) -> tuple[Tool, ...]:
    return tuple(
        Tool(
            f"tool_{number}",
            prose(knobs.tokens(100), knobs.seed, "tool", number),
            {
                "type": "object",
                "properties": {"query": {"type": "string", "description": prose(20, knobs.seed, "query", number)}},
            },
        )
        for number in range(12)
    )


def _agent_run(
    knobs: Knobs, rng: random.Random, run: tuple[object, ...], steps: int, calls: tuple[int, int]
) -> Iterator[Request]:
    system = (text(prose(knobs.tokens(1_200), knobs.seed, "agent system")),)
    at = rng.uniform(0, HOUR) * knobs.gaps
    history: tuple[Message, ...] = (user(prose(knobs.tokens(150), knobs.today, "task", *run)),)
    for step in range(steps):
        yield Request(at, history, system, _tools(knobs))
        numbers = range(rng.randint(*calls))
        uses = tuple(
            ToolUse(f"call_{step}_{n}", f"tool_{n % 12}", {"query": prose(8, knobs.today, "argument", *run, step, n)})
            for n in numbers
        )
        results = tuple(
            ToolResult(
                use.id, use.name, prose(knobs.tokens(rng.randint(60, 300)), knobs.today, "result", *run, step, use.id)
            )
            for use in uses
        )
        thought: Text = text(prose(knobs.tokens(30), knobs.today, "thought", *run, step))
        history = (*history, Message("assistant", (thought, *uses)), Message("user", results))
        at += rng.uniform(4, 15) * knobs.gaps


def agents(knobs: Knobs) -> Iterator[Request]:
    rng = _rng(knobs, "A5")
    runs = range(knobs.many(8))
    return in_order([request for run in runs for request in _agent_run(knobs, rng, ("few", run), 30, (1, 3))])


def parallel_agents(knobs: Knobs) -> Iterator[Request]:
    rng = _rng(knobs, "A6")
    runs = range(knobs.many(4))
    return in_order([request for run in runs for request in _agent_run(knobs, rng, ("many", run), 15, (12, 24))])


# -- hostile ---------------------------------------------------------------------------------------


def unique_prompts(knobs: Knobs) -> Iterator[Request]:
    for number, at in _steadily(knobs, "H1", 200, 15):
        yield Request(at, (user(prose(knobs.tokens(3_000), knobs.today, "unique", number)),))


def timestamp_first(knobs: Knobs) -> Iterator[Request]:
    system = prose(knobs.tokens(5_000), knobs.seed, "stamped")
    for number, at in _steadily(knobs, "H2", 200, 15):
        hour, minute, second = int(at // 3600) + 8, int(at // 60) % 60, int(at) % 60
        stamp = f"Current time: 2026-11-{22 - knobs.day}T{hour:02}:{minute:02}:{second:02}Z\n"
        yield Request(at, (user(_question(knobs, number)),), system=(text(stamp, system),))


WORKLOADS = (
    Workload("A1", "document and question in one string", one_string),
    Workload("A2", "document in the system prompt", document_in_system),
    Workload("A3", "document and question as two blocks", two_blocks),
    Workload("A4", "chats of 40 turns, a median of 2 minutes apart", chats, 250),
    Workload("A5", "agents: 12 tools, 30 steps of 1 to 3 calls", agents, 60),
    Workload("A6", "agents: 12 to 24 parallel calls a step", parallel_agents, 400),
    Workload("A7", "one 20k prefix every 12 to 25 minutes", rare_prefix),
    Workload("A8", "40 tenants interleaved, 3k shared and 6k own", tenants),
    Workload("A9", "50 concurrent requests on a cold 10k prefix", fan_out),
    Workload("A10", "RAG chat: plain history, documents in the last message", rag_chats, 250),
    Workload("H1", "hostile: unique 3k prompts", unique_prompts),
    Workload("H2", "hostile: a timestamp on line one of a 5k system prompt", timestamp_first),
)
