"""What a view says of boundaries seen and unseen."""

from __future__ import annotations

import math

import pytest

from cachepoint.core.prompt.tokens import Calibration
from cachepoint.core.traffic.entries import Cold, Entry
from cachepoint.core.traffic.evidence import HALF_LIFE
from cachepoint.core.traffic.kinds import AGAIN_KIND, FIRST_KINDS
from cachepoint.core.traffic.return_curves import Forecast
from cachepoint.core.traffic.view import Seen, Step, Turn, View, kinds_of, revisited, sooner, with_gap
from cachepoint.core.traffic.waste import Waste

FIRST, AGAIN = FIRST_KINDS["tail_turns"], AGAIN_KIND["tail_turns"]
HALF = Forecast((0.1, 0.2, 0.3, 0.4, 0.45, 0.48, 0.5), 10.0, late=True)
OLD = Seen(3.0, 1_000.0, AGAIN, FIRST[2])


def step(name: bytes, tokens: float = 100.0, before: float = 0.0) -> Step:
    return Step(name, "tail_turns", tokens, before)


def test_a_kind_is_again_or_by_the_tokens_a_first_visit_adds() -> None:
    steps = [step(b"old", 5_000), step(b"a", 163), step(b"b", 164), step(b"c", 5_000, 4_900), step(b"d", 200, 90)]
    # beyond 100 tokens known: 63, 64, then 100 beyond the request before, and again 100 beyond what is known
    assert kinds_of(steps, {b"old"}, 100.0) == [AGAIN, FIRST[0], FIRST[1], FIRST[1], FIRST[1]]
    view = View(seen={b"old": OLD}, known=100.0)
    assert [view.kind(each) for each in steps] == [AGAIN, FIRST[0], FIRST[1], FIRST[1], FIRST[1]]


def test_an_unseen_boundary_is_expected_back_as_its_kind() -> None:
    assert View(forecasts={FIRST[1]: HALF}).outlook(step(b"new")) == pytest.approx((1.0, 0.8, 0.96))
    # without a forecast the prior of such tails, .7: .7 / .3 visits, .8 of the returns in time, none later foreseen
    assert View().outlook(step(b"new")) == pytest.approx((7 / 3, 0.8, 0.8))


def test_a_seen_boundary_is_expected_by_its_visits_and_the_gap_ending_now() -> None:
    view = View(seen={b"old": OLD}, forecasts={AGAIN: HALF}, now=1_400.0)
    # three visits add 3 / (8 × .5); one gap of 400 s, later than five minutes: .8 / 2 and 1.96 / 2
    assert view.outlook(step(b"old")) == pytest.approx((1.75, 0.4, 0.98))
    told = View(seen={b"old": OLD._replace(last=None)}, forecasts={AGAIN: HALF}, now=1_400.0)
    assert told.outlook(step(b"old")) == pytest.approx((1.75, 0.8, 0.96))


def test_visits_are_whole_though_they_fade() -> None:
    assert OLD._replace(times=2.6).visits == 3
    assert OLD._replace(times=2.4).visits == 2


def test_a_gap_goes_into_its_bucket() -> None:
    assert with_gap((), 20.0) == (0, 1, 0, 0, 0, 0, 0)
    # the one before has faded for 4,000 s of a day: 2 to the -4,000 / 86,400th
    assert with_gap((0, 1, 0, 0, 0, 0, 0), 4_000.0) == pytest.approx((0, 0.968419, 0, 0, 0, 0, 1))
    assert OLD.gaps_by(1_300.0) == (0, 0, 0, 0, 1, 0, 0)


def test_gaps_fade_with_time_and_not_by_the_event() -> None:
    assert with_gap((30.0, 2.0, 0, 0, 0, 0, 0), HALF_LIFE) == (15, 1, 0, 0, 0, 0, 1)
    gaps: tuple[float, ...] = (100.0, 0, 0, 0, 0, 0, 0)
    for _ in range(1_000):
        gaps = with_gap(gaps, 1.0)
    assert gaps == pytest.approx((100 + 1_000, 0, 0, 0, 0, 0, 0), rel=0.012)  # 1,000 s of a day
    assert with_gap((4.0, 0, 0, 0, 0, 0, 0), -50.0) == (5, 0, 0, 0, 0, 0, 0)  # a clock set back
    told = OLD._replace(last=None, gaps=(4.0, 0, 0, 0, 0, 0, 0))
    assert told.gaps_by(9e9) == told.gaps


def test_a_late_gap_is_taken_for_one_within_five_minutes() -> None:
    assert sooner((0, 0, 0, 0, 2, 0, 0), 400.0) == (0, 0, 0, 1, 1, 0, 0)
    assert sooner((0, 0, 0, 0, 0, 1, 1), 4_000.0) == (0, 0, 0, 1, 0, 1, 0)
    assert sooner((0, 0, 0, 1, 1, 0, 0), 200.0) == (0, 0, 0, 1, 1, 0, 0)
    assert sooner((0, 0, 0, 1, 0, 1, 0), 400.0) == (0, 0, 0, 1, 0, 1, 0)
    assert sooner((0, 0, 0, 1, 0.5, 0, 0), 400.0) == (0, 0, 0, 1.5, 0, 0, 0)
    assert sooner((), 400.0) == ()


def test_boundaries_beyond_what_lives_are_cold_if_named_or_seen() -> None:
    steps = [
        step(b"old", 400), step(b"new", 401), Step(b"inner", "inner", 500), Step(b"cut", "cut", 600), step(b"told", 700)
    ]  # fmt: skip
    cut = Seen(1.0, 1_200.0, FIRST_KINDS["cut"][0], FIRST_KINDS["cut"][0])
    seen = {b"old": OLD, b"cut": cut, b"told": OLD._replace(last=None)}
    view = View(seen=seen, alive=400.0, known=390.0, now=1_250.0, calibration=Calibration(factor=2.0))
    assert view.cold(steps) == (
        Cold(b"new", 802.0, FIRST[0], None),
        Cold(b"cut", 1_200.0, FIRST_KINDS["cut"][0], 50.0),
        Cold(b"told", 1_400.0, AGAIN, None),
    )


def test_a_turn_of_which_nothing_was_seen_was_another_processs() -> None:
    turn = Turn(step(b"tail", 300), b"history")
    assert View().foreign([], turn) == Cold(b"tail", 300.0, FIRST[3], None)
    assert View().foreign([], None) is None
    assert View(seen={b"history": OLD}).foreign([], turn) is None
    assert View(seen={b"tail": OLD}).foreign([], turn) is None


def test_others_went_on_where_a_request_ended_or_before_the_conversation() -> None:
    turn = Turn(step(b"tail", 300), b"history")
    here = [Step(b"system", "system_end", 50.0), Step(b"asked", "inner", 60.0), Step(b"answer", "inner", 70.0)]
    passed, ended = OLD._replace(kind=AGAIN_KIND["inner"]), OLD._replace(kind=FIRST[0])
    assert View(seen={b"system": passed}).foreign(here, turn)
    assert View(seen={b"system": passed, b"asked": ended}).foreign(here, turn)
    # it once went on from there in this process: a history that was edited, trimmed or cleared
    assert View(seen={b"system": passed, b"asked": passed}).foreign(here, turn) is None
    assert View(seen={b"system": passed}, changed=0).foreign(here, turn) is None


def test_after_a_wait_what_lives_is_new_and_what_was_seen_is_not() -> None:
    before = View(seen={b"old": OLD}, now=1.0, known=5.0, splits_trusted=False)
    entry = Entry("5m", 2.0)
    fresh = View(
        seen={}, entries={b"a": entry}, lapsed={b"b": entry}, waste=Waste(1.0), left_out=("tools",),
        calibration=Calibration(2.0), alive=7.0, now=9.0, known=1.0,
    )  # fmt: skip
    found = before.refreshed(fresh)
    assert (found.seen, found.known, found.splits_trusted) == ({b"old": OLD}, 5.0, False)
    assert (found.entries, found.lapsed, found.waste, found.left_out) == (
        {b"a": entry}, {b"b": entry}, Waste(1.0), ("tools",)
    )  # fmt: skip
    assert (found.calibration, found.alive, found.now) == (Calibration(2.0), 7.0, 9.0)
    assert before.calibrated(Calibration(3.0)).calibration.factor == 3


def test_a_first_visit_is_remembered_with_its_kind() -> None:
    (found,) = revisited([step(b"new")], [FIRST[1]], {}, {0}, 50.0)
    assert found == (b"new", Seen(1.0, 50.0, FIRST[1], FIRST[1], (), 50.0))
    (found,) = revisited([step(b"new")], [FIRST[1]], {}, (), 50.0)
    assert found[1].waits_since is None


def test_a_visit_adds_to_those_before_which_fade() -> None:
    seen = {b"old": OLD}
    (found,) = revisited([step(b"old")], [AGAIN], seen, {0}, 1_000.0 + HALF_LIFE)
    assert found[1] == Seen(2.5, 1_000.0 + HALF_LIFE, AGAIN, FIRST[2], (0, 0, 0, 0, 0, 0, 1), 1_000.0 + HALF_LIFE)
    assert revisited([step(b"old")], [AGAIN], seen, {0}, 1_000.0)[0][1].times == 4
    assert revisited([step(b"old")], [AGAIN], seen, {0}, 10.0)[0][1].times == 4  # a clock set back makes nothing of it
    told = {b"old": OLD._replace(last=None)}
    assert revisited([step(b"old")], [AGAIN], told, (), 9e9)[0][1] == Seen(4.0, 9e9, AGAIN, FIRST[2])


def test_a_view_of_nothing_forbids_nothing() -> None:
    view = View()
    assert (view.left_out, view.splits_trusted, view.learned_minimum, view.waste) == ((), True, 0, Waste())
    assert view.outlook(Step(b"tools", "tools_end")).visits == pytest.approx(4)
    assert math.isfinite(view.outlook(step(b"x")).visits)
