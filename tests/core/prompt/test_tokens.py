"""Estimates are honest about their width, and exact totals narrow them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachepoint.core.prompt.tokens import NOT_CALIBRATED, PROFILES, Calibration

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
