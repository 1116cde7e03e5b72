"""What the emulated model answers: what a script says, else something fitting and always the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from botocore.config import Config
from emulator.conftest import SONNET, ask
from hypothesis import given
from hypothesis import strategies as st

from cachepoint.emulator import BedrockEmulator, Question, Reasoning, Reply, Text, ToolCall
from cachepoint.emulator._answering.arguments import arguments_for
from cachepoint.errors import EmulatorError

WEATHER = {
    "toolSpec": {
        "name": "get_weather",
        "inputSchema": {"json": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}},
    }
}
ADD = {
    "toolSpec": {
        "name": "add",
        "inputSchema": {
            "json": {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}},
        },
    }
}


def answer(client: Any, text: str = "Good morning.", **request: Any) -> Any:
    request.setdefault("messages", ask(text))
    return client.converse(modelId=SONNET, **request)


def content(response: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = response["output"]["message"]["content"]
    return found


def test_the_same_question_gets_the_same_answer_with_and_without_checkpoints(client: Any) -> None:
    whole = [{"role": "user", "content": [{"text": "Good morning."}]}]
    cut = [{"role": "user", "content": [{"text": "Good "}, {"cachePoint": {"type": "default"}}, {"text": "morning."}]}]
    assert content(answer(client, messages=whole)) == content(answer(client, messages=cut))
    assert content(answer(client)) != content(answer(client, "Good night."))


def test_scripted_replies_come_in_their_order_then_the_default(emulator: BedrockEmulator, client: Any) -> None:
    emulator.script("One.", {"two": 2}, [Reasoning("Hm."), Text("Three.")], lambda question: f"{question.text} Four.")
    assert content(answer(client)) == [{"text": "One."}]
    assert json.loads(content(answer(client))[0]["text"]) == {"two": 2}
    assert [next(iter(block)) for block in content(answer(client))] == ["reasoningContent", "text"]
    assert content(answer(client)) == [{"text": "Good morning. Four."}]
    assert content(answer(client))[0]["text"].startswith("Answer ")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: 5, "a scripted reply is a int; give text, Text"),
        (lambda: [Text("One."), "two"], "a scripted reply is a list; give text, Text"),
        (lambda: ToolCall("t", "text"), r"ToolCall\(input='text'\): give a mapping"),  # type: ignore[arg-type]
        (lambda: ToolCall("t", {}, cut=-1), r"ToolCall\(cut=-1\): give a number of characters"),
        (lambda: Text(5), r"Text\(text=5\): give text"),  # type: ignore[arg-type]
        (lambda: Reply("One."), r"Reply\(parts='One.'\): give a tuple of Text"),  # type: ignore[arg-type]
    ],
)
def test_what_is_no_reply_is_refused_where_it_is_given(
    emulator: BedrockEmulator, client: Any, wrong: Callable[[], Any], said: str
) -> None:
    with pytest.raises(EmulatorError, match=said):
        emulator.script("One.", wrong())
    assert content(answer(client))[0]["text"].startswith("Answer ")


def test_a_replier_sees_the_question_and_answers_every_call() -> None:
    def echo(question: Question) -> Reply:
        return Reply((Text(question.text.upper()),), stop_reason="content_filtered")

    with BedrockEmulator(replies=echo) as emulator:
        response = answer(emulator.client())
    assert content(response) == [{"text": "GOOD MORNING."}]
    assert response["stopReason"] == "content_filtered"


def test_a_script_that_breaks_is_a_server_error_and_writes_nothing(emulator: BedrockEmulator) -> None:
    once = emulator.client(config=Config(retries={"total_max_attempts": 1}))
    emulator.script(lambda question: 1 / 0)
    with pytest.raises(once.exceptions.InternalServerException, match="ZeroDivisionError"):
        answer(once)
    assert emulator.bill().lines == ()


def test_max_tokens_cuts_the_answer(client: Any) -> None:
    response = answer(client, inferenceConfig={"maxTokens": 10})
    assert response["stopReason"] == "max_tokens"
    assert response["usage"]["outputTokens"] == 10
    assert content(answer(client))[0]["text"].startswith(content(response)[0]["text"])


def test_a_stop_sequence_cuts_the_answer(emulator: BedrockEmulator, client: Any) -> None:
    emulator.script("one two three")
    response = answer(client, inferenceConfig={"stopSequences": [" three", " two"]})
    assert (content(response), response["stopReason"]) == ([{"text": "one"}], "stop_sequence")


class TestTools:
    def test_a_demanded_tool_is_called_with_fitting_arguments(self, client: Any) -> None:
        response = answer(client, "Add 17 and 25.", toolConfig={"tools": [WEATHER, ADD], "toolChoice": {"any": {}}})
        (block,) = content(response)
        assert (block["toolUse"]["name"], block["toolUse"]["input"]) == ("add", {"a": 17, "b": 25})
        assert response["stopReason"] == "tool_use"

    def test_a_named_tool_is_the_one_called(self, client: Any) -> None:
        choice = {"tool": {"name": "get_weather"}}
        response = answer(client, "Hello!", toolConfig={"tools": [ADD, WEATHER], "toolChoice": choice})
        assert content(response)[0]["toolUse"]["name"] == "get_weather"

    def test_a_question_that_names_a_tools_subject_calls_it(self, client: Any) -> None:
        response = answer(client, "What is the weather in San Francisco, CA?", toolConfig={"tools": [ADD, WEATHER]})
        assert content(response)[0]["toolUse"]["input"] == {"city": "San Francisco, CA"}

    def test_other_questions_get_text(self, client: Any) -> None:
        assert "text" in content(answer(client, "Tell me a story.", toolConfig={"tools": [WEATHER]}))[0]

    def test_an_agent_loop_ends_in_text(self, client: Any) -> None:
        config = {"tools": [WEATHER]}
        messages = ask("What is the weather in Paris?")
        called = answer(client, messages=messages, toolConfig=config)["output"]["message"]
        use = called["content"][0]["toolUse"]
        result = {"toolResult": {"toolUseId": use["toolUseId"], "content": [{"text": "sunny"}]}}
        messages += [called, {"role": "user", "content": [result]}]
        response = answer(client, messages=messages, toolConfig=config)
        assert content(response) == [{"text": "The tool says: sunny"}]

    def test_an_agent_that_always_demands_a_tool_ends_by_its_answers_tool(self, client: Any) -> None:
        config = {"tools": [WEATHER, ADD], "toolChoice": {"any": {}}}
        messages = ask("What is the weather in Paris?")
        called = answer(client, messages=messages, toolConfig=config)["output"]["message"]
        use = called["content"][0]["toolUse"]
        result = {"toolResult": {"toolUseId": use["toolUseId"], "content": [{"text": "sunny"}]}}
        messages += [called, {"role": "user", "content": [result]}]
        response = answer(client, messages=messages, toolConfig=config)
        assert [use["name"], content(response)[0]["toolUse"]["name"]] == ["get_weather", "add"]


def test_a_demanded_output_schema_gets_json_that_fits(client: Any) -> None:
    schema = {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}}
    structure = {"jsonSchema": {"schema": json.dumps(schema), "name": "person"}}
    config = {"textFormat": {"type": "json_schema", "structure": structure}}
    response = answer(client, "'Ada' is 36.", outputConfig=config)
    assert json.loads(content(response)[0]["text"]) == {"name": "Ada", "age": 36}


def test_thinking_comes_before_the_answer_when_it_is_on(client: Any) -> None:
    thinking = {"thinking": {"type": "enabled", "budget_tokens": 1024}}
    blocks = content(answer(client, additionalModelRequestFields=thinking))
    assert blocks[0]["reasoningContent"]["reasoningText"]["signature"]
    assert "text" in blocks[1]


LEAVES = st.sampled_from(
    [
        {"type": "string"},
        {"type": "integer", "minimum": 5},
        {"type": "number", "maximum": 2},
        {"type": "boolean"},
        {"type": "null"},
        {"enum": ["red", "green"]},
        {"const": 7},
        {"anyOf": [{"type": "null"}, {"type": "integer"}]},
        {"type": ["string", "null"], "maxLength": 2},
    ]
)
SCHEMAS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds(lambda items: {"type": "array", "items": items, "minItems": 2}, inner),
        st.builds(
            lambda properties: {"type": "object", "properties": properties, "required": list(properties)},
            st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
        ),
    ),
    max_leaves=6,
)


@given(SCHEMAS, st.text(max_size=60))
def test_made_up_arguments_fit_their_schema(schema: dict[str, Any], text: str) -> None:
    assert fits(arguments_for(schema, text), schema)


def fits(value: Any, schema: dict[str, Any]) -> bool:
    """A small check of the keywords the schemas above use."""
    if "anyOf" in schema:
        return any(fits(value, each) for each in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return value in schema.get("enum", [schema.get("const")])
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    kind = {
        "string": isinstance(value, str) and len(value) <= schema.get("maxLength", len(value)),
        "integer": type(value) is int and value >= schema.get("minimum", value),
        "number": type(value) in (int, float) and value <= schema.get("maximum", value),
        "boolean": isinstance(value, bool),
        "null": value is None,
        "array": isinstance(value, list) and all(fits(each, schema.get("items", {})) for each in value),
        "object": isinstance(value, dict)
        and all(name in value and fits(value[name], each) for name, each in schema.get("properties", {}).items()),
    }
    return any(kind[each] for each in kinds)
