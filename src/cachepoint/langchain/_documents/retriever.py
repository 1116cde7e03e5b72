"""`StableOrderRetriever`: what any retriever finds, in an order that keeps the prompt's prefix."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, get_args

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import BaseDocumentTransformer, Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import Runnable, ensure_config
from langchain_core.runnables.base import coerce_to_runnable
from pydantic import Field, PrivateAttr
from typing_extensions import override  # a dependency of langchain-core

from cachepoint.bedrock.settings import check_own_names
from cachepoint.bedrock.tags import current_tags
from cachepoint.core.retrieval import ordering
from cachepoint.core.retrieval.ordering import DocumentKey, Order, SessionOrders, content_digest, most_relevant
from cachepoint.errors import ConfigurationError
from cachepoint.langchain._cost.run_tags import SESSION, run_tags

RANK = "relevance_rank"
"""Metadata key of a document's place by relevance, 1 for the most relevant."""
SCORE = "relevance_score"
"""Metadata key of the score that a retriever returned beside a document."""
PLACE = "stable_order"
"""Metadata key of what a later step must leave alone: the place in which stable order, and the content's digest."""

Key = Callable[[Document], Any]


def document_key(document: Document) -> DocumentKey:
    """The default key: document id; else source and position in it; else content.

    Random ids, which many vector stores give, change when documents are ingested again and are passed over.
    """
    return ordering.document_key(document.page_content, document_id=document.id, metadata=document.metadata)


def stable_order(
    documents: Iterable[Document],
    *,
    k: int | None = None,
    order: Order = "sorted",
    key: Key | None = None,
    shown: Sequence[Hashable] = (),
) -> list[Document]:
    """The `k` most relevant documents, each once, in an order that keeps the prompt's prefix.

    Takes them in the order of relevance. "sorted": by `key`, by default `document_key`, so that equal sets are equal
    bytes; "session": those whose key is in `shown` first, in that order. Relevance goes into the metadata
    `relevance_rank`. The documents given stay as they are.
    """
    _check(k, key, order)
    ranked = _ranked(documents, k)
    return _placed(ordering.stable_order(ranked, text=_text, key=key or document_key, order=order, shown=shown))


class StableOrderTransformer(BaseDocumentTransformer):
    """`stable_order` as a document transformer, for pipelines of them; goes last."""

    def __init__(self, *, k: int | None = None, key: Key | None = None) -> None:
        _check(k, key)
        self.k = k
        self.key = key

    @override
    def transform_documents(self, documents: Sequence[Document], **_: Any) -> list[Document]:
        return stable_order(documents, k=self.k, key=self.key)


class StableOrderRetriever(BaseRetriever):
    """Wraps any retriever, or a runnable or function that finds documents, and orders what it finds.

    Takes the `k` most relevant first, so that the order costs no relevance. With `order="session"` documents stay in
    the order in which a session was first shown them and new ones are appended; the session is the `session_id` or
    `thread_id` of the run, and without one the retriever's whole life. Of the 1,000 sessions used last it remembers
    500 documents each, by their keys.
    """

    retriever: Runnable[Any, Any] | Callable[[Any], Any]
    k: int | None = Field(default=None, gt=0, description="At most so many documents, the most relevant.")
    order: Order = Field(default="sorted", description='"sorted" or "session".')
    key: Key | None = Field(default=None, exclude=True, description="What to sort by, in place of `document_key`.")

    _sessions: SessionOrders = PrivateAttr(default_factory=SessionOrders)

    if not TYPE_CHECKING:  # a checker makes the signature of the fields

        def __init__(self, **data: Any) -> None:
            check_own_names(self, data, type(self).model_fields)
            super().__init__(**data)

    @override
    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, k: int | None = None, **kwargs: Any
    ) -> list[Document]:
        retriever = coerce_to_runnable(self.retriever)
        found = retriever.invoke(query, {"callbacks": run_manager.get_child()}, **kwargs)
        return self._ordered(found, k, run_manager.metadata)

    @override
    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, k: int | None = None, **kwargs: Any
    ) -> list[Document]:
        found = await coerce_to_runnable(self.retriever).ainvoke(
            query, {"callbacks": run_manager.get_child()}, **kwargs
        )
        return self._ordered(found, k, run_manager.metadata)

    def _ordered(self, found: Iterable[Any], k: int | None, metadata: dict[str, Any] | None) -> list[Document]:
        documents = [_document(item) for item in found]
        k = self.k if k is None else k
        if self.order == "sorted":
            return stable_order(documents, k=k, key=self.key)
        session, key = _session(metadata), self.key or document_key
        return _placed(self._sessions.ordered(session, _ranked(documents, k), text=_text, key=key))


def _session(metadata: dict[str, Any] | None) -> str:
    known = {**ensure_config().get("configurable", {}), **(metadata or {})}
    return {**current_tags(), **run_tags(known, ())}.get(SESSION, "")


def _document(found: Any) -> Document:
    """What a retriever returned, a document or a pair of one and its score, as a document."""
    if isinstance(found, Document):
        return found
    document, score = found
    return _with(document, {SCORE: score})


def _check(k: Any, key: Any = None, order: Any = "sorted") -> None:
    if k is not None and not (type(k) is int and k >= 1):
        raise ConfigurationError(f"k={k!r:.80}: give a number of documents, 1 or more")
    if key is not None and not callable(key):
        raise ConfigurationError(f"key={key!r:.80}: give a function of a document, or leave it out")
    if order not in get_args(Order):
        raise ConfigurationError(f"order={order!r:.80}: use one of {get_args(Order)}")


def _ranked(documents: Iterable[Document], k: int | None) -> list[Document]:
    _check(k)
    relevant = most_relevant(_by_relevance(list(documents)), text=_text, at_most=k)
    # Which of two with one key and content is shown must not depend on their relevance: their sources are shown too.
    relevant.sort(key=lambda ranked: str(ranked[1].metadata.get("source")))
    return [_with(document, {RANK: rank}) for rank, document in relevant]


def _placed(ordered: Iterable[Document]) -> list[Document]:
    documents = list(ordered)
    digests = [content_digest(document.page_content) for document in documents]
    together = content_digest("".join(digests))
    return [
        _with(document, {PLACE: {"order": together, "position": position, "digest": digest}})
        for position, (document, digest) in enumerate(zip(documents, digests, strict=True))
    ]


def _by_relevance(documents: list[Document]) -> list[Document]:
    # What is in stable order already tells its relevance by rank.
    if all(PLACE in document.metadata and RANK in document.metadata for document in documents):
        return sorted(documents, key=lambda document: document.metadata[RANK])
    return documents


def _with(document: Document, metadata: dict[str, Any]) -> Document:
    return document.model_copy(update={"metadata": {**document.metadata, **metadata}})


def _text(document: Document) -> str:
    return document.page_content
