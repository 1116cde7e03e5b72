"""What a call cost: prices found by model id, day, Region and service tier."""

from __future__ import annotations

import decimal
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from cachepoint.catalogue.price_book import PriceBook, Quote
from cachepoint.catalogue.table import TableRow, load_table, model_prices
from cachepoint.core.provider.prices import Cost, ModelPrices, TokenPrices
from cachepoint.core.provider.usage import Usage
from cachepoint.errors import ConfigurationError

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
SONNET = "anthropic.claude-sonnet-4-5-20250929-v1:0"
CLAUDE_3_7 = "anthropic.claude-3-7-sonnet-20250219-v1:0"
HAIKU_5_5 = "anthropic.claude-haiku-5-5"
GPT = "openai.gpt-5.6-sol"
GEOS = ("", "global.", "us.", "us-gov.", "eu.", "apac.", "au.", "jp.", "in.", "ca.")

# Model ids of the rows with prices, for the ids themselves are not in the table.
MODEL_IDS = {
    "Claude Fable 5.2": "anthropic.claude-fable-5-2",
    "Claude Mythos 5.2": "anthropic.claude-mythos-5-2",
    "Claude Fable 5.1": "anthropic.claude-fable-5-1",
    "Claude Mythos 5.1": "anthropic.claude-mythos-5-1",
    "Claude Fable 5": "anthropic.claude-fable-5",
    "Claude Mythos 5": "anthropic.claude-mythos-5",
    "Claude Mythos Preview": "anthropic.claude-mythos-preview",
    "Claude Opus 5.5": "anthropic.claude-opus-5-5",
    "Claude Opus 5": "anthropic.claude-opus-5",
    "Claude Opus 4.8": "anthropic.claude-opus-4-8",
    "Claude Opus 4.7": "anthropic.claude-opus-4-7",
    "Claude Opus 4.6": "anthropic.claude-opus-4-6-v1",
    "Claude Opus 4.5": "anthropic.claude-opus-4-5-20251101-v1:0",
    "Claude Sonnet 5.5": "anthropic.claude-sonnet-5-5",
    "Claude Sonnet 5": "anthropic.claude-sonnet-5",
    "Claude Sonnet 4.6": "anthropic.claude-sonnet-4-6",
    "Claude Sonnet 4.5": SONNET,
    "Claude Haiku 5.5": HAIKU_5_5,
    "Claude Haiku 4.5": "anthropic.claude-haiku-4-5-20251001-v1:0",
    "Claude Opus 4.1": "anthropic.claude-opus-4-1-20250805-v1:0",
    "Claude Opus 4": "anthropic.claude-opus-4-20250514-v1:0",
    "Claude Sonnet 4": "anthropic.claude-sonnet-4-20250514-v1:0",
    "Claude 3.7 Sonnet": CLAUDE_3_7,
    "Claude 3.5 Haiku": "anthropic.claude-3-5-haiku-20241022-v1:0",
    "Claude 3.5 Sonnet v2": "anthropic.claude-3-5-sonnet-20241022-v2:0",
    "Amazon Nova Micro": "amazon.nova-micro-v1:0",
    "Amazon Nova Lite": "amazon.nova-lite-v1:0",
    "Amazon Nova Pro": "amazon.nova-pro-v1:0",
    "Amazon Nova Premier": "amazon.nova-premier-v1:0",
    "Amazon Nova 2 Lite": "amazon.nova-2-lite-v1:0",
    "OpenAI GPT-5.6 Sol": GPT,
    "OpenAI GPT-5.5": "openai.gpt-5.5",
    "OpenAI GPT-6 Sol": "openai.gpt-6-sol",
    "Moonshot Kimi K3": "moonshotai.kimi-k3",
    "xAI Grok 4.6/4.7": "xai.grok-4.7",
    "Z.ai GLM-5.3": "zai.glm-5.3",
}

# Ids for which the book answers otherwise than the table, with the reason. None for a price the
# table has; Nova 1 has no global profile, but genai-prices matches its ids anywhere in a string.
ANSWERED_BY_GENAI_PRICES_ALONE = {
    "global.amazon.nova-micro-v1:0",
    "global.amazon.nova-lite-v1:0",
    "global.amazon.nova-pro-v1:0",
    "global.amazon.nova-premier-v1:0",
}

# Base ids that genai-prices 0.2.3 has under no geography at all: the table answers.
NOT_IN_GENAI_PRICES = {
    "anthropic.claude-mythos-5",
    "anthropic.claude-mythos-5-1",
    "anthropic.claude-mythos-preview",
    "xai.grok-4.7",
}


@pytest.fixture
def book() -> PriceBook:
    return PriceBook(environ={})


def quote(book: PriceBook, model_id: str, **call: Any) -> Quote:
    found = book.quote(model_id, **{"at": NOW, **call})
    assert found is not None
    return found


def cost(book: PriceBook, model_id: str, usage: Usage, **call: Any) -> Cost:
    found = book.price(model_id, usage, **{"at": NOW, **call})
    assert found is not None
    return found


# -- genai-prices and the table -------------------------------------------------------------------


def priced_rows() -> list[TableRow]:
    return [row for row in load_table({}).rows if row.prices]


def test_every_row_with_prices_is_compared() -> None:
    assert {row.rule.name for row in priced_rows()} == MODEL_IDS.keys()


@pytest.mark.parametrize("geo", GEOS)
@pytest.mark.parametrize("name", MODEL_IDS)
def test_the_book_and_the_table_agree_on_every_price(book: PriceBook, name: str, geo: str) -> None:
    model_id = geo + MODEL_IDS[name]
    found, listed = book.quote(model_id, at=NOW), model_prices(model_id, environ={})
    if model_id in ANSWERED_BY_GENAI_PRICES_ALONE:
        assert listed is None
        assert found is not None
        assert found.source == "genai-prices"
        return
    assert (found and found.prices) == listed


@pytest.mark.parametrize("model_id", MODEL_IDS.values())
def test_genai_prices_answers_wherever_it_knows_the_model(book: PriceBook, model_id: str) -> None:
    sources = {found.source for geo in GEOS if (found := book.quote(geo + model_id, at=NOW))}
    assert ("genai-prices" not in sources) == (model_id in NOT_IN_GENAI_PRICES)


def test_the_library_prices_models_the_table_does_not(book: PriceBook) -> None:
    llama = quote(book, "meta.llama3-3-70b-instruct-v1:0")
    assert (llama.source, llama.prices.standard.input) == ("genai-prices", Decimal("0.72"))
    assert cost(book, "global.openai.gpt-5.6-terra", Usage(input=1_000_000)).usd == 4  # above 272k tokens


def test_an_unknown_model_has_no_price(book: PriceBook) -> None:
    assert book.price("nobody.knows-v1:0", Usage(input=10), at=NOW) is None
    assert book.price("anthropic.claude-opus-9-9", Usage(input=10), at=NOW) is None
    opaque = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc"
    assert book.price(opaque, Usage(input=10), at=NOW) is None


# -- answers computed by hand ---------------------------------------------------------------------


def test_the_worked_example_of_the_price_library_comes_out_exactly(book: PriceBook) -> None:
    """Sonnet 4.5 at list price: 3 in, 2,000 read, 1,000 written for an hour and 500 for 5 minutes."""
    usage = Usage(input=3, cache_read=2000, cache_write_5m=500, cache_write_1h=1000)
    assert cost(book, f"global.{SONNET}", usage).usd == Decimal("0.008484")
    assert cost(book, f"us.{SONNET}", usage).usd == Decimal("0.0093324")


def test_the_articles_thousand_requests(book: PriceBook) -> None:
    first = cost(book, CLAUDE_3_7, Usage(cache_write_5m=7800))
    later = cost(book, CLAUDE_3_7, Usage(cache_read=7800))
    run = sum([later] * 999, first)
    assert (run.usd, run.uncached_usd) == (Decimal("2.36691"), Decimal("23.4"))
    assert (first.saved_usd, later.saved_usd) == (Decimal("-0.00585"), Decimal("0.02106"))


def test_an_hour_of_cache_has_no_price_where_the_model_has_no_hour(book: PriceBook) -> None:
    assert book.price(CLAUDE_3_7, Usage(cache_write_1h=1), at=NOW) is None


def test_a_nova_write_costs_what_input_costs(book: PriceBook) -> None:
    assert cost(book, "us.amazon.nova-pro-v1:0", Usage(cache_write_5m=1_000_000)).saved_usd == 0


def test_a_long_prompt_prices_the_whole_request(book: PriceBook) -> None:
    short, long = Usage(10, 99_990, 0, 0, 100), Usage(10, 99_991, 0, 0, 100)
    assert cost(book, f"global.{HAIKU_5_5}", short).usd == Decimal("0.00105090")
    assert cost(book, f"global.{HAIKU_5_5}", long).usd == Decimal("0.00525455")
    assert cost(book, GPT, Usage(input=272_001, output=10)).usd == Decimal("2.3936088") + Decimal("0.00033")


# -- where and how a model is named ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("model_id", "region", "usd"),
    [
        (f"global.{SONNET}", None, "3"),
        (f"arn:aws:bedrock:us-east-1:123456789012:inference-profile/global.{SONNET}", None, "3"),
        (SONNET, None, "3.3"),
        (SONNET, "eu-central-1", "3.3"),
        (f"arn:aws:bedrock:us-east-1::foundation-model/{SONNET}", None, "3.3"),
        (f"arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.{SONNET}", None, "3.3"),
        (f"us-gov.{SONNET}", None, "3.6"),
        (SONNET, "us-gov-west-1", "3.6"),
        (f"arn:aws-us-gov:bedrock:us-gov-west-1::foundation-model/{SONNET}", None, "3.6"),
        (f"arn:aws-us-gov:bedrock:us-gov-east-1:123456789012:inference-profile/us-gov.{SONNET}", None, "3.6"),
        ("anthropic.claude-sonnet-4-20250514-v1:0", None, "3"),
    ],
)
def test_the_route_of_a_call_decides_its_price(book: PriceBook, model_id: str, region: str | None, usd: str) -> None:
    assert cost(book, model_id, Usage(input=1_000_000), region=region).usd == Decimal(usd)


@pytest.mark.parametrize(
    ("model_id", "tier", "usd"),
    [
        ("us.amazon.nova-pro-v1:0", None, "0.2"),
        ("us.amazon.nova-pro-v1:0", "default", "0.2"),
        ("us.amazon.nova-pro-v1:0", "priority", "0.35"),
        ("us.amazon.nova-pro-v1:0", "flex", "0.1"),
        ("global.amazon.nova-2-lite-v1:0", "priority", "0.13125"),
        ("global.moonshotai.kimi-k3", "flex", "0.15"),
        ("xai.grok-4.7", "priority", "0.9625"),
    ],
)
def test_a_service_tier_scales_cache_reads_too(book: PriceBook, model_id: str, tier: str | None, usd: str) -> None:
    assert cost(book, model_id, Usage(cache_read=1_000_000), service_tier=tier).usd == Decimal(usd)


@pytest.mark.parametrize(
    ("model_id", "tier"),
    [
        (f"us.{SONNET}", "priority"),
        (f"us.{SONNET}", "flex"),
        ("us.amazon.nova-pro-v1:0", "reserved"),
        ("us.amazon.nova-premier-v1:0", "flex"),
        ("us.amazon.nova-lite-v1:0", "flex"),
    ],
)
def test_a_service_tier_nobody_priced_is_unknown(book: PriceBook, model_id: str, tier: str) -> None:
    assert book.price(model_id, Usage(input=1), at=NOW, service_tier=tier) is None


# -- time -----------------------------------------------------------------------------------------


def test_a_call_costs_what_was_charged_when_it_started(book: PriceBook) -> None:
    """GPT-5.6 Sol became a fifth cheaper on 2026-08-21, UTC."""
    change = datetime(2026, 8, 21, tzinfo=UTC)
    usage = Usage(input=100_000)
    assert cost(book, GPT, usage, at=change - timedelta(seconds=1)).usd == Decimal("0.55")
    assert cost(book, GPT, usage, at=change).usd == Decimal("0.44")


def test_a_start_is_unix_time_or_a_datetime_of_any_zone(book: PriceBook) -> None:
    change = datetime(2026, 8, 21, tzinfo=UTC)
    tokyo = change.astimezone(timezone(timedelta(hours=9)))
    for at in (change, change.timestamp(), change.replace(tzinfo=None), tokyo):
        assert cost(book, GPT, Usage(input=100_000), at=at).usd == Decimal("0.44")


def test_a_cost_dates_its_prices(book: PriceBook) -> None:
    assert cost(book, SONNET, Usage(input=1)).prices_as_of <= "2026-11-22"
    assert cost(book, f"us-gov.{SONNET}", Usage(input=1)).prices_as_of == "2026-11-22"
    assert quote(book, f"us-gov.{SONNET}").source == "model table"


# -- the user's own prices ------------------------------------------------------------------------

NEGOTIATED = TokenPrices.of({"input": "2.5", "output": "12.5", "cache_read": "0.2"})


def test_the_users_prices_come_first_and_as_they_are() -> None:
    profile = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc"
    book = PriceBook(
        {
            SONNET: NEGOTIATED,
            "in-house": {"input": 1, "output": 0.1},
            profile: ModelPrices(NEGOTIATED, ((1000, NEGOTIATED.times(Decimal(2))),)),
        },
        environ={},
    )
    for model_id in (SONNET, f"us.{SONNET}", f"global.{SONNET}"):
        assert cost(book, model_id, Usage(input=1_000_000)).usd == Decimal("2.5")
    assert quote(book, SONNET) == Quote(ModelPrices(NEGOTIATED), "overrides")
    assert cost(book, "in-house", Usage(output=1_000_000)).usd == Decimal("0.1")
    assert cost(book, profile, Usage(input=1001)).usd == Decimal("0.005005")


def test_an_override_for_a_profile_leaves_the_other_geographies_alone() -> None:
    book = PriceBook({f"us.{SONNET}": NEGOTIATED}, environ={})
    assert cost(book, f"us.{SONNET}", Usage(input=1_000_000)).usd == Decimal("2.5")
    assert cost(book, f"eu.{SONNET}", Usage(input=1_000_000)).usd == Decimal("3.3")


def test_prices_of_the_rules_file_come_before_the_librarys(tmp_path: Path) -> None:
    file = tmp_path / "rules.toml"
    row = "name = 'Claude Sonnet 4.5'\nchecked = 2026-10-01\nprices.regional = { input = 2, output = 9 }"
    file.write_text(f"[[model]]\n{row}\n", "utf-8")
    book = PriceBook(environ={"CACHEPOINT_RULES": str(file)})
    assert cost(book, SONNET, Usage(input=1_000_000)) == Cost(Decimal(2), Decimal(2), Decimal(0), "2026-10-01")
    assert quote(book, SONNET).source == "rules file"
    assert quote(book, f"global.{SONNET}").source == "genai-prices"


@pytest.mark.parametrize("wrong", [3, "3", {"input": 3}, {"input": 3, "output": -1}])
def test_a_wrong_override_is_refused_by_its_model_id(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="'my-model'"):
        PriceBook({"my-model": wrong}, environ={})


# -- how it is loaded -----------------------------------------------------------------------------


def test_the_price_library_is_imported_by_the_book_and_by_no_price() -> None:
    """A price is asked for in the middle of a call, which may run on an event loop."""
    program = """
import json, sys
from cachepoint.catalogue.price_book import PriceBook
from cachepoint.core.provider.usage import Usage
before = "genai_prices" in sys.modules
book = PriceBook(environ={})
made = set(sys.modules)
book.price("anthropic.claude-sonnet-5", Usage(input=1), at=0)
print(json.dumps([before, "genai_prices" in made, sorted(set(sys.modules) - made)]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [False, True, []]


def test_without_the_price_library_the_table_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "genai_prices", None)
    book = PriceBook(environ={})
    assert quote(book, SONNET).source == "model table"
    assert cost(book, SONNET, Usage(input=1_000_000)).usd == Decimal("3.3")
    assert book.price("meta.llama3-3-70b-instruct-v1:0", Usage(input=1), at=NOW) is None


def test_the_programs_decimal_context_has_no_say() -> None:
    usage = Usage(12_345, 67_890, 1, 2, 345)
    expected = cost(PriceBook(environ={}), f"us.{SONNET}", usage)
    with decimal.localcontext(decimal.Context(prec=1, traps=[decimal.Inexact, decimal.Rounded])):
        assert cost(PriceBook(environ={}), f"us.{SONNET}", usage) == expected


def test_many_threads_share_a_cold_book() -> None:
    book = PriceBook(environ={})
    calls = [geo + model_id for geo in GEOS for model_id in MODEL_IDS.values()] * 3
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda model_id: book.price(model_id, Usage(1, 2, 3, 0, 5), at=NOW), calls))
    alone = PriceBook(environ={})
    assert found == [alone.price(model_id, Usage(1, 2, 3, 0, 5), at=NOW) for model_id in calls]


def test_a_known_price_is_found_fast_enough_for_every_call(book: PriceBook) -> None:
    usage = Usage(12, 7800, 0, 0, 143)
    cost(book, SONNET, usage)
    started = time.process_time()
    for _ in range(200):
        book.price(SONNET, usage, at=NOW)
    assert (time.process_time() - started) / 200 < 0.001
