"""What the suites about order and layout share: nodes, and a retriever that finds them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from llama_index.core.indices.query.schema import QueryBundle
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import MetadataMode, NodeRelationship, NodeWithScore, RelatedNodeInfo, TextNode
from llama_index_kit import CONNECTION, LONG, MODEL

from cachepoint.emulator import BedrockEmulator
from cachepoint.llama_index import CacheAwareBedrockConverse

PASSAGES = {name: f"{name} {LONG[:1500]}" for name in ("alpha", "beta", "gamma", "delta")}


def model(emulator: BedrockEmulator, **settings: Any) -> CacheAwareBedrockConverse:
    """An LLM on the emulator, which tells it the time."""
    return CacheAwareBedrockConverse(
        model=MODEL, endpoint_url=emulator.url, clock=emulator.clock, **CONNECTION, **settings
    )


def node(name: str, score: float | None = 0.5, offset: int = 0, **metadata: Any) -> NodeWithScore:
    """A node with a random id, cut from the document named after it."""
    found = TextNode(text=PASSAGES.get(name, name), metadata=metadata, start_char_idx=offset)
    found.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id=f"doc-{name}")
    return NodeWithScore(node=found, score=score)


def texts(nodes: Sequence[NodeWithScore]) -> list[str]:
    """What the model would be shown of the nodes."""
    return [item.node.get_content(MetadataMode.LLM) for item in nodes]


def contents(nodes: Sequence[NodeWithScore]) -> list[str]:
    """What the nodes hold, metadata aside."""
    return [item.node.get_content(MetadataMode.NONE) for item in nodes]


class Shuffled(BaseRetriever):
    """Finds the same passages every time, each time in another order and with other scores."""

    def __init__(self, names: Sequence[str] = tuple(PASSAGES)) -> None:
        self._names = list(names)
        self._random = random.Random(7)
        super().__init__()

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        names = self._random.sample(self._names, len(self._names))
        return [node(name, self._random.random(), retrieval_score=self._random.random()) for name in names]
