"""What the class relies on in its parent beyond the public face; a langchain-aws that breaks it fails here."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from langchain_aws import ChatBedrockConverse
from langchain_core.messages import AIMessage, HumanMessage
from langchain_kit import CONNECTION, MODEL

from cachepoint.langchain import CacheAwareChatBedrockConverse
from cachepoint.langchain._request.carried import marker


class Wire:
    """A client that shows the request and gives a bare answer."""

    def __init__(self) -> None:
        self.request: dict[str, Any] = {}

    def converse(self, **request: Any) -> dict[str, Any]:
        self.request = request
        message = {"role": "assistant", "content": [{"text": "Yes."}]}
        return {"output": {"message": message}, "usage": {}, "extra": {"a": 1}}

    def converse_stream(self, **request: Any) -> dict[str, Any]:
        self.request = request
        stop = {"messageStop": {"stopReason": "end_turn"}}
        return {"stream": [stop, {"metadata": {"usage": {}, "extra": {"a": 1}}}]}


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
def parent(wire: Wire) -> ChatBedrockConverse:
    return ChatBedrockConverse(model=MODEL, client=wire, bedrock_client=object(), **CONNECTION)


@pytest.mark.parametrize("method", ["_generate", "_stream"])
def test_it_takes_its_calls_through_these(method: str) -> None:
    assert list(inspect.signature(getattr(ChatBedrockConverse, method)).parameters) == [
        "self", "messages", "stop", "run_manager", "kwargs",
    ]  # fmt: skip


def test_it_calls_the_client_of_the_model_it_runs_on(parent: ChatBedrockConverse, wire: Wire) -> None:
    parent.model_copy().invoke("Hello")
    assert {"messages", "system", "modelId"} <= set(wire.request)

    list(parent.model_copy().stream("Hello"))
    assert {"messages", "system", "modelId"} <= set(wire.request)


def test_keys_of_a_response_become_metadata(parent: ChatBedrockConverse) -> None:
    assert parent.invoke("Hello").response_metadata["extra"] == {"a": 1}
    assert [chunk.response_metadata.get("extra") for chunk in parent.stream("Hello")][:2] == [None, {"a": 1}]


def test_a_usage_without_numbers_becomes_zeros(parent: ChatBedrockConverse) -> None:
    usage = parent.invoke("Hello").usage_metadata

    assert usage is not None
    assert usage["total_tokens"] == 0


def test_blocks_without_a_type_pass_untouched(parent: ChatBedrockConverse, wire: Wire) -> None:
    note = marker("system_turn")

    parent.invoke([HumanMessage("Hello"), HumanMessage([note, {"text": "x"}, {"cachePoint": {"type": "default"}}])])

    assert wire.request["messages"][0]["content"] == [
        {"text": "Hello"}, note, {"text": "x"}, {"cachePoint": {"type": "default"}},
    ]  # fmt: skip


def test_a_checkpoint_in_an_assistant_turn_is_unwrapped(parent: ChatBedrockConverse, wire: Wire) -> None:
    point = {"cachePoint": {"type": "default"}}

    answer = AIMessage([{"type": "text", "text": "Yes."}, {"type": "non_standard", "value": point}])
    parent.invoke([HumanMessage("Hello"), answer])

    assert wire.request["messages"][1]["content"] == [{"text": "Yes."}, point]


def test_these_exist() -> None:
    assert callable(ChatBedrockConverse._resolve_model_profile)
    assert callable(ChatBedrockConverse.validate_environment)
    assert ChatBedrockConverse.model_fields["client"].exclude
    assert issubclass(CacheAwareChatBedrockConverse, ChatBedrockConverse)
