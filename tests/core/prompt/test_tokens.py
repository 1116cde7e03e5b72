"""Estimates are honest about their width, and exact totals narrow them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachepoint.core.prompt.tokens import NOT_CALIBRATED, PROFILES, Calibration, TokenizerProfile

CLAUDE = PROFILES["claude"]


@pytest.mark.parametrize(
    ("tokenizer", "bytes_a_token"),
    [("claude", 4.34), ("claude", 4.56), ("claude", 3.45), ("claude", 5.6), ("claude-new", 3.04), ("claude-new", 4.29),
     ("nova", 5.4), ("nova", 6.1)],
)  # fmt: skip
def test_recorded_texts_lie_inside_the_band(tokenizer: str, bytes_a_token: float) -> None:
    profile = PROFILES[tokenizer]  # type: ignore[index]
    size = 10_000
    low, mid, high = NOT_CALIBRATED.band(size / profile.likely, profile)
    assert low <= size / bytes_a_token <= high
    assert low < mid < high


def test_one_exact_total_moves_the_estimate_to_it() -> None:
    band = NOT_CALIBRATED.updated(1000, 1250).band(1000, CLAUDE)
    assert band.mid == pytest.approx(1250)
    assert band.low < 1250 < band.high
    assert band.high - band.low < 300


def test_totals_that_agree_keep_the_band_narrow() -> None:
    calibration = NOT_CALIBRATED
    for _ in range(20):
        calibration = calibration.updated(1000, 1100)
    low, mid, high = calibration.band(2000, CLAUDE)
    assert mid == pytest.approx(2200)
    assert (high - low) / mid == pytest.approx(0.2)


def test_totals_that_disagree_widen_it() -> None:
    calibration = NOT_CALIBRATED
    for actual in (1000, 1500, 1000, 1500):
        calibration = calibration.updated(1000, actual)
    low, _, high = calibration.band(1000, CLAUDE)
    assert low < 1000
    assert high > 1400


def test_a_change_of_traffic_is_followed() -> None:
    calibration = NOT_CALIBRATED
    for _ in range(200):
        calibration = calibration.updated(1000, 1000)
    for _ in range(60):
        calibration = calibration.updated(1000, 1400)
    assert calibration.band(1000, CLAUDE).mid == pytest.approx(1400, rel=0.02)


@pytest.mark.parametrize(("estimated", "actual"), [(0.0, 100), (100.0, 0), (0.5, 3)])
def test_nothing_is_learned_from_nothing(estimated: float, actual: int) -> None:
    assert NOT_CALIBRATED.updated(estimated, actual) == NOT_CALIBRATED


@given(totals=st.lists(st.tuples(st.floats(1, 1e6), st.integers(1, 2_000_000)), max_size=30), mid=st.floats(0, 1e6))
def test_a_band_is_always_in_order(totals: list[tuple[float, int]], mid: float) -> None:
    calibration = Calibration()
    for estimated, actual in totals:
        calibration = calibration.updated(estimated, actual)
    low, likely, high = calibration.band(mid, CLAUDE)
    assert 0 <= low <= likely <= high


# -- worked by hand -------------------------------------------------------------------------------


def parts(calibration: Calibration) -> tuple[float, float, float]:
    return calibration.factor, calibration.spread, calibration.samples


def test_before_any_total_the_band_is_the_tokenizers_own() -> None:
    """1,000 likely tokens are 4,400 bytes: at most 4,400 / 2.8 tokens, at least 4,400 / 6.2."""
    assert NOT_CALIBRATED.band(1000, CLAUDE) == pytest.approx((4400 / 6.2, 1000, 4400 / 2.8))


def test_without_totals_estimates_are_taken_as_they_are() -> None:
    assert parts(NOT_CALIBRATED) == (1.0, 0.0, 0.0)


def test_the_first_total_is_believed_and_the_second_counts_as_much() -> None:
    """1,250 of 1,000, then 1,000 of 1,000: the factor is 1.25, then halfway to 1; it strayed by 0.25 of 1.25."""
    first = NOT_CALIBRATED.updated(1000, 1250)
    assert parts(first) == pytest.approx((1.25, 0.0, 1.0))
    assert parts(first.updated(1000, 1000)) == pytest.approx((1.125, 0.2, 2.0))


def test_a_small_prompt_counts_as_a_part_of_one() -> None:
    """200 of 100 tokens count 0.2; a full sample then weighs 1 / 1.2, and strays from 2 by half."""
    small = NOT_CALIBRATED.updated(100, 200)
    assert parts(small) == pytest.approx((2.0, 0.0, 0.2))
    assert parts(small.updated(1000, 1000)) == pytest.approx((2 - 1 / 1.2, 0.5, 1.2))


def test_what_strays_in_a_small_prompt_counts_by_its_size() -> None:
    """400 tokens, 0.4 of a sample: they stray by 1.0 of the factor 1.0, which counts 0.4."""
    small = Calibration(1.0, 0.1, 9.0).updated(200, 400)
    assert parts(small) == pytest.approx((1 + 0.4 / 9.4, 0.4, 9.4))


def test_a_total_weighs_a_tenth_however_many_came_before() -> None:
    """From 1 a tenth of the way to 2; the stray is 1, no more; without another it falls back by tenths."""
    calibration = Calibration(1.0, 0.0, 1000.0).updated(1000, 2000)
    assert parts(calibration) == pytest.approx((1.1, 1.0, 1001.0))
    calmer = calibration.updated(1000, 1100)
    assert parts(calmer) == pytest.approx((1.1, 0.9, 1002.0))


def test_a_small_prompt_weighs_a_tenth_of_its_size_at_least() -> None:
    """500 tokens are half a sample: a twentieth of the way from 1 to 2."""
    assert Calibration(1.0, 0.0, 1000.0).updated(250, 500).factor == pytest.approx(1.05)


def test_the_spread_is_never_above_the_whole() -> None:
    assert Calibration(1.0, 0.0, 5.0).updated(1000, 9000).spread == 1.0


@pytest.mark.parametrize(("spread", "low", "high"), [(0.0, 1080, 1320), (0.2, 960, 1440), (1.0, 120, 2400)])
def test_a_band_is_as_wide_as_totals_strayed_a_tenth_at_least(spread: float, low: float, high: float) -> None:
    """Around 1,200; downwards by nine tenths at most."""
    assert Calibration(1.2, spread, 3.0).band(1000, CLAUDE) == pytest.approx((low, 1200, high))


def test_one_token_is_enough_to_learn_from() -> None:
    assert parts(NOT_CALIBRATED.updated(1, 1)) == pytest.approx((1.0, 0.0, 0.001))


def test_the_tokenizers_are_those_of_the_recorded_traffic() -> None:
    """Bytes a token of dense, likely and sparse text and of JSON; tokens for tools, a forced tool, a schema, a message.

    The prompt that comes with tools was recorded with about 295 tokens on Opus 4.8 and 340 on Nova, and a forced tool
    with 90 more on Claude.
    """
    assert dict(PROFILES) == {
        "claude": TokenizerProfile(2.8, 4.4, 6.2, 3.2, tools=450, forced_tool=90, output_schema=250, per_message=4),
        "claude-new": TokenizerProfile(1.9, 3.4, 4.4, 2.5, tools=295, forced_tool=90, output_schema=250, per_message=4),
        "nova": TokenizerProfile(2.8, 4.6, 6.2, 3.4, tools=340, forced_tool=0, output_schema=250, per_message=4),
        "other": TokenizerProfile(2.0, 4.2, 6.2, 3.2, tools=300, forced_tool=0, output_schema=250, per_message=4),
    }
