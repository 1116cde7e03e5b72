"""A long mixed run: the ledger equals the bill over all answers whose usage arrived, and the bill lists the rest."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, EventStreamError
from converse_kit import (
    DOCUMENT,
    NOVA,
    SONNET,
    SYSTEM,
    Bedrock,
    Json,
    assistant,
    question,
    text,
    tool,
    tool_result,
    tool_use,
    user,
)

import cachepoint
from cachepoint import CacheLedger, CachePolicy, MemoryStore
from cachepoint.emulator import BedrockEmulator, cut_stream, failed, reset_after_serving, slow, stream_error, throttled
from cachepoint.emulator._bill import total_usage, total_usd

TOOLS: Json = {"tools": [tool("search"), tool("fetch", SYSTEM[:6000])]}


@pytest.fixture
def bedrock() -> Iterator[Bedrock]:
    with BedrockEmulator() as emulator:
        yield Bedrock(emulator, "EMULATOR")


def asked(chance: random.Random) -> Json:
    """A request like those of several applications on two models."""
    model = chance.choice([SONNET, NOVA])
    number = chance.randrange(1000)
    kind = chance.randrange(4)
    if kind == 0:
        return question(number, model)
    if kind == 1:
        return {"modelId": model, "messages": [user(f"{DOCUMENT[:12000]}\n\nQuestion {number}?")]}
    if kind == 2:
        messages = [user(f"Task {number % 5}."), assistant(tool_use(1)), user(tool_result(1, SYSTEM[:3000]))]
        return {"modelId": model, "system": [text(SYSTEM)], "toolConfig": TOOLS, "messages": messages}
    turns = [turn for place in range(number % 4) for turn in (user(f"Turn {place}: {SYSTEM[:2000]}"), assistant("So."))]
    return {"modelId": model, "system": [text(SYSTEM)], "messages": [*turns, user(f"And {number}?")]}


def assert_equal(ledger: CacheLedger, bedrock: Bedrock, calls: int) -> None:
    bill, totals = bedrock.emulator.bill(), ledger.totals()
    assert totals.calls == calls
    assert totals.usage == total_usage(bill.reported)
    assert totals.cost.usd == total_usd(bill.reported)
    assert totals.unpriced == 0
    assert sum(record.usage is not None for record in ledger.records) == len(bill.reported)
    assert len(bill.reported) + len(bill.unreported) == len(bill.lines)


class Run:
    """Calls of every kind through wrapped clients that share a ledger and a store."""

    def __init__(self, bedrock: Bedrock) -> None:
        self.bedrock, self.chance = bedrock, random.Random(7)
        self.ledger, self.store = CacheLedger(), MemoryStore()
        shared: Json = {"ledger": self.ledger, "store": self.store}
        self.client, self.once = bedrock.wrapped(**shared), bedrock.once(CachePolicy(ttl="1h"), **shared)
        self.calls = 0

    def request(self) -> Json:
        self.calls += 1
        self.bedrock.clock.advance(self.chance.choice([0.1, 5.0, 30.0]))
        return asked(self.chance)

    def plain(self) -> None:
        self.client.converse(**self.request())

    def streamed(self) -> None:
        list(self.client.converse_stream(**self.request())["stream"])

    def batched(self) -> None:
        requests = [self.request() for _ in range(10)]
        with ThreadPoolExecutor(5) as pool:
            list(pool.map(lambda request: self.client.converse(**request), requests))

    def refused(self) -> None:
        self.bedrock.emulator.fail_next(failed("ModelErrorException"))
        with pytest.raises(ClientError):
            self.once.converse(**self.request())

    def throttled(self) -> None:
        self.bedrock.emulator.fail_next(throttled())
        with pytest.raises(ClientError):
            self.once.converse(**self.request())

    def lost(self) -> None:
        """Served and billed, its answer lost on the way, and asked again by botocore."""
        self.bedrock.emulator.fail_next(reset_after_serving())
        self.client.converse(**self.request())

    def broken_off(self) -> None:
        self.bedrock.emulator.fail_next(self.chance.choice([cut_stream(), stream_error()]))
        with suppress(EventStreamError, Exception):
            list(self.once.converse_stream(**self.request())["stream"])

    def abandoned(self) -> None:
        self.bedrock.emulator.fail_next(slow(0.02))
        stream = self.client.converse_stream(**self.request())["stream"]
        list(islice(stream, 2))
        stream.close()


def test_500_calls_of_every_kind(bedrock: Bedrock) -> None:
    run = Run(bedrock)
    kinds: list[tuple[Callable[[], None], int]] = [
        (run.plain, 165), (run.streamed, 120), (run.batched, 18), (run.refused, 10), (run.throttled, 10),
        (run.lost, 3), (run.broken_off, 6), (run.abandoned, 6),
    ]  # fmt: skip
    order = [kind for kind, times in kinds for _ in range(times)]
    run.chance.shuffle(order)
    for call in order:
        call()
    assert run.calls == 500
    assert_equal(run.ledger, bedrock, 500)
    totals = run.ledger.totals()
    assert (totals.unreported, len(bedrock.emulator.bill().unreported)) == (10 + 10 + 6 + 6, 3 + 6 + 6)
    assert set(run.ledger.by("model")) == {SONNET, NOVA}
    assert totals.hit_rate > 0.5
    assert totals.cost.saved_usd > 0


async def test_60_asynchronous_calls(bedrock: Bedrock) -> None:
    session = pytest.importorskip("aiobotocore.session", reason="aiobotocore is not installed").get_session()
    chance, ledger = random.Random(11), CacheLedger()
    making = session.create_client(
        "bedrock-runtime", region_name="us-east-1", endpoint_url=bedrock.emulator.url,
        aws_access_key_id="EMULATOR", aws_secret_access_key="emulator",
    )  # fmt: skip

    async def streamed(client: Any, request: Json) -> None:
        async for _ in (await client.converse_stream(**request))["stream"]:
            pass

    async with making as raw:
        client = cachepoint.wrap_async(raw, ledger=ledger, clock=bedrock.clock)
        for _ in range(6):
            calls = [client.converse(**asked(chance)) for _ in range(6)]
            streams = [streamed(client, asked(chance)) for _ in range(4)]
            await asyncio.gather(*calls, *streams)
            bedrock.clock.advance(60)
    assert_equal(ledger, bedrock, 60)


async def test_120_calls_through_langchain(bedrock: Bedrock) -> None:
    pytest.importorskip("langchain_aws", reason="langchain-aws is not installed")
    from cachepoint.langchain import CacheAwareChatBedrockConverse

    ledger, store = CacheLedger(), MemoryStore()

    def search(query: str) -> str:
        """Search the archive."""
        return query

    def chat(model: str) -> Any:
        raw = bedrock.client(config=Config(retries={"total_max_attempts": 1}))
        return CacheAwareChatBedrockConverse(model=model, client=raw, ledger=ledger, store=store, clock=bedrock.clock)

    for model in (chat(SONNET), chat(NOVA)):
        prompts = [[("system", SYSTEM), ("user", f"Question {number}?")] for number in range(10)]
        for prompt in prompts:
            model.invoke(prompt)
        for prompt in prompts:
            list(model.stream(prompt))
        model.batch(prompts)
        await model.abatch(prompts)
        for prompt in prompts:
            _ = [chunk async for chunk in model.astream(prompt)]
        for prompt in prompts[:9]:
            model.bind_tools([search]).invoke(prompt)
        bedrock.emulator.fail_next(failed("ModelErrorException"))
        with pytest.raises(ClientError):
            model.invoke(prompts[0])
    assert_equal(ledger, bedrock, 120)
    assert ledger.totals().hit_rate > 0.5
