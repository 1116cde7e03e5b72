"""InvokeModel through an aiobotocore client, wrapped."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from itertools import count

import pytest
from converse_kit import SYSTEM, Bedrock
from messages_kit import body, request, user

import cachepoint
from cachepoint.bedrock.client import AsyncCacheClient

pytest.importorskip("aiobotocore", reason="the extra `async` is not installed")

_accounts = count()
ASKED = request(body(user("Why?"), system=SYSTEM))
ASKED_AGAIN = request(body(user("And what not?"), system=SYSTEM))


@pytest.fixture
async def wrapped(bedrock: Bedrock) -> AsyncIterator[AsyncCacheClient]:
    from aiobotocore.session import get_session  # type: ignore[import-untyped]

    made = get_session().create_client(
        "bedrock-runtime",
        region_name="us-east-1",
        endpoint_url=bedrock.emulator.url,
        aws_access_key_id=f"ASYNC{next(_accounts)}",
        aws_secret_access_key="emulator",
    )
    async with made as client:
        yield cachepoint.wrap_async(client, clock=bedrock.clock)


async def test_the_second_call_is_a_hit_and_the_body_is_read_in_every_way(wrapped: AsyncCacheClient) -> None:
    first = await wrapped.invoke_model(**ASKED)
    async with first["body"] as stream:
        whole = await stream.read()
    second = await wrapped.invoke_model(**ASKED_AGAIN)
    in_chunks = b"".join([chunk async for chunk in second["body"].iter_chunks(9)])
    third = await wrapped.invoke_model(**request(body(user("But why?"), system=SYSTEM)))
    in_lines = b"\n".join([line async for line in third["body"].iter_lines()])
    assert [response["promptCache"]["status"] for response in (first, second, third)] == ["written", "hit", "hit"]
    assert all(json.loads(raw)["content"] for raw in (whole, in_chunks, in_lines))


async def test_one_event_of_a_stream_tells(wrapped: AsyncCacheClient) -> None:
    response = await wrapped.invoke_model_with_response_stream(**ASKED)
    events = [event async for event in response["body"]]
    assert [event["promptCache"]["status"] for event in events if "promptCache" in event] == ["written"]
    assert json.loads(events[-1]["chunk"]["bytes"])["type"] == "message_stop"


async def test_an_abandoned_stream_is_recorded_as_such(wrapped: AsyncCacheClient) -> None:
    response = await wrapped.invoke_model_with_response_stream(**ASKED)
    stream = response["body"]
    async for _ in stream:
        break
    stream.close()
    assert [record.error for record in wrapped.ledger.records] == ["abandoned"]
