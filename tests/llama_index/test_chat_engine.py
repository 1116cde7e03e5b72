"""`CachedContextChatEngine` and its memory: each turn begins with what the one before sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import EventStreamError
from llama_index.core import Document, MockEmbedding, VectorStoreIndex
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.llms.types import ChatMessage, MessageRole, TextBlock, ThinkingBlock, ToolCallBlock
from llama_index.core.prompts import BasePromptTemplate, ChatPromptTemplate, PromptTemplate, RichPromptTemplate
from llama_index.core.schema import NodeWithScore, QueryBundle
from llama_index_kit import LONG, sent, without_points
from nodes_kit import Shuffled, model, node

from cachepoint.emulator import BedrockEmulator, Reasoning, Text
from cachepoint.emulator.faults import stream_error
from cachepoint.errors import ConfigurationError
from cachepoint.llama_index import CacheAwareBedrockConverse, CachedContextChatEngine, ChunkedChatMemory


@pytest.fixture
def llm(emulator: BedrockEmulator) -> CacheAwareBedrockConverse:
    return model(emulator)


def engine(llm: CacheAwareBedrockConverse, **settings: Any) -> CachedContextChatEngine:
    return CachedContextChatEngine.from_defaults(Shuffled(["alpha", "beta"]), llm=llm, system_prompt=LONG, **settings)


def test_each_turn_begins_with_what_the_one_before_sent(
    llm: CacheAwareBedrockConverse, emulator: BedrockEmulator
) -> None:
    talk = engine(llm)
    for turn in range(4):
        talk.chat(f"Question {turn}?")
    earlier, later = (without_points(request)["messages"] for request in sent(emulator)[-2:])
    assert later[: len(earlier) - 1] == earlier[:-1]
    assert later[0]["content"] == [{"text": "Question 0?"}]
    assert later[-1]["content"][-1] == {"text": "Question 3?"}
    assert all(record.usage and record.usage.cache_read > 1_500 for record in llm.ledger.records[1:])


async def test_all_four_ways_to_talk_keep_one_history(
    llm: CacheAwareBedrockConverse, emulator: BedrockEmulator
) -> None:
    emulator.script("one", "two", "three", "four")
    talk = engine(llm)
    assert str(talk.chat("a")) == "one"
    assert "".join(talk.stream_chat("b").response_gen) == "two"
    assert str(await talk.achat("c")) == "three"
    streamed = await talk.astream_chat("d")
    assert "".join([token async for token in streamed.async_response_gen()]) == "four"
    assert [message.content for message in talk.chat_history] == ["a", "one", "b", "two", "c", "three", "d", "four"]
    talk.reset()
    assert talk.chat_history == []


def test_a_history_with_braces_is_not_formatted_again(
    llm: CacheAwareBedrockConverse, emulator: BedrockEmulator
) -> None:
    talk = engine(llm)
    talk.chat("What is {context_str}?")
    talk.chat("And {query_str}?")
    messages = without_points(sent(emulator)[-1])["messages"]
    assert messages[0]["content"][0] == {"text": "What is {context_str}?"}
    assert messages[-1]["content"][-1] == {"text": "And {query_str}?"}


class NewEveryTime(BaseRetriever):
    """Finds other passages for every question."""

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return [node(f"{query_bundle.query_str[:20]} {number} {LONG[:3000]}") for number in range(4)]


def test_the_documents_of_a_turn_are_not_written_however_long_a_question_was(
    llm: CacheAwareBedrockConverse, emulator: BedrockEmulator
) -> None:
    talk = CachedContextChatEngine.from_defaults(NewEveryTime(), llm=llm, system_prompt="Be brief.")
    for turn in range(8):
        talk.chat(f"Question {turn}? " * (1 if turn else 400))
    last_turns = [request["messages"][-1]["content"] for request in sent(emulator)]
    assert [sum("cachePoint" in block for block in content) for content in last_turns] == [0] * 8
    assert llm.ledger.records[-1].status in ("hit", "extended")


def test_it_is_made_from_an_index(llm: CacheAwareBedrockConverse, emulator: BedrockEmulator) -> None:
    index = VectorStoreIndex.from_documents(
        [Document(text="Tea is a drink."), Document(text="Coffee is another.")], embed_model=MockEmbedding(embed_dim=4)
    )
    emulator.script("A drink.")
    talk = CachedContextChatEngine.from_index(index, llm=llm, similarity_top_k=1, system_prompt="Be brief.")
    response = talk.chat("What is tea?")
    assert str(response) == "A drink."
    assert len(response.source_nodes) == 1
    assert without_points(sent(emulator)[-1])["system"] == [{"text": "Be brief."}]


# -- thinking --------------------------------------------------------------------------------------

THOUGHT = {"reasoningContent": {"reasoningText": {"text": "They ask about tea.", "signature": "c2lnbmVk"}}}


@pytest.fixture
def thinker(emulator: BedrockEmulator) -> CachedContextChatEngine:
    """An engine whose model thinks before each of its answers."""
    emulator.script(*((Reasoning("They ask about tea.", "c2lnbmVk"), Text(f"Answer {number}.")) for number in range(4)))
    return engine(model(emulator, thinking={"type": "enabled", "budget_tokens": 1024}, max_tokens=2048))


async def test_thoughts_are_sent_again_as_they_came(
    thinker: CachedContextChatEngine, emulator: BedrockEmulator
) -> None:
    assert str(thinker.chat("a")) == "Answer 0."
    assert "".join(thinker.stream_chat("b").response_gen) == "Answer 1."
    assert str(await thinker.achat("c")) == "Answer 2."
    streamed = await thinker.astream_chat("d")
    assert "".join([token async for token in streamed.async_response_gen()]) == "Answer 3."
    answers = [message for message in thinker.chat_history if message.role == MessageRole.ASSISTANT]
    assert [[type(block) for block in message.blocks] for message in answers] == [[ThinkingBlock, TextBlock]] * 4
    replayed = [
        turn["content"] for turn in without_points(sent(emulator)[-1])["messages"] if turn["role"] == "assistant"
    ]
    assert replayed == [[THOUGHT, {"text": f"Answer {number}."}] for number in range(3)]


# LlamaIndex reads the stream in a thread, which raises what the caller is told as well.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_stream_that_fails_leaves_the_history_as_it_was(
    llm: CacheAwareBedrockConverse, emulator: BedrockEmulator
) -> None:
    talk = engine(llm)
    talk.chat("a")
    before = talk.chat_history
    emulator.fail_next(stream_error("ModelStreamErrorException"))
    with pytest.raises(EventStreamError):
        "".join(talk.stream_chat("b").response_gen)
    assert talk.chat_history == before


# -- templates -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [
        "Be brief.",
        PromptTemplate("Be {how}.").partial_format(how="brief"),
        PromptTemplate("Be {manner}.", template_var_mappings={"how": "manner"}, how="brief"),
        PromptTemplate("Be {how}.", function_mappings={"how": lambda **_: "brief"}),
        RichPromptTemplate("Be {{ how }}.", how="brief"),
        ChatPromptTemplate.from_messages([("system", "Be brief.")]),
    ],
    ids=["string", "text", "other names", "function", "rich", "chat"],
)
def test_the_system_prompt_may_be_any_template_that_is_filled(
    given: str | BasePromptTemplate, llm: CacheAwareBedrockConverse, emulator: BedrockEmulator
) -> None:
    CachedContextChatEngine.from_defaults(Shuffled(["alpha"]), llm=llm, system_prompt=given).chat("Hello?")
    assert without_points(sent(emulator)[-1])["system"] == [{"text": "Be brief."}]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (PromptTemplate("Be {how}."), r"system_prompt is a template whose variables \['how'\].*partial_format"),
        (ChatPromptTemplate.from_messages([("system", "a"), ("user", "b")]), "system_prompt .* 2 messages"),
        (7, "system_prompt is a int"),
    ],
    ids=["open", "several messages", "number"],
)
def test_a_system_prompt_that_is_no_fixed_text_is_refused(
    given: Any, said: str, llm: CacheAwareBedrockConverse
) -> None:
    with pytest.raises(ConfigurationError, match=said):
        CachedContextChatEngine.from_defaults(Shuffled(["alpha"]), llm=llm, system_prompt=given)


def test_examples_in_front_may_be_a_template(llm: CacheAwareBedrockConverse, emulator: BedrockEmulator) -> None:
    examples = ChatPromptTemplate.from_messages([("user", "Is tea {what}?"), ("assistant", "Yes.")], what="a drink")
    talk = CachedContextChatEngine.from_defaults(Shuffled(["alpha"]), llm=llm, prefix_messages=examples)
    talk.chat("Hello?")
    assert without_points(sent(emulator)[-1])["messages"][0]["content"] == [{"text": "Is tea a drink?"}]


def test_a_question_may_be_a_template_that_is_filled(llm: CacheAwareBedrockConverse, emulator: BedrockEmulator) -> None:
    question: Any = PromptTemplate("What is {thing}?")
    talk = engine(llm)
    talk.chat(question.partial_format(thing="tea"))
    assert talk.chat_history[0].content == "What is tea?"
    with pytest.raises(ConfigurationError, match=r"message is a template whose variables \['thing'\]"):
        talk.stream_chat(question)


# -- memory ----------------------------------------------------------------------------------------


def turn(number: int) -> list[ChatMessage]:
    return [
        ChatMessage(content=f"Question {number}. {LONG[:600]}"),
        ChatMessage(role=MessageRole.ASSISTANT, content=f"Answer {number}."),
    ]


def beginnings(remember: Callable[[list[ChatMessage]], list[ChatMessage]], turns: int = 30) -> list[str | None]:
    history: list[ChatMessage] = []
    found = []
    for number in range(turns):
        history += turn(number)
        found.append(remember(history)[0].content)
    return found


def test_a_full_memory_moves_its_beginning_seldom() -> None:
    seen = beginnings(lambda history: ChunkedChatMemory.from_defaults(history, token_limit=2_000).get())
    assert len(set(seen)) <= 6
    assert seen == sorted(seen, key=seen.index)


def test_a_turn_with_tools_is_kept_or_dropped_whole() -> None:
    call = ToolCallBlock(tool_call_id="c", tool_name="t", tool_kwargs={})
    with_tools = [
        ChatMessage(content=LONG[:600]),
        ChatMessage(role=MessageRole.ASSISTANT, blocks=[call]),
        ChatMessage(role=MessageRole.TOOL, content=LONG[:600], additional_kwargs={"tool_call_id": "c"}),
        ChatMessage(role=MessageRole.ASSISTANT, content="Done."),
    ]
    memory = ChunkedChatMemory.from_defaults(with_tools * 10, token_limit=1_000)
    assert memory.get()[0].role == MessageRole.USER
    assert len(memory.get()) % 4 == 0
    assert len(memory.get_all()) == 40


def test_a_memory_sizes_itself_by_the_model(llm: CacheAwareBedrockConverse) -> None:
    assert ChunkedChatMemory.from_defaults(llm=llm).token_limit == 100_000
