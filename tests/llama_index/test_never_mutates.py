"""A call leaves what the caller passed as it was: messages, blocks, what is in them, lists of messages and of tools."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from botocore.exceptions import ClientError
from hypothesis import given, settings
from hypothesis import strategies as st
from llama_index.core.base.llms.types import (
    CacheControl,
    CachePoint,
    ChatMessage,
    CitableBlock,
    ContentBlock,
    DocumentBlock,
    ImageBlock,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)
from llama_index.core.tools import FunctionTool
from llama_index_kit import CHAT_METHODS, CONNECTION, LONG, MODEL, answer

from cachepoint.emulator import BedrockEmulator
from cachepoint.errors import ConfigurationError
from cachepoint.llama_index import CacheAwareBedrockConverse


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def multiply(a: int, b: int) -> int:
    """Multiply two numbers."""
    return a * b


TEXTS = st.sampled_from(["", " ", "Hello.", "What is {it}?", LONG])
TEXT = st.builds(TextBlock, text=TEXTS)
IMAGE = st.just(ImageBlock(image=b"\x89PNG\r\n\x1a\n", image_mimetype="image/png"))
DOCUMENT = st.builds(
    DocumentBlock,
    data=st.just(b"Tea is a drink."),
    title=st.sampled_from(["Tea", "tea_1: final.txt"]),
    document_mimetype=st.sampled_from(["text/plain", "application/pdf"]),
)
CITABLE = st.builds(
    CitableBlock, title=st.just("Tea"), source=st.just("tea.txt"), content=st.lists(TEXT | IMAGE | DOCUMENT, max_size=3)
)
POINT = st.builds(
    CachePoint,
    cache_control=st.builds(
        CacheControl, type=st.sampled_from(["default", "ephemeral"]), ttl=st.sampled_from(["5m", "1h"])
    ),
)
THINKING = st.builds(
    ThinkingBlock,
    content=st.none() | TEXTS,
    additional_information=st.sampled_from([{"signature": "c2lnbmVk"}, {"redacted_content": "AQI="}, {}]),
)
ARGUMENTS: st.SearchStrategy[str | dict[str, Any]] = st.sampled_from(['{"a": 2', '{"a": 2, "b": 3}']) | st.builds(
    dict, a=st.just({"nested": [1, 2]})
)
CALL = st.builds(
    ToolCallBlock, tool_call_id=st.sampled_from(["call_1", "call_2"]), tool_name=st.just("add"), tool_kwargs=ARGUMENTS
)
MARKED = st.sampled_from([{}, {"cache_control": {"type": "ephemeral", "ttl": "1h"}}])


def message(role: MessageRole, blocks: st.SearchStrategy[Any], **extras: Any) -> st.SearchStrategy[ChatMessage]:
    return st.builds(
        lambda content, marks: ChatMessage(
            role=role, blocks=content, additional_kwargs={**copy.deepcopy(extras), **marks}
        ),
        st.lists(blocks, min_size=1, max_size=4),
        MARKED,
    )


OTHERS_CALL = {"id": "call_2", "function": {"name": "add", "arguments": '{"a": 2}'}}
MESSAGES = st.lists(
    st.one_of(
        message(MessageRole.SYSTEM, TEXT | POINT),
        message(MessageRole.USER, TEXT | IMAGE | DOCUMENT | CITABLE | POINT),
        message(MessageRole.ASSISTANT, THINKING | TEXT | CALL | POINT, tool_calls=[OTHERS_CALL, "call_1"]),
        message(MessageRole.TOOL, TEXT | IMAGE | DOCUMENT | POINT, tool_call_id="call_1"),
    ),
    min_size=1,
    max_size=6,
)


@pytest.fixture(scope="module")
def llm() -> Iterator[CacheAwareBedrockConverse]:
    with BedrockEmulator() as emulator:
        yield CacheAwareBedrockConverse(
            model=MODEL, endpoint_url=emulator.url, max_retries=0, system_prompt="Be brief.", **CONNECTION
        )


@pytest.mark.filterwarnings("ignore::cachepoint.errors.CachepointWarning")
@pytest.mark.parametrize("method", CHAT_METHODS)
@given(messages=MESSAGES)
@settings(max_examples=25, deadline=None)
def test_any_chat_is_left_as_it_was(method: str, messages: list[ChatMessage], llm: CacheAwareBedrockConverse) -> None:
    tools = [FunctionTool.from_defaults(function) for function in (add, multiply)]
    passed = list(messages), list(tools)
    before = [each.model_dump() for each in messages], [tool.metadata.get_parameters_dict() for tool in tools]
    with suppress(ClientError, ConfigurationError):  # most such chats are none that the service takes
        asyncio.run(answer(llm, f"{method}_with_tools", tools, chat_history=messages))
    assert ([id(each) for each in messages], tools) == ([id(each) for each in passed[0]], passed[1])
    assert ([each.model_dump() for each in messages], [t.metadata.get_parameters_dict() for t in tools]) == before


def test_a_whole_conversation_is_left_as_it_was(llm: CacheAwareBedrockConverse) -> None:
    """One that the service does take, with everything in it."""
    blocks: list[ContentBlock] = [
        ImageBlock(image=b"\x89PNG\r\n\x1a\n", image_mimetype="image/png"),
        DocumentBlock(data=b"%PDF-1.4\n%%EOF\n", title="tea: final", document_mimetype="application/pdf"),
        TextBlock(text=LONG),
        CachePoint(cache_control=CacheControl(type="ephemeral", ttl="1h")),
    ]
    asked = ToolCallBlock(tool_call_id="call_1", tool_name="add", tool_kwargs={"a": 2, "b": 3})
    thought = ThinkingBlock(content="I should add.", additional_information={"signature": "c2lnbmVk"})
    chat = [
        ChatMessage(role=MessageRole.SYSTEM, blocks=[TextBlock(text=LONG)]),
        ChatMessage(blocks=blocks),
        ChatMessage(role=MessageRole.ASSISTANT, blocks=[thought, asked], additional_kwargs={"tool_calls": ["call_1"]}),
        ChatMessage(role=MessageRole.TOOL, content="5", additional_kwargs={"tool_call_id": "call_1"}),
    ]
    before = [each.model_dump() for each in chat]
    for method in CHAT_METHODS:
        asyncio.run(answer(llm, f"{method}_with_tools", [FunctionTool.from_defaults(add)], chat_history=chat))
    assert [each.model_dump() for each in chat] == before
