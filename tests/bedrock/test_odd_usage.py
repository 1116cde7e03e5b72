"""Whatever an answer reports of its tokens, and whatever prices give: the call succeeds and the accounts agree."""

from __future__ import annotations

import asyncio
import io
import json
import warnings
from collections.abc import Iterator, Mapping
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import cachepoint
from cachepoint.bedrock.client import CacheClient
from cachepoint.bedrock.wire import converse, invoke_model
from cachepoint.core.accounts.record import CallRecord
from cachepoint.core.accounts.totals import Totals
from cachepoint.core.provider.prices import Cost
from cachepoint.core.provider.usage import Usage
from cachepoint.errors import CachepointWarning

MODEL = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
BODY = json.dumps(
    {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 9, "messages": [{"role": "user", "content": "Hello"}]}
)
HUGE = 10**30
GOOD = {"inputTokens": 12, "outputTokens": 3}
NAMES = {
    "inputTokens": "input_tokens", "outputTokens": "output_tokens", "cacheReadInputTokens": "cache_read_input_tokens",
    "cacheWriteInputTokens": "cache_creation_input_tokens",
}  # fmt: skip


class Service:
    """Answers in every way with the same usage, in the names of each API."""

    meta = SimpleNamespace(region_name="us-east-1", endpoint_url="")

    def __init__(self, usage: Any) -> None:
        self.usage = usage

    def converse(self, **_: Any) -> Any:
        answer = {"output": {"message": {"role": "assistant", "content": [{"text": "Hi"}]}}, "stopReason": "end_turn"}
        return {**answer, "usage": self.usage}

    def converse_stream(self, **_: Any) -> Any:
        return {"stream": iter([{"messageStop": {"stopReason": "end_turn"}}, {"metadata": {"usage": self.usage}}])}

    def invoke_model(self, **_: Any) -> Any:
        answer = {"type": "message", "content": [], "usage": self.anthropic}
        return {"body": io.BytesIO(json.dumps(answer).encode())}

    def invoke_model_with_response_stream(self, **_: Any) -> Any:
        events = [{"type": "message_start", "message": {"usage": self.anthropic}}, {"type": "message_stop"}]
        return {"body": iter([{"chunk": {"bytes": json.dumps(event).encode()}} for event in events])}

    @property
    def anthropic(self) -> Any:
        if not isinstance(self.usage, Mapping):
            return self.usage
        return {NAMES.get(name, name): value for name, value in self.usage.items()}


def every_way(client: CacheClient) -> Iterator[CallRecord]:
    """A call of each of the four operations, with its record."""
    asked = {"modelId": MODEL, "messages": [{"role": "user", "content": [{"text": "Hello"}]}]}
    client.converse(**asked)
    yield client.ledger.records[-1]
    assert len(list(client.converse_stream(**asked)["stream"])) == 2
    yield client.ledger.records[-1]
    assert client.invoke_model(modelId=MODEL, body=BODY)["body"].read()
    yield client.ledger.records[-1]
    assert len(list(client.invoke_model_with_response_stream(modelId=MODEL, body=BODY)["body"])) == 2
    yield client.ledger.records[-1]


def agreed(client: CacheClient) -> Totals:
    """The totals of four calls, which are the sums of the records."""
    totals, records = client.ledger.totals(), client.ledger.records
    assert totals.calls == len(records) == 4
    assert totals.usage == sum((record.usage for record in records if record.usage), Usage())
    assert totals.cost.usd == sum((record.cost.usd for record in records if record.cost), Decimal(0))
    assert totals.unreported == sum(record.usage is None for record in records)
    assert all(json.dumps(record.to_dict()) for record in records)
    assert client.ledger.summary()
    return totals


ODD: list[Any] = [
    "secret", -1, HUGE, 1e30, 1.5, True, float("nan"), float("inf"), [], ["secret"], {"secret": 1},
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value"),
    [*(("inputTokens", value) for value in ODD), ("outputTokens", -1), ("cacheReadInputTokens", "secret"),
     ("cacheWriteInputTokens", HUGE)],
)  # fmt: skip
def test_a_count_that_is_none_leaves_the_usage_untold_with_one_warning(name: str, value: Any) -> None:
    for number in range(2):
        client = cachepoint.wrap(Service({**GOOD, name: value}))
        with warnings.catch_warnings(record=True) as given_warnings:
            warnings.simplefilter("always")
            records = list(every_way(client))
        assert [(record.usage, record.cost, record.error) for record in records] == [(None, None, None)] * 4
        agreed(client)
        # One of each API: a count has another name there; and none the next time.
        found = [str(each.message) for each in given_warnings if each.category is CachepointWarning]
        assert len(found) == (0 if number else 2)
        assert all("reports a usage in which" in text and "secret" not in text for text in found)


@pytest.mark.parametrize("usage", ["secret", 7, [GOOD], True], ids=repr)
@pytest.mark.filterwarnings("ignore:cachepoint. .* reports a usage in which")
def test_a_usage_of_another_kind_is_untold(usage: Any) -> None:
    client = cachepoint.wrap(Service(usage))
    assert [record.usage for record in every_way(client)] == [None] * 4
    agreed(client)


@pytest.mark.parametrize("usage", [None, {}, {"outputTokens": 3}, {"inputTokens": None}], ids=repr)
def test_a_usage_without_the_prompt_is_untold_without_a_warning(usage: Any) -> None:
    client = cachepoint.wrap(Service(usage))
    assert [record.usage for record in every_way(client)] == [None] * 4
    agreed(client)


def test_whole_numbers_count_however_they_are_written() -> None:
    client = cachepoint.wrap(Service({"inputTokens": "12", "outputTokens": 3.0, "cacheReadInputTokens": "0"}))
    with pytest.warns(CachepointWarning) as found:
        assert [record.usage for record in every_way(client)] == [Usage(12, output=3)] * 4
    odd = "inputTokens is of type str; outputTokens is of type float; cacheReadInputTokens is of type str"
    told = f"cachepoint: {MODEL!r} reports a usage in which {odd}; it is counted as far as it can be"
    assert str(found[0].message) == told
    assert agreed(client).usage == Usage(48, output=12)


@pytest.mark.parametrize(
    ("details", "split"),
    [
        ([{"ttl": "1h", "inputTokens": 30}, {"ttl": "5m", "inputTokens": 70}], (70, 30)),
        ([{"ttl": "1h", "inputTokens": 30}], (70, 30)),  # the rest is of the TTL that was asked for
        ([{"ttl": "1h", "inputTokens": 300}], (100, 0)),  # more than all that was written
        ([{"ttl": ["1h"], "inputTokens": 30}, {"inputTokens": 5}, {}], (100, 0)),
        ([{"ttl": "1h", "inputTokens": -30}, {"ttl": "1h", "inputTokens": 30}], (100, 0)),
        ([None, 7, "1h", [["ttl", "1h"]]], (100, 0)),
        ("secret", (100, 0)),
        ({"ttl": "1h", "inputTokens": 30}, (100, 0)),
        (7, (100, 0)),
    ],
)
def test_a_malformed_split_leaves_what_was_written(details: Any, split: tuple[int, int]) -> None:
    usage = converse.usage({**GOOD, "cacheWriteInputTokens": 100, "cacheDetails": details})
    assert usage == Usage(12, 0, *split, 3)
    assert converse.usage({**GOOD, "cacheDetails": [{"ttl": "1h", "inputTokens": "x"}]}) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["ttl", "inputTokens", "x"]), inner),
    max_leaves=6,
)
REPORTED = JSON | st.dictionaries(
    st.sampled_from([*NAMES, *NAMES.values(), "cacheDetails", "cache_creation", "ephemeral_1h_input_tokens"]), JSON
)


@given(REPORTED)
def test_any_json_is_read_as_counts_or_as_nothing(reported: Any) -> None:
    for wire in (converse, invoke_model):
        usage = wire.usage(reported)
        assert usage is None or all(type(tokens) is int and tokens >= 0 for tokens in usage.to_dict().values())
    assert converse.whole_numbers(converse.whole_numbers(reported)) == converse.whole_numbers(reported)


@pytest.mark.parametrize("headers", [None, 7, {"x-amzn-bedrock-input-token-count": "\u00b2"}, {"x": 1}], ids=repr)
def test_headers_of_any_kind_are_read(headers: Any) -> None:
    assert invoke_model.reported({"ResponseMetadata": {"HTTPHeaders": headers}}) == {}


@pytest.mark.parametrize("event", [{"metadata": None}, {"metadata": 7}, {"metadata": "usage"}], ids=repr)
def test_an_event_of_another_kind_is_passed_on(event: Any) -> None:
    service = Service(GOOD)
    service.converse_stream = lambda **_: {"stream": iter([event])}  # type: ignore[method-assign]
    client = cachepoint.wrap(service)
    assert list(client.converse_stream(modelId=MODEL, messages=[])["stream"]) == [event]


# -- prices ---------------------------------------------------------------------------------------


class Prices:
    """Gives anything as a price, or raises it."""

    def __init__(self, given: Any) -> None:
        self.given = given

    def price(self, *_: Any, **__: Any) -> Any:
        if isinstance(self.given, Exception):
            raise self.given
        return self.given


WRONG: list[tuple[Any, str]] = [
    (ValueError("secret"), "raised ValueError"),
    (0.25, "gave a float"),
    ("0.25", "gave a str"),
    (1, "gave a int"),
    (float("nan"), "gave a float"),
    (Decimal("0.25"), "gave a Decimal"),
    (Cost(usd=0.25), "gave a Cost whose usd is a float"),  # type: ignore[arg-type]
    (Cost(saved_usd="1"), "gave a Cost whose saved_usd is a str"),  # type: ignore[arg-type]
    (Cost(Decimal("nan")), "gave a Cost whose usd is no amount"),
    (Cost(Decimal("1e999999")), "gave a Cost whose usd is no amount"),
    (Cost(uncached_usd=Decimal("1e-999999")), "gave a Cost whose uncached_usd is no amount"),
    (Cost(Decimal(-1)), "gave a Cost below zero"),
    (Cost(prices_as_of=7), "gave a Cost whose prices_as_of is a int"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("given_price", "said"), WRONG, ids=[said for _, said in WRONG])
def test_prices_that_give_no_cost_are_named_once(given_price: Any, said: str) -> None:
    client = cachepoint.wrap(Service(GOOD), prices=Prices(given_price))
    with pytest.warns(CachepointWarning) as found:
        records = list(every_way(client))
    assert [str(each.message).partition(";")[0] for each in found] == [f"cachepoint: the prices (Prices) {said}"]
    assert "secret" not in str(found[0].message)
    assert [(record.usage, record.cost) for record in records] == [(Usage(12, output=3), None)] * 4
    assert agreed(client).unpriced == 4


@pytest.mark.parametrize(("given_price", "usd"), [(None, None), (Cost(Decimal("0.25")), Decimal("0.25"))])
def test_prices_may_know_one_or_not(given_price: Cost | None, usd: Decimal | None) -> None:
    client = cachepoint.wrap(Service(GOOD), prices=Prices(given_price))
    assert [record.cost and record.cost.usd for record in every_way(client)] == [usd] * 4
    agreed(client)


def test_an_async_client_reads_the_same() -> None:
    class Async(Service):
        async def converse(self, **_: Any) -> Any:
            return super().converse()

        async def _make_api_call(self) -> None: ...

    client = cachepoint.wrap_async(Async({**GOOD, "inputTokens": -5}), prices=Prices(0.5))
    with pytest.warns(CachepointWarning, match="inputTokens is negative"):
        asyncio.run(client.converse(modelId=MODEL, messages=[]))
    assert client.ledger.totals().unreported == 1
