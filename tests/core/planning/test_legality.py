"""From wanted checkpoints to ones the service accepts: what it refuses of a place, and what is done about it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import permutations

import pytest
from planning_kit import BLANK, CLAUDE, Content, Mark, Part, planned, prompt, two_parts, view, wanted

from cachepoint.core.planning.legality import Legal, Places, legalise
from cachepoint.core.planning.plan import Checkpoint
from cachepoint.core.planning.policy import CachePolicy
from cachepoint.core.planning.reasons import Rejected, Repair
from cachepoint.core.prompt.prompt import Prompt
from cachepoint.core.provider.rules import TTL, ModelRule

NOVA = replace(CLAUDE, ttls=("5m",), sections=("system", "messages"), after_text_only=True)
REASONING, VIDEO, IMAGE = Part(100, "reasoning"), Part(100, "video"), Part(100, "image")
CITATIONS, GUARD = Part(100, "citations"), Part(100, "guard")
TXT, PDF = Part(100, "document"), Part(100, "document", textual=False)
SYSTEM = [100] * 6
"""Six blocks of a hundred tokens: boundary n ends a prefix of 100 (n + 1)."""


def at(legal: Legal) -> list[tuple[int, TTL]]:
    return [(point.boundary, point.ttl) for point in legal.points]


def settle(of: Prompt, *points: Checkpoint, rule: ModelRule = CLAUDE, cap: int = 4, **rest: object) -> Legal:
    return legalise(of, rule, points, cap=cap, **rest)  # type: ignore[arg-type]


# -- what the service refuses of a place ---------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "obstacle"),
    [
        ([100], None), ([100, IMAGE], None), ([100, PDF], None), ([BLANK, PDF], "nothing_before"),
        ([PDF], "nothing_before"), ([PDF, PDF], "nothing_before"), ([100, TXT], "after_document"),
        ([100, REASONING], "after_reasoning"), ([100, VIDEO], "after_video"), ([100, CITATIONS], "after_citations"),
        ([100, BLANK], "after_blank_text"), ([GUARD], "after_guard"), ([GUARD, 100], "after_guard"),
        ([100, GUARD, 100], "after_guard"),
    ],
)  # fmt: skip
def test_what_may_not_stand_before_a_checkpoint(content: Content, obstacle: str | None) -> None:
    of = prompt([100], [100], content)
    assert Places(of, CLAUDE).obstacle(len(of.blocks) - 1) == obstacle


def test_a_document_of_another_message_is_nothing_before_a_pdf() -> None:
    assert Places(prompt([100], [100], [PDF, 100, PDF]), CLAUDE).obstacle(2) == "nothing_before"
    assert Places(prompt([100], [100], [PDF, 100, PDF]), CLAUDE).obstacle(4) is None


def test_documents_may_carry_a_checkpoint_as_an_attribute() -> None:
    for document in (TXT, PDF):
        assert Places(prompt([document], attached=True), CLAUDE).obstacle(0) is None


def test_guarded_content_hinders_in_its_turn_only_and_from_there_on() -> None:
    of = prompt([GUARD, 100], [100], [100, GUARD, 100])
    found = [Places(of, CLAUDE).obstacle(block) for block in range(6)]
    assert found == [None, None, None, None, "after_guard", "after_guard"]


def test_a_guard_in_a_system_prompt_is_no_obstacle() -> None:
    of = prompt([100], system=[GUARD, 100])
    assert [Places(of, CLAUDE).obstacle(block) for block in range(3)] == [None, None, None]


def test_what_the_model_takes_decides_first() -> None:
    of = prompt([IMAGE, 100], tools=[100], system=[IMAGE])
    assert Places(of, NOVA).obstacle(0) == "section_without_checkpoints"
    assert Places(of, NOVA).obstacle(1) is None
    assert Places(of, NOVA).obstacle(2) == "only_after_text"
    assert Places(of, NOVA).obstacle(3) is None
    assert Places(of, replace(NOVA, explicit=False)).obstacle(0) == "model_without_checkpoints"


def test_a_section_refused_before_is_a_problem_but_no_obstacle() -> None:
    places = Places(prompt([REASONING], system=[100]), CLAUDE, ("messages",))
    assert (places.problem(0), places.problem(1)) == (None, "refused")
    assert (places.obstacle(0), places.obstacle(1)) == (None, "after_reasoning")


# -- moving to the nearest earlier place ---------------------------------------------------------


def test_a_checkpoint_moves_to_the_nearest_earlier_place() -> None:
    of = prompt([100, 100, REASONING, VIDEO])
    legal = settle(of, wanted(of, 3, "1h", marked=True, fixed=True))
    (point,) = legal.points
    # 4 tokens for the message and two texts
    assert (point.boundary, point.where.path, point.tokens, point.ttl) == (1, "messages[0].content[1]", 204, "1h")
    assert legal.warnings == (Repair("moved", "messages[0].content[3]", "after_video", to="messages[0].content[1]"),)
    assert legal.rejected == ()


def test_a_checkpoint_moves_across_messages_and_sections() -> None:
    of = prompt([PDF], system=[100])
    assert at(settle(of, wanted(of, 1))) == [(0, "5m")]


def test_a_cut_that_may_not_stand_moves_to_the_end_of_a_block() -> None:
    of = prompt([100, GUARD, two_parts(400)])
    cut = next(index for index, boundary in enumerate(of.boundaries) if boundary.offset is not None)
    (point,) = settle(of, wanted(of, cut)).points
    assert (point.boundary, point.offset, point.where.path) == (0, None, "messages[0].content[0]")
    free = prompt([100, two_parts(400)])
    assert settle(free, wanted(free, 1)).points == (wanted(free, 1),)


def test_where_there_is_no_earlier_place_it_is_left_out() -> None:
    of = prompt([PDF, TXT])
    mark, own = wanted(of, 1, marked=True), wanted(of, 0)
    legal = settle(of, mark, own)
    assert legal.points == ()
    assert legal.rejected == (
        Rejected("messages[0].content[1]", "after_document"), Rejected("messages[0].content[0]", "nothing_before"),
    )  # fmt: skip
    assert legal.warnings == (Repair("left_out", "messages[0].content[1]", "after_document"),)


def test_out_of_a_refused_section_it_moves_to_an_earlier_one() -> None:
    of = prompt([100], tools=[100], system=[100])
    assert at(settle(of, wanted(of, 2), left_out=("messages",))) == [(1, "5m")]
    assert at(settle(of, wanted(of, 2), left_out=("messages", "system"))) == [(0, "5m")]
    nowhere = settle(of, wanted(of, 2, marked=True), left_out=("messages", "system", "tools"))
    assert (nowhere.points, nowhere.rejected) == ((), (Rejected("messages[0].content[0]", "refused"),))
    assert nowhere.warnings == (Repair("left_out", "messages[0].content[0]", "refused"),)


def test_two_that_meet_are_one() -> None:
    of = prompt([100, REASONING, 100])
    legal = settle(of, wanted(of, 0, "1h", worth=3), wanted(of, 1, worth=7))
    assert [(point.boundary, point.ttl, point.worth) for point in legal.points] == [(0, "1h", 7)]


@pytest.mark.parametrize("order", [0, 1])
def test_of_a_mark_and_a_point_of_our_own_the_mark_stays(order: int) -> None:
    of = prompt([100])
    mark, own = wanted(of, 0, "5m", marked=True, worth=1), wanted(of, 0, "1h", worth=9)
    (point,) = settle(of, *((mark, own) if order else (own, mark))).points
    assert (point.marked, point.ttl, point.worth) == (True, "5m", 9)


def test_of_two_marks_at_a_place_the_longer_life_stays() -> None:
    of = prompt([100])
    both: tuple[TTL, ...] = ("5m", "1h")
    for ttls in permutations(both):
        assert at(settle(of, *(wanted(of, 0, ttl, marked=True) for ttl in ttls))) == [(0, "1h")]


def test_a_mark_first_in_its_list_is_warned_of_with_what_became_of_it() -> None:
    first = Mark(leading=True)
    of = prompt([first, 100], tools=[first, 100], system=[100, Mark()])
    assert settle(of).warnings == (
        Repair("left_out", "tools[0]", "first_in_list"),
        Repair("moved", "messages[0].content[0]", "first_in_list", to="system[0]"),
    )


# -- at most four --------------------------------------------------------------------------------


def test_over_the_cap_those_worth_most_stay_in_wire_order() -> None:
    of = prompt(system=SYSTEM)
    worth = {0: 50.0, 1: 10.0, 2: 40.0, 3: 20.0, 4: 30.0, 5: 60.0}
    legal = settle(of, *(wanted(of, boundary, worth=each) for boundary, each in worth.items()))
    assert [point.boundary for point in legal.points] == [0, 2, 4, 5]
    assert legal.rejected == (Rejected("system[3]", "over_cap", limit=4), Rejected("system[1]", "over_cap", limit=4))
    assert legal.warnings == ()


def test_of_equal_worth_the_longer_prefix_stays() -> None:
    of = prompt(system=SYSTEM)
    assert at(settle(of, *(wanted(of, boundary) for boundary in range(6)), cap=2)) == [(4, "5m"), (5, "5m")]


def test_marks_go_before_points_of_our_own() -> None:
    of = prompt(system=SYSTEM)
    marks = [wanted(of, boundary, marked=True, worth=1) for boundary in (0, 2)]
    legal = settle(of, wanted(of, 5, worth=99), wanted(of, 4, worth=50), *marks, cap=3)
    assert [point.boundary for point in legal.points] == [0, 2, 5]


def test_a_mark_over_the_cap_is_warned_of() -> None:
    of = prompt(system=SYSTEM)
    legal = settle(of, *(wanted(of, boundary, marked=True, worth=boundary) for boundary in range(3)), cap=2)
    assert [point.boundary for point in legal.points] == [1, 2]
    assert legal.warnings == (Repair("left_out", "system[0]", "over_cap", limit=2),)
    assert str(legal.warnings[0]).endswith("system[0] was left out: only 2 checkpoints may be sent and this one is "
                                           "worth least")  # fmt: skip


def test_the_cap_of_the_model_counts_too() -> None:
    of = prompt(system=SYSTEM)
    legal = settle(of, wanted(of, 0), wanted(of, 5), rule=replace(CLAUDE, max_checkpoints=1))
    assert at(legal) == [(5, "5m")]
    assert legal.rejected == (Rejected("system[0]", "over_cap", limit=1),)


# -- lifetimes -----------------------------------------------------------------------------------


def test_a_model_without_the_hour_gets_five_minutes_with_a_warning_for_marks() -> None:
    of = prompt(system=SYSTEM)
    legal = settle(of, wanted(of, 0, "1h"), wanted(of, 1, "1h", marked=True), rule=replace(CLAUDE, ttls=("5m",)))
    assert at(legal) == [(0, "5m"), (1, "5m")]
    assert legal.warnings == (Repair("lowered", "system[1]", "ttl_unknown", ttl="1h"),)


def test_five_minutes_before_an_hour_are_raised() -> None:
    of = prompt(system=SYSTEM)
    legal = settle(of, wanted(of, 0), wanted(of, 1), wanted(of, 2, "1h"), wanted(of, 3))
    assert at(legal) == [(0, "1h"), (1, "1h"), (2, "1h"), (3, "5m")]
    assert (legal.rejected, legal.warnings) == ((), ())


def test_a_live_five_minute_entry_is_not_written_anew_for_the_order() -> None:
    of = prompt(system=SYSTEM)
    legal = settle(of, wanted(of, 0), wanted(of, 1, "1h"), live={0: "5m"})
    assert (at(legal), legal.rejected) == ([(1, "1h")], (Rejected("system[0]", "shorter_live"),))
    assert at(settle(of, wanted(of, 0), wanted(of, 1, "1h"), live={0: "1h"})) == [(0, "1h"), (1, "1h")]
    # a mark is raised, whatever lives there
    assert at(settle(of, wanted(of, 0, marked=True), wanted(of, 1, "1h"), live={0: "5m"})) == [(0, "1h"), (1, "1h")]


def test_a_mark_raised_for_another_mark_is_warned_of() -> None:
    of = prompt(system=SYSTEM)
    ttls: tuple[TTL, ...] = ("5m", "5m", "1h")
    marks = [wanted(of, boundary, ttl, marked=True, fixed=True) for boundary, ttl in enumerate(ttls)]
    legal = settle(of, *marks)
    assert at(legal) == [(0, "1h"), (1, "1h"), (2, "1h")]
    assert legal.warnings == (Repair("raised", "system[1]", "ttl_order"), Repair("raised", "system[0]", "ttl_order"))


def test_a_mark_that_names_no_lifetime_is_raised_silently_for_our_own_hour() -> None:
    of = prompt(system=SYSTEM)
    legal = settle(of, wanted(of, 0, marked=True), wanted(of, 1, "1h"))
    assert (at(legal), legal.warnings) == ([(0, "1h"), (1, "1h")], ())


def test_five_minutes_the_user_wrote_are_not_raised_for_our_own_hour() -> None:
    of = prompt(system=SYSTEM)
    legal = settle(of, wanted(of, 0, "1h"), wanted(of, 1, marked=True, fixed=True), wanted(of, 2, "1h"))
    assert at(legal) == [(0, "1h"), (1, "5m"), (2, "5m")]
    hour = settle(of, wanted(of, 1, "1h", marked=True, fixed=True), wanted(of, 2, "1h"))
    assert at(hour) == [(1, "1h"), (2, "1h")]


# -- and all of it in time proportional to the request -------------------------------------------


def steps_of(work: Callable[[], object]) -> int:
    """How many lines, calls and returns of Python it takes, the second time."""
    work()
    count = 0

    def trace(*_: object) -> object:
        nonlocal count
        count += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)  # type: ignore[arg-type]
    try:
        work()
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize("block", [TXT, PDF, GUARD, REASONING, BLANK, Part(100, context=True), 100])
def test_planning_takes_time_in_proportion_to_the_blocks(block: Part | int) -> None:
    """Four times the blocks take four times as long; what looks at all before each would take sixteen times."""

    def work(blocks: int) -> int:
        of = prompt([100], [100], [block, *[block] * blocks])
        every_tenth = {index: 1 + index % 7 for index in range(0, blocks, 10)}
        by = view(of, visits=every_tenth)
        return steps_of(lambda: planned(of, by))

    assert work(2000) < 6 * work(500)


@pytest.mark.parametrize("block", [TXT, PDF])
def test_making_marks_legal_takes_time_in_proportion_to_them(block: Part) -> None:
    def work(marks: int) -> int:
        of = prompt([100, *[part for _ in range(marks) for part in (block, Mark())]], [100], [100])
        return steps_of(lambda: planned(of, view(of), policy=CachePolicy(mode="explicit")))

    assert work(1200) < 6 * work(300)
