"""What all LlamaIndex suites share."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from cachepoint.emulator import BedrockEmulator

# Warnings that LlamaIndex itself gives rise to, in whatever LLM it runs.
LLAMA_INDEX_WARNINGS = (
    "ignore::pydantic.warnings.PydanticDeprecationWarning",
    "ignore:is_running called from within a step:DeprecationWarning",
    # Its synchronous calls leave an event loop behind, and the pair of sockets in it.
    "ignore:unclosed event loop:ResourceWarning",
    r"ignore:unclosed <socket.socket fd=\d+, family=1,:ResourceWarning",
    "ignore:.*aiosqlite.*:ResourceWarning",
    "ignore:.*aiosqlite.*:pytest.PytestUnraisableExceptionWarning",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            for warning in LLAMA_INDEX_WARNINGS:
                item.add_marker(pytest.mark.filterwarnings(warning))


@pytest.fixture(autouse=True, scope="module")
def its_garbage_is_collected_here() -> Iterator[None]:
    """What LlamaIndex leaves open is collected under these filters, not in a test of something else."""
    yield
    gc.collect()


@pytest.fixture
def emulator() -> Iterator[BedrockEmulator]:
    """A running emulator that keeps what it was sent."""
    with BedrockEmulator(keep_text=True) as running:
        yield running
