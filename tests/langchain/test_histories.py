"""What is left of a history, and documents in it, are sent as the service takes them; the parent's are refused."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_kit import MODEL, NOVA, POINT, MakeModel, sent

from cachepoint.emulator import BedrockEmulator
from cachepoint.errors import CachepointWarning, ConfigurationError

SONNET_5, DEEPSEEK, GPT = "global.anthropic.claude-sonnet-5", "us.deepseek.r1-v1:0", "openai.gpt-oss-120b-1:0"
XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
PDF = b"%PDF-1.4\n%%EOF\n"
QUESTION = HumanMessage("What is 2 + 3?")

pytestmark = pytest.mark.usefixtures("nothing_warned_of")


@tool
def add(a: int) -> int:
    """Add."""
    return a


def called(*ids: str) -> AIMessage:
    return AIMessage("", tool_calls=[{"name": "add", "args": {"a": 2}, "id": each} for each in ids])


def replayed(emulator: BedrockEmulator) -> list[dict[str, Any]]:
    turns: list[dict[str, Any]] = sent(emulator)[-1]["messages"]
    return [{**turn, "content": [block for block in turn["content"] if "cachePoint" not in block]} for turn in turns]


def kinds(turn: dict[str, Any]) -> list[str]:
    return [next(iter(block)) for block in turn["content"]]


HALVES: dict[str, tuple[list[BaseMessage], str]] = {
    "a call that was never answered": ([QUESTION, called("t1"), HumanMessage("Well?")], "without a result"),
    "a call at the end": ([QUESTION, called("t1")], "without a result"),
    "a result without its call": ([ToolMessage("5", tool_call_id="t0"), QUESTION], "follow no call"),
    "one of two calls answered": ([QUESTION, called("t1", "t2"), ToolMessage("5", tool_call_id="t2")], "without a"),
    "a call kept twice": ([QUESTION, *[called("t1"), ToolMessage("5", tool_call_id="t1")] * 2], "stands there twice"),
    "an id that Bedrock refuses": ([QUESTION, called("c|1"), ToolMessage("5", tool_call_id="c|1")], "Bedrock refuses"),
}


@pytest.mark.parametrize("method", ["invoke", "stream"])
@pytest.mark.parametrize("case", HALVES)
def test_halves_of_tool_pairs_are_made_whole_and_told(
    case: str, method: str, make_model: MakeModel, emulator: BedrockEmulator
) -> None:
    messages, told = HALVES[case]
    with pytest.warns(CachepointWarning) as warned:
        assert list(getattr(make_model().bind_tools([add]), method)(messages))
    assert any(told in str(warning.message) for warning in warned)
    assert len(sent(emulator)) == 1


def test_without_changes_to_requests_the_service_says_what_is_wrong(make_model: MakeModel) -> None:
    model = make_model(prompt_cache="observe").bind_tools([add])
    with pytest.raises(Exception, match="Expected toolResult blocks"):
        model.invoke([QUESTION, called("t1"), HumanMessage("Well?")])


# -- reasoning -------------------------------------------------------------------------------------


def thoughts(text: str, signature: str = "") -> dict[str, Any]:
    return {"type": "reasoning_content", "reasoning_content": {"text": text, "signature": signature}}


@pytest.mark.parametrize("model_id", [SONNET_5, MODEL, DEEPSEEK, GPT])
@pytest.mark.parametrize("block", [thoughts("Hm.", "c2ln"), thoughts("", "c2ln")], ids=["shown", "hidden"])
def test_a_turn_of_thoughts_alone_is_left_out_and_roles_alternate(
    block: dict[str, Any], model_id: str, make_model: MakeModel, emulator: BedrockEmulator
) -> None:
    make_model(model=model_id).invoke([QUESTION, AIMessage([block]), HumanMessage("Well?")])
    turns = replayed(emulator)
    assert {"reasoningContent"}.isdisjoint(kind for turn in turns for kind in kinds(turn))
    assert [turn["role"] for turn in turns] in (["user"], ["user", "assistant", "user"])


@pytest.mark.parametrize(
    ("model_id", "taken"), [(MODEL, True), (DEEPSEEK, False), ("us.meta.llama3-3-70b-instruct-v1:0", False)]
)
def test_signed_thoughts_without_text_are_sent_to_models_that_take_them_back(
    model_id: str, taken: bool, make_model: MakeModel, emulator: BedrockEmulator
) -> None:
    answer = AIMessage([thoughts("", "c2ln"), {"type": "text", "text": "Five."}])
    make_model(model=model_id).invoke([QUESTION, answer, QUESTION])
    assert kinds(replayed(emulator)[1]) == ["reasoningContent"] * taken + ["text"]


# -- documents -------------------------------------------------------------------------------------


def file(data: bytes, kind: str, name: str = "Tea: a report.pdf", **more: Any) -> dict[str, Any]:
    return {"type": "file", "mime_type": kind, "base64": base64.b64encode(data).decode(), "name": name, **more}


def documents(emulator: BedrockEmulator) -> list[dict[str, Any]]:
    return [block["document"] for block in replayed(emulator)[0]["content"] if "document" in block]


def asking(*blocks: dict[str, Any]) -> list[BaseMessage]:
    return [HumanMessage([*blocks, {"type": "text", "text": "What does it say?"}])]


def test_documents_have_names_that_the_service_takes(make_model: MakeModel, emulator: BedrockEmulator) -> None:
    make_model().invoke(asking(file(PDF, "application/pdf"), file(PDF, "application/pdf")))
    assert [each["name"] for each in documents(emulator)] == ["Tea a report pdf", "Tea a report pdf (2)"]


def test_text_is_cited_as_text_and_a_table_without_citations(make_model: MakeModel, emulator: BedrockEmulator) -> None:
    cited: dict[str, Any] = {"citations": {"enabled": True}}
    with pytest.warns(CachepointWarning, match="citations were left out"):
        make_model().invoke(
            asking(file("Thé".encode(), "text/plain", **cited), file(b"PK\x03\x04", XLSX, "b", **cited))
        )
    text, table = documents(emulator)
    assert (text["format"], text["source"]) == ("txt", {"text": "Thé"})
    assert (table["format"], "citations" in table) == ("xlsx", False)


def test_text_that_is_said_to_be_a_pdf_goes_as_text(make_model: MakeModel, emulator: BedrockEmulator) -> None:
    make_model().invoke(asking(file(b"# Tea", "application/pdf")))
    assert documents(emulator)[0]["format"] == "txt"


def test_claude_is_given_nothing_in_s3(make_model: MakeModel, emulator: BedrockEmulator) -> None:
    source = {"s3Location": {"uri": "s3://bucket/tea.pdf"}}
    block = {"type": "document", "document": {"format": "pdf", "name": "tea", "source": source}}
    with pytest.raises(ConfigurationError, match="give its bytes"):
        make_model().invoke(asking(block))
    assert sent(emulator) == []
    make_model(model=NOVA).invoke(asking(block))


# -- checkpoints with nothing beside them ----------------------------------------------------------


def test_an_agent_whose_tools_were_all_filtered_out_goes_on(make_model: MakeModel, emulator: BedrockEmulator) -> None:
    history = [QUESTION, called("t1"), ToolMessage("5", tool_call_id="t1"), HumanMessage("Sure?")]
    with pytest.warns(RuntimeWarning, match="without toolConfig"):  # the parent makes text of calls and results
        make_model().bind_tools([POINT]).invoke(history)
    assert "toolConfig" not in sent(emulator)[-1]
