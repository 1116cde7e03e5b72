"""An emulator whose time stands still until a test moves it, and the client of one account."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from cachepoint.emulator import BedrockEmulator, Clock

SONNET = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
# About 1,500 tokens on every model of the tests that use it.
LONG_TEXT = "The lighthouse keeper writes down the weather of every hour in his book. " * 100


@pytest.fixture
def emulator() -> Iterator[BedrockEmulator]:
    with BedrockEmulator(clock=Clock(lambda: 1_750_000_000.0)) as running:
        yield running


@pytest.fixture
def client(emulator: BedrockEmulator) -> Any:
    return emulator.client()


def cached_system(text: str = LONG_TEXT, **point: str) -> list[dict[str, Any]]:
    """A system prompt with a checkpoint at its end."""
    return [{"text": text}, {"cachePoint": {"type": "default", **point}}]


def ask(text: str = "What was the weather at noon?") -> list[dict[str, Any]]:
    """A conversation of one question."""
    return [{"role": "user", "content": [{"text": text}]}]
