"""`StableOrderRetriever` around retrievers of every kind."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Sequence
from copy import deepcopy
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableLambda
from langchain_core.vectorstores import InMemoryVectorStore
from retriever_kit import PAGES, Found, contents, documents

import cachepoint
from cachepoint.langchain import StableOrderRetriever, stable_order

try:
    from langchain_tests.integration_tests import RetrieversIntegrationTests
except ImportError:  # it is in the dependency group `conformance`, which not every environment has
    pytest.skip("langchain-tests is not installed", allow_module_level=True)


class TestStandardSuite(RetrieversIntegrationTests):
    @property
    def retriever_constructor(self) -> type[BaseRetriever]:
        return StableOrderRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, object]:
        return {"retriever": Found(documents=PAGES)}

    @property
    def retriever_query_example(self) -> str:
        return "step 3"


@given(st.lists(documents, max_size=8), st.none() | st.integers(1, 10))
def test_asynchronous_calls_find_what_synchronous_ones_do(found: list[Document], k: int | None) -> None:
    retriever = StableOrderRetriever(retriever=Found(documents=found), k=k)
    assert asyncio.run(retriever.ainvoke("?")) == retriever.invoke("?") == stable_order(found, k=k)


def test_a_vector_stores_retriever_keeps_its_order_for_other_questions() -> None:
    store = InMemoryVectorStore.from_documents(list(PAGES), DeterministicFakeEmbedding(size=16))
    plain = store.as_retriever(search_kwargs={"k": len(PAGES)})
    ordered = StableOrderRetriever(retriever=plain)
    questions = ("step 1", "step 6")
    assert contents(plain.invoke(questions[0])) != contents(plain.invoke(questions[1]))
    assert contents(ordered.invoke(questions[0])) == contents(ordered.invoke(questions[1]))


def test_a_function_will_do_and_so_will_documents_with_scores() -> None:
    retriever = StableOrderRetriever(retriever=lambda _: [(PAGES[2], 0.9), (PAGES[1], 0.4)], k=1)
    [found] = retriever.invoke("?")
    assert found.page_content == PAGES[2].page_content
    assert found.metadata["relevance_score"] == 0.9
    assert found.metadata["relevance_rank"] == 1


def test_it_takes_its_place_in_a_chain() -> None:
    chain = StableOrderRetriever(retriever=RunnableLambda(lambda question: [PAGES[3], PAGES[0]])) | contents
    assert chain.invoke("?") == contents([PAGES[0], PAGES[3]])


class TestSession:
    """`order="session"` appends what is new to what a session was shown."""

    turns: Sequence[Sequence[Document]] = ([PAGES[4], PAGES[2]], [PAGES[0], PAGES[2], PAGES[4]])

    def retriever(self) -> StableOrderRetriever:
        turns = iter([*self.turns, *self.turns])
        return StableOrderRetriever(retriever=lambda _: next(turns), order="session")

    def test_documents_stay_where_they_were_first_shown(self) -> None:
        retriever = self.retriever()
        assert contents(retriever.invoke("?")) == contents([PAGES[2], PAGES[4]])
        assert contents(retriever.invoke("?")) == contents([PAGES[2], PAGES[4], PAGES[0]])

    @pytest.mark.parametrize("key", ["session_id", "thread_id"])
    def test_sessions_are_apart(self, key: str) -> None:
        by_question = {"first": [PAGES[2]], "then": PAGES[:3]}
        retriever = StableOrderRetriever(retriever=lambda question: by_question[question], order="session")
        retriever.invoke("first", {"metadata": {key: "a"}})
        assert contents(retriever.invoke("then", {"metadata": {key: "a"}})) == contents([PAGES[2], *PAGES[:2]])
        assert contents(retriever.invoke("then", {"metadata": {key: "b"}})) == contents(PAGES[:3])

    def test_a_chains_thread_is_the_session(self) -> None:
        turns = iter([[PAGES[4]], [PAGES[0], PAGES[4]], [PAGES[0], PAGES[4]]])
        chain = RunnableLambda(str) | StableOrderRetriever(retriever=lambda _: next(turns), order="session") | contents
        chain.invoke("?", {"configurable": {"thread_id": "a"}})
        assert chain.invoke("?", {"configurable": {"thread_id": "a"}}) == contents([PAGES[4], PAGES[0]])
        assert chain.invoke("?", {"configurable": {"thread_id": "b"}}) == contents([PAGES[0], PAGES[4]])

    def test_the_tag_session_is_the_session(self) -> None:
        retriever = self.retriever()
        with cachepoint.tags(session="a"):
            retriever.invoke("?")
        with cachepoint.tags(session="b"):
            assert contents(retriever.invoke("?")) == contents([PAGES[0], PAGES[2], PAGES[4]])

    @given(st.lists(st.lists(st.sampled_from(PAGES), unique_by=lambda page: page.id), max_size=6))
    def test_the_order_never_changes_but_at_the_end(self, turns: list[list[Document]]) -> None:
        waiting = iter(turns)
        retriever = StableOrderRetriever(retriever=lambda _: next(waiting), order="session")
        shown: list[str] = []
        for turn in turns:
            found = contents(retriever.invoke("?"))
            shown = list(dict.fromkeys([*shown, *found]))
            assert found == [text for text in shown if text in contents(turn)]


def test_it_can_be_copied_and_pickled() -> None:
    retriever = StableOrderRetriever(retriever=Found(documents=PAGES), k=2, order="session")
    for copy in (deepcopy(retriever), pickle.loads(pickle.dumps(retriever)), retriever.model_copy(deep=True)):
        assert contents(copy.invoke("?")) == contents(retriever.invoke("?"))


def test_tracers_see_the_retriever_inside() -> None:
    class Heard(BaseCallbackHandler):
        def __init__(self) -> None:
            self.parents: list[UUID | None] = []

        def on_retriever_start(self, *_: object, parent_run_id: UUID | None = None, **__: object) -> None:
            self.parents.append(parent_run_id)

    heard = Heard()
    StableOrderRetriever(retriever=Found(documents=PAGES)).invoke("?", {"callbacks": [heard]})
    assert [parent is None for parent in heard.parents] == [True, False]
