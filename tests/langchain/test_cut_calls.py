"""A tool call that broke off is an invalid tool call, which no agent runs, and the conversation goes on after it."""

from __future__ import annotations

import json
from functools import reduce
from operator import add
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.tools import tool
from langchain_kit import LONG, MakeModel, sent

from cachepoint.emulator import BedrockEmulator, Reply, Text, ToolCall
from cachepoint.langchain import CacheAwareChatBedrockConverse
from cachepoint.langchain._request.cut_calls import CutCalls

METHODS = ("invoke", "stream", "ainvoke", "astream")
ARGUMENTS = {"path": "a.txt", "content": LONG}
ASK = HumanMessage("Write the file.")
written: list[Any] = []

pytestmark = pytest.mark.usefixtures("nothing_warned_of")


@tool
def write_file(path: str, content: str = "") -> str:
    """Write a file."""
    written.append((path, content))
    return "written"


@pytest.fixture(autouse=True)
def nothing_written() -> None:
    written.clear()


async def ask(model: Any, method: str, messages: list[Any]) -> AIMessage:
    if method == "invoke":
        answer = model.invoke(messages)
    elif method == "ainvoke":
        answer = await model.ainvoke(messages)
    elif method == "stream":
        answer = reduce(add, model.stream(messages))
    else:
        answer = reduce(add, [chunk async for chunk in model.astream(messages)])
    assert isinstance(answer, AIMessage)
    return answer


@pytest.mark.parametrize("method", METHODS)
async def test_a_call_cut_off_by_max_tokens_is_an_invalid_call(
    method: str, make_model: MakeModel, emulator: BedrockEmulator
) -> None:
    emulator.script((Text("Two."), ToolCall("write_file", {"path": "b.txt"}, "t1"), ToolCall("write_file", ARGUMENTS)))
    model = make_model(max_tokens=200).bind_tools([write_file])
    answer = await ask(model, method, [ASK])
    assert [call["args"] for call in answer.tool_calls] == [{"path": "b.txt"}]
    (cut,) = answer.invalid_tool_calls
    assert cut["name"] == "write_file"
    assert str(cut["args"]).startswith('{"path": "a.txt"')


@pytest.mark.parametrize("method", METHODS)
async def test_a_conversation_goes_on_after_a_call_that_was_cut(
    method: str, make_model: MakeModel, emulator: BedrockEmulator
) -> None:
    emulator.script(ToolCall("write_file", ARGUMENTS, "t1"))
    model = make_model(max_tokens=200).bind_tools([write_file])
    cut = await ask(model, method, [ASK])
    with pytest.warns(match="tool calls without a result"):
        answer = await ask(model, method, [ASK, cut, HumanMessage("Shorter, please.")])
    assert answer.text
    asked = sent(emulator)[-1]["messages"][2]["content"]
    assert asked[0]["toolResult"]["toolUseId"] == "t1"
    assert "cut off" in asked[0]["toolResult"]["content"][0]["text"]
    assert asked[1] == {"text": "Shorter, please."}


@pytest.mark.parametrize("streaming", [False, True])
def test_an_agent_does_not_run_it(streaming: bool, make_model: MakeModel, emulator: BedrockEmulator) -> None:
    emulator.script(ToolCall("write_file", ARGUMENTS))
    agent = create_agent(make_model(max_tokens=200), [write_file])
    if streaming:
        list(agent.stream({"messages": [ASK]}, stream_mode="messages"))
    else:
        agent.invoke({"messages": [ASK]})
    assert written == []
    assert len(sent(emulator)) == 1


# Every way in which JSON can break off: outside of a string, in one, behind a backslash, in a list, before the first.
TEXTS = [{"path": 'a"\\b', "content": ["x", {"y": [1, 2]}], "n": 1.5}]


@pytest.mark.parametrize("stop", ["max_tokens", "tool_use"])
def test_a_streamed_call_is_whole_or_invalid_wherever_it_breaks_off(
    stop: str, model: CacheAwareChatBedrockConverse, emulator: BedrockEmulator
) -> None:
    (arguments,) = TEXTS
    whole = json.dumps(arguments)
    bound = model.bind_tools([write_file])
    for cut in range(1, len(whole) + 1):
        emulator.script(Reply((ToolCall("write_file", arguments, "t1", cut=cut),), stop))
        answer: AIMessageChunk = reduce(add, bound.stream([ASK]))  # type: ignore[assignment]
        if cut == len(whole):
            assert [call["args"] for call in answer.tool_calls] == [arguments]
        else:
            assert (answer.tool_calls, len(answer.invalid_tool_calls)) == ([], 1), whole[:cut]


def test_a_streamed_call_that_opens_brackets_without_end_is_invalid() -> None:
    """Too deep for Python's JSON, which raises no ValueError then; for the parent it is an invalid call."""
    part = tool_call_chunk(name="write_file", args='{"path": ' + "[" * 100_000, id="t1", index=0)
    parts = [
        AIMessageChunk(content=[], tool_call_chunks=[part]),
        AIMessageChunk(content=[], response_metadata={"stopReason": "max_tokens"}),
    ]
    chunks = CutCalls(None).passing(ChatGenerationChunk(message=part) for part in parts)
    answer = reduce(add, [chunk.message for chunk in chunks])
    assert isinstance(answer, AIMessageChunk)
    assert (answer.tool_calls, [call["name"] for call in answer.invalid_tool_calls]) == ([], ["write_file"])


def test_a_streamed_call_without_any_arguments_is_whole_unless_the_answer_broke_off(
    model: CacheAwareChatBedrockConverse, emulator: BedrockEmulator
) -> None:
    for stop, calls in (("tool_use", 1), ("max_tokens", 0)):
        emulator.script(Reply((ToolCall("write_file", {}, "t1", cut=0),), stop))
        answer: AIMessageChunk = reduce(add, model.bind_tools([write_file]).stream([ASK]))  # type: ignore[assignment]
        assert (len(answer.tool_calls), len(answer.invalid_tool_calls)) == (calls, 1 - calls)
