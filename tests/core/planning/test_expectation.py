"""What a user says of requests to come, and what the planner makes of it: each figure by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from planning_kit import (
    CLAUDE,
    LATE,
    NEVER,
    NOW,
    OFTEN,
    ONCE,
    RATES,
    Part,
    entry,
    placed,
    prompt,
    reasons,
    two_parts,
    view,
)

from cachepoint.core.planning import planner
from cachepoint.core.planning.expectation import NOTHING_SAID, Expectation, Said
from cachepoint.core.planning.plan import Plan
from cachepoint.core.planning.policy import CachePolicy
from cachepoint.core.planning.prefixes import Prefixes
from cachepoint.core.prompt.prompt import Prompt
from cachepoint.core.traffic.boundaries import roles
from cachepoint.core.traffic.return_curves import Outlook
from cachepoint.core.traffic.view import View
from cachepoint.core.traffic.waste import Stake, Waste
from cachepoint.errors import ConfigurationError

CHAT = prompt([1000], [1000], [1000], system=[2000])
"""Boundaries: system (0), the first question (1), the end of the history (2), the tail (3)."""
ENDS, GOES_ON = Expectation(ends=True), Expectation(ends=False)


def told(of: Prompt, by: View, expected: Expectation) -> Plan:
    return planner.plan(of, CLAUDE, CachePolicy(), by, RATES, NOW, expected)


def outlook(of: Prompt, by: View, expected: Expectation, boundary: int) -> Outlook:
    return Prefixes(of, by, NOW, splits=True, expected=expected).outlook(boundary)


# -- what may be said -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"ends": "no"}, "ends='no'"),
        ({"ends": 1}, "ends=1"),
        ({"back_in": -1}, "back_in=-1"),
        ({"back_in": True}, "back_in=True"),
        ({"back_in": float("nan")}, "back_in=nan"),
        ({"back_in": "90"}, "back_in='90'"),
        ({"times": 0}, "times=0"),
        ({"times": 1.5}, "times=1.5"),
        ({"times": True}, "times=True"),
        ({"ends": True, "back_in": 90}, "leave one out"),
    ],
)
def test_a_wrong_value_is_named(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        Expectation(**wrong)


def test_a_dict_says_the_same_and_an_unknown_name_is_refused() -> None:
    assert Expectation.of({"back_in": 90}) == Expectation(back_in=90)
    assert Expectation.of(None) == NOTHING_SAID
    assert Expectation.of(GOES_ON) is GOES_ON
    with pytest.raises(ConfigurationError, match="no 'backin'; it has"):
        Expectation.of({"backin": 90})
    with pytest.raises(ConfigurationError, match="'goes on' is no expectation"):
        Expectation.of("goes on")


def test_who_is_back_goes_on_unless_a_context_is_meant() -> None:
    assert [each.goes_on for each in (GOES_ON, Expectation(back_in=90), ENDS, NOTHING_SAID)] == [
        True,
        True,
        False,
        False,
    ]
    assert not Expectation(back_in=90, times=3).goes_on
    assert Expectation(ends=False, back_in=90, times=3).goes_on


@pytest.mark.parametrize(
    ("inner", "outer", "both"),
    [
        (NOTHING_SAID, ENDS, ENDS),
        (GOES_ON, NOTHING_SAID, GOES_ON),
        (GOES_ON, ENDS, GOES_ON),
        (Expectation(back_in=90), ENDS, Expectation(ends=False, back_in=90)),
        (ENDS, Expectation(back_in=90), ENDS),
        (GOES_ON, Expectation(times=3), Expectation(ends=False, times=3)),
        (Expectation(times=2), Expectation(back_in=90), Expectation(ends=False, back_in=90, times=2)),
        (Expectation(times=2), Expectation(times=9), Expectation(times=2)),
        (Expectation(times=3, back_in=60), ENDS, Expectation(ends=True, times=3, back_in=60)),
    ],
)
def test_what_is_said_inside_goes_before_what_is_said_around_it(
    inner: Expectation, outer: Expectation, both: Expectation
) -> None:
    assert inner.inside(outer) == both


# -- a conversation ---------------------------------------------------------------------------------


def test_a_conversation_that_goes_on_is_written_whatever_was_learned() -> None:
    by = view(CHAT, {0: Outlook(5.0, 1.0, 1.0), 3: Outlook(0.0, 1.0, 1.0)})
    assert placed(told(CHAT, by, NOTHING_SAID)) == [(0, "5m", "expected_again")]
    plan = told(CHAT, by, GOES_ON)  # once: 1 x 0.9 - 0.25 a token
    assert placed(plan) == [(0, "5m", "expected_again"), (3, "5m", "expected")]
    assert str(plan.checkpoints[-1].reason) == (
        "tail of a conversation: you said that it comes back, about 1.0 more visits, 100% within 5m"
    )


def test_what_was_expected_of_any_visit_is_expected_of_the_one_that_is_sure() -> None:
    by = view(CHAT, {3: Outlook(0.5, 0.8, 0.9)})
    assert outlook(CHAT, by, GOES_ON, 3) == (1.5, 0.8, 0.98)  # within the hour, where no time was said
    assert outlook(CHAT, by, GOES_ON, 2) == (1.0, 0.0, 0.98)


@pytest.mark.parametrize(
    ("back_in", "found"),
    [(300, (3.0, 1.0, 1.0)), (301, (3.0, 0.0, 1.0)), (3600, (3.0, 0.0, 1.0)), (3601, (3.0, 0.0, 0.0))],
)
def test_when_it_is_back_decides_how_long_it_has_to_live(back_in: float, found: Outlook) -> None:
    assert outlook(CHAT, view(CHAT, {3: Outlook(2.0, 0.5, 0.6)}), Expectation(back_in=back_in), 3) == found


@pytest.mark.parametrize(("back_in", "ttl"), [(90, "5m"), (1000, "1h")])
def test_the_ttl_is_the_shorter_one_that_lasts_until_then(back_in: float, ttl: str) -> None:
    by = view(CHAT, {3: Outlook(1.0, 0.9, 1.0)})  # two visits: 2 x 0.9 - 1.1875 at 1h
    assert placed(told(CHAT, by, Expectation(back_in=back_in)))[-1] == (3, ttl, "expected")


def test_what_is_back_too_late_is_not_written_and_says_so() -> None:
    plan = told(CHAT, view(CHAT, {3: OFTEN}), Expectation(back_in=4000))
    assert placed(plan) == []
    assert ("messages[2].content[0]", "not_expected") in reasons(plan)


def test_of_what_others_visit_too_one_visit_is_sure() -> None:
    # of two visits one is sure to come by then: 0.5 + 0.5 / 2
    by = view(CHAT, {0: Outlook(2.0, 0.5, 0.5)})
    assert outlook(CHAT, by, Expectation(back_in=90), 0) == (2.0, 0.75, 0.75)
    assert outlook(CHAT, by, Expectation(back_in=900), 0) == (2.0, 0.5, 0.75)
    assert outlook(CHAT, view(CHAT, {0: NEVER}), GOES_ON, 0) == (1.0, 0.0, 0.0)
    assert outlook(CHAT, by, ENDS, 0) == (2.0, 0.5, 0.5)


def test_of_a_conversation_that_ends_only_what_others_share_is_written() -> None:
    by = view(CHAT, {0: OFTEN, 2: OFTEN, 3: OFTEN})
    assert placed(told(CHAT, by, NOTHING_SAID))[-1] == (3, "5m", "expected_again")
    plan = told(CHAT, by, ENDS)
    assert placed(plan) == [(0, "5m", "expected_again")]
    assert reasons(plan) == [("messages[1].content[0]", "not_expected"), ("messages[2].content[0]", "not_expected")]


def test_an_example_that_others_share_is_no_part_of_the_conversation_that_ends() -> None:
    # The first question is followed by one answer: this conversation passed it once before, others the other times.
    assert outlook(CHAT, view(CHAT, {1: OFTEN}, visits={1: 1}), ENDS, 1) == NEVER
    assert outlook(CHAT, view(CHAT, {1: OFTEN}, visits={1: 2}), ENDS, 1) == OFTEN
    assert outlook(CHAT, view(CHAT, {2: OFTEN}, visits={2: 0}), ENDS, 2) == NEVER
    assert outlook(CHAT, view(CHAT, {2: OFTEN}, visits={2: 1}), ENDS, 2) == OFTEN
    assert outlook(CHAT, view(CHAT, {3: OFTEN}, visits={3: 50}), ENDS, 3) == NEVER


def test_an_agents_turn_goes_on_within_seconds_though_the_conversation_ends() -> None:
    agent = prompt([1000], tools=[1000])
    assert outlook(agent, view(agent, {1: Outlook(2.0, 0.6, 0.9)}), ENDS, 1) == (2.0, 0.6, 0.6)


def test_what_lives_is_read_though_the_conversation_ends() -> None:
    plan = told(CHAT, view(CHAT, live={2: entry()}), ENDS)
    assert placed(plan)[-1] == (2, "5m", "keeps_read")


# -- a context --------------------------------------------------------------------------------------


def test_a_context_comes_as_often_as_was_said_and_was_not_yet_seen() -> None:
    of = prompt([Part(2000, context=True), 100])
    by = view(of, {0: Outlook(0.1, 0.8, 0.9)})
    five = Expectation(times=5)
    assert outlook(of, by, five, 0) == (4.0, 0.8, 0.98)
    assert outlook(of, replace(by, seen=view(of, visits={0: 3}).seen), five, 0) == (1.0, 0.8, 0.98)
    assert outlook(of, replace(by, seen=view(of, visits={0: 4}).seen), five, 0) == (0.0, 0.8, 0.98)
    assert outlook(of, replace(by, seen=view(of, visits={0: 5}).seen), five, 0) == (0.1, 0.8, 0.9)
    assert outlook(of, by, five, 1) == NEVER
    assert outlook(of, by, Expectation(times=5, back_in=900), 0) == (4.0, 0.0, 1.0)
    assert placed(told(of, by, five)) == [(0, "1h", "expected")]  # what was said is evidence of an hour


def test_without_a_mark_the_context_is_what_stands_before_the_question() -> None:
    of = prompt([100, 3000, 200, 50], system=[2000])
    assert Said(Expectation(times=2), of, roles(of)).subjects == {0: "context", 2: "context"}
    one_string = prompt([3000], system=[2000])
    assert Said(Expectation(times=2), one_string, roles(one_string)).subjects == {0: "context"}
    # of one string all but a sixteenth, up to a break: here 100 tokens to the break, and then 1,000
    broken = prompt([two_parts(1000)])
    assert Said(Expectation(times=2), broken, roles(broken)).subjects == {0: "context"}
    asked = prompt([two_parts(6)])
    assert Said(Expectation(times=2), asked, roles(asked)).subjects == {}
    nothing = prompt([3000])
    assert Said(Expectation(times=2), nothing, roles(nothing)).subjects == {}


# -- what it may cost -------------------------------------------------------------------------------

SPENT = Waste(general=20_000.0)
"""More than 1.5% and two writes of the largest prompt: nothing may be risked any more."""


def test_each_prefix_that_is_named_may_cost_one_write_beyond_the_bound() -> None:
    by = view(CHAT, {0: OFTEN, 3: ONCE}, waste=SPENT)
    assert placed(told(CHAT, by, NOTHING_SAID)) == []
    plan = told(CHAT, by, GOES_ON)
    assert placed(plan)[-1] == (3, "5m", "expected")
    assert plan.risk.authorised == pytest.approx(0.25 * CHAT.boundaries[3].tokens)


def test_what_was_written_once_is_not_authorised_again() -> None:
    # history and tail are named; the history was written before, so only the tail's write is authorised
    lapsed = view(CHAT, {3: OFTEN}, lapsed={2: entry(), 3: entry()}, waste=SPENT)
    assert placed(told(CHAT, lapsed, GOES_ON)) == []


def test_what_is_read_costs_nothing_and_what_was_not_said_is_not_authorised() -> None:
    grown = told(CHAT, view(CHAT, {3: ONCE}, live={2: entry()}), GOES_ON)
    assert grown.risk.authorised == pytest.approx(0.25 * (CHAT.boundaries[3].tokens - CHAT.boundaries[2].tokens))
    assert told(CHAT, view(CHAT, {0: OFTEN, 3: OFTEN}), NOTHING_SAID).risk.authorised == 0


def test_what_the_user_says_goes_before_a_look_but_not_before_documents_of_one_turn() -> None:
    looks = prompt([1000], system=[Part(0, text="at 12:30:45 " + "x" * 8788)])
    assert placed(told(looks, view(looks, {1: Outlook(0.0, 1.0, 1.0)}), GOES_ON))[-1] == (1, "5m", "expected")
    blocks = tuple(b._replace(volatile=i == 3) for i, b in enumerate(CHAT.blocks))
    alone = replace(CHAT, blocks=blocks)
    assert set(Said(GOES_ON, alone, roles(alone)).subjects) == {2}


@given(
    expected=st.builds(
        Expectation,
        ends=st.sampled_from([None, False]),
        back_in=st.none() | st.floats(0, 10_000),
        times=st.none() | st.integers(1, 9),
    )
    | st.just(ENDS),
    learned=st.lists(st.tuples(st.floats(0, 20), st.floats(0, 1), st.floats(0, 1)), min_size=4, max_size=4),
    visits=st.lists(st.integers(0, 9), min_size=4, max_size=4),
)
def test_an_outlook_stays_one_whatever_is_said(
    expected: Expectation, learned: list[tuple[float, float, float]], visits: list[int]
) -> None:
    outlooks = {i: Outlook(n, min(a, b), max(a, b)) for i, (n, a, b) in enumerate(learned)}
    by = view(CHAT, outlooks, visits=dict(enumerate(visits)))
    for boundary in range(4):
        found = outlook(CHAT, by, expected, boundary)
        assert found.visits >= 0
        assert -1e-9 <= found.within_5m <= found.within_1h + 1e-9 <= 1 + 2e-9
    assert told(CHAT, by, expected).risk.authorised >= 0


def test_late_returns_are_worth_an_hour_to_a_context_too() -> None:
    of = prompt([Part(2000, context=True), 100])
    assert placed(told(of, view(of, {0: LATE}), Expectation(times=6)))[0][:2] == (0, "1h")


def test_what_the_user_alone_had_written_is_read_on_his_account_too() -> None:
    stakes = {"his": Stake("tail_single", asked=900), "ours": Stake("tail_single", general=800, asked=100)}
    for whose, stake in stakes.items():
        by = view(CHAT, {3: ONCE}, live={3: entry(stake=stake)}, waste=SPENT)
        assert bool(placed(told(CHAT, by, NOTHING_SAID))) == (whose == "his")
