"""An emulator that keeps what it is sent, and models that call it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("langchain_aws", reason="the extra `langchain` is not installed")

from langchain_kit import MakeModel, connected

from cachepoint.emulator import BedrockEmulator
from cachepoint.langchain import CacheAwareChatBedrockConverse


@pytest.fixture
def emulator() -> Iterator[BedrockEmulator]:
    with BedrockEmulator(keep_text=True) as running:
        yield running


@pytest.fixture
def make_model(emulator: BedrockEmulator) -> MakeModel:
    def make(**settings: Any) -> CacheAwareChatBedrockConverse:
        return connected(emulator, **settings)

    return make


@pytest.fixture
def model(make_model: MakeModel) -> CacheAwareChatBedrockConverse:
    return make_model()
