"""Whether renewing a prefix pays, and when it is due: figures by hand."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from cachepoint.core.planning.keeping import MARGIN_SECONDS, Standing, due, verdict

LEAST = (0.0,) * 7
HALF_LATER = (0.0, 0.0, 0.0, 0.2, 0.5, 0.6, 0.6)
"""A fifth comes within five minutes, three tenths more within a quarter of an hour."""
COSTS, SAVES = 0.1, 1.15
"""A read; and what a write at 1.25 costs beyond a read."""


def standing(returns: tuple[float, ...] = HALF_LATER, **given: Any) -> Standing:
    return Standing(**{"ttl": "5m", "visited": 0.0, "used": 0.0, "returns": returns, **given})


def decided(of: Standing, now: float, *, costs: float = COSTS, saves: float = SAVES, at_most: int = 1) -> str:
    return verdict(of, now, costs=costs, saves=saves, at_most=at_most)


def test_a_renewal_is_due_shortly_before_the_life_ends_and_of_no_use_after() -> None:
    assert MARGIN_SECONDS == 20
    assert (due("5m", 1000.0), due("1h", 1000.0)) == (1280.0, 4580.0)
    assert [decided(standing(), now) for now in (279.9, 280.0, 299.9, 300.0)] == ["wait", "renew", "renew", "leave"]


def test_it_is_due_by_its_last_use_of_any_kind() -> None:
    assert decided(standing(used=280.0), 280.0) == "wait"


def test_it_pays_where_the_next_request_comes_often_enough_in_the_life_renewed() -> None:
    # At 280 s, after 0.2 x 160 / 180 = 0.178 have come, of 0.822 there come between 300 s and 580 s
    # 0.3 x 280 / 600 = 0.14: a chance of 0.170, which is worth 0.196 and costs 0.1.
    chance = 0.14 / (1 - 0.2 * 160 / 180)
    assert decided(standing(), 280.0, costs=chance * SAVES * 0.999) == "renew"
    assert decided(standing(), 280.0, costs=chance * SAVES * 1.001) == "leave"


def test_nothing_is_renewed_that_does_not_come_back_or_comes_at_once() -> None:
    assert decided(standing(LEAST), 280.0) == "leave"
    assert decided(standing((0.9, 0.95, 0.99, 1.0, 1.0, 1.0, 1.0)), 280.0) == "leave"
    assert decided(standing((1.0,) * 7), 280.0) == "leave"


def test_between_two_requests_there_are_so_many_renewals_and_no_more() -> None:
    once = standing(used=280.0, renewed=1)
    assert [decided(once, 560.0, at_most=most) for most in (1, 2)] == ["leave", "renew"]


def test_several_in_a_row_may_pay_where_one_does_not() -> None:
    # back in 1,000 s: renewals at 280, 560 and 840 s, the last of which lasts until 1,140 s: 1.15 against 0.3
    back = standing(LEAST, back_in=1000.0)
    assert [decided(back, 280.0, at_most=most) for most in (1, 2, 3)] == ["leave", "leave", "renew"]
    assert decided(back, 280.0, costs=0.38, at_most=3) == "renew"
    assert decided(back, 280.0, costs=0.39, at_most=3) == "leave"


def test_what_is_back_before_the_life_ends_needs_no_renewal() -> None:
    assert decided(standing(LEAST, back_in=290.0), 280.0, at_most=3) == "leave"
    assert decided(standing(LEAST, back_in=301.0), 280.0) == "renew"


def test_what_is_sure_to_come_comes_as_late_as_others_do() -> None:
    # of those that come at all 0.3 / 0.6 x 280 / 600 come in the life renewed, of 1 - 0.2 / 0.6 x 160 / 180 open ones
    chance = 0.5 * 280 / 600 / (1 - 0.2 / 0.6 * 160 / 180)
    assert decided(standing(sure=True), 280.0, costs=chance * SAVES * 0.999) == "renew"
    assert decided(standing(sure=True), 280.0, costs=chance * SAVES * 1.001) == "leave"
    assert decided(standing(LEAST, sure=True), 280.0) == "leave"


def test_beyond_an_hour_nothing_is_known_to_come() -> None:
    late = (0.0, 0.0, 0.0, 0.0, 0.0, 0.1, 0.9)
    assert decided(standing(late, ttl="1h"), 3580.0, at_most=9) == "leave"
    assert decided(standing(late, ttl="1h", back_in=4000.0), 3580.0) == "renew"
    assert decided(standing(late, visited=-3600.0, used=0.0), 280.0, at_most=99) == "leave"


@given(
    shares=st.lists(st.floats(0, 1), min_size=7, max_size=7),
    age=st.floats(0, 5_000),
    costs=st.floats(0.001, 1),
    saves=st.floats(0, 2),
    most=st.integers(1, 5),
    sure=st.booleans(),
)
def test_more_leave_never_makes_a_renewal_pay_less(
    shares: list[float], age: float, costs: float, saves: float, most: int, *, sure: bool
) -> None:
    of = standing(tuple(sorted(shares)), visited=-age, sure=sure)
    if decided(of, 280.0, costs=costs, saves=saves, at_most=most) == "renew":
        assert decided(of, 280.0, costs=costs, saves=saves, at_most=most + 1) == "renew"
        assert decided(of, 280.0, costs=costs / 2, saves=saves, at_most=most) == "renew"
        assert saves > costs  # a chance is at most 1
