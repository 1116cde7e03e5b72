"""What a call costs grows with the request and no faster: counted in operations of the interpreter, not in time."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType, SimpleNamespace
from typing import Any

import pytest
from converse_kit import SONNET, Json, assistant, document, point, text, tool, tool_result, tool_use, user

from cachepoint import CachePolicy, MemoryStore
from cachepoint.bedrock.call import Call
from cachepoint.bedrock.settings import settings
from cachepoint.bedrock.wire import converse

PARAGRAPH = "word " * 60 + "\n\n"
SIZES = (64, 128, 256)
MOST = 2.8
"""Twice as many more cost twice as much more where all is linear, and four times where something is quadratic."""


def messages(count: int) -> list[Json]:
    said = [(user if number % 2 == 0 else assistant)(f"{number} {PARAGRAPH}") for number in range(count // 2 * 2)]
    return [*said, user("Why?")]


def results(count: int) -> list[Json]:
    uses, answers = [tool_use(i) for i in range(count)], [tool_result(i, text(PARAGRAPH)) for i in range(count)]
    return [
        user("Why?"), {"role": "assistant", "content": uses}, {"role": "user", "content": [*answers, text("So?")]},
    ]  # fmt: skip


def last(*blocks: Json) -> Json:
    return {"messages": [user("Hello."), assistant("Yes?"), {"role": "user", "content": [*blocks, text("Why?")]}]}


SHAPES: dict[str, Callable[[int], Json]] = {
    "text documents in the last message": lambda n: last(*[text(f"{i} {PARAGRAPH}") for i in range(n)]),
    "long text documents there": lambda n: last(*[text(f"{i} {PARAGRAPH * 6}") for i in range(n // 4)]),
    "document blocks there": lambda n: last(*[document("txt", f"{i} {PARAGRAPH}".encode()) for i in range(n)]),
    "documents with a mark each": lambda n: last(*[b for i in range(n) for b in (text(f"{i} {PARAGRAPH}"), point())]),
    "messages": lambda n: {"messages": messages(n)},
    "tools": lambda n: {**last(), "toolConfig": {"tools": [tool(f"tool{number}") for number in range(n)]}},
    "tool results": lambda n: {"messages": results(n)},
    "system blocks": lambda n: {**last(), "system": [text(f"{i} {PARAGRAPH}") for i in range(n)]},
    "paragraphs of one text": lambda n: last(text(PARAGRAPH * n)),
}


def operations(step: Callable[[], object]) -> int:
    """How many operations of the interpreter a step takes."""
    count, before = 0, sys.gettrace()

    def traced(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal count
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        count += event == "opcode"
        return traced

    sys.settrace(traced)
    try:
        step()
    finally:
        sys.settrace(before)
    return count


def called(request: Json, times: int = 3) -> list[int]:
    """The operations of each of some calls in a row, the last question of which changes."""
    made = settings(CachePolicy(), {"store": MemoryStore(key=b"k" * 32), "clock": lambda: 1_000.0})
    client = SimpleNamespace(meta=SimpleNamespace(region_name="us-east-1", endpoint_url="http://localhost"))

    def call(question: str) -> None:
        *before, message = request["messages"]
        content = [*message["content"][:-1], text(question)]
        asked = {"modelId": SONNET, **request, "messages": [*before, {**message, "content": content}]}
        going = Call(made, client, converse, asked)
        assert not [*going.departure()]
        expected = going.exchange.plan.expected
        read, written = round(expected.read), round(expected.written)
        going.answered({"inputTokens": 9, "cacheReadInputTokens": read, "cacheWriteInputTokens": written})

    return [operations(lambda number=number: call(f"Question {number}?")) for number in range(times)]  # type: ignore[misc]


@pytest.mark.filterwarnings("ignore:cachepoint. the checkpoint")
@pytest.mark.parametrize("shape", SHAPES)
def test_a_call_costs_no_more_than_its_size(shape: str) -> None:
    called(SHAPES[shape](SIZES[0]))  # what is worked out once for all calls
    small, middle, large = (called(SHAPES[shape](size)) for size in SIZES)
    growth = [(last - more) / max(more - first, 1) for first, more, last in zip(small, middle, large, strict=True)]
    assert max(growth) < MOST, (small, middle, large)
