"""What users mark with `cache_control`, wherever LangChain lets them write it, is checkpointed with its TTL.

Marks are shown as they are sent: in mode "explicit" nothing else places a checkpoint.
"""

from __future__ import annotations

import base64
import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import BaseTool, tool
from langchain_kit import EPHEMERAL, EPHEMERAL_1H, LONG, POINT, POINT_1H, Json, MakeModel, sent

from cachepoint.emulator import BedrockEmulator
from cachepoint.langchain import CacheAwareChatBedrockConverse
from cachepoint.langchain._request.cache_control import mark_messages, mark_system, mark_tools

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
PDF = base64.b64encode(b"%PDF-1.4 " + LONG.encode()).decode()


@pytest.fixture
def model(make_model: MakeModel) -> CacheAwareChatBedrockConverse:
    return make_model(prompt_cache={"mode": "explicit"})


@tool
def look_up(word: str) -> str:
    """Look a word up."""
    return word


def last_content(emulator: BedrockEmulator) -> list[Json]:
    content: list[Json] = sent(emulator)[-1]["messages"][-1]["content"]
    return content


@pytest.mark.parametrize(
    "block",
    [
        {"type": "text", "text": LONG, "cache_control": EPHEMERAL_1H},
        {"type": "text", "text": LONG, "extras": {"cache_control": EPHEMERAL_1H}},
        {"text": LONG, "cache_control": EPHEMERAL_1H},
        {"text": LONG, **POINT_1H},
        {"type": "text", "text": LONG, **POINT_1H},
    ],
    ids=["anthropic", "extras", "converse", "converse point inside", "point inside"],
)
def test_a_marked_text_block(block: Json, model: CacheAwareChatBedrockConverse, emulator: BedrockEmulator) -> None:
    kept = dict(block)

    model.invoke([SystemMessage([block]), HumanMessage([block, {"type": "text", "text": "Why?"}])])

    assert sent(emulator)[-1]["system"] == [{"text": LONG}, POINT_1H]
    assert last_content(emulator) == [{"text": LONG}, POINT_1H, {"text": "Why?"}]
    assert block == kept


def test_a_mark_without_ttl_asks_for_none(model: CacheAwareChatBedrockConverse, emulator: BedrockEmulator) -> None:
    model.invoke([SystemMessage([{"type": "text", "text": LONG, "cache_control": EPHEMERAL}]), HumanMessage("Why?")])

    assert sent(emulator)[-1]["system"] == [{"text": LONG}, POINT]


@pytest.mark.parametrize(
    "block",
    [
        {"type": "image", "base64": PIXEL, "mime_type": "image/png", "cache_control": EPHEMERAL},
        {"type": "image", "base64": PIXEL, "mime_type": "image/png", "extras": {"cache_control": EPHEMERAL}},
        {
            "type": "image",
            "source": {"type": "base64", "media_type": "image/png", "data": PIXEL},
            "cache_control": EPHEMERAL,
        },
        {
            "type": "file",
            "base64": PDF,
            "mime_type": "application/pdf",
            "name": "rules",
            "cache_control": EPHEMERAL,
        },
    ],
    ids=["image", "image by extras", "anthropic image", "document"],
)
def test_a_marked_image_or_document(
    block: Json, model: CacheAwareChatBedrockConverse, emulator: BedrockEmulator
) -> None:
    model.invoke([HumanMessage([{"type": "text", "text": LONG}, block, {"type": "text", "text": "What is it?"}])])

    kinds = [next(iter(part)) for part in last_content(emulator)]
    assert kinds == ["text", "document" if block["type"] == "file" else "image", "cachePoint", "text"]


def test_a_marked_block_made_as_standard_content(
    model: CacheAwareChatBedrockConverse, emulator: BedrockEmulator
) -> None:
    blocks: Any = [{"type": "text", "text": LONG, "extras": {"cache_control": EPHEMERAL}}]

    model.invoke([HumanMessage(content_blocks=blocks)])

    assert last_content(emulator) == [{"text": LONG}, POINT]


def tool_turn(answer: BaseMessage) -> list[BaseMessage]:
    call = {"name": "look_up", "args": {"word": "hit"}, "id": "call-1", "type": "tool_call"}
    return [HumanMessage("Look it up."), AIMessage("", tool_calls=[call]), answer]


def test_a_mark_inside_a_tool_message_goes_behind_its_result(
    model: CacheAwareChatBedrockConverse, emulator: BedrockEmulator
) -> None:
    answer = ToolMessage([{"type": "text", "text": LONG, "cache_control": EPHEMERAL}], tool_call_id="call-1")

    model.bind_tools([look_up]).invoke(tool_turn(answer))

    result, point = last_content(emulator)
    assert result["toolResult"]["content"] == [{"text": LONG}]
    assert point == POINT


@pytest.mark.parametrize("inside", [True, False])
def test_a_marked_tool_result_as_claude_writes_it(
    inside: bool, model: CacheAwareChatBedrockConverse, emulator: BedrockEmulator
) -> None:
    mark = {"cache_control": EPHEMERAL}
    text = {"type": "text", "text": LONG, **(mark if inside else {})}
    result = {"type": "tool_result", "tool_use_id": "call-1", "content": [text], **({} if inside else mark)}

    model.bind_tools([look_up]).invoke(tool_turn(HumanMessage([result])))

    sent_result, point = last_content(emulator)
    assert sent_result["toolResult"]["content"] == [{"text": LONG}]
    assert point == POINT


@pytest.mark.parametrize("version", ["v0", "v1"])
def test_a_mark_on_an_assistant_turn(version: str, make_model: MakeModel, emulator: BedrockEmulator) -> None:
    model = make_model(prompt_cache={"mode": "explicit"}, output_version=version)
    answer = model.invoke(LONG)
    answer.content = [{"type": "text", "text": LONG, "cache_control": EPHEMERAL}]

    model.invoke([HumanMessage("Say it."), answer, HumanMessage("And?")])

    assert sent(emulator)[-1]["messages"][1]["content"] == [{"text": LONG}, POINT]


SCHEMA = {"type": "object", "properties": {"word": {"type": "string"}}}


def marked_tool() -> BaseTool:
    @tool(extras={"cache_control": EPHEMERAL_1H})
    def define(word: str) -> str:
        """Define a word."""
        return word

    return define


@pytest.mark.parametrize(
    "marked",
    [
        {"name": "define", "description": LONG, "input_schema": SCHEMA, "cache_control": EPHEMERAL_1H},
        {
            "type": "function",
            "function": {"name": "define", "description": LONG, "parameters": SCHEMA},
            "cache_control": EPHEMERAL_1H,
        },
        {
            "type": "function",
            "function": {"name": "define", "description": LONG, "parameters": SCHEMA, "cache_control": EPHEMERAL_1H},
        },
        {
            "toolSpec": {"name": "define", "description": LONG, "inputSchema": {"json": SCHEMA}},
            "cache_control": EPHEMERAL_1H,
        },
        marked_tool(),
    ],
    ids=["anthropic", "openai", "inside the function", "converse", "extras"],
)
def test_a_marked_tool(marked: Any, model: CacheAwareChatBedrockConverse, emulator: BedrockEmulator) -> None:
    model.bind_tools([marked, look_up]).invoke("Hello")

    first, point, second = sent(emulator)[-1]["toolConfig"]["tools"]
    assert first["toolSpec"]["name"] == "define"
    assert "cache_control" not in first["toolSpec"]
    assert point == POINT_1H
    assert second["toolSpec"]["name"] == "look_up"


def test_a_marked_tool_given_to_one_call(model: CacheAwareChatBedrockConverse, emulator: BedrockEmulator) -> None:
    model.invoke("Hello", tools=[marked_tool()])

    tool_spec, point = sent(emulator)[-1]["toolConfig"]["tools"]
    assert tool_spec["toolSpec"]["name"] == "define"
    assert point == POINT_1H


def test_the_system_parameter_as_the_parents_own_example_writes_it(
    make_model: MakeModel, emulator: BedrockEmulator
) -> None:
    system = [LONG, {"text": "Be brief.", "cachePoint": {"type": "default"}}]
    model = make_model(prompt_cache={"mode": "explicit"}, system=system)

    model.invoke("Hello")

    assert sent(emulator)[-1]["system"] == [{"text": LONG}, {"text": "Be brief."}, POINT]
    assert model.system == [LONG, {"text": "Be brief.", "cachePoint": {"type": "default"}}]


def test_the_system_parameter_as_claude_writes_it(make_model: MakeModel, emulator: BedrockEmulator) -> None:
    system = [{"type": "text", "text": LONG, "cache_control": EPHEMERAL}, {"type": "text", "text": "Be brief."}]

    make_model(prompt_cache={"mode": "explicit"}, system=system).invoke("Hello")

    assert sent(emulator)[-1]["system"] == [{"text": LONG}, POINT, {"text": "Be brief."}]


def test_raw_blocks_are_sent_and_stay_as_they_are(make_model: MakeModel, emulator: BedrockEmulator) -> None:
    """The parent leaves its checkpoints in them (langchain-aws 1.9.1)."""
    raw = [{"role": "user", "content": [{"text": LONG}, {"text": "Why?"}]}]
    model = make_model(raw_blocks=raw)

    for _ in range(2):
        model.invoke("ignored", cache_control=EPHEMERAL)

    assert model.raw_blocks == [{"role": "user", "content": [{"text": LONG}, {"text": "Why?"}]}]
    assert len(emulator.requests) == 2


NAMES = ("type", "text", "extras", "cache_control", "cachePoint", "content", "source", "function", "ttl")
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["text", "tool_result", "1h", LONG[:20]]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=12,
)


@given(st.lists(st.text(max_size=3) | st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=5), max_size=4))
def test_whatever_a_block_holds_it_is_read_without_harm(content: list[Any]) -> None:
    """What the service or the parent make of such a block is theirs to say."""
    kept = copy.deepcopy(content)

    for kind in (HumanMessage, AIMessage, SystemMessage):
        mark_messages([kind(content)])
    mark_system(content)
    mark_tools(content)

    assert content == kept
