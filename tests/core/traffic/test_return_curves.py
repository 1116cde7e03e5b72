"""Return curves in figures worked by hand.

Buckets end at 15, 45, 120, 300, 900 and 3,600 s; a prior counts as two visits. The prior of a first visit to the end
of the system prompt is .75 × (.15, .35, .6, .8, .92, .98, 1): by bucket .1125, .2625, .45, .6, .69, .735, .75.
"""

from __future__ import annotations

import math
import random
from heapq import heappop, heappush

import pytest

from cachepoint.core.traffic.evidence import AT_RISK, BEGUN, ELSEWHERE, EVENTS, FOLLOWED, HALF_LIFE, NO_COUNTS, Delta
from cachepoint.core.traffic.kinds import (
    AGAIN_KIND,
    COARSE,
    FIRST_KINDS,
    N_BUCKETS,
    UNTIL_5M,
    CurveKey,
    bucket,
    coarser,
)
from cachepoint.core.traffic.return_curves import (
    PRIORS,
    SOON,
    Forecast,
    Habits,
    Happened,
    Outlook,
    as_they_came,
    outlook,
    prior_forecast,
)
from cachepoint.core.traffic.view import Step, kinds_of

LATE = tuple(float(index >= UNTIL_5M) for index in range(N_BUCKETS))
SYSTEM: CurveKey = FIRST_KINDS["system_end"][0]
AGAIN: CurveKey = AGAIN_KIND["system_end"]
PRIOR = (0.1125, 0.2625, 0.45, 0.6, 0.69, 0.735, 0.75)
NOW = 1_000_000.0


def waiting(*beginnings: float, kind: CurveKey = SYSTEM) -> Habits:
    habits = Habits()
    for at in beginnings:
        habits.observe(Happened(waits=[kind]), at)
    return habits


def counts(habits: Habits, now: float = NOW, kind: CurveKey = SYSTEM) -> tuple[float, ...]:
    return habits.counted(now)[kind]


def forecast(habits: Habits, now: float = NOW, kind: CurveKey = SYSTEM) -> Forecast:
    return habits.forecasts([kind], now)[kind]


def returns_by_bucket(*figures: float) -> tuple[float, ...]:
    return (*figures, *(0.0,) * (7 - len(figures)))


# -- kinds ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gap", "found"),
    [
        (-5, 0),
        (0, 0),
        (14.9, 0),
        (15, 1),
        (45, 2),
        (119, 2),
        (120, 3),
        (299, 3),
        (300, 4),
        (900, 5),
        (3599, 5),
        (3600, 6),
    ],
)
def test_a_gap_of_a_limit_is_in_the_later_bucket(gap: float, found: int) -> None:
    assert bucket(gap) == found


@pytest.mark.parametrize(
    ("added", "found"), [(-10, 0), (63, 0), (64, 1), (127, 1), (128, 2), (32_767, 9), (32_768, 10)]
)
def test_sizes_are_told_apart_by_powers_of_two(added: float, found: int) -> None:
    assert kinds_of([Step(b"new", "inner", added)], (), 0.0) == [FIRST_KINDS["inner"][found]]


def test_kinds_are_by_role_then_by_visit_then_by_size() -> None:
    assert SYSTEM == ("system_end", False, 0)
    assert AGAIN == ("system_end", True, 0)
    assert coarser(FIRST_KINDS["inner"][4]) == ("inner", False, COARSE)
    assert [len(kinds) for kinds in FIRST_KINDS.values()] == [11] * 10


# -- priors ---------------------------------------------------------------------------------------


def test_without_evidence_a_kind_promises_its_prior() -> None:
    assert prior_forecast(SYSTEM).returns == pytest.approx(PRIOR)
    assert prior_forecast(SYSTEM).visits == math.inf
    assert Habits().forecasts([SYSTEM], NOW) == {SYSTEM: prior_forecast(SYSTEM)}


def test_what_came_back_once_promises_to_come_again_whatever_it_is() -> None:
    assert prior_forecast(AGAIN_KIND["tail_single"]).returns[-1] == pytest.approx(0.7)
    assert prior_forecast(AGAIN_KIND["tail_single"]) == prior_forecast(AGAIN_KIND["tools_end"])


def test_sizes_lumped_together_promise_the_least_of_all_roles() -> None:
    assert prior_forecast(coarser(SYSTEM)).returns[-1] == pytest.approx(0.1)
    assert min(prior.returns for prior in PRIORS.values()) == 0.1


def test_only_what_returns_often_enough_to_pay_for_a_write_is_written_on_a_prior() -> None:
    """A write of 1.25 pays from .28 hits; a chance p of a return that never changes is p / (1 - p) hits."""
    pays = {role for role, prior in PRIORS.items() if prior.returns / (1 - prior.returns) > 0.28}
    assert pays == {"tools_end", "system_end", "context_end", "history_end", "tail_turns", "tail_tools"}


# -- waits ----------------------------------------------------------------------------------------


def test_an_open_wait_is_at_risk_in_buckets_it_passed_and_half_in_its_own() -> None:
    found = counts(waiting(NOW - 60))  # past 15 and 45 s, on the way to 120
    assert found[AT_RISK : AT_RISK + 7] == pytest.approx(returns_by_bucket(1, 1, 0.5), rel=1e-3)
    assert found[EVENTS : EVENTS + 7] == (0.0,) * 7


def test_waits_of_several_ages_add_up() -> None:
    found = counts(waiting(NOW - 1_000, NOW - 60, NOW - 1))
    assert found[AT_RISK : AT_RISK + 7] == pytest.approx(returns_by_bucket(2.5, 2, 1.5, 1, 1, 0.5), rel=1e-2)


def test_a_return_was_at_risk_up_to_the_bucket_it_came_in() -> None:
    habits = waiting(NOW - 60)
    habits.observe(Happened(returned=[(SYSTEM, NOW - 60)]), NOW)
    found = counts(habits)
    assert found[AT_RISK : AT_RISK + 7] == pytest.approx(returns_by_bucket(1, 1, 1), rel=1e-3)
    assert found[EVENTS : EVENTS + 7] == pytest.approx(returns_by_bucket(0, 0, 1), rel=1e-3)


def test_a_return_that_was_not_awaited_is_none() -> None:
    habits = waiting(NOW - 60)
    for _ in range(2):
        habits.observe(Happened(returned=[(SYSTEM, NOW - 60)]), NOW)
    habits.observe(Happened(returned=[(SYSTEM, NOW - 70)], superseded=[(SYSTEM, NOW - 70)]), NOW)
    assert sum(counts(habits)[EVENTS : EVENTS + 7]) == pytest.approx(1, rel=1e-3)
    assert sum(counts(habits)[AT_RISK : AT_RISK + 7]) == pytest.approx(3, rel=1e-3)


def test_what_a_conversation_went_on_without_never_comes_back() -> None:
    habits = waiting(NOW - 20)
    habits.observe(Happened(superseded=[(SYSTEM, NOW - 20)]), NOW)
    assert counts(habits)[AT_RISK : AT_RISK + 7] == pytest.approx((1,) * 7, rel=1e-3)
    assert not any(counts(habits)[EVENTS : EVENTS + 7])


def test_a_wait_is_given_up_after_an_hour() -> None:
    habits = waiting(NOW - 3_600, NOW)
    assert len(habits.curve(SYSTEM).waits) == 2
    habits = waiting(NOW - 3_601, NOW)
    assert len(habits.curve(SYSTEM).waits) == 1
    assert counts(habits)[AT_RISK : AT_RISK + 7] == pytest.approx((1.5, *(1,) * 6), rel=0.03)


def test_a_boundary_that_is_no_longer_remembered_counts_as_far_as_it_had_come() -> None:
    habits = waiting(NOW - 60, NOW - 10)
    habits.forgotten([(SYSTEM, NOW - 60), (SYSTEM, NOW - 70)], NOW)
    assert len(habits.curve(SYSTEM).waits) == 1
    assert counts(habits)[AT_RISK : AT_RISK + 7] == pytest.approx(returns_by_bucket(1.5, 1, 0.5), rel=1e-3)


def test_a_clock_set_back_ends_the_waits_as_far_as_they_had_come() -> None:
    habits = waiting(NOW - 60, NOW)
    habits.observe(Happened(begun=[SYSTEM]), NOW)
    habits.observe(Happened(waits=[SYSTEM]), NOW - 2)  # out of order
    assert len(habits.curve(SYSTEM).waits) == 3
    habits.observe(Happened(waits=[SYSTEM]), NOW - 10_000)
    assert len(habits.curve(SYSTEM).waits) == 1
    found = counts(habits, NOW - 10_000)
    # of the three, one had passed two buckets and two had just begun; the new one has just begun
    assert found[AT_RISK : AT_RISK + 7] == pytest.approx(returns_by_bucket(2.5, 1, 0.5), rel=0.02)
    assert found[BEGUN] == pytest.approx(1, rel=1e-3)
    assert len(habits.curve(SYSTEM).young) == 0


@pytest.mark.parametrize(("back", "left"), [(120, 2), (120.1, 1)])
def test_requests_may_come_two_minutes_out_of_order(back: float, left: int) -> None:
    habits = waiting(NOW)
    habits.observe(Happened(waits=[SYSTEM]), NOW - back)
    assert len(habits.curve(SYSTEM).waits) == left


def test_after_a_clock_was_set_back_new_evidence_still_counts() -> None:
    habits = waiting(NOW)
    earlier = NOW - 400 * HALF_LIFE
    habits.observe(Happened(waits=[SYSTEM]), earlier)
    habits.observe(Happened(returned=[(SYSTEM, earlier)]), earlier + 20)
    assert sum(counts(habits, earlier + 20)[EVENTS : EVENTS + 7]) == pytest.approx(1, rel=0.03)


# -- curves ---------------------------------------------------------------------------------------


def known(habits: Habits | None = None, kind: CurveKey = SYSTEM, **figures: float | tuple[float, ...]) -> Habits:
    """Habits with plain counts as of now."""
    row = list(NO_COUNTS)
    places = {"events": EVENTS, "at_risk": AT_RISK, "followed": FOLLOWED, "begun": BEGUN, "elsewhere": ELSEWHERE}
    for name, given in figures.items():
        several = given if isinstance(given, tuple) else (given,)
        row[places[name] : places[name] + len(several)] = several
    habits = habits or Habits()
    habits.learn(Delta.at(NOW, {kind: tuple(row)}))
    return habits


def test_evidence_and_prior_make_a_curve() -> None:
    """Kaplan and Meier's: in each bucket, returns over visits at risk, the prior counting as two visits.

    Bucket 1: (2 + 2 × .1125) / (10 + 2) = .185417. Bucket 2: the prior's two visits are down to 2 × .8875 = 1.775 and
    return with .15 of two: (1 + .3) / (5 + 1.775) = .191882. No evidence later: the prior's hazards, (.45 - .2625) /
    (1 - .2625) = .254237 and so on.
    """
    found = forecast(known(events=(2.0, 1.0), at_risk=(10.0, 5.0))).returns
    survived = (1 - 2.225 / 12) * (1 - 1.3 / 6.775)
    assert found[0] == pytest.approx(2.225 / 12)
    assert found[1] == pytest.approx(1 - survived)
    for index in range(2, 7):
        survived *= 1 - (PRIOR[index] - PRIOR[index - 1]) / (1 - PRIOR[index - 1])
        assert found[index] == pytest.approx(1 - survived)


def test_a_bucket_of_more_returns_than_visits_at_risk_leaves_none_behind() -> None:
    assert forecast(known(events=(9.0,), at_risk=(3.0,))).returns[0] == 1
    assert forecast(known(events=(-9.0,), at_risk=(3.0,))).returns[0] == 0


def test_an_overwhelming_evidence_silences_the_prior_and_a_day_later_half_of_it() -> None:
    habits = known(events=(0.0,), at_risk=(30.0,))
    assert forecast(habits).returns[0] == pytest.approx(0.225 / 32)
    assert forecast(habits, NOW + HALF_LIFE).returns[0] == pytest.approx(0.225 / 17)


def test_a_kind_promises_as_many_visits_as_followed_on_average() -> None:
    # Without returns to count, the prior's for ever is .75 / .25 = 3: (10 + 2 × 3) / (4 + 2)
    assert forecast(known(followed=10.0, begun=4.0)).visits == pytest.approx(16 / 6)


def test_a_young_boundary_counts_by_the_part_of_an_hour_it_has_had() -> None:
    habits = Habits()
    habits.observe(Happened(begun=[SYSTEM], followed=[SYSTEM, SYSTEM]), NOW)
    assert forecast(habits).visits == pytest.approx((2 + 6) / 2)
    assert counts(habits, NOW + 900)[BEGUN] == pytest.approx(0.25, rel=0.01)
    assert counts(habits, NOW + 7_200)[BEGUN] == pytest.approx(2 ** (-1 / 12), rel=1e-3)
    assert counts(habits, NOW - 60)[BEGUN] == 0
    assert counts(habits)[FOLLOWED] == pytest.approx(2)


def test_a_boundary_is_no_longer_young_after_an_hour() -> None:
    habits = Habits()
    for at in (NOW - 3_601, NOW - 3_500, NOW):
        habits.observe(Happened(begun=[SYSTEM]), at)
    assert len(habits.curve(SYSTEM).young) == 2
    assert counts(habits)[BEGUN] == pytest.approx(1 + 3_500 / 3_600, rel=0.03)


def test_a_request_counts_for_the_kinds_it_names() -> None:
    habits = Habits()
    habits.observe(Happened(begun=[AGAIN], followed=[SYSTEM]), NOW)
    assert set(habits.curves) == {SYSTEM, AGAIN}
    assert counts(habits)[FOLLOWED] == 1
    assert len(habits.curve(AGAIN).young) == 1


# -- other processes ------------------------------------------------------------------------------


def test_a_read_of_what_this_process_never_wrote_is_a_return_within_five_minutes() -> None:
    habits = waiting(NOW - 100, NOW - 50)
    habits.returned_elsewhere(SYSTEM, SOON, NOW, read=True)
    found = counts(habits)
    # by the wait that it ended, the oldest, of 100 s: 2 to the -100 / 86,400th
    assert found[EVENTS : EVENTS + 7] == pytest.approx(returns_by_bucket(0, 0, 0, 0.999198))
    # the wait that is left has passed two buckets
    assert found[AT_RISK : AT_RISK + 7] == pytest.approx(returns_by_bucket(2, 2, 1.5, 1), rel=1e-3)
    assert found[ELSEWHERE] == pytest.approx(1)


def test_a_return_that_was_not_read_came_after_five_minutes() -> None:
    habits = Habits()
    habits.returned_elsewhere(SYSTEM, LATE, NOW, read=False)
    found = counts(habits)
    assert found[EVENTS : EVENTS + 7] == pytest.approx(returns_by_bucket(0, 0, 0, 0, 1))
    assert found[AT_RISK : AT_RISK + 7] == pytest.approx(returns_by_bucket(1, 1, 1, 1, 1))


def test_a_return_of_which_nothing_more_is_known_came_as_they_do() -> None:
    habits = Habits()
    habits.returned_elsewhere(SYSTEM, None, NOW, read=False)
    # the steps of the prior's spread over five minutes: .15, .2, .25 and .2 of .8, for nothing later was ever seen
    assert counts(habits)[EVENTS : EVENTS + 7] == pytest.approx((0.1875, 0.25, 0.3125, 0.25, 0, 0, 0))
    assert counts(habits)[AT_RISK : AT_RISK + 3] == pytest.approx((1, 0.8125, 0.5625))


def test_where_late_returns_were_seen_one_of_which_nothing_is_known_may_be_late() -> None:
    habits = waiting(NOW - 600)
    habits.observe(Happened(returned=[(SYSTEM, NOW - 600)]), NOW)
    before = counts(habits)[EVENTS + 4]
    habits.returned_elsewhere(SYSTEM, None, NOW, read=False)
    assert counts(habits)[EVENTS + 4] > before


def test_how_many_follow_here_says_nothing_once_others_are_known_to_visit() -> None:
    habits = known(begun=50.0)
    assert forecast(habits).visits < 0.2
    habits.returned_elsewhere(SYSTEM, SOON, NOW, read=True)
    assert forecast(habits).visits == math.inf
    assert forecast(habits, NOW + 60).visits < 5  # one alone is soon forgotten
    habits.returned_elsewhere(SYSTEM, SOON, NOW, read=True)
    assert forecast(habits, NOW + HALF_LIFE - 1).visits == math.inf
    assert forecast(habits, NOW + HALF_LIFE + 1).visits < 5


def test_eight_returns_elsewhere_are_believed_before_a_read_bears_them_out() -> None:
    habits = Habits()
    for _ in range(12):
        habits.returned_elsewhere(SYSTEM, LATE, NOW, read=False)
    assert counts(habits)[ELSEWHERE] == pytest.approx(8)
    habits.returned_elsewhere(SYSTEM, SOON, NOW, read=True)
    habits.returned_elsewhere(SYSTEM, LATE, NOW, read=False)
    assert counts(habits)[ELSEWHERE] == pytest.approx(10)


def test_a_late_return_that_others_came_before_is_taken_for_an_early_one() -> None:
    habits = waiting(NOW - 1_000)
    habits.observe(Happened(returned=[(SYSTEM, NOW - 1_000)]), NOW)
    habits.returned_sooner(SYSTEM, 1_000, NOW)
    habits.returned_sooner(SYSTEM, 1_000, NOW)  # there is one only
    found = as_they_came(counts(habits))
    assert found[EVENTS : EVENTS + 7] == pytest.approx(returns_by_bucket(0, 0, 0, 1), rel=0.01, abs=1e-9)
    assert found[AT_RISK : AT_RISK + 7] == pytest.approx(returns_by_bucket(1, 1, 1, 1), rel=0.01, abs=1e-9)
    assert found[ELSEWHERE] == pytest.approx(2)
    told = known(events=(0.0, 0.0, 0.0, 1.0), at_risk=(1.0,) * 4)
    assert forecast(habits).returns == pytest.approx(forecast(told).returns, rel=0.01)


def test_an_early_return_or_none_is_left_as_it_is() -> None:
    habits = waiting(NOW - 200)
    habits.observe(Happened(returned=[(SYSTEM, NOW - 200)]), NOW)
    before = counts(habits)
    habits.returned_sooner(SYSTEM, 200, NOW)
    habits.returned_sooner(SYSTEM, 1_000, NOW)
    assert counts(habits)[:FOLLOWED] == before[:FOLLOWED]
    assert counts(habits)[ELSEWHERE] == pytest.approx(2, rel=0.02)


def test_a_return_just_after_five_minutes_is_taken_for_an_early_one_too() -> None:
    habits = waiting(NOW - 300)
    habits.observe(Happened(returned=[(SYSTEM, NOW - 300)]), NOW)
    habits.returned_sooner(SYSTEM, 300, NOW)
    assert as_they_came(counts(habits))[EVENTS + 3 : EVENTS + 5] == pytest.approx((1, 0), rel=0.01)


def test_a_read_bears_out_the_returns_elsewhere_before_it() -> None:
    habits = Habits()
    for _ in range(8):
        habits.returned_elsewhere(SYSTEM, LATE, NOW, read=False)
    habits.returned_sooner(SYSTEM, 10, NOW)
    for _ in range(9):
        habits.returned_elsewhere(SYSTEM, LATE, NOW, read=False)
    assert counts(habits)[ELSEWHERE] == pytest.approx(8 + 1 + 8)


@pytest.mark.parametrize(("returns", "left"), [(0.4, 0.4), (0.9, 0.0), (3.0, 2.0)])
def test_no_return_is_taken_for_an_earlier_one_where_there_was_none(returns: float, left: float) -> None:
    habits = known(events=(0.0, 0.0, 0.0, 0.0, returns), at_risk=(5.0,) * 5)
    habits.returned_sooner(SYSTEM, 400, NOW)
    assert as_they_came(counts(habits))[EVENTS + 4] == pytest.approx(left, abs=0.01)
    assert counts(habits)[EVENTS + 4] == pytest.approx(returns)


# -- a keeper of deltas ---------------------------------------------------------------------------


def test_what_is_under_way_is_in_the_evidence_as_far_as_it_has_come() -> None:
    habits = waiting(NOW - 60)
    habits.observe(Happened(begun=[SYSTEM]), NOW - 60)
    told = Habits()
    told.learn(habits.evidence(NOW))
    assert forecast(told).returns == pytest.approx(forecast(habits).returns)
    assert forecast(told).visits == pytest.approx(forecast(habits).visits)
    assert len(told.curve(SYSTEM).waits) == 0


def test_a_profile_fades_from_its_first_use_on() -> None:
    counted = counts(known(events=(4.0,), at_risk=(8.0,)))
    told, later = Habits(undated={SYSTEM: counted}), NOW + 50 * HALF_LIFE
    assert counts(told, 0.0) == pytest.approx(counted)
    first = forecast(told, later)
    assert first.returns[0] == pytest.approx((4 + 0.225) / (8 + 2))
    assert forecast(told, later + HALF_LIFE).returns[0] == pytest.approx((2 + 0.225) / (4 + 2))


def test_a_profile_is_dated_once() -> None:
    told = Habits(undated={SYSTEM: counts(known(events=(4.0,), at_risk=(8.0,)))})
    for _ in range(2):
        told.observe(Happened(), NOW)
    assert counts(told)[EVENTS] == pytest.approx(4)


def test_habits_cross_into_the_next_epoch() -> None:
    habits = known(events=(4.0,), at_risk=(8.0,))
    for later in (1, 70, 200):
        habits.observe(Happened(waits=[AGAIN]), NOW + later * HALF_LIFE)
        assert counts(habits, NOW + later * HALF_LIFE)[EVENTS] == pytest.approx(4 * 2.0**-later, rel=1e-6)
        assert counts(habits, NOW + later * HALF_LIFE, AGAIN)[AT_RISK] >= 0.5
    older = Habits()
    older.learn(Delta.at(NOW + 200 * HALF_LIFE, {SYSTEM: NO_COUNTS}))
    older.learn(Delta.at(NOW + 199 * HALF_LIFE, {SYSTEM: (2.0, *NO_COUNTS[1:])}))
    assert counts(older, NOW + 200 * HALF_LIFE)[EVENTS] == pytest.approx(1)


def test_where_there_is_no_room_sizes_are_lumped_together_and_promise_less() -> None:
    habits = Habits()
    for size in range(4):
        known(habits, FIRST_KINDS["system_end"][size], events=(1.0,), at_risk=(5.0,))
        habits.observe(Happened(waits=[FIRST_KINDS["system_end"][size]]), NOW)
    known(habits, FIRST_KINDS["inner"][0], at_risk=(1.0,))
    known(habits, AGAIN, at_risk=(1.0,))
    apart = forecast(habits).returns
    habits.coarsen(6)
    assert len(habits.curves) == 6
    habits.coarsen(5)
    coarse = coarser(SYSTEM)
    assert set(habits.curves) == {coarse, FIRST_KINDS["inner"][0], AGAIN}
    # four returns, twenty visits and four half ones, and the most cautious prior: .1 × .15 × 2 = .03 returns of two
    lumped = forecast(habits, kind=FIRST_KINDS["system_end"][9]).returns
    assert lumped[0] == pytest.approx((4 + 0.03) / (20 + 4 * 0.5 + 2))
    assert lumped[-1] < apart[-1]


def test_what_waited_before_sizes_were_lumped_together_returns_after() -> None:
    habits = waiting(NOW - 20, NOW - 10)
    habits.returned_elsewhere(SYSTEM, LATE, NOW, read=False)
    habits.coarsen(0)
    habits.observe(Happened(returned=[(SYSTEM, NOW - 10)], waits=[SYSTEM], begun=[SYSTEM]), NOW)
    assert set(habits.curves) == {coarser(SYSTEM)}
    assert counts(habits, kind=coarser(SYSTEM))[EVENTS] == pytest.approx(1, rel=0.01)
    assert habits.curve(SYSTEM).unproven == 1
    assert len(habits.curve(SYSTEM).waits) == 1
    known(habits, FIRST_KINDS["system_end"][3], events=(1.0,))
    assert counts(habits, kind=coarser(SYSTEM))[EVENTS] == pytest.approx(2, rel=0.01)


@pytest.mark.parametrize("an_hour", [60, 3_000, 20_000])
@pytest.mark.parametrize("longest", [100.0, 3_000.0])
def test_half_of_the_visits_that_return_are_seen_as_half_however_many_come(an_hour: int, longest: float) -> None:
    """Each visit returns with a chance of one half, at any time until `longest`.

    Two hours of traffic, or the time that 2,000 visits take: chance alone moves the half of so many by 0.011, the
    square root of 0.25 / 2,000, and the half of fewer by more than is asked for here.
    """
    chance, habits, visits = random.Random(3), Habits(), max(2 * an_hour, 2_000)
    coming: list[tuple[float, float]] = []
    for number in range(visits):
        now = NOW + number * 3_600 / an_hour
        returned = []
        while coming and coming[0][0] <= now:
            returned.append((SYSTEM, heappop(coming)[1]))
        habits.observe(Happened(waits=[SYSTEM], returned=returned), now)
        if chance.random() < 0.5:
            heappush(coming, (now + chance.uniform(1, longest), now))
    assert forecast(habits, NOW + visits * 3_600 / an_hour).returns[-2] == pytest.approx(0.5, abs=0.03)


# -- outlook --------------------------------------------------------------------------------------

HALF = Forecast((0.1, 0.2, 0.3, 0.4, 0.45, 0.48, 0.5), 10.0, late=True)


def test_an_unseen_boundary_is_as_its_kind() -> None:
    # .5 / (1 - .5) visits; of the half that return, .4 come within five minutes and .48 within the hour
    assert outlook(HALF) == pytest.approx(Outlook(1.0, 0.8, 0.96))


def test_an_hour_is_never_bought_on_a_prior() -> None:
    assert outlook(HALF._replace(late=False)) == pytest.approx(Outlook(1.0, 0.8, 0.8))
    assert outlook(prior_forecast(SYSTEM))[1:] == pytest.approx((0.8, 0.8))
    assert outlook(prior_forecast(AGAIN), 1, (0, 0, 0, 0, 1, 0, 0))[1:] == pytest.approx((0.4, 0.9))


def test_a_kind_shows_late_returns_by_those_between_five_minutes_and_an_hour() -> None:
    for gap, late in ((200, False), (600, True), (4_000, False)):
        habits = waiting(NOW)
        habits.observe(Happened(returned=[(SYSTEM, NOW)]), NOW + gap)
        assert forecast(habits, NOW + gap).late == late


def test_a_kind_that_does_not_last_promises_no_more_than_it_lasts() -> None:
    assert outlook(HALF._replace(visits=0.4)).visits == pytest.approx(0.4)


def test_own_visits_add_to_what_the_kind_promises_and_lift_its_limit() -> None:
    assert outlook(HALF, 4).visits == pytest.approx(1 + 4 / (8 * 0.5))
    assert outlook(HALF._replace(visits=0.4), 4).visits == pytest.approx(2)
    assert outlook(HALF._replace(visits=0.4), 1).visits == pytest.approx(1)


def test_own_gaps_come_before_the_kinds() -> None:
    found = outlook(HALF, 5, (1, 0, 0, 1, 1, 0, 1))
    # one more return as the kind's: (2 + .8) / (4 + 1) and (3 + .96) / (4 + 1)
    assert found[1:] == pytest.approx((2.8 / 5, 3.96 / 5))


def test_a_certain_return_is_for_ever_but_not_infinite() -> None:
    certain = Forecast((1.0,) * 7)
    assert outlook(certain).visits == pytest.approx(1e6, rel=1e-3)
    assert outlook(certain)[1:] == (1.0, 1.0)
    assert outlook(Forecast((0.0,) * 7)).visits == pytest.approx(0, abs=1e-5)
