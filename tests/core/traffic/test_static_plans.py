"""Where static plans have their checkpoints, and which requests are of one habit."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from planning_kit import Part, prompt, two_parts

from cachepoint.core.prompt.prompt import Prompt
from cachepoint.core.provider.rules import SECTIONS
from cachepoint.core.traffic.static_plans import (
    FAMILY,
    LONG,
    NOTHING,
    OURS,
    OURS_1H,
    Habit,
    Place,
    StaticPlan,
    bits,
    habit_of,
    places,
)


def at(of: Prompt, common: int = -1) -> dict[int, int]:
    """The boundaries where plans have checkpoints, with the bits of these."""
    return places(of, SECTIONS, common)


def plans(*wanted: Place) -> int:
    """The bits of the plans that have a checkpoint at any of some places."""
    return sum(1 << index for index, plan in enumerate(FAMILY) if set(plan.places) & set(wanted))


def test_the_places_of_a_conversation_with_tools_and_two_system_blocks() -> None:
    of = prompt([500, 500], [100], [100], tools=[100, 100], system=[1000, 500])
    assert at(of, common=4) == {
        1: plans("tools"),
        2: plans("first_system"),
        3: plans("system"),
        4: plans("first_block", "common"),
        5: plans("first_message"),
        6: plans("history"),
        7: plans("end"),
    }


def test_what_a_prompt_does_not_have_is_no_place() -> None:
    assert at(prompt([100])) == {0: plans("first_block", "first_message", "end")}
    assert at(prompt([100], system=[100])) == {
        0: plans("first_system", "system"), 1: plans("first_block", "first_message", "end"),
    }  # fmt: skip
    assert at(prompt([100], tools=[100])) == {0: plans("tools"), 1: plans("first_block", "first_message", "end")}
    assert at(prompt(tools=[100], system=[100, 100])) == {
        0: plans("tools"),
        1: plans("first_system"),
        2: plans("system"),
    }
    assert at(prompt(tools=[100])) == {0: plans("tools")}


def test_the_first_message_ends_where_the_next_one_begins() -> None:
    of = prompt([100, 100, 100], [100, 100], [100])
    assert at(of) == {0: plans("first_block"), 2: plans("first_message"), 4: plans("history"), 5: plans("end")}
    # one first message, long or short, is the end as well
    assert at(prompt([100, 100])) == {0: plans("first_block"), 1: plans("first_message", "end")}


def test_what_is_common_may_end_inside_a_text() -> None:
    of = prompt([two_parts(400)], system=[100])  # the end of system 0, a cut 1, the end 2
    assert at(of, common=1)[1] == plans("common")


def test_a_section_that_takes_no_checkpoints_has_no_places() -> None:
    of = prompt([100], tools=[100], system=[100])
    assert set(places(of, ("system",), -1)) == {1}
    assert set(places(of, ("system", "messages"), 0)) == {1, 2}
    assert set(places(of, (), 1)) == set()


SIZES = st.lists(st.just(100), max_size=3)


@given(st.lists(st.lists(st.just(100), min_size=1, max_size=3), max_size=4), SIZES, SIZES, st.data())
def test_every_plan_has_its_own_places_and_no_others(
    turns: list[list[int]], tools: list[int], system: list[int], data: st.DataObject
) -> None:
    of = prompt(*turns, tools=tools, system=system)
    if not of.blocks:
        return
    common = data.draw(st.integers(-1, len(of.boundaries) - 1))
    sections = [block.where.section for block in of.blocks]
    messages = [block.where.message for block in of.blocks]

    def last(section: str) -> int:
        return max((i for i, each in enumerate(sections) if each == section), default=-1)

    def first(section: str) -> int:
        return sections.index(section) if section in sections else -1

    by_hand: dict[Place, int] = {
        "tools": last("tools"),
        "first_system": first("system"),
        "system": last("system"),
        "first_block": first("messages"),
        "first_message": max((i for i, each in enumerate(messages) if each == 0), default=-1),
        "end": last("messages"),
        "history": of.history_end,
        "common": common,
    }
    found = places(of, SECTIONS, common)
    for index, plan in enumerate(FAMILY):
        wanted = {by_hand[place] for place in plan.places} - {-1}
        assert {boundary for boundary, plans in found.items() if plans >> index & 1} == wanted


def test_the_sets_of_places_are_those_people_write() -> None:
    named: dict[str, Place] = {
        "T": "tools", "S1": "first_system", "S": "system", "F": "first_block", "U": "first_message", "H": "history",
        "E": "end", "C": "common",
    }  # fmt: skip
    sets = "S; S1; T+S; H; S+H; E; S+E; T+S+H+E; F; S+F; S1+S+H; S1+S+E; U; S+U; S+U+E; C"
    wanted = {tuple(named[place] for place in each.split("+")) for each in sets.split("; ")}
    assert {plan.places for plan in FAMILY} == wanted | {()}


def test_the_family_is_nothing_and_sixteen_sets_for_five_minutes_and_for_an_hour() -> None:
    assert len(FAMILY) == len(set(FAMILY)) == OURS == 33
    assert FAMILY[NOTHING].places == ()
    assert StaticPlan(("tools", "system", "history", "end"), "5m") in FAMILY
    assert {plan.places for plan in FAMILY if plan.ttl == "1h"} == {plan.places for plan in FAMILY} - {()}
    assert [LONG >> index & 1 for index in range(OURS)] == [plan.ttl == "1h" for plan in FAMILY]
    assert (LONG >> OURS & 1, LONG >> OURS_1H & 1, LONG >> OURS_1H + 1) == (0, 1, 0)


def test_a_plan_reads_as_what_it_does() -> None:
    assert str(FAMILY[NOTHING]) == "nothing"
    assert str(StaticPlan(("first_system", "end"), "1h")) == "first system + end at 1h"


@given(st.sets(st.integers(0, 40)))
def test_bits_are_told_from_the_lowest_on(found: set[int]) -> None:
    assert list(bits(sum(1 << index for index in found))) == sorted(found)


# -- habits --------------------------------------------------------------------------------------


def test_a_habit_is_of_the_policy_the_sections_and_the_opening() -> None:
    assert habit_of(prompt([500, 500], [900], [900], tools=[100], system=[1000]), "auto") == Habit(
        "auto", True, True, 2104
    )
    assert habit_of(prompt([500], system=[1000]), "5m") == Habit("5m", False, True, 1504)
    assert habit_of(prompt([500], tools=[100]), "auto") == Habit("auto", True, False, 604)
    # nothing is asked yet: all there is
    assert habit_of(prompt(tools=[100], system=[1000]), "auto") == Habit("auto", True, True, 1100)


def test_a_conversation_keeps_its_habit() -> None:
    first = prompt([500], system=[1000])
    later = prompt([500], [100], [100], [Part(700)], [100], system=[1000])
    assert habit_of(first, "auto") == habit_of(later, "auto")


def test_requests_are_alike_up_to_twice_the_size() -> None:
    habit = Habit("auto", tools=True, system=True, size=1000)
    assert habit.like(habit._replace(size=2000))
    assert habit._replace(size=2000).like(habit)
    assert not habit.like(habit._replace(size=2001))
    assert not habit._replace(size=2001).like(habit)
    others = (habit._replace(ttl="5m"), habit._replace(tools=False), habit._replace(system=False))
    assert not any(habit.like(other) for other in others)
