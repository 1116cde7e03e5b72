"""What calls cost, by instrumentation and by callbacks: the ledger's totals, once a call."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError
from llama_index.core import Document, MockEmbedding, Settings, VectorStoreIndex
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.base.llms.types import ChatMessage, MessageRole
from llama_index.core.callbacks import CallbackManager
from llama_index.core.chat_engine.types import ChatMode
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from llama_index_instrumentation import get_dispatcher
from llama_index_instrumentation.dispatcher import instrument_tags
from llama_index_kit import CONNECTION, LONG, METHODS, MODEL, answer, recorded
from pydantic import BaseModel

import cachepoint
from cachepoint import CacheLedger, CachePolicy, CallRecord
from cachepoint.core.planning.policy import Mode
from cachepoint.emulator import BedrockEmulator, ToolCall, failed, slow
from cachepoint.errors import BudgetExceeded, CachepointWarning, ConfigurationError
from cachepoint.llama_index import CacheAwareBedrockConverse, PromptCacheCallbackHandler, PromptCacheEventHandler


class City(BaseModel):
    """A city."""

    name: str


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


ABANDONED = "Never mind."
ADD = FunctionTool.from_defaults(add)
ARN = "arn:aws:bedrock:us-east-1:111122223333:application-inference-profile/abc123"
NOVA = "us.amazon.nova-pro-v1:0"
STATIC = ChatMessage(role=MessageRole.SYSTEM, content=LONG)


@pytest.fixture
def emulator() -> Iterator[BedrockEmulator]:
    with BedrockEmulator(keep_text=True, profiles={ARN: MODEL}) as running:
        yield running


@pytest.fixture
def events() -> Iterator[PromptCacheEventHandler]:
    handler = PromptCacheEventHandler()
    root = get_dispatcher()
    root.add_event_handler(handler)
    yield handler
    root.event_handlers.remove(handler)


@pytest.fixture
def callbacks() -> PromptCacheCallbackHandler:
    return PromptCacheCallbackHandler()


@pytest.fixture
def llm(emulator: BedrockEmulator, callbacks: PromptCacheCallbackHandler) -> CacheAwareBedrockConverse:
    return CacheAwareBedrockConverse(
        model=MODEL,
        endpoint_url=emulator.url,
        clock=emulator.clock,
        max_retries=1,
        callback_manager=CallbackManager([callbacks]),
        **CONNECTION,
    )


def chat(question: str) -> list[ChatMessage]:
    return [STATIC, ChatMessage(content=question)]


async def one_of_everything(llm: CacheAwareBedrockConverse, emulator: BedrockEmulator, round_: int) -> None:
    """Twenty-five calls."""
    for method in METHODS:
        await answer(llm, method, f"Question {round_} by {method}. {LONG}" if "complete" in method else chat(method))
    llm.chat(chat("On another model."), model=NOVA)
    llm.model_copy(update={"application_inference_profile_arn": ARN}).chat(chat("By a profile."))
    await asyncio.gather(*(llm.achat(chat(f"At once {n}.")) for n in range(3)))
    llm.structured_predict(City, PromptTemplate("Describe {city}."), city="Paris")
    await llm.astructured_predict(City, PromptTemplate("Describe {city}."), city="Paris")
    for method in ("complete", "astream_chat"):
        await answer(llm.as_structured_llm(City), method, "Describe Rome.")
    llm.chat_with_tools([ADD], "What is 1 + 2?")
    list(llm.stream_chat_with_tools([ADD], "What is 2 + 2?"))
    emulator.script(ToolCall("add", {"a": 1, "b": 1}), "Two.")
    await FunctionAgent(tools=[ADD], llm=llm, system_prompt=LONG).run("What is 1 + 1?")
    await four_without_usage(llm, emulator)


async def four_without_usage(llm: CacheAwareBedrockConverse, emulator: BedrockEmulator) -> None:
    """A call that fails, one that is refused, and two streams that are abandoned."""
    emulator.fail_next(failed(), times=2)
    with pytest.raises(ClientError):
        llm.complete("Hello")
    with pytest.raises(ClientError):
        await llm.achat([ChatMessage(content="")])
    stream = llm.stream_chat(chat(ABANDONED))
    next(stream)
    stream.close()
    calls = llm.ledger.totals().calls
    async for _ in await llm.astream_chat(chat(ABANDONED)):
        break
    await recorded(llm, calls + 1)


async def test_ledger_handlers_and_bill_agree_exactly(
    llm: CacheAwareBedrockConverse,
    emulator: BedrockEmulator,
    events: PromptCacheEventHandler,
    callbacks: PromptCacheCallbackHandler,
) -> None:
    for round_ in range(12):
        emulator.clock.advance(40)
        await one_of_everything(llm, emulator, round_)
    totals = llm.ledger.totals()
    assert totals.calls == 12 * 25
    assert totals.unreported == 12 * 4
    assert callbacks.records == llm.ledger.records
    assert tuple(replace(record, tags={}) for record in events.records) == llm.ledger.records
    for handler in (events, callbacks):
        assert handler.ledger.totals() == totals
        assert handler.by("model") == llm.ledger.by("model")
    # The emulator may have sent the whole of a stream that its reader then left.
    arrived = [line for line in emulator.bill().lines if ABANDONED not in str(line.call.body)]
    assert totals.cost.usd == sum((line.usd or Decimal(0) for line in arrived), Decimal(0))


@pytest.mark.parametrize(("policy", "environment", "mode"), [("off", "", "off"), ("auto", "observe", "observe")])
def test_a_call_that_fails_is_recorded_in_its_mode(
    policy: Mode,
    environment: str,
    mode: str,
    llm: CacheAwareBedrockConverse,
    emulator: BedrockEmulator,
    callbacks: PromptCacheCallbackHandler,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CACHEPOINT_MODE", environment)
    emulator.fail_next(failed(), times=2)
    with pytest.raises(ClientError):
        llm.model_copy(update={"prompt_cache": CachePolicy(mode=policy)}).complete("Hello")
    assert [(record.mode, record.error) for record in callbacks.records] == [(mode, "InternalServerException")]


def test_a_call_by_a_profile_is_recorded_with_its_arn_its_model_and_its_region(
    llm: CacheAwareBedrockConverse, events: PromptCacheEventHandler, callbacks: PromptCacheCallbackHandler
) -> None:
    llm.model_copy(update={"application_inference_profile_arn": ARN}).chat(chat("What does it say?"))
    for kept in (llm.ledger.records, events.records, callbacks.records):
        assert [(record.model, record.base_model, record.region) for record in kept] == [(ARN, MODEL, "us-east-1")]


def test_what_never_reached_the_client_is_no_call(
    llm: CacheAwareBedrockConverse, events: PromptCacheEventHandler, callbacks: PromptCacheCallbackHandler
) -> None:
    with pytest.raises(ConfigurationError, match="tool_call_id"):
        llm.chat([ChatMessage(role=MessageRole.TOOL, content="An answer to nothing.")])
    assert (llm.ledger.totals().calls, events.calls, callbacks.calls) == (0, 0, 0)


def test_a_ledger_whose_sink_fails_keeps_no_handler_from_its_record(
    llm: CacheAwareBedrockConverse, events: PromptCacheEventHandler, callbacks: PromptCacheCallbackHandler
) -> None:
    def full(record: CallRecord) -> None:
        raise OSError

    with pytest.warns(CachepointWarning, match="OSError"):
        llm.model_copy(update={"ledger": CacheLedger(on_call=full)}).chat(chat("What does it say?"))
    assert (events.calls, callbacks.calls) == (1, 1)


async def test_an_engine_around_a_structured_llm_is_counted_once(
    llm: CacheAwareBedrockConverse, events: PromptCacheEventHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    everywhere = PromptCacheCallbackHandler()
    monkeypatch.setattr(Settings, "_callback_manager", CallbackManager([everywhere]))
    index = VectorStoreIndex.from_documents([Document(text=LONG)], embed_model=MockEmbedding(embed_dim=4))
    await index.as_query_engine(llm=llm.as_structured_llm(City)).aquery("Which city?")
    assert events.records == everywhere.records == llm.ledger.records
    assert events.calls == 1


@pytest.mark.parametrize("method", METHODS)
async def test_a_structured_llm_tells_of_its_call(method: str, llm: CacheAwareBedrockConverse) -> None:
    told = (await answer(llm.as_structured_llm(City), method, "Describe Rome.")).additional_kwargs["prompt_cache"]
    [record] = llm.ledger.records
    assert told == record.contract()


def test_a_call_goes_by_the_tags_around_it(llm: CacheAwareBedrockConverse, events: PromptCacheEventHandler) -> None:
    with instrument_tags({"tenant": "a"}), cachepoint.tags(feature="search"):
        llm.chat(chat("One."))
        list(llm.stream_chat(chat("Two.")))
    with instrument_tags({"tenant": "b"}):
        llm.chat(chat("Three."))
    assert {tenant: sums.calls for tenant, sums in events.by("tenant").items()} == {"a": 2, "b": 1}
    assert events.by("feature")["search"].calls == 2


async def test_an_agents_run_can_be_told_from_another(
    llm: CacheAwareBedrockConverse, emulator: BedrockEmulator, events: PromptCacheEventHandler
) -> None:
    agent = FunctionAgent(tools=[ADD], llm=llm, system_prompt=LONG)
    emulator.script(ToolCall("add", {"a": 1, "b": 1}), "Two.", "Nothing.")
    await agent.run("What is 1 + 1?")
    await agent.run("And now?")
    assert sorted(sums.calls for sums in events.by("llamaindex.run_id").values()) == [1, 2]


def test_an_engine_that_brings_its_own_callback_manager_is_counted(
    llm: CacheAwareBedrockConverse, events: PromptCacheEventHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    everywhere = PromptCacheCallbackHandler()
    monkeypatch.setattr(Settings, "_callback_manager", CallbackManager([everywhere]))
    index = VectorStoreIndex.from_documents([Document(text=LONG)], embed_model=MockEmbedding(embed_dim=4))
    index.as_query_engine(llm=llm).query("What does it say?")
    index.as_chat_engine(chat_mode=ChatMode.CONTEXT, llm=llm).chat("What does it say?")
    assert events.calls == 2
    assert everywhere.calls == 2


def test_a_budget_stops_the_next_call(emulator: BedrockEmulator) -> None:
    handler = PromptCacheCallbackHandler(budget_usd="0.005")
    llm = CacheAwareBedrockConverse(
        model=MODEL, endpoint_url=emulator.url, callback_manager=CallbackManager([handler]), **CONNECTION
    )
    llm.chat(chat("What does it say?"))
    with pytest.raises(BudgetExceeded, match=r"of a budget of 0\.005 USD"):
        llm.chat(chat("And then?"))
    assert len(emulator.requests) == 1


def with_budget(emulator: BedrockEmulator, usd: str, **settings: Any) -> CacheAwareBedrockConverse:
    handler = PromptCacheCallbackHandler(budget_usd=usd)
    given: dict[str, Any] = {**CONNECTION, "callback_manager": CallbackManager([handler]), **settings}
    return CacheAwareBedrockConverse(model=MODEL, endpoint_url=emulator.url, **given)


def handler_of(llm: CacheAwareBedrockConverse) -> PromptCacheCallbackHandler:
    (handler,) = llm.callback_manager.handlers
    assert isinstance(handler, PromptCacheCallbackHandler)
    return handler


def test_twenty_threads_overspend_by_one_call_at_most(emulator: BedrockEmulator) -> None:
    llm = with_budget(emulator, "0.05", max_tokens=50)
    emulator.fail_next(slow(0.02), times=1000)

    def call(number: int) -> int:
        try:
            llm.chat(chat(f"{number}?"))
        except BudgetExceeded:
            return 0
        return 1

    with ThreadPoolExecutor(20) as threads:
        sent = sum(threads.map(call, range(60)))
    handler = handler_of(llm)
    assert sent == len(emulator.requests) == handler.calls
    assert handler.cost.usd == emulator.bill().total
    # The dearest it can be: 8,400 bytes at 1.9 each, an hour's write at 6.60 USD a million, 50 tokens at 16.50.
    assert handler.cost.usd < Decimal("0.05") + Decimal("0.0301")


def test_a_clock_that_fails_is_no_reason_to_overspend(emulator: BedrockEmulator) -> None:
    """What is kept for a call is priced by the time of day then."""
    llm = with_budget(emulator, "0.01", max_tokens=1000)
    llm.clock = lambda: 1 // 0
    with pytest.warns(CachepointWarning, match="the clock raised ZeroDivisionError"):
        chunks = llm.stream_chat(chat("What does it say?"))
        next(chunks)
    with pytest.raises(BudgetExceeded, match="kept for calls under way"):
        llm.chat(chat("And then?"))
    chunks.close()


async def test_a_stream_that_is_left_counts_at_its_estimate(emulator: BedrockEmulator) -> None:
    """Each at some 0.045 USD, as no more than 1,000 tokens were asked for; Converse had told nothing by then."""
    llm = with_budget(emulator, "0.05", max_tokens=1000)
    for _ in range(2):
        async for _ in await llm.astream_chat(chat("What does it say?")):
            break
    await recorded(llm, 2)
    handler = handler_of(llm)
    with pytest.raises(BudgetExceeded, match=r"^0 USD are spent, and .* cut off or cancelled"):
        await llm.achat(chat("And then?"))
    assert handler.cost.usd == 0


def test_nothing_is_kept_for_a_call_that_is_over(emulator: BedrockEmulator) -> None:
    llm = with_budget(emulator, "0.1")
    emulator.fail_next(failed("ResourceNotFoundException"), times=10)
    for _ in range(10):
        with pytest.raises(ClientError):
            llm.chat(chat("What does it say?"))
    llm.chat(chat("What does it say?"))
    assert handler_of(llm).calls == 11
    assert not handler_of(llm)._spending._under_way


def test_a_call_inside_of_another_event_keeps_its_estimate_once(emulator: BedrockEmulator) -> None:
    """LlamaIndex announces a call around a structured one, and a budget of 0.001 is less than one estimate."""
    llm = with_budget(emulator, "0.001")
    emulator.script(ToolCall("City", {"name": "Rome"}))
    assert llm.as_structured_llm(City).complete("Describe Rome.").raw == City(name="Rome")
    assert handler_of(llm).calls == 1


@pytest.mark.parametrize("wrong", [-1, "much", True, float("inf")])
def test_a_budget_must_be_an_amount(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="budget_usd="):
        PromptCacheCallbackHandler(budget_usd=wrong)


def test_each_record_goes_to_the_users_own_sink(llm: CacheAwareBedrockConverse) -> None:
    seen: list[str] = []
    handler = PromptCacheEventHandler(on_call=lambda record: seen.append(record.model))
    root = get_dispatcher()
    root.add_event_handler(handler)
    try:
        llm.chat(chat("What does it say?"))
    finally:
        root.event_handlers.remove(handler)
    assert seen == [MODEL]
    assert handler.summary().splitlines()[-1].startswith("all")


@pytest.mark.parametrize("usage", ["secret", [1], {"inputTokens": -5}, {"inputTokens": float("nan")}], ids=repr)
def test_an_odd_usage_is_untold_everywhere(usage: Any) -> None:
    class Service:
        meta = SimpleNamespace(region_name="us-east-1", endpoint_url="")

        def converse(self, **_: Any) -> Any:
            answer = {"role": "assistant", "content": [{"text": "Hi"}]}
            return {"output": {"message": answer}, "stopReason": "end_turn", "usage": usage}

        def converse_stream(self, **_: Any) -> Any:
            return {"stream": iter([{"messageStop": {"stopReason": "end_turn"}}, {"metadata": {"usage": usage}}])}

    handler = PromptCacheCallbackHandler()
    llm = CacheAwareBedrockConverse(model=MODEL, client=Service(), callback_manager=CallbackManager([handler]))
    with pytest.warns(CachepointWarning) as found:
        whole = llm.chat(chat("Hello"))
        (streamed,) = llm.stream_chat(chat("Hello"))
    assert len(found) == 1
    for response in (whole, streamed):
        assert "prompt_tokens" not in response.additional_kwargs
        assert response.additional_kwargs["prompt_cache"]["usage"] is None
    for ledger in (handler.ledger, llm.ledger):
        assert [(record.usage, record.cost) for record in ledger.records] == [(None, None)] * 2
