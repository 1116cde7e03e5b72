"""`wrap_async` does for aiobotocore what `wrap` does for boto3."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import closing
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import HTTPClientError
from converse_kit import SONNET, SYSTEM, Bedrock, checkpoints, question, tool, user

import cachepoint
from cachepoint import CachePolicy
from cachepoint.emulator import failed, stream_error
from cachepoint.errors import CachepointWarning, ConfigurationError

aiobotocore_session = pytest.importorskip("aiobotocore.session", reason="aiobotocore is not installed")


@pytest.fixture
def making(bedrock: Bedrock) -> Any:
    """What aiobotocore opens a client of the test's account with."""
    from aiobotocore.config import AioConfig  # type: ignore[import-untyped]

    return aiobotocore_session.get_session().create_client(
        "bedrock-runtime",
        region_name="us-east-1",
        endpoint_url=bedrock.emulator.url,
        aws_access_key_id=bedrock.account,
        aws_secret_access_key="emulator",
        config=AioConfig().merge(Config(retries={"total_max_attempts": 1})),
    )


@pytest.fixture
async def raw(making: Any) -> AsyncIterator[Any]:
    """The client."""
    async with making as client:
        yield client


async def test_the_second_call_reads_what_the_first_wrote(bedrock: Bedrock, raw: Any) -> None:
    client = cachepoint.wrap_async(raw, clock=bedrock.clock)
    told = [(await client.converse(**question(number)))["promptCache"] for number in range(2)]
    assert [each["status"] for each in told] == ["written", "hit"]
    assert client.ledger.totals().calls == 2


async def test_a_client_that_is_still_to_be_opened_is_opened_and_closed(bedrock: Bedrock, making: Any) -> None:
    async with cachepoint.wrap_async(making, clock=bedrock.clock) as client:
        assert (await client.converse(**question()))["promptCache"]["status"] == "written"
    with pytest.raises(HTTPClientError):
        await client.converse(**question())


async def test_a_client_that_came_open_is_left_open(bedrock: Bedrock, raw: Any) -> None:
    async with cachepoint.wrap_async(raw, clock=bedrock.clock) as client:
        assert (await client.converse(**question()))["promptCache"]["status"] == "written"
    assert (await client.converse(**question(1)))["promptCache"]["status"] == "hit"


async def test_it_plans_as_the_sync_client_does(bedrock: Bedrock, raw: Any) -> None:
    policy = CachePolicy(ttl="1h")
    await cachepoint.wrap_async(raw, policy, clock=bedrock.clock).converse(**question())
    bedrock.wrapped(policy).converse(**question())
    assert bedrock.bodies[0] == bedrock.bodies[1]


async def test_a_stream_tells_in_its_metadata_event(bedrock: Bedrock, raw: Any) -> None:
    client = cachepoint.wrap_async(raw, clock=bedrock.clock)
    response = await client.converse_stream(**question())
    events = [event async for event in response["stream"]]
    assert events[-1]["metadata"]["promptCache"]["status"] == "written"
    assert [record.status for record in client.ledger.records] == ["written"]


async def test_a_stream_that_is_closed_early_is_recorded_as_abandoned(bedrock: Bedrock, raw: Any) -> None:
    client = cachepoint.wrap_async(raw, clock=bedrock.clock)
    stream = (await client.converse_stream(**question()))["stream"]
    async for _ in stream:
        break
    stream.close()
    assert [(record.usage, record.error) for record in client.ledger.records] == [(None, "abandoned")]


async def test_an_error_in_a_stream_is_recorded(bedrock: Bedrock, raw: Any) -> None:
    client = cachepoint.wrap_async(raw, clock=bedrock.clock)
    bedrock.emulator.fail_next(stream_error())
    with (
        closing((await client.converse_stream(**question()))["stream"]) as stream,
        pytest.raises(Exception, match="hrottl"),
    ):
        async for _ in stream:
            pass
    assert [record.error for record in client.ledger.records] == ["EventStreamError"]


async def test_a_refusal_in_the_first_event_of_a_stream_is_repeated(bedrock: Bedrock, raw: Any) -> None:
    client = cachepoint.wrap_async(raw, clock=bedrock.clock)
    bedrock.emulator.fail_next(stream_error("ValidationException", 0, "Nein."))
    with pytest.warns(CachepointWarning, match="refused a checkpoint in system"):
        events = [event async for event in (await client.converse_stream(**question()))["stream"]]
    assert "messageStop" in str(events)
    assert [(record.error, record.status) for record in client.ledger.records] == [(None, "uncached")]


async def test_a_refused_request_is_repeated_as_the_user_wrote_it(bedrock: Bedrock, raw: Any) -> None:
    client = cachepoint.wrap_async(raw, clock=bedrock.clock)
    bedrock.emulator.refuse_checkpoints("tools", SONNET)
    with pytest.warns(CachepointWarning, match="refused a checkpoint in tools or"):
        await client.converse(**question(), toolConfig={"tools": [tool("search", SYSTEM)]})
    assert bedrock.statuses == [400, 200]
    assert checkpoints(bedrock.bodies[0]) == []


async def test_a_failed_call_is_recorded(bedrock: Bedrock, raw: Any) -> None:
    client = cachepoint.wrap_async(raw, clock=bedrock.clock)
    bedrock.emulator.fail_next(failed("ModelErrorException"))
    with pytest.raises(client.exceptions.ModelErrorException):
        await client.converse(**question())
    assert [record.error for record in client.ledger.records] == ["ModelErrorException"]


async def test_a_cancelled_call_is_recorded(bedrock: Bedrock, raw: Any) -> None:
    client = cachepoint.wrap_async(raw, clock=bedrock.clock)
    calling = asyncio.ensure_future(client.converse(**question()))
    await asyncio.sleep(0)
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    assert [record.error for record in client.ledger.records] == ["CancelledError"]


async def test_many_calls_at_once_are_all_recorded(bedrock: Bedrock, raw: Any) -> None:
    client = cachepoint.wrap_async(raw, clock=bedrock.clock)
    await asyncio.gather(*(client.converse(**question(number)) for number in range(20)))
    totals = client.ledger.totals()
    assert totals.calls == 20
    assert totals.usage.prompt == sum(line.usage.prompt for line in bedrock.bill)


async def test_tags_follow_each_task(bedrock: Bedrock, raw: Any) -> None:
    client = cachepoint.wrap_async(raw, clock=bedrock.clock)

    async def ask(tenant: str) -> None:
        with cachepoint.tags(tenant=tenant):
            await client.converse(modelId=SONNET, messages=[user("Why?")])

    await asyncio.gather(*(ask(tenant) for tenant in "aab"))
    assert {tenant: sums.calls for tenant, sums in client.ledger.by("tenant").items()} == {"a": 2, "b": 1}


async def test_each_kind_of_client_has_its_own_way_to_be_wrapped(bedrock: Bedrock, raw: Any) -> None:
    with pytest.raises(ConfigurationError, match="use wrap_async"):
        cachepoint.wrap(raw)
    with pytest.raises(ConfigurationError, match=r"use wrap$"):
        cachepoint.wrap_async(bedrock.client())


async def test_wrapping_is_named_for_what_it_wraps() -> None:
    with pytest.raises(ConfigurationError, match="wrap_async"):
        cachepoint.wrap_async(object())
