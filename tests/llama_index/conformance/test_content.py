"""What can be in a message besides text: images, documents, sources to cite, guardrails around it."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from llama_index.core.base.llms.types import (
    ChatMessage,
    CitableBlock,
    DocumentBlock,
    ImageBlock,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)
from llama_index.core.tools import FunctionTool
from llama_index_kit import CHAT_METHODS, MakeLLM, answer, sent

from cachepoint.emulator import BedrockEmulator

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
PDF = b"%PDF-1.4\n%%EOF\n"


def content_sent(make_llm: MakeLLM, emulator: BedrockEmulator, *blocks: Any) -> list[dict[str, Any]]:
    make_llm().chat([ChatMessage(blocks=[*blocks, TextBlock(text="What is this?")])])
    content: list[dict[str, Any]] = sent(emulator)[-1]["messages"][0]["content"]
    return content


def test_an_image_is_sent_as_it_is(make_llm: MakeLLM, emulator: BedrockEmulator) -> None:
    image = content_sent(make_llm, emulator, ImageBlock(image=PIXEL))[0]["image"]
    assert image["format"] == "png"
    assert base64.b64decode(image["source"]["bytes"]) == PIXEL


def test_a_document_is_sent_as_it_is(make_llm: MakeLLM, emulator: BedrockEmulator) -> None:
    block = DocumentBlock(data=PDF, title="Report", document_mimetype="application/pdf")
    document = content_sent(make_llm, emulator, block)[0]["document"]
    assert (document["format"], document["name"]) == ("pdf", "Report")
    assert base64.b64decode(document["source"]["bytes"]) == PDF


def test_a_documents_title_is_made_a_name_the_service_takes(make_llm: MakeLLM, emulator: BedrockEmulator) -> None:
    block = DocumentBlock(data=PDF, title="q3 report: final.pdf", document_mimetype="application/pdf")
    assert content_sent(make_llm, emulator, block)[0]["document"]["name"] == "q3 report final pdf"


def test_documents_of_one_title_get_different_names(make_llm: MakeLLM, emulator: BedrockEmulator) -> None:
    twice = [DocumentBlock(data=PDF, title="Report", document_mimetype="application/pdf") for _ in range(2)]
    content = content_sent(make_llm, emulator, *twice)
    names = [block["document"]["name"] for block in content if "document" in block]
    assert len(set(names)) == 2


def test_a_citable_source_is_sent_as_a_search_result(make_llm: MakeLLM, emulator: BedrockEmulator) -> None:
    source = CitableBlock(title="Tea", source="tea.txt", content=[TextBlock(text="Tea is a drink.")])
    result = content_sent(make_llm, emulator, source)[0]["searchResult"]
    assert (result["title"], result["source"]) == ("Tea", "tea.txt")
    assert result["content"] == [{"text": "Tea is a drink."}]
    assert result["citations"] == {"enabled": True}


def test_redacted_thinking_survives_its_replay(make_llm: MakeLLM, emulator: BedrockEmulator) -> None:
    llm = make_llm()
    redacted = ThinkingBlock(additional_information={"redacted_content": base64.b64encode(b"\x01\x02").decode()})
    history = [
        ChatMessage(content="Hello"),
        ChatMessage(role=MessageRole.ASSISTANT, blocks=[redacted, TextBlock(text="Hello.")]),
        ChatMessage(content="Again."),
    ]
    llm.chat(history)
    replayed = sent(emulator)[-1]["messages"][1]["content"][0]
    assert replayed == {"reasoningContent": {"redactedContent": base64.b64encode(b"\x01\x02").decode()}}


def test_an_image_in_a_tools_result_is_sent(make_llm: MakeLLM, emulator: BedrockEmulator) -> None:
    def draw() -> str:
        """Draw."""
        return ""

    call = ToolCallBlock(tool_call_id="call_1", tool_name="draw", tool_kwargs={})
    result = ChatMessage(
        role=MessageRole.TOOL,
        blocks=[TextBlock(text="Here it is."), ImageBlock(image=PIXEL)],
        additional_kwargs={"tool_call_id": "call_1"},
    )
    history = [ChatMessage(content="Draw."), ChatMessage(role=MessageRole.ASSISTANT, blocks=[call]), result]
    make_llm().chat_with_tools([FunctionTool.from_defaults(draw)], chat_history=history)
    content = sent(emulator)[-1]["messages"][-1]["content"][0]["toolResult"]["content"]
    assert [next(iter(block)) for block in content] == ["text", "image"]


@pytest.mark.parametrize("method", CHAT_METHODS)
async def test_a_guardrail_is_sent_with_every_call(method: str, make_llm: MakeLLM, emulator: BedrockEmulator) -> None:
    llm = make_llm(
        guardrail_identifier="gr1",
        guardrail_version="3",
        trace="enabled",
        guardrail_stream_processing_mode="async",
    )
    await answer(llm, method, "Hello")
    expected = {"guardrailIdentifier": "gr1", "guardrailVersion": "3", "trace": "enabled"}
    if "stream" in method:
        expected["streamProcessingMode"] = "async"
    assert sent(emulator)[-1]["guardrailConfig"] == expected


def test_more_members_of_the_request_are_passed_on(make_llm: MakeLLM, emulator: BedrockEmulator) -> None:
    llm = make_llm(additional_kwargs={"requestMetadata": {"team": "search"}})
    llm.chat([ChatMessage(content="Hello")], additionalModelRequestFields={"top_k": 5})
    request = sent(emulator)[-1]
    assert request["requestMetadata"] == {"team": "search"}
    assert request["additionalModelRequestFields"] == {"top_k": 5}
