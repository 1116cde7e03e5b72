"""The plan of one request, from what is known of its boundaries: each step by hand.

A token that comes back five times within five minutes saves 5 x 0.9 - 0.25 = 4.25 at 5m (`OFTEN`), one that comes back
once 0.65 (`ONCE`), and one that comes back five times within the hour 5 x 0.9 - 1 = 3.5 at 1h (`LATE`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from planning_kit import (
    BLANK,
    CLAUDE,
    LATE,
    NEVER,
    NOW,
    OFTEN,
    ONCE,
    RATES,
    Mark,
    Part,
    entry,
    placed,
    planned,
    prompt,
    reasons,
    two_parts,
    view,
)  # fmt: skip

from cachepoint.core.planning import planner
from cachepoint.core.planning.expectation import Expectation
from cachepoint.core.planning.plan import Expected, Plan, Split
from cachepoint.core.planning.policy import CachePolicy
from cachepoint.core.planning.reasons import Placed, PlacedCode, Rejected, Repair
from cachepoint.core.prompt.prompt import Prompt, Where
from cachepoint.core.provider.rules import TTL, ModelRule
from cachepoint.core.traffic.guard import Followed
from cachepoint.core.traffic.refusals import LONG_TTL
from cachepoint.core.traffic.return_curves import Outlook
from cachepoint.core.traffic.static_plans import FAMILY, NOTHING, OURS, OURS_1H, Place, StaticPlan
from cachepoint.core.traffic.view import View
from cachepoint.core.traffic.waste import Stake, Waste

ONE, TWO = CachePolicy(max_checkpoints=1), CachePolicy(max_checkpoints=2)
EXPLICIT = CachePolicy(mode="explicit")
AGAIN, READ, SHARED = "expected_again", "keeps_read", "shared"

T = TypeVar("T")

# -- where nothing is planned --------------------------------------------------------------------


def test_a_model_that_is_not_known_and_an_empty_request_are_left_alone() -> None:
    of = prompt([1000])
    assert planned(of, view(of), None) == Plan(rejected=(Rejected("", "unknown_model"),))
    empty = prompt()
    assert planned(empty, view(empty)) == Plan(rejected=(Rejected("", "empty_prompt"),))


@pytest.mark.parametrize(
    ("rule", "policy", "reason"),
    [
        (replace(CLAUDE, explicit=False), CachePolicy(), "model_without_checkpoints"),
        (replace(CLAUDE, explicit=False), EXPLICIT, "model_without_checkpoints"),
        (CLAUDE, EXPLICIT, "not_marked"),
        (CLAUDE, CachePolicy(max_checkpoints=0), "none_allowed"),
        (replace(CLAUDE, max_checkpoints=0), CachePolicy(), "none_allowed"),
    ],
)
def test_why_no_checkpoint_of_our_own_is_placed(rule: ModelRule, policy: CachePolicy, reason: str) -> None:
    of = prompt(system=[2000])
    plan = planned(of, view(of, {0: OFTEN}), rule, policy)
    assert (placed(plan), reasons(plan)) == ([], [("", reason)])
    assert plan.changes_nothing


def test_what_nobody_will_read_is_not_written_and_the_plan_says_why() -> None:
    of = prompt([1000], system=[2000])
    plan = planned(of, view(of, {0: OFTEN}))
    assert placed(plan) == [(0, "5m", AGAIN)]
    assert plan.rejected == (Rejected("messages[0].content[0]", "no_return_expected", visits=0.0),)
    assert placed(planned(of, view(of))) == []
    assert reasons(planned(of, view(of))) == [
        ("system[0]", "no_return_expected"), ("messages[0].content[0]", "no_return_expected"),
    ]  # fmt: skip


def test_a_place_that_would_pay_but_finds_no_slot_is_held() -> None:
    of = prompt([1000], system=[4000])
    plan = planned(of, view(of, {0: OFTEN, 1: ONCE}), policy=ONE)
    assert placed(plan) == [(0, "5m", AGAIN)]
    assert plan.rejected == (Rejected("messages[0].content[0]", "over_cap", limit=1),)


# -- the best set --------------------------------------------------------------------------------


def test_a_checkpoint_tells_where_it_is_how_large_and_what_it_is_worth() -> None:
    of = prompt([100], system=[1000, 1000])
    (point,) = planned(of, view(of, {1: OFTEN}, visits={1: 3}), policy=ONE).checkpoints
    assert (point.boundary, point.where, point.offset, point.path) == (1, Where("system", None, 1), None, "system[2]")
    assert (point.tokens, point.worth) == (2000, 8500)  # 2,000 x 4.25
    assert point.reason == Placed("expected_again", "system_end", 3, 5.0, 1.0)
    assert not point.marked
    assert not point.fixed


def test_what_is_expected_to_be_written_and_read() -> None:
    of = prompt([1000], system=[2000])
    cold = planned(of, view(of, {1: OFTEN}))
    assert cold.expected == Expected(written=3004)  # 2,000, 4 for the message and 1,000
    warm = planned(of, view(of, {1: OFTEN}, live={0: entry("1h", tokens=1900)}), policy=CachePolicy(ttl="1h"))
    assert warm.expected == Expected(1900, True, 0, "1h", 1004)
    likely = planned(of, view(of, {1: OFTEN}, live={0: entry()}))
    assert likely.expected == Expected(2000, False, 0, "5m", 1004)


def test_what_is_all_read_writes_nothing() -> None:
    of = prompt([1000], system=[2000])
    plan = planned(of, view(of, live={0: entry(tokens=2100)}))
    assert placed(plan) == [(0, "5m", READ)]
    assert plan.expected == Expected(2100, True, 0, "5m", 0.0)
    assert reasons(plan) == [("messages[0].content[0]", "no_return_expected")]
    nothing = planned(of, view(of))
    assert nothing.expected == Expected() == Expected(0.0, False, None, None, 0.0)


@pytest.mark.parametrize(("asked", "ttl"), [("auto", "5m"), ("5m", "5m"), ("1h", "1h")])
def test_the_policy_may_fix_the_lifetime(asked: TTL, ttl: TTL) -> None:
    of = prompt(system=[2000])
    assert placed(planned(of, view(of, {0: OFTEN}), policy=CachePolicy(ttl=asked))) == [(0, ttl, AGAIN)]


def test_the_lifetime_is_one_the_model_has() -> None:
    of = prompt(system=[2000])
    late = view(of, {0: LATE})
    assert placed(planned(of, late)) == [(0, "1h", AGAIN)]
    assert placed(planned(of, late, replace(CLAUDE, ttls=("5m",)))) == []
    assert placed(planned(of, view(of, {0: LATE}, left_out=(LONG_TTL,)))) == []
    often = view(of, {0: OFTEN}, left_out=(LONG_TTL,))
    assert placed(planned(of, often, policy=CachePolicy(ttl="1h"))) == [(0, "5m", AGAIN)]


def test_the_chance_is_of_the_lifetime_the_write_has() -> None:
    of = prompt(system=[2000])
    # 5m: 4 (0.9 x 0.2 - 0.8 x 0.25) - 0.25 < 0; 1h: 4 (0.9 x 0.8 - 0.2) - 1 = 1.08
    assert placed(planned(of, view(of, {0: Outlook(4, 0.2, 0.8)}))) == [(0, "1h", AGAIN)]
    # 5m: 4 (0.9 x 0.8 - 0.2 x 0.25) - 0.25 = 2.43; 1h: 1.08
    assert placed(planned(of, view(of, {0: Outlook(4, 0.8, 0.8)}))) == [(0, "5m", AGAIN)]


def test_below_the_minimum_the_service_showed_nothing_is_placed() -> None:
    of = prompt(system=[2000])
    shown = view(of, {0: OFTEN}, learned_minimum=2300)
    assert reasons(planned(of, shown)) == [("system[0]", "below_minimum")]
    assert placed(planned(of, view(of, {0: OFTEN}, learned_minimum=500), replace(CLAUDE, minimum=2300))) == []


# -- the read ------------------------------------------------------------------------------------


def turn_of(blocks: int) -> Prompt:
    """A first question: 2,000 tokens that live, then so many blocks."""
    return prompt([2000, *[100] * blocks])


@pytest.mark.parametrize(("blocks", "codes"), [(19, [AGAIN]), (20, [READ, AGAIN])])
def test_an_entry_twenty_blocks_back_needs_a_checkpoint_of_its_own(blocks: int, codes: list[str]) -> None:
    of = turn_of(blocks)
    plan = planned(of, view(of, {blocks: OFTEN}, live={0: entry()}))
    assert [code for _, _, code in placed(plan)] == codes
    assert plan.expected.read_boundary == 0


@pytest.mark.parametrize(("blocks", "lookback"), [(19, 19), (9, 9)])
def test_the_lookback_is_the_models(blocks: int, lookback: int) -> None:
    of = turn_of(blocks)
    plan = planned(of, view(of, {blocks: OFTEN}, live={0: entry()}), replace(CLAUDE, lookback=lookback))
    assert [code for _, _, code in placed(plan)] == [READ, AGAIN]


@pytest.mark.parametrize(("blocks", "codes"), [(17, [AGAIN]), (18, [READ, AGAIN])])
def test_a_text_that_lives_in_two_parts_counts_twice(blocks: int, codes: list[str]) -> None:
    of = prompt([2000, two_parts(400), *[100] * blocks])  # boundaries: 0, a cut 1, 2, and the blocks
    cut = of.boundaries[1].digest
    by = view(of, {2 + blocks: OFTEN}, live={0: entry(), 1: entry(readable=False, splits=(cut,))})
    assert [code for _, _, code in placed(planned(of, by))] == codes


def test_a_read_that_no_slot_is_left_for_takes_the_place_of_what_is_worth_least() -> None:
    of = prompt([2000, *[100] * 19, 3000, 3000], tools=[])
    # the last block but one is worth 4.25 x 4,900, the tail 0.65 x 3,000
    by = view(of, {20: OFTEN, 21: ONCE}, live={0: entry()}, visits={20: 5})
    assert placed(planned(of, by, policy=TWO)) == [(0, "5m", READ), (20, "5m", AGAIN)]
    assert placed(planned(of, by, policy=ONE)) == [(0, "5m", READ)]
    assert reasons(planned(of, by, policy=ONE)) == [
        ("messages[0].content[20]", "over_cap"), ("messages[0].content[21]", "over_cap"),
    ]  # fmt: skip
    (reading,) = planned(of, by, policy=ONE).checkpoints
    assert reading.reason == Placed("keeps_read", tokens=reading.reason.tokens, ttl="5m")
    assert reading.reason.tokens == pytest.approx(2004)
    assert reading.worth == pytest.approx(2004 * 0.9)


def test_a_checkpoint_of_another_lifetime_does_not_keep_the_read() -> None:
    of = prompt([1000], system=[2000])
    by = view(of, {1: OFTEN}, live={0: entry("1h")})
    assert placed(planned(of, by)) == [(0, "1h", READ), (1, "5m", AGAIN)]


def test_a_checkpoint_before_the_read_does_not_keep_it() -> None:
    of = prompt([1000], system=[2000], tools=[1000])
    by = view(of, {0: OFTEN, 1: OFTEN}, live={1: entry()})
    assert [point for point in placed(planned(of, by)) if point[2] == READ] == [(1, "5m", READ)]


def test_the_deepest_live_prefix_is_the_one_to_read() -> None:
    of = prompt([1000], system=[2000], tools=[1000])
    plan = planned(of, view(of, live={0: entry(), 1: entry(), 2: entry(readable=False)}))
    assert plan.expected.read_boundary == 1
    assert (1, "5m", READ) in placed(plan)


def test_what_nothing_can_reach_is_not_expected_to_be_read() -> None:
    of = prompt([Mark("5m"), 2000, *[100] * 20, Mark("5m")])
    by = view(of, live={0: entry(), 1: entry()})
    plan = planned(of, by, policy=EXPLICIT)
    assert placed(plan) == [(20, "5m", "marked")]
    assert plan.expected.read_boundary == 1  # nineteen blocks back; the other is twenty
    assert planned(of, view(of, live={0: entry()}), policy=EXPLICIT).expected == Expected(written=4004)


def test_what_another_request_is_writing_is_not_expected_to_be_read() -> None:
    of = prompt(system=[2000, 100, Mark("5m")])
    plan = planned(of, view(of, live={1: entry(readable=False)}), policy=EXPLICIT)
    assert plan.expected == Expected(written=2100)


@pytest.mark.parametrize(("blocks", "bridge"), [(18, []), (19, [(0, "5m", "bridge")])])
def test_without_memory_the_end_of_the_request_before_is_where_its_tail_was(
    blocks: int, bridge: list[tuple[int, TTL, str]]
) -> None:
    of = prompt([2000], [100], [100] * blocks)  # nineteen and twenty blocks from the first turn to the tail
    tail = blocks + 1
    plan = planned(of, view(of, {tail: OFTEN}))
    assert placed(plan) == [*bridge, (tail, "5m", AGAIN)]
    if bridge:
        assert plan.checkpoints[0].reason == Placed("bridge", blocks=20)
        assert plan.checkpoints[0].worth == 0
    assert placed(planned(of, view(of, {tail: OFTEN}), policy=ONE)) == [(tail, "5m", AGAIN)]
    assert placed(planned(of, view(of, {}))) == []


def test_a_bridge_lives_as_long_as_the_tail() -> None:
    of = prompt([2000], [100], [100] * 25)
    assert placed(planned(of, view(of, {26: LATE})))[0] == (0, "1h", "bridge")


def test_a_first_request_and_a_live_prefix_need_no_bridge() -> None:
    first = prompt([2000, *[100] * 25])
    assert [code for _, _, code in placed(planned(first, view(first, {25: OFTEN})))] == [AGAIN]
    of = prompt([2000], [100], [100] * 25)
    assert "bridge" not in {code for _, _, code in placed(planned(of, view(of, {26: OFTEN}, live={1: entry()})))}


def test_there_is_no_bridge_to_behind_the_last_checkpoint() -> None:
    of = prompt([100], [2000], [100] * 25, system=[2000])
    # the checkpoint stands before the end of the request before
    assert placed(planned(of, view(of, {0: OFTEN}))) == [(0, "5m", AGAIN)]


# -- a live 5m prefix, and an hour ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("outlook", "point"),
    [
        # keeping: 1 - 0.1 + 5 x 0.9 = 5.4 a token; an hour: 5 x 0.9 - 1 = 3.5
        (OFTEN, (0, "5m", READ)),
        # keeping: 0.9 + 5 x -0.25 = -0.35; an hour: 3.5
        (LATE, (0, "1h", AGAIN)),
        # keeping: 0.9 + N (0.45 - 0.125); an hour: 0.9 N - 1: from N = 1.9 / 0.575 = 3.304 on
        (Outlook(3.28, 0.5, 1), (0, "5m", READ)),
        (Outlook(3.33, 0.5, 1), (0, "1h", AGAIN)),
    ],
)
def test_a_live_five_minute_prefix_is_written_for_an_hour_where_that_saves_more(
    outlook: Outlook, point: tuple[int, TTL, str]
) -> None:
    of = prompt(system=[2000])
    assert placed(planned(of, view(of, {0: outlook}, live={0: entry()}))) == [point]


def test_beyond_a_live_five_minute_prefix_nothing_is_written_for_an_hour() -> None:
    of = prompt([1000], system=[9000])
    by = view(of, {0: OFTEN, 1: LATE}, live={0: entry()})
    # the tail would pay for an hour, but not for 9,000 tokens written anew with it
    assert placed(planned(of, by)) == [(0, "5m", READ)]
    # who asks for an hour gets it
    assert placed(planned(of, by, policy=CachePolicy(ttl="1h"))) == [(1, "1h", AGAIN)]


def test_an_hour_before_the_live_five_minutes_is_kept_when_the_rest_is_written_anew() -> None:
    of = prompt(system=[2000], tools=[3000])
    live = {0: entry("1h"), 1: entry()}
    # beyond the tools' hour 2,000 tokens: keeping 0.9 + 3.33 (0.45 - 0.125) = 1.982, an hour 3.33 x 0.9 - 1 = 1.997
    plan = planned(of, view(of, {1: Outlook(3.33, 0.5, 1)}, live=live))
    assert placed(plan) == [(0, "1h", SHARED), (1, "1h", AGAIN)]
    assert plan.checkpoints[1].worth == pytest.approx(2000 * 1.997)
    # keeping 0.9 + 3.28 x 0.325 = 1.966, an hour 3.28 x 0.9 - 1 = 1.952
    less = view(of, {1: Outlook(3.28, 0.5, 1)}, live=live)
    assert placed(planned(of, less)) == [(0, "1h", SHARED), (1, "5m", READ)]


@pytest.mark.parametrize(("system", "point"), [(980, (1, "5m", READ)), (995, (1, "1h", AGAIN))])
def test_what_keeping_is_worth_counts_each_part_by_its_own_returns(system: int, point: tuple[int, TTL, str]) -> None:
    of = prompt(tools=[2000], system=[system])
    # keeping: 2,000 (0.9 + 4.5) of tools and s (0.9 - 1.25) of the system prompt
    # an hour: 2,000 (4.5 - 1) and s (4.5 - 1), which is more from s = 3,800 / 3.85 = 987 on
    assert point in placed(planned(of, view(of, {0: OFTEN, 1: LATE}, live={1: entry()})))


def test_what_writing_anew_costs_is_shared_out_over_those_who_read_it() -> None:
    # Writing the system prompt anew costs 2,000 x 1.15 = 2,300 now, and an hour promises
    # 2,000 (3.2 x 0.9 - 0.75 - 3.2 x 0.325) = 2,180 more than five minutes …
    alone = prompt(system=[2000])
    by = view(alone, {0: Outlook(3.2, 0.5, 1)}, live={0: entry()})
    assert placed(planned(alone, by)) == [(0, "5m", READ)]
    # … which is enough where 2.2 of 3.2 readers are not this conversation's: it pays 2,300 / 3.2 = 719.
    of = prompt([1000], system=[2000])
    by = view(of, {0: Outlook(3.2, 0.5, 1), 1: ONCE}, live={0: entry()})
    assert placed(planned(of, by)) == [(0, "1h", AGAIN), (1, "5m", AGAIN)]


def test_what_lies_beyond_the_live_prefix_counts_on_both_sides() -> None:
    of = prompt([1000], system=[2000])
    # 1,004 tokens beyond: 3.3 x 0.9 - 0.25 = 2.72 at 5m, behind either, so that the 2,000 are judged by themselves:
    # keeping 0.9 + 3.3 x 0.325 = 1.9725, an hour 3.3 x 0.9 - 1 = 1.97
    by = view(of, {0: Outlook(3.3, 0.5, 1), 1: Outlook(3.3, 1, 1)}, live={0: entry()})
    assert placed(planned(of, by)) == [(0, "5m", SHARED), (1, "5m", AGAIN)]


def test_where_no_hour_is_worth_it_what_lives_is_not_taken_for_written_anew() -> None:
    # a tail that comes back sooner than what it stands on: five minutes are best for it, from the beginning on as well
    of = prompt([2000, *[100] * 25, 1000])
    by = view(of, {0: Outlook(3.3, 0.5, 1), 26: Outlook(3.3, 1, 1)}, live={0: entry()})
    assert placed(planned(of, by, policy=TWO)) == [(0, "5m", READ), (26, "5m", AGAIN)]


# -- the bound on waste --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("general", "points", "held"),
    [
        # 10,000 tokens, at most 11,000 and at least 9,000. At 11,000, .015 x 11,000 + .25 x 11,000 = 2,915 are allowed,
        # and both writes cost .25 x 11,000; at 9,000, 2,385 are, and they cost 2,250.
        (135.0, [(0, "5m", AGAIN), (1, "5m", AGAIN)], []),
        # Only the first, .25 x 4,000: at 9,000 it costs 900.
        (136.0, [(0, "5m", AGAIN)], [("system[0]", "allowance_spent")]),
        (1_485.0, [(0, "5m", AGAIN)], [("system[0]", "allowance_spent")]),
        (1_486.0, [], [("system[0]", "allowance_spent"), ("tools[0]", "allowance_spent")]),
    ],
)
def test_writes_stay_within_what_may_be_lost(
    general: float, points: list[tuple[int, TTL, str]], held: list[tuple[str, str]]
) -> None:
    of = prompt(tools=[4000], system=[6000])
    plan = planned(of, view(of, {0: OFTEN, 1: ONCE}, waste=Waste(general=general)))
    assert (placed(plan), reasons(plan)) == (points, held)


def test_a_read_may_be_a_write_and_is_risked_up_to_two_writes_of_the_largest_prompt() -> None:
    of = prompt(tools=[4000], system=[6000])
    live = {0: entry(stake=Stake("tools_end", 1_000.0))}
    # After .25 x 6,000, and a twentieth more, the next read risks .25 x 10,000: 300 + 5,000 - 1,575 - 2,500 = 1,225.
    # The read alone costs 900 at 9,000, where least is allowed: .015 x 9,000 + 2 x .25 x 9,000 = 4,635.
    for general, deepest in ((1_225.0, 1), (1_226.0, 0), (3_735.0, 0), (3_736.0, None)):
        found = planned(of, view(of, {1: ONCE}, live=live, waste=Waste(general=general))).checkpoints
        assert (found[-1].boundary if found else None) == deepest


def test_where_even_a_read_may_not_be_tried_only_the_users_marks_are_sent() -> None:
    of = prompt(tools=[4000], system=[6000])
    spent = Waste(general=10_000)
    plan = planned(of, view(of, {1: OFTEN}, live={0: entry()}, waste=spent))
    assert not placed(plan)
    assert {reason for _, reason in reasons(plan)} == {"allowance_spent"}
    marked = prompt(tools=[4000], system=[6000, Mark()])
    # up to the mark the user has all of it written: a point before it costs nothing more
    assert [point[:2] for point in placed(planned(marked, view(marked, {0: OFTEN}, waste=spent)))] == [
        (0, "5m"), (1, "5m"),
    ]  # fmt: skip


def test_a_write_that_is_not_covered_in_full_is_made_as_far_as_it_is() -> None:
    of = prompt(system=[2000] * 5)
    # At 9,000 of 10,000: 135 + 2,250 are allowed, less 1,000, 1,385: .25 x .9 x 6,000 = 1,350 are covered.
    plan = planned(of, view(of, {4: OFTEN}, waste=Waste(general=1_000)))
    assert placed(plan)[-1] == (2, "5m", AGAIN)
    assert plan.checkpoints[-1].reason.role == "system_end"
    assert plan.risk.segments[-1].role == "system_end"  # whose purse pays for it


def test_where_an_hour_is_not_covered_five_minutes_may_be() -> None:
    of = prompt(system=[10_000])
    # Back five times, of which half within five minutes: an hour is worth more, and costs 10,000 of 2,650.
    by = {0: Outlook(5, 0.6, 1.0)}
    assert placed(planned(of, view(of, by))) == [(0, "1h", AGAIN)]
    assert placed(planned(of, view(of, by, waste=Waste()))) == [(0, "5m", AGAIN)]


def test_what_an_hour_is_dearer_is_the_users_who_set_it() -> None:
    of = prompt(system=[10_000])
    policy = CachePolicy(ttl="1h")
    plan = planned(of, view(of, {0: OFTEN}, waste=Waste()), policy=policy)
    assert placed(plan) == [(0, "1h", AGAIN)]
    assert [(segment.own, segment.asked) for segment in plan.risk.segments] == [(0.25, 0.75)]


# -- spare slots ---------------------------------------------------------------------------------


def test_spare_slots_go_to_where_others_part_inside_what_is_cached_anyway() -> None:
    of = prompt([2000, 500, 500, 500], system=[1000])
    plan = planned(of, view(of, {4: OFTEN}, visits={1: 3, 2: 1}))
    # 3,004 tokens where two of three requests end, 3,504 where one does; then the end of system
    assert placed(plan) == [(0, "5m", SHARED), (1, "5m", SHARED), (2, "5m", SHARED), (4, "5m", AGAIN)]
    assert [point.reason.role for point in plan.checkpoints[:2]] == ["system_end", "inner"]
    assert {point.worth for point in plan.checkpoints[:3]} == {0.0}
    three = planned(of, view(of, {4: OFTEN}, visits={1: 3, 2: 1}), policy=CachePolicy(max_checkpoints=3))
    assert placed(three) == [(1, "5m", SHARED), (2, "5m", SHARED), (4, "5m", AGAIN)]
    assert placed(planned(of, view(of, {4: OFTEN}, visits={1: 3, 2: 1}), policy=TWO)) == [
        (1, "5m", SHARED), (4, "5m", AGAIN),
    ]  # fmt: skip


def test_later_ends_of_sections_come_before_earlier_ones() -> None:
    of = prompt([Part(1000, context=True), 100], tools=[1000], system=[1000])
    plan = planned(of, view(of, {3: OFTEN}), policy=CachePolicy(max_checkpoints=3))
    assert placed(plan) == [(1, "5m", SHARED), (2, "5m", SHARED), (3, "5m", AGAIN)]


def test_spare_slots_go_first_to_where_most_requests_part() -> None:
    of = prompt([1000], tools=[1000], system=[1000])
    # seven of nine requests end with 1,000 tokens of tools, two with 2,000: 7,000 against 4,000
    assert placed(planned(of, view(of, {2: OFTEN}, visits={0: 9, 1: 2}), policy=TWO)) == [
        (0, "5m", SHARED), (2, "5m", AGAIN),
    ]  # fmt: skip
    # four of six and two: 4,000 against 4,000, the later one
    assert placed(planned(of, view(of, {2: OFTEN}, visits={0: 6, 1: 2}), policy=TWO)) == [
        (1, "5m", SHARED), (2, "5m", AGAIN),
    ]  # fmt: skip


def test_spare_slots_that_are_left_go_to_ends_of_blocks_inside_the_system_prompt() -> None:
    of = prompt([1000, 1000], tools=[1000, 1000], system=[1000, 1000, 1000])
    plan = planned(of, view(of, {6: OFTEN}))
    assert [(point.boundary, point.reason.role) for point in plan.checkpoints] == [
        (1, "tools_end"), (2, "inner"), (4, "system_end"), (6, "tail_turns"),
    ]  # fmt: skip
    without = prompt([1000, 1000, 1000])
    assert placed(planned(without, view(without, {2: OFTEN}))) == [(2, "5m", AGAIN)]


def test_nothing_is_shared_beyond_the_last_checkpoint_or_where_there_is_none() -> None:
    of = prompt([1000, 1000], system=[1000])
    assert placed(planned(of, view(of, {0: OFTEN}, visits={1: 3}))) == [(0, "5m", AGAIN)]
    assert placed(planned(of, view(of, visits={1: 3}))) == []


def test_nothing_is_shared_below_the_minimum_in_a_refused_section_or_inside_a_text() -> None:
    of = prompt([2000], system=[905], tools=[])  # at most 1.1 x 905 = 995.5 tokens
    assert placed(planned(of, view(of, {1: OFTEN}))) == [(1, "5m", AGAIN)]
    exact = view(of, {1: OFTEN}, lapsed={0: entry(tokens=1000)})
    assert placed(planned(of, exact)) == [(0, "5m", SHARED), (1, "5m", AGAIN)]
    refused = prompt([2000], system=[2000], tools=[2000])
    plan = planned(refused, view(refused, {2: OFTEN}, left_out=("system",)), policy=TWO)
    assert [(point.boundary, point.reason.role) for point in plan.checkpoints] == [
        (0, "tools_end"), (2, "tail_turns"),
    ]  # fmt: skip
    text = prompt([2000, two_parts(400), 100])
    assert placed(planned(text, view(text, {3: OFTEN}, visits={1: 3}))) == [(3, "5m", AGAIN)]


def test_a_shared_prefix_lives_as_long_as_what_follows_it() -> None:
    of = prompt([1000], system=[1000])
    assert placed(planned(of, view(of, {1: LATE}))) == [(0, "1h", SHARED), (1, "1h", AGAIN)]
    assert placed(planned(of, view(of, {1: OFTEN}))) == [(0, "5m", SHARED), (1, "5m", AGAIN)]


def test_between_an_hour_and_five_minutes_a_shared_prefix_lives_five_minutes() -> None:
    of = prompt([1000, 1000], tools=[2000], system=[1000])
    plan = planned(of, view(of, {0: LATE, 3: ONCE}, visits={2: 3}))
    assert placed(plan) == [(0, "1h", AGAIN), (1, "5m", SHARED), (2, "5m", SHARED), (3, "5m", AGAIN)]


def test_a_live_five_minute_prefix_takes_no_slot_before_an_hour() -> None:
    of = prompt([1000], tools=[2000], system=[2000])
    plan = planned(of, view(of, {2: LATE}, live={1: entry()}), policy=TWO)
    assert placed(plan) == [(0, "1h", SHARED), (2, "1h", AGAIN)]


def test_a_live_prefix_is_shared_with_the_lifetime_it_has() -> None:
    of = prompt([1000], system=[1000], tools=[1000])
    # an hour may stand before five minutes
    by = view(of, {2: OFTEN}, live={0: entry("1h"), 1: entry()})
    assert placed(planned(of, by)) == [(0, "1h", SHARED), (1, "5m", SHARED), (2, "5m", AGAIN)]
    # five minutes may not stand before an hour
    late = view(of, {2: LATE}, live={0: entry(), 1: entry("1h")})
    assert placed(planned(of, late)) == [(1, "1h", SHARED), (2, "1h", AGAIN)]
    # nor an hour behind five minutes
    both = prompt([1000, 1000], tools=[1000], system=[1000, 1000])
    by = view(both, {4: OFTEN}, live={2: entry("1h"), 3: entry()}, visits={1: 3})
    assert placed(planned(both, by)) == [(0, "5m", SHARED), (1, "5m", SHARED), (4, "5m", AGAIN)]


# -- a static plan that is followed ---------------------------------------------------------------

STATIC: PlacedCode = "static_plan"


def following(
    of: Prompt,
    places: tuple[Place, ...],
    ttl: TTL = "5m",
    outlooks: Mapping[int, Outlook] | None = None,
    *,
    credit: float = 0.0,
    there: Sequence[int] = (),
    **rest: Any,
) -> View:
    """A view by which a static plan is followed, which in its shadow has the prefixes `there`."""
    plan = FAMILY.index(StaticPlan(places, ttl)) if places else NOTHING
    shadows = {of.boundaries[boundary].digest: 1 << plan for boundary in there}
    return view(of, outlooks, followed=Followed(plan, credit), shadows=shadows, **rest)


def test_the_checkpoints_of_the_plan_followed_are_sent_in_place_of_our_own() -> None:
    of = prompt([1000], tools=[1000], system=[2000])
    plan = planned(of, following(of, ("tools", "system"), "1h", {2: OFTEN}))
    assert placed(plan) == [(0, "1h", STATIC), (1, "1h", STATIC)]
    assert plan.checkpoints[1].reason == Placed(STATIC, "system_end", text="tools + system at 1h")
    assert (
        plan.checkpoints[1].why
        == 'end of system: the plan "tools + system at 1h" has been cheaper for requests like this one'
    )
    assert (plan.charge, plan.expected) == (0.0, Expected(written=3000))
    # what the planner would have sent by itself goes on being judged
    assert plan.own == ((0, "5m"), (1, "5m"), (2, "5m"))


def test_where_nothing_is_cheapest_nothing_is_placed_and_the_plan_says_why() -> None:
    of = prompt([1000], system=[2000])
    plan = planned(of, following(of, (), outlooks={0: OFTEN}))
    assert (placed(plan), reasons(plan), plan.own) == ([], [("", STATIC)], ((0, "5m"),))


def test_a_plan_without_a_place_in_this_request_places_nothing() -> None:
    of = prompt([1000], system=[2000])
    plan = planned(of, following(of, ("history",), outlooks={0: OFTEN}))
    assert (placed(plan), reasons(plan)) == ([], [("", STATIC)])


def test_the_planner_goes_by_itself_where_it_is_the_cheapest_or_nobody_guards_it() -> None:
    of = prompt([1000], system=[2000])
    for followed in (None, Followed(), Followed(OURS, 1e9)):
        plan = planned(of, view(of, {0: OFTEN}, followed=followed))
        assert (placed(plan), plan.own) == ([(0, "5m", AGAIN)], ((0, "5m"),))


def test_who_knows_what_comes_back_needs_no_guard() -> None:
    of = prompt([1000], system=[2000])
    by = following(of, (), outlooks={0: OFTEN})
    told = planner.plan(of, CLAUDE, CachePolicy(), by, RATES, NOW, Expectation(times=3))
    assert placed(told) == [(0, "5m", "expected")]


def test_our_own_is_judged_by_its_own_shadow() -> None:
    of = prompt([1000], system=[2000])
    digest = of.boundaries[0].digest
    # five more visits: 0.9 a token and 5 x 0.9 for what is kept at 5m, as opposed to what would have to be written
    by = following(of, (), outlooks={0: LATE}, live={})
    assert planned(of, by).own == ((0, "1h"),)
    for bit, ttl in ((OURS, "5m"), (OURS_1H, "1h")):
        plan = planned(of, replace(by, shadows={digest: 1 << bit}))
        assert (placed(plan), plan.own) == ([], ((0, "1h"),))
        kept = planned(of, replace(by, shadows={digest: 1 << bit}, outlooks={digest: OFTEN}))  # type: ignore[call-arg]
        assert kept.own == ((0, ttl),)


def test_what_lives_goes_on_being_read() -> None:
    of = prompt([100], [100], [100], system=[1000, 2000])
    # a checkpoint behind it with its lifetime finds it
    near = planned(of, following(of, ("end",), live={1: entry()}))
    assert placed(near) == [(4, "5m", STATIC)]
    assert near.expected.read_boundary == 1
    # nothing stands behind it
    first = following(of, ("first_system",), live={1: entry()})
    assert placed(planned(of, first)) == [(0, "5m", STATIC), (1, "5m", READ)]
    assert placed(planned(of, following(of, (), live={1: entry("1h")}))) == [(1, "1h", READ)]
    # an hour before five minutes
    assert placed(planned(of, following(of, ("system",), live={0: entry("1h")}))) == [
        (0, "1h", READ),
        (1, "5m", STATIC),
    ]


def test_what_lives_is_not_written_anew_for_another_lifetime() -> None:
    of = prompt([1000], system=[1000, 2000])
    first: tuple[Place, ...] = ("first_system",)
    for places in (first, ("system",)):
        by = following(of, places, "1h", {1: OFTEN}, live={1: entry()}, credit=1e9)
        assert placed(planned(of, by))[-1] == (1, "5m", READ)
    behind = following(of, ("end",), "1h", {1: OFTEN}, live={0: entry()}, credit=1e9)
    assert placed(planned(of, behind)) == [(2, "1h", STATIC)]  # which finds it


@pytest.mark.parametrize(("credit", "followed"), [(2300.0, True), (2299.0, False)])
def test_what_the_shadow_has_and_we_have_not_is_paid_from_the_lead(credit: float, followed: bool) -> None:
    of = prompt([1000], system=[2000])
    plan = planned(of, following(of, ("system",), outlooks={1: OFTEN}, there=[0], credit=credit))
    # writing in place of reading: 2,000 x 1.15
    assert plan.charge == pytest.approx(2300 if followed else 0)
    assert (placed(plan) == [(0, "5m", STATIC)]) is followed


def test_of_what_lives_nothing_is_paid_for() -> None:
    of = prompt([1000], tools=[1000], system=[2000])
    live = planned(of, following(of, ("system",), there=[1], live={1: entry()}))
    assert (placed(live), live.charge) == ([(1, "5m", STATIC)], 0.0)
    # 2,000 of 3,000 tokens at 2 - 0.1
    hour = following(of, ("system",), "1h", there=[1], live={0: entry("1h")}, credit=3800)
    assert planned(of, hour).charge == pytest.approx(3800)


def test_marks_stay_whatever_plan_is_followed() -> None:
    of = prompt([1000, Mark("1h")], tools=[1000], system=[2000])
    plan = planned(of, following(of, ("tools", "system")))
    assert [(point.boundary, point.marked) for point in plan.checkpoints][-1] == (2, True)
    assert placed(planned(of, following(of, ()))) == [(2, "1h", "marked")]
    assert placed(planned(of, following(of, ("tools", "system")), policy=ONE)) == [(2, "1h", "marked")]


def test_the_plan_followed_keeps_to_what_is_allowed() -> None:
    of = prompt([1000], tools=[1000], system=[2000])
    everywhere: tuple[Place, ...] = ("tools", "system", "history", "end")
    assert len(planned(of, following(of, everywhere), policy=TWO).checkpoints) == 2
    without_system = placed(planned(of, following(of, everywhere, left_out=("system",))))
    assert without_system == [(0, "5m", STATIC), (2, "5m", STATIC)]
    short = planned(of, following(of, ("system",), "1h", left_out=(LONG_TTL,)))
    assert placed(short) == []  # an hour that the service refused is followed no more
    five = replace(CLAUDE, ttls=("5m",))
    assert placed(planned(of, following(of, ("system",), "1h"), five)) == []
    assert placed(planned(of, following(of, ("system",)), replace(CLAUDE, minimum=3200))) == []
    for policy, rule in ((EXPLICIT, CLAUDE), (CachePolicy(), replace(CLAUDE, explicit=False))):
        assert placed(planned(of, following(of, everywhere), rule, policy)) == []


def test_a_text_is_split_at_what_is_common_where_that_is_wanted() -> None:
    of = prompt([two_parts(400)], system=[1000])
    by = following(of, ("common",), common=1)
    assert placed(planned(of, by)) == [(1, "5m", STATIC)]
    assert planned(of, by).splits == (Split(1, Where("messages", 0, 0), 440),)
    whole = planned(of, by, policy=CachePolicy(split_text=False))
    assert (placed(whole), reasons(whole)) == ([], [("", STATIC)])


# -- text in two parts ---------------------------------------------------------------------------


def test_a_text_is_split_where_requests_part() -> None:
    of = prompt([1000, two_parts(400)])
    plan = planned(of, view(of, {1: OFTEN}, visits={1: 3}))
    assert placed(plan) == [(1, "5m", AGAIN)]
    assert plan.splits == (Split(1, Where("messages", 0, 1), 440),)
    assert (plan.checkpoints[0].offset, plan.checkpoints[0].path) == (440, "messages[0].content[2]")


@pytest.mark.parametrize(
    ("policy", "trusted"), [(CachePolicy(split_text=False), True), (CachePolicy(learn=False), True), (None, False)]
)
def test_a_text_is_not_split_where_that_is_not_wanted(policy: CachePolicy | None, trusted: bool) -> None:
    of = prompt([1000, two_parts(400)])
    plan = planned(of, view(of, {1: OFTEN}, visits={1: 3}, splits_trusted=trusted), policy=policy)
    assert (placed(plan), plan.splits) == ([], ())


def test_what_is_read_stays_split_as_it_was_written() -> None:
    of = prompt([1000, two_parts(400), 500])
    cut = of.boundaries[1].digest
    plan = planned(of, view(of, {3: OFTEN}, live={2: entry(splits=(cut,))}))
    assert plan.expected.read_boundary == 2
    assert plan.splits == (Split(1, Where("messages", 0, 1), 440),)
    assert [point.path for point in plan.checkpoints] == ["messages[0].content[4]"]
    unsplit = planned(of, view(of, {3: OFTEN}, live={2: entry(splits=(cut,))}), policy=CachePolicy(split_text=False))
    assert (unsplit.expected.read_boundary, unsplit.splits) == (None, ())


# -- what the user marked ------------------------------------------------------------------------


def test_marks_are_kept_with_their_lifetime_and_their_place() -> None:
    of = prompt([1000, Mark()], system=[2000, Mark("1h")])
    plan = planned(of, view(of), policy=EXPLICIT)
    assert placed(plan) == [(0, "1h", "marked"), (1, "5m", "marked")]
    assert [(point.marked, point.fixed, point.worth) for point in plan.checkpoints] == [
        (True, True, 2000), (True, False, 3004),
    ]  # fmt: skip
    assert [point.path for point in plan.checkpoints] == ["system[1]", "messages[0].content[1]"]
    assert plan.marks == of.marks
    assert plan.plain == of.plain
    assert not plan.changes_nothing
    assert [ttl for _, ttl, _ in placed(planned(of, view(of), policy=replace(EXPLICIT, ttl="1h")))] == ["1h", "1h"]


def test_marks_take_their_slots_first() -> None:
    of = prompt([1000, Mark(), 1000], system=[2000, Mark()])
    by = view(of, {2: OFTEN})
    assert placed(planned(of, by, policy=TWO)) == [(0, "5m", "marked"), (1, "5m", "marked")]
    three = placed(planned(of, by, policy=CachePolicy(max_checkpoints=3)))
    assert three == [(0, "5m", "marked"), (1, "5m", "marked"), (2, "5m", AGAIN)]
    twice = prompt([1000], system=[2000, Mark(), Mark()])
    assert placed(planned(twice, view(twice, {1: OFTEN}), policy=TWO)) == [(0, "5m", "marked"), (1, "5m", AGAIN)]


def test_a_mark_with_nothing_before_it_is_left_out_with_a_warning() -> None:
    of = prompt([100], system=[Mark(leading=True), 100])
    plan = planned(of, view(of), policy=EXPLICIT)
    assert plan.rejected == (Rejected("system[0]", "first_in_list"),)
    assert plan.warnings == (Repair("left_out", "system[0]", "first_in_list"),)
    assert plan.checkpoints == ()


def test_the_place_sent_counts_marks_gone_cuts_and_checkpoints_added() -> None:
    of = prompt([Mark(leading=True), 1000, two_parts(400), Mark(), 100, Mark()], system=[100])
    plan = planned(of, view(of, {2: OFTEN}, visits={2: 3}))
    assert [(point.boundary, point.path) for point in plan.checkpoints if point.where.section == "messages"] == [
        (2, "messages[0].content[2]"), (3, "messages[0].content[4]"), (4, "messages[0].content[6]"),
    ]  # fmt: skip
    marked = prompt([1000, 1000, 1000], system=[Mark(leading=True), 100, Mark()])
    last = planned(marked, view(marked, {3: OFTEN})).checkpoints[-1]
    assert (last.boundary, last.path) == (3, "messages[0].content[3]")
    attached = prompt([1000, two_parts(400), 100], attached=True)
    by = view(attached, {1: OFTEN, 3: ONCE}, visits={1: 3})
    assert [point.path for point in planned(attached, by).checkpoints] == [
        "messages[0].content[1]", "messages[0].content[3]",
    ]  # fmt: skip


def test_legality_is_asked_with_what_lives_and_what_was_refused() -> None:
    of = prompt([1000, Mark("1h")], system=[2000])
    plan = planned(of, view(of, live={0: entry()}))
    assert placed(plan) == [(1, "1h", "marked")]
    assert ("system[0]", "shorter_live") in reasons(plan)
    refused = planned(of, view(of, left_out=("messages", "system")))
    assert refused.warnings == (Repair("left_out", "messages[0].content[0]", "refused"),)


# -- whatever is asked ---------------------------------------------------------------------------

PARTS: list[int | Part | Mark] = [
    100, 1000, 5000, Mark(), Mark("1h"), BLANK, Part(1000, "document"), Part(1000, "reasoning"), two_parts(1000),
]  # fmt: skip
LISTS = st.lists(st.sampled_from(PARTS), max_size=4)
CHANCES = st.sampled_from([NEVER, ONCE, OFTEN, LATE, Outlook(2, 0.5, 0.8)])


@st.composite
def requests(draw: st.DrawFn) -> tuple[Prompt, View]:
    of = prompt(*draw(st.lists(LISTS, max_size=3)), tools=draw(st.lists(st.just(1000), max_size=2)), system=draw(LISTS))
    index = st.integers(0, max(len(of.boundaries) - 1, 0))

    def some(values: st.SearchStrategy[T]) -> st.SearchStrategy[dict[int, T]]:
        return st.dictionaries(index, values, max_size=4 if of.boundaries else 0)

    entries = st.builds(entry, st.sampled_from(["5m", "1h"]), readable=st.booleans())
    by = view(
        of, draw(some(CHANCES)), live=draw(some(entries)), visits=draw(some(st.integers(1, 5))),
        left_out=draw(st.sampled_from([(), ("system",), ("messages", "system", "tools"), (LONG_TTL,)])),
        waste=Waste(general=draw(st.sampled_from([0.0, 1e4, 1e9]))),
    )  # fmt: skip
    return of, by


POLICIES = st.builds(
    CachePolicy, st.sampled_from(["auto", "explicit"]), st.sampled_from(["auto", "5m", "1h"]),
    max_checkpoints=st.integers(0, 4),
)  # fmt: skip
RULES = st.sampled_from([CLAUDE, replace(CLAUDE, explicit=False), replace(CLAUDE, sections=("system",)), None])


@given(requests(), RULES, POLICIES)
def test_a_plan_without_a_checkpoint_says_why(
    request_and_view: tuple[Prompt, View], rule: ModelRule | None, policy: CachePolicy
) -> None:
    of, by = request_and_view
    plan = planned(of, by, rule, policy)
    assert plan.checkpoints or plan.held
    assert all(point.why for point in plan.checkpoints)
    assert all(place.why for place in plan.held)
    assert all(str(warning).startswith("the checkpoint ") for warning in plan.warnings)


@given(requests(), POLICIES)
def test_a_plan_is_legal_and_the_same_each_time(request_and_view: tuple[Prompt, View], policy: CachePolicy) -> None:
    of, by = request_and_view
    plan = planned(of, by, policy=policy)
    assert planner.plan(of, CLAUDE, policy, by, RATES, NOW) == plan
    assert len(plan.checkpoints) <= policy.max_checkpoints
    assert [point.boundary for point in plan.checkpoints] == sorted({point.boundary for point in plan.checkpoints})
    assert [point.ttl for point in plan.checkpoints] == sorted(point.ttl for point in plan.checkpoints)  # "1h" first
    assert not {point.where.section for point in plan.checkpoints} & set(by.left_out)


def test_each_place_is_held_once_for_each_reason() -> None:
    twice: Mapping[str, Rejected] = {"a": Rejected("p", "below_minimum", 1), "b": Rejected("p", "below_minimum", 2)}
    other = Rejected("p", "over_cap", limit=1)
    assert Plan(rejected=(*twice.values(), other)).held == (twice["b"], other)
