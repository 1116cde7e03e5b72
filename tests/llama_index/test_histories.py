"""What is left of a history after trimming, interruptions and changes of the model is sent as the service takes it."""

from __future__ import annotations

from typing import Any

import pytest
from llama_index.core import Document, SummaryIndex
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.base.llms.types import (
    ChatMessage,
    ContentBlock,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)
from llama_index.core.memory import ChatMemoryBuffer, Memory
from llama_index_kit import CONNECTION, LONG, MODEL, sent, without_points

from cachepoint.emulator import BedrockEmulator, Reasoning, Reply, Text, ToolCall
from cachepoint.errors import CachepointWarning
from cachepoint.llama_index import CacheAwareBedrockConverse, CachedContextChatEngine
from cachepoint.llama_index._documents.templates import VolatileBlock

DEEPSEEK, GPT, SONNET_46 = (
    "us.deepseek.r1-v1:0",
    "openai.gpt-oss-120b-1:0",
    "us.anthropic.claude-sonnet-4-6",
)
SONNET_5, NOVA = "global.anthropic.claude-sonnet-5", "us.amazon.nova-pro-v1:0"
QUESTION = ChatMessage(content="What is 2 + 3?")

pytestmark = pytest.mark.usefixtures("nothing_warned_of")


def llm_for(emulator: BedrockEmulator, model: str = MODEL, **settings: Any) -> CacheAwareBedrockConverse:
    return CacheAwareBedrockConverse(
        model=model, endpoint_url=emulator.url, max_retries=0, **{**CONNECTION, **settings}
    )


def said(*blocks: ContentBlock) -> ChatMessage:
    return ChatMessage(role=MessageRole.ASSISTANT, blocks=list(blocks))


def called(*ids: str) -> ChatMessage:
    return said(*(ToolCallBlock(tool_call_id=each, tool_name="add", tool_kwargs={"a": 2}) for each in ids))


def result(call: str, text: str = "5") -> ChatMessage:
    return ChatMessage(role=MessageRole.TOOL, content=text, additional_kwargs={"tool_call_id": call})


def replayed(emulator: BedrockEmulator) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = without_points(sent(emulator)[-1])["messages"]
    return messages


def kinds(message: dict[str, Any]) -> list[str]:
    return [next(iter(block)) for block in message["content"]]


# -- pairs of tool calls and results ---------------------------------------------------------------

HALVES: dict[str, tuple[list[ChatMessage], str]] = {
    "a call that was never answered": ([QUESTION, called("t1"), ChatMessage(content="Well?")], "without a result"),
    "a call at the end": ([QUESTION, called("t1")], "without a result"),
    "one of two calls answered": ([QUESTION, called("t1", "t2"), result("t2")], "without a result"),
    "a call before another": ([QUESTION, called("t1"), QUESTION, called("t2"), result("t2")], "without a result"),
    "a result without its call": ([result("t0"), QUESTION], "follow no call"),
    "a result that comes late": (
        [QUESTION, called("t1"), ChatMessage(content="?"), said(TextBlock(text="wait")), result("t1")],
        "follow no call",
    ),
    "a result given twice": ([QUESTION, called("t1"), result("t1"), result("t1")], "follow no call"),
    "a call kept twice": ([QUESTION, called("t1"), result("t1"), called("t1"), result("t1")], "stands there twice"),
    "two calls of one id": ([QUESTION, called("t1", "t1"), result("t1"), result("t1", "6")], "stands there twice"),
    "an id that Bedrock refuses": ([QUESTION, called("call|1 é"), result("call|1 é")], "that Bedrock refuses"),
    "an id that is too long": ([QUESTION, called("x" * 90), result("x" * 90)], "up to 64"),
}  # fmt: skip


@pytest.mark.parametrize("model", [MODEL, NOVA])
@pytest.mark.parametrize("case", HALVES)
def test_halves_of_tool_pairs_are_made_whole_and_told(case: str, model: str, emulator: BedrockEmulator) -> None:
    messages, told = HALVES[case]
    with pytest.warns(CachepointWarning) as warned:
        assert llm_for(emulator, model).chat(messages).message.content
    assert any(told in str(warning.message) for warning in warned)
    pending: list[str] = []
    for turn in replayed(emulator):
        results = [block["toolResult"]["toolUseId"] for block in turn["content"] if "toolResult" in block]
        assert sorted(results) == sorted(pending)
        pending = [block["toolUse"]["toolUseId"] for block in turn["content"] if "toolUse" in block]


def test_a_result_without_its_call_is_read_as_text(emulator: BedrockEmulator) -> None:
    with pytest.warns(CachepointWarning, match="follow no call"):
        llm_for(emulator).chat([result("t0", "It is five."), QUESTION])
    first, second = replayed(emulator)[0]["content"]
    assert first["text"].endswith("\nIt is five.")
    assert second == {"text": "What is 2 + 3?"}


def test_text_between_a_call_and_its_result_goes_behind_the_result(emulator: BedrockEmulator) -> None:
    llm_for(emulator).chat([QUESTION, called("t1"), ChatMessage(content="Hurry."), result("t1")])
    assert kinds(replayed(emulator)[2]) == ["toolResult", "text"]


def test_what_is_known_of_a_block_goes_with_it(emulator: BedrockEmulator) -> None:
    question = ChatMessage(blocks=[TextBlock(text=LONG), VolatileBlock(text="It is five past four. " + LONG)])
    llm_for(emulator).chat([QUESTION, called("t1"), question, result("t1")])
    blocks = sent(emulator)[-1]["messages"][2]["content"]
    assert [next(iter(block)) for block in blocks][:2] == ["toolResult", "text"]
    volatile = next(place for place, block in enumerate(blocks) if block.get("text", "").startswith("It is five"))
    assert "cachePoint" not in blocks[volatile + 1 :]


def test_a_whole_history_goes_out_as_it_is(emulator: BedrockEmulator) -> None:
    llm_for(emulator).chat([QUESTION, called("t1", "t2"), result("t2"), result("t1"), ChatMessage(content="So?")])
    assert kinds(replayed(emulator)[2]) == ["toolResult", "toolResult", "text"]


@pytest.mark.parametrize("make", [ChatMemoryBuffer.from_defaults, Memory.from_defaults])
async def test_an_agents_memory_that_was_cut_anywhere_is_taken(make: Any, emulator: BedrockEmulator) -> None:
    def add(a: int) -> int:
        """Add."""
        return a

    memory = make(token_limit=300)
    agent = FunctionAgent(tools=[add], llm=llm_for(emulator))
    for number in range(4):
        emulator.script(
            (Text("word " * 60), ToolCall("add", {"a": number}, f"t{number}")), Text("Done. " + "word " * 30)
        )
        assert str(await agent.run(f"Add {number}.", memory=memory)).startswith("Done.")


# -- reasoning -------------------------------------------------------------------------------------


def thoughts(text: str | None = "Two and three.", **known: Any) -> ThinkingBlock:
    return ThinkingBlock(content=text, additional_information=known)


SIGNED, UNSIGNED, HIDDEN = thoughts(signature="c2ln"), thoughts(), thoughts("", signature="c2ln")


@pytest.mark.parametrize(
    ("model", "taken"),
    [
        (MODEL, [SIGNED, HIDDEN]),
        (DEEPSEEK, []),
        (GPT, [SIGNED, UNSIGNED, HIDDEN]),
        ("us.meta.llama3-3-70b-instruct-v1:0", []),
    ],
)
def test_only_reasoning_that_the_model_takes_back_is_sent(
    model: str, taken: list[ThinkingBlock], emulator: BedrockEmulator
) -> None:
    for block in (SIGNED, UNSIGNED, HIDDEN):
        llm_for(emulator, model).chat([QUESTION, said(block, TextBlock(text="Five.")), QUESTION])
        assert kinds(replayed(emulator)[1]) == (["reasoningContent"] if block in taken else []) + ["text"]


@pytest.mark.parametrize("model", [SONNET_5, MODEL, DEEPSEEK])
@pytest.mark.parametrize("block", [SIGNED, UNSIGNED, thoughts(None, redacted_content="c2ln")])
def test_a_turn_of_thoughts_alone_is_left_out_and_roles_alternate(
    block: ThinkingBlock, model: str, emulator: BedrockEmulator
) -> None:
    llm = llm_for(emulator, model)
    llm.chat([QUESTION, said(block), ChatMessage(content="Well?")])
    assert replayed(emulator) == [{"role": "user", "content": [{"text": "What is 2 + 3?"}, {"text": "Well?"}]}]
    llm.chat([QUESTION, said(block)])
    assert [turn["role"] for turn in replayed(emulator)] == ["user"]


@pytest.mark.parametrize("model", [SONNET_46, DEEPSEEK, GPT])
def test_a_chat_goes_on_with_another_model(model: str, emulator: BedrockEmulator) -> None:
    emulator.script(Reply((Reasoning("Two and three."), Text("Five."))))
    answer = llm_for(emulator, model).chat([QUESTION]).message
    for other in (MODEL, SONNET_5, DEEPSEEK, GPT):
        assert llm_for(emulator, other).chat([QUESTION, answer, QUESTION]).message.content
        same = {model, other} <= {SONNET_46, MODEL, SONNET_5} or model == other == GPT
        assert ("reasoningContent" in kinds(replayed(emulator)[1])) is same


def test_a_model_that_calls_no_tools_is_told_of_calls_in_words(emulator: BedrockEmulator) -> None:
    """DeepSeek R1: "This model doesn't support tool use", of a history with a call and its result too."""
    call = ToolCallBlock(tool_call_id="t1", tool_name="find", tool_kwargs={"town": "Köln"})
    told = ChatMessage(role="tool", content="On the Rhine.", additional_kwargs={"tool_call_id": "t1"})
    history = [QUESTION, ChatMessage(role="assistant", blocks=[TextBlock(text="I look."), call]), told]
    assert llm_for(emulator, DEEPSEEK).chat(history).message.content
    (request,) = sent(emulator)
    assert "toolConfig" not in request
    assert [block for message in request["messages"][1:] for block in message["content"]] == [
        {"text": "I look."},
        {"text": 'Tool call: find {"town": "Köln"}'},
        {"text": "Result of a tool call:\nOn the Rhine."},
    ]


def test_an_engine_goes_on_after_an_answer_of_thoughts_alone(emulator: BedrockEmulator) -> None:
    emulator.script(Reply((Reasoning("Hm."),), "max_tokens"))
    index = SummaryIndex.from_documents([Document(text="Tea is a drink.", doc_id="tea")])
    engine = CachedContextChatEngine.from_index(index, llm=llm_for(emulator, SONNET_5))
    engine.chat("What is tea?")
    assert engine.chat("And coffee?").response
