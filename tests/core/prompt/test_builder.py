"""A request fed block by block: what each block counts for, where it ends, and what its digest covers.

Tokens are worked out with the older Claude tokenizer: 4.4 bytes a token of text, 3.2 of JSON, 4 tokens a message.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachepoint.core.prompt.builder import PromptBuilder, cuts_of, wire_bytes
from cachepoint.core.prompt.prompt import Hint, Mark, Media, Prompt, Setting, Where
from cachepoint.core.provider.rules import Section

SYSTEM = Where("system", None, 0)
LINES = ("x" * 99 + "\n") * 30


def builder(**settings: Any) -> PromptBuilder:
    return PromptBuilder(b"key", "claude", **settings)


def said(message: int, item: int = 0) -> Where:
    return Where("messages", message, item)


def conversation(*roles: str, system: bool = True, tools: bool = True) -> Prompt:
    """A tool, a system block, and one text block a message."""
    build = builder()
    if tools:
        build.section("tools", {})
        build.data(Where("tools", None, 0), {"name": "search"}, "tool")
    if system:
        build.section("system", {})
        build.text(SYSTEM, "Be brief.")
    build.section("messages", {})
    for number, role in enumerate(roles):
        build.message(role)
        build.text(said(number), f"message {number}")
    return build.build()


# -- cuts -----------------------------------------------------------------------------------------


def test_a_text_is_cut_behind_a_paragraph_else_a_line_else_a_sentence() -> None:
    """From 0 between 256 and 768: the paragraph's end at 300, 302 with its two characters. From there between 558 and
    1,070: the line's end at 904 although a sentence ends at 602. From 905 only 300 are left, without any end."""
    text = "a" * 300 + "\n\n" + "b" * 300 + ". " + "c" * 300 + "\n" + "d" * 300
    assert list(cuts_of(text)) == [302, 905]
    assert list(cuts_of("a" * 300 + ". " + "b" * 300)) == [302]


def test_cuts_are_at_least_256_characters_apart() -> None:
    """Lines end at 100, 200, …: the first end at 256 or more behind the last cut is 300 on."""
    assert list(cuts_of(LINES)) == list(range(300, 2701, 300))


def test_cuts_of_a_long_prompt_are_a_128th_of_it_apart() -> None:
    """Behind 64,000 bytes: 500 to 600, then (64,600 // 128 =) 504 to 1,200, 509 to 1,800, 514 to 2,400."""
    assert list(cuts_of(LINES, 64_000)) == [600, 1200, 1800, 2400]


def test_a_stretch_without_any_end_is_passed_over() -> None:
    """Nothing ends between 256 and 768; from there the line's end at 1,100 lies between 1,024 and 1,536. One at 1,000
    lies in neither."""
    assert list(cuts_of("x" * 1100 + "\n" + "y" * 600)) == [1101]
    assert list(cuts_of("x" * 1000 + "\n" + "y" * 600)) == []


def test_a_cut_is_behind_the_space_that_follows_an_end() -> None:
    assert list(cuts_of("x" * 300 + "\n\n \n  " + "y" * 300)) == [306]


def test_space_before_and_behind_a_text_is_not_cut_at() -> None:
    """Without its 200 spaces the text begins at 200, and its first cut is at 200 + 300."""
    assert list(cuts_of(" " * 200 + LINES[:700])) == [500, 800]
    assert list(cuts_of("x" * 300 + "\n" * 50)) == []
    assert list(cuts_of("")) == []


@given(
    st.lists(st.sampled_from(["word", "long " * 60, "\n", "\n\n", ". ", "é" * 200]), max_size=30), st.integers(0, 10**6)
)
def test_cuts_lie_inside_the_text_and_apart(parts: list[str], before: int) -> None:
    text = "".join(parts)
    cuts = list(cuts_of(text, before))
    assert all(not text[cut].isspace() and text[cut - 1].isspace() for cut in cuts)
    assert all(later - cut > max(256, (before + cut) // 128) for cut, later in pairwise([0, *cuts]))
    assert not cuts or cuts[-1] < len(text.rstrip())


def cut_up(text: str, **settings: Any) -> Prompt:
    build = builder(**settings)
    build.text(SYSTEM, text, splittable=True)
    return build.build()


def test_a_cut_has_the_tokens_up_to_it_and_its_place() -> None:
    """300 bytes a cut are 300 / 4.4 tokens; an é is two bytes, so that 300 of them are 600 / 4.4."""
    prompt = cut_up(LINES)
    assert [cut.offset for cut in prompt.boundaries] == [*range(300, 2701, 300), None]
    assert [cut.tokens for cut in prompt.boundaries] == pytest.approx([count / 4.4 for count in range(300, 3001, 300)])
    assert {cut.block for cut in prompt.boundaries} == {0}
    assert prompt.ends == (9,)
    wide = cut_up("é" * 299 + "\n" + "é" * 800)
    assert wide.boundaries[0].offset == 300
    assert wide.boundaries[0].tokens == pytest.approx(599 / 4.4)


def test_cuts_count_what_came_before_their_block() -> None:
    build = builder()
    build.section("system", {}, fixed_tokens=50.0)
    build.text(SYSTEM, "four")
    build.text(Where("system", None, 1), LINES, splittable=True)
    prompt = build.build()
    first = prompt.boundaries[1]
    assert (first.block, first.offset) == (1, 300)
    assert first.tokens == pytest.approx(50 + 4 / 4.4 + 300 / 4.4)


def test_the_size_of_the_prompt_before_a_block_spreads_its_cuts() -> None:
    """Behind 64,000 bytes, as worked out above."""
    build = builder()
    build.text(SYSTEM, "x" * 64_000)
    build.text(Where("system", None, 1), LINES, splittable=True)
    assert [cut.offset for cut in build.build().boundaries] == [None, 600, 1200, 1800, 2400, None]


@pytest.mark.parametrize(("before", "cut"), [(32_895, True), (32_896, False)])
def test_every_byte_before_a_block_counts(before: int, cut: bool) -> None:
    """From 257 x 128 = 32,896 bytes on a cut is 257 characters away, and the line that ends at 256 is too near."""
    build = builder()
    build.text(SYSTEM, "x" * before)
    build.text(Where("system", None, 1), "x" * 256 + "\n" + "y" * 1000, splittable=True)
    assert (build.build().boundaries[1].offset == 257) is cut


def test_only_long_texts_that_may_be_split_are_cut() -> None:
    assert len(cut_up(LINES[:1024]).boundaries) == 1
    assert len(cut_up(LINES[:1025]).boundaries) == 4
    assert len(cut_up(LINES, cut_text=False).boundaries) == 1
    whole = builder()
    whole.text(SYSTEM, LINES)
    assert len(whole.build().boundaries) == 1


def test_a_cut_changes_no_digest_and_is_shared_by_texts_that_begin_alike() -> None:
    cut, whole, other = cut_up(LINES), cut_up(LINES, cut_text=False), cut_up(LINES[:2000] + "y" * 500)
    assert cut.end(0).digest == whole.end(0).digest
    assert [each.digest for each in cut.boundaries[:6]] == [each.digest for each in other.boundaries[:6]]
    assert len({each.digest for each in cut.boundaries}) == 10
    assert {len(each.digest) for each in cut.boundaries} == {16}


# -- blocks ---------------------------------------------------------------------------------------


def test_a_text_counts_its_bytes() -> None:
    """ "né" is 3 bytes, and 3 / 4.4 tokens; the lone surrogate that JSON may carry is 3 bytes more."""
    build = builder()
    build.text(SYSTEM, "né")
    build.text(Where("system", None, 1), "\ud800")
    blocks = build.build().blocks
    assert [block.size for block in blocks] == [3, 3]
    assert [block.kind for block in blocks] == ["text", "text"]
    assert blocks[0].tokens == pytest.approx(3 / 4.4)


@pytest.mark.parametrize(
    ("text", "blank"),
    [("", True), (" \n\t", True), (" " * 300, True), ("a", False), (" " * 100 + "a", False), (" " * 300 + "a", False)],
)
def test_a_text_of_space_is_blank(text: str, blank: bool) -> None:
    build = builder()
    build.text(SYSTEM, text)
    assert build.build().blocks[0].blank is blank


def test_data_counts_its_json() -> None:
    """{"a":1} is 7 bytes, and 7 / 3.2 tokens."""
    build = builder()
    build.data(SYSTEM, {"a": 1}, "tool_use")
    build.data(Where("system", None, 1), {"a": 1}, "image", textual=False)
    prompt = build.build()
    assert prompt.blocks[0].size == 7
    assert prompt.tokens == pytest.approx(2 * 7 / 3.2)
    assert [block.textual for block in prompt.blocks] == [True, False]
    assert [block.kind for block in prompt.blocks] == ["tool_use", "image"]
    assert not prompt.blocks[0].blank


@pytest.mark.parametrize(("kind", "tokens"), [("image", 1500.0), ("text", 900 / 4.4), ("binary", 900 / 30)], ids=str)
def test_media_count_by_what_they_are_and_not_by_their_json(kind: Any, tokens: float) -> None:
    """{"a":"12345"} is 13 bytes, of which 5 stand for a medium of 900 bytes: 8 bytes of JSON are left."""
    build = builder()
    build.data(SYSTEM, {"a": "12345"}, "image", media=[Media(kind, size=900, written=5)])
    block = build.build().blocks[0]
    assert block.size == 8 + 900
    assert block.tokens == pytest.approx(8 / 3.2 + tokens)


def test_a_message_costs_four_tokens_and_gives_its_blocks_a_role() -> None:
    prompt = conversation("user", "assistant")
    assert [block.role for block in prompt.blocks] == [None, None, "user", "assistant"]
    blocks = sum(block.tokens for block in prompt.blocks)
    assert prompt.tokens == pytest.approx(blocks + 8)
    assert prompt.boundaries[-1].tokens == prompt.tokens


def test_hints_and_times_mark_blocks() -> None:
    hints: dict[Where, Hint] = {said(0): "context_end", said(0, 1): "volatile"}
    build = builder(hints=hints)
    build.text(SYSTEM, "It is 12:00:05.")
    build.message("user")
    for item, text in enumerate(("It is 12:00:05.", "a question", "no hint")):
        build.text(said(0, item), text)
    blocks = build.build().blocks
    assert [block.volatile for block in blocks] == [True, False, True, False]
    assert [block.context for block in blocks] == [False, True, False, False]


def test_a_string_in_the_place_of_a_list_is_remembered() -> None:
    build = builder(attached=True)
    build.text(said(0), "a", plain=True)
    build.text(said(1), "b")
    prompt = build.build()
    assert prompt.plain == {("messages", 0)}
    assert prompt.attached
    assert not conversation().attached


# -- digests --------------------------------------------------------------------------------------


def one(feed: Callable[[PromptBuilder], None], key: bytes = b"key") -> bytes:
    build = PromptBuilder(key, "claude")
    feed(build)
    build.text(SYSTEM, "end")
    return build.build().boundaries[-1].digest


def test_whatever_the_cache_sees_is_in_the_digest() -> None:
    fed: list[Callable[[PromptBuilder], None]] = [
        lambda b: None,
        lambda b: b.section("tools", {}),
        lambda b: b.section("system", {}),
        lambda b: b.section("system", {"a": 1}),
        lambda b: b.section("system", {"a": 2}),
        lambda b: b.section("system", {"a": 1, "b": 1}),
        lambda b: b.section("system", {"a": None, "b": 1}),
        lambda b: b.message("user"),
        lambda b: b.message("assistant"),
        lambda b: b.text(SYSTEM, "a"),
        lambda b: b.text(SYSTEM, "b"),
        lambda b: b.text(SYSTEM, "a", "guard"),
        lambda b: b.text(SYSTEM, "a", header=b"h"),
        lambda b: b.data(SYSTEM, "a", "text"),
        lambda b: b.data(SYSTEM, "b", "text"),
        lambda b: b.data(SYSTEM, "a", "guard"),
    ]
    assert len({one(feed) for feed in fed}) == len(fed)
    assert one(fed[0]) == one(fed[0]) != one(fed[0], b"other")


def test_what_the_cache_does_not_see_is_not_in_the_digest() -> None:
    def marked(build: PromptBuilder) -> None:
        build.mark(SYSTEM, "1h", {})
        build.text(SYSTEM, "a")

    alike: list[Callable[[PromptBuilder], None]] = [
        lambda b: b.text(SYSTEM, "a"),
        lambda b: b.text(said(7), "a", plain=True),
        marked,
    ]
    assert len({one(feed) for feed in alike}) == 1


def test_text_that_moves_from_one_block_to_the_next_is_another_prompt() -> None:
    def split(*texts: str) -> Prompt:
        build = builder()
        for text in texts:
            build.text(SYSTEM, text)
        return build.build()

    assert split("ab", "c").end(1).digest != split("a", "bc").end(1).digest


def test_a_setting_at_its_default_has_no_digest_and_others_do_not_show_their_value() -> None:
    build = builder()
    build.section("messages", {"toolChoice": {"any": {}}, "thinking": None})
    set_, unset = build.build().settings
    assert (set_.section, set_.path, len(set_.digest)) == ("messages", "toolChoice", 16)
    assert unset == Setting("messages", "thinking", b"")
    other = PromptBuilder(b"other")
    other.section("messages", {"toolChoice": {"any": {}}})
    assert other.build().settings[0].digest != set_.digest


def test_json_is_compact_keeps_its_order_and_names_bytes_by_a_hash() -> None:
    assert wire_bytes({"b": 1, "a": ["é"]}) == '{"b":1,"a":["é"]}'.encode()
    assert wire_bytes(b"abc") == wire_bytes(bytearray(b"abc")) != wire_bytes(b"abd")
    assert len(wire_bytes(b"abc" * 999)) == 34  # 16 bytes in hex, in quotes
    assert wire_bytes("\ud800") == b'"\xed\xa0\x80"'


def test_what_has_no_bytes_is_never_taken_for_another() -> None:
    one, other = object(), object()
    assert wire_bytes(one) == wire_bytes(one) != wire_bytes(other)


# -- sections and turns ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tools", "system", "ends"),
    [(True, True, (0, 1)), (True, False, (0, -1)), (False, True, (-1, 0)), (False, False, (-1, -1))],
)
def test_sections_end_where_the_next_begins(tools: bool, system: bool, ends: tuple[int, int]) -> None:
    build = builder()
    for section, there in (("tools", tools), ("system", system), ("messages", True)):
        build.section(section, {})  # type: ignore[arg-type]
        if there:
            build.data(Where(section, None, 0), {}, "other")  # type: ignore[arg-type]
    prompt = build.build()
    assert (prompt.tools_end, prompt.system_end) == ends


@pytest.mark.parametrize("section", ["tools", "system"])
def test_a_section_may_be_the_last(section: Section) -> None:
    build = builder()
    build.section(section, {})
    build.text(Where(section, None, 0), "a")
    build.text(Where(section, None, 1), "b")
    prompt = build.build()
    assert {"tools": prompt.tools_end, "system": prompt.system_end}[section] == 1
    assert (prompt.history_end, prompt.last_user) == (-1, -1)


@pytest.mark.parametrize(
    ("roles", "last_user", "history_end", "previous_end", "has_turns"),
    [
        # The tool is block 0, the system block 1, the first message block 2.
        ("u", 0, -1, -1, False),
        ("uau", 2, 3, 2, True),
        ("uauau", 4, 5, 4, True),
        ("uua", 1, 2, -1, False),
        ("uaua", 2, 3, 2, True),
        ("uaau", 3, 4, 3, True),
        ("au", 1, 2, -1, True),
        ("a", -1, -1, -1, False),
        ("", -1, -1, -1, False),
    ],
)
def test_turns_end_before_the_last_question_and_before_the_answer_it_continues(
    roles: str, last_user: int, history_end: int, previous_end: int, has_turns: bool
) -> None:
    prompt = conversation(*({"u": "user", "a": "assistant"}[role] for role in roles))
    assert (prompt.last_user, prompt.history_end, prompt.previous_end, prompt.has_turns) == (
        last_user, history_end, previous_end, has_turns,
    )  # fmt: skip


def test_a_users_checkpoint_belongs_to_the_block_before_it() -> None:
    build = builder()
    build.mark(SYSTEM, None, {"cachePoint": {}}, leading=True)
    for item in (1, 2):
        build.text(Where("system", None, item), "a")
    build.mark(Where("system", None, 3), "1h", "raw")
    assert build.build().marks == (
        Mark(SYSTEM, None, None, {"cachePoint": {}}, leading=True),
        Mark(Where("system", None, 3), 1, "1h", "raw"),
    )


def test_a_prompt_keeps_its_tokenizer() -> None:
    assert PromptBuilder(b"key", "nova").build().tokenizer == "nova"
    assert PromptBuilder(b"key").build() == Prompt((), (), (), (), 0.0, "other")
