"""A Converse request in wire order: every prefix has a digest that changes with all that the cache would notice."""

from __future__ import annotations

from copy import deepcopy
from itertools import pairwise
from typing import Any

import pytest
from converse_kit import (
    DOCUMENT,
    PNG,
    SYSTEM,
    Json,
    assistant,
    document,
    image,
    point,
    reasoning,
    text,
    tool,
    tool_result,
    tool_use,
    user,
    video,
)
from hypothesis import given
from hypothesis import strategies as st

from cachepoint.bedrock.wire import anthropic_messages, converse
from cachepoint.core.prompt.builder import cuts_of
from cachepoint.core.prompt.prompt import Prompt
from cachepoint.core.provider.rules import ModelFacts, ModelRule

KEY = b"k" * 32
CLAUDE = ModelRule("Claude", "claude", tokenizer="claude")
NOVA = ModelRule("Nova", "nova", tokenizer="nova")
REQUEST: Json = {
    "toolConfig": {"tools": [tool("search"), tool("fetch")]},
    "system": [text("You are brief."), text(SYSTEM)],
    "messages": [user("Search."), assistant(tool_use(1)), user(tool_result(1), "And?")],
}


def read(request: Json, rule: ModelRule = CLAUDE) -> Prompt:
    return converse.read(request, KEY, rule)


def ends(prompt: Prompt) -> dict[str, bytes]:
    """The digest of the prefix that ends with each block, by its path."""
    return {block.where.path: prompt.end(index).digest for index, block in enumerate(prompt.blocks)}


def changed(before: Json, after: Json, rule: ModelRule = CLAUDE) -> list[str]:
    """The paths whose prefix is another one."""
    old, new = ends(read(before, rule)), ends(read(after, rule))
    return [path for path in old if new.get(path) != old[path]]


def edited(request: Json, edit: Any) -> Json:
    copy = deepcopy(request)
    edit(copy)
    return copy


COMPUTER = {"type": "computer_20251124", "name": "computer", "display_width_px": 1024, "display_height_px": 768}
CLEARING = {"edits": [{"type": "clear_tool_uses_20250919"}]}
ALL = list(ends(read(REQUEST)))
SYSTEM_ON = ALL[2:]
MESSAGES = ALL[4:]


def test_blocks_come_in_wire_order() -> None:
    assert ALL == [
        "tools[0]", "tools[1]", "system[0]", "system[1]", "messages[0].content[0]", "messages[1].content[0]",
        "messages[2].content[0]", "messages[2].content[1]",
    ]  # fmt: skip
    assert [block.kind for block in read(REQUEST).blocks[-3:]] == ["tool_use", "tool_result", "text"]


def test_tokens_add_up_along_the_prefix() -> None:
    prompt = read(REQUEST)
    along = [boundary.tokens for boundary in prompt.boundaries]
    assert along == sorted(along)
    assert along[-1] == pytest.approx(prompt.tokens)


def test_the_same_request_has_the_same_digests_and_another_key_has_others() -> None:
    assert ends(read(REQUEST)) == ends(read(deepcopy(REQUEST)))
    assert not set(ends(read(REQUEST)).values()) & set(ends(converse.read(REQUEST, b"other key", CLAUDE)).values())


@pytest.mark.parametrize(
    ("edit", "touched"),
    [
        (lambda r: r["toolConfig"]["tools"].reverse(), ALL),
        (lambda r: r["toolConfig"]["tools"][1]["toolSpec"].update(description="Other."), ALL[1:]),
        (lambda r: r["system"].reverse(), SYSTEM_ON),
        (lambda r: r["system"][1].update(text=SYSTEM + "."), ALL[3:]),
        (lambda r: r["messages"][2]["content"].reverse(), ALL[6:]),
        (lambda r: r["messages"][2]["content"][1].update(text="Or?"), ALL[7:]),
        (lambda r: r["toolConfig"].update(toolChoice={"auto": {}}), []),
        (lambda r: r["toolConfig"].update(toolChoice={"any": {}}), MESSAGES),
        (lambda r: r["toolConfig"].update(toolChoice={"tool": {"name": "fetch"}}), MESSAGES),
        (lambda r: r["messages"][2]["content"].append(image()), MESSAGES),
        (lambda r: r["messages"][2]["content"][0]["toolResult"]["content"].append(image()), MESSAGES),
        (lambda r: r.update(additionalModelRequestFields={"thinking": {"type": "enabled", "budget_tokens": 9}}), ALL),
        (lambda r: r.update(additionalModelRequestFields={"thinking": {"type": "disabled"}}), []),
        (lambda r: r.update(additionalModelRequestFields={"output_config": {"effort": "low"}}), ALL),
        (lambda r: r.update(additionalModelRequestFields={"output_config": {"effort": "high"}}), []),
        (lambda r: r.update(outputConfig={"effort": "low"}), ALL),
        (lambda r: r.update(outputConfig={"textFormat": {"type": "json_schema"}}), ALL),
        (lambda r: r.update(additionalModelRequestFields={"output_config": {"format": {"type": "json_schema"}}}), ALL),
        (lambda r: r.update(additionalModelRequestFields={"tools": [COMPUTER]}), ALL),
        (lambda r: r.update(additionalModelRequestFields={"anthropic_beta": ["computer-use-2025-11-24"]}), ALL),
        (lambda r: r.update(additionalModelRequestFields={"mcp_servers": [{"name": "parts"}]}), ALL),
        (lambda r: r.update(promptVariables={"topic": {"text": "tea"}}), ALL),
        (lambda r: r.update(additionalModelRequestFields={"system": "You are brief."}), SYSTEM_ON),
        (lambda r: r.update(additionalModelRequestFields={"speed": "fast"}), SYSTEM_ON),
        (lambda r: r.update(additionalModelRequestFields={"speed": "standard"}), []),
        (lambda r: r.update(additionalModelRequestFields={"context_management": CLEARING}), MESSAGES),
        (lambda r: r.update(additionalModelRequestFields={"top_k": 5, "metadata": {"user_id": "u"}}), []),
        (lambda r: r.update(additionalModelRequestFields=["not", "an", "object"]), []),
        (lambda r: r.update(inferenceConfig={"temperature": 0.1, "maxTokens": 9}), []),
        (lambda r: r.update(requestMetadata={"a": "b"}, serviceTier={"type": "flex"}), []),
        (lambda r: r["system"].append(point()), []),
    ],
)  # fmt: skip
def test_what_invalidates_a_section_changes_its_digests_and_nothing_else_does(edit: Any, touched: list[str]) -> None:
    assert changed(REQUEST, edited(REQUEST, edit)) == touched


def thinking(kind: str) -> Json:
    return {**REQUEST, "additionalModelRequestFields": {"thinking": {"type": kind}}}


@pytest.mark.parametrize(
    ("by_default", "same", "other"),
    [("off", "disabled", "adaptive"), ("on", "adaptive", "disabled"), ("always", "adaptive", "disabled")],
)
def test_thinking_set_to_the_models_default_changes_nothing(by_default: Any, same: str, other: str) -> None:
    rule = ModelRule("Claude", "claude", tokenizer="claude", facts=ModelFacts(thinking=by_default))
    assert changed(REQUEST, thinking(same), rule) == []
    assert changed(REQUEST, thinking(other), rule) == ALL


def test_effort_set_to_the_models_default_changes_nothing() -> None:
    rule = ModelRule("Claude", "claude", tokenizer="claude", facts=ModelFacts(effort="medium"))
    assert changed(REQUEST, {**REQUEST, "outputConfig": {"effort": "medium"}}, rule) == []
    assert changed(REQUEST, {**REQUEST, "outputConfig": {"effort": "high"}}, rule) == ALL


@pytest.mark.parametrize(
    ("fields", "counted_from"),
    [
        ({"additionalModelRequestFields": {"tools": [{**COMPUTER, "description": SYSTEM}]}}, SYSTEM_ON),
        ({"additionalModelRequestFields": {"system": SYSTEM}}, MESSAGES),
        ({"promptVariables": {"chapter": {"text": SYSTEM}}}, ALL),
    ],
    ids=["tools", "system text", "variables of a stored prompt"],
)
def test_text_outside_the_blocks_counts_towards_the_minimum(fields: Json, counted_from: list[str]) -> None:
    """SYSTEM has 9,000 characters: about 2,000 tokens at 4.4 bytes each, or 2,800 as JSON at 3.2."""
    with_it, without = read({**REQUEST, **fields}), read(REQUEST)
    more = {
        block.where.path: with_it.end(index).tokens - without.end(index).tokens
        for index, block in enumerate(without.blocks)
    }
    assert [path for path, tokens in more.items() if tokens] == counted_from
    assert all(1900 < more[path] < 3100 for path in counted_from)


def test_variables_of_a_stored_prompt_count_by_name_and_not_by_order() -> None:
    variables = {"a": {"text": "tea"}, "b": {"text": "cup"}}
    orders = (variables, dict(reversed(variables.items())), {"a": {"text": "cup"}, "b": {"text": "tea"}})
    first, turned, other = (ends(read({"promptVariables": each, "messages": [user("Why?")]})) for each in orders)
    assert first == turned
    assert first != other


def test_a_stored_prompt_is_read_without_messages_too() -> None:
    prompt = read({"promptVariables": {"topic": {"text": SYSTEM}}})
    assert prompt.blocks == ()
    assert prompt.tokens > 1900


def test_effort_of_one_message_invalidates_nothing() -> None:
    """Anthropic prompt caching page, Nov 2026: effort given in a system-role message keeps the prefix."""
    body: Json = {"messages": [{"role": "user", "content": "Why?"}, {"role": "system", "content": "Be brief."}]}
    with_effort = edited(body, lambda b: b["messages"][1].update(output_config={"effort": "low"}))
    plain, low = (anthropic_messages.read(each, KEY, CLAUDE) for each in (body, with_effort))
    assert ends(plain) == ends(low)


@pytest.mark.parametrize(
    ("field", "touched"),
    [
        ({"speed": "fast"}, ["system[0]", "messages[0].content[0]"]),
        ({"context_management": CLEARING}, ["messages[0].content[0]"]),
        ({"anthropic_beta": ["context-1m"]}, ["tools[0]", "system[0]", "messages[0].content[0]"]),
        ({"top_k": 5}, []),
    ],
    ids=["fast mode", "context management", "a beta", "sampling"],
)
def test_fields_of_an_anthropic_body_change_the_same_sections(field: Json, touched: list[str]) -> None:
    body: Json = {"tools": [{"name": "search"}], "system": SYSTEM, "messages": [{"role": "user", "content": "Why?"}]}
    old, new = (ends(anthropic_messages.read(each, KEY, CLAUDE)) for each in (body, {**body, **field}))
    assert [path for path in old if old[path] != new[path]] == touched


def test_the_order_of_json_keys_counts() -> None:
    spec = REQUEST["toolConfig"]["tools"][0]["toolSpec"]
    reordered = edited(REQUEST, lambda r: r["toolConfig"]["tools"][0].update(toolSpec=dict(reversed(spec.items()))))
    assert changed(REQUEST, reordered) == ALL


def test_on_nova_any_change_of_tool_choice_changes_everything() -> None:
    forced = edited(REQUEST, lambda r: r["toolConfig"].update(toolChoice={"any": {}}))
    old, new = (ends(read(request, NOVA)) for request in (REQUEST, forced))
    assert [path for path in old if old[path] != new[path]] == ALL


def test_media_count_by_their_bytes() -> None:
    one, same, other = (
        read({"messages": [user("Look.", image(content))]}) for content in (PNG, bytes(PNG), PNG + b"\x00")
    )
    assert ends(one) == ends(same)
    assert ends(one)["messages[0].content[1]"] != ends(other)["messages[0].content[1]"]


def test_one_text_in_two_blocks_is_another_prefix() -> None:
    whole, halves = read({"messages": [user("ab")]}), read({"messages": [user("a", "b")]})
    assert whole.boundaries[-1].digest != halves.boundaries[-1].digest


def test_long_texts_have_cuts_at_paragraphs_and_short_ones_have_none() -> None:
    prompt = read({"messages": [user(DOCUMENT), assistant("Noted."), user(DOCUMENT[:900])]})
    cuts = [boundary for boundary in prompt.boundaries if boundary.offset is not None]
    assert len(cuts) > 20
    assert {cut.block for cut in cuts} == {0}
    assert all(DOCUMENT[: cut.offset].endswith("\n") or DOCUMENT[: cut.offset].endswith(" ") for cut in cuts)


def test_texts_that_begin_alike_have_the_same_cuts_and_digests_there() -> None:
    shared = DOCUMENT[:20_000]
    one, other = (read({"messages": [user(shared + rest)]}) for rest in (" Why is that so?", SYSTEM))
    common = [
        (mine.offset, mine.digest == theirs.digest)
        for mine, theirs in zip(one.boundaries, other.boundaries, strict=False)
        if mine.offset is not None and mine.offset < 19_000
    ]
    assert len(common) > 20
    assert all(same for _, same in common)


def test_only_what_belongs_to_the_user_or_the_system_prompt_has_cuts() -> None:
    prompt = read({"system": [text(DOCUMENT)], "messages": [user("Why?"), assistant(DOCUMENT), user("And?")]})
    assert {prompt.blocks[b.block].where.path for b in prompt.boundaries if b.offset is not None} == {"system[0]"}


def test_guarded_requests_have_no_cuts_in_messages() -> None:
    guard = {"guardrailIdentifier": "guard", "guardrailVersion": "1"}
    prompt = read({"messages": [user(DOCUMENT)], "guardrailConfig": guard})
    assert len(prompt.boundaries) == 1


@pytest.mark.parametrize("words", ["", "\n\n" * 900, "x" * 9000, "a. " * 3000, "ab\n" * 3000, "日本。\n\n" * 900])
def test_no_cut_makes_a_blank_text(words: str) -> None:
    cuts = list(cuts_of(words))
    assert cuts == sorted(set(cuts))
    assert not cuts or all(words[start:end].strip() for start, end in pairwise([0, *cuts, None]))


@given(
    st.lists(st.sampled_from([" ", "\n\n", "\n" * 400, " " * 900, ". ", "word" * 80, "x"]), max_size=40).map("".join)
)
def test_nor_does_it_in_any_text(words: str) -> None:
    test_no_cut_makes_a_blank_text(words)


def test_cuts_grow_sparser_along_a_long_text() -> None:
    assert len(list(cuts_of(DOCUMENT * 60))) < 900


def test_what_the_user_marked_is_known_by_place_and_ttl() -> None:
    request = {
        "toolConfig": {"tools": [tool("search"), point("1h")]},
        "system": [point(), text(SYSTEM), point("5m")],
        "messages": [user("Search."), assistant(tool_use(1)), user(tool_result(1, "a", point()))],
    }
    marks = [(mark.where.path, mark.ttl, mark.block, mark.leading) for mark in read(request).marks]
    assert marks == [
        ("tools[1]", "1h", 0, False),
        ("system[0]", None, 0, True),
        ("system[2]", "5m", 1, False),
        ("messages[2].content[0].toolResult.content[1]", None, 4, False),
    ]


def test_a_prompt_knows_where_its_parts_end() -> None:
    prompt = read(REQUEST)
    assert (prompt.tools_end, prompt.system_end, prompt.history_end, prompt.previous_end) == (1, 3, 5, 4)
    assert prompt.has_turns
    alone = read({"messages": [user("Why?")]})
    assert (alone.tools_end, alone.system_end, alone.history_end, alone.previous_end) == (-1, -1, -1, -1)
    assert not alone.has_turns


def test_media_cost_about_what_they_cost() -> None:
    blocks = read(
        {"messages": [user("?", image(), document("pdf", b"x" * 3000), document("txt", b"x" * 440), video())]}
    )
    _, picture, pdf, words, _ = (block.tokens for block in blocks.blocks)
    assert picture == pytest.approx(1500, abs=40)
    assert pdf == words == pytest.approx(100, abs=40)


def test_images_in_tool_results_cost_as_much_as_others() -> None:
    with_image = read({"messages": [user("?"), assistant(tool_use(1)), user(tool_result(1, image()))]})
    assert with_image.blocks[-1].tokens > 1400


def test_no_text_of_the_prompt_is_kept() -> None:
    request = {
        **REQUEST,
        "messages": [user("SECRET words " + DOCUMENT), assistant(reasoning("SECRET")), user("SECRET?")],
    }
    assert "SECRET" not in repr(read(request))


def test_blocks_of_kinds_yet_unknown_are_read_too() -> None:
    prompt = read({"messages": [{"role": "user", "content": [{"toolAddition": {"name": "x"}}, text("Why?")]}]})
    assert prompt.blocks[0].kind == "other"
