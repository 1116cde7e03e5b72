"""A budget that is spent stops the next call before it is sent."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import pytest
from botocore.exceptions import ClientError
from langchain_aws import ChatBedrock
from langchain_core.caches import InMemoryCache
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import HumanMessage
from langchain_core.outputs import ChatResult
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langchain_kit import MODEL, MakeModel, control_client, question

from cachepoint import wrap
from cachepoint.emulator import BedrockEmulator, failed, slow
from cachepoint.errors import BudgetExceeded, ConfigurationError
from cachepoint.langchain import (
    CacheAwareChatBedrockConverse,
    PromptCacheCallbackHandler,
    get_prompt_cache_callback,
)


@pytest.fixture
def spent(model: CacheAwareChatBedrockConverse) -> PromptCacheCallbackHandler:
    handler = PromptCacheCallbackHandler(budget_usd="0.001")
    model.invoke(question(), config={"callbacks": [handler]})
    return handler


async def test_nothing_is_sent_once_the_budget_is_spent(
    emulator: BedrockEmulator, model: CacheAwareChatBedrockConverse, spent: PromptCacheCallbackHandler
) -> None:
    bound = model.with_config(callbacks=[spent])
    with pytest.raises(BudgetExceeded, match=r"of a budget of 0\.001 USD; the next call was not sent"):
        bound.invoke(question())
    with pytest.raises(BudgetExceeded):
        list(bound.stream(question()))
    with pytest.raises(BudgetExceeded):
        bound.batch([question(), question()])
    with pytest.raises(BudgetExceeded):
        await bound.ainvoke(question())
    with pytest.raises(BudgetExceeded):
        [chunk async for chunk in bound.astream(question())]
    assert len(emulator.requests) == 1
    assert spent.calls == 1


def test_neither_a_retry_nor_a_fallback_gets_past_it(
    emulator: BedrockEmulator, model: CacheAwareChatBedrockConverse, spent: PromptCacheCallbackHandler
) -> None:
    stubborn = model.with_retry(stop_after_attempt=2, wait_exponential_jitter=False).with_fallbacks([model])
    with pytest.raises(BudgetExceeded):
        stubborn.invoke(question(), config={"callbacks": [spent]})
    assert len(emulator.requests) == 1


def test_it_stops_a_chain_in_the_middle(emulator: BedrockEmulator, model: CacheAwareChatBedrockConverse) -> None:
    twice = model | RunnableLambda(lambda _: question("Again?")) | model
    with get_prompt_cache_callback(budget_usd=0.001) as cache, pytest.raises(BudgetExceeded):
        twice.invoke(question())
    assert (len(emulator.requests), cache.calls) == (1, 1)


def test_what_is_left_of_a_budget_may_be_spent(model: CacheAwareChatBedrockConverse) -> None:
    with get_prompt_cache_callback(budget_usd=5) as cache:
        for number in range(3):
            model.invoke(question(f"{number}?"))
    assert cache.calls == 3


@pytest.mark.parametrize("amount", ["much", -1, float("nan"), True])
def test_a_budget_that_is_no_amount_is_refused(amount: str | float) -> None:
    with pytest.raises(ConfigurationError, match="budget_usd"):
        PromptCacheCallbackHandler(budget_usd=amount)


# -- calls under way, cancelled and cut ------------------------------------------------------------


def left(handler: PromptCacheCallbackHandler) -> tuple[int, int]:
    """How many calls a handler still keeps something of, and for how many it keeps money."""
    assert handler.calls >= 0  # whoever looks has everything counted that was put off
    return len(handler._started), len(handler._spending._under_way)


async def test_cancelled_calls_count_what_they_cost(
    emulator: BedrockEmulator, model: CacheAwareChatBedrockConverse
) -> None:
    """A call of 0.002 USD each; without it 40 of them went past a budget of 0.01."""
    emulator.fail_next(slow(0.03), times=80)
    handler, cancelled, stopped = PromptCacheCallbackHandler(budget_usd="0.01"), 0, 0
    for number in range(20):
        call = asyncio.create_task(model.ainvoke(question(f"{number}?"), config={"callbacks": [handler]}))
        await asyncio.sleep(0.02)
        call.cancel()
        try:
            await call
        except asyncio.CancelledError:
            cancelled += 1
        except BudgetExceeded:
            stopped += 1
    await until(lambda: left(handler) == (0, 0))
    assert stopped > 10
    assert cancelled + stopped == 20
    assert handler.cost == model.ledger.totals().cost
    assert handler.cost.usd == emulator.bill().total
    assert handler.calls == model.ledger.totals().calls == cancelled


async def test_a_cancelled_call_of_another_class_counts_at_its_estimate() -> None:
    class Slow(GenericFakeChatModel):
        async def _agenerate(self, *_: object, **__: object) -> ChatResult:
            await asyncio.sleep(60)
            raise AssertionError

    model = Slow(messages=iter([]), name=MODEL)
    params = {"callbacks": [PromptCacheCallbackHandler(budget_usd="0.05")], "metadata": {"ls_model_name": MODEL}}
    call = asyncio.create_task(model.ainvoke("Hello", config=params))  # type: ignore[arg-type]
    await asyncio.sleep(0.01)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    # 4,096 tokens of output at 16.50 USD a million, and a few of input
    with pytest.raises(BudgetExceeded, match=r"^0 USD are spent, and 0\.0676\d+ USD are kept for calls under way, cut"):
        await model.ainvoke("Hello", config=params)  # type: ignore[arg-type]


async def test_a_stream_that_is_left_counts_at_its_estimate(emulator: BedrockEmulator, make_model: MakeModel) -> None:
    """Converse has told nothing of it by then.

    1,000 tokens at 16.50 USD a million after a prompt of at most 4,400 at 6.60, an hour's write, are 0.046 USD, and one
    token after it is 0.029.
    """
    model, handler = make_model(max_tokens=1000), PromptCacheCallbackHandler(budget_usd="0.07")
    config = RunnableConfig(callbacks=[handler])
    for _ in model.stream(question(), config=config):
        break
    assert [(record.error, record.usage, record.at_least) for record in handler.records] == [("abandoned", None, True)]
    async for _ in model.bind(max_tokens=1).astream(question(), config=config):
        break
    await until(lambda: handler.calls == 2)
    with pytest.raises(BudgetExceeded, match=r"^0 USD are spent, and .* cut off or cancelled"):
        model.invoke(question(), config=config)
    assert handler.cost.usd == 0
    assert left(handler) == (0, 0)


def test_what_an_invoke_model_stream_told_counts_in_ledger_and_handler(emulator: BedrockEmulator) -> None:
    client = wrap(emulator.client(), clock=emulator.clock)
    model = ChatBedrock(model=MODEL, client=client, bedrock_client=control_client(), region="us-east-1")
    handler = PromptCacheCallbackHandler(budget_usd="0.001")
    for _ in model.stream(question(), config={"callbacks": [handler]}):
        break
    gc.collect()
    (ours,), (theirs,) = client.ledger.records, handler.records
    assert (ours.usage, ours.cost, ours.at_least) == (theirs.usage, theirs.cost, True)
    assert ours.cost is not None
    assert ours.cost.usd > Decimal("0.004")
    with pytest.raises(BudgetExceeded):
        model.invoke(question(), config={"callbacks": [handler]})


def test_twenty_threads_overspend_by_one_call_at_most(emulator: BedrockEmulator, make_model: MakeModel) -> None:
    model, handler = make_model(max_tokens=50), PromptCacheCallbackHandler(budget_usd="0.05")
    emulator.fail_next(slow(0.02), times=1000)

    def call(number: int) -> int:
        try:
            model.invoke(question(f"{number}?"), config={"callbacks": [handler]})
        except BudgetExceeded:
            return 0
        return 1

    with ThreadPoolExecutor(20) as threads:
        sent = sum(threads.map(call, range(60)))
    assert sent == len(emulator.requests) == handler.calls
    assert handler.cost.usd == emulator.bill().total
    # The dearest it can be: 8,400 bytes at 1.9 each, an hour's write at 6.60 USD a million, 50 tokens at 16.50.
    assert handler.cost.usd < Decimal("0.05") + Decimal("0.0301")
    assert left(handler) == (0, 0)


def test_nothing_is_kept_for_a_call_that_is_over(emulator: BedrockEmulator, make_model: MakeModel) -> None:
    """Answered, failed, refused, answered from LangChain's cache, not sent at all: 1,000 estimates fit no budget."""
    handler = PromptCacheCallbackHandler(budget_usd="0.1")
    config = RunnableConfig(callbacks=[handler])
    model = make_model(cache=InMemoryCache(), max_retries=1)
    for _ in range(3):
        model.invoke(question(), config=config)
    emulator.fail_next(failed("ResourceNotFoundException"), times=10)
    for _ in range(10):
        with pytest.raises(ClientError):
            make_model(max_retries=1).invoke(question(), config=config)
        with pytest.raises(ValueError, match="content"):
            make_model().invoke([HumanMessage([{"type": "no-such-block"}])], config=config)
    assert handler.answered_from_cache == 2
    assert left(handler) == (0, 0)
    model.invoke(question("Another?"), config=config)


def test_a_call_that_another_budget_stops_is_none(model: CacheAwareChatBedrockConverse) -> None:
    with get_prompt_cache_callback(budget_usd=1) as outer, get_prompt_cache_callback(budget_usd=0) as inner:
        for _ in range(20):
            with pytest.raises(BudgetExceeded, match="of a budget of 0 USD"):
                model.invoke(question())
    assert (outer.calls, inner.calls, left(outer), left(inner)) == (0, 0, (0, 0), (0, 0))


async def until(done: Callable[[], bool]) -> None:
    """Wait for what a thread does once its call has ended."""
    for _ in range(500):
        if done():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("not within five seconds")
