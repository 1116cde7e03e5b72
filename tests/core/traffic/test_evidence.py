"""Counters that fade by half a day's worth and merge by addition."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cachepoint.core.traffic.evidence import (
    AT_RISK,
    EPOCH,
    EVENTS,
    HALF_LIFE,
    N_COUNTERS,
    NO_COUNTS,
    Delta,
    added,
    epoch_of,
    merged,
    weight,
)
from cachepoint.core.traffic.kinds import AGAIN_KIND, FIRST_KINDS, CurveKey
from cachepoint.core.traffic.return_curves import Habits, as_they_came

DAY = 86_400.0
KINDS: list[CurveKey] = [AGAIN_KIND["system_end"], FIRST_KINDS["tail_turns"][3], FIRST_KINDS["inner"][0]]


def row(*counts: float) -> tuple[float, ...]:
    return (*counts, *NO_COUNTS[len(counts) :])


def test_a_row_counts_returns_and_visits_at_risk_by_bucket_and_six_more() -> None:
    assert N_COUNTERS == 7 + 7 + 3 + 3 == len(NO_COUNTS)
    assert (HALF_LIFE, EPOCH) == (DAY, 64 * DAY)


def test_evidence_counts_half_after_a_day() -> None:
    delta = Delta.at(1_000.0, {KINDS[0]: row(8.0, 2.0)})
    assert delta.counted(1_000.0 + DAY) == {KINDS[0]: pytest.approx(row(4.0, 1.0))}
    assert delta.counted(1_000.0 + 3 * DAY)[KINDS[0]][0] == pytest.approx(1.0)


def test_an_event_weighs_twice_as_much_a_day_later() -> None:
    assert weight(5 * DAY, 0) == 32
    assert weight(EPOCH + 3 * DAY, 1) == 8
    assert [epoch_of(part * EPOCH) for part in (-0.1, 0.9, 1, 2.5)] == [-1, 0, 1, 2]


def test_evidence_of_two_days_is_added_up_as_of_the_later() -> None:
    older, newer = Delta.at(0.0, {KINDS[0]: row(8.0)}), Delta.at(DAY, {KINDS[0]: row(1.0), KINDS[1]: row(0.0, 3.0)})
    found = older.merged(newer).counted(DAY)
    assert found == {KINDS[0]: pytest.approx(row(8 / 2 + 1)), KINDS[1]: pytest.approx(row(0.0, 3.0))}


def test_a_later_epoch_takes_over_what_is_left_of_an_earlier_one() -> None:
    older, newer = Delta.at(EPOCH - DAY, {KINDS[0]: row(8.0)}), Delta.at(EPOCH + DAY, {KINDS[0]: row(1.0)})
    assert (older.epoch, newer.epoch, older.merged(newer).epoch) == (0, 1, 1)
    assert older.merged(newer).counted(EPOCH + DAY)[KINDS[0]][0] == pytest.approx(8 / 4 + 1)
    assert newer.merged(older) == older.merged(newer)
    assert older.counted(EPOCH)[KINDS[0]][0] == pytest.approx(4.0)


def test_evidence_of_years_ago_is_gone_and_overflows_nothing() -> None:
    old = Delta.at(1_000.0, {KINDS[0]: row(1e9)})
    assert old.counted(1e10)[KINDS[0]][0] == 0
    assert old.merged(Delta.at(1e10, {KINDS[0]: row(1.0)})).counted(1e10)[KINDS[0]][0] == pytest.approx(1)


def test_no_row_counts_nothing() -> None:
    assert added(None, None) == NO_COUNTS
    assert added(row(1.0), None) == added(None, row(1.0)) == row(1.0)
    assert added(row(1.0, 2.0), row(3.0, 5.0)) == row(4.0, 7.0)
    assert merged([]) == Delta()


TIMES = st.one_of(st.floats(1.7e9, 1.7e9 + 3 * EPOCH), st.floats(1.78e9, 1.78e9 + DAY))
WHOLE = st.lists(st.integers(0, 9).map(float), min_size=N_COUNTERS, max_size=N_COUNTERS).map(tuple)
"""Among them more late returns that came sooner than there are late returns."""
COUNTS = WHOLE | st.lists(st.floats(0, 1e6), min_size=3, max_size=3).map(lambda few: tuple(few * 7)[:N_COUNTERS])
DELTAS = st.builds(Delta.at, TIMES, st.dictionaries(st.sampled_from(KINDS), COUNTS))


def test_two_keepers_that_move_the_same_return_move_one() -> None:
    """Both know of two late returns, and each finds that others came before the newer one."""
    at, kind = 1.78e9, KINDS[0]
    both = Delta.at(at, {kind: (*NO_COUNTS[:5], 2.0, 0.0, *(3.0,) * 6, *NO_COUNTS[13:])})
    changes = []
    for _ in range(3):
        keeper = Habits()
        keeper.learn(both)
        keeper.returned_sooner(kind, 1_000.0, at)
        changes.append(added_to(both, keeper.evidence(at)))
    assert min(min(change.rows[kind]) for change in changes) >= 0
    found = as_they_came(merged([both, *changes[:1]]).counted(at)[kind])
    assert found[EVENTS + 3 : EVENTS + 6] == pytest.approx((1, 0, 1), abs=0.01)
    found = as_they_came(merged([both, *changes]).counted(at)[kind])
    assert found[EVENTS + 3 : EVENTS + 6] == pytest.approx((2, 0, 0), abs=0.03)
    assert found[AT_RISK : AT_RISK + 7] == pytest.approx((3, 3, 3, 3, 1, 1, 0), abs=0.03)


def added_to(before: Delta, after: Delta) -> Delta:
    """What came to a delta of the same epoch."""
    assert before.epoch == after.epoch
    return Delta(
        after.epoch,
        {
            kind: tuple(now - was for now, was in zip(row, before.rows.get(kind, NO_COUNTS), strict=True))
            for kind, row in after.rows.items()
        },
    )


def grouped(deltas: list[Delta], chance: random.Random) -> Delta:
    """Merged in a grouping by chance."""
    if len(deltas) < 2:
        return merged(deltas)
    cut = chance.randrange(1, len(deltas))
    return grouped(deltas[:cut], chance).merged(grouped(deltas[cut:], chance))


@settings(deadline=None)
@given(st.lists(DELTAS, max_size=8), st.randoms(use_true_random=False))
def test_any_order_and_grouping_of_deltas_gives_the_same_curves(deltas: list[Delta], chance: random.Random) -> None:
    shuffled = list(deltas)
    chance.shuffle(shuffled)
    now = 1.7e9 + 4 * EPOCH
    one, other = merged(deltas), grouped(shuffled, chance)
    assert one.rows.keys() == other.rows.keys()
    for kind, counts in one.counted(now).items():
        assert other.counted(now)[kind] == pytest.approx(counts, rel=1e-9, abs=1e-30)
    for at in (1.78e9 + DAY, now):
        curves = []
        for order in (deltas, shuffled, [other]):
            habits = Habits()
            for delta in order:
                habits.learn(delta)
            curves.append(habits.forecasts(KINDS, at))
        for kind in KINDS:
            for found in curves[1:]:
                assert found[kind].returns == pytest.approx(curves[0][kind].returns, rel=1e-9)
                assert found[kind].visits == pytest.approx(curves[0][kind].visits, rel=1e-9)
