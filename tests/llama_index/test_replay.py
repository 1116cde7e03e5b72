"""What a conversation holds, also what another LLM class put there, is sent again in a way the service takes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from llama_index.core.base.llms.types import (
    ChatMessage,
    ContentBlock,
    ImageBlock,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)
from llama_index.core.llms.llm import ToolSelection
from llama_index_kit import CHAT_METHODS, CONNECTION, LONG, MODEL, answer, cache_point, sent, without_points

from cachepoint import CachePolicy
from cachepoint.emulator import BedrockEmulator, Reasoning, Text
from cachepoint.errors import CachepointWarning
from cachepoint.llama_index import CacheAwareBedrockConverse
from cachepoint.llama_index._documents.templates import ContextBlock

QUESTION = ChatMessage(content="What is 2 + 3?")
ADD_2_3 = {"toolUse": {"toolUseId": "call_1", "name": "add", "input": {"a": 2, "b": 3}}}
BLANKS = ["", " ", "\n", " \t\n"]


@pytest.fixture
def llm(emulator: BedrockEmulator) -> CacheAwareBedrockConverse:
    return CacheAwareBedrockConverse(model=MODEL, endpoint_url=emulator.url, max_retries=0, **CONNECTION)


def assistant(*blocks: ContentBlock, **extras: Any) -> ChatMessage:
    return ChatMessage(role=MessageRole.ASSISTANT, blocks=list(blocks), additional_kwargs=extras)


def result(*blocks: ContentBlock, call: str = "call_1") -> ChatMessage:
    return ChatMessage(role=MessageRole.TOOL, blocks=list(blocks), additional_kwargs={"tool_call_id": call})


def replayed(emulator: BedrockEmulator, turn: int) -> list[dict[str, Any]]:
    content: list[dict[str, Any]] = without_points(sent(emulator)[-1])["messages"][turn]["content"]
    return content


# -- tool calls ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ('{"a": 2, "b": 3}', {"a": 2, "b": 3}),
        ('{"a": 2', {"a": 2}),
        ('{"a": 2, "b', {"a": 2}),
        ("", {}),
        ("none", {}),
        ("[1]", {}),
    ],
)
def test_arguments_are_replayed_as_far_as_they_can_be_read(
    arguments: str, expected: dict[str, int], llm: CacheAwareBedrockConverse, emulator: BedrockEmulator
) -> None:
    call = ToolCallBlock(tool_call_id="call_1", tool_name="add", tool_kwargs=arguments)
    llm.chat([QUESTION, assistant(call), result(TextBlock(text="5"))])
    assert replayed(emulator, 1)[0]["toolUse"]["input"] == expected


@pytest.mark.parametrize(
    "call",
    [
        {"toolUseId": "call_1", "name": "add", "input": {"a": 2, "b": 3}},
        {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"a": 2, "b": 3}'}},
        {"id": "fc_1", "call_id": "call_1", "type": "function_call", "name": "add", "arguments": '{"a": 2, "b": 3}'},
        {"id": "call_1", "type": "tool_use", "name": "add", "input": {"a": 2, "b": 3}},
        ToolSelection(tool_id="call_1", tool_name="add", tool_kwargs={"a": 2, "b": 3}),
        ToolCallBlock(tool_call_id="call_1", tool_name="add", tool_kwargs='{"a": 2, "b": 3}'),
    ],
    ids=["Bedrock", "OpenAI chat", "OpenAI responses", "Anthropic", "ToolSelection", "ToolCallBlock"],
)
def test_a_call_beside_the_blocks_is_replayed_once(
    call: Any, llm: CacheAwareBedrockConverse, emulator: BedrockEmulator
) -> None:
    text, block = (
        TextBlock(text="Adding."),
        ToolCallBlock(tool_call_id="call_1", tool_name="add", tool_kwargs={"a": 2, "b": 3}),
    )
    for asked in (assistant(text, tool_calls=[call]), assistant(text, block, tool_calls=[call])):
        llm.chat([QUESTION, asked, result(TextBlock(text="5"))])
        assert replayed(emulator, 1) == [{"text": "Adding."}, ADD_2_3]


def test_the_ids_that_a_streamed_message_lists_are_no_calls(
    llm: CacheAwareBedrockConverse, emulator: BedrockEmulator
) -> None:
    llm.chat([QUESTION, assistant(TextBlock(text="Adding."), tool_calls=["call_1"]), QUESTION])
    assert replayed(emulator, 1) == [{"text": "Adding."}]


@pytest.mark.parametrize("call", [{"add": {"a": 2}}, {"id": "call_1"}, {"id": 1, "name": "add"}, 5])
def test_a_call_of_unknown_shape_is_left_out_with_a_warning(
    call: Any, llm: CacheAwareBedrockConverse, emulator: BedrockEmulator
) -> None:
    with pytest.warns(CachepointWarning, match="make it a ToolCallBlock"):
        llm.chat([QUESTION, assistant(TextBlock(text="Adding."), tool_calls=[call]), QUESTION])
    assert replayed(emulator, 1) == [{"text": "Adding."}]


# -- thinking --------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", CHAT_METHODS)
async def test_thinking_without_tools_is_replayed_with_its_signature(
    method: str, llm: CacheAwareBedrockConverse, emulator: BedrockEmulator
) -> None:
    emulator.script((Reasoning("Two and three make five.", "c2lnbmVk"), Text("Five.")))
    first = await answer(llm, method, [QUESTION])
    await answer(llm, method, [QUESTION, first.message, ChatMessage(content="Sure?")])
    assert replayed(emulator, 1) == [
        {"reasoningContent": {"reasoningText": {"text": "Two and three make five.", "signature": "c2lnbmVk"}}},
        {"text": "Five."},
    ]


def test_no_checkpoint_goes_behind_thinking(llm: CacheAwareBedrockConverse, emulator: BedrockEmulator) -> None:
    thinking = ThinkingBlock(content=LONG, additional_information={"signature": "c2lnbmVk"})
    chat = [QUESTION, assistant(thinking, cache_point(), TextBlock(text="Five.")), QUESTION]
    with pytest.warns(CachepointWarning, match="reasoning"):
        llm.model_copy(update={"prompt_cache": CachePolicy(mode="explicit")}).chat(chat)
    kinds = [next(iter(block)) for block in sent(emulator)[-1]["messages"][1]["content"]]
    assert "reasoningContent, cachePoint" not in ", ".join(kinds)


# -- white space -----------------------------------------------------------------------------------


@pytest.mark.parametrize("blank", BLANKS, ids=json.dumps)
def test_blank_text_is_never_sent(blank: str, llm: CacheAwareBedrockConverse, emulator: BedrockEmulator) -> None:
    nothing, call = TextBlock(text=blank), ToolCallBlock(tool_call_id="call_1", tool_name="add", tool_kwargs={})
    system = ChatMessage(role=MessageRole.SYSTEM, blocks=[nothing, TextBlock(text="Be brief."), nothing])
    llm.system_prompt = blank
    llm.chat(
        [
            system,
            ChatMessage(blocks=[nothing, TextBlock(text=" What is it?\n"), nothing]),
            assistant(nothing, call),
            result(nothing),
            assistant(nothing),
            ChatMessage(role=MessageRole.SYSTEM, blocks=[nothing]),
            ChatMessage(blocks=[TextBlock(text="Go on."), nothing]),
        ]
    )
    request = without_points(sent(emulator)[-1])
    assert request["system"] == [{"text": "Be brief."}]
    asked, called, answered = (message["content"] for message in request["messages"])
    assert asked == [{"text": " What is it?\n"}]
    assert [next(iter(block)) for block in called] == ["toolUse"]
    assert answered == [
        {"toolResult": {"toolUseId": "call_1", "content": [{"text": "(no output)"}]}},
        {"text": "Go on."},
    ]


def test_blank_text_beside_an_image_in_a_tools_result_is_left_out(
    llm: CacheAwareBedrockConverse, emulator: BedrockEmulator
) -> None:
    call = ToolCallBlock(tool_call_id="call_1", tool_name="draw", tool_kwargs={})
    drawn = result(TextBlock(text=" "), ImageBlock(image=b"\x89PNG\r\n\x1a\n", image_mimetype="image/png"))
    llm.chat([QUESTION, assistant(call), drawn])
    assert [next(iter(block)) for block in replayed(emulator, 2)[0]["toolResult"]["content"]] == ["image"]


def test_the_end_of_a_context_is_found_behind_blank_text(
    llm: CacheAwareBedrockConverse, emulator: BedrockEmulator
) -> None:
    for question in ("What is it?", "Who wrote it?", "And when?"):
        llm.chat([ChatMessage(blocks=[ContextBlock(text="\n"), ContextBlock(text=LONG), TextBlock(text=question)])])
    content = sent(emulator)[-1]["messages"][0]["content"]
    assert [next(iter(block)) for block in content] == ["text", "cachePoint", "text"]
    assert llm.ledger.records[-1].status == "hit"
