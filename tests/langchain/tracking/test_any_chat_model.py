"""Every chat model that reports LangChain's cache usage is counted, not only cachepoint's."""

from __future__ import annotations

from contextlib import closing
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_aws import ChatBedrock, ChatBedrockConverse
from langchain_core.language_models import BaseChatModel, GenericFakeChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from langchain_kit import CONNECTION, EPHEMERAL, EPHEMERAL_1H, LONG, MODEL, POINT_1H, control_client

from cachepoint.bedrock.client import wrap
from cachepoint.catalogue.price_book import PriceBook
from cachepoint.core.provider.usage import Usage
from cachepoint.emulator import BedrockEmulator
from cachepoint.langchain import get_prompt_cache_callback
from cachepoint.langchain._cost.reported import usage_of

COUNTS = st.integers(0, 10**6)


def marked(mark: dict[str, Any]) -> list[BaseMessage]:
    text = {"type": "text", "text": LONG}
    system: list[str | dict[Any, Any]] = [text, mark] if "cachePoint" in mark else [{**text, "cache_control": mark}]
    return [SystemMessage(system), HumanMessage("What does it say?")]


def call_three_times(model: BaseChatModel, messages: list[BaseMessage]) -> None:
    model.invoke(messages)
    model.invoke(messages)
    for _ in model.stream(messages):
        pass


def test_chat_bedrock_converse(emulator: BedrockEmulator) -> None:
    settings: dict[str, Any] = {**CONNECTION, "endpoint_url": emulator.url}
    model = ChatBedrockConverse(model=MODEL, **settings)
    with get_prompt_cache_callback() as cache:
        call_three_times(model, marked(POINT_1H))
    assert cache.usage == emulator.bill().usage
    assert cache.usage.cache_write_1h > 0
    assert cache.cost.usd == emulator.bill().total
    assert [record.status for record in cache.records] == ["written", "hit", "hit"]


def test_chat_bedrock(emulator: BedrockEmulator) -> None:
    settings: dict[str, Any] = {**CONNECTION, "endpoint_url": emulator.url}
    model = ChatBedrock(model=MODEL, **settings)
    with get_prompt_cache_callback() as cache:
        call_three_times(model, marked(EPHEMERAL))
    assert cache.usage == emulator.bill().usage
    assert cache.cost.usd == emulator.bill().total
    assert cache.usage.cache_read > 0


@pytest.mark.parametrize("streamed", [False, True])
def test_chat_anthropic_bedrock_also_where_its_stream_hides_the_ttl(
    emulator: BedrockEmulator, monkeypatch: pytest.MonkeyPatch, streamed: bool
) -> None:
    pytest.importorskip("langchain_anthropic", reason="langchain-anthropic is not installed")
    from langchain_aws import ChatAnthropicBedrock

    monkeypatch.setenv("ANTHROPIC_BEDROCK_BASE_URL", emulator.url)
    settings: dict[str, Any] = {**CONNECTION, "model": MODEL}
    model = ChatAnthropicBedrock(**settings)
    with closing(model._client), get_prompt_cache_callback() as cache:
        for _ in range(2):
            if streamed:
                list(model.stream(marked(EPHEMERAL_1H)))
            else:
                model.invoke(marked(EPHEMERAL_1H))
    assert cache.usage == emulator.bill().usage
    assert cache.usage.cache_write_1h > 0
    assert cache.cost.usd == emulator.bill().total


def test_chat_anthropic_at_anthropics_own_prices(listener: Any) -> None:
    anthropic = pytest.importorskip("langchain_anthropic", reason="langchain-anthropic is not installed")
    writes = {"ephemeral_5m_input_tokens": 1000, "ephemeral_1h_input_tokens": 2000}
    listener.answer = {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-opus-4-7", "stop_reason": "end_turn",
        "content": [{"type": "text", "text": "yes"}],
        "usage": {"input_tokens": 10, "output_tokens": 4, "cache_read_input_tokens": 5000,
                  "cache_creation_input_tokens": 3000, "cache_creation": writes},
    }  # fmt: skip
    model = anthropic.ChatAnthropic(model="claude-opus-4-7", api_key="none", base_url=listener.url)
    with closing(model._client), get_prompt_cache_callback() as cache:
        model.invoke("Is it?")
    assert cache.usage == Usage(10, 5000, 1000, 2000, 4)
    # 5 USD per million tokens of input, 0.50 read, 6.25 and 10 written, 25 of output
    assert cache.cost.usd == Decimal("0.02890")


def test_a_wrapped_client_tells_checkpoints_and_misses_through_langchains_own_class(emulator: BedrockEmulator) -> None:
    client = wrap(emulator.client(), clock=emulator.clock)
    model = ChatBedrockConverse(model=MODEL, client=client, bedrock_client=control_client())
    with get_prompt_cache_callback() as cache:
        call_three_times(model, [SystemMessage(LONG), HumanMessage("What does it say?")])
        model.invoke([SystemMessage("Now: " + LONG), HumanMessage("What does it say?")])
    assert [record.status for record in cache.records] == [record.status for record in client.ledger.records]
    assert [point.path for point in cache.records[0].checkpoints] == ["system[1]"]
    assert cache.misses == client.ledger.totals().misses
    assert cache.misses
    assert cache.cost == client.ledger.totals().cost


def replying(usage: dict[str, Any], **metadata: Any) -> BaseChatModel:
    """A model that answers with this usage."""
    message = AIMessage("yes", usage_metadata=usage, response_metadata=metadata)
    return GenericFakeChatModel(messages=iter([message]))


def test_a_model_of_unknown_price_is_counted_without_a_cost() -> None:
    with get_prompt_cache_callback() as cache:
        replying({"input_tokens": 9, "output_tokens": 1, "total_tokens": 10}, model_name="no-such-model").invoke("?")
    assert cache.usage == Usage(input=9, output=1)
    assert cache.ledger.totals().unpriced == 1
    assert "1 without a known price" in cache.summary()


def test_the_users_prices_and_names_come_first() -> None:
    arn = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc"
    usage = {"input_tokens": 1_000_000, "output_tokens": 0, "total_tokens": 1_000_000}
    mine = PriceBook({MODEL: {"input": 7, "output": 9}})
    with get_prompt_cache_callback(prices=mine, base_models={arn: MODEL}) as cache:
        replying(usage, model_name=arn).invoke("?")
    assert cache.cost.usd == 7
    assert list(cache.by("model")) == [MODEL]


def test_a_call_of_a_service_tier_costs_what_the_tier_costs() -> None:
    usage = {"input_tokens": 1_000_000, "output_tokens": 0, "total_tokens": 1_000_000}
    costs = []
    for tier in ("default", "flex", "no-such-tier"):
        with get_prompt_cache_callback() as cache:
            replying(usage, model_name=NOVA_2, serviceTier={"type": tier}).invoke("?")
        costs.append(cache.cost.usd if cache.records[0].cost else None)
    assert costs[0] is not None
    assert costs[1] == costs[0] / 2
    assert costs[2] is None


NOVA_2 = "us.amazon.nova-2-lite-v1:0"


@given(COUNTS, COUNTS, COUNTS, COUNTS, COUNTS)
def test_classes_of_tokens_are_told_apart_however_writes_are_reported(
    uncached: int, read: int, write_5m: int, write_1h: int, output: int
) -> None:
    """LangChain's classes count a split write once, twice or not by TTL at all."""
    split = {"ephemeral_5m_input_tokens": write_5m, "ephemeral_1h_input_tokens": write_1h}
    prompt = uncached + read + write_5m + write_1h
    expected = Usage(uncached, read, write_5m, write_1h, output)
    for details in ({**split, "cache_creation": 0}, split, {**split, "cache_creation": write_5m + write_1h}):
        reported = {
            "input_tokens": prompt, "output_tokens": output, "input_token_details": {"cache_read": read, **details}
        }  # fmt: skip
        assert usage_of(reported) == expected
    unsaid = {"input_tokens": prompt, "input_token_details": {"cache_read": read, "cache_creation": write_5m}}
    assert usage_of(unsaid, "1h") == Usage(uncached + write_1h, read, 0, write_5m)


def test_a_model_that_leaves_cached_tokens_out_of_its_input_is_not_counted_negative() -> None:
    reported = {"input_tokens": 12, "output_tokens": 3, "input_token_details": {"cache_read": 7800}}
    assert usage_of(reported) == Usage(input=12, cache_read=7800, output=3)
