"""What a caller sees of the cache: writes, reads, lifetimes, and which counters come at all."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from emulator.conftest import LONG_TEXT, SONNET, ask, cached_system

from cachepoint.emulator import BedrockEmulator, Clock, Latency, Options

NOVA = "us.amazon.nova-lite-v1:0"
LLAMA = "us.meta.llama3-3-70b-instruct-v1:0"
SLOW_START = Latency(fixed=0.3, uncached_token=0, cached_token=0, output_token=0, sleep=True)
COUNTERS = ("cacheReadInputTokens", "cacheWriteInputTokens")


def usage(client: Any, model: str = SONNET, **request: Any) -> Any:
    request.setdefault("messages", ask())
    return client.converse(modelId=model, **request)["usage"]


def read_and_written(client: Any, model: str = SONNET, **request: Any) -> tuple[int, int]:
    found = usage(client, model, **request)
    return found.get("cacheReadInputTokens", 0), found.get("cacheWriteInputTokens", 0)


def test_what_one_call_writes_the_next_reads(client: Any) -> None:
    first = usage(client, system=cached_system())
    second = usage(client, system=cached_system(), messages=ask("And at night?"))
    assert first["cacheWriteInputTokens"] > 1024
    assert second["cacheReadInputTokens"] == first["cacheWriteInputTokens"]
    assert second["cacheWriteInputTokens"] == 0
    assert second["totalTokens"] == (second["inputTokens"] + second["cacheReadInputTokens"] + second["outputTokens"])


def test_an_entry_lives_five_minutes_from_its_last_use(emulator: BedrockEmulator, client: Any) -> None:
    _, written = read_and_written(client, system=cached_system())
    for _ in range(3):
        emulator.clock.advance(299)
        assert read_and_written(client, system=cached_system()) == (written, 0)
    emulator.clock.advance(300)
    assert read_and_written(client, system=cached_system()) == (0, written)


def test_an_hour_long_entry_outlives_a_short_one_and_is_reported_apart(emulator: BedrockEmulator, client: Any) -> None:
    first = usage(client, system=cached_system(ttl="1h"))
    assert first["cacheDetails"] == [{"ttl": "1h", "inputTokens": first["cacheWriteInputTokens"]}]
    emulator.clock.advance(3599)
    assert read_and_written(client, system=cached_system(ttl="1h"))[0] == first["cacheWriteInputTokens"]


def test_details_list_the_longer_lifetime_first(client: Any) -> None:
    messages = [{"role": "user", "content": [{"text": "At noon?"}, {"cachePoint": {"type": "default"}}]}]
    details = usage(client, system=cached_system(ttl="1h"), messages=messages)["cacheDetails"]
    assert [detail["ttl"] for detail in details] == ["1h", "5m"]


def test_a_prefix_below_the_minimum_is_served_and_not_cached(client: Any) -> None:
    for _ in range(2):
        assert read_and_written(client, system=cached_system("You are brief.")) == (0, 0)


def test_evicted_entries_are_written_again(emulator: BedrockEmulator, client: Any) -> None:
    _, written = read_and_written(client, system=cached_system())
    assert emulator.evict() == 1
    assert read_and_written(client, system=cached_system()) == (0, written)


@pytest.mark.parametrize(
    "other",
    [{"account": "ANOTHER"}, {"region": "eu-west-1"}],
    ids=["account", "region"],
)
def test_entries_are_not_shared_across(emulator: BedrockEmulator, client: Any, other: dict[str, str]) -> None:
    _, written = read_and_written(client, system=cached_system())
    assert read_and_written(emulator.client(**other), system=cached_system()) == (0, written)


def test_entries_are_not_shared_across_model_ids(client: Any) -> None:
    _, written = read_and_written(client, system=cached_system())
    assert read_and_written(client, SONNET.removeprefix("us."), system=cached_system()) == (0, written)


def test_a_stream_reads_what_a_plain_call_wrote(client: Any) -> None:
    _, written = read_and_written(client, system=cached_system())
    events = list(client.converse_stream(modelId=SONNET, system=cached_system(), messages=ask())["stream"])
    assert events[-1]["metadata"]["usage"]["cacheReadInputTokens"] == written


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        ({"toolConfig": {"tools": ["lamp"], "toolChoice": {"any": {}}}}, "system"),
        ({"toolConfig": {"tools": ["horn"]}}, "nothing"),
        ({"additionalModelRequestFields": {"thinking": {"type": "enabled", "budget_tokens": 1024}}}, "nothing"),
        ({"additionalModelRequestFields": {"thinking": {"type": "disabled"}}}, "everything"),
        ({"additionalModelRequestFields": {"output_config": {"effort": "high"}}}, "everything"),
        ({"inferenceConfig": {"temperature": 0.5, "maxTokens": 64}}, "everything"),
        ({"additionalModelRequestFields": {"speed": "fast"}}, "tools"),
        ({"additionalModelRequestFields": {"speed": "standard"}}, "everything"),
        ({"additionalModelRequestFields": {"system": "Be brief."}}, "tools"),
        ({"additionalModelRequestFields": {"context_management": {"edits": []}}}, "system"),
        ({"additionalModelRequestFields": {"tools": [{"type": "bash_20250124", "name": "bash"}]}}, "nothing"),
        ({"additionalModelRequestFields": {"anthropic_beta": ["computer-use-2025-11-24"]}}, "nothing"),
        ({"promptVariables": {"topic": {"text": "lamps"}}}, "nothing"),
    ],
    ids=[
        "tool choice",
        "another tool",
        "thinking on",
        "thinking off",
        "the default effort",
        "temperature",
        "fast mode",
        "standard speed",
        "system text in the fields",
        "context management",
        "tools in the fields",
        "a beta",
        "variables of a stored prompt",
    ],
)
def test_a_change_loses_the_sections_that_depend_on_it(client: Any, change: dict[str, Any], kept: str) -> None:
    request = {
        "system": cached_system(),
        "messages": [{"role": "user", "content": [{"text": LONG_TEXT}, {"cachePoint": {"type": "default"}}]}],
        "toolConfig": {"tools": ["lamp"]},
    }
    written = {}
    for sections in ("tools", "system", "everything"):
        sent = {**request, "messages": ask()} if sections != "everything" else request
        sent = {**sent, "system": [{"text": "Be fair."}]} if sections == "tools" else sent
        written[sections] = sum(read_and_written(client, **with_tools(sent, point=True)))
    read, _ = read_and_written(client, **with_tools({**request, **change}, point=True))
    assert read == {"nothing": 0, **written}[kept]


@pytest.mark.parametrize(
    ("model", "absent"),
    [("claude-sonnet-5", "adaptive"), ("claude-opus-4-8", "disabled")],
)
def test_thinking_left_out_is_the_models_default(client: Any, model: str, absent: str) -> None:
    model = f"us.anthropic.{model}"
    _, written = read_and_written(client, model, system=cached_system())
    read = {}
    for kind in ("adaptive", "disabled"):
        fields = {"thinking": {"type": kind}}
        read[kind], _ = read_and_written(client, model, system=cached_system(), additionalModelRequestFields=fields)
    assert read == {"adaptive": 0, "disabled": 0, absent: written}


def test_where_thinking_cannot_be_turned_off_it_is_the_default(client: Any) -> None:
    model = "us.anthropic.claude-opus-5-5"
    _, written = read_and_written(client, model, system=cached_system())
    fields = {"thinking": {"type": "adaptive"}}
    assert read_and_written(client, model, system=cached_system(), additionalModelRequestFields=fields) == (written, 0)


def test_effort_left_out_is_the_models_default(client: Any) -> None:
    model = "us.anthropic.claude-opus-5-5"  # medium; most others think with high effort
    _, written = read_and_written(client, model, system=cached_system())
    efforts = [{"output_config": {"effort": effort}} for effort in ("medium", "high")]
    read = [
        read_and_written(client, model, system=cached_system(), additionalModelRequestFields=fields)[0]
        for fields in efforts
    ]
    assert read == [written, 0]


@pytest.mark.parametrize(
    "fields",
    [
        {"additionalModelRequestFields": {"tools": [{"type": "custom", "name": "lamp", "description": LONG_TEXT}]}},
        {"promptVariables": {"chapter": {"text": LONG_TEXT}}},
    ],
    ids=["tools in the fields", "variables of a stored prompt"],
)
def test_text_outside_the_blocks_counts_towards_the_minimum(client: Any, fields: dict[str, Any]) -> None:
    short = cached_system("You are brief.")
    assert read_and_written(client, system=short) == (0, 0)
    assert read_and_written(client, system=short, **fields)[1] > 1024


@pytest.mark.parametrize(("after", "alive"), [(59, True), (61, False)])
def test_a_long_answer_uses_up_the_life_of_what_its_request_wrote(
    emulator: BedrockEmulator, client: Any, after: int, alive: bool
) -> None:
    """The life counts from the request (R3.8): of 300 seconds four minutes of streaming leave 60."""
    stream = iter(client.converse_stream(modelId=SONNET, system=cached_system(), messages=ask())["stream"])
    next(stream)
    emulator.clock.advance(240)
    written = list(stream)[-1]["metadata"]["usage"]["cacheWriteInputTokens"]
    emulator.clock.advance(after)
    assert read_and_written(client, system=cached_system()) == ((written, 0) if alive else (0, written))


def with_tools(request: dict[str, Any], *, point: bool = False) -> dict[str, Any]:
    """The request with its tools' names spelt out as specifications, long enough for a checkpoint after them."""
    schema = {"json": {"type": "object", "properties": {"on": {"type": "boolean"}}}}
    config = request["toolConfig"]
    tools: list[dict[str, Any]] = [
        {"toolSpec": {"name": name, "description": LONG_TEXT, "inputSchema": schema}} for name in config["tools"]
    ]
    return {**request, "toolConfig": {**config, "tools": tools + [{"cachePoint": {"type": "default"}}] * point}}


def test_an_image_anywhere_loses_the_messages_only(client: Any) -> None:
    question = [{"text": LONG_TEXT}, {"cachePoint": {"type": "default"}}]
    image = {"image": {"format": "png", "source": {"bytes": b"not really a picture"}}}
    system, messages = cached_system(), [{"role": "user", "content": question}]
    _, written = read_and_written(client, system=system, messages=messages)
    read, _ = read_and_written(client, system=system, messages=[{"role": "user", "content": [*question, image]}])
    assert 0 < read < written


@pytest.mark.parametrize(("model", "kept"), [("claude-haiku-4-5-20251001-v1:0", False), ("claude-sonnet-4-6", True)])
def test_a_new_question_drops_earlier_thinking_on_models_that_do_not_keep_it(
    client: Any, model: str, kept: bool
) -> None:
    thought = {"reasoningContent": {"reasoningText": {"text": "Noon, then.", "signature": "s"}}}
    turns = [
        *ask(LONG_TEXT * 4),
        {"role": "assistant", "content": [thought, {"text": "Clear."}, {"cachePoint": {"type": "default"}}]},
        *ask("And at night?"),
    ]
    later = [*turns[:1], {"role": "assistant", "content": turns[1]["content"][1:]}, *turns[2:]]
    _, written = read_and_written(client, f"us.anthropic.{model}", messages=turns)
    read, _ = read_and_written(client, f"us.anthropic.{model}", messages=later)
    assert read == (0 if kept else written)


def test_a_tool_choice_changes_the_whole_prompt_on_nova(client: Any) -> None:
    request = with_tools({"system": cached_system(), "toolConfig": {"tools": ["lamp"]}})
    read_and_written(client, NOVA, **request)
    request["toolConfig"]["toolChoice"] = {"any": {}}
    assert read_and_written(client, NOVA, **request)[0] == 0


def test_thinking_may_be_told_to_touch_the_messages_only() -> None:
    enabled = {"type": "enabled", "budget_tokens": 1024}
    thinking: dict[str, Any] = {"additionalModelRequestFields": {"thinking": enabled}}
    with BedrockEmulator(options=Options(thinking_in_every_section=False)) as emulator:
        client = emulator.client()
        _, written = read_and_written(client, system=cached_system())
        assert read_and_written(client, system=cached_system(), **thinking) == (written, 0)


def test_a_text_document_after_the_checkpoint_is_cached_with_its_message(client: Any) -> None:
    document = {"document": {"name": "log", "format": "txt", "source": {"bytes": LONG_TEXT.encode()}}}
    content = [{"text": LONG_TEXT}, {"cachePoint": {"type": "default"}}, document]
    _, written = read_and_written(client, messages=[{"role": "user", "content": content}])
    _, without = read_and_written(client, messages=[{"role": "user", "content": content[:2]}])
    assert written > 1.8 * without


class TestCountersOnTheWire:
    def test_converse_on_claude_always_has_them(self, client: Any) -> None:
        assert [usage(client)[counter] for counter in COUNTERS] == [0, 0]

    def test_a_stream_on_claude_has_them_only_with_checkpoints(self, client: Any) -> None:
        stream = client.converse_stream(modelId=SONNET, messages=ask())["stream"]
        assert not set(COUNTERS) & set(list(stream)[-1]["metadata"]["usage"])

    def test_nova_has_them_only_with_checkpoints_and_never_details(self, client: Any) -> None:
        assert not set(COUNTERS) & set(usage(client, NOVA))
        marked = usage(client, NOVA, system=cached_system())
        assert marked["cacheWriteInputTokens"] > 1000
        assert "cacheDetails" not in marked

    def test_a_model_without_caching_never_has_them(self, client: Any) -> None:
        assert not set(COUNTERS) & set(usage(client, LLAMA))

    def test_details_come_exactly_with_a_write_on_claude(self, client: Any) -> None:
        assert "cacheDetails" in usage(client, system=cached_system())
        assert "cacheDetails" not in usage(client, system=cached_system())


def test_an_entry_cannot_be_read_before_the_response_that_wrote_it_begins() -> None:
    with BedrockEmulator(clock=Clock(lambda: 0.0), latency=SLOW_START) as emulator:
        client = emulator.client()
        with ThreadPoolExecutor(4) as pool:
            served = list(pool.map(lambda _: read_and_written(client, system=cached_system()), range(4)))
        assert all(read == 0 and written > 0 for read, written in served)
        assert read_and_written(client, system=cached_system())[0] > 0
