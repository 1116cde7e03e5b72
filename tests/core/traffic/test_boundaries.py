"""What each boundary of a prompt is, read off blocks of made-up sizes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cachepoint.core.prompt.prompt import Block, Boundary, Prompt, Where
from cachepoint.core.traffic.boundaries import ROLE_NAMES, STUFFED, role, roles, steps, turn_before
from cachepoint.core.traffic.kinds import FIRST_KINDS, Role

TOOL = Block(Where("tools", None, 0), "tool", None, 1, 10.0)
SYSTEM = Block(Where("system", None, 0), "text", None, 1, 20.0)


def user(message: int, tokens: float = 5.0, item: int = 0, *, context: bool = False) -> Block:
    return Block(Where("messages", message, item), "text", "user", 1, tokens, context=context)


def assistant(message: int, tokens: float = 5.0, item: int = 0) -> Block:
    return Block(Where("messages", message, item), "text", "assistant", 1, tokens)


def result(message: int) -> Block:
    return Block(Where("messages", message, 0), "tool_result", "user", 1, 5.0)


def digest(boundary: int) -> bytes:
    return bytes([boundary]) * 16


def prompt(*blocks: Block, previous_end: int = -1, history_end: int = -1) -> Prompt:
    """Blocks with a boundary at each end; sections, and turns, as the blocks tell."""
    totals = [sum(block.tokens for block in blocks[: index + 1]) for index in range(len(blocks))]
    sections = [block.where.section for block in blocks]
    return Prompt(
        blocks=blocks,
        boundaries=tuple(Boundary(index, None, digest(index), tokens) for index, tokens in enumerate(totals)),
        ends=tuple(range(len(blocks))),
        marks=(),
        tokens=totals[-1] if totals else 0.0,
        tokenizer="claude",
        tools_end=sections.count("tools") - 1,
        system_end=sections.count("tools") + sections.count("system") - 1 if "system" in sections else -1,
        history_end=history_end,
        previous_end=previous_end,
        has_turns=any(block.role == "assistant" for block in blocks),
    )


def tail(*blocks: Block) -> Role:
    return roles(prompt(*blocks))[len(blocks) - 1]


def test_the_ends_of_tools_system_context_history_and_tail_are_named() -> None:
    found = roles(prompt(TOOL, SYSTEM, user(0, context=True), user(0, item=1), assistant(1), user(2), history_end=4))
    assert found == {0: "tools_end", 1: "system_end", 2: "context_end", 4: "history_end", 5: "tail_turns"}


def test_a_prompt_without_tools_system_or_turns_has_only_a_tail() -> None:
    assert roles(prompt(user(0))) == {0: "tail_single"}
    assert roles(prompt(user(0), user(0, item=1), history_end=0)) == {1: "tail_single"}
    assert roles(prompt(SYSTEM)) == {0: "system_end"}
    assert roles(prompt()) == {}


def test_a_first_question_is_single_until_an_answer_stands_before_it() -> None:
    assert tail(user(0)) == "tail_single"
    assert tail(SYSTEM, user(0), assistant(1)) == "tail_single"  # a prefilled answer comes after the question
    assert tail(user(0), assistant(1), user(2)) == "tail_turns"


def test_a_tail_of_tool_results_is_an_agents() -> None:
    assert tail(user(0), assistant(1), result(2)) == "tail_tools"


@pytest.mark.parametrize(("last", "found"), [(4 * 9.0, "tail_turns"), (4 * 9.0 + 1, "tail_stuffed")])
def test_a_last_message_more_than_four_times_any_before_it_is_stuffed(last: float, found: Role) -> None:
    assert STUFFED == 4
    # the message before has two blocks, of 5 and 4 tokens; the answer's 100 don't count
    assert tail(user(0, 5.0), user(0, 4.0, 1), assistant(1, 100.0), user(2, last - 1), user(2, 1.0, 1)) == found


def test_documents_put_in_for_a_turn_come_back_within_it_where_tools_may_be_called() -> None:
    assert tail(user(0), assistant(1), user(2, 1_000.0)) == "tail_stuffed"
    assert tail(TOOL, user(0), assistant(1), user(2, 1_000.0)) == "tail_turns"


def test_a_conversation_that_an_answer_begins_has_nothing_to_be_stuffed_against() -> None:
    assert tail(assistant(0), user(1, 1_000.0)) == "tail_turns"


def test_other_boundaries_are_block_ends_or_cuts_inside_text() -> None:
    made = prompt(user(0), user(0, item=1))
    cut = Boundary(1, 7, b"c" * 16, 7.0)
    made = replace(made, boundaries=(made.boundaries[0], cut, made.boundaries[1]), ends=(0, 2))
    named = roles(made)
    assert [role(named, made, boundary) for boundary in range(3)] == ["inner", "cut", "tail_single"]
    assert [step.role for step in steps(made)] == ["inner", "cut", "tail_single"]


def test_steps_carry_digests_sizes_and_where_the_request_before_ended() -> None:
    made = prompt(SYSTEM, user(0), assistant(1), user(2), previous_end=1, history_end=2)
    found = steps(made)
    assert [step.digest for step in found] == [digest(index) for index in range(4)]
    assert [step.tokens for step in found] == [20.0, 25.0, 30.0, 35.0]
    # history and tail grow from the request before, which had 25 tokens; the system prompt does not
    assert [step.before for step in found] == [0.0, 0.0, 25.0, 25.0]
    assert all(step.before == 0 for step in steps(replace(made, previous_end=-1)))


def test_a_request_before_that_ended_with_the_first_block_is_one_too() -> None:
    made = prompt(user(0), assistant(1), user(2), previous_end=0, history_end=1)
    assert [step.before for step in steps(made)] == [0.0, 5.0, 5.0]


def test_the_request_before_is_known_from_the_second_answer_on() -> None:
    blocks = (SYSTEM, user(0, 6.0), assistant(1, 7.0), user(2, 8.0), assistant(3, 9.0), user(4))
    before = turn_before(prompt(*blocks, previous_end=3, history_end=4))
    assert before is not None
    # its tail was the end of message 2, at 20 + 6 + 7 + 8; its history that of message 1; it grew from message 0
    assert before.tail == (digest(3), "tail_turns", 41.0, 26.0)
    assert before.history == digest(2)


def test_the_request_before_grew_from_all_that_stood_before_its_answer() -> None:
    blocks = (user(0, 6.0), assistant(1, 7.0), user(2, 8.0), user(2, 1.0, 1), assistant(3, 9.0), user(4))
    before = turn_before(prompt(*blocks, previous_end=3, history_end=4))
    assert before is not None
    assert before.tail == (digest(3), "tail_turns", 22.0, 6.0)


def test_a_first_request_of_a_conversation_has_none_before_it() -> None:
    assert turn_before(prompt(SYSTEM, user(0))) is None
    assert turn_before(prompt(SYSTEM, user(0), assistant(1), user(2), previous_end=1)) is None
    assert turn_before(prompt(assistant(0), user(1), assistant(2), user(3), previous_end=1)) is None


def test_every_role_has_a_name_and_curves_of_its_own() -> None:
    assert set(ROLE_NAMES) == set(FIRST_KINDS)
    assert len(set(ROLE_NAMES.values())) == 10
