"""Retrieval over the Python language reference: BM25 finds passages, a stable order and a layout keep the prefix.

It needs bm25s, which none of cachepoint's extras brings: pip install bm25s

python examples/langchain_rag.py [--live]
"""

from __future__ import annotations

import bm25s
from langchain_common import MODEL, bedrock, reference, told
from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from pydantic import PrivateAttr

from cachepoint.langchain import CacheAwareChatBedrockConverse, StableOrderRetriever, cached_context_prompt

QUESTIONS = ("How does the with statement call the context manager?", "What does the alignment option do?")
USERS = ("Ann", "Bob", "Cid", "Dan")
PASSAGE_CHARACTERS = 2000


class BM25Retriever(BaseRetriever):
    """Finds passages by BM25."""

    passages: list[Document]
    _index: bm25s.BM25 = PrivateAttr(default_factory=bm25s.BM25)

    def model_post_init(self, _: object) -> None:
        texts = [passage.page_content for passage in self.passages]
        self._index.index(bm25s.tokenize(texts, show_progress=False), show_progress=False)

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,  # noqa: ARG002
    ) -> list[Document]:
        asked = bm25s.tokenize(query, show_progress=False)
        found, _ = self._index.retrieve(asked, k=20, show_progress=False)
        return [self.passages[index] for index in found[0]]


def passages() -> list[Document]:
    """The reference in passages that end where a paragraph does."""
    cut: list[Document] = []
    for chapter in reference():
        start, text = 0, ""
        for paragraph in chapter.page_content.split("\n\n"):
            text += paragraph + "\n\n"
            if len(text) > PASSAGE_CHARACTERS:
                cut.append(Document(text, metadata={"source": chapter.id, "start_index": start}))
                start, text = start + len(text), ""
        cut.append(Document(text, metadata={"source": chapter.id, "start_index": start}))
    return cut


if __name__ == "__main__":
    with bedrock() as client:
        retriever = StableOrderRetriever(retriever=BM25Retriever(passages=passages()), k=4)
        answering = cached_context_prompt() | CacheAwareChatBedrockConverse(model=MODEL, client=client)
        # What a question finds is written once it was found before, and read from then on.
        for user in USERS:
            for question in QUESTIONS:
                found = retriever.invoke(question)
                answer = answering.invoke({"context": found, "input": f"{user} asks: {question}"})
                print(f"{user}: {question:55}{told(answer)}")
        for passage in found:
            said = passage.metadata
            print(f"{said['source']} at {said['start_index']}: number {said['relevance_rank']} by relevance")
