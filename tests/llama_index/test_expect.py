"""What an argument, or a mark on a message, says of requests to come."""

from __future__ import annotations

from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatMessage, MessageRole, ToolCallBlock
from llama_index_kit import CONNECTION, LONG, METHODS, MODEL, answer, sent

import cachepoint
from cachepoint.emulator import BedrockEmulator
from cachepoint.errors import ConfigurationError
from cachepoint.llama_index import CacheAwareBedrockConverse

EXPECT = "prompt_cache_expect"
SAID: dict[str, Any] = {EXPECT: {"ends": False}}


@pytest.fixture
def llm(emulator: BedrockEmulator) -> CacheAwareBedrockConverse:
    return CacheAwareBedrockConverse(model=MODEL, endpoint_url=emulator.url, clock=emulator.clock, **CONNECTION)


def was_told(response: Any) -> bool:
    points = response.additional_kwargs["prompt_cache"]["checkpoints"]
    return any("you said that it comes back" in point["why"] for point in points)


@pytest.mark.parametrize("method", METHODS)
async def test_an_argument_says_it_whatever_the_method(
    llm: CacheAwareBedrockConverse, emulator: BedrockEmulator, method: str
) -> None:
    assert not was_told(await answer(llm, method, LONG))
    assert was_told(await answer(llm, method, f"Else: {LONG}", **SAID))
    assert EXPECT not in str(sent(emulator)[-1])


async def test_the_settings_of_an_llm_say_it_for_every_call(llm: CacheAwareBedrockConverse) -> None:
    always = llm.model_copy(update={"additional_kwargs": SAID})
    assert was_told(await answer(always, "chat", LONG))
    assert not was_told(await answer(always, "chat", f"Else: {LONG}", **{EXPECT: {"ends": True}}))


async def test_the_block_says_it_too(llm: CacheAwareBedrockConverse) -> None:
    with cachepoint.expect(ends=False):
        assert was_told(await answer(llm, "achat", LONG))


def test_a_mark_on_a_message_says_it_of_its_turn(llm: CacheAwareBedrockConverse) -> None:
    marked = ChatMessage(content=LONG, additional_kwargs=SAID)
    said = ChatMessage(role=MessageRole.ASSISTANT, content="So.")
    assert was_told(llm.chat([marked]))
    assert not was_told(llm.chat([marked, said, ChatMessage(content=LONG[::-1] * 5)]))
    call = ToolCallBlock(tool_call_id="use-1", tool_name="find", tool_kwargs={})
    result = ChatMessage(role=MessageRole.TOOL, content="Found.", additional_kwargs={"tool_call_id": "use-1"})
    turn = [ChatMessage(content=f"Else: {LONG}", additional_kwargs=SAID)]
    assert was_told(llm.chat([*turn, ChatMessage(role=MessageRole.ASSISTANT, blocks=[call]), result]))


@pytest.mark.parametrize("wrong", [{"end": True}, "goes on", {"times": 0}])
def test_a_wrong_one_is_refused_before_anything_is_sent(
    llm: CacheAwareBedrockConverse, emulator: BedrockEmulator, wrong: Any
) -> None:
    with pytest.raises(ConfigurationError):
        llm.chat([ChatMessage(content=LONG)], **{EXPECT: wrong})
    with pytest.raises(ConfigurationError):
        llm.chat([ChatMessage(content=LONG, additional_kwargs={EXPECT: wrong})])
    assert not emulator.requests
