"""Beside other tracers: exact cost where LangSmith reads it, and Langfuse's own handler."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import UsageMetadataCallbackHandler
from langchain_core.tracers import LangChainTracer
from langchain_kit import MODEL, MakeModel, connected, question

from cachepoint.catalogue.price_book import PriceBook
from cachepoint.emulator import BedrockEmulator
from cachepoint.langchain import (
    CacheAwareChatBedrockConverse,
    PromptCacheCallbackHandler,
    get_prompt_cache_callback,
    with_exact_cost,
)

ARN = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc123"


@pytest.fixture
def langsmith(listener: Any) -> Iterator[Any]:
    """LangSmith's own client, told to trace to the listener at once."""
    import langsmith

    client = langsmith.Client(api_url=listener.url, api_key="none", auto_batch_tracing=False)
    with langsmith.tracing_context(client=client, enabled=True):
        yield client


def usages(listener: Any) -> list[dict[str, Any]]:
    """The usage that each run ended with, as LangSmith gets it."""
    return [body["extra"]["metadata"]["usage_metadata"] for method, body in listener.heard if method == "PATCH"]


@pytest.mark.usefixtures("langsmith")
def test_langsmith_gets_exact_cost_inside_the_block(listener: Any, model: CacheAwareChatBedrockConverse) -> None:
    with get_prompt_cache_callback() as cache:
        model.invoke(question("One?"))
        list(model.stream(question("Two?")))
    written, read = usages(listener)
    for usage, record in zip((written, read), cache.records, strict=True):
        assert record.cost is not None
        assert usage["total_cost"] == float(record.cost.usd)
        assert usage["input_cost"] + usage["output_cost"] == pytest.approx(usage["total_cost"], rel=1e-12)
    assert set(written["input_cost_details"]) == {"ephemeral_5m_input_tokens"}
    assert set(read["input_cost_details"]) == {"cache_read"}
    # 0.33 USD per million tokens read, by a profile of the US
    assert read["input_cost_details"]["cache_read"] == pytest.approx(
        read["input_token_details"]["cache_read"] * 0.33e-6, rel=1e-12
    )


def test_langsmith_gets_exact_cost_from_a_tracer_of_the_users(
    listener: Any, langsmith: Any, model: CacheAwareChatBedrockConverse
) -> None:
    model.invoke(question(), config={"callbacks": [LangChainTracer(client=with_exact_cost(langsmith))]})
    (usage,) = usages(listener)
    assert usage["total_cost"] == float(model.ledger.totals().cost.usd)
    assert with_exact_cost(with_exact_cost(langsmith)) is not langsmith


@pytest.mark.usefixtures("langsmith")
def test_langsmith_keeps_the_zero_of_an_answer_from_langchains_cache(listener: Any, make_model: MakeModel) -> None:
    model = make_model(cache=InMemoryCache())
    with get_prompt_cache_callback():
        model.invoke(question())
        model.invoke(question())
    assert [usage["total_cost"] > 0 for usage in usages(listener)] == [True, False]


@pytest.mark.usefixtures("langsmith")
def test_outside_of_it_langsmith_gets_what_it_always_got(listener: Any, model: CacheAwareChatBedrockConverse) -> None:
    model.invoke(question())
    assert "total_cost" not in usages(listener)[0]


def test_messages_keep_a_usage_that_can_be_added_up(model: CacheAwareChatBedrockConverse) -> None:
    langchains = UsageMetadataCallbackHandler()
    with get_prompt_cache_callback() as ours:
        for text in ("One?", "Two?"):
            model.invoke(question(text), config={"callbacks": [langchains]})
    theirs = langchains.usage_metadata[MODEL]
    assert theirs["input_tokens"] == ours.usage.prompt
    assert theirs["input_token_details"]["cache_read"] == ours.usage.cache_read


@pytest.fixture
def langfuse_spans() -> Iterator[Any]:
    """What Langfuse's client would send."""
    langfuse = pytest.importorskip("langfuse", reason="langfuse is not installed")
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    client = langfuse.Langfuse(
        public_key="pk-lf-none",
        secret_key="none",
        base_url="http://127.0.0.1:9",
        span_exporter=exporter,
        tracer_provider=TracerProvider(),
    )

    def spans() -> list[dict[str, Any]]:
        client.flush()
        return [dict(span.attributes or {}) for span in exporter.get_finished_spans()]

    yield spans
    client.shutdown()


def test_langfuse_counts_the_same_tokens_under_the_base_model(langfuse_spans: Any) -> None:
    from langfuse.langchain import CallbackHandler

    theirs, ours = CallbackHandler(public_key="pk-lf-none"), PromptCacheCallbackHandler()
    with BedrockEmulator(profiles={ARN: MODEL}) as emulator:
        model = connected(emulator, model=ARN, base_model_id=MODEL, provider="anthropic")
        model.invoke(question("One?"), config={"callbacks": [theirs, ours]})
        list(model.stream(question("Two?"), config={"callbacks": [ours, theirs]}))
        bill = emulator.bill()
    generations = langfuse_spans()
    assert {each["langfuse.observation.model.name"] for each in generations} == {MODEL}
    usages = [json.loads(each["langfuse.observation.usage_details"]) for each in generations]
    assert sum(usage["input"] for usage in usages) == ours.usage.input
    assert sum(usage["input_cache_read"] for usage in usages) == ours.usage.cache_read
    assert sum(usage.get("input_ephemeral_5m_input_tokens", 0) for usage in usages) == ours.usage.cache_write_5m
    assert (ours.usage, ours.cost.usd) == (bill.usage, bill.total)


def test_a_price_of_the_models_own_is_the_one_langsmith_gets(
    listener: Any, langsmith: Any, model: CacheAwareChatBedrockConverse
) -> None:
    prices = PriceBook({MODEL: {"input": 9000, "output": 9000, "cache_write_5m": 9000}})
    tracer = LangChainTracer(client=with_exact_cost(langsmith, prices))
    model.invoke(question(), config={"callbacks": [tracer]})
    (usage,) = usages(listener)
    assert usage["total_cost"] == float(model.ledger.totals().cost.usd)
    assert "input_cost" not in usage
