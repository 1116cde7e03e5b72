"""Why tokens that could have been read were not: each reason as it comes about."""

from __future__ import annotations

import threading
from typing import Any

import messages_kit
import pytest
from converse_kit import (
    DOCUMENT,
    PNG,
    SONNET,
    SONNET_46,
    SYSTEM,
    Bedrock,
    Json,
    assistant,
    image,
    point,
    question,
    reasoning,
    text,
    tool,
    tool_result,
    tool_use,
    user,
)

from cachepoint import CachePolicy, MemoryStore
from cachepoint.emulator import BedrockEmulator, slow

TOOLS: Json = {"tools": [tool("search", "Searches."), tool("fetch", "Fetches.")]}
EXPLICIT = CachePolicy(mode="explicit")


def miss(client: Any, request: Json) -> Json | None:
    """The miss of one call."""
    told: Json | None = client.converse(**request)["promptCache"]["miss"]
    return told


def reason(client: Any, request: Json) -> str | None:
    found = miss(client, request)
    return found["reason"] if found else None


def test_a_first_call_misses_nothing(bedrock: Bedrock) -> None:
    assert miss(bedrock.wrapped(), question()) is None


def test_a_hit_misses_nothing(bedrock: Bedrock) -> None:
    client = bedrock.wrapped()
    assert [miss(client, question(number)) for number in range(3)] == [None, None, None]


def test_a_miss_says_what_it_lost_and_what_to_do(bedrock: Bedrock) -> None:
    client = bedrock.wrapped()
    client.converse(**question(1))
    written = client.ledger.totals().usage.cache_write
    bedrock.clock.advance(400)
    found = miss(client, question(2))
    assert found is not None
    assert (found["reason"], found["path"]) == ("expired", "system[0]")
    assert found["lost_tokens"] == pytest.approx(written, rel=0.02)
    assert float(found["lost_usd"]) == pytest.approx(found["lost_tokens"] * 3.3e-6 * 0.9)
    assert "1h" in found["hint"]


def test_expired(bedrock: Bedrock) -> None:
    client = bedrock.wrapped()
    client.converse(**question(1))
    bedrock.clock.advance(301)
    assert reason(client, question(2)) == "expired"


def test_a_1h_entry_has_not_expired_after_five_minutes(bedrock: Bedrock) -> None:
    client = bedrock.wrapped(CachePolicy(ttl="1h"))
    client.converse(**question(1))
    bedrock.clock.advance(1800)
    assert miss(client, question(2)) is None
    bedrock.clock.advance(3601)
    assert reason(client, question(3)) == "expired"


def test_evicted_or_rerouted(bedrock: Bedrock) -> None:
    client = bedrock.wrapped()
    client.converse(**question(1))
    bedrock.emulator.evict()
    found = miss(client, question(2))
    assert found is not None
    assert (found["reason"], found["path"]) == ("evicted_or_rerouted", "system[0]")
    assert "did not change" in found["hint"]


def test_system_changed(bedrock: Bedrock) -> None:
    client = bedrock.wrapped()
    client.converse(**question(1))
    changed = {**question(2), "system": [text(SYSTEM + " It is Tuesday.")]}
    found = miss(client, changed)
    assert found is not None
    assert (found["reason"], found["path"]) == ("system_changed", "system[0]")


@pytest.mark.parametrize(
    "tools",
    [
        {"tools": [tool("search", "Searches well."), tool("fetch", "Fetches.")]},
        {"tools": list(reversed(TOOLS["tools"]))},
    ],
    ids=["edited", "in another order"],
)
def test_tools_changed(bedrock: Bedrock, tools: Json) -> None:
    client = bedrock.wrapped()
    client.converse(**question(1), toolConfig=TOOLS)
    found = miss(client, {**question(2), "toolConfig": tools})
    assert found is not None
    assert (found["reason"], found["path"]) == ("tools_changed", "tools[0]")


def test_another_order_of_json_keys_is_another_tool(bedrock: Bedrock) -> None:
    spec = TOOLS["tools"][0]["toolSpec"]
    reordered = {"toolSpec": {**spec, "inputSchema": {"json": dict(reversed(spec["inputSchema"]["json"].items()))}}}
    client = bedrock.wrapped()
    client.converse(**question(1), toolConfig=TOOLS)
    assert reason(client, {**question(2), "toolConfig": {"tools": [reordered, TOOLS["tools"][1]]}}) == "tools_changed"


SEARCH = tool("search", "Searches the catalogue for parts by name, size or maker, and says how many are left.")
FETCH, ANSWER = tool("fetch", "Fetches."), tool("Answer", "The answer in its parts.")


@pytest.mark.parametrize(
    ("before", "after", "path"),
    [
        ([SEARCH], [SEARCH, FETCH, ANSWER], "tools[1]"),
        ([SEARCH, FETCH, ANSWER], [SEARCH, ANSWER], "tools[1]"),
        ([SEARCH, FETCH], [SEARCH], "tools"),
        ([], [ANSWER], "tools[0]"),
    ],
    ids=["a server has more", "one is gone", "the last is gone", "structured output"],
)
def test_tools_that_come_or_go_before_the_same_system_prompt_are_named(
    bedrock: Bedrock, before: list[Json], after: list[Json], path: str
) -> None:
    client = bedrock.wrapped()
    client.converse(**question(1), **({"toolConfig": {"tools": before}} if before else {}))
    found = miss(client, {**question(2), "toolConfig": {"tools": after}})
    assert found is not None
    assert (found["reason"], found["path"]) == ("tools_changed", path)


def test_tools_that_come_before_the_same_document_are_named(bedrock: Bedrock) -> None:
    client = bedrock.wrapped(EXPLICIT)
    request: Json = {"modelId": SONNET, "messages": [user(DOCUMENT, point(), "Why?")]}
    client.converse(**request)
    assert reason(client, {**request, "toolConfig": {"tools": [ANSWER]}}) == "tools_changed"


def test_an_agent_with_other_tools_and_system_prompt_is_no_change(bedrock: Bedrock) -> None:
    client = bedrock.wrapped()
    client.converse(**question(1), toolConfig={"tools": [SEARCH, FETCH]})
    other = {**question(2), "system": [text(DOCUMENT[:8000])], "toolConfig": {"tools": [ANSWER, SEARCH, FETCH]}}
    assert miss(client, other) is None


def test_two_kinds_of_calls_that_take_turns_miss_nothing_once_both_are_cached(bedrock: Bedrock) -> None:
    client = bedrock.wrapped()
    kinds = [{"toolConfig": {"tools": [SEARCH]}}, {"toolConfig": {"tools": [SEARCH, ANSWER]}}]
    told = [miss(client, {**question(number), **kinds[number % 2]}) for number in range(6)]
    # The second kind is cached from its second request on: tools that change with every request would not come back.
    changed = "tools_changed"
    assert [each["reason"] if each else None for each in told] == [None, changed, None, changed, None, None]


THINKING: Json = {"thinking": {"type": "enabled", "budget_tokens": 2000}}
COMPUTER: Json = {"type": "computer_20251124", "name": "computer", "display_width_px": 1024, "display_height_px": 768}


@pytest.mark.parametrize(
    ("setting", "path"),
    [
        ({"additionalModelRequestFields": THINKING}, "additionalModelRequestFields.thinking"),
        (
            {"additionalModelRequestFields": {"output_config": {"effort": "low"}}},
            "additionalModelRequestFields.output_config.effort",
        ),
        ({"outputConfig": {"effort": "low"}}, "outputConfig.effort"),
        (
            {"outputConfig": {"textFormat": {"type": "json_schema", "structure": {"jsonSchema": {"schema": "{}"}}}}},
            "outputConfig.textFormat",
        ),
        ({"additionalModelRequestFields": {"tools": [COMPUTER]}}, "additionalModelRequestFields.tools"),
        (
            {"additionalModelRequestFields": {"anthropic_beta": ["computer-use-2025-11-24"]}},
            "additionalModelRequestFields.anthropic_beta",
        ),
    ],
    ids=["thinking", "effort", "Converse's own effort", "an output schema", "tools in the fields", "a beta"],
)
@pytest.mark.parametrize("tools", [{}, {"toolConfig": TOOLS}], ids=["no tools", "tools"])
def test_a_setting_that_changes_the_whole_prompt_is_named(
    bedrock: Bedrock, setting: Json, path: str, tools: Json
) -> None:
    client = bedrock.wrapped()
    client.converse(**question(1), **tools)
    found = miss(client, {**question(2), **tools, **setting})
    assert found is not None
    assert found["reason"] == ("tools_changed" if tools else "system_changed")
    assert found["path"] == path
    assert found["lost_tokens"] > 2000
    assert "setting" in found["hint"]


@pytest.mark.parametrize(
    "fields",
    [{"speed": "fast"}, {"system": "You are brief."}],
    ids=["fast mode", "system text in the fields"],
)
def test_a_setting_that_leaves_the_tools_is_named(bedrock: Bedrock, fields: Json) -> None:
    """The tools come first and are read on; what is lost is the system prompt, of about 2,300 tokens."""
    client = bedrock.wrapped()
    tools: Json = {"toolConfig": {"tools": [tool("search", DOCUMENT[:9000])]}}
    for number in range(2):
        client.converse(**question(number), **tools)
    told = client.converse(**question(3), **tools, additionalModelRequestFields=fields)["promptCache"]
    (name,) = fields
    assert (told["miss"]["reason"], told["miss"]["path"]) == ("system_changed", f"additionalModelRequestFields.{name}")
    assert told["usage"]["cache_read"] > 1024
    assert 1500 < told["miss"]["lost_tokens"] < 3500


@pytest.mark.parametrize(
    ("model", "turned", "reason"),
    [
        ("us.anthropic.claude-sonnet-5", "disabled", "system_changed"),
        ("us.anthropic.claude-sonnet-5", "adaptive", None),
        (SONNET_46, "disabled", None),
        (SONNET_46, "adaptive", "system_changed"),
    ],
)
def test_thinking_named_after_its_default_is_no_change(
    bedrock: Bedrock, model: str, turned: str, reason: str | None
) -> None:
    """Sonnet 5 thinks where a request says nothing of it, Sonnet 4.6 does not (Anthropic, Sonnet 5 page)."""
    client = bedrock.wrapped()
    client.converse(**question(1, model))
    found = miss(client, {**question(2, model), "additionalModelRequestFields": {"thinking": {"type": turned}}})
    assert (found["reason"] if found else None) == reason
    assert found is None or found["path"] == "additionalModelRequestFields.thinking"


def test_variables_of_a_stored_prompt_are_named() -> None:
    arn = "arn:aws:bedrock:us-east-1:123456789012:prompt/ABCDEFGHIJ:1"
    history = [user(DOCUMENT), assistant(LONG), user("Why?"), assistant("So.")]
    with BedrockEmulator(profiles={arn: SONNET}) as emulator:
        client = Bedrock(emulator, "STORED").wrapped(base_models={arn: SONNET})
        misses = []
        for topic in ("tea", "coffee"):
            asked = {"modelId": arn, "messages": [*history, user(f"And {topic}?")]}
            misses.append(miss(client, {**asked, "promptVariables": {"topic": {"text": topic}}}))
    assert misses[0] is None
    assert misses[1] is not None
    assert (misses[1]["reason"], misses[1]["path"]) == ("messages_changed", "promptVariables")


def test_a_setting_that_is_taken_back_is_named_where_it_was(bedrock: Bedrock) -> None:
    client = bedrock.wrapped()
    client.converse(**question(1), outputConfig={"effort": "low"})
    found = miss(client, question(2))
    assert found is not None
    assert (found["reason"], found["path"]) == ("system_changed", "outputConfig.effort")


@pytest.mark.parametrize(
    ("setting", "path"),
    [
        (THINKING, "thinking"),
        ({"speed": "fast"}, "speed"),
        ({"output_config": {"effort": "low"}}, "output_config.effort"),
        ({"anthropic_beta": ["computer-use-2025-11-24"]}, "anthropic_beta"),
    ],
    ids=["thinking", "fast mode", "effort", "a beta"],
)
def test_a_setting_in_a_body_of_anthropic_messages_is_named(bedrock: Bedrock, setting: Json, path: str) -> None:
    client = bedrock.wrapped()
    misses = []
    for settings in ({}, setting):
        given = messages_kit.body(messages_kit.user("Why?"), system=[messages_kit.text(SYSTEM)], **settings)
        misses.append(client.invoke_model(**messages_kit.request(given))["promptCache"]["miss"])
    assert misses[0] is None
    assert (misses[1]["reason"], misses[1]["path"]) == ("system_changed", path)


LONG = "And on it goes, one line after the other. " * 200


@pytest.mark.parametrize(
    ("setting", "path"),
    [
        ({"toolConfig": {**TOOLS, "toolChoice": {"any": {}}}}, "toolConfig.toolChoice"),
        ({"messages": [user("Look at this.", image())]}, "messages"),
        (
            {"additionalModelRequestFields": {"context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]}}},
            "additionalModelRequestFields.context_management",
        ),
    ],
    ids=["a forced tool", "the first image", "context management"],
)
def test_a_setting_that_changes_the_messages_is_named(bedrock: Bedrock, setting: Json, path: str) -> None:
    client = bedrock.wrapped()
    history = [user("What is it?"), assistant(LONG), user("Why?"), assistant("So.")]
    request = {**question(), "toolConfig": TOOLS, "messages": [*history, user("And?")]}
    client.converse(**request)
    changed = {**request, **setting, "messages": [*history, *setting.get("messages", [user("And now?")])]}
    found = miss(client, changed)
    assert found is not None
    assert (found["reason"], found["path"]) == ("messages_changed", path)
    assert found["lost_tokens"] > 1024


def test_an_image_in_another_conversation_changes_nothing(bedrock: Bedrock) -> None:
    client = bedrock.wrapped()
    asked = user("Describe it.")
    client.converse(**{**question(), "messages": [asked, assistant(LONG), user("Why?"), assistant(LONG), user("And?")]})
    assert miss(client, {**question(), "messages": [user("Describe it.", image())]}) is None


def test_turns_with_and_without_thinking_miss_nothing_once_both_are_cached(
    bedrock: Bedrock,
) -> None:
    client = bedrock.wrapped()
    histories: list[list[Json]] = [[], []]
    told = []
    for turn in range(8):
        history = histories[turn % 2]
        history.append(user(f"Question {turn}. " + LONG))
        extra: Json = {"additionalModelRequestFields": THINKING} if turn % 2 else {}
        told.append(reason(client, {**question(), "messages": history, **extra}))
        history.append(assistant(f"Answer {turn}. " + LONG))
    # Turns with thinking are cached from the second on: what changes with every request would not come back.
    assert told == [None, "system_changed", None, "system_changed", *[None] * 4]


def test_messages_changed(bedrock: Bedrock) -> None:
    client = bedrock.wrapped()
    history = [user(DOCUMENT), assistant("An answer of some length."), user("Why?")]
    client.converse(modelId=SONNET, messages=history)
    history = [user(DOCUMENT), assistant("An answer of same length."), user("Why?"), assistant("So."), user("And?")]
    found = miss(client, {"modelId": SONNET, "messages": history})
    assert found is not None
    assert (found["reason"], found["path"]) == ("messages_changed", "messages[1].content[0]")


@pytest.mark.parametrize(
    ("before", "after", "path"),
    [
        ([image(PNG * 40)], [image(PNG * 2)], ""),
        ([image(PNG * 40)], [text("(an image, now in a file)")], "messages"),
        ([reasoning("It goes on and on. " * 20), text("Look.")], [text("Look.")], ""),
        ([text("Look.")], [text("It is Tuesday."), text("Look.")], ""),
    ],
    ids=["an image is made smaller", "an image becomes a pointer", "reasoning is taken out", "a note is put in"],
)
def test_a_turn_of_the_history_that_has_another_size_now_is_named(
    bedrock: Bedrock, before: list[Json], after: list[Json], path: str
) -> None:
    client = bedrock.wrapped()
    start, rest = [user("What is it? " + LONG)], [assistant(LONG), user("Why?"), assistant("So."), user("And?")]
    turn = assistant if "reasoningContent" in before[0] else user
    start = start if turn is assistant else [*start, assistant("It is this.")]
    rest = rest if turn is user else [user("Go on."), *rest]
    first = question(0, SONNET_46)  # which keeps the reasoning of earlier turns
    client.converse(**{**first, "messages": [*start, turn(*before), *rest]})
    found = miss(client, {**first, "messages": [*start, turn(*after), *rest, assistant("Yes."), user("Then?")]})
    assert found is not None
    assert (found["reason"], found["path"]) == ("messages_changed", path or f"messages[{len(start)}].content[0]")
    assert found["lost_tokens"] > 1024


def test_the_same_script_answered_otherwise_is_another_conversation(bedrock: Bedrock) -> None:
    client = bedrock.wrapped()
    for number in range(3):
        answer = "Well. " * (20 + 40 * number)
        messages = [user("What is it? " + LONG), assistant(answer), user("Why? " + LONG)]
        assert miss(client, {**question(), "messages": messages}) is None
        messages += [assistant(answer), user("And?")]
        assert miss(client, {**question(), "messages": messages}) is None


def test_another_conversation_is_not_a_changed_one(bedrock: Bedrock) -> None:
    client = bedrock.wrapped()
    client.converse(modelId=SONNET, messages=[user(DOCUMENT[:9000], point()), assistant("Noted."), user("Why?")])
    assert (
        miss(client, {"modelId": SONNET, "messages": [user(DOCUMENT[9000:18000]), assistant("So."), user("?")]}) is None
    )


def test_model_changed(bedrock: Bedrock) -> None:
    client = bedrock.wrapped()
    client.converse(**question(1))
    assert reason(client, question(2, SONNET_46)) == "model_changed"


def test_lookback(bedrock: Bedrock) -> None:
    """Twelve tool calls and their results stand between the old entry and the only checkpoint."""
    client = bedrock.wrapped(EXPLICIT)
    tools: Json = {"tools": [tool("search")]}
    first = user(DOCUMENT)
    client.converse(modelId=SONNET, toolConfig=tools, messages=[{**first, "content": [*first["content"], point()]}])
    uses = assistant(*(tool_use(number) for number in range(12)))
    results = user(*(tool_result(number) for number in range(12)), point())
    found = miss(client, {"modelId": SONNET, "toolConfig": tools, "messages": [first, uses, results]})
    assert found is not None
    assert (found["reason"], found["path"]) == ("lookback", "messages[0].content[0]")


def test_the_planner_bridges_what_lookback_does_not_reach(bedrock: Bedrock) -> None:
    client = bedrock.wrapped()
    tools: Json = {"tools": [tool("search")]}
    messages = [user(DOCUMENT), assistant("Noted."), user("Search.")]
    client.converse(modelId=SONNET, toolConfig=tools, messages=messages)
    uses = assistant(*(tool_use(number) for number in range(20)))
    results = user(*(tool_result(number) for number in range(20)))
    told = client.converse(modelId=SONNET, toolConfig=tools, messages=[*messages, uses, results])["promptCache"]
    assert (told["status"], told["miss"]) == ("extended", None)


def test_not_marked(bedrock: Bedrock) -> None:
    store = MemoryStore()
    bedrock.wrapped(store=store).converse(**question(1))
    assert reason(bedrock.wrapped(EXPLICIT, store=store), question(2)) == "not_marked"


def test_below_minimum(bedrock: Bedrock) -> None:
    request = {"modelId": SONNET, "messages": [user("A short text.", point(), "Why?")]}
    found = miss(bedrock.wrapped(EXPLICIT), request)
    assert found is not None
    assert (found["reason"], found["path"]) == ("below_minimum", "messages[0].content[1]")


def test_concurrent_write(bedrock: Bedrock) -> None:
    client = bedrock.wrapped()
    bedrock.emulator.fail_next(slow(0.3))
    first = threading.Thread(target=lambda: client.converse(**question(1)))
    first.start()
    while not bedrock.calls:
        pass
    found = reason(client, question(2))
    first.join()
    assert found == "concurrent_write"


def test_misses_are_counted_by_reason(bedrock: Bedrock) -> None:
    client = bedrock.wrapped(EXPLICIT)
    for _ in range(3):
        client.converse(modelId=SONNET, messages=[user(DOCUMENT, point(), "Why?")])
        bedrock.emulator.evict()
    client.converse(modelId=SONNET, messages=[user(DOCUMENT, point(), "Why?")])
    assert client.ledger.totals().misses == {"evicted_or_rerouted": 3}


def test_a_model_that_takes_no_checkpoints_misses_nothing(bedrock: Bedrock) -> None:
    client = bedrock.wrapped()
    request = question(1, "us.meta.llama3-3-70b-instruct-v1:0")
    assert [miss(client, request) for _ in range(2)] == [None, None]


def test_messages_changed_behind_a_system_prompt_that_is_read(bedrock: Bedrock) -> None:
    client = bedrock.wrapped()
    client.converse(**remembering(1, "An answer"))
    client.converse(**remembering(2, "An answer"))
    found = miss(client, remembering(3, "The answer"))
    assert found is not None
    assert found["reason"] == "messages_changed"
    assert found["path"] == "messages[1].content[0]"
    assert found["lost_tokens"] > 2000


def remembering(number: int, begins: str) -> Json:
    """A question after a turn whose long answer begins so."""
    history = [
        {"role": "user", "content": [{"text": "What is it?"}]},
        {"role": "assistant", "content": [{"text": f"{begins} that goes on for a while. " + "And on it goes. " * 900}]},
    ]
    asked = question(number)
    return {**asked, "messages": [*history, *asked["messages"]]}
