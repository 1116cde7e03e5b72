"""Function calling and structured prediction."""

from __future__ import annotations

from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatMessage, MessageRole
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from llama_index_kit import CHAT_METHODS, MODEL, MakeLLM, answer, ask, sent, without_points
from pydantic import BaseModel

from cachepoint.emulator import BedrockEmulator, Reasoning, Text, ToolCall


class City(BaseModel):
    """A city."""

    name: str
    country: str


PARIS = City(name="Paris", country="France")
PARIS_CALL = ToolCall("City", PARIS.model_dump())
DESCRIBE = PromptTemplate("Describe {city}.")


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def multiply(a: int, b: int) -> int:
    """Multiply two numbers."""
    return a * b


TOOLS = [FunctionTool.from_defaults(add), FunctionTool.from_defaults(multiply)]


def choice(emulator: BedrockEmulator) -> Any:
    return sent(emulator)[-1]["toolConfig"]["toolChoice"]


def test_tools_are_sent_in_the_callers_order(make_llm: MakeLLM, emulator: BedrockEmulator) -> None:
    make_llm().chat_with_tools(TOOLS, user_msg="What is 2 + 3?")
    tools = [tool["toolSpec"] for tool in sent(emulator)[-1]["toolConfig"]["tools"] if "toolSpec" in tool]
    assert [tool["name"] for tool in tools] == ["add", "multiply"]
    assert tools[0]["inputSchema"]["json"]["required"] == ["a", "b"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {"auto": {}}),
        ({"tool_required": True}, {"any": {}}),
        ({"tool_choice": "multiply"}, {"tool": {"name": "multiply"}}),
        ({"tool_choice": {"any": {}}}, {"any": {}}),
        ({"tool_choice": "auto"}, {"auto": {}}),
        ({"tool_choice": "required"}, {"any": {}}),
    ],
    ids=str,
)
def test_a_tool_choice_is_sent_as_converse_has_it(
    options: dict[str, Any], expected: dict[str, Any], make_llm: MakeLLM, emulator: BedrockEmulator
) -> None:
    make_llm().chat_with_tools(TOOLS, user_msg="What is 2 times 3?", **options)
    assert choice(emulator) == expected


def test_a_model_that_thinks_is_not_forced(make_llm: MakeLLM, emulator: BedrockEmulator) -> None:
    llm = make_llm(thinking={"type": "enabled", "budget_tokens": 1024}, max_tokens=2048, temperature=1.0)
    llm.chat_with_tools(TOOLS, user_msg="What is 2 times 3?", tool_required=True)
    assert choice(emulator) == {"auto": {}}


def test_a_call_comes_back_with_its_arguments(make_llm: MakeLLM, emulator: BedrockEmulator) -> None:
    emulator.script(ToolCall("add", {"a": 2, "b": 3}, id="call_1"))
    llm = make_llm()
    [call] = llm.get_tool_calls_from_response(llm.chat_with_tools(TOOLS, user_msg="What is 2 + 3?"))
    assert (call.tool_id, call.tool_name, call.tool_kwargs) == ("call_1", "add", {"a": 2, "b": 3})


def test_a_streamed_call_comes_back_with_its_arguments(make_llm: MakeLLM, emulator: BedrockEmulator) -> None:
    emulator.script((Text("Let me see."), ToolCall("add", {"a": 2, "b": 3}, id="call_1")))
    llm = make_llm()
    *_, last = llm.stream_chat_with_tools(TOOLS, user_msg="What is 2 + 3?")
    [call] = llm.get_tool_calls_from_response(last)
    assert (call.tool_id, call.tool_name, call.tool_kwargs) == ("call_1", "add", {"a": 2, "b": 3})
    assert last.message.content == "Let me see."


async def test_parallel_calls_come_back_in_order(make_llm: MakeLLM, emulator: BedrockEmulator) -> None:
    calls = [ToolCall("add", {"a": n, "b": n}, id=f"call_{n}") for n in range(3)]
    emulator.script(calls, calls)
    llm = make_llm()
    response = await llm.achat_with_tools(TOOLS, user_msg="Add them up.", allow_parallel_tool_calls=True)
    assert [call.tool_id for call in llm.get_tool_calls_from_response(response)] == ["call_0", "call_1", "call_2"]
    response = await llm.achat_with_tools(TOOLS, user_msg="Add them up.", allow_parallel_tool_calls=False)
    assert [call.tool_id for call in llm.get_tool_calls_from_response(response)] == ["call_0"]


@pytest.mark.parametrize("method", ["stream_chat_with_tools", "astream_chat_with_tools"])
async def test_a_stream_has_one_call_where_no_parallel_ones_are_allowed(
    method: str, make_llm: MakeLLM, emulator: BedrockEmulator
) -> None:
    calls = [ToolCall("add", {"a": n, "b": n}, id=f"call_{n}") for n in range(2)]
    emulator.script(calls, calls)
    llm = make_llm()

    async def streamed(parallel: bool) -> list[list[str]]:
        chunks = await ask(llm, method, TOOLS, user_msg="Add them up.", allow_parallel_tool_calls=parallel)
        return [[call.tool_id for call in llm.get_tool_calls_from_response(chunk, False)] for chunk in chunks]

    assert (await streamed(parallel=True))[-1] == ["call_0", "call_1"]
    one_by_one = await streamed(parallel=False)
    assert one_by_one[-1] == ["call_0"]
    assert max(map(len, one_by_one)) == 1


def test_a_response_without_a_call_is_an_error_only_where_one_is_asked_for(
    make_llm: MakeLLM, emulator: BedrockEmulator
) -> None:
    emulator.script("Five.")
    llm = make_llm()
    response = llm.chat_with_tools(TOOLS, user_msg="What is 2 + 3?")
    assert llm.get_tool_calls_from_response(response, error_on_no_tool_call=False) == []
    with pytest.raises(ValueError, match="tool call"):
        llm.get_tool_calls_from_response(response)


def test_the_callers_history_does_not_grow(make_llm: MakeLLM) -> None:
    history = [ChatMessage(role=MessageRole.SYSTEM, content="Be brief.")]
    make_llm().chat_with_tools(TOOLS, user_msg="What is 2 + 3?", chat_history=history)
    assert len(history) == 1


@pytest.mark.parametrize("method", CHAT_METHODS)
async def test_thinking_and_calls_are_replayed_as_they_came(
    method: str, make_llm: MakeLLM, emulator: BedrockEmulator
) -> None:
    came = (Reasoning("I should add.", "c2lnbmVk"), Text("Adding."), ToolCall("add", {"a": 2, "b": 3}, id="call_1"))
    emulator.script(came)
    llm = make_llm(thinking={"type": "enabled", "budget_tokens": 1024}, max_tokens=2048, temperature=1.0)
    question = ChatMessage(content="What is 2 + 3?")
    response = await answer(llm, f"{method}_with_tools", TOOLS, user_msg=question)
    result = ChatMessage(role=MessageRole.TOOL, content="5", additional_kwargs={"tool_call_id": "call_1"})
    await answer(llm, f"{method}_with_tools", TOOLS, chat_history=[question, response.message, result])
    assert [block for block in sent(emulator)[-1]["messages"][1]["content"] if "cachePoint" not in block] == [
        {"reasoningContent": {"reasoningText": {"text": "I should add.", "signature": "c2lnbmVk"}}},
        {"text": "Adding."},
        {"toolUse": {"toolUseId": "call_1", "name": "add", "input": {"a": 2, "b": 3}}},
    ]


def test_tools_are_called_with_what_the_model_said(make_llm: MakeLLM, emulator: BedrockEmulator) -> None:
    emulator.script(ToolCall("multiply", {"a": 6, "b": 7}))
    assert str(make_llm().predict_and_call(TOOLS, user_msg="What is 6 times 7?")) == "42"


# -- structured prediction ------------------------------------------------------------------------


def test_structured_prediction_gives_the_object(make_llm: MakeLLM, emulator: BedrockEmulator) -> None:
    emulator.script(PARIS_CALL)
    assert make_llm().structured_predict(City, DESCRIBE, city="Paris") == PARIS


async def test_asynchronous_structured_prediction_gives_the_object(
    make_llm: MakeLLM, emulator: BedrockEmulator
) -> None:
    emulator.script(PARIS_CALL)
    assert await make_llm().astructured_predict(City, DESCRIBE, city="Paris") == PARIS


def test_streamed_structured_prediction_ends_with_the_object(make_llm: MakeLLM, emulator: BedrockEmulator) -> None:
    emulator.script(PARIS_CALL)
    assert list(make_llm().stream_structured_predict(City, DESCRIBE, city="Paris"))[-1] == PARIS


async def test_asynchronously_streamed_structured_prediction_ends_with_the_object(
    make_llm: MakeLLM, emulator: BedrockEmulator
) -> None:
    emulator.script(PARIS_CALL)
    stream = await make_llm().astream_structured_predict(City, DESCRIBE, city="Paris")
    assert [each async for each in stream][-1] == PARIS


async def test_synchronous_and_asynchronous_structured_prediction_share_one_prefix(
    make_llm: MakeLLM, emulator: BedrockEmulator
) -> None:
    llm = make_llm(system_prompt="You are a geographer.")
    llm.structured_predict(City, DESCRIBE, city="Paris")
    await llm.astructured_predict(City, DESCRIBE, city="Paris")
    first, second = (without_points(request) for request in sent(emulator))
    assert first == second


def test_a_structured_llm_answers_with_the_object(make_llm: MakeLLM, emulator: BedrockEmulator) -> None:
    emulator.script(PARIS_CALL, PARIS_CALL, PARIS_CALL)
    llm = make_llm().as_structured_llm(City)
    question = [ChatMessage(content="Describe Paris.")]
    assert llm.chat(question).raw == PARIS
    assert llm.complete("Describe Paris.").raw == PARIS
    *_, last = llm.stream_chat(question)
    assert last.raw == PARIS


async def test_a_structured_llm_answers_asynchronously(make_llm: MakeLLM, emulator: BedrockEmulator) -> None:
    emulator.script(PARIS_CALL, PARIS_CALL)
    llm = make_llm().as_structured_llm(City)
    assert (await llm.achat([ChatMessage(content="Describe Paris.")])).raw == PARIS
    assert (await llm.acomplete("Describe Paris.")).raw == PARIS


async def test_a_structured_llm_streams_asynchronously(make_llm: MakeLLM, emulator: BedrockEmulator) -> None:
    emulator.script(PARIS_CALL)
    assert (await answer(make_llm().as_structured_llm(City), "astream_chat", "Describe Paris.")).raw == PARIS


def test_the_model_named_in_a_call_is_the_one_called(make_llm: MakeLLM, emulator: BedrockEmulator) -> None:
    make_llm().chat([ChatMessage(content="Hello")], model=MODEL.replace("us.", "eu."))
    assert emulator.requests[-1].model_id == MODEL.replace("us.", "eu.")
