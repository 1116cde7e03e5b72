"""The bill and the ledger price calls apart: they agree, and a mistake in the ledger's rules shows."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from emulator.conftest import LONG_TEXT, ask, cached_system
from hypothesis import given
from hypothesis import strategies as st

import cachepoint
from cachepoint.catalogue import price_book
from cachepoint.catalogue.price_book import PriceBook
from cachepoint.catalogue.table import load_table
from cachepoint.core.provider import rules
from cachepoint.core.provider.prices import ModelPrices, TokenPrices
from cachepoint.core.provider.rules import ModelRule, Rules, parse_model_id
from cachepoint.core.provider.usage import Usage
from cachepoint.emulator import BedrockEmulator, ServedCall
from cachepoint.emulator._bill import bill_of, row_of

SONNET = "anthropic.claude-sonnet-4-5-20250929-v1:0"
HAIKU_5_5 = "anthropic.claude-haiku-5-5"
NOVA = "amazon.nova-pro-v1:0"
NOW = 1_795_000_000.0  # November 2026
ARN = "arn:aws{gov}:bedrock:{region}:123456789012:inference-profile/{model}"

# USD per million tokens of each class, by hand: list price for `global.`, a tenth more for other commercial ids, a
# fifth more in GovCloud; five times above 100,000 tokens on Haiku 5.5; 1.75 and 0.5 times for priority and flex.
ROUTES = {
    (f"global.{SONNET}", "us-east-1"): ("3", "0.3", "3.75", "6", "15"),
    (f"us.{SONNET}", "us-east-1"): ("3.3", "0.33", "4.125", "6.6", "16.5"),
    (SONNET, "eu-central-1"): ("3.3", "0.33", "4.125", "6.6", "16.5"),
    (SONNET, "us-gov-west-1"): ("3.6", "0.36", "4.5", "7.2", "18"),
    (f"us-gov.{SONNET}", "us-gov-east-1"): ("3.6", "0.36", "4.5", "7.2", "18"),
    (ARN.format(gov="", region="us-east-1", model=f"global.{SONNET}"), "us-east-1"): ("3", "0.3", "3.75", "6", "15"),
    (ARN.format(gov="-us-gov", region="us-gov-west-1", model=f"us-gov.{SONNET}"), "us-gov-west-1"): (
        "3.6", "0.36", "4.5", "7.2", "18",
    ),
    (f"global.{HAIKU_5_5}", "us-east-1"): ("0.1", "0.01", "0.125", "0.2", "0.5"),
    (f"eu.{HAIKU_5_5}", "eu-west-1"): ("0.11", "0.011", "0.1375", "0.22", "0.55"),
    (f"us.{NOVA}", "us-east-1"): ("0.8", "0.2", "0.8", None, "3.2"),
    (f"us-gov.{NOVA}", "us-gov-west-1"): ("0.96", "0.24", "0.96", None, "3.84"),
}  # fmt: skip
TIERS = {None: "1", "default": "1", "standard": "1", "priority": "1.75", "flex": "0.5"}
USAGES = (
    Usage(input=12, output=50),
    Usage(10, 4000, 500, 0, 60),
    Usage(9, 0, 0, 6000, 20),
    Usage(3, 2000, 500, 1000, 7),
    Usage(input=100_000, output=1),
    Usage(cache_read=100_001, output=1),
)


def billed(model_id: str, region: str, usage: Usage, tier: str | None = None) -> Decimal | None:
    call = ServedCall(NOW, "Converse", model_id, region, "ME", 200, usage=usage, service_tier=tier)
    (line,) = bill_of([call]).lines
    return line.usd


def by_hand(model_id: str, prices: tuple[str | None, ...], usage: Usage, tier: str | None) -> Decimal | None:
    factor = Decimal(TIERS[tier])
    if tier in ("priority", "flex") and NOVA not in model_id:
        return None  # no tier of Claude has a published price
    if HAIKU_5_5 in model_id and usage.prompt > 100_000:
        factor *= 5
    counts = (usage.input, usage.cache_read, usage.cache_write_5m, usage.cache_write_1h, usage.output)
    if any(count and price is None for count, price in zip(counts, prices, strict=True)):
        return None
    return sum(count * Decimal(price or 0) for count, price in zip(counts, prices, strict=True)) * factor / 1_000_000


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize(("model_id", "region"), ROUTES)
def test_bill_and_ledger_cost_what_is_worked_out_by_hand(model_id: str, region: str, tier: str | None) -> None:
    book = PriceBook(environ={})
    for usage in USAGES:
        expected = by_hand(model_id, ROUTES[model_id, region], usage, tier)
        cost = book.price(model_id, usage, at=NOW, service_tier=tier, region=region)
        assert billed(model_id, region, usage, tier) == expected == (cost and cost.usd)


OTHER_IDS = (
    "xai.grok-4.3", "us.xai.grok-4.3", "global.moonshotai.kimi-k3.1", "ai21.jamba-1-5-large-v1:0",
    "apac.amazon.nova-2-lite-v1:0", "us-gov.anthropic.claude-v2:1", "jp.openai.gpt-5.6-sol",
    "arn:aws:bedrock:us-east-1::foundation-model/meta.llama3-8b-instruct-v1:0",
    "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc123",
    "arn:aws:bedrock:us-east-1:123456789012:prompt-router/anthropic.claude:1",
)  # fmt: skip


@pytest.mark.parametrize("model_id", [*(model_id for model_id, _ in ROUTES), *OTHER_IDS])
def test_bill_and_ledger_find_the_same_row(model_id: str) -> None:
    assert row_of(model_id) is load_table().row(model_id)


BOOK = PriceBook(environ={})
TOKENS = st.integers(0, 300_000)


@given(st.sampled_from(list(ROUTES)), st.sampled_from(list(TIERS)), st.builds(Usage, *[TOKENS] * 5))
def test_bill_and_ledger_agree_on_any_usage(route: tuple[str, str], tier: str | None, usage: Usage) -> None:
    usage = replace(usage, output=usage.output + 1)
    model_id, region = route
    cost = BOOK.price(model_id, usage, at=NOW, service_tier=tier, region=region)
    assert billed(model_id, region, usage, tier) == (cost and cost.usd)


# -- each rule of the ledger, broken in turn -------------------------------------------------------


def spend(model_id: str, region: str, *, ttl: str = "5m", text: str = LONG_TEXT, **request: Any) -> tuple[Any, Any]:
    """Two calls on one prefix through a wrapped client: what the ledger says they cost, and the bill."""
    emulator = BedrockEmulator()
    client = cachepoint.wrap(
        emulator.local_client(region=region), cachepoint.CachePolicy(mode="explicit"), prices=PriceBook(environ={})
    )
    point = {} if "nova" in model_id else {"ttl": ttl}
    for _ in range(2):
        client.converse(modelId=model_id, system=cached_system(text, **point), messages=ask(), **request)
    used = emulator.bill().usage
    assert used.cache_read > 0
    assert used.cache_write > 0
    cost = client.ledger.totals().cost
    assert cost is not None
    return cost.usd, emulator.bill().total


def parts_of(counted_as: Callable[[TokenPrices], TokenPrices]) -> Callable[[TokenPrices, Usage], object]:
    right = TokenPrices.parts
    return lambda prices, usage: right(counted_as(prices), usage)


def without_its_geography(model_id: str) -> Any:
    return replace(parse_model_id(model_id), geo=None)


def always_haiku(rules: Rules, model_id: str) -> ModelRule | None:
    return next(row for row in rules.rows if row.name == "Claude Haiku 4.5")


def as_haiku(model_id: str) -> Any:
    return replace(parse_model_id(model_id), base="anthropic.claude-haiku-4-5")


@pytest.fixture
def forgotten_rows() -> Iterator[None]:
    """What a broken look-up found is forgotten afterwards."""
    yield
    load_table(environ={}).rules._resolved.clear()


BEYOND_ANY_MINIMUM = "word " * 6_000
PRIORITY = {"serviceTier": {"type": "priority"}}
# The rule, what breaks it in the ledger, and calls that hang on it.
BROKEN: dict[str, tuple[Any, str, Any, dict[str, Any]]] = {
    # GovCloud is priced from the table's rows: genai-prices gives it the commercial Regions' premium.
    "row": (
        Rules, "resolve", always_haiku,
        {"model_id": f"us-gov.{SONNET}", "region": "us-gov-west-1", "text": BEYOND_ANY_MINIMUM},
    ),
    "search for the row": (
        Rules, "_search", always_haiku,
        {"model_id": f"us-gov.{SONNET}", "region": "us-gov-west-1", "text": BEYOND_ANY_MINIMUM},
    ),
    "id": (
        rules, "parse_model_id", as_haiku,
        {"model_id": f"us-gov.{SONNET}", "region": "us-gov-west-1", "text": BEYOND_ANY_MINIMUM},
    ),
    "tier": (
        ModelPrices, "times", lambda prices, _: prices,
        {"model_id": f"us.{NOVA}", "region": "us-east-1", **PRIORITY},
    ),
    "long prompt": (
        ModelPrices, "for_prompt", lambda prices, _: prices.standard,
        {"model_id": f"global.{HAIKU_5_5}", "region": "us-east-1", "text": "word " * 110_000},
    ),
    "geography": (
        price_book, "parse_model_id", without_its_geography,
        {"model_id": f"global.{SONNET}", "region": "us-east-1"},
    ),
    "Region": (
        price_book, "price_zone", lambda ref, region: "regional",
        {"model_id": SONNET, "region": "us-gov-west-1"},
    ),
    "GovCloud's surcharge": (
        TokenPrices, "times", lambda prices, prompt, output=None: prices,
        {"model_id": f"us-gov.{SONNET}", "region": "us-gov-west-1"},
    ),
    "5m write": (
        TokenPrices, "parts", parts_of(lambda prices: replace(prices, cache_write_5m=prices.cache_write_1h)),
        {"model_id": f"us.{SONNET}", "region": "us-east-1"},
    ),
    "1h write": (
        TokenPrices, "parts", parts_of(lambda prices: replace(prices, cache_write_1h=prices.cache_write_5m)),
        {"model_id": f"us.{SONNET}", "region": "us-east-1", "ttl": "1h"},
    ),
    "read": (
        TokenPrices, "parts", parts_of(lambda prices: replace(prices, cache_read=prices.input)),
        {"model_id": f"us.{SONNET}", "region": "us-east-1"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("rule", BROKEN)
@pytest.mark.usefixtures("forgotten_rows")
def test_a_broken_rule_of_the_ledger_is_seen_on_the_bill(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    home, name, broken, calls = BROKEN[rule]
    ledger, bill = spend(**calls)
    assert ledger == bill > 0
    monkeypatch.setattr(home, name, broken)
    load_table(environ={}).rules._resolved.clear()
    ledger, still = spend(**calls)
    assert still == bill
    assert ledger != bill


def test_an_invoke_models_tier_is_priced_from_its_header() -> None:
    emulator = BedrockEmulator()
    body = {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}
    emulator.local_client().invoke_model(modelId=f"us.{SONNET}", body=json.dumps(body), serviceTier="priority")
    (line,) = emulator.bill().lines
    assert (line.call.service_tier, line.usd) == ("priority", None)
