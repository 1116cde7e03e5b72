"""Equal sets of documents are equal bytes, whatever order they were found in."""

from __future__ import annotations

import subprocess
import sys
from copy import deepcopy

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.documents import Document
from retriever_kit import PAGES, contents, documents

from cachepoint.errors import ConfigurationError
from cachepoint.langchain import StableOrderRetriever, StableOrderTransformer, context_blocks, stable_order

lists = st.lists(documents, max_size=8)
permuted = lists.flatmap(lambda found: st.tuples(st.just(found), st.permutations(found)))


@given(permuted)
def test_any_permutation_gives_the_same_bytes(found: tuple[list[Document], list[Document]]) -> None:
    one, other = found
    assert context_blocks(stable_order(one)) == context_blocks(stable_order(other))


@given(lists)
def test_nothing_is_lost_but_duplicates(found: list[Document]) -> None:
    ordered = contents(stable_order(found))
    assert sorted(ordered) == sorted(set(contents(found)))


@given(lists, st.integers(1, 10))
def test_the_k_most_relevant_are_taken_before_anything_is_ordered(found: list[Document], k: int) -> None:
    relevant = list(dict.fromkeys(contents(found)))[:k]
    assert sorted(contents(stable_order(found, k=k))) == sorted(relevant)


@given(lists)
def test_the_documents_given_stay_as_they_are(found: list[Document]) -> None:
    before = deepcopy(found)
    stable_order(found)
    assert found == before


@given(lists, st.integers(1, 10))
def test_ordering_twice_is_ordering_once(found: list[Document], k: int) -> None:
    once = stable_order(found)
    assert stable_order(once) == once
    assert stable_order(once, k=k) == stable_order(found, k=k)


def test_relevance_stays_in_the_metadata_and_out_of_the_text() -> None:
    ordered = stable_order([PAGES[5], PAGES[1], PAGES[3]])
    assert [document.metadata["relevance_rank"] for document in ordered] == [2, 3, 1]
    assert "rank" not in str(context_blocks(ordered))


def test_of_duplicates_the_one_that_is_shown_does_not_depend_on_their_order() -> None:
    copies = [Document("Tea is a drink.", metadata={"source": source}) for source in ("b.txt", "a.txt")]
    blocks = context_blocks(stable_order(copies))
    assert blocks == context_blocks(stable_order(copies[::-1]))
    assert len(blocks) == 1


def test_documents_survive_being_ingested_again() -> None:
    def ingested(run: str) -> list[Document]:
        """The pages of two files, with the random ids a vector store gives."""
        return [
            Document(f"{source} {page} {at}", id=run, metadata={"source": source, "page": page, "start_index": at})
            for source in ("b.pdf", "a.pdf")
            for page in (10, 2)
            for at in (900, 0)
        ]

    first = ingested("0f3e8b9c-4d1a-4b7e-9c55-1c2d3e4f5a6b")
    again = ingested("7a1b2c3d-9e8f-4a5b-8c6d-0e1f2a3b4c5d")
    assert contents(stable_order(first)) == contents(stable_order(reversed(again)))
    assert contents(stable_order(first))[:4] == ["a.pdf 2 0", "a.pdf 2 900", "a.pdf 10 0", "a.pdf 10 900"]


def test_the_order_can_be_the_users_own() -> None:
    ordered = stable_order(PAGES, key=lambda document: -int(document.page_content.split()[1]))
    assert contents(ordered) == contents(PAGES[::-1])


def test_a_session_puts_what_was_shown_first_and_appends_the_rest() -> None:
    ordered = stable_order(PAGES[:4], order="session", key=lambda document: document.id, shown=("page-3", "page-1"))
    assert [document.id for document in ordered] == ["page-3", "page-1", "page-0", "page-2"]


def test_another_process_comes_to_the_same_order() -> None:
    program = (
        "from langchain_core.documents import Document\n"
        "from cachepoint.langchain import stable_order\n"
        "found = [Document(text, metadata={'source': text[0]}) for text in ('b2', 'a1', 'c3', 'a0', 'b1')]\n"
        "print([document.page_content for document in stable_order(found)])"
    )

    def in_a_process(seed: str) -> str:
        return subprocess.run(
            [sys.executable, "-c", program], env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip

    assert in_a_process("1") == in_a_process("2") != ""


def test_a_transformer_does_the_same() -> None:
    assert StableOrderTransformer(k=2).transform_documents(PAGES) == stable_order(PAGES, k=2)


@pytest.mark.parametrize("k", [0, -1])
def test_a_number_of_documents_below_one_is_refused(k: int) -> None:
    with pytest.raises(ConfigurationError, match=f"k={k}"):
        stable_order(PAGES, k=k)


def test_a_misspelt_setting_is_refused_by_the_name_it_means() -> None:
    with pytest.raises(ConfigurationError, match=r"no setting 'kk' \(did you mean 'k'\?\); it has"):
        StableOrderRetriever(retriever=lambda _: [], kk=1)  # type: ignore[call-arg]
