"""Calls whose end LangChain does not tell: cancelled, left, collected. None stays behind, and what they cost counts."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Any
from uuid import uuid4

import pytest
from fork_kit import forked, join, needs_fork, warned_of_threads
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatResult, LLMResult
from langchain_core.runnables import Runnable, RunnableLambda
from langchain_kit import MakeModel, question

from cachepoint.emulator import BedrockEmulator, slow
from cachepoint.errors import BudgetExceeded
from cachepoint.langchain import CacheAwareChatBedrockConverse, PromptCacheCallbackHandler
from cachepoint.langchain._cost import callback

# What botocore leaves open when a stream is dropped unread, with or without cachepoint.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


class Slow(GenericFakeChatModel):
    """Another provider's model, which takes its time."""

    messages: Iterator[AIMessage | str] = iter(())

    async def _agenerate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        await asyncio.sleep(60)
        raise AssertionError("nobody cancelled it")


@pytest.fixture
def handler() -> Iterator[PromptCacheCallbackHandler]:
    """One of which nothing is under way when the test is over."""
    handler = PromptCacheCallbackHandler()
    yield handler
    gc.collect()
    handler.ledger.totals()
    assert not handler._started
    assert not handler._watched
    assert not handler._outermost


async def cancelled(awaitable: Any, after: float) -> None:
    """Cancel a task of its own."""
    task = asyncio.ensure_future(awaitable)
    await asyncio.sleep(after)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_cancelled_calls_are_counted_for_what_they_cost_once_they_are_answered(
    emulator: BedrockEmulator, model: CacheAwareChatBedrockConverse, handler: PromptCacheCallbackHandler
) -> None:
    """A request on its way is served and billed: 600 of 600 were neither counted nor let go."""
    await model.ainvoke(question())
    for _ in range(3):
        emulator.fail_next(slow(0.2))
        await cancelled(model.ainvoke(question(), config={"callbacks": [handler]}), after=0.05)
    await asyncio.get_running_loop().shutdown_default_executor()
    gc.collect()
    assert model.ledger.totals().calls == len(emulator.bill().lines) == 4
    assert handler.calls == 3
    assert handler.cost.usd == sum(line.usd or 0 for line in emulator.bill().lines[1:])


async def test_a_cancelled_call_of_any_model_is_recorded_and_let_go(handler: PromptCacheCallbackHandler) -> None:
    for _ in range(20):
        await cancelled(Slow().ainvoke("?", config={"callbacks": [handler]}), after=0.001)
    assert [record.error for record in handler.records] == ["CancelledError"] * 20
    assert handler.ledger.totals().unreported == 20


async def test_a_call_that_timed_out_is_let_go_when_its_task_ends(handler: PromptCacheCallbackHandler) -> None:
    async def worker() -> None:
        for _ in range(3):
            with suppress(TimeoutError):
                async with asyncio.timeout(0.001):
                    await Slow().ainvoke("?", config={"callbacks": [handler]})

    await asyncio.create_task(worker())
    await asyncio.sleep(0)
    assert [record.error for record in handler.records] == ["abandoned"] * 3


async def test_a_stream_goes_on_in_another_task_than_it_began_in(
    model: CacheAwareChatBedrockConverse, handler: PromptCacheCallbackHandler
) -> None:
    """As where a server sends a sign of life while it waits for the next chunk."""
    stream = model.astream(question(), config={"callbacks": [handler]})
    while await asyncio.create_task(anext(stream, None)):
        pass
    assert [(record.error, record.status) for record in handler.records] == [(None, "written")]


async def test_a_stream_that_is_cancelled_is_recorded(
    emulator: BedrockEmulator, model: CacheAwareChatBedrockConverse, handler: PromptCacheCallbackHandler
) -> None:
    async def read(stream: AsyncIterator[Any]) -> None:
        async for _ in stream:
            pass

    emulator.fail_next(slow(0.2))
    await cancelled(read(model.astream(question(), config={"callbacks": [handler]})), after=0.1)
    # The thread that reads it may yet be told the usage; then there is one record, of all that is known.
    await asyncio.get_running_loop().shutdown_default_executor()
    gc.collect()
    assert [record.error for record in handler.records] == ["CancelledError"]


@pytest.mark.parametrize("read", [0, 1, 2])
def test_a_stream_of_any_kind_that_is_left_is_recorded_if_it_began(
    model: CacheAwareChatBedrockConverse, handler: PromptCacheCallbackHandler, read: int
) -> None:
    config: Any = {"callbacks": [handler]}
    chain: Runnable[str, Any] = RunnableLambda(question) | model
    streams = (
        model.stream(question(), config=config),
        iter(model.stream_events(question(), config=config, version="v3")),
        chain.stream("What?", config=config),
    )
    for stream in streams:
        for _ in range(read):
            next(stream)
    del stream, streams
    gc.collect()
    assert [record.error for record in handler.records] == ["abandoned"] * (3 if read else 0)


def test_a_stream_may_be_collected_while_a_sink_is_at_work(model: CacheAwareChatBedrockConverse) -> None:
    """With the sink's lock taken, and with the handler's: a second time by the same thread."""
    lock, streams = threading.Lock(), list[Any]()

    def sink(_: object) -> None:
        with lock:
            streams.clear()
            gc.collect()

    handler = PromptCacheCallbackHandler(on_call=sink)

    def work() -> None:
        for _ in range(2):
            stream = model.stream(question(), config={"callbacks": [handler]})
            next(stream)
            streams.append([stream])
            streams[-1].append(streams[-1])
        del stream
        model.invoke(question(), config={"callbacks": [handler]})

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    assert sorted(str(record.error) for record in handler.records) == ["None", "abandoned", "abandoned"]


# -- bounds ---------------------------------------------------------------------------------------


def start(handler: PromptCacheCallbackHandler) -> Any:
    run = uuid4()
    handler.on_chat_model_start({}, [[HumanMessage("?")]], run_id=run, metadata={"ls_model_name": "a model"})
    return run


def answer(tokens: int) -> LLMResult:
    usage: Any = {"input_tokens": tokens, "output_tokens": 0, "total_tokens": tokens}
    return LLMResult(generations=[[ChatGeneration(message=AIMessage("", usage_metadata=usage))]])


def test_calls_beyond_the_bound_are_recorded_as_lost_and_count_once_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(callback, "RUNS_KEPT", 5)
    handler = PromptCacheCallbackHandler()
    with pytest.warns(match="more than 10,000 calls of one callback handler are under way"):
        runs = [start(handler) for _ in range(8)]
    assert (len(handler._started), len(handler._given_up)) == (5, 3)
    assert [record.error for record in handler.records] == ["lost"] * 3
    for run in runs:
        handler.on_llm_end(answer(10), run_id=run)
    assert handler.usage.input == 80
    assert not handler._started
    assert not handler._given_up


def test_runs_at_work_are_remembered_longer_than_those_that_were_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callback, "RUNS_KEPT", 5)
    handler, outermost, inner = PromptCacheCallbackHandler(), uuid4(), uuid4()
    handler.on_chain_start(run_id=outermost)
    handler.on_chain_start(run_id=inner, parent_run_id=outermost)
    for _ in range(20):
        handler.on_tool_start(run_id=uuid4(), parent_run_id=inner)  # a tool that is cancelled tells no end
    run = uuid4()
    handler.on_chat_model_start({}, [[HumanMessage("?")]], run_id=run, parent_run_id=inner)
    handler.on_llm_end(answer(1), run_id=run)
    assert list(handler.by("run")) == [str(outermost)]
    assert len(handler._outermost) <= 5


# -- forks ----------------------------------------------------------------------------------------


@needs_fork
@warned_of_threads
def test_a_child_process_counts_its_own_calls(make_model: MakeModel, handler: PromptCacheCallbackHandler) -> None:
    run = start(handler)
    done = start(handler)
    handler.on_llm_end(answer(10), run_id=done)

    def child() -> None:
        assert (handler.calls, handler.answered_from_cache, handler.records) == (0, 0, ())
        handler.on_llm_end(answer(10), run_id=run)
        assert handler.calls == 0
        handler.on_llm_end(answer(10), run_id=start(handler))
        assert handler.calls == 1

    assert join(forked(child)) == ["well"]
    handler.on_llm_end(answer(10), run_id=run)
    assert handler.calls == 2


@needs_fork
@warned_of_threads
def test_a_child_process_has_what_was_left_of_the_budget(make_model: MakeModel) -> None:
    handler = PromptCacheCallbackHandler(budget_usd="0.0001")
    model = make_model(callbacks=[handler])
    model.invoke(question())  # some 1,600 tokens written, at 3.75 USD a million and more: 0.006 USD

    def child() -> None:
        assert handler.cost.usd == 0
        with pytest.raises(BudgetExceeded):
            model.invoke(question())

    assert join(forked(child)) == ["well"]
