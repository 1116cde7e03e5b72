"""A budget that is spent stops the next call before it is sent."""

from __future__ import annotations

import pytest
from langchain_core.runnables import RunnableLambda
from langchain_kit import question

from cachepoint.emulator import BedrockEmulator
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
