"""Order and layout: what stands where in a prompt, so that the next one begins alike."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from llama_index.core import Document, MockEmbedding, VectorStoreIndex
from llama_index.core.base.llms.types import ChatMessage, MessageRole, ToolCallBlock
from llama_index.core.indices.query.schema import QueryBundle
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import MetadataMode, NodeRelationship, NodeWithScore, RelatedNodeInfo, TextNode
from llama_index_kit import CONNECTION, LONG, MODEL, sent, without_points

from cachepoint.emulator import BedrockEmulator
from cachepoint.llama_index import (
    CacheAwareBedrockConverse,
    CachedContextChatEngine,
    CachedContextSynthesizer,
    ChunkedChatMemory,
    StableOrderPostprocessor,
    cached_qa_template,
)

PASSAGES = {name: f"{name} {LONG[:1500]}" for name in ("alpha", "beta", "gamma", "delta")}


def node(name: str, score: float = 0.5, offset: int = 0, **metadata: Any) -> NodeWithScore:
    found = TextNode(text=PASSAGES.get(name, name), metadata=metadata, start_char_idx=offset)
    found.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id=f"doc-{name}")
    return NodeWithScore(node=found, score=score)


def texts(nodes: Sequence[NodeWithScore]) -> list[str]:
    return [item.node.get_content(MetadataMode.LLM) for item in nodes]


class Shuffled(BaseRetriever):
    """Finds the same passages every time, each time in another order and with other scores."""

    def __init__(self, names: Sequence[str] = tuple(PASSAGES)) -> None:
        self._names = list(names)
        self._random = random.Random(7)
        super().__init__()

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        names = self._random.sample(self._names, len(self._names))
        return [node(name, self._random.random(), retrieval_score=self._random.random()) for name in names]


@pytest.fixture
def llm(emulator: BedrockEmulator) -> CacheAwareBedrockConverse:
    return CacheAwareBedrockConverse(model=MODEL, endpoint_url=emulator.url, clock=emulator.clock, **CONNECTION)


# -- StableOrderPostprocessor ----------------------------------------------------------------------


def test_equal_sets_are_equal_text_whatever_their_order_scores_and_ids() -> None:
    order = StableOrderPostprocessor()
    seen = {tuple(texts(order.postprocess_nodes(Shuffled().retrieve(str(n))))) for n in range(5)}
    assert len(seen) == 1


async def test_it_does_the_same_asynchronously() -> None:
    order = StableOrderPostprocessor()
    nodes = Shuffled().retrieve("q")
    assert texts(await order.apostprocess_nodes(nodes)) == texts(order.postprocess_nodes(nodes))


def test_the_most_relevant_are_taken_before_they_are_ordered() -> None:
    found = [node("gamma", 0.9), node("gamma", 0.8), node("alpha", 0.7), node("beta", 0.1)]
    kept = StableOrderPostprocessor(top_n=2).postprocess_nodes(found)
    assert [item.score for item in kept] == [0.7, 0.9]


def test_parts_of_one_document_stand_in_its_own_order() -> None:
    found = [node("alpha", offset=900), node("beta", offset=5), node("alpha again", offset=100)]
    for item in found:
        item.node.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id="manual")
    ordered = StableOrderPostprocessor().postprocess_nodes(found)
    assert [item.node.start_char_idx for item in ordered] == [5, 100, 900]  # type: ignore[attr-defined]


def test_random_document_ids_are_no_key() -> None:
    def ingested() -> list[NodeWithScore]:
        documents = [Document(text=text, metadata={"file_path": f"{name}.md"}) for name, text in PASSAGES.items()]
        index = VectorStoreIndex.from_documents(documents, embed_model=MockEmbedding(embed_dim=4))
        return index.as_retriever(similarity_top_k=4).retrieve("q")

    order = StableOrderPostprocessor()
    assert texts(order.postprocess_nodes(ingested())) == texts(order.postprocess_nodes(ingested()[::-1]))


def test_the_users_key_decides() -> None:
    order = StableOrderPostprocessor(key=lambda found: -len(found.get_content()))
    ordered = order.postprocess_nodes([node("short"), node("a longer one")])
    assert texts(ordered) == ["a longer one", "short"]


def test_a_session_appends_what_is_new() -> None:
    order = StableOrderPostprocessor(order="session")
    order.postprocess_nodes([node("gamma"), node("beta")])
    ordered = order.postprocess_nodes([node("alpha"), node("gamma"), node("beta")])
    assert [text.split()[0] for text in texts(ordered)] == ["beta", "gamma", "alpha"]


def test_scores_in_metadata_stay_out_of_the_text_and_the_retrievers_node_alone() -> None:
    found = node("alpha", retrieval_score=0.7, chapter="one")
    [shown] = StableOrderPostprocessor().postprocess_nodes([found])
    assert "chapter: one" in texts([shown])[0]
    assert "0.7" not in texts([shown])[0]
    assert shown.node.metadata["retrieval_score"] == 0.7
    assert "0.7" in texts([found])[0]


def test_labels_go_by_content_and_not_by_position() -> None:
    order = StableOrderPostprocessor(labels=True)
    [alone] = order.postprocess_nodes([node("gamma")])
    among = order.postprocess_nodes([node("alpha"), node("beta"), node("gamma")])
    assert texts([alone])[0] in texts(among)
    assert texts([alone])[0].startswith(f"label: {alone.node.metadata['label']}\n")


# -- question and answer ---------------------------------------------------------------------------


def query_engine(llm: CacheAwareBedrockConverse, **settings: Any) -> RetrieverQueryEngine:
    return RetrieverQueryEngine.from_args(
        Shuffled(), llm=llm, node_postprocessors=[StableOrderPostprocessor()], **settings
    )


def test_the_template_gives_the_question_a_block_of_its_own(
    llm: CacheAwareBedrockConverse, emulator: BedrockEmulator
) -> None:
    engine = query_engine(llm, text_qa_template=cached_qa_template())
    engine.query("Where is beta?")
    engine.query("Where is gamma?")
    content = sent(emulator)[-1]["messages"][0]["content"]
    assert [block for block in content if "text" in block][-1] == {"text": "Question: Where is gamma?"}
    assert llm.ledger.records[-1].usage.cache_read > 1_200  # type: ignore[union-attr]


def test_the_synthesizer_gives_each_document_a_block(llm: CacheAwareBedrockConverse, emulator: BedrockEmulator) -> None:
    engine = query_engine(llm, response_synthesizer=CachedContextSynthesizer(llm=llm))
    engine.query("Where is beta?")
    engine.query("Where is gamma?")
    blocks = [block["text"] for block in sent(emulator)[-1]["messages"][0]["content"] if "text" in block]
    assert [block.split()[0] for block in blocks[1:5]] == ["alpha", "beta", "delta", "gamma"]
    assert blocks[5] == "Question: Where is gamma?"
    assert llm.ledger.records[-1].usage.cache_read > 1_200  # type: ignore[union-attr]


async def test_the_synthesizer_streams_and_awaits(llm: CacheAwareBedrockConverse, emulator: BedrockEmulator) -> None:
    emulator.script(*["In part two."] * 3)
    whole = query_engine(llm, response_synthesizer=CachedContextSynthesizer(llm=llm))
    streaming = query_engine(llm, response_synthesizer=CachedContextSynthesizer(llm=llm, streaming=True))
    assert str(await whole.aquery("Where?")) == "In part two."
    assert str(streaming.query("Where?")) == "In part two."
    asynchronous: Any = await streaming.aquery("Where?")
    assert "".join([token async for token in asynchronous.async_response_gen()]) == "In part two."


def test_braces_in_documents_and_questions_are_left_alone(
    llm: CacheAwareBedrockConverse, emulator: BedrockEmulator
) -> None:
    CachedContextSynthesizer(llm=llm).get_response("What is {context_str}?", ["a {query_str} template"])
    blocks = [block["text"] for block in sent(emulator)[-1]["messages"][0]["content"] if "text" in block]
    assert blocks == ["Context:\n", "a {query_str} template\n\n", "Question: What is {context_str}?"]


@pytest.mark.parametrize("question", ["Why?", f"Why? {LONG}"], ids=["short", "long"])
def test_too_many_documents_are_read_in_rounds_that_do_not_depend_on_the_question(
    question: str, emulator: BedrockEmulator
) -> None:
    llm = CacheAwareBedrockConverse(model=MODEL, endpoint_url=emulator.url, context_window=8_000, **CONNECTION)
    emulator.script("First answer.", "Better answer.")
    found = [f"{name} {LONG}" for name in ("alpha", "beta")]
    assert CachedContextSynthesizer(llm=llm).get_response(question, found) == "Better answer."
    first, second = (str(request["messages"]) for request in sent(emulator))
    assert ("alpha" in first, "beta" in first) == (True, False)
    assert ("beta" in second, "First answer." in second) == (True, True)


# -- the chat engine -------------------------------------------------------------------------------


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


def test_it_is_made_from_an_index(llm: CacheAwareBedrockConverse, emulator: BedrockEmulator) -> None:
    index = VectorStoreIndex.from_documents([Document(text="Tea is a drink.")], embed_model=MockEmbedding(embed_dim=4))
    emulator.script("A drink.")
    talk = CachedContextChatEngine.from_index(index, llm=llm, retriever_kwargs={"similarity_top_k": 1})
    response = talk.chat("What is tea?")
    assert str(response) == "A drink."
    assert [item.node.get_content() for item in response.source_nodes] == ["Tea is a drink."]


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
