"""Whatever the traffic, caching costs at most 1.5% more than none, and the surcharge of a write or two: bound A."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from planner.kit import Caller, asks, over_the_bound, prose

from cachepoint.core.provider.cache_model import CacheModel

KINDS = (
    "unique question",
    "unique system",
    "unique context",
    "returning system",
    "conversation",
    "unique conversation",
)


ROUNDING = 2.0
"""Tokens are whole in usage and not in estimates."""


def test_one_shot_prompts_are_hardly_ever_written() -> None:
    caller = Caller()
    caller.calls(asks(prose(3000, number)) for number in range(200))
    assert caller.bill <= 1.001 * caller.uncached


def test_a_system_prompt_that_is_never_the_same_stops_being_written_after_a_handful() -> None:
    caller = Caller()
    usages = caller.calls(asks("go", system=[prose(4000, number)]) for number in range(200))
    assert sum(usage.cache_write > 0 for usage in usages) <= 12
    assert not any(usage.cache_write for usage in usages[-100:])
    assert over_the_bound(caller) <= ROUNDING


def test_a_cache_that_never_keeps_anything_costs_no_more_than_the_bound() -> None:
    caller = Caller()
    for number in range(200):
        caller.cache = CacheModel()
        caller.call(asks(f"question {number}", system=[prose(5000, "system")]))
        assert over_the_bound(caller) <= ROUNDING


def test_a_prior_proved_wrong_is_taken_up_again_when_prefixes_come_back() -> None:
    caller = Caller()
    caller.calls(asks("go", system=[prose(4000, number)]) for number in range(100))
    usages = caller.calls(asks(f"question {number}", system=[prose(4000, "the same")]) for number in range(20))
    assert sum(usage.cache_read > 3000 for usage in usages) >= 17


@settings(max_examples=40, deadline=None)
@given(
    kinds=st.lists(st.sampled_from(KINDS), min_size=10, max_size=60),
    gaps=st.lists(st.sampled_from([0.0, 5.0, 200.0, 400.0, 2000.0, 5000.0]), min_size=60, max_size=60),
    sizes=st.lists(st.sampled_from([300, 1500, 4000, 9000]), min_size=60, max_size=60),
    wrong=st.sampled_from([0.8, 1.0, 1.2]),
)
def test_no_traffic_makes_caching_cost_more_than_its_bound(
    kinds: list[str], gaps: list[float], sizes: list[int], wrong: float
) -> None:
    caller = Caller(tokens_per_estimate=wrong)
    history: list[str] = []
    for number, (kind, gap, size) in enumerate(zip(kinds, gaps, sizes, strict=False)):
        text = prose(size, number)
        if kind == "unique question":
            request = asks(text)
        elif kind == "unique system":
            request = asks("go", system=[text])
        elif kind == "unique context":
            request = asks(text, f"question {number}", system=["short"])
        elif kind == "returning system":
            request = asks(f"question {number}", system=[prose(size, "returning")])
        elif kind == "conversation":
            request = asks(f"question {number}", history=history)
            history = [*history, f"question {number}", prose(size // 10, number)]
        else:
            request = asks("and then?", history=[text, "indeed"])
        caller.call(request, gap)
        assert over_the_bound(caller) <= ROUNDING
