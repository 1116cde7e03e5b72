"""Batches of calls on one cold prefix, and prefixes written ahead of time."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from botocore.config import Config
from botocore.retries.standard import ExponentialBackoff
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_core.runnables import RunnableConfig

import cachepoint
from cachepoint.core.planning.policy import CachePolicy
from cachepoint.emulator import BedrockEmulator, Latency, failed
from cachepoint.emulator.replies import Question
from cachepoint.errors import ConfigurationError
from cachepoint.langchain import CacheAwareChatBedrockConverse

MODEL = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
MANUAL = "A checkpoint marks where a prefix ends that may be read again. " * 600


def model_on(bedrock: BedrockEmulator, **settings: Any) -> CacheAwareChatBedrockConverse:
    return CacheAwareChatBedrockConverse(model=MODEL, client=bedrock.client(), clock=bedrock.clock, **settings)


def questions(count: int) -> list[Any]:
    return [[SystemMessage(MANUAL), HumanMessage(f"Question {number}?")] for number in range(count)]


@pytest.fixture
def slow_bedrock() -> Any:
    """A Bedrock whose calls overlap: answers take a while, as real ones do."""
    with BedrockEmulator(
        latency=Latency(fixed=0.05, uncached_token=0.00002, cached_token=0.0, output_token=0.0005, sleep=True)
    ) as bedrock:
        yield bedrock


def full_writes(model: CacheAwareChatBedrockConverse) -> int:
    return sum(record.usage is not None and record.usage.cache_write > 3000 for record in model.ledger.records)


def test_a_batch_on_a_cold_prefix_writes_it_once(slow_bedrock: BedrockEmulator) -> None:
    model = model_on(slow_bedrock)
    model.batch(questions(12))
    assert full_writes(model) == 1
    assert model.ledger.totals().calls == 12


def test_a_batch_of_bound_tools_and_one_at_a_time_do_not_deadlock(slow_bedrock: BedrockEmulator) -> None:
    model = model_on(slow_bedrock)
    model.bind(stop=["END"]).batch(questions(4), {"max_concurrency": 1})
    assert full_writes(model) == 1


def test_results_as_completed_come_all(slow_bedrock: BedrockEmulator) -> None:
    model = model_on(slow_bedrock)
    assert {number for number, _ in model.batch_as_completed(questions(6))} == set(range(6))
    assert full_writes(model) == 1


async def test_async_followers_wait_on_the_loop_and_leave_the_threads_free() -> None:
    asked, answer_now = threading.Event(), threading.Event()

    def reply(_: Question) -> str:
        asked.set()
        answer_now.wait(60)
        return "noon"

    with BedrockEmulator(replies=reply) as bedrock:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(2))
        model = model_on(bedrock)
        batch = asyncio.ensure_future(model.abatch(questions(6)))
        with ThreadPoolExecutor(1) as outside:
            assert await loop.run_in_executor(outside, asked.wait, 60)  # the leader is under way in one of the two
        assert await asyncio.wait_for(asyncio.to_thread(lambda: "free"), 30) == "free"
        answer_now.set()
        assert len(await batch) == 6
    assert full_writes(model) == 1
    assert model.ledger.totals().calls == 6


async def test_async_streams_share_one_write(slow_bedrock: BedrockEmulator) -> None:
    model = model_on(slow_bedrock)

    async def stream(question: Any) -> str:
        return "".join([str(chunk.content) async for chunk in model.astream(question)])

    with cachepoint.fan_out():
        answers = await asyncio.gather(*(stream(question) for question in questions(8)))
    assert all(answers)
    assert full_writes(model) == 1
    assert model.ledger.totals().calls == 8


def test_two_streams_on_one_thread_do_not_wait_for_each_other(slow_bedrock: BedrockEmulator) -> None:
    model = model_on(slow_bedrock)
    first, second = questions(2)
    with cachepoint.fan_out():
        one, other = model.stream(first), model.stream(second)
        next(one)
        next(other)
        assert list(one) is not None
        assert list(other) is not None
    assert full_writes(model) == 1


def test_a_leader_that_fails_lets_the_others_go_unqueued(slow_bedrock: BedrockEmulator) -> None:
    slow_bedrock.fail_next(failed("ModelErrorException", "no"))  # a refused request would be repeated
    model = model_on(slow_bedrock)
    answers = model.batch(questions(6), return_exceptions=True)
    assert sum(isinstance(answer, Exception) for answer in answers) == 1
    assert model.ledger.totals().calls == 6


AT_ONCE: RunnableConfig = {"max_concurrency": 20}


async def gathered(model: CacheAwareChatBedrockConverse, asked: list[Any]) -> list[Any]:
    return await model.abatch(asked, AT_ONCE, return_exceptions=True)


async def gathered_as_completed(model: CacheAwareChatBedrockConverse, asked: list[Any]) -> list[Any]:
    return [each async for _, each in model.abatch_as_completed(asked, AT_ONCE, return_exceptions=True)]


async def batch(model: CacheAwareChatBedrockConverse, asked: list[Any]) -> list[Any]:
    return await asyncio.to_thread(model.batch, asked, AT_ONCE, return_exceptions=True)


async def batch_as_completed(model: CacheAwareChatBedrockConverse, asked: list[Any]) -> list[Any]:
    completed = partial(model.batch_as_completed, asked, AT_ONCE, return_exceptions=True)
    return [each for _, each in await asyncio.to_thread(lambda: list(completed()))]


@pytest.mark.parametrize("way", [batch, batch_as_completed, gathered, gathered_as_completed])
async def test_in_an_outage_a_batch_costs_no_more_than_the_parents(way: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every call's first attempt fails before any call's second, which is held here until the last has failed."""
    monkeypatch.setattr(ExponentialBackoff, "delay_amount", lambda *_: 0.0)
    together = threading.Barrier(20)

    def hold(attempts: int, **_: Any) -> None:
        if attempts == 1:
            together.wait(30)

    with BedrockEmulator() as bedrock:
        bedrock.fail_next(failed("ServiceUnavailableException"), times=40)
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(21))
        client = bedrock.client(config=Config(retries={"total_max_attempts": 2, "mode": "standard"}))
        client.meta.events.register("needs-retry.bedrock-runtime", hold)
        model = CacheAwareChatBedrockConverse(model=MODEL, client=client, clock=bedrock.clock)
        ended = await way(model, questions(20))
    assert [type(each).__name__ for each in ended] == ["ServiceUnavailableException"] * 20


def test_a_warmed_prefix_is_read_by_the_first_call() -> None:
    with BedrockEmulator() as bedrock:
        model = model_on(bedrock)
        written = model.warm([SystemMessage(MANUAL)])
        assert written.response_metadata["prompt_cache"]["status"] == "written"
        answer = model.invoke(questions(1)[0])
        assert answer.response_metadata["prompt_cache"]["status"] in ("hit", "extended")


async def test_warming_works_from_a_loop_with_tools_and_a_ttl() -> None:
    with BedrockEmulator() as bedrock:
        model = model_on(bedrock, prompt_cache=CachePolicy(learn=False))
        tools = [{"name": "look", "description": "Look it up.", "input_schema": {"type": "object", "properties": {}}}]
        written = await model.awarm([SystemMessage(MANUAL)], tools=tools, ttl="1h")
        assert written.response_metadata["prompt_cache"]["usage"]["cache_write_1h"] > 3000
        answer = await model.bind_tools(tools).ainvoke(questions(1)[0])
        assert answer.response_metadata["prompt_cache"]["usage"]["cache_read"] > 3000


@pytest.mark.parametrize("nothing", [[], [SystemMessage("")], [HumanMessage([])]])
def test_warming_nothing_is_refused(slow_bedrock: BedrockEmulator, nothing: list[Any]) -> None:
    with pytest.raises(ConfigurationError, match="nothing to write"):
        model_on(slow_bedrock).warm(nothing)
    assert slow_bedrock.requests == []
