"""Ways in which caching broke for others, each as a story of our model; `known_defects.toml` says which."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import ModelFallbackMiddleware
from langchain_aws.middleware import BedrockPromptCachingMiddleware
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from langchain_core.tools import tool
from langchain_kit import EPHEMERAL, EPHEMERAL_1H, LONG, MODEL, NOVA, POINT, Json, MakeModel, sent

from cachepoint.emulator import BedrockEmulator, failed
from cachepoint.errors import CachepointWarning
from cachepoint.langchain import CacheAwareChatBedrockConverse, PromptCacheMiddleware

pytestmark = pytest.mark.usefixtures("nothing_warned_of")

Model = CacheAwareChatBedrockConverse
MOST_POINTS = 4


@tool
def look_up(word: str) -> str:
    """Look a word up."""
    return word


def marked(text: str, mark: Json = EPHEMERAL) -> Json:
    return {"type": "text", "text": text, "cache_control": mark}


def points(value: Any) -> list[Json]:
    """All checkpoints in a request, in the order of the wire within each section."""
    if isinstance(value, dict):
        return [value["cachePoint"]] if "cachePoint" in value else [p for v in value.values() for p in points(v)]
    return [point for each in value for point in points(each)] if isinstance(value, list) else []


def read(model: Model) -> int:
    """Tokens that the last call read."""
    usage = model.ledger.records[-1].usage
    assert usage is not None
    return usage.cache_read


def turn(number: int) -> list[BaseMessage]:
    return [HumanMessage(f"Question {number}?"), AIMessage(f"Answer {number}. " + LONG)]


@pytest.mark.parametrize("tail", [(), ("Answer in one sentence, in plain words.",)], ids=["", "fixed instruction"])
@pytest.mark.parametrize("mark", [False, True], ids=["unmarked", "system marked"])
@pytest.mark.parametrize("model_id", [MODEL, NOVA])
def test_a_growing_conversation_reads_what_the_turn_before_sent(
    model_id: str, mark: bool, tail: tuple[str, ...], make_model: MakeModel
) -> None:
    model = make_model(model=model_id)
    system = SystemMessage([marked(LONG)] if mark else LONG)
    history: list[BaseMessage] = []
    for number in range(6):
        model.invoke([system, *history, HumanMessage(f"Question {number}?"), *map(HumanMessage, tail)])
        history += turn(number)

    usages = [record.usage for record in model.ledger.records if record.usage]
    for before, after in list(pairwise(usages))[1:]:
        assert after.cache_read > before.prompt - 40


def test_more_marks_than_the_service_takes_are_thinned_nested_ones_too(
    make_model: MakeModel, emulator: BedrockEmulator
) -> None:
    call: Any = {"name": "look_up", "args": {"word": "a"}, "id": "call-1", "type": "tool_call"}
    nested = {"type": "tool_result", "tool_use_id": "call-1", "content": [{"type": "text", "text": LONG}, POINT]}
    messages = [
        SystemMessage([marked(LONG)]),
        HumanMessage([marked(f"{number} {LONG}") for number in range(3)]),
        AIMessage("", tool_calls=[call]),
        HumanMessage([nested, marked("And then?")]),
    ]
    model = make_model(prompt_cache={"mode": "explicit"})

    with pytest.warns(CachepointWarning, match="only 4"):
        model.bind_tools([look_up]).invoke(messages)

    (body,) = sent(emulator)
    assert len(points(body)) == MOST_POINTS
    assert body["messages"][-1]["content"][0]["toolResult"]["content"] == [{"text": LONG}]


FIVE_MINUTES = {"type": "ephemeral", "ttl": "5m"}


def test_an_hour_never_comes_behind_five_minutes(model: Model, emulator: BedrockEmulator) -> None:
    """The service refuses that; the parent sends it."""
    system = SystemMessage([marked(LONG, FIVE_MINUTES)])
    with pytest.warns(CachepointWarning, match="raised from 5m to 1h"):
        model.invoke([system, HumanMessage([marked(LONG, EPHEMERAL_1H)])])
    model.bind_tools([look_up]).invoke([system, HumanMessage(LONG)], cache_control=EPHEMERAL_1H)

    raised, kept = ([point.get("ttl", "5m") for point in points(body)] for body in sent(emulator))
    assert raised == ["1h", "1h"]
    assert set(kept) == {"5m"}
    assert [call.status for call in emulator.requests] == [200, 200]


REASONING = {"type": "reasoning_content", "reasoning_content": {"text": "First this.", "signature": "c2lnbmVk"}}


def test_no_checkpoint_follows_reasoning_and_the_history_is_still_read(
    make_model: MakeModel, emulator: BedrockEmulator
) -> None:
    model = make_model()
    history: list[BaseMessage] = [HumanMessage(LONG)]
    for _ in range(3):
        model.invoke([*history, HumanMessage("Why?")])
        history += [HumanMessage("Why?"), AIMessage([{"type": "text", "text": LONG}, REASONING])]
    model.invoke([*history, HumanMessage("Why?")], cache_control=EPHEMERAL)
    assert read(model) > 3_000

    model.invoke(history, cache_control=EPHEMERAL)  # ends in reasoning
    blocks = [message["content"] for body in sent(emulator)[1:] for message in body["messages"]]
    behind = [list(after) for content in blocks for before, after in pairwise(content) if "reasoningContent" in before]
    assert "reasoningContent" in blocks[-1][-1]
    assert "cachePoint" in str(blocks)
    assert behind == []


def test_a_bare_string_at_the_end_of_the_system_prompt_is_sent(model: Model, emulator: BedrockEmulator) -> None:
    prompt = SystemMessage([{"type": "text", "text": LONG}, "Be brief."])
    agent: Any = create_agent(model, [], system_prompt=prompt, middleware=[PromptCacheMiddleware()])

    agent.invoke({"messages": [HumanMessage("Why?")]})

    assert [block["text"] for block in sent(emulator)[-1]["system"] if "text" in block] == [LONG, "Be brief."]


def test_tools_are_cached_where_the_last_one_is_a_dict(model: Model) -> None:
    define = {"name": "define", "description": LONG, "input_schema": {"type": "object", "properties": {}}}
    agent: Any = create_agent(model, [look_up, define], middleware=[BedrockPromptCachingMiddleware()])

    for text in ("Who?", "What?"):
        agent.invoke({"messages": [HumanMessage(text)]})

    assert read(model) > 1_000


def test_a_fallback_in_an_agent_is_cached_too(make_model: MakeModel, emulator: BedrockEmulator) -> None:
    """LangChain's middleware takes `cache_control` away before it calls the other model."""
    other = make_model()
    agent: Any = create_agent(
        make_model(model=NOVA, max_retries=0),
        [look_up],
        system_prompt=LONG,
        middleware=[BedrockPromptCachingMiddleware(), ModelFallbackMiddleware(other)],
    )

    for text in ("Who?", "What?"):
        emulator.fail_next(failed("InternalServerException"), model_id=NOVA)
        agent.invoke({"messages": [HumanMessage(text)]})

    assert [record.status for record in other.ledger.records] == ["written", "extended"]  # by the question
