"""Why a call read less than it could: each reason with its place, and the tokens lost worked out by hand.

Texts are so many tokens of the older Claude tokenizer (22 bytes are 5 of them), and a message costs 4 tokens more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from cachepoint.core.accounts.misses import IMAGES_HINT, SETTING_HINT, diagnose
from cachepoint.core.accounts.record import Miss, MissReason
from cachepoint.core.planning.plan import Checkpoint, Expected, Plan
from cachepoint.core.planning.reasons import Placed, Rejected
from cachepoint.core.prompt.builder import PromptBuilder
from cachepoint.core.prompt.prompt import IMAGES, Mark, Prompt, Where
from cachepoint.core.prompt.tokens import Calibration
from cachepoint.core.provider.rules import TTL, ModelRule
from cachepoint.core.provider.usage import Usage
from cachepoint.core.traffic.entries import Entry, Shape
from cachepoint.core.traffic.view import View

RULE = ModelRule(name="test", pattern=".", minimum=500)
NONE = Usage(input=1)
POINTS = Plan((Checkpoint(0, Where("tools", None, 0), None, "5m", 1000, Placed("marked"), path="tools[0]"),))
NOW = 1000.0

Texts = Sequence[str]


def words(tokens: int, letter: str = "a") -> str:
    """A text of so many tokens, in fives."""
    return letter * (tokens * 22 // 5)


TOOLS, SYSTEM = (words(1000, "t"),), (words(2000, "s"),)
TURNS = (words(500, "u"), words(500, "v"), words(500, "w"))
"""A question, its answer, a question."""


def prompt(
    tools: Texts = TOOLS,
    system: Texts = SYSTEM,
    turns: Texts = TURNS,
    settings: dict[str, dict[str, Any]] | None = None,
) -> Prompt:
    """Tools, system blocks, then user and assistant in turn with a block each."""
    build, set_ = PromptBuilder(b"key", "claude"), settings or {}
    build.section("tools", set_.get("tools", {}))
    for item, text in enumerate(tools):
        build.text(Where("tools", None, item), text, "tool")
    build.section("system", set_.get("system", {}))
    for item, text in enumerate(system):
        build.text(Where("system", None, item), text)
    build.section("messages", set_.get("messages", {}))
    for number, text in enumerate(turns):
        build.message("assistant" if number % 2 else "user")
        build.text(Where("messages", number, 0), text)
    return build.build()


def shape(of: Prompt, cached: float = 4000.0, ttl: TTL = "5m", used_at: float = NOW) -> Shape:
    """What is remembered of a request: by default 4,000 tokens of it were cached just now."""
    return Shape(
        tuple(of.end(block).digest for block in range(len(of.blocks))), tuple(block.size for block in of.blocks),
        (of.tools_end, of.system_end), of.settings, cached, ttl, used_at,
    )  # fmt: skip


def found(
    request: Prompt, view: View, plan: Plan = POINTS, usage: Usage = NONE, rule: ModelRule | None = RULE
) -> tuple[MissReason, str, int] | None:
    miss = diagnose(request, plan, view, usage, rule, NOW)
    return None if miss is None else (miss.reason, miss.path, miss.lost_tokens)


def changed(before: Prompt, now: Prompt, **cached: Any) -> tuple[MissReason, str, int] | None:
    """The miss of a request after another."""
    return found(now, View(recent=(shape(before, **cached),)), usage=Usage(input=1, cache_write_5m=4000))


def entries(request: Prompt, *blocks: int, **values: Any) -> dict[bytes, Entry]:
    """Entries at the ends of blocks."""
    return {request.end(block).digest: Entry("5m", **{"used_at": NOW, **values}) for block in blocks}


def reading(request: Prompt, block: int, tokens: float, *, exact: bool = False) -> Plan:
    """A plan that expects to read up to the end of a block."""
    return replace(POINTS, expected=Expected(tokens, exact, request.ends[block], "5m"))


# -- what was expected and did not come -----------------------------------------------------------


@pytest.mark.parametrize(
    ("exact", "read", "lost"),
    [
        (True, 2940, None),  # 2% may be missing of a size that usage told
        (True, 2939, 61),
        (False, 2250, None),  # a quarter of one that was estimated
        (False, 2249, 751),
        (False, 0, 3000),
    ],
)
def test_an_expected_read_that_falls_short_was_evicted(exact: bool, read: int, lost: int | None) -> None:
    request = prompt()
    miss = found(request, View(), reading(request, 1, 3000, exact=exact), Usage(cache_read=read))
    assert miss == (None if lost is None else ("evicted_or_rerouted", "system[0]", lost))


def test_an_eviction_is_named_whatever_is_known_of_the_model() -> None:
    request = prompt()
    miss = found(request, View(), reading(request, 0, 1000), rule=None)
    assert miss == ("evicted_or_rerouted", "tools[0]", 1000)


@pytest.mark.parametrize("rule", [None, replace(RULE, explicit=False)])
def test_a_model_that_takes_no_checkpoints_misses_nothing(rule: ModelRule | None) -> None:
    request = prompt()
    assert found(request, View(entries=entries(request, 1)), rule=rule) is None


# -- entries that are there, or were --------------------------------------------------------------


@pytest.mark.parametrize(
    ("plan", "readable", "reason"),
    [(POINTS, True, "lookback"), (Plan(), True, "not_marked"), (POINTS, False, "concurrent_write")],
)
def test_the_deepest_entry_that_was_not_read_tells_why(plan: Plan, readable: bool, reason: MissReason) -> None:
    """The entry at the system prompt's end, 1,000 + 2,000 tokens in; those at 1,000 and nowhere do not count."""
    request = prompt()
    alive = {**entries(request, 0), **entries(request, 1, readable=readable), b"elsewhere": Entry("5m", NOW)}
    assert found(request, View(entries=alive), plan) == (reason, "system[0]", 3000)


def test_an_entry_may_end_with_the_prompt() -> None:
    request = prompt()
    assert found(request, View(entries=entries(request, 4))) == ("lookback", "messages[2].content[0]", 4512)
    assert found(request, View(lapsed=entries(request, 4, used_at=0.0))) == ("expired", "messages[2].content[0]", 4512)


def test_lost_tokens_are_calibrated() -> None:
    """3,000 tokens where exact totals were 1.2 times the estimate."""
    request = prompt()
    view = View(entries=entries(request, 1), calibration=Calibration(1.2, 0.0, 5.0))
    assert found(request, view) == ("lookback", "system[0]", 3600)
    lapsed = View(lapsed=entries(request, 1, used_at=0.0), calibration=Calibration(1.2, 0.0, 5.0))
    assert found(request, lapsed) == ("expired", "system[0]", 3600)


@pytest.mark.parametrize(("age", "over"), [(300, True), (299, False)])
def test_an_entry_whose_time_is_over_has_expired(age: float, over: bool) -> None:
    request = prompt()
    miss = found(request, View(lapsed=entries(request, 0, 2, used_at=NOW - age)), Plan())
    assert miss == (("expired", "messages[0].content[0]", 3504) if over else None)


def test_another_model_has_the_prefix() -> None:
    """All of 1,000 + 2,000 + 3 x 504 tokens."""
    assert found(prompt(), View(other_scope=True)) == ("model_changed", "", 4512)


def test_of_several_reasons_the_nearest_to_a_read_is_named() -> None:
    request, other = prompt(), prompt(tools=(words(1000, "x"),))
    view = View(
        entries=entries(request, 0), lapsed=entries(request, 1, used_at=0.0), other_scope=True, recent=(shape(other),)
    )
    reasons = []
    for each in (
        view, replace(view, entries={}), replace(view, entries={}, lapsed={}),
        replace(view, entries={}, lapsed={}, other_scope=False), View(),
    ):  # fmt: skip
        miss = found(request, each)
        reasons.append(miss and miss[0])
    assert reasons == ["lookback", "expired", "model_changed", "tools_changed", "below_minimum"]


# -- a prompt that changed ------------------------------------------------------------------------


def test_a_changed_block_loses_what_was_cached_from_it_on() -> None:
    """4,000 tokens were cached: all are lost with the tool, 3,000 with the system prompt behind it, 496 with the answer
    behind 1,000 + 2,000 + 504."""
    before = prompt()
    assert changed(before, prompt(tools=(words(1000, "x"),))) == ("tools_changed", "tools[0]", 4000)
    assert changed(before, prompt(system=(words(2000, "x"),))) == ("system_changed", "system[0]", 3000)
    answered = prompt(turns=(TURNS[0], words(500, "x"), TURNS[2]))
    assert changed(before, answered, cached=4100) == ("messages_changed", "messages[1].content[0]", 596)


def test_no_more_is_lost_than_this_prompt_has() -> None:
    """The prompt has 4,512 tokens, 1,000 of them shared."""
    miss = changed(prompt(), prompt(system=(words(2000, "x"),)), cached=9000)
    assert miss == ("system_changed", "system[0]", 3512)


def test_the_shared_part_is_calibrated() -> None:
    """At 1.5 times the estimate 1,500 tokens are shared, of 6,768 in all."""
    view = View(recent=(shape(prompt(), cached=9000),), calibration=Calibration(1.5, 0.0, 5.0))
    assert found(prompt(system=(words(2000, "x"),)), view) == ("system_changed", "system[0]", 5268)


def test_the_same_prompt_and_a_longer_one_changed_nothing() -> None:
    longer = prompt(turns=(*TURNS, words(500), words(500)))
    assert [changed(prompt(), now) for now in (prompt(), longer)] == [None, None]
    assert changed(longer, prompt()) is None


@pytest.mark.parametrize(
    ("bytes_more", "is_the_same"), [(0, True), (179, True), (180, False), (-176, True), (-177, False)]
)
def test_a_block_of_about_its_size_is_the_same_one_edited(bytes_more: int, is_the_same: bool) -> None:
    """2% of the larger of the two: 0.02 x 8,979 = 179.58 and 0.02 x 8,980 = 179.6; of 8,800 it is 176."""
    now = prompt(system=("x" * (8800 + bytes_more),))
    assert (changed(prompt(), now) is not None) is is_the_same


@pytest.mark.parametrize(("bytes_more", "is_the_same"), [(64, True), (65, False), (-64, True), (-65, False)])
def test_a_small_block_may_change_by_64_bytes(bytes_more: int, is_the_same: bool) -> None:
    before = prompt(system=("s" * 200, words(1000)))
    now = prompt(system=("x" * (200 + bytes_more), words(1000)))
    assert (changed(before, now) is not None) is is_the_same


def test_another_first_question_is_another_conversation() -> None:
    assert changed(prompt(), prompt(turns=(words(500, "x"), *TURNS[1:]))) is None


def test_a_prompt_of_one_block_is_never_a_changed_one() -> None:
    before, now = (prompt((), (words(2000, letter),), ()) for letter in "sx")
    assert changed(before, now) is None


@pytest.mark.parametrize(
    ("turns", "known"),
    [
        # The answer that was there follows the question that is another one now.
        ((TURNS[0], TURNS[1], words(900, "x"), TURNS[1], TURNS[2]), True),
        # The same with a question and an answer less between them: what follows is a question.
        ((TURNS[0], TURNS[1], words(900, "x"), words(900, "y"), TURNS[2]), False),
    ],
)
def test_a_turn_of_another_size_is_a_change_where_the_same_answer_follows(turns: Texts, known: bool) -> None:
    before = prompt(turns=(TURNS[0], TURNS[1], words(300), TURNS[1], TURNS[2]))
    miss = changed(before, prompt(turns=turns), cached=5000)
    # 1,000 + 2,000 + 2 x 504 are shared of 5,000.
    assert miss == (("messages_changed", "messages[2].content[0]", 992) if known else None)


LONG, OTHER = words(900, "l"), words(700, "o")


def test_a_turn_put_in_or_taken_out_is_a_change() -> None:
    """Behind the first question, 3,504 tokens in, of 5,000 that were cached."""
    whole = prompt(turns=(TURNS[0], LONG, OTHER, TURNS[1], TURNS[2], words(100)))
    without = prompt(turns=(TURNS[0], OTHER, TURNS[1], TURNS[2], words(100)))
    assert changed(whole, without, cached=5000) == ("messages_changed", "messages[1].content[0]", 1496)
    assert changed(without, whole, cached=5000) == ("messages_changed", "messages[1].content[0]", 1496)


def test_an_answer_of_a_few_bytes_does_not_tell() -> None:
    """127 bytes follow in the sizes they had, which any conversation might have; 128 tell."""
    for size, known in ((63, False), (64, True)):
        turns = ("u" * 64, "v" * size)
        before, now = (prompt(turns=(TURNS[0], TURNS[1], middle, *turns[::-1])) for middle in (LONG, OTHER))
        assert (changed(before, now) is not None) is known


# -- tools and system prompts that come and go ----------------------------------------------------


def test_tools_that_come_or_go_before_the_same_system_prompt_are_named() -> None:
    two, one, none = prompt(tools=(*TOOLS, words(600))), prompt(), prompt(tools=())
    assert changed(one, two) == ("tools_changed", "tools[1]", 3000)
    assert changed(two, one) == ("tools_changed", "tools", 3000)
    assert changed(none, one) == ("tools_changed", "tools[0]", 4000)
    assert changed(one, none) == ("tools_changed", "tools", 3512)  # all that is left of the prompt


def test_tools_before_another_system_prompt_are_another_agent() -> None:
    assert changed(prompt(), prompt(tools=(*TOOLS, words(600)), system=(words(900, "x"),))) is None
    assert changed(prompt(), prompt(tools=(*TOOLS, words(600)), system=(*SYSTEM, words(900, "x")))) is None


def test_without_a_system_prompt_the_same_messages_tell() -> None:
    one, two = (prompt(tools=tools, system=()) for tools in (TOOLS, (*TOOLS, words(600))))
    assert changed(one, two, cached=2000) == ("tools_changed", "tools[1]", 1000)
    other = prompt(tools=(*TOOLS, words(600)), system=(), turns=(words(300, "x"),))
    assert changed(one, other, cached=2000) is None


def test_a_system_prompt_that_came_or_went_is_another_kind_of_call() -> None:
    assert changed(prompt(system=()), prompt(), cached=2000) is None


# -- which request it is compared with ------------------------------------------------------------


@pytest.mark.parametrize(
    ("ttl", "age", "compared"),
    [("5m", 0, True), ("5m", 299, True), ("5m", 300, False), ("1h", 300, True), ("1h", 3600, False), ("5m", -1, False)],
)
def test_only_a_request_whose_entry_still_lives_is_compared(ttl: TTL, age: float, compared: bool) -> None:
    miss = changed(prompt(), prompt(system=(words(2000, "x"),)), ttl=ttl, used_at=NOW - age)
    assert (miss is not None) is compared


def test_a_request_of_which_nothing_was_cached_is_not_compared() -> None:
    assert changed(prompt(), prompt(system=(words(2000, "x"),)), cached=0.0) is None


def test_the_newest_request_of_the_same_kind_is_compared() -> None:
    """The newest is another agent's; of the other two, which differ in the tool and in the system prompt, the later."""
    now = prompt()
    tool, system, agent = (
        prompt(tools=(words(1000, "x"),)), prompt(system=(words(2000, "x"),)), prompt(system=(words(900, "x"),)),
    )  # fmt: skip
    view = View(recent=(shape(tool), shape(system), shape(agent)))
    assert found(now, view) == ("system_changed", "system[0]", 3000)


# -- beside a read --------------------------------------------------------------------------------


def test_what_was_read_is_not_lost() -> None:
    """1,000 were read and 3,000 of the cached 4,000 are not; the tool is what both share."""
    now, before = prompt(system=(words(2000, "x"),)), prompt()
    view = View(recent=(shape(before),))
    plan = reading(now, 0, 1000)
    assert found(now, view, plan, Usage(cache_read=1000)) == ("system_changed", "system[0]", 3000)
    assert found(now, view, plan, Usage(cache_read=1200)) == ("system_changed", "system[0]", 2800)


def test_a_request_that_parts_before_the_end_of_what_was_read_is_no_change() -> None:
    now, before = prompt(system=(words(2000, "x"),)), prompt()
    assert found(now, View(recent=(shape(before),)), reading(now, 1, 3000), Usage(cache_read=3000)) is None


@pytest.mark.parametrize(("cached", "lost"), [(1500, 500), (1499, None)])
def test_beside_a_read_a_loss_below_the_minimum_says_nothing(cached: float, lost: int | None) -> None:
    now, before = prompt(system=(words(2000, "x"),)), prompt()
    miss = found(now, View(recent=(shape(before, cached=cached),)), reading(now, 0, 1000), Usage(cache_read=1000))
    assert miss == (None if lost is None else ("system_changed", "system[0]", lost))


def test_without_a_read_a_small_loss_is_one() -> None:
    assert changed(prompt(), prompt(system=(words(2000, "x"),)), cached=1499) == ("system_changed", "system[0]", 499)


def test_a_read_that_was_not_planned_is_compared_all_the_same() -> None:
    """1,000 read where nothing was expected: other reasons than a change do not count."""
    now = prompt(system=(words(2000, "x"),))
    view = View(entries=entries(now, 1), recent=(shape(prompt()),))
    assert found(now, view, usage=Usage(cache_read=1000)) == ("system_changed", "system[0]", 3000)


# -- settings -------------------------------------------------------------------------------------


def with_setting(section: str, path: str, value: Any) -> Prompt:
    return prompt(settings={section: {path: value}})


@pytest.mark.parametrize(
    ("section", "reason", "lost"),
    [("tools", "tools_changed", 4000), ("system", "system_changed", 3000), ("messages", "messages_changed", 1200)],
)
def test_a_setting_that_changed_is_named_in_place_of_the_blocks(section: str, reason: MissReason, lost: int) -> None:
    """Of 4,000 cached (4,200 for the messages, which begin at 3,000) what lies behind the section's start is lost."""
    cached = 4200 if section == "messages" else 4000
    before, now = (with_setting(section, "thinking", value) for value in (1, 2))
    assert changed(before, now, cached=cached) == (reason, "thinking", lost)


@pytest.mark.parametrize("values", [(None, 1), (1, None)])
def test_a_setting_that_came_or_went_is_named_where_it_was_set(values: tuple[Any, Any]) -> None:
    before, now = (with_setting("system", "thinking", value) for value in values)
    assert changed(before, now) == ("system_changed", "thinking", 3000)


@pytest.mark.parametrize(("path", "hint"), [("thinking", SETTING_HINT), (IMAGES, IMAGES_HINT)])
def test_a_setting_has_a_hint_of_its_own(path: str, hint: str) -> None:
    before, now = (with_setting("system", path, value) for value in (1, 2))
    miss = diagnose(now, POINTS, View(recent=(shape(before),)), NONE, RULE, NOW)
    assert miss == Miss("system_changed", path, 3000, hint)


def test_a_setting_of_a_later_section_does_not_explain_an_earlier_difference() -> None:
    before = with_setting("messages", "toolChoice", 1)
    now = prompt(system=(words(2000, "x"),), settings={"messages": {"toolChoice": 2}})
    assert changed(before, now) == ("system_changed", "system[0]", 3000)


def test_a_setting_of_a_prompt_with_other_blocks_is_another_kind_of_call() -> None:
    """Other sizes in tools and system, or a conversation of another kind behind them."""
    before = with_setting("system", "thinking", 1)
    other_system = prompt(system=(words(900, "x"),), settings={"system": {"thinking": 2}})
    assert changed(before, other_system) is None
    other_tools = prompt(tools=(*TOOLS, words(600)), system=(words(900),), settings={"system": {"thinking": 2}})
    assert changed(before, other_tools) is None
    before_messages = with_setting("messages", "toolChoice", 1)
    other_talk = prompt(turns=(words(900, "x"),), settings={"messages": {"toolChoice": 2}})
    assert changed(before_messages, other_talk, cached=4400) is None


def test_a_setting_explains_messages_that_go_on() -> None:
    """The last block alone is another one: 3,000 + 2 x 504 tokens are of the sizes they had, and 1,008 of them lost."""
    before = with_setting("messages", "toolChoice", 1)
    now = prompt(turns=(*TURNS[:2], words(900, "x")), settings={"messages": {"toolChoice": 2}})
    assert changed(before, now, cached=4400) == ("messages_changed", "toolChoice", 1008)


def test_a_setting_before_other_messages_loses_what_they_share() -> None:
    """The tool's 1,000 are the same bytes; the system prompt's 2,000 only have their size; the question is another."""
    before = with_setting("system", "thinking", 1)
    now = prompt(turns=(words(900, "x"),), settings={"system": {"thinking": 2}})
    assert changed(before, now) == ("system_changed", "thinking", 2000)


@pytest.mark.parametrize("turns", [TURNS[:1], (TURNS[0], words(300, "x"))])
def test_a_setting_explains_a_first_question_that_goes_on(turns: Texts) -> None:
    """The question of 504 tokens has its size, and all that the shorter of the two has besides is its last block."""
    before = prompt(turns=turns, settings={"messages": {"toolChoice": 1}})
    now = with_setting("messages", "toolChoice", 2)
    assert changed(before, now, cached=4400) == ("messages_changed", "toolChoice", 504)


@pytest.mark.parametrize(("before", "now", "named"), [(1, None, "there"), (None, 1, "here"), (1, 2, "here")])
def test_a_setting_is_named_by_the_place_it_was_set_at(before: Any, now: Any, named: str) -> None:
    """The same setting may be set in two places of a request."""
    miss = changed(with_setting("system", "there", before), with_setting("system", "here", now))
    assert miss == ("system_changed", named, 3000)


def test_another_setting_with_a_loss_below_the_minimum_says_nothing() -> None:
    """At the minimum of 500 tokens the loss is one: 1,500 cached, of which 1,000 lie before the section."""
    before, now = (with_setting("system", "thinking", value) for value in (1, 2))
    assert changed(before, now, cached=1500) == ("system_changed", "thinking", 500)
    assert changed(before, now, cached=1499) is None


# -- too small ------------------------------------------------------------------------------------


def test_checkpoints_at_which_nothing_was_written_are_below_the_minimum() -> None:
    assert found(prompt(), View(), usage=Usage(input=9)) == ("below_minimum", "tools[0]", 0)
    assert found(prompt(), View(), usage=Usage(cache_write_1h=9)) is None
    assert found(prompt(), View(), Plan()) is None


def test_the_last_checkpoint_is_named() -> None:
    plan = Plan((*POINTS.checkpoints, replace(POINTS.checkpoints[0], path="system[0]")))
    assert found(prompt(), View(), plan) == ("below_minimum", "system[0]", 0)


SMALL, BLANK = Rejected("system[0]", "below_minimum"), Rejected("system[1]", "after_blank_text")


@pytest.mark.parametrize(
    ("marked", "plan", "named"),
    [
        (True, Plan(rejected=(SMALL, SMALL._replace(path="tools[0]"), BLANK)), "tools[0]"),
        (True, Plan(rejected=(BLANK,)), None),
        (False, Plan(rejected=(SMALL,)), None),
    ],
)
def test_a_users_checkpoint_too_early_is_below_the_minimum(marked: bool, plan: Plan, named: str | None) -> None:
    request = prompt()
    if marked:
        request = replace(request, marks=(Mark(Where("system", None, 1), 1, "5m"),))
    assert found(request, View(), plan) == (None if named is None else ("below_minimum", named, 0))


def test_an_early_checkpoint_beside_a_good_one_is_no_miss() -> None:
    request = replace(prompt(), marks=(Mark(Where("system", None, 1), 1, "5m"),))
    assert found(request, View(), replace(POINTS, rejected=(SMALL,)), Usage(cache_write_5m=9)) is None
