"""The pytest fixture `bedrock_emulator`; the emulator is imported only when a test asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from cachepoint.emulator._server import BedrockEmulator


@pytest.fixture
def bedrock_emulator() -> Iterator[BedrockEmulator]:
    """A running BedrockEmulator, fresh for each test."""
    from cachepoint.emulator._server import BedrockEmulator

    with BedrockEmulator() as emulator:
        yield emulator
