"""`StableOrderPostprocessor`: retrieved nodes in an order that keeps the prompt's prefix."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from llama_index.core.bridge.pydantic import Field, PrivateAttr
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import BaseNode, MetadataMode, NodeWithScore, QueryBundle
from typing_extensions import override  # a dependency of llama-index-core

from cachepoint.bedrock.settings import check_own_names
from cachepoint.bedrock.tags import current_tags
from cachepoint.core.retrieval.ordering import (
    DocumentKey,
    Order,
    SessionOrders,
    content_digest,
    document_key,
    most_relevant,
    stable_order,
)

LABEL = "cite_as"
"""The key of a label in a node's metadata, by which it stands in the text; documents often have a `label` of theirs."""

VOLATILE_METADATA = ("retrieval_score", "relevance_score", "score", "similarity", "distance", "last_accessed")
"""Metadata that other postprocessors write and that differs from query to query."""

_SESSION = "session"
_LABEL_DIGITS = 6


class StableOrderPostprocessor(BaseNodePostprocessor):
    """Puts nodes into a stable order; goes last in `node_postprocessors`.

    Drops nodes of the same content, whatever their metadata, takes the `top_n` most relevant of the rest (by score
    where all have one, else in the order given), and orders them. "sorted" gives equal sets equal bytes in every
    process. "session" keeps the order in which a session was first shown them and appends new ones; the session is that
    of `cachepoint.tags(session=…)`, and without one the postprocessor's whole life. Of the 1,000 sessions used last it
    remembers 500 nodes each, by their keys. Scores stay with the nodes and out of their text.
    """

    top_n: int | None = Field(default=None, gt=0, description="At most so many nodes, the most relevant.")
    order: Order = Field(default="sorted", description='"sorted" or "session".')
    key: Callable[[BaseNode], Any] | None = Field(
        default=None, exclude=True, description="What to sort by, in place of reference document or source, and offset."
    )
    labels: bool = Field(
        default=False, description="Begin each text with a label for citations, in the metadata as `cite_as`."
    )
    volatile_metadata: tuple[str, ...] = Field(
        default=VOLATILE_METADATA, description="Metadata keys kept out of the text."
    )

    _sessions: SessionOrders = PrivateAttr(default_factory=SessionOrders)

    if not TYPE_CHECKING:  # a checker makes the signature of the fields

        def __init__(self, **data: Any) -> None:
            check_own_names(self, data, {*type(self).model_fields, "class_name"})
            super().__init__(**data)

    @classmethod
    def class_name(cls) -> str:
        """The name under which LlamaIndex serialises the class."""
        return "StableOrderPostprocessor"

    @override
    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        shown = [self._as_shown(item) for item in _by_relevance(nodes)]
        relevant = [item for _, item in most_relevant(shown, text=_text, at_most=self.top_n)]
        relevant.sort(key=_as_read)  # which of two with one key and content is shown must not depend on their scores
        if self.order == "sorted":
            return stable_order(relevant, text=_text, key=self._key)
        return self._sessions.ordered(current_tags().get(_SESSION, ""), relevant, text=_text, key=self._key)

    def _key(self, item: NodeWithScore) -> Any:
        return (self.key or node_key)(item.node)

    def _as_shown(self, item: NodeWithScore) -> NodeWithScore:
        """The node as the model is to see it; the retriever's own node is left alone."""
        node = item.node
        kept_out = [name for name in self.volatile_metadata if name in node.metadata]
        changes: dict[str, Any] = {}
        if self.labels:
            changes["metadata"] = {LABEL: "", **node.metadata} | {LABEL: label_of(node)}
            changes["excluded_embed_metadata_keys"] = [*node.excluded_embed_metadata_keys, LABEL]
        if kept_out:
            changes["excluded_llm_metadata_keys"] = [*node.excluded_llm_metadata_keys, *kept_out]
        return NodeWithScore(node=node.model_copy(update=changes), score=item.score) if changes else item


def node_key(node: BaseNode) -> DocumentKey:
    """The default key: reference document, else source and position in it; else content.

    Node ids, and the random ids documents have unless someone names them, change when documents are ingested again.
    """
    offset = getattr(node, "start_char_idx", None)
    return document_key(_content(node), document_id=node.ref_doc_id, metadata=node.metadata, offset=offset)


def label_of(node: BaseNode) -> str:
    """A short label that depends on the node's content alone, not on its position among others."""
    return content_digest(_content(node))[:_LABEL_DIGITS]


def _by_relevance(nodes: list[NodeWithScore]) -> list[NodeWithScore]:
    if any(item.score is None for item in nodes):
        return nodes
    return sorted(nodes, key=NodeWithScore.get_score, reverse=True)


def _content(node: BaseNode) -> str:
    return node.get_content(MetadataMode.NONE) or node.hash


def _text(item: NodeWithScore) -> str:
    return _content(item.node)


def _as_read(item: NodeWithScore) -> str:
    return item.node.get_content(MetadataMode.LLM)
