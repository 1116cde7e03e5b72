"""Tokens are counted exactly and once, on every path."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events import BaseEvent
from llama_index.core.instrumentation.events.llm import LLMChatEndEvent, LLMCompletionEndEvent
from llama_index.core.prompts import PromptTemplate
from llama_index_instrumentation import get_dispatcher
from llama_index_kit import CHAT_METHODS, LONG, METHODS, MakeLLM, answer, cache_point
from pydantic import BaseModel

from cachepoint.core.provider.usage import Usage
from cachepoint.emulator import BedrockEmulator

STRUCTURED = [*CHAT_METHODS, "complete", "acomplete"]
"""The methods of LlamaIndex's StructuredLLM."""


class City(BaseModel):
    """A city."""

    name: str
    country: str


def nonsense_tokens(text: str) -> list[int]:
    """A tokenizer whose counts are wrong for sure, so that an estimate cannot pass for the real figure."""
    return [0] * (7_000_000 + len(text))


def counter() -> TokenCountingHandler:
    return TokenCountingHandler(tokenizer=nonsense_tokens)


def served(emulator: BedrockEmulator) -> Usage:
    return emulator.bill().usage


@pytest.mark.parametrize("method", METHODS)
async def test_token_counting_is_exact_and_counts_a_call_once(
    method: str, make_llm: MakeLLM, emulator: BedrockEmulator
) -> None:
    counted = counter()
    await answer(make_llm(callback_manager=CallbackManager([counted])), method, LONG)
    assert len(counted.llm_token_counts) == 1
    assert counted.prompt_llm_token_count == served(emulator).prompt
    assert counted.completion_llm_token_count == served(emulator).output


@pytest.mark.parametrize("method", CHAT_METHODS)
async def test_cached_tokens_are_counted_as_prompt_tokens(
    method: str, make_llm: MakeLLM, emulator: BedrockEmulator
) -> None:
    counted = counter()
    llm = make_llm(callback_manager=CallbackManager([counted]))
    question = [ChatMessage(blocks=[*ChatMessage(content=LONG).blocks, cache_point()])]
    for _ in range(2):
        await answer(llm, method, question)
    assert served(emulator).cache_read > 0
    assert counted.prompt_llm_token_count == served(emulator).prompt


def test_structured_prediction_counts_its_call_once(make_llm: MakeLLM, emulator: BedrockEmulator) -> None:
    counted = counter()
    llm = make_llm(callback_manager=CallbackManager([counted]))
    llm.structured_predict(City, PromptTemplate("Describe {city}."), city="Paris")
    assert len(counted.llm_token_counts) == 1
    assert counted.prompt_llm_token_count == served(emulator).prompt


@pytest.mark.parametrize("method", METHODS)
async def test_the_response_says_what_was_read_and_written(
    method: str, make_llm: MakeLLM, emulator: BedrockEmulator
) -> None:
    response = await answer(make_llm(), method, LONG)
    usage = served(emulator)
    assert response.additional_kwargs["cache_read_input_tokens"] == usage.cache_read
    assert response.additional_kwargs["cache_creation_input_tokens"] == usage.cache_write
    assert response.additional_kwargs["prompt_tokens"] == usage.prompt


@pytest.mark.parametrize("method", METHODS)
async def test_raw_has_the_same_shape_on_every_path(method: str, make_llm: MakeLLM) -> None:
    raw: Any = (await answer(make_llm(), method, "Hello")).raw
    assert raw["stopReason"] == "end_turn"
    assert raw["usage"]["outputTokens"] > 0


class _Ends(BaseEventHandler):
    """Collects the events that end a call."""

    seen: list[str] = []  # noqa: RUF012  (a pydantic field)

    def handle(self, event: BaseEvent, **kwargs: Any) -> None:
        if isinstance(event, LLMChatEndEvent | LLMCompletionEndEvent):
            self.seen.append(type(event).__name__)


@pytest.fixture
def ends() -> Iterator[_Ends]:
    handler = _Ends()
    root = get_dispatcher()
    root.add_event_handler(handler)
    yield handler
    root.event_handlers.remove(handler)


@pytest.mark.parametrize("method", METHODS)
async def test_instrumentation_sees_one_call_as_one(method: str, make_llm: MakeLLM, ends: _Ends) -> None:
    await answer(make_llm(), method, "Hello")
    assert len(ends.seen) == 1


@pytest.mark.parametrize("method", STRUCTURED)
async def test_a_structured_llm_is_one_call(method: str, make_llm: MakeLLM, ends: _Ends) -> None:
    await answer(make_llm().as_structured_llm(City), method, "Describe Paris.")
    assert len(ends.seen) == 1


@pytest.mark.parametrize("method", STRUCTURED)
async def test_a_structured_llms_tokens_are_counted_once(
    method: str, make_llm: MakeLLM, emulator: BedrockEmulator
) -> None:
    counted = counter()
    callbacks = CallbackManager([counted])
    llm = make_llm(callback_manager=callbacks).as_structured_llm(City, callback_manager=callbacks)
    await answer(llm, method, "Describe Paris.")
    assert len(counted.llm_token_counts) == 1
    assert counted.prompt_llm_token_count == served(emulator).prompt


def test_usage_stays_out_of_the_message(make_llm: MakeLLM) -> None:
    response = make_llm().chat([ChatMessage(content="Hello")])
    assert not any("tokens" in key or "usage" in key for key in response.message.additional_kwargs)
