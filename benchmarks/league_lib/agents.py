"""Agents: approvals that wait for a person, cleared tool results, supervisors, changing memories, tools that change."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from capture_lib.requests import Knobs, Message, Request, Tool, ToolResult, Workload, assistant, in_order, text, user

from league_lib.talk import HOUR, human_gap, kept, new, rng_of, step, toolbox

CLEARED = "[Old tool result cleared]"


def approvals(knobs: Knobs) -> Iterator[Request]:
    """Every other step waits about ten minutes until a person has approved it, which the program knows."""
    rng = rng_of(knobs, "approvals")
    found: list[Request] = []
    system, tools = (text(kept(knobs, 2_500, "approving system")),), toolbox(knobs, "approve", 8)
    for run in range(knobs.many(12)):
        at = rng.uniform(0, 3 * HOUR) * knobs.gaps
        history: tuple[Message, ...] = (user(new(knobs, 150, "approved task", run)),)
        for number in range(12):
            waits = {"back_in": 700 * knobs.gaps} if number % 2 else None
            expect = waits if number < 11 else {"ends": True}
            found.append(Request(at, history, system, tools, expect=expect))
            result = new(knobs, rng.randint(100, 500), "approved result", run, number)
            history = (*history, *step(knobs, ("approve", run), number, tools, result))
            at += (rng.uniform(540, 660) if number % 2 else rng.uniform(4, 15)) * knobs.gaps
    return in_order(found)


def cleared(row: str, runs: int, steps: int, keep: int, at_least: int, knobs: Knobs) -> Iterator[Request]:
    """Old tool results give way to a note: all but the last `keep`, once there are `at_least` more to clear."""
    rng = rng_of(knobs, row)
    found: list[Request] = []
    system, tools = (text(kept(knobs, 1_500, "clearing system")),), toolbox(knobs, "clear", 8)
    for run in range(knobs.many(runs)):
        at = rng.uniform(0, HOUR) * knobs.gaps
        history: list[Message] = [user(new(knobs, 200, "cleared task", run))]
        gone = 0
        for number in range(steps):
            found.append(Request(at, tuple(history), system, tools))
            result = new(knobs, rng.randint(200, 900), "result to clear", run, number)
            history += step(knobs, ("clear", row, run), number, tools, result)
            results = [place for place, message in enumerate(history) if isinstance(message.content[0], ToolResult)]
            if len(results) - keep - gone >= at_least:
                for place in results[gone : len(results) - keep]:
                    history[place] = _without_result(history[place])
                gone = len(results) - keep
            at += rng.uniform(5, 25) * knobs.gaps
    return in_order(found)


def _without_result(message: Message) -> Message:
    return Message(
        "user", tuple(part._replace(text=CLEARED) for part in message.content if isinstance(part, ToolResult))
    )


def supervised(knobs: Knobs) -> Iterator[Request]:
    """A supervisor and three agents take turns on one conversation, each with a system prompt and tools of its own."""
    rng = rng_of(knobs, "supervisor")
    found: list[Request] = []
    names = ("supervisor", "research", "mathematics", "writing")
    system = {name: (text(kept(knobs, 1_800, name, "system")),) for name in names}
    tools = {name: toolbox(knobs, name, 3 if name == "supervisor" else 5, 150) for name in names}
    for task in range(knobs.many(12)):
        at = rng.uniform(0, 2 * HOUR) * knobs.gaps
        said: tuple[Message, ...] = (user(new(knobs, 150, "supervised task", task)),)
        for part in range(6):
            found.append(Request(at, said, system["supervisor"], tools["supervisor"]))
            at += rng.uniform(2, 6) * knobs.gaps
            name = rng.choice(names[1:])
            history = said
            for number in range(rng.randint(2, 4)):
                found.append(Request(at, history, system[name], tools[name]))
                result = new(knobs, rng.randint(100, 500), "found", task, part, number)
                history = (*history, *step(knobs, (name, task, part), number, tools[name], result))
                at += rng.uniform(3, 10) * knobs.gaps
            answer = assistant(new(knobs, 200, "agent says", task, part))
            said = (*said, answer, user(f"{name} is done. Continue."))
    return in_order(found)


def remembering(row: str, knobs: Knobs, *, in_one: bool) -> Iterator[Request]:
    """A memory text behind the agent's own prompt, new with each question, the same within its tool loop."""
    rng = rng_of(knobs, row)
    found: list[Request] = []
    own, tools = kept(knobs, 2_500, "remembering system"), toolbox(knobs, "remember", 6)
    for run in range(knobs.many(5)):
        at = rng.uniform(0, HOUR) * knobs.gaps
        history: tuple[Message, ...] = ()
        for turn in range(12):
            memory = new(knobs, 600, "memory", run, turn)
            system = (text(own, "\n\nMemory:\n", memory),) if in_one else (text(own), text(memory))
            history = (*history, user(new(knobs, 60, "remember asks", run, turn)))
            for number in range(rng.randint(1, 3)):
                found.append(Request(at, history, system, tools))
                result = new(knobs, rng.randint(100, 400), "remembered", run, turn, number)
                history = (*history, *step(knobs, (row, run, turn), number, tools, result))
                at += rng.uniform(3, 8) * knobs.gaps
            found.append(Request(at, history, system, tools))
            history = (*history, assistant(new(knobs, 200, "remember says", run, turn)))
            at += human_gap(knobs, rng, 50)
    return in_order(found)


def selected_tools(knobs: Knobs) -> Iterator[Request]:
    """Five of fifteen tools, picked anew for each question and in force for its loop."""
    rng = rng_of(knobs, "selected-tools")
    found: list[Request] = []
    system, everything = (text(kept(knobs, 2_500, "selecting system")),), toolbox(knobs, "select", 15, 200)
    for run in range(knobs.many(6)):
        at = rng.uniform(0, HOUR) * knobs.gaps
        history: tuple[Message, ...] = ()
        for turn in range(8):
            tools: Sequence[Tool] = sorted(rng.sample(everything, 5))
            history = (*history, user(new(knobs, 60, "select asks", run, turn)))
            for number in range(3):
                found.append(Request(at, history, system, tuple(tools)))
                result = new(knobs, rng.randint(100, 400), "selected", run, turn, number)
                history = (*history, *step(knobs, ("select", run, turn), number, tools, result))
                at += rng.uniform(3, 8) * knobs.gaps
            history = (*history, assistant(new(knobs, 200, "select says", run, turn)))
            at += human_gap(knobs, rng, 60)
    return in_order(found)


def bursts(knobs: Knobs) -> Iterator[Request]:
    """Short agent runs behind one prompt, three to eight steps, with breaks of a quarter of an hour or more."""
    rng, at = rng_of(knobs, "bursts"), 0.0
    system, tools = (text(kept(knobs, 3_000, "burst system")),), toolbox(knobs, "burst", 8)
    for run in range(knobs.many(40)):
        history: tuple[Message, ...] = (user(new(knobs, 120, "burst task", run)),)
        for number in range(rng.randint(3, 8)):
            yield Request(at, history, system, tools)
            result = new(knobs, rng.randint(100, 600), "burst result", run, number)
            history = (*history, *step(knobs, ("burst", run), number, tools, result))
            at += rng.uniform(4, 15) * knobs.gaps
        at += rng.uniform(900, 4_500) * knobs.gaps


ROWS: tuple[Workload, ...] = (
    Workload("approvals", "an agent whose every other step waits ten minutes for a person", approvals, 60),
    Workload("clear-20", "tool results cleared twenty at a time", partial(cleared, "clear-20", 4, 60, 5, 20), 60),
    Workload(
        "clear-each",
        "all but the last eight tool results cleared at each step",
        partial(cleared, "clear-each", 8, 30, 8, 1),
        60,
    ),
    Workload("supervisor", "a supervisor and three agents with prompts and tools of their own", supervised, 60),
    Workload(
        "memory-string",
        "a memory text in the system string, new with each question",
        partial(remembering, "memory-string", in_one=True),
        60,
    ),
    Workload(
        "memory-block",
        "a memory text in a system block, new with each question",
        partial(remembering, "memory-block", in_one=False),
        60,
    ),
    Workload("selected-tools", "five of fifteen tools, picked for each question", selected_tools, 60),
    Workload("bursts", "short agent runs with breaks of 15 to 75 minutes", bursts, 60),
)
