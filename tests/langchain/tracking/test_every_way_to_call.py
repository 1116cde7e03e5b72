"""However a model is called, each call is counted once, and the cost is the bill's to the last digit."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.caches import InMemoryCache
from langchain_core.messages import HumanMessage
from langchain_core.runnables import Runnable, RunnableLambda, RunnableParallel
from langchain_core.tools import tool
from langchain_kit import LONG, MakeModel, question
from pydantic import BaseModel

from cachepoint.emulator import BedrockEmulator, Text, ToolCall, failed, throttled
from cachepoint.langchain import (
    CacheAwareChatBedrockConverse,
    PromptCacheCallbackHandler,
    get_prompt_cache_callback,
)


@pytest.fixture
def cache(emulator: BedrockEmulator) -> Iterator[PromptCacheCallbackHandler]:
    """Counts what the test calls, and in the end compares it with the bill."""
    with get_prompt_cache_callback() as counted:
        yield counted
    assert counted.cost.usd == emulator.bill().total
    assert counted.usage == emulator.bill().usage


def test_two_requests_on_one_long_prompt(
    model: CacheAwareChatBedrockConverse, cache: PromptCacheCallbackHandler
) -> None:
    model.invoke(question("What does it say?"))
    model.invoke(question("Who wrote it?"))
    assert [record.status for record in cache.records] == ["written", "hit"]
    assert cache.calls == 2
    assert cache.hit_rate == cache.usage.cache_read / cache.usage.prompt
    assert cache.cost.saved_usd == cache.cost.uncached_usd - cache.cost.usd


def test_a_stream(model: CacheAwareChatBedrockConverse, cache: PromptCacheCallbackHandler) -> None:
    for _ in model.stream(question()):
        pass
    assert [record.status for record in cache.records] == ["written"]


def test_a_stream_of_events(model: CacheAwareChatBedrockConverse, cache: PromptCacheCallbackHandler) -> None:
    stream = model.stream_events(question(), version="v3")
    assert stream.output.text
    assert [record.status for record in cache.records] == ["written"]


async def test_the_asynchronous_ways(model: CacheAwareChatBedrockConverse, cache: PromptCacheCallbackHandler) -> None:
    await model.ainvoke(question())
    async for _ in model.astream(question()):
        pass
    await model.abatch([question(), question()])
    async for _ in model.astream_events(question(), version="v2"):
        pass
    assert cache.calls == 5


def test_a_batch(model: CacheAwareChatBedrockConverse, cache: PromptCacheCallbackHandler) -> None:
    model.batch([question(f"What about {topic}?") for topic in ("names", "types", "scopes", "loops")])
    assert cache.calls == 4


def test_parallel_branches_are_one_run(model: CacheAwareChatBedrockConverse, cache: PromptCacheCallbackHandler) -> None:
    branches: Runnable[Any, Any] = RunnableParallel(short=model, long=RunnableLambda(lambda _: question()) | model)
    branches.invoke(question("In short?"))
    branches.invoke(question("In short?"))
    assert [totals.calls for totals in cache.by("run").values()] == [2, 2]


def test_structured_output(
    emulator: BedrockEmulator, model: CacheAwareChatBedrockConverse, cache: PromptCacheCallbackHandler
) -> None:
    class Answer(BaseModel):
        """An answer."""

        text: str

    emulator.script(ToolCall("Answer", {"text": "yes"}))
    assert model.with_structured_output(Answer).invoke(question()) == Answer(text="yes")
    assert cache.calls == 1


def test_an_agent_whose_tool_calls_a_model(
    emulator: BedrockEmulator, make_model: MakeModel, cache: PromptCacheCallbackHandler
) -> None:
    inner = make_model()

    @tool
    def look_up(topic: str) -> str:
        """Look a topic up."""
        return str(inner.invoke([HumanMessage(f"{LONG} What about {topic}?")]).text)

    agent = create_agent(make_model(), [look_up], system_prompt=LONG)
    for _ in range(2):
        emulator.script(ToolCall("look_up", {"topic": "types"}), Text("They are strict."), Text("Strict."))
        agent.invoke({"messages": [HumanMessage("How are types?")]})
    assert [totals.calls for totals in cache.by("run").values()] == [3, 3]
    assert set(cache.by("langgraph_node")) == {"model", "tools"}


def test_a_retry_counts_each_attempt_and_what_fails_costs_nothing(
    emulator: BedrockEmulator, make_model: MakeModel, cache: PromptCacheCallbackHandler
) -> None:
    emulator.fail_next(throttled())
    patient = make_model(max_retries=0).with_retry(stop_after_attempt=2, wait_exponential_jitter=False)
    patient.invoke(question())
    assert [record.error for record in cache.records] == ["ThrottlingException", None]
    assert cache.ledger.totals().errors == 1


def test_a_fallback_counts_the_model_that_failed_and_the_one_that_answered(
    emulator: BedrockEmulator, make_model: MakeModel, cache: PromptCacheCallbackHandler
) -> None:
    emulator.fail_next(failed("InternalServerException"))
    other = "us.anthropic.claude-haiku-4-5-20251001-v1:0"
    make_model(max_retries=0).with_fallbacks([make_model(model=other)]).invoke(question())
    totals = cache.by("model")
    assert [each.errors for each in totals.values()] == [1, 0]
    assert totals[other].cost.usd == cache.cost.usd


def test_an_answer_from_langchains_cache_is_no_call_and_costs_nothing(
    make_model: MakeModel, cache: PromptCacheCallbackHandler
) -> None:
    model = make_model(cache=InMemoryCache())
    for _ in range(3):
        model.invoke(question())
    assert cache.calls == 1
    assert cache.answered_from_cache == 2


def test_a_stream_that_is_left_is_recorded_without_a_usage(model: CacheAwareChatBedrockConverse) -> None:
    with get_prompt_cache_callback() as cache:
        stream = model.stream(question())
        next(stream)
        del stream
        gc.collect()
    assert [(record.error, record.usage) for record in cache.records] == [("abandoned", None)]
    assert cache.ledger.totals().unreported == 1


def test_the_ledger_of_the_model_says_the_same(
    model: CacheAwareChatBedrockConverse, cache: PromptCacheCallbackHandler
) -> None:
    calls: list[Callable[[], Any]] = [
        lambda: model.invoke(question()),
        lambda: list(model.stream(question("And then?"))),
        lambda: model.batch([question("One?"), question("Two?")]),
    ]
    for call in calls:
        call()
    mine, theirs = cache.ledger.totals(), model.ledger.totals()
    assert (mine.calls, mine.usage, mine.cost, mine.misses) == (theirs.calls, theirs.usage, theirs.cost, theirs.misses)


def test_a_handler_given_twice_counts_once(
    model: CacheAwareChatBedrockConverse, cache: PromptCacheCallbackHandler
) -> None:
    chain: Runnable[str, Any] = RunnableLambda(question) | model
    chain.invoke("What?", config={"callbacks": [cache]})
    assert cache.calls == 1
