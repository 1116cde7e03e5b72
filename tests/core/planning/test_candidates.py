"""Which boundaries are weighed, what is expected of each, and why the others are ruled out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from planning_kit import CLAUDE, NEVER, NOW, OFTEN, ONCE, VOLATILE, Part, entry, prompt, two_parts, view

from cachepoint.core.planning.candidates import Shortlist, shortlist
from cachepoint.core.planning.prefixes import Prefixes
from cachepoint.core.planning.reasons import Placed
from cachepoint.core.prompt.prompt import Prompt
from cachepoint.core.provider.rules import ModelRule
from cachepoint.core.traffic.kinds import FIRST_KINDS
from cachepoint.core.traffic.return_curves import Forecast, Outlook
from cachepoint.core.traffic.view import View


def listed(of: Prompt, by: View, rule: ModelRule = CLAUDE, minimum: int = 1000, *, may_cut: bool = True) -> Shortlist:
    return shortlist(Prefixes(of, by, NOW, splits=True), rule, minimum, may_cut=may_cut)


def boundaries(found: Shortlist) -> list[int]:
    return [candidate.boundary for candidate in found.candidates]


def ruled_out(found: Shortlist) -> list[tuple[str, str]]:
    return [(place.path, place.reason) for place in found.rejected]


def test_what_is_expected_of_a_candidate_and_why() -> None:
    of = prompt(system=[1000, 1000])
    found = listed(of, view(of, {0: OFTEN, 1: ONCE}, visits={0: 7, 1: 2}))
    first, last = found.candidates
    assert (first.boundary, first.tokens, first.outlook) == (0, 1000, OFTEN)
    assert first.reason == Placed("expected_again", "inner", 7, 5.0, 1.0)
    assert (last.boundary, last.tokens, last.outlook) == (1, 2000, ONCE)
    assert last.reason == Placed("expected_again", "system_end", 2, 1.0, 1.0)
    assert listed(of, view(of, {1: ONCE})).candidates[0].reason == Placed("expected_again", "system_end", 0, 1.0, 1.0)


def test_whoever_passes_a_deeper_boundary_passes_an_earlier_one() -> None:
    of = prompt(system=[1000], tools=[1000])
    assert [each.outlook for each in listed(of, view(of, {0: NEVER, 1: ONCE})).candidates] == [ONCE, ONCE]


@pytest.mark.parametrize(("tokens", "kept"), [(999, False), (1000, True)])
def test_the_minimum_is_the_fewest_tokens_that_count(tokens: int, kept: bool) -> None:
    of = prompt(system=[1000])
    found = listed(of, view(of, lapsed={0: entry(tokens=tokens)}))
    assert (boundaries(found) == [0]) is kept
    if not kept:
        (place,) = found.rejected
        assert (place.path, place.reason, place.tokens, place.limit) == ("system[0]", "below_minimum", 999, 1000)


def test_what_may_reach_the_minimum_is_weighed() -> None:
    of = prompt(system=[910])  # up to 1.1 x 910 = 1,001 tokens
    assert boundaries(listed(of, view(of))) == [0]
    assert ruled_out(listed(of, view(of), minimum=1002)) == [("system[0]", "below_minimum")]


@pytest.mark.parametrize(("most", "kept"), [(2000, True), (1999, False)])
def test_above_what_the_model_caches_nothing_is_weighed(most: int, kept: bool) -> None:
    of = prompt(system=[2000])
    found = listed(of, view(of, lapsed={0: entry(tokens=2000)}), replace(CLAUDE, max_cached_tokens=most))
    assert (boundaries(found) == [0]) is kept
    if not kept:
        (place,) = found.rejected
        assert (place.path, place.reason, place.tokens, place.limit) == ("system[0]", "above_maximum", 2000, 1999)


def test_what_may_be_small_enough_for_the_model_is_weighed() -> None:
    of = prompt(system=[2200])  # from 0.9 x 2,200 = 1,980 tokens on
    assert boundaries(listed(of, view(of), replace(CLAUDE, max_cached_tokens=1985))) == [0]


def test_sections_the_model_does_not_take_or_refused_are_ruled_out() -> None:
    of = prompt([1000], tools=[1000], system=[1000])
    found = listed(of, view(of, left_out=("messages",)), replace(CLAUDE, sections=("system", "messages")))
    assert boundaries(found) == [1]
    assert ruled_out(found) == [("tools[0]", "section_without_checkpoints"), ("messages[0].content[0]", "refused")]


def test_up_to_what_a_request_under_way_writes_nothing_is_weighed() -> None:
    of = prompt([1000], tools=[1000], system=[1000])
    found = listed(of, view(of, live={0: entry(), 1: entry(readable=False)}))
    assert boundaries(found) == [2]
    assert ruled_out(found) == [("tools[0]", "writing_under_way"), ("system[0]", "writing_under_way")]
    assert boundaries(listed(of, view(of, live={1: entry()}))) == [0, 1, 2]
    two = view(of, live={0: entry(readable=False), 1: entry(readable=False)})
    assert boundaries(listed(of, two)) == [2]


@pytest.mark.parametrize(("visits", "expected"), [(0, 0.5), (2, 0.5), (3, 5.0)])
def test_what_looks_volatile_counts_a_tenth_until_it_came_three_times(visits: int, expected: float) -> None:
    of = prompt(system=[VOLATILE])
    (found,) = listed(of, view(of, {0: OFTEN}, visits={0: visits} if visits else {})).candidates
    assert found.outlook == Outlook(expected, 1.0, 1.0)
    assert found.reason.visits == pytest.approx(expected)


def test_before_what_looks_volatile_all_visits_count() -> None:
    of = prompt(system=[VOLATILE], tools=[1000])
    assert [each.outlook.visits for each in listed(of, view(of, {0: OFTEN, 1: OFTEN})).candidates] == [5, 0.5]


def test_beside_named_boundaries_those_where_most_part_fill_ten_places() -> None:
    of = prompt(system=[1000] * 14)

    def visits(count: int) -> Mapping[int, int]:
        return {index: 2 * (count - index) for index in range(count)}  # two fewer past each

    # the end of system and, of thirteen others, the nine deepest
    assert boundaries(listed(of, view(of, visits=visits(13)))) == [*range(4, 14)]
    assert boundaries(listed(of, view(of, visits=visits(3)))) == [0, 1, 2, 13]


PROVEN, PRIOR = Forecast((0.5,) * 7), Forecast((0.1,) * 7)
"""More than is assumed of a kind that must prove itself, and as much."""


def test_ends_of_blocks_never_seen_before_are_weighed_once_their_kind_came_back() -> None:
    of = prompt([1500, 1500, 100])
    inner = FIRST_KINDS["inner"]  # 1,504 tokens are of the class up to 2,048, 3,004 of that up to 4,096
    assert boundaries(listed(of, view(of))) == [2]
    assert boundaries(listed(of, view(of, forecasts={inner[5]: PRIOR, inner[6]: PRIOR}))) == [2]
    assert boundaries(listed(of, view(of, forecasts={inner[5]: PRIOR, inner[6]: PROVEN}))) == [1, 2]
    # one that was seen before must part from what follows
    assert boundaries(listed(of, view(of, forecasts={inner[6]: PROVEN}, visits={1: 1, 2: 1}))) == [2]


def test_of_many_new_blocks_the_first_and_the_last_four_are_weighed() -> None:
    of = prompt([1000] * 13)
    by = view(of, forecasts=dict.fromkeys(FIRST_KINDS["inner"], PROVEN))
    assert boundaries(listed(of, by)) == [*range(4), *range(8, 13)]


def test_the_last_cut_of_a_new_text_is_weighed_once_its_kind_came_back() -> None:
    of = prompt([two_parts(400), 100, two_parts(400)])  # boundaries: a cut 0, 1, 2, a cut 3, the tail 4
    cuts = dict.fromkeys(FIRST_KINDS["cut"], PROVEN)
    assert boundaries(listed(of, view(of, forecasts=cuts), minimum=500)) == [3, 4]
    assert boundaries(listed(of, view(of, forecasts=cuts), minimum=500, may_cut=False)) == [4]
    assert boundaries(listed(of, view(of, forecasts=cuts, visits={3: 1, 4: 1}), minimum=500)) == [4]
    assert boundaries(listed(of, view(of, forecasts=dict.fromkeys(cuts, PRIOR)), minimum=500)) == [4]


def test_however_many_are_named_five_places_are_for_where_requests_part() -> None:
    contexts = [Part(1000, context=True)] * 7
    of = prompt([*contexts, *[1000] * 7, 1000], system=[1000])
    found = boundaries(listed(of, view(of, visits={index: 99 - index for index in range(16)})))
    assert found == [*range(8), 10, 11, 12, 13, 14, 15]


def test_of_very_many_ends_of_context_the_first_and_the_last_are_weighed() -> None:
    of = prompt([Part(1000, context=True)] * 30)
    # the last is the tail
    assert boundaries(listed(of, view(of))) == [*range(5), *range(24, 30)]


def test_a_cut_is_weighed_where_a_text_may_be_split_and_enough_stands_before_it() -> None:
    of = prompt([1000, two_parts(400)], system=[])
    by = view(of, visits={1: 5})
    assert boundaries(listed(of, by)) == [1, 2]
    assert boundaries(listed(of, by, may_cut=False)) == [2]
    assert boundaries(listed(of, by, minimum=1103)) == [1, 2]  # 4 for the message, 1,000 and 100
    assert boundaries(listed(of, by, minimum=1105)) == [2]
    exact = view(of, visits={1: 5}, lapsed={1: entry(tokens=1100)})
    assert boundaries(listed(of, exact, minimum=1100)) == [1, 2]
    assert boundaries(listed(of, exact, minimum=1101)) == [2]
    whole = view(of, visits={0: 5})
    assert boundaries(listed(of, whole, may_cut=False)) == [0, 2]
