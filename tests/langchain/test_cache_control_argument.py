"""`cache_control` as an argument means "cache, with this TTL"; the placing stays with cachepoint."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.runnables import Runnable
from langchain_core.tools import tool
from langchain_kit import EPHEMERAL_1H, LONG, MODEL, NOVA, MakeModel, question, sent
from pydantic import BaseModel

from cachepoint import CachePolicy
from cachepoint.emulator import BedrockEmulator
from cachepoint.errors import ConfigurationError
from cachepoint.langchain import CacheAwareChatBedrockConverse

Model = CacheAwareChatBedrockConverse


@tool
def look_up(word: str) -> str:
    """Look a word up."""
    return word


class Word(BaseModel):
    """A word."""

    text: str


def points(value: Any) -> list[Any]:
    """All checkpoints in a request, in no order."""
    if isinstance(value, dict):
        found = [value["cachePoint"]] if "cachePoint" in value else []
        return found + [point for inner in value.values() for point in points(inner)]
    return [point for inner in value for point in points(inner)] if isinstance(value, list) else []


ROUTES: dict[str, Callable[[Model], Runnable[Any, Any]]] = {
    "bound": lambda model: model.bind(cache_control=EPHEMERAL_1H),
    "bound before tools": lambda model: model.bind(cache_control=EPHEMERAL_1H).bind_tools([look_up]),
    "bound after tools": lambda model: model.bind_tools([look_up]).bind(cache_control=EPHEMERAL_1H),
    "with tools": lambda model: model.bind_tools([look_up], cache_control=EPHEMERAL_1H),
    "bound before structured output": lambda model: model.bind(cache_control=EPHEMERAL_1H).with_structured_output(Word),
    "bound after structured output": lambda model: model.with_structured_output(Word).bind(cache_control=EPHEMERAL_1H),
    "with structured output": lambda model: model.with_structured_output(Word, cache_control=EPHEMERAL_1H),
    "with a json schema": lambda model: model.with_structured_output(
        Word, method="json_schema", cache_control=EPHEMERAL_1H
    ),
    "with the raw answer": lambda model: model.with_structured_output(
        Word, include_raw=True, cache_control=EPHEMERAL_1H
    ),
}


@pytest.mark.parametrize("route", ROUTES)
def test_it_holds_by_whichever_route_it_comes(route: str, model: Model, emulator: BedrockEmulator) -> None:
    ROUTES[route](model).invoke(question())

    ttls = {point.get("ttl") for point in points(sent(emulator)[-1])}
    assert ttls == {"1h"}


def test_it_holds_for_one_call_only(model: Model, emulator: BedrockEmulator) -> None:
    model.invoke(question(), cache_control=EPHEMERAL_1H)
    list(model.stream([SystemMessage("Other. " + 3 * LONG), HumanMessage("Why?")]))

    assert [point.get("ttl") for body in sent(emulator) for point in points(body)] == ["1h", None]
    assert model.prompt_cache == CachePolicy()


def test_it_holds_when_the_model_is_made_with_it(make_model: MakeModel, emulator: BedrockEmulator) -> None:
    model = make_model(cache_control=EPHEMERAL_1H)

    model.invoke(question())

    assert model.prompt_cache.ttl == "1h"
    assert model.additional_model_request_fields is None
    assert [point["ttl"] for point in points(sent(emulator)[-1])] == ["1h"]


def test_it_asks_for_caching_where_the_policy_places_nothing_by_itself(
    make_model: MakeModel, emulator: BedrockEmulator
) -> None:
    model = make_model(prompt_cache=CachePolicy(mode="explicit"))

    model.invoke(question())
    model.invoke(question(), cache_control={"type": "ephemeral"})

    before, after = (len(points(body)) for body in sent(emulator))
    assert (before, after > 0) == (0, True)


def test_the_parents_fixed_positions_are_not_added(model: Model, emulator: BedrockEmulator) -> None:
    """The parent would mark a question, and a system prompt far below the minimum."""
    model.invoke([SystemMessage("Short."), HumanMessage("Why?")], cache_control={"type": "ephemeral"})

    assert points(sent(emulator)[-1]) == []


@pytest.mark.parametrize(
    "model_id",
    ["us.meta.llama3-3-70b-instruct-v1:0", "openai.gpt-oss-120b-1:0", "qwen.qwen3-32b-v1:0"],
)
def test_a_model_that_does_not_cache_is_not_asked_to(
    model_id: str, make_model: MakeModel, emulator: BedrockEmulator
) -> None:
    """The parent sends the checkpoint all the same, which the service refuses."""
    make_model(model=model_id).invoke(question(), cache_control=EPHEMERAL_1H)

    assert points(sent(emulator)[-1]) == []


def test_a_lifetime_that_a_model_does_not_have_is_not_asked_for(
    make_model: MakeModel, emulator: BedrockEmulator
) -> None:
    make_model(model=NOVA).invoke(question(), cache_control=EPHEMERAL_1H)

    assert {point.get("ttl") for point in points(sent(emulator)[-1])} == {None}


@pytest.mark.parametrize("ttl", ["2h", 3600])
def test_a_lifetime_that_nobody_has_is_named(ttl: Any, model: Model, make_model: MakeModel) -> None:
    with pytest.raises(ConfigurationError, match=repr(ttl)):
        model.invoke("Hello", cache_control={"type": "ephemeral", "ttl": ttl})
    with pytest.raises(ConfigurationError, match=repr(ttl)):
        make_model(cache_control={"ttl": ttl})


def test_the_parents_caching_middleware_is_understood(model: Model, emulator: BedrockEmulator) -> None:
    agents = pytest.importorskip("langchain.agents")
    from langchain_aws.middleware.prompt_caching import BedrockPromptCachingMiddleware

    agent = agents.create_agent(
        model,
        [look_up],
        system_prompt=LONG,
        middleware=[BedrockPromptCachingMiddleware(ttl="1h", unsupported_model_behavior="raise")],
    )

    answer = agent.invoke({"messages": [HumanMessage("Look up the word hit with the tool look_up.")]})

    assert isinstance(answer["messages"][-1], AIMessage)
    assert {point.get("ttl") for body in sent(emulator) for point in points(body)} == {"1h"}
    assert model.ledger.by("model")[MODEL].calls == len(emulator.requests)
