"""Checkpoints and what else decides the prefix: system parts, late system messages, options meant for others."""

from __future__ import annotations

from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatMessage, MessageRole, TextBlock, ToolCallBlock
from llama_index.core.extractors import DocumentContextExtractor
from llama_index.core.schema import Document, NodeRelationship, TextNode
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.tools import FunctionTool
from llama_index_kit import LONG, MakeLLM, cache_point, sent

from cachepoint.emulator import BedrockEmulator

# That a point was left out is worth a warning, not a failure.
pytestmark = pytest.mark.filterwarnings("ignore::cachepoint.errors.CachepointWarning")

LLAMA = "us.meta.llama3-3-70b-instruct-v1:0"
QUESTION = ChatMessage(content="What does it say?")


def look_up(word: str) -> str:
    """Look a word up."""
    return f"{word} is a word."


def points(blocks: list[dict[str, Any]]) -> list[tuple[int, str]]:
    """Where checkpoints are, and with which TTL."""
    return [
        (index, block["cachePoint"].get("ttl", "5m")) for index, block in enumerate(blocks) if "cachePoint" in block
    ]


@pytest.mark.parametrize("ttl", ["5m", "1h"])
@pytest.mark.parametrize("role", [MessageRole.SYSTEM, MessageRole.USER, MessageRole.ASSISTANT])
def test_a_cache_point_is_sent_where_it_stands_with_its_ttl(
    role: MessageRole, ttl: str, make_llm: MakeLLM, emulator: BedrockEmulator
) -> None:
    marked = ChatMessage(role=role, blocks=[TextBlock(text=LONG), cache_point(ttl), TextBlock(text="The end.")])
    first = [QUESTION] if role is MessageRole.ASSISTANT else []
    make_llm().chat([*first, marked, QUESTION])
    request = sent(emulator)[-1]
    content = request["system"] if role is MessageRole.SYSTEM else request["messages"][len(first)]["content"]
    assert (1, ttl) in points(content)


def test_a_cache_point_in_a_tools_result_is_sent_behind_it(make_llm: MakeLLM, emulator: BedrockEmulator) -> None:
    call = ToolCallBlock(tool_call_id="call_1", tool_name="look_up", tool_kwargs={"word": "tea"})
    result = ChatMessage(
        role=MessageRole.TOOL,
        blocks=[TextBlock(text=LONG), cache_point("1h")],
        additional_kwargs={"tool_call_id": "call_1"},
    )
    history = [QUESTION, ChatMessage(role=MessageRole.ASSISTANT, blocks=[call]), result]
    make_llm().chat_with_tools([FunctionTool.from_defaults(look_up)], chat_history=history)
    content = sent(emulator)[-1]["messages"][-1]["content"]
    assert "toolResult" in content[0]
    assert points(content) == [(1, "1h")]


def test_a_cache_point_of_another_providers_type_is_not_rewritten(make_llm: MakeLLM, emulator: BedrockEmulator) -> None:
    mark = cache_point(kind="ephemeral")
    make_llm().chat([ChatMessage(blocks=[TextBlock(text=LONG), mark, *QUESTION.blocks])])
    assert mark.cache_control.type == "ephemeral"
    assert points(sent(emulator)[-1]["messages"][0]["content"])[0] == (1, "5m")


def test_cache_control_on_a_message_is_a_checkpoint_behind_it(make_llm: MakeLLM, emulator: BedrockEmulator) -> None:
    control = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
    make_llm().chat([ChatMessage(content=LONG, additional_kwargs=control), QUESTION])
    assert (1, "1h") in points(sent(emulator)[-1]["messages"][0]["content"])


async def test_the_contextual_retrieval_extractor_works(make_llm: MakeLLM, emulator: BedrockEmulator) -> None:
    document = Document(text=LONG, doc_id="manual")
    store = SimpleDocumentStore()
    store.add_documents([document])
    chunks = [
        TextNode(text=text, relationships={NodeRelationship.SOURCE: document.as_related_node_info()})
        for text in ("a chunk", "another chunk")
    ]
    extractor = DocumentContextExtractor(
        docstore=store, llm=make_llm(), max_context_length=100_000, num_workers=1, show_progress=False
    )
    found = await extractor.aextract(chunks)
    assert all(each.get("context") for each in found)
    assert emulator.bill().usage.cache_read > 1_000


def test_system_messages_stay_blocks_of_their_own(make_llm: MakeLLM, emulator: BedrockEmulator) -> None:
    static = ChatMessage(role=MessageRole.SYSTEM, content="You are a librarian.\n")
    volatile = ChatMessage(role=MessageRole.SYSTEM, content="It is Monday.")
    make_llm().chat([static, volatile, QUESTION])
    texts = [block["text"] for block in sent(emulator)[-1]["system"] if "text" in block]
    assert texts == ["You are a librarian.\n", "It is Monday."]


@pytest.mark.parametrize("model", ["us.anthropic.claude-sonnet-4-5-20250929-v1:0", "us.anthropic.claude-fable-5-2"])
def test_a_late_system_message_leaves_the_prefix_alone(
    model: str, make_llm: MakeLLM, emulator: BedrockEmulator
) -> None:
    llm = make_llm(model=model)
    chat = [ChatMessage(role=MessageRole.SYSTEM, content="Be brief."), QUESTION]
    llm.chat(chat)
    late = ChatMessage(role=MessageRole.SYSTEM, content="Answer without tools now.")
    llm.chat([*chat, ChatMessage(role=MessageRole.ASSISTANT, content="It says much."), QUESTION, late])
    first, second = sent(emulator)
    assert [block for block in second["system"] if "text" in block] == [
        block for block in first["system"] if "text" in block
    ]
    assert "Answer without tools now." in str(second["messages"][-1])


def test_more_points_than_the_service_takes_are_reduced(make_llm: MakeLLM, emulator: BedrockEmulator) -> None:
    blocks = [block for _ in range(6) for block in (TextBlock(text=LONG), cache_point())]
    make_llm().chat([ChatMessage(blocks=[*blocks, *QUESTION.blocks])])
    assert emulator.requests[-1].status == 200
    assert 1 <= emulator.requests[-1].points <= 4


def test_a_cache_point_with_nothing_before_it_does_no_harm(make_llm: MakeLLM, emulator: BedrockEmulator) -> None:
    make_llm().chat([ChatMessage(blocks=[cache_point(), *QUESTION.blocks])])
    assert emulator.requests[-1].status == 200


@pytest.mark.parametrize("role", [MessageRole.SYSTEM, MessageRole.USER])
def test_a_cache_point_for_a_model_without_caching_does_no_harm(
    role: MessageRole, make_llm: MakeLLM, emulator: BedrockEmulator
) -> None:
    marked = ChatMessage(role=role, blocks=[TextBlock(text=LONG), cache_point()])
    make_llm(model=LLAMA).chat([marked, QUESTION])
    assert emulator.requests[-1].status == 200
    assert emulator.requests[-1].points == 0


def test_a_tool_point_for_a_model_that_refuses_it_does_no_harm(make_llm: MakeLLM, emulator: BedrockEmulator) -> None:
    llm = make_llm(model="us.amazon.nova-pro-v1:0", tool_caching=True)
    llm.chat_with_tools([FunctionTool.from_defaults(look_up)], user_msg=LONG, tool_caching=True)
    assert emulator.requests[-1].status == 200
