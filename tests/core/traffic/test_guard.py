"""When a static plan is followed: by how much it leads, and what may be paid for going over to it.

Unless said otherwise the static plans have a handicap of 0.9 units and the planner none, the largest prompt is such
that a unit is 5,000 tokens, and all but two plans cost so much that they are out of the game. So a plan that is 1,000
cheaper in each request leads from the fifth on, by 5,000 over 4,500.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachepoint.core.traffic.guard import (
    COUNTED_BY_HALF,
    HABITS_KEPT,
    HANDICAP,
    HANDICAP_LEAST,
    OTHERS,
    OURS_LIKELY,
    Followed,
    Guard,
    Standing,
    handicaps,
)
from cachepoint.core.traffic.shadows import Shadowed
from cachepoint.core.traffic.static_plans import FAMILY, NOTHING, OURS, Habit, StaticPlan

NOW = 1_000_000.0
HABIT = Habit("auto", tools=False, system=True, size=1000)
SHORT, HOUR = (FAMILY.index(StaticPlan(("system",), ttl)) for ttl in ("5m", "1h"))
END = FAMILY.index(StaticPlan(("end",)))
OUT = 1e9
LARGEST = 5_000 / HANDICAP_LEAST
DAY = 86_400


def guard(handicaps: Mapping[int, float] | None = None, habit: Habit = HABIT) -> Guard:
    """A guard that knows a habit."""
    given = dict.fromkeys(range(OURS), 0.9) | {OURS: 0.0} | dict(handicaps or {})
    found = Guard(b"", {}, tuple(given[plan] for plan in range(OURS + 1)))
    assert found.known(habit) == habit
    return found


def asked(
    by: Guard,
    costs: Mapping[int, float],
    times: int = 1,
    at: float = NOW,
    *,
    longer: Mapping[int, float] | None = None,
    charge: float = 0.0,
    largest: float = LARGEST,
    habit: Habit = HABIT,
) -> Guard:
    """So many requests at the same time, with what plans would have paid."""
    everyone = range(OURS + 1)
    hours = [(longer or {}).get(plan, 0.0) for plan in everyone]
    for _ in range(times):
        by.began(Shadowed(habit, at, [costs.get(plan, OUT) for plan in everyone], hours, (), charge, largest))
    return by


AHEAD = {OURS: 3000.0, SHORT: 2000.0}


def test_to_begin_with_the_planner_is_followed() -> None:
    assert guard().followed(HABIT) == Followed(OURS, 0.0) == Followed()
    assert asked(guard(), {OURS: 3000.0, SHORT: 3000.0}, 100).followed(HABIT).plan == OURS


@pytest.mark.parametrize(("times", "plan"), [(4, OURS), (5, SHORT)])
def test_a_plan_is_followed_that_leads_by_more_than_its_handicap(times: int, plan: int) -> None:
    assert asked(guard(), AHEAD, times).followed(HABIT).plan == plan


def test_of_several_that_lead_the_one_furthest_ahead_is_followed() -> None:
    assert asked(guard(), {OURS: 3000.0, END: 1900.0, SHORT: 2000.0}, 5).followed(HABIT).plan == END
    assert asked(guard(), {OURS: 3000.0, END: 2000.0, SHORT: 1900.0}, 5).followed(HABIT).plan == SHORT
    # each with its own handicap: 5 x 1,900 + 5,500 against 5 x 2,000 + 4,500
    assert asked(guard({END: 1.1}), {OURS: 3000.0, END: 1900.0, SHORT: 2000.0}, 5).followed(HABIT).plan == SHORT


def test_any_plan_may_be_the_cheapest() -> None:
    for plan in range(OURS):
        assert asked(guard(), {OURS: 3000.0, plan: 2000.0}, 5).followed(HABIT).plan == plan


def test_who_falls_behind_is_left_again() -> None:
    by = asked(guard(), AHEAD, 5)
    behind = {OURS: 2000.0, SHORT: 3000.0}  # 500 beyond the handicap
    assert asked(by, {OURS: 2600.0, SHORT: 3000.0}).followed(HABIT).plan == SHORT
    assert asked(by, behind).followed(HABIT).plan == OURS


def test_evidence_of_yesterday_counts_half() -> None:
    by = asked(guard(), AHEAD, 4)
    standing = by.standings[HABIT]
    asked(by, {OURS: 3000.0, SHORT: 3000.0}, at=NOW + DAY)
    assert standing.costs[OURS] - standing.costs[SHORT] == pytest.approx(4000 / 2)
    assert standing.costs[OURS] == pytest.approx(4 * 3000 / 2 + 3000)


def test_a_clock_set_back_makes_nothing_of_what_was_seen() -> None:
    by = asked(guard(), AHEAD, 4)
    asked(by, AHEAD, at=NOW - DAY)
    assert by.followed(HABIT).plan == SHORT
    asked(by, AHEAD, at=NOW)  # and what fades, fades by the newest
    assert by.standings[HABIT].costs[OURS] == pytest.approx(6 * 3000)


# -- hours ----------------------------------------------------------------------------------------


def test_before_the_first_request_nothing_is_owed() -> None:
    by = asked(guard(), {OURS: 3000.0})
    assert (by.standings[HABIT].costs[OURS], by.standings[HABIT].owed[OURS]) == (3000, 0)
    asked(by, {OURS: 3000.0}, at=NOW + 1800)
    assert by.standings[HABIT].costs[OURS] == pytest.approx(3000 + 3000 * 0.5 ** (1800 / DAY))


def test_what_an_hour_costs_counts_as_the_hour_goes_by() -> None:
    by = asked(guard(), {OURS: 3000.0, HOUR: 9000.0}, longer={HOUR: 4000.0})
    standing = by.standings[HABIT]
    assert standing.costs[HOUR] == 5000
    kept = 0.5 ** (COUNTED_BY_HALF / DAY)
    asked(by, {OURS: 0.0, HOUR: 0.0}, at=NOW + COUNTED_BY_HALF)
    assert standing.costs[HOUR] == pytest.approx(5000 * kept + 2000)
    asked(by, {OURS: 0.0, HOUR: 0.0}, at=NOW + 2 * COUNTED_BY_HALF)  # and half of what is left
    assert standing.costs[HOUR] == pytest.approx((5000 * kept + 2000) * kept + 1000)
    assert standing.costs[OURS] == pytest.approx(3000 * kept**2)


def test_a_plan_that_just_paid_for_an_hour_is_not_taken_for_dear() -> None:
    # 16,000 against 6,000 as paid, 6,000 against 6,000 as it counts by now
    by = asked(guard(), {OURS: 16_000.0, SHORT: 6000.0}, 20, longer={OURS: 10_000.0})
    assert by.followed(HABIT).plan == OURS
    # some time later half of it counts
    asked(by, {OURS: 6000.0, SHORT: 6000.0}, at=NOW + COUNTED_BY_HALF)
    standing = by.standings[HABIT]
    assert standing.costs[OURS] - standing.costs[SHORT] == pytest.approx(100_000)


@given(st.lists(st.tuples(st.sampled_from([0.0, 60.0, 1800.0, 7200.0]), st.integers(0, 4000)), max_size=8))
def test_of_what_hours_cost_no_more_counts_than_was_paid(paid: list[tuple[float, int]]) -> None:
    by, now, total = guard(), NOW, 0.0
    for gap, more in paid:
        now, total = now + gap, total + more
        asked(by, {OURS: 0.0, HOUR: float(more)}, at=now, longer={HOUR: float(more)})
        standing = by.standings[HABIT]
        assert standing.costs[HOUR] + standing.owed[HOUR] <= total * (1 + 1e-9)
        assert min(standing.costs[HOUR], standing.owed[HOUR]) >= 0


# -- handicaps ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("times", "plan"), [(0.9, SHORT), (1.1, OURS)])
def test_of_large_bills_the_unit_is_a_share(times: float, plan: int) -> None:
    # a share of the cheapest plan's 2,000 a request; against the 1,000 that it leads by each time
    handicap = times * 1000 / (HANDICAP * 2000)
    assert asked(guard({SHORT: handicap}), AHEAD, 50, largest=10).followed(HABIT).plan == plan


def test_the_planner_may_be_the_one_with_the_handicap() -> None:
    assert asked(guard({OURS: 0.8}), AHEAD, 1).followed(HABIT).plan == SHORT  # 3,000 + 4,000 against 2,000 + 4,500
    assert asked(guard({OURS: 0.6}), AHEAD, 1).followed(HABIT).plan == OURS


def test_the_largest_prompt_is_the_largest_there_was() -> None:
    by = asked(guard(), AHEAD, 1)
    assert asked(by, AHEAD, 3, largest=10).followed(HABIT).plan == OURS
    assert asked(by, AHEAD, 1, largest=10).followed(HABIT).plan == SHORT


def test_handicaps_are_the_same_for_a_seed_and_others_for_another() -> None:
    assert handicaps(b"one") == handicaps(b"one")
    assert not set(handicaps(b"one")) & set(handicaps(b"two"))
    assert len(set(handicaps(b"one"))) == OURS + 1
    assert len(handicaps(b"a long seed " * 20)) == OURS + 1


def test_handicaps_are_drawn_for_each_plan_by_how_likely_it_is_held() -> None:
    drawn = [handicaps(b"%d" % seed) for seed in range(200)]
    # what is left by the planner is shared out over 33 static plans; the mean of -ln u is 1
    first, other = -math.log(OURS_LIKELY), -math.log((1 - OURS_LIKELY) / 33)
    ours = [each[OURS] for each in drawn]
    static = [handicap for each in drawn for handicap in each[:OURS]]
    assert max(ours) <= first
    assert max(static) <= other
    assert statistics.mean(ours) == pytest.approx(first - 1, abs=0.2)
    assert statistics.mean(static) == pytest.approx(other - 1, abs=0.05)
    assert statistics.stdev(static) == pytest.approx(1, abs=0.1)


def test_a_guard_draws_by_its_seed() -> None:
    def until(seed: bytes) -> int:
        by = Guard(seed)
        by.known(HABIT)
        return next(n for n in range(1, 1000) if asked(by, AHEAD).followed(HABIT).plan != OURS)

    mine = handicaps(b"one")
    assert until(b"one") == math.ceil((mine[SHORT] - mine[OURS]) * 5)
    assert len({until(b"%d" % seed) for seed in range(10)}) > 1


@pytest.mark.parametrize("shape", ["steady", "turns once", "in turns", "by chance"])
def test_in_expectation_the_guard_costs_little_more_than_the_best_plan(shape: str) -> None:
    """Bound B of docs/planner.md where plans are apart by a twentieth of a unit, so that it says something."""
    chance, unit, paid, drawn = random.Random(1), 5_000.0, 0.0, 10
    requests = []
    for number in range(1200):
        best = {"steady": 5, "turns once": 5 + number // 600, "in turns": 6 - number % 2}.get(shape)
        best = chance.randrange(OURS) if best is None else best
        requests.append({plan: 0.0 if plan == best else unit / 20 for plan in range(OURS + 1)})
    requests[0][5] = unit / 40  # from there on the leader, in turns, is the one that is dearer next
    for seed in range(drawn):
        by = Guard(b"%d" % seed)
        by.known(HABIT)
        for costs in requests:
            paid += costs[by.followed(HABIT).plan] / drawn
            asked(by, costs)
    likely = [*[(1 - OURS_LIKELY) / OURS] * OURS, OURS_LIKELY]
    bound = min(sum(costs[i] for costs in requests) + (1 - math.log(likely[i])) * unit for i in range(OURS + 1))
    assert paid <= math.exp(1 / 20) * bound


# -- what may be paid for going over -------------------------------------------------------------


def test_half_of_the_lead_may_be_spent_on_going_over() -> None:
    by = asked(guard(), AHEAD, 10)
    assert by.followed(HABIT) == Followed(SHORT, 5000.0)
    asked(by, AHEAD, charge=1200.0)
    assert by.followed(HABIT) == Followed(SHORT, 5500.0 - 1200.0)
    asked(by, {OURS: 3000.0, SHORT: 3000.0}, at=NOW + DAY)  # what was paid fades as the lead does
    assert by.followed(HABIT) == Followed(SHORT, (5500 - 1200) / 2)


def test_what_going_over_cost_is_forgotten_with_the_next_change() -> None:
    ahead = {OURS: 3000.0, SHORT: 1500.0, END: 2000.0}
    by = asked(asked(guard(), ahead, 5), ahead, charge=2000.0)
    assert by.followed(HABIT) == Followed(SHORT, 4500.0 - 2000.0)
    asked(by, {OURS: 3000.0, SHORT: 6000.0, END: 2000.0})  # 15,000 against 14,000
    assert by.followed(HABIT) == Followed(END, (7 * 3000 - 14_000) / 2)


# -- habits ---------------------------------------------------------------------------------------


def test_each_habit_is_judged_by_its_own_requests() -> None:
    by, other = guard(), HABIT._replace(tools=True)
    by.known(other)
    asked(by, AHEAD, 5)
    asked(by, {OURS: 2000.0, SHORT: 3000.0}, 5, habit=other)
    assert (by.followed(HABIT).plan, by.followed(other).plan) == (SHORT, OURS)


def test_a_request_counts_to_the_habit_that_is_like_it() -> None:
    by = guard()
    assert by.known(HABIT._replace(size=2000)) == HABIT
    assert by.known(HABIT._replace(size=500)) == HABIT
    far = HABIT._replace(size=2001)
    assert by.known(far) == far
    assert by.known(HABIT._replace(size=2000)) == HABIT
    assert by.known(far) == far


def test_beyond_sixty_four_habits_all_others_are_one() -> None:
    by = Guard()
    habits = [HABIT._replace(size=4.0**power) for power in range(HABITS_KEPT + 10)]
    assert [by.known(habit) for habit in habits] == [*habits[:HABITS_KEPT], *[OTHERS] * 10]
    assert [by.known(habit) for habit in habits] == [*habits[:HABITS_KEPT], *[OTHERS] * 10]
    assert len(by.standings) == HABITS_KEPT + 1 == 65


def test_what_is_lumped_together_follows_no_plan_but_nothing() -> None:
    by = Guard(b"", {OTHERS: Standing()}, (0.0,) * (OURS + 1))
    assert asked(by, AHEAD, 5, habit=OTHERS).followed(OTHERS).plan == OURS
    assert asked(by, {OURS: 6 * OUT, NOTHING: 0.0}, habit=OTHERS).followed(OTHERS).plan == NOTHING


def test_a_request_of_a_habit_that_is_not_known_teaches_nothing() -> None:
    by = Guard()
    asked(by, AHEAD, 10)
    assert by.standings == {}


@pytest.mark.parametrize(
    ("ttl", "cheapest", "followed"),
    [
        ("auto", HOUR, HOUR), ("auto", SHORT, SHORT), ("auto", NOTHING, NOTHING),
        ("5m", HOUR, OURS), ("5m", SHORT, SHORT), ("5m", NOTHING, NOTHING),
        ("1h", HOUR, HOUR), ("1h", SHORT, OURS), ("1h", NOTHING, NOTHING),
    ],
)  # fmt: skip
def test_who_fixes_a_lifetime_gets_no_plan_of_another(ttl: str, cheapest: int, followed: int) -> None:
    habit = HABIT._replace(ttl=ttl)
    by = asked(guard(habit=habit), {OURS: 3000.0, cheapest: 2000.0}, 5, habit=habit)
    assert by.followed(habit).plan == followed
