"""Whatever LlamaIndex puts between, a warning is at the user's own line."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatMessage

from cachepoint.emulator import BedrockEmulator
from cachepoint.errors import CachepointWarning
from cachepoint.llama_index import CacheAwareBedrockConverse

pytestmark = pytest.mark.usefixtures("nothing_warned_of")

OPAQUE = "arn:aws:bedrock:us-east-1:111122223333:provisioned-model/abc"
# One call that the adapter cannot read, and a model that the client does not know.
UNREADABLE = [ChatMessage(role="user", content="Hi", additional_kwargs={}),
              ChatMessage(role="assistant", content="Yes.", additional_kwargs={"tool_calls": [{"nothing": 1}]}),
              ChatMessage(content="And now?")]  # fmt: skip


@pytest.fixture
def llm() -> Any:
    with BedrockEmulator(profiles={OPAQUE: "anthropic.claude-sonnet-4-5-20250929-v1:0"}) as emulator:
        yield CacheAwareBedrockConverse(model=OPAQUE, client=emulator.client())


def chat(llm: Any) -> None:
    llm.chat(UNREADABLE)


def stream_chat(llm: Any) -> None:
    list(llm.stream_chat(UNREADABLE))


async def achat(llm: Any) -> None:
    await llm.achat(UNREADABLE)


async def astream_chat(llm: Any) -> None:
    async for _ in await llm.astream_chat(UNREADABLE):
        pass


def where(warned: pytest.WarningsRecorder, call: Callable[..., Any]) -> set[tuple[str, str, bool]]:
    start = call.__code__.co_firstlineno
    return {(str(w.message)[:6], w.filename, w.lineno in range(start, start + 3)) for w in warned}


def both() -> set[tuple[str, str, bool]]:
    return {("a dict", __file__, True), ("cachep", __file__, True)}


@pytest.mark.parametrize("call", [chat, stream_chat])
def test_a_warning_is_at_the_line_that_calls(call: Callable[[Any], None], llm: Any) -> None:
    with pytest.warns(CachepointWarning) as warned:
        call(llm)
    assert where(warned, call) == both()


@pytest.mark.parametrize("call", [achat, astream_chat])
async def test_a_warning_from_a_thread_is_at_the_line_that_calls(
    call: Callable[[Any], Awaitable[None]], llm: Any
) -> None:
    with pytest.warns(CachepointWarning) as warned:
        await call(llm)
    assert where(warned, call) == both()
