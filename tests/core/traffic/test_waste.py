"""The bound on waste in figures: 1.5% of all prompts so far, and two writes of the largest, at 1.25 each."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cachepoint.core.provider.prices import Rates
from cachepoint.core.provider.usage import Usage
from cachepoint.core.traffic.waste import NO_GUARDS, Guards, Waste

RATES = Rates()
AMOUNT = st.integers(-(10**9), 10**9).map(float)
SIZE = st.integers(0, 10**9).map(float)
GUARDS = st.builds(
    Guards, st.builds(Waste, AMOUNT, SIZE, SIZE, SIZE), st.frozensets(st.sampled_from(["tools", "system", "1h"]))
)


def test_the_allowance_is_a_share_of_all_prompts_and_two_writes_of_the_largest() -> None:
    waste = Waste(net=100, committed=50, baseline=20_000, largest=4_000)
    # .015 × (20,000 + 1,000) + 2 × 1.25 × 4,000 - 100 - 50
    assert waste.allowance(1_000, RATES) == pytest.approx(10_165)


def test_the_largest_prompt_may_be_the_one_that_asks() -> None:
    waste = Waste(net=100, committed=50, baseline=20_000, largest=4_000)
    # .015 × (20,000 + 5,000) + 2 × 1.25 × 5,000 - 100 - 50
    assert waste.allowance(5_000, RATES) == pytest.approx(12_725)


def test_reads_are_tried_up_to_the_bound_itself_and_not_beyond() -> None:
    # The bound is 315 + 10,000; what is committed does not count against a read.
    assert not Waste(10_315.0, 99.0, 20_000, 4_000).overdrawn(1_000, RATES)
    assert Waste(10_315.1, 0.0, 20_000, 4_000).overdrawn(1_000, RATES)


def test_what_is_committed_never_falls_below_nothing() -> None:
    waste = Waste(net=1.0, committed=50.0)
    assert waste.with_commitment(30).committed == 80
    assert waste.with_commitment(-20).committed == 30
    assert waste.with_commitment(-200) == Waste(net=1.0)


def test_usage_adds_surcharges_and_takes_off_what_was_saved() -> None:
    usage = Usage(input=1_000, cache_read=2_000, cache_write_5m=400, cache_write_1h=100, output=9)
    # .25 × 400 + 1 × 100 - .9 × 2,000 = -1,600; the prompt is 3,500 tokens
    assert Waste(3_000, 7, 10, 2_000).settled(usage, RATES) == Waste(1_400, 7, 3_510, 3_500)


def test_savings_license_no_more_than_two_of_the_largest_prefixes() -> None:
    usage = Usage(input=0, cache_read=3_000)
    assert Waste(-6_000, 0, 0, 3_500).settled(usage, RATES).net == -7_000
    assert Waste(-6_000, 0, 0, 9_000).settled(usage, RATES).net == -8_700


def test_merged_are_the_losses_alone_and_what_is_under_way_counts_as_lost() -> None:
    # no saving, no prompt and no prefix of one scope licenses waste of another
    assert Waste(-500, 1, 10, 7).merged(Waste(300, 2, 20, 5)) == Waste(1 + 300 + 2)
    assert Waste(200, 1, 10, 5).merged(Waste(300, 2, 20, 7)) == Waste(503)


def test_beside_others_a_scope_keeps_its_own_prompts_and_bears_their_losses() -> None:
    assert Waste(-500, 1, 10, 7).beside(Waste(300, 2, 20, 9)) == Waste(-198, 1, 10, 7)
    assert Waste(5, 1, 10, 7).beside(Waste(-300, 0, 20, 9)) == Waste(5, 1, 10, 7)


def test_guards_merge_into_the_refusals_of_both() -> None:
    merged = Guards(Waste(1), frozenset({"tools"})).merged(Guards(Waste(2), frozenset({"system"})))
    assert merged == Guards(Waste(3), frozenset({"tools", "system"}))


@settings(deadline=None)
@given(st.lists(GUARDS, min_size=1, max_size=5), GUARDS, SIZE)
def test_no_merge_allows_more_than_any_one_alone(several: list[Guards], new: Guards, prompt: float) -> None:
    lumped = NO_GUARDS
    for each in several:
        lumped = lumped.merged(each)
    for each in several:  # back again, with nothing of its own
        assert Guards().beside(lumped).waste.allowance(prompt, RATES) <= each.waste.allowance(prompt, RATES)
        assert each.refused <= Guards().beside(lumped).refused
    assert new.beside(lumped).waste.allowance(prompt, RATES) <= new.waste.allowance(prompt, RATES)


@settings(deadline=None)
@given(GUARDS, GUARDS, GUARDS)
def test_guards_merge_in_any_order_and_grouping(one: Guards, two: Guards, three: Guards) -> None:
    assert one.merged(two).merged(three) == one.merged(two.merged(three))
    assert one.merged(two) == two.merged(one)
    assert one.merged(NO_GUARDS).waste.net >= one.waste.net


def test_what_the_user_authorised_of_a_surcharge_is_no_waste() -> None:
    written = Usage(cache_write_1h=1_000)  # a surcharge of 1,000 at 2.0
    assert Waste().settled(written, Rates()).net == 1_000
    assert Waste().settled(written, Rates(), 400.0).net == 600
    assert Waste().settled(written, Rates(), 5_000.0).net == 0  # and no saving
