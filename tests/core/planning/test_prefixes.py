"""How large the prefixes of a prompt are, which of them live, how far apart they stand, where requests parted."""

from __future__ import annotations

from dataclasses import replace

import pytest
from planning_kit import NOW, STEADY, VOLATILE, Part, entry, prompt, two_parts, view

from cachepoint.core.planning.prefixes import Prefixes
from cachepoint.core.prompt.prompt import Prompt, Where
from cachepoint.core.prompt.tokens import NOT_CALIBRATED, Calibration
from cachepoint.core.traffic.view import View

SYSTEM = prompt(system=[1000, 500, 500, 2000])
CUT = prompt([1000, two_parts(400), 100])
"""Boundaries: end of the first block, a cut a hundred tokens into the second, its end, the end of the third."""


def prefixes(of: Prompt, by: View, *, splits: bool = True, now: float = NOW) -> Prefixes:
    return Prefixes(of, by, now, splits=splits)


def test_a_prefix_is_as_large_as_estimated_times_what_exact_totals_taught() -> None:
    found = prefixes(SYSTEM, view(SYSTEM, calibration=Calibration(factor=1.5, spread=0.2, samples=3.0)))
    assert [found.size(boundary).mid for boundary in range(4)] == pytest.approx([1500, 2250, 3000, 6000])
    assert found.size(1) == pytest.approx((2250 * 0.8, 2250, 2250 * 1.2))


def test_without_totals_the_band_is_the_tokenizers() -> None:
    found = prefixes(SYSTEM, view(SYSTEM, calibration=NOT_CALIBRATED))
    assert found.size(0) == pytest.approx((1000 * 4.4 / 6.2, 1000, 1000 * 4.4 / 2.8))


def test_from_the_last_prefix_of_known_size_on_only_the_rest_is_estimated() -> None:
    by = view(SYSTEM, live={1: entry(tokens=1700)}, lapsed={0: entry(tokens=1300), 2: entry()})
    found = prefixes(SYSTEM, by)
    assert found.size(0) == pytest.approx((1300, 1300, 1300))
    assert found.size(1) == pytest.approx((1700, 1700, 1700))
    assert found.size(2) == pytest.approx((1700 + 450, 1700 + 500, 1700 + 550))
    assert found.size(3) == pytest.approx((1700 + 2250, 1700 + 2500, 1700 + 2750))


def test_what_lives_comes_in_wire_order_with_its_size() -> None:
    by = view(SYSTEM, live={2: entry("1h"), 0: entry(tokens=1200)})
    assert [(live.boundary, live.tokens, live.entry.ttl) for live in prefixes(SYSTEM, by).live] == [
        (0, 1200, "5m"), (2, pytest.approx(2200), "1h"),
    ]  # fmt: skip


def test_an_entry_whose_time_is_over_does_not_live() -> None:
    by = view(SYSTEM, live={0: entry(), 1: entry("1h")})
    assert [len(prefixes(SYSTEM, by, now=NOW + later).live) for later in (299, 301, 3601)] == [2, 1, 0]


def test_an_entry_lives_for_this_prompt_if_it_can_be_split_alike() -> None:
    cut = CUT.boundaries[1].digest
    by = view(CUT, live={2: entry(splits=(cut,))})
    assert [live.boundary for live in prefixes(CUT, by).live] == [2]
    assert prefixes(CUT, by, splits=False).live == ()
    elsewhere = view(CUT, live={2: entry(splits=(cut, b"another"))})
    assert prefixes(CUT, elsewhere).live == ()
    whole = view(CUT, live={2: entry()})
    assert [live.boundary for live in prefixes(CUT, whole, splits=False).live] == [2]


def test_a_distance_is_in_blocks_and_a_text_split_by_a_live_entry_is_two() -> None:
    assert prefixes(CUT, view(CUT)).distance(0, 3) == 2
    assert prefixes(CUT, view(CUT)).distance(2, 2) == 0
    live = prefixes(CUT, view(CUT, live={0: entry(), 1: entry(), 3: entry()}))
    assert [live.distance(0, later) for later in (0, 1, 2, 3)] == [0, 1, 2, 3]
    assert [live.distance(1, later) for later in (1, 2, 3)] == [0, 1, 2]
    assert live.distance(2, 3) == 1


def test_the_end_of_a_block_is_no_cut() -> None:
    found = prefixes(CUT, view(CUT))
    assert [found.is_cut(boundary) for boundary in range(4)] == [False, True, False, False]
    assert [found.role(boundary) for boundary in range(4)] == ["inner", "cut", "inner", "tail_single"]
    assert found.where(1) == found.where(2) == Where("messages", 0, 1)


def test_requests_parted_where_fewer_went_on() -> None:
    # 1,000 tokens of 9 - 4, 1,500 of 4 - 4, 2,000 of 4 - 0 visits; the last boundary is the end of system
    found = prefixes(SYSTEM, view(SYSTEM, visits={0: 9, 1: 4, 2: 4}))
    assert found.parting == (2, 0)
    # 1,000 of 9 - 1 against 2,000 of 1 - 0
    assert prefixes(SYSTEM, view(SYSTEM, visits={0: 9, 1: 1, 2: 1})).parting == (0, 2)


def test_where_all_went_on_or_nobody_came_no_requests_parted() -> None:
    assert prefixes(SYSTEM, view(SYSTEM, visits={0: 4, 1: 4, 2: 4, 3: 4})).parting == ()
    assert prefixes(SYSTEM, view(SYSTEM, visits={0: 3, 1: 4, 2: 5, 3: 6})).parting == ()
    assert prefixes(SYSTEM, view(SYSTEM)).parting == ()


def test_the_last_boundary_of_all_parts_from_what_came_after_it() -> None:
    single = prompt(system=[1000], tools=[500])
    unnamed = replace(single, system_end=-1)
    assert prefixes(unnamed, view(unnamed, visits={0: 2, 1: 2})).parting == (1,)


def test_from_what_looks_volatile_on_every_prefix_does() -> None:
    of = prompt(system=[1000, VOLATILE, 1000])
    assert [prefixes(of, view(of)).looks_volatile(boundary) for boundary in range(3)] == [False, True, True]
    assert not prefixes(SYSTEM, view(SYSTEM)).looks_volatile(3)


def test_named_boundaries_are_the_ends_of_tools_system_context_and_the_tail() -> None:
    of = prompt([Part(1000, context=True), 100], tools=[100], system=[100])
    assert prefixes(of, view(of)).named == {0: "tools_end", 1: "system_end", 2: "context_end", 3: "tail_turns"}
    assert STEADY.samples == 1


def test_documents_of_one_turn_change_with_it_but_not_within_a_tool_loop() -> None:
    def hinted(of: Prompt, block: int) -> Prompt:
        return replace(of, blocks=tuple(b._replace(volatile=i == block) for i, b in enumerate(of.blocks)))

    plain, agent = hinted(prompt([1000, 100]), 0), hinted(prompt([1000, 100], tools=[100]), 1)
    step = hinted(prompt([1000, 100], [10], [Part(100, "tool_result")]), 0)
    assert prefixes(plain, view(plain)).looks_volatile(1)
    assert not prefixes(agent, view(agent)).looks_volatile(2)
    assert not prefixes(step, view(step)).looks_volatile(3)
    clock = hinted(prompt([1000], system=[1000], tools=[100]), 1)  # the system prompt itself changes
    assert prefixes(clock, view(clock)).looks_volatile(2)
