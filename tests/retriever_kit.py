"""What the retriever suites share: documents, and a retriever that finds them."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import uuid4

from hypothesis import strategies as st
from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever

PAGES = tuple(
    Document(f"Page {number} of the manual says what happens at step {number}.", id=f"page-{number}")
    for number in range(8)
)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
metadata = st.fixed_dictionaries(
    {},
    optional={
        "source": st.sampled_from(["a.pdf", "b.pdf"]),
        "page": st.integers(0, 12),
        "start_index": st.integers(0, 3000),
        "score": st.floats(0, 1),
    },
)
documents = st.builds(
    lambda text, said, name: Document(text, metadata=said, id=name),
    texts,
    metadata,
    st.none() | st.sampled_from(["one", "two", "three"]) | st.builds(lambda: str(uuid4())),
)


class Found(BaseRetriever):
    """A retriever that finds what it was told to, the most relevant first."""

    documents: Sequence[Document]

    def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:
        return list(self.documents)


def contents(found: Sequence[Document]) -> list[str]:
    return [document.page_content for document in found]
