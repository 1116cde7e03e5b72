"""`StableOrderPostprocessor`: retrieved nodes in an order that keeps the prompt's prefix."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from llama_index.core.bridge.pydantic import Field, PrivateAttr
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import BaseNode, MetadataMode, NodeWithScore, QueryBundle
from typing_extensions import override  # a dependency of llama-index-core

from cachepoint.core.ordering import Order, content_digest, document_key, shown_after, stable_order, without_duplicates

LABEL = "label"
"""The key of a label in a node's metadata, by which it stands in the text."""

VOLATILE_METADATA = ("retrieval_score", "relevance_score", "score", "similarity", "distance", "last_accessed")
"""Metadata that other postprocessors write and that differs from query to query."""

_SOURCES = ("file_path", "url", "source", "file_name")
_LABEL_DIGITS = 6


class StableOrderPostprocessor(BaseNodePostprocessor):
    """Puts nodes into a stable order; goes last in `node_postprocessors`.

    Drops nodes with the same text, takes the `top_n` most relevant of the rest, and orders them: "sorted" gives equal
    sets equal bytes in every process; "session" keeps the order in which nodes were first shown by this postprocessor
    and appends new ones, so use one a conversation. Scores stay with the nodes and out of their text.
    """

    top_n: int | None = Field(default=None, gt=0, description="At most so many nodes, the most relevant.")
    order: Order = Field(default="sorted", description='"sorted" or "session".')
    key: Callable[[BaseNode], Any] | None = Field(
        default=None, exclude=True, description="What to sort by, in place of reference document or source, and offset."
    )
    labels: bool = Field(default=False, description="Begin each text with a label that a citation can name.")
    volatile_metadata: tuple[str, ...] = Field(
        default=VOLATILE_METADATA, description="Metadata keys kept out of the text."
    )

    _shown: tuple[Hashable, ...] = PrivateAttr(default=())

    @classmethod
    def class_name(cls) -> str:
        """The name under which LlamaIndex serialises the class."""
        return "StableOrderPostprocessor"

    @override
    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        def key(item: NodeWithScore) -> Any:
            return self.key(item.node) if self.key else node_key(item.node)

        relevant = without_duplicates([self._as_shown(item) for item in nodes], _text)[: self.top_n]
        ordered = stable_order(relevant, text=_text, key=key, order=self.order, shown=self._shown)
        if self.order == "session":
            self._shown = shown_after(self._shown, ordered, key)
        return ordered

    def _as_shown(self, item: NodeWithScore) -> NodeWithScore:
        """The node as the model is to see it; the retriever's own node is left alone."""
        node = item.node
        kept_out = [name for name in self.volatile_metadata if name in node.metadata]
        changes: dict[str, Any] = {}
        if self.labels:
            changes["metadata"] = {LABEL: label_of(node), **node.metadata}
            changes["excluded_embed_metadata_keys"] = [*node.excluded_embed_metadata_keys, LABEL]
        if kept_out:
            changes["excluded_llm_metadata_keys"] = [*node.excluded_llm_metadata_keys, *kept_out]
        return NodeWithScore(node=node.model_copy(update=changes), score=item.score) if changes else item


def node_key(node: BaseNode) -> Any:
    """The default key: reference document or source, then offset, else content.

    Node ids, and the random ids documents have unless someone names them, change when documents are ingested again.
    """
    source = next((str(node.metadata[name]) for name in _SOURCES if node.metadata.get(name)), None)
    return document_key(
        _content(node),
        document_id=node.ref_doc_id,
        source=source,
        position=getattr(node, "start_char_idx", None),
    )


def label_of(node: BaseNode) -> str:
    """A short label that depends on the node's content alone, not on its position among others."""
    return content_digest(_content(node))[:_LABEL_DIGITS]


def _content(node: BaseNode) -> str:
    return node.get_content(MetadataMode.NONE) or node.hash


def _text(item: NodeWithScore) -> str:
    return item.node.get_content(MetadataMode.LLM) or item.node.hash
