"""`StableOrderPostprocessor`: equal sets are equal text, whatever order they were found in."""

from __future__ import annotations

import asyncio
import os
import pickle
import subprocess
import sys
from copy import deepcopy
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llama_index.core import Document, MockEmbedding, VectorStoreIndex
from llama_index.core.schema import NodeRelationship, NodeWithScore, RelatedNodeInfo, TextNode
from nodes_kit import PASSAGES, Shuffled, contents, node, texts

import cachepoint
from cachepoint.errors import ConfigurationError
from cachepoint.llama_index import ChunkedChatMemory, StableOrderPostprocessor
from cachepoint.llama_index._documents.stable_order import node_key


def test_equal_sets_are_equal_text_whatever_their_order_scores_and_ids() -> None:
    order = StableOrderPostprocessor()
    seen = {tuple(texts(order.postprocess_nodes(Shuffled().retrieve(str(n))))) for n in range(5)}
    assert len(seen) == 1


async def test_it_does_the_same_asynchronously() -> None:
    order = StableOrderPostprocessor()
    nodes = Shuffled().retrieve("q")
    assert texts(await order.apostprocess_nodes(nodes)) == texts(order.postprocess_nodes(nodes))


@pytest.mark.parametrize("shuffled", [[0, 1, 2, 3], [3, 1, 0, 2]], ids=["by score", "reordered since"])
def test_the_most_relevant_are_taken_before_they_are_ordered(shuffled: list[int]) -> None:
    found = [node("gamma", 0.9), node("gamma", 0.8), node("alpha", 0.7), node("beta", 0.1)]
    kept = StableOrderPostprocessor(top_n=2).postprocess_nodes([found[place] for place in shuffled])
    assert [text.split()[0] for text in texts(kept)] == ["alpha", "gamma"]


def test_without_a_score_for_each_the_order_given_is_that_of_relevance() -> None:
    found = [node("gamma", None), node("beta", 0.1), node("alpha", 0.7)]
    kept = StableOrderPostprocessor(top_n=2).postprocess_nodes(found)
    assert [text.split()[0] for text in texts(kept)] == ["beta", "gamma"]


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
    assert texts([alone])[0].startswith(f"cite_as: {alone.node.metadata['cite_as']}\n")


def test_a_document_keeps_its_metadata_beside_the_label() -> None:
    [plain] = StableOrderPostprocessor(labels=True).postprocess_nodes([node("gamma")])
    given: dict[str, Any] = {"label": "Chapter one", "chapter": 1}
    [shown] = StableOrderPostprocessor(labels=True).postprocess_nodes([node("gamma", **given)])
    assert shown.node.metadata == {**given, "cite_as": plain.node.metadata["cite_as"]}
    assert "label: Chapter one" in texts([shown])[0]


def test_the_name_of_the_label_is_reserved() -> None:
    found = node("gamma", cite_as="no label of ours")
    [plain], [shown] = (
        StableOrderPostprocessor(labels=True).postprocess_nodes([each]) for each in (node("gamma"), found)
    )
    assert texts([shown]) == texts([plain])
    assert found.node.metadata == {"cite_as": "no label of ours"}


# -- sessions --------------------------------------------------------------------------------------


def test_a_session_appends_what_is_new() -> None:
    order = StableOrderPostprocessor(order="session")
    order.postprocess_nodes([node("gamma"), node("beta")])
    ordered = order.postprocess_nodes([node("alpha"), node("gamma"), node("beta")])
    assert [text.split()[0] for text in texts(ordered)] == ["beta", "gamma", "alpha"]


async def test_the_tag_session_keeps_sessions_apart() -> None:
    order = StableOrderPostprocessor(order="session")
    found = [node("alpha"), node("gamma")]
    with cachepoint.tags(session="a"):
        order.postprocess_nodes(found[1:])
        in_a = texts(await order.apostprocess_nodes(found))
    with cachepoint.tags(session="b"):
        in_b = texts(order.postprocess_nodes(found))
    assert in_a == in_b[::-1]


def test_copies_share_sessions_and_pickles_start_afresh() -> None:
    order = StableOrderPostprocessor(order="session")
    order.postprocess_nodes([node("gamma")])
    found = [node("alpha"), node("gamma")]
    again, afresh = deepcopy(order), pickle.loads(pickle.dumps(order))
    assert texts(again.postprocess_nodes(found)) == texts(afresh.postprocess_nodes(found))[::-1]


# -- whatever is found -----------------------------------------------------------------------------

names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
metadata = st.fixed_dictionaries(
    {},
    optional={
        "file_path": st.sampled_from(["a.pdf", "b.pdf"]),
        "page_label": st.sampled_from(["ix", "1", "10"]),
        "retrieval_score": st.floats(0, 1),
    },
)
nodes = st.builds(
    lambda name, score, offset, said: node(name, score, offset, **said),
    names, st.floats(0, 1), st.integers(0, 3000), metadata,
)  # fmt: skip
lists = st.lists(nodes, max_size=8)
orders = st.builds(StableOrderPostprocessor, labels=st.booleans(), top_n=st.none() | st.integers(1, 10))


@given(lists.flatmap(lambda found: st.tuples(st.just(found), st.permutations(found))), st.booleans())
def test_any_permutation_gives_the_same_bytes(
    lists: tuple[list[NodeWithScore], list[NodeWithScore]], labels: bool
) -> None:
    one, other = (texts(StableOrderPostprocessor(labels=labels).postprocess_nodes(found)) for found in lists)
    assert one == other


@given(lists)
def test_nothing_is_lost_but_duplicates(found: list[NodeWithScore]) -> None:
    assert sorted(contents(StableOrderPostprocessor().postprocess_nodes(found))) == sorted(set(contents(found)))


@given(lists, st.integers(1, 10))
def test_no_more_than_the_most_relevant_are_shown(found: list[NodeWithScore], top_n: int) -> None:
    shown = StableOrderPostprocessor(top_n=top_n).postprocess_nodes(found)
    by_score = sorted(found, key=lambda item: -item.get_score())
    assert sorted(contents(shown)) == sorted(list(dict.fromkeys(contents(by_score)))[:top_n])


@given(lists, orders)
def test_asynchronous_calls_order_as_synchronous_ones_do(
    found: list[NodeWithScore], order: StableOrderPostprocessor
) -> None:
    assert texts(asyncio.run(order.apostprocess_nodes(found))) == texts(order.postprocess_nodes(found))


@given(lists, orders)
def test_ordering_twice_is_ordering_once(found: list[NodeWithScore], order: StableOrderPostprocessor) -> None:
    once = order.postprocess_nodes(found)
    assert texts(order.postprocess_nodes(once)) == texts(once)


def test_another_process_comes_to_the_same_order() -> None:
    program = (
        "from llama_index.core.schema import NodeWithScore, TextNode\n"
        "from cachepoint.llama_index import StableOrderPostprocessor\n"
        "found = [TextNode(text=text, metadata={'file_path': text[0]}) for text in ('b2', 'a1', 'c3', 'a0', 'b1')]\n"
        "ordered = StableOrderPostprocessor().postprocess_nodes([NodeWithScore(node=node) for node in found])\n"
        "print([item.node.text for item in ordered])"
    )

    def in_a_process(seed: str) -> str:
        return subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip

    assert in_a_process("1") == in_a_process("2") != ""


def test_both_frameworks_take_the_same_documents_for_duplicates() -> None:
    langchain = pytest.importorskip("cachepoint.langchain", reason="LangChain is not installed")
    documents = pytest.importorskip("langchain_core.documents")
    copies = [("tea", "b.txt"), ("coffee", "c.txt"), ("tea", "a.txt")]
    there = langchain.stable_order([documents.Document(text, metadata={"source": source}) for text, source in copies])
    nodes = [NodeWithScore(node=TextNode(text=text, metadata={"source": source}), score=0.5) for text, source in copies]
    here = StableOrderPostprocessor().postprocess_nodes(nodes)
    shown = [(content, item.node.metadata["source"]) for content, item in zip(contents(here), here, strict=True)]
    assert shown == [(document.page_content, document.metadata["source"]) for document in there]
    assert shown == [("tea", "a.txt"), ("coffee", "c.txt")]


def test_both_frameworks_know_a_document_by_the_same_key() -> None:
    retriever = pytest.importorskip("cachepoint.langchain._documents.retriever", reason="LangChain is not installed")
    documents = pytest.importorskip("langchain_core.documents")
    for name, said in (("manual", {}), (str(uuid4()), {"source": "a.pdf", "page": 3}), (str(uuid4()), {})):
        there = documents.Document("text", id=name, metadata={**said, "start_index": 40})
        here = TextNode(text="text", metadata=said, start_char_idx=40)
        here.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id=name)
        assert node_key(here) == retriever.document_key(there)


def test_a_misspelt_setting_is_refused_by_the_name_it_means() -> None:
    with pytest.raises(ConfigurationError, match=r"StableOrderPostprocessor has no setting 'topn' \(did you mean"):
        StableOrderPostprocessor(topn=3)  # type: ignore[call-arg]
    with pytest.raises(ConfigurationError, match=r"no setting 'token_limt' \(did you mean 'token_limit'\?\); it has"):
        ChunkedChatMemory(token_limt=3)  # type: ignore[call-arg]
    with pytest.raises(ConfigurationError, match="no setting 'token_limt'"):
        ChunkedChatMemory.from_defaults(token_limt=3)


def test_what_llama_index_wrote_down_is_read_again() -> None:
    order, memory = StableOrderPostprocessor(top_n=3), ChunkedChatMemory(token_limit=3)
    assert StableOrderPostprocessor.from_dict(order.to_dict()).top_n == 3
    assert StableOrderPostprocessor.model_validate(order.to_dict()).top_n == 3
    assert pickle.loads(pickle.dumps(memory)).token_limit == 3
