"""A tool call that broke off is never run with what had come of its arguments; whoever asked is told."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from llama_index.core.agent.workflow import AgentWorkflow, FunctionAgent
from llama_index.core.base.llms.types import ChatMessage, ToolCallBlock
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from llama_index_kit import CHAT_METHODS, CONNECTION, LONG, MODEL, answer, sent
from pydantic import BaseModel

from cachepoint.emulator import BedrockEmulator, Reply, Text, ToolCall
from cachepoint.errors import InvalidToolCall
from cachepoint.llama_index import CacheAwareBedrockConverse
from cachepoint.llama_index._request.responses import StreamedResponse

written: list[Any] = []


def write_file(path: str, content: str = "") -> str:
    """Write a file."""
    written.append((path, content))
    return "written"


class File(BaseModel):
    """A file."""

    path: str
    content: str = ""


TOOL = FunctionTool.from_defaults(write_file)
ARGUMENTS = {"path": "a.txt", "content": LONG}
ASK = "Write the file."
TOOLS = {"tools": [{"toolSpec": {"name": "write_file", "inputSchema": {"json": {"type": "object"}}}}]}
PROMPT = PromptTemplate("Write {it}.")


@pytest.fixture
def a_call_that_is_cut(emulator: BedrockEmulator) -> None:
    # About 1,600 tokens of arguments; `max_tokens` is 512.
    emulator.script(ToolCall("write_file", ARGUMENTS))


@pytest.fixture
def llm(emulator: BedrockEmulator) -> CacheAwareBedrockConverse:
    written.clear()
    return CacheAwareBedrockConverse(model=MODEL, endpoint_url=emulator.url, max_retries=0, **CONNECTION)


async def in_agent(llm: CacheAwareBedrockConverse) -> Any:
    return await FunctionAgent(tools=[TOOL], llm=llm).run(ASK)


async def in_agent_without_stream(llm: CacheAwareBedrockConverse) -> Any:
    return await FunctionAgent(tools=[TOOL], llm=llm, streaming=False).run(ASK)


async def in_workflow(llm: CacheAwareBedrockConverse) -> Any:
    return await AgentWorkflow.from_tools_or_functions([write_file], llm=llm).run(ASK)


async def predicting_and_calling(llm: CacheAwareBedrockConverse) -> Any:
    return llm.predict_and_call([TOOL], ASK)


async def predicting_and_calling_asynchronously(llm: CacheAwareBedrockConverse) -> Any:
    return await llm.apredict_and_call([TOOL], ASK, allow_parallel_tool_calls=True)


@pytest.mark.usefixtures("a_call_that_is_cut")
@pytest.mark.parametrize(
    "run",
    [in_agent, in_agent_without_stream, in_workflow, predicting_and_calling, predicting_and_calling_asynchronously],
)
async def test_a_call_cut_off_by_max_tokens_is_an_error_and_not_run(
    run: Callable[[CacheAwareBedrockConverse], Awaitable[Any]], llm: CacheAwareBedrockConverse
) -> None:
    with pytest.raises(InvalidToolCall, match=r"'write_file' is not whole \(stop reason: max_tokens\)"):
        await run(llm)
    assert written == []


async def structured(llm: CacheAwareBedrockConverse) -> Any:
    return await llm.astructured_predict(File, PROMPT, it="it")


async def structured_in_a_stream(llm: CacheAwareBedrockConverse) -> Any:
    return list(llm.stream_structured_predict(File, PROMPT, it="it"))


async def structured_in_an_asynchronous_stream(llm: CacheAwareBedrockConverse) -> Any:
    return [each async for each in await llm.astream_structured_predict(File, PROMPT, it="it")]


@pytest.mark.usefixtures("a_call_that_is_cut")
@pytest.mark.parametrize("run", [structured, structured_in_a_stream, structured_in_an_asynchronous_stream])
async def test_half_an_object_is_an_error(
    run: Callable[[CacheAwareBedrockConverse], Awaitable[Any]], llm: CacheAwareBedrockConverse
) -> None:
    with pytest.raises(InvalidToolCall, match="max_tokens"):
        await run(llm)


@pytest.mark.parametrize("method", CHAT_METHODS)
async def test_a_cut_call_stands_beside_the_whole_ones_and_is_not_sent_again(
    method: str, llm: CacheAwareBedrockConverse, emulator: BedrockEmulator
) -> None:
    emulator.script((Text("Two."), ToolCall("write_file", {"path": "b.txt"}, "t1"), ToolCall("write_file", ARGUMENTS)))
    response = await answer(llm, method, [ChatMessage(content=ASK)], tools=TOOLS)
    assert [block.tool_call_id for block in calls(response.message)] == ["t1"]
    (cut,) = response.message.additional_kwargs["invalid_tool_calls"]
    assert (cut["name"], cut["id"] == "t1") == ("write_file", False)

    done = ChatMessage(role="tool", content="written", additional_kwargs={"tool_call_id": "t1"})
    assert (await answer(llm, method, [ChatMessage(content=ASK), response.message, done])).message.content
    replayed = sent(emulator)[-1]["messages"][1]["content"]
    assert [block["toolUse"]["toolUseId"] for block in replayed if "toolUse" in block] == ["t1"]


@pytest.mark.parametrize("method", CHAT_METHODS)
async def test_a_session_goes_on_after_a_call_that_was_cut(
    method: str, llm: CacheAwareBedrockConverse, emulator: BedrockEmulator
) -> None:
    emulator.script(ToolCall("write_file", ARGUMENTS))
    cut = await answer(llm, method, [ChatMessage(content=ASK)], tools=TOOLS)
    assert cut.message.additional_kwargs["invalid_tool_calls"][0]["args"].startswith('{"path": "a.txt"')
    assert (await answer(llm, method, [ChatMessage(content=ASK), cut.message, ChatMessage(content="Shorter!")])).message


def test_where_one_call_is_wanted_a_second_that_was_cut_does_not_matter(
    llm: CacheAwareBedrockConverse, emulator: BedrockEmulator
) -> None:
    emulator.script((ToolCall("write_file", {"path": "b.txt"}), ToolCall("write_file", ARGUMENTS)))
    assert llm.predict_and_call([TOOL], ASK).response == "written"
    assert written == [("b.txt", "")]


@pytest.mark.parametrize("stop", ["model_context_window_exceeded", "stop_sequence", "guardrail_intervened", "tool_use"])
@pytest.mark.parametrize("cut", [0, 8, 16])
def test_a_streamed_call_that_is_no_whole_json_is_invalid_whatever_the_reason(
    stop: str, cut: int, llm: CacheAwareBedrockConverse, emulator: BedrockEmulator
) -> None:
    emulator.script(Reply((ToolCall("write_file", {"path": "a.txt"}, "t1", cut=cut),), stop))
    (*_, last) = llm.stream_chat_with_tools([TOOL], ASK)
    if stop == "tool_use" and not cut:  # a tool without parameters is called so
        assert llm.get_tool_calls_from_response(last)[0].tool_kwargs == {}
    else:
        with pytest.raises(InvalidToolCall, match=stop):
            llm.get_tool_calls_from_response(last, error_on_no_tool_call=False)


def test_a_streamed_call_that_opens_brackets_without_end_is_invalid() -> None:
    """Too deep for Python's JSON, which raises no ValueError then."""
    call = {"toolUse": {"toolUseId": "t1", "name": "write_file"}}
    stream = StreamedResponse()
    stream.add({"contentBlockStart": {"start": call, "contentBlockIndex": 0}})
    stream.add({"contentBlockDelta": {"delta": {"toolUse": {"input": "[" * 100_000}}, "contentBlockIndex": 0}})
    stream.add({"messageStop": {"stopReason": "max_tokens"}})
    last = stream.add({"metadata": {"usage": {}}})
    assert last is not None
    assert [each["name"] for each in last.message.additional_kwargs["invalid_tool_calls"]] == ["write_file"]


def test_a_streamed_call_whose_arguments_have_all_come_is_whole(
    llm: CacheAwareBedrockConverse, emulator: BedrockEmulator
) -> None:
    emulator.script(Reply((ToolCall("write_file", {"path": "a.txt"}),), "max_tokens"))
    (*_, last) = llm.stream_chat_with_tools([TOOL], ASK)
    assert llm.get_tool_calls_from_response(last)[0].tool_kwargs == {"path": "a.txt"}


def calls(message: ChatMessage) -> list[ToolCallBlock]:
    return [block for block in message.blocks if isinstance(block, ToolCallBlock)]
