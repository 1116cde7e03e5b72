"""What a user says of requests to come, around the calls it is about."""

from __future__ import annotations

import contextvars
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from converse_kit import SONNET, SYSTEM, Bedrock, Json, checkpoints, text, user

import cachepoint
from cachepoint.errors import ConfigurationError

QUESTION: Json = {"modelId": SONNET, "messages": [user(SYSTEM)]}
"""A first question of 2,300 tokens, which is most often the only one."""
TAIL = [("messages[0].content[1]", "5m")]


def placed(bedrock: Bedrock) -> list[tuple[str, str]]:
    return checkpoints(bedrock.bodies[-1])


def test_a_conversation_that_is_said_to_go_on_is_written(bedrock: Bedrock) -> None:
    client = bedrock.wrapped()
    client.converse(**QUESTION)
    assert placed(bedrock) == []
    other = {**QUESTION, "messages": [user(SYSTEM[::-1])]}
    with cachepoint.expect(ends=False):
        told = client.converse(**other)["promptCache"]
    assert placed(bedrock) == TAIL
    assert told["checkpoints"][0]["why"].startswith("end of a first question: you said that it comes back")


def test_a_conversation_that_is_said_to_end_is_not_and_says_why(bedrock: Bedrock) -> None:
    client = bedrock.wrapped()
    turns = {**QUESTION, "messages": [user(SYSTEM), {"role": "assistant", "content": [text("So.")]}, user("And?")]}
    with cachepoint.expect(ends=True):
        told = client.converse(**turns)["promptCache"]
    assert placed(bedrock) == []
    assert {place["reason"] for place in told["held"]} == {"not_expected"}
    client.converse(**turns)
    assert placed(bedrock) != []


def test_it_is_asked_for_in_words_that_say_something() -> None:
    with pytest.raises(ConfigurationError, match="expect\\(\\) says nothing"), cachepoint.expect():
        pass
    with pytest.raises(ConfigurationError, match="times=0"), cachepoint.expect(times=0):
        pass
    with pytest.raises(ConfigurationError, match="back_in=1000"), cachepoint.expect(back_in=10**400):
        pass  # which no float has, so that planning failed


def test_inner_blocks_go_before_outer_ones_and_end_with_them(bedrock: Bedrock) -> None:
    client = bedrock.wrapped()
    with cachepoint.expect(ends=True):
        with cachepoint.expect(back_in=60):
            client.converse(**QUESTION)
        assert placed(bedrock) == TAIL
        client.converse(**{**QUESTION, "messages": [user(SYSTEM[::-1])]})
        assert placed(bedrock) == []


def test_threads_that_run_in_a_copy_of_the_context_are_told(bedrock: Bedrock) -> None:
    client = bedrock.wrapped()
    with cachepoint.expect(ends=False), ThreadPoolExecutor(1) as pool:
        pool.submit(contextvars.copy_context().run, lambda: client.converse(**QUESTION)).result()
    assert placed(bedrock) == TAIL


async def test_an_async_client_is_told(bedrock: Bedrock) -> None:
    session = pytest.importorskip("aiobotocore.session").AioSession()
    async with session.create_client(
        "bedrock-runtime", region_name="us-east-1", endpoint_url=bedrock.emulator.url,
        aws_access_key_id=bedrock.account, aws_secret_access_key="emulator",
    ) as raw:  # fmt: skip
        with cachepoint.expect(ends=False):
            await cachepoint.wrap_async(raw, clock=bedrock.clock).converse(**QUESTION)
    assert placed(bedrock) == TAIL


def test_a_document_that_comes_five_times_is_written_the_first_time(bedrock: Bedrock) -> None:
    # without it the same block is written the third time: 1 + 1 + 1.25 + 2 x 0.1 against 1.25 + 4 x 0.1
    def bill(**said: Any) -> list[str]:
        client, told = bedrock.wrapped(), []
        for number in range(5):
            asked = {"modelId": SONNET, "messages": [user(SYSTEM + str(said), f"Question {number}?")]}
            if said:
                with cachepoint.expect(**said):
                    told.append(client.converse(**asked)["promptCache"]["status"])
            else:
                told.append(client.converse(**asked)["promptCache"]["status"])
        return told

    assert bill(times=5) == ["written", "hit", "hit", "hit", "hit"]
    assert bill()[0] == "uncached"
