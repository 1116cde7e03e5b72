"""The arithmetic of money: exact, and equal to what one computes by hand."""

from __future__ import annotations

import decimal
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachepoint.core.provider.prices import Cost, ModelPrices, Rates, TokenPrices, plain
from cachepoint.core.provider.usage import Usage
from cachepoint.errors import ConfigurationError

CLAUDE_3_7 = ModelPrices(TokenPrices.of({"input": 3, "cache_read": "0.3", "cache_write_5m": "3.75", "output": 15}))

counts = st.integers(0, 10**9)
usages = st.builds(Usage, counts, counts, counts, counts, counts)
amounts = st.decimals(min_value=0, max_value=10**6, allow_nan=False, allow_infinity=False, places=9)
all_priced = st.builds(TokenPrices, amounts, amounts, amounts, amounts, amounts)


def cost_of(prices: ModelPrices, usage: Usage) -> Cost:
    cost = prices.cost(usage)
    assert cost is not None
    return cost


def total(prices: ModelPrices, calls: list[Usage]) -> Cost:
    return sum((cost_of(prices, usage) for usage in calls), Cost())


# -- answers computed by hand ---------------------------------------------------------------------


def test_the_articles_thousand_questions_cost_what_its_prices_say() -> None:
    """7,800 document tokens, one write at 1.25x and 999 reads at 0.1x: $2.37, not $0.26."""
    calls = [Usage(cache_write_5m=7800), *[Usage(cache_read=7800)] * 999]
    cost = total(CLAUDE_3_7, calls)
    assert cost.uncached_usd == Decimal("23.40")
    assert cost.usd == Decimal("0.02925") + Decimal("2.33766")
    assert plain(cost.usd) == "2.36691"
    assert round(100 * cost.saved_usd / cost.uncached_usd, 1) == Decimal("89.9")


@pytest.mark.parametrize(("writes", "usd"), [(10, "2.61"), (100, "5.03"), (200, "7.72"), (1000, "29.25")])
def test_every_expiry_turns_a_read_into_a_write(writes: int, usd: str) -> None:
    """So many of the thousand requests write, the first and those that come too late."""
    calls = [*[Usage(cache_write_5m=7800)] * writes, *[Usage(cache_read=7800)] * (1000 - writes)]
    assert round(total(CLAUDE_3_7, calls).usd, 2) == Decimal(usd)


def test_question_and_answer_tokens_thin_the_saving() -> None:
    calls = [Usage(100, 0, 7800, 0, 300), *[Usage(100, 7800, 0, 0, 300)] * 999]
    cost = total(CLAUDE_3_7, calls)
    assert (round(cost.uncached_usd, 2), round(cost.usd, 2)) == (Decimal("28.20"), Decimal("7.17"))
    assert round(100 * cost.saved_usd / cost.uncached_usd, 1) == Decimal("74.6")


def test_a_write_nobody_reads_costs_money() -> None:
    cost = cost_of(CLAUDE_3_7, Usage(cache_write_5m=1_000_000))
    assert (cost.usd, cost.uncached_usd, cost.saved_usd) == (Decimal("3.75"), Decimal(3), Decimal("-0.75"))


def test_two_requests_break_even_with_five_minutes_and_three_with_an_hour() -> None:
    multipliers = {"input": 1, "cache_read": 0.1, "cache_write_5m": 1.25, "cache_write_1h": 2, "output": 5}
    prices = ModelPrices(TokenPrices.of(multipliers))
    read = Usage(cache_read=10_000)
    five, hour = [Usage(cache_write_5m=10_000), read], [Usage(cache_write_1h=10_000), read, read]
    assert total(prices, five[:1]).saved_usd < 0 < total(prices, five).saved_usd
    assert total(prices, hour[:2]).saved_usd < 0 < total(prices, hour).saved_usd


# -- long prompts ---------------------------------------------------------------------------------

HAIKU_5_5 = ModelPrices(
    TokenPrices.of({"input": 0.1, "cache_read": 0.01, "cache_write_5m": 0.125, "output": 0.5}),
    ((100_000, TokenPrices.of({"input": 0.5, "cache_read": 0.05, "cache_write_5m": 0.625, "output": 2.5})),),
)


def test_above_the_threshold_every_token_of_the_request_costs_more() -> None:
    at = cost_of(HAIKU_5_5, Usage(input=100_000, output=1000))
    above = cost_of(HAIKU_5_5, Usage(input=100_001, output=1000))
    assert at.usd == Decimal("0.01") + Decimal("0.0005")
    assert above.usd == Decimal("0.0500005") + Decimal("0.0025")


def test_cached_tokens_count_towards_the_threshold_and_in_the_uncached_cost() -> None:
    cost = cost_of(HAIKU_5_5, Usage(input=1, cache_read=100_000))
    assert cost.usd == Decimal("0.0000005") + Decimal("0.005")
    assert cost.uncached_usd == Decimal("0.0500005")


# -- what is not known ----------------------------------------------------------------------------


def test_tokens_of_a_class_without_a_price_make_the_cost_unknown() -> None:
    assert CLAUDE_3_7.cost(Usage(input=10, cache_write_1h=1)) is None
    assert CLAUDE_3_7.cost(Usage(input=10)) is not None


@pytest.mark.parametrize(
    ("prices", "named"),
    [
        ({"input": 3}, "'output'"),
        ({"input": 3, "output": None}, "'output'"),
        ({"input": -3, "output": 15}, "input is -3"),
        ({"input": "three", "output": 15}, "'three'"),
        ({"input": True, "output": 15}, "True"),
        ({"input": float("nan"), "output": 15}, "nan"),
        ({"input": float("inf"), "output": 15}, "inf"),
        ({"input": [3], "output": 15}, "[3]"),
        ({"input": 3, "output": 15, "cache_write": 4}, "'cache_write'"),
    ],
)
def test_a_wrong_price_is_refused_by_name(prices: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigurationError, match="my table") as refusal:
        TokenPrices.of(prices, "my table")
    assert named in str(refusal.value)


# -- exactness ------------------------------------------------------------------------------------


@given(usages, all_priced)
def test_the_cost_is_exact(usage: Usage, prices: TokenPrices) -> None:
    cost = cost_of(ModelPrices(prices), usage)
    expected = (
        usage.input * Fraction(prices.input)
        + usage.cache_read * Fraction(prices.cache_read or 0)
        + usage.cache_write_5m * Fraction(prices.cache_write_5m or 0)
        + usage.cache_write_1h * Fraction(prices.cache_write_1h or 0)
        + usage.output * Fraction(prices.output)
    ) / 10**6
    uncached = (usage.prompt * Fraction(prices.input) + usage.output * Fraction(prices.output)) / 10**6
    assert Fraction(cost.usd) == expected
    assert Fraction(cost.uncached_usd) == uncached
    assert Fraction(cost.saved_usd) == uncached - expected


@given(usages, all_priced)
def test_the_programs_decimal_context_has_no_say(usage: Usage, prices: TokenPrices) -> None:
    expected = cost_of(ModelPrices(prices), usage)
    traps = [decimal.Inexact, decimal.Rounded, decimal.Subnormal]
    with decimal.localcontext(decimal.Context(prec=2, rounding=decimal.ROUND_UP, traps=traps)):
        cost = cost_of(ModelPrices(prices), usage)
        doubled = cost + cost
    assert cost == expected
    assert Fraction(doubled.usd) == 2 * Fraction(cost.usd)


@given(st.lists(usages, max_size=20), all_priced)
def test_costs_add_up_to_the_cost_of_all_tokens(calls: list[Usage], prices: TokenPrices) -> None:
    assert total(ModelPrices(prices), calls) == cost_of(ModelPrices(prices), sum(calls, Usage()))


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        ("0", "0"),
        ("-0.000", "0"),
        ("0.0045210", "0.004521"),
        ("1E-9", "0.000000001"),
        ("1E+3", "1000"),
        ("-0.7", "-0.7"),
    ],
)
def test_amounts_are_printed_in_plain_notation(amount: str, text: str) -> None:
    assert plain(Decimal(amount)) == text


def test_a_cost_prints_as_the_call_contract_says() -> None:
    sonnet = ModelPrices(TokenPrices.of({"input": 3, "cache_read": 0.3, "cache_write_5m": 3.75, "output": 15}))
    cost = sonnet.cost(Usage(input=12, cache_read=7800, output=143), "2026-11-20")
    assert cost is not None
    assert cost.to_dict() == {
        "usd": "0.004521",
        "uncached_usd": "0.025581",
        "saved_usd": "0.02106",
        "prices_as_of": "2026-11-20",
    }


def test_a_sum_is_as_recent_as_its_newest_price() -> None:
    assert (Cost(prices_as_of="2026-11-04") + Cost(prices_as_of="2026-10-08") + Cost()).prices_as_of == "2026-11-04"


# -- amounts that move, and prices that are multiplied --------------------------------------------


def test_two_costs_are_equal_whatever_part_went_into_writes() -> None:
    assert Cost(Decimal(3), write_usd=Decimal(2)) == Cost(Decimal(3))
    assert Cost().write_usd == 0


def test_what_writes_cost_is_summed_beside_the_rest() -> None:
    """3.75 USD a million written, 0.30 USD a million read: of 4.05 USD together 3.75 went into the write."""
    write, read = (cost_of(CLAUDE_3_7, Usage(**{name: 1_000_000})) for name in ("cache_write_5m", "cache_read"))
    assert (write.write_usd, read.write_usd) == (Decimal("3.75"), Decimal(0))
    assert ((write + write + read).usd, (write + write + read).write_usd) == (Decimal("7.80"), Decimal("7.50"))


def test_an_amount_that_is_moved_to_a_cost_comes_out_of_its_saving() -> None:
    moved = Cost(Decimal(3), Decimal(10), Decimal(7), "2026-11-04").moved(Decimal("0.5"))
    assert moved == Cost(Decimal("3.5"), Decimal(10), Decimal("6.5"), "2026-11-04")


EVERY_CLASS = TokenPrices.of({"input": 3, "output": 15, "cache_read": 0.3, "cache_write_5m": 3.75, "cache_write_1h": 6})


def test_a_factor_multiplies_every_class() -> None:
    """Half of 3, 15, 0.30, 3.75 and 6."""
    assert EVERY_CLASS.times(Decimal("0.5")) == TokenPrices.of(
        {"input": 1.5, "output": 7.5, "cache_read": 0.15, "cache_write_5m": 1.875, "cache_write_1h": 3}
    )


def test_output_may_have_a_factor_of_its_own() -> None:
    """A prompt twice as dear, and output at one and a half: 15 x 1.5 = 22.5."""
    assert EVERY_CLASS.times(Decimal(2), Decimal("1.5")) == TokenPrices.of(
        {"input": 6, "output": 22.5, "cache_read": 0.6, "cache_write_5m": 7.5, "cache_write_1h": 12}
    )


def test_a_class_without_a_price_has_none_after_a_factor_either() -> None:
    bare = TokenPrices.of({"input": 3, "output": 15, "cache_read": None})
    assert bare.times(Decimal(2)) == TokenPrices(Decimal(6), Decimal(30))
    assert bare.cache_read is None


def test_a_factor_reaches_every_tier_and_leaves_the_thresholds() -> None:
    """0.1 x 1.1 = 0.11 up to 100,000 tokens, 0.5 x 1.1 = 0.55 above."""
    dearer = HAIKU_5_5.times(Decimal("1.1"))
    assert dearer.for_prompt(100_000).input == Decimal("0.11")
    assert dearer.for_prompt(100_001).input == Decimal("0.55")


def test_the_highest_tier_below_a_prompt_prices_it() -> None:
    tiers = tuple((threshold, TokenPrices.of({"input": price, "output": 1})) for threshold, price in ((10, 2), (20, 3)))
    prices = ModelPrices(TokenPrices.of({"input": 1, "output": 1}), tiers)
    assert [prices.for_prompt(tokens).input for tokens in (10, 11, 20, 21)] == [1, 2, 2, 3]


def test_nothing_at_all_costs_nothing() -> None:
    free = ModelPrices(TokenPrices.of({"input": 0, "output": "0"}))
    assert cost_of(free, Usage(input=10, output=10)) == Cost()


def test_rates_are_those_of_anthropics_price_list_unless_told() -> None:
    """A read is a tenth of an uncached token, a write 1.25 of it for five minutes and twice for an hour."""
    assert (Rates().read, Rates().write("5m"), Rates().write("1h")) == (0.1, 1.25, 2.0)
