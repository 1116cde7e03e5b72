"""What the LlamaIndex examples share: where Bedrock is, and something real to ask about."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pydoc_data.topics import topics
from typing import Any

from llama_index.core import Document
from llama_index.core.indices.query.schema import QueryBundle
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import BaseNode, NodeWithScore

from cachepoint.emulator import BedrockEmulator

MODEL = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"


@contextmanager
def bedrock() -> Iterator[dict[str, Any]]:
    """Settings of an LLM for the embedded emulator, or with `--live` for the real service and your credentials."""
    if "--live" in sys.argv:
        yield {"model": MODEL}
        return
    with BedrockEmulator() as emulator:
        keys = {"aws_access_key_id": "EMULATOR", "aws_secret_access_key": "emulator"}
        yield {"model": MODEL, "endpoint_url": emulator.url, "region_name": "us-east-1", **keys}


def reference(*names: str) -> list[Document]:
    """Chapters of the Python language reference, as every Python carries them; all without names."""
    return [Document(text=topics[name], doc_id=name) for name in names or sorted(topics)]


class WordRetriever(BaseRetriever):
    """Finds the passages that share most words with a question; needs no embedding model."""

    def __init__(self, documents: list[Document], passages: int = 6) -> None:
        self._nodes = SentenceSplitter(chunk_size=400, chunk_overlap=0).get_nodes_from_documents(documents)
        self._words = [_words(node.get_content()) for node in self._nodes]
        self._passages = passages
        super().__init__()

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        asked = _words(query_bundle.query_str)

        def score(found: tuple[BaseNode, set[str]]) -> float:
            return len(asked & found[1]) / math.sqrt(len(found[1]) + 20)

        best = sorted(zip(self._nodes, self._words, strict=True), key=score, reverse=True)[: self._passages]
        return [NodeWithScore(node=found[0], score=score(found)) for found in best]


def _words(text: str) -> set[str]:
    return {word for word in re.findall(r"\w+", text.lower()) if len(word) > 3}


def told(response: Any) -> str:
    """One line of what a call told of the cache."""
    contract = response.additional_kwargs["prompt_cache"]
    usage, cost = contract["usage"], contract["cost"]
    return (
        f"{contract['status']:9} read {usage['cache_read']:6,}  written {usage['cache_write_5m']:6,}  "
        f"input {usage['input']:6,}  {cost['usd']} USD, {cost['uncached_usd']} without caching"
    )
