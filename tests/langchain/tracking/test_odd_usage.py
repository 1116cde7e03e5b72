"""A model that reports its tokens in its own way is answered for all the same, and ledger and handler agree."""

from __future__ import annotations

from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_kit import MODEL, control_client

from cachepoint.core.provider.usage import Usage
from cachepoint.errors import CachepointWarning
from cachepoint.langchain import CacheAwareChatBedrockConverse, get_prompt_cache_callback

ZEROS = {"inputTokens": 0, "outputTokens": 0, "totalTokens": 0, "cacheReadInputTokens": 0, "cacheWriteInputTokens": 0}


class Service:
    """Answers with one usage, whole and streamed."""

    meta = SimpleNamespace(region_name="us-east-1", endpoint_url="")

    def __init__(self, usage: Any) -> None:
        self.usage = usage

    def converse(self, **_: Any) -> Any:
        answer = {"role": "assistant", "content": [{"text": "Hi"}]}
        metrics = {"latencyMs": 1}
        return {"output": {"message": answer}, "stopReason": "end_turn", "usage": self.usage, "metrics": metrics}

    def converse_stream(self, **_: Any) -> Any:
        events = [
            {"messageStart": {"role": "assistant"}},
            {"contentBlockDelta": {"contentBlockIndex": 0, "delta": {"text": "Hi"}}},
            {"contentBlockStop": {"contentBlockIndex": 0}}, {"messageStop": {"stopReason": "end_turn"}},
            {"metadata": {"usage": self.usage, "metrics": {"latencyMs": 1}}},
        ]  # fmt: skip
        return {"stream": iter(events)}


def answering(usage: Any) -> CacheAwareChatBedrockConverse:
    return CacheAwareChatBedrockConverse(model=MODEL, client=Service(usage), bedrock_client=control_client())


@pytest.mark.parametrize(
    "usage",
    ["secret", 7, [1], {"inputTokens": "many"}, {"inputTokens": -5, "outputTokens": 1}, {"inputTokens": float("nan")},
     {"inputTokens": 10**30, "outputTokens": 1}, {"inputTokens": 5, "outputTokens": True},
     {"inputTokens": 5, "outputTokens": 1, "cacheReadInputTokens": {"secret": 1}}],
    ids=repr,
)  # fmt: skip
def test_an_odd_usage_is_untold_in_the_message_the_ledger_and_the_handler(usage: Any) -> None:
    model = answering(usage)
    with get_prompt_cache_callback() as cache, pytest.warns(CachepointWarning) as found:
        whole = model.invoke("Hello")
        chunks = list(model.stream("Hello"))
    assert whole.usage_metadata is None
    assert all(chunk.usage_metadata is None for chunk in chunks)
    assert len(found) == 1
    assert "secret" not in str(found[0].message)
    for ledger in (model.ledger, cache.ledger):
        assert [(record.usage, record.cost, record.error) for record in ledger.records] == [(None, None, None)] * 2
        assert ledger.totals().unreported == 2


def test_whole_numbers_count_however_they_are_written() -> None:
    details = [{"ttl": "1h", "inputTokens": "100"}]
    model = answering({"inputTokens": "12", "outputTokens": 3.0, "cacheWriteInputTokens": 100, "cacheDetails": details})
    with get_prompt_cache_callback() as cache, pytest.warns(CachepointWarning, match="counted as far as it can be"):
        told = model.invoke("Hello").usage_metadata
    assert told is not None
    assert (told["input_tokens"], told["output_tokens"], told["total_tokens"]) == (112, 3, 115)
    assert cache.usage == model.ledger.totals().usage == Usage(12, 0, 0, 100, 3)
    assert cache.cost == model.ledger.totals().cost


@pytest.mark.parametrize("streamed", [False, True])
def test_a_blocked_question_is_told_with_zeros(streamed: bool) -> None:
    model = answering(ZEROS)
    told = [chunk.usage_metadata for chunk in model.stream("?")] if streamed else [model.invoke("?").usage_metadata]
    (usage,) = [each for each in told if each is not None]
    assert (usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]) == (0, 0, 0)
    assert model.ledger.totals().unreported == 0


def test_a_usage_that_never_came_is_none() -> None:
    assert answering(None).invoke("Hello").usage_metadata is None


class Reports(GenericFakeChatModel):
    """Another class's model, which answers with any usage."""

    def __init__(self, usage: Any) -> None:
        message = AIMessage("yes", response_metadata={"model_name": MODEL})
        message.usage_metadata = usage
        super().__init__(messages=iter([message]))


@pytest.mark.parametrize(
    ("usage", "odd"),
    [
        ({"input_tokens": "many", "output_tokens": 1, "total_tokens": 2}, "input_tokens is of type str"),
        ({"input_tokens": 5, "output_tokens": -1, "total_tokens": 4}, "output_tokens is negative"),
        ({"input_tokens": 5, "output_tokens": 1, "total_tokens": 6, "input_token_details": {"cache_read": 1.5}},
         "cache_read tokens is of type float"),
        ({"input_tokens": 5, "output_tokens": 1, "input_token_details": {"cache_read": None, "cache_creation": []}},
         "cache_creation tokens is of type list"),
    ],
)  # fmt: skip
def test_an_odd_usage_of_another_class_is_untold(usage: Any, odd: str) -> None:
    with get_prompt_cache_callback() as cache, pytest.warns(CachepointWarning) as found:
        Reports(usage).invoke("?")
    assert [str(each.message) for each in found] == [
        f"cachepoint: {MODEL!r} reports a usage in which {odd}; it is not counted, nor is its cost"
    ]
    (record,) = cache.records
    assert (record.usage, record.cost, cache.ledger.totals().unreported) == (None, None, 1)


@pytest.mark.parametrize("wrong", [0.25, "0.25", float("nan"), ValueError("secret")], ids=repr)
def test_prices_that_give_no_cost_leave_a_call_without_one(wrong: Any) -> None:
    class Prices:
        def price(self, *_: Any, **__: Any) -> Any:
            if isinstance(wrong, Exception):
                raise wrong
            return wrong

    usage = {"input_tokens": 5, "output_tokens": 1, "total_tokens": 6}
    with get_prompt_cache_callback(prices=Prices(), budget_usd=1) as cache, pytest.warns(CachepointWarning) as found:
        Reports(usage).invoke("?")
        Reports(usage).invoke("?")
    assert len(found) == 1
    assert str(found[0].message).startswith("cachepoint: the prices (Prices) ")
    assert (cache.calls, cache.ledger.totals().unpriced, cache.cost.usd) == (2, 2, Decimal(0))
