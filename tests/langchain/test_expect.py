"""What a run's config, or a mark on a message, says of requests to come."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langchain_core.tools import tool
from langchain_kit import LONG, Json, sent, told

import cachepoint
from cachepoint.emulator import BedrockEmulator
from cachepoint.errors import ConfigurationError
from cachepoint.langchain import CacheAwareChatBedrockConverse

Model = CacheAwareChatBedrockConverse
EXPECT = "prompt_cache_expect"
GOES_ON: RunnableConfig = {"configurable": {EXPECT: {"ends": False}}}
MARK: Json = {EXPECT: {"ends": False}}


def was_told(answer: BaseMessage) -> bool:
    assert isinstance(answer, AIMessage)
    return any("you said that it comes back" in point["why"] for point in told(answer)["checkpoints"])


async def answered(model: Any, method: str, number: int, config: Any = None) -> BaseMessage:
    """The answer to a long first question; of a stream the chunk that tells."""
    asked = [HumanMessage(f"{number}: {LONG}")]
    if method == "batch":
        found = model.batch([asked], config)
    elif method == "stream":
        found = list(model.stream(asked, config))
    elif method == "astream":
        found = [chunk async for chunk in model.astream(asked, config)]
    else:
        found = [await model.ainvoke(asked, config) if method == "ainvoke" else model.invoke(asked, config)]
    answer: BaseMessage = next(each for each in found if "prompt_cache" in each.response_metadata)
    return answer


@pytest.mark.parametrize("method", ["invoke", "ainvoke", "stream", "astream", "batch"])
async def test_a_config_says_it_whatever_the_method(model: Model, method: str) -> None:
    assert not was_told(await answered(model, method, 1))
    assert was_told(await answered(model, method, 2, GOES_ON))
    assert was_told(await answered(model.with_config(GOES_ON), method, 3))


def test_the_config_of_a_chain_reaches_the_model(model: Model) -> None:
    chain: Any = RunnableLambda(lambda question: [HumanMessage(question)]) | model
    assert was_told(chain.invoke(LONG, GOES_ON))
    inside: Any = RunnableLambda(lambda question: model.invoke([HumanMessage(question)]))
    assert was_told(inside.invoke(f"Else: {LONG}", GOES_ON))


def test_the_block_says_it_too_and_a_config_goes_before_it(model: Model) -> None:
    with cachepoint.expect(ends=False):
        assert was_told(model.invoke([HumanMessage(LONG)]))
        assert not was_told(model.invoke([HumanMessage(LONG)], {"configurable": {EXPECT: {"ends": True}}}))


def test_a_mark_on_a_message_says_it_of_its_turn(model: Model, emulator: BedrockEmulator) -> None:
    marked = HumanMessage(LONG, additional_kwargs=MARK)
    assert was_told(model.invoke([marked]))
    assert EXPECT not in str(sent(emulator)[-1])
    assert not was_told(model.invoke([marked, AIMessage("So."), HumanMessage(LONG[::-1] * 5)]))
    assert was_told(model.invoke([SystemMessage(LONG, additional_kwargs=MARK), HumanMessage("Why?")]))
    assert was_told(model.invoke([HumanMessage(LONG), AIMessage("So."), HumanMessage("And?", additional_kwargs=MARK)]))


def test_a_mark_holds_through_the_tool_calls_of_its_turn(model: Model) -> None:
    call = AIMessage("", tool_calls=[{"name": "look_up", "args": {"word": "tea"}, "id": "use-1"}])
    turn = [HumanMessage(LONG, additional_kwargs=MARK), call, ToolMessage("A drink.", tool_call_id="use-1")]
    assert was_told(model.bind_tools([look_up]).invoke(turn))


@pytest.mark.parametrize("config", [{EXPECT: {"end": True}}, {EXPECT: "goes on"}, {EXPECT: {"times": 0}}])
def test_a_wrong_one_is_refused_before_anything_is_sent(model: Model, emulator: BedrockEmulator, config: Json) -> None:
    with pytest.raises(ConfigurationError):
        model.invoke([HumanMessage(LONG)], {"configurable": config})
    with pytest.raises(ConfigurationError):
        model.invoke([HumanMessage(LONG, additional_kwargs=config)])
    assert not emulator.requests


@tool
def look_up(word: str) -> str:
    """Look a word up."""
    return word
