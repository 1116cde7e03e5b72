"""What the LangChain examples share: where Bedrock is, and something real to ask about."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pydoc_data.topics import topics
from typing import Any

import boto3
from langchain_core.documents import Document
from langchain_core.messages import AIMessage

from cachepoint.emulator import BedrockEmulator

MODEL = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"


@contextmanager
def bedrock() -> Iterator[Any]:
    """A boto3 client for the embedded emulator, or with `--live` for the real service and your credentials."""
    if "--live" in sys.argv:
        yield boto3.client("bedrock-runtime")
        return
    with BedrockEmulator() as emulator:
        yield emulator.client()


def reference(*names: str) -> list[Document]:
    """Chapters of the Python language reference, as every Python carries them; all without names."""
    return [Document(topics[name], id=name) for name in names or sorted(topics)]


def told(answer: AIMessage) -> str:
    """One line of what a call told of the cache."""
    return told_by(answer.response_metadata["prompt_cache"])


def told_by(contract: dict[str, Any]) -> str:
    """The same of any call's contract."""
    usage, cost = contract["usage"], contract["cost"]
    written = usage["cache_write_5m"] + usage["cache_write_1h"]
    return (
        f"{contract['status']:9} read {usage['cache_read']:6,}  written {written:6,}  input {usage['input']:6,}  "
        f"{cost['usd']} USD, {cost['uncached_usd']} without caching"
    )
