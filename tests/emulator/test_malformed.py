"""Bodies with wrong types anywhere: the service refuses them, and never breaks on one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cachepoint.emulator import BedrockEmulator, Clock

Json = dict[str, Any]
SONNET, NOVA = "us.anthropic.claude-sonnet-4-5-20250929-v1:0", "us.amazon.nova-pro-v1:0"
HEADERS = {"authorization": "AWS4-HMAC-SHA256 Credential=FUZZ/20261127/us-east-1/bedrock/aws4_request"}

SCHEMA = {"type": "object", "properties": {"room": {"type": "string"}}}
CONVERSE: Json = {
    "messages": [
        {"role": "user", "content": [{"text": "Hello"}, {"image": {"format": "png", "source": {"bytes": "iVBO"}}}]},
        {
            "role": "assistant",
            "content": [
                {"reasoningContent": {"reasoningText": {"text": "Hm.", "signature": "c2ln"}}},
                {"toolUse": {"toolUseId": "a", "name": "lamp", "input": {}}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"toolResult": {"toolUseId": "a", "content": [{"text": "on"}, {"json": {}}], "status": "success"}},
                {"cachePoint": {"type": "default", "ttl": "5m"}},
                {"text": "And now? lamp"},
            ],
        },
    ],
    "system": [{"text": "Be brief."}, {"cachePoint": {"type": "default"}}],
    "toolConfig": {
        "tools": [{"toolSpec": {"name": "lamp", "description": "A lamp.", "inputSchema": {"json": SCHEMA}}}],
        "toolChoice": {"auto": {}},
    },
    "inferenceConfig": {"maxTokens": 30, "temperature": 0.5, "topP": 0.9, "stopSequences": ["end"]},
    "additionalModelRequestFields": {
        "thinking": {"type": "disabled"},
        "output_config": {"effort": "high"},
        "anthropic_beta": ["b"],
        "system": "More.",
    },
    "guardrailConfig": {"guardrailIdentifier": "g", "guardrailVersion": "1", "trace": "enabled"},
    "outputConfig": {
        "textFormat": {"type": "json_schema", "structure": {"jsonSchema": {"schema": '{"type": "object"}'}}}
    },
    "promptVariables": {"topic": {"text": "lamps"}},
    "requestMetadata": {"tenant": "a"},
    "performanceConfig": {"latency": "standard"},
    "serviceTier": {"type": "default"},
}
MESSAGES: Json = {
    "anthropic_version": "bedrock-2023-05-31",
    "max_tokens": 30,
    "messages": [
        {"role": "user", "content": "Hello"},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"},
                {"type": "tool_use", "id": "a", "name": "lamp", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "a", "content": [{"type": "text", "text": "on"}]},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBO"}},
                {"type": "text", "text": "And now? lamp", "cache_control": {"type": "ephemeral", "ttl": "5m"}},
            ],
        },
    ],
    "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
    "tools": [{"name": "lamp", "description": "A lamp.", "input_schema": SCHEMA}],
    "tool_choice": {"type": "auto"},
    "thinking": {"type": "disabled"},
    "output_config": {"effort": "high", "format": {"type": "json_schema", "schema": SCHEMA}},
    "stop_sequences": ["end"],
    "temperature": 0.5,
    "top_k": 3,
    "metadata": {"user_id": "u"},
    "context_management": {"edits": []},
}

WRONG = st.recursive(
    st.sampled_from([None, True, False, 0, -1, 7, 10**30, 1.5, "", "x", "auto", "\ud800", [], {}, [None], {"x": 1}]),
    lambda inner: st.one_of(
        st.lists(inner, max_size=2), st.dictionaries(st.sampled_from(["text", "type", "x", "json"]), inner, max_size=2)
    ),
    max_leaves=4,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of everything in a body."""
    if path:
        yield path
    items: Sequence[tuple[Any, Any]] = ()
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    for key, each in items:
        yield from places(each, (*path, key))


def put(body: Json, path: tuple[Any, ...], wrong: Any) -> Json:
    """The body with something else at a place."""
    changed: Any = deepcopy(body)
    inside = changed
    for key in path[:-1]:
        inside = inside[key]
    inside[path[-1]] = wrong
    return changed  # type: ignore[no-any-return]


def answered(emulator: BedrockEmulator, operation: str, model: str, body: Any) -> tuple[int, str, str]:
    """Status, error code and text of the answer to a body, sent as it stands."""
    delivery = emulator._service.respond(f"/model/{model}/{operation}", HEADERS, json.dumps(body).encode())
    list(delivery.pieces())
    text = delivery.written.body.decode() if delivery.written.status != 200 else ""
    return delivery.written.status, delivery.written.headers.get("x-amzn-errortype", ""), text


@pytest.fixture(scope="module")
def emulator() -> BedrockEmulator:
    return BedrockEmulator(clock=Clock(lambda: 1_750_000_000.0), keep_calls=1)


CASES = {
    "converse": (CONVERSE, SONNET),
    "converse-stream": (CONVERSE, NOVA),
    "invoke": (MESSAGES, SONNET),
    "invoke-with-response-stream": (MESSAGES, SONNET),
}


@pytest.mark.parametrize("operation", CASES)
def test_the_bodies_that_are_made_malformed_here_are_served(emulator: BedrockEmulator, operation: str) -> None:
    body, model = CASES[operation]
    if model == NOVA:  # which knows nothing of these fields, and takes no checkpoint after a tool result
        body = {**body, "additionalModelRequestFields": {}, "messages": body["messages"][:1]}
    assert answered(emulator, operation, model, body) == (200, "", "")


@pytest.mark.parametrize("operation", CASES)
@given(data=st.data())
@settings(max_examples=40)
def test_no_field_of_a_wrong_type_breaks_the_emulator(
    emulator: BedrockEmulator, operation: str, data: st.DataObject
) -> None:
    body, model = CASES[operation]
    path = data.draw(st.sampled_from(list(places(body))))
    status, code, text = answered(emulator, operation, model, put(body, path, data.draw(WRONG)))
    assert status in (200, 400, 403), f"{code} {text}"


# What was answered with 500, or stands for a kind that would be.
@pytest.mark.parametrize(
    ("operation", "wrong"),
    [
        ("converse", {"additionalModelRequestFields": {"output_config": "x"}}),
        ("converse", {"additionalModelRequestFields": "x"}),
        ("converse", {"additionalModelRequestFields": {"thinking": True}}),
        ("converse", {"additionalModelRequestFields": {"tools": 3}}),
        ("converse", {"outputConfig": "x"}),
        ("converse", {"outputConfig": {"textFormat": {"structure": {"jsonSchema": {"schema": "{"}}}}}),
        ("converse", {"messages": "x"}),
        ("converse", {"messages": [None]}),
        ("converse", {"messages": [{"role": "user"}]}),
        ("converse", {"messages": [{"role": "tool", "content": [{"text": "x"}]}]}),
        ("converse", {"messages": [{"role": "user", "content": [{"text": None}]}]}),
        ("converse", {"system": {"text": "x"}}),
        ("converse", {"toolConfig": []}),
        ("converse", {"toolConfig": {"tools": [{"toolSpec": {"name": "a", "inputSchema": {"json": "x"}}}]}}),
        ("converse", {"inferenceConfig": {"maxTokens": "9"}}),
        ("converse", {"inferenceConfig": {"maxTokens": 0}}),
        ("converse", {"inferenceConfig": {"maxTokens": True}}),
        ("invoke", {"output_config": "x"}),
        ("invoke", {"output_config": {"format": {"schema": {"properties": []}}}}),
        ("invoke", {"thinking": "on"}),
        ("invoke", {"tool_choice": "any"}),
        ("invoke", {"tools": {"name": "lamp"}}),
        ("invoke", {"tools": [None]}),
        ("invoke", {"messages": None}),
        ("invoke", {"messages": [7]}),
        ("invoke", {"messages": [{"role": "user", "content": [{"type": "text", "text": 7}]}]}),
        ("invoke", {"messages": [{"role": "user", "content": [{"type": "image", "source": "x"}]}]}),
        ("invoke", {"system": 7}),
        ("invoke", {"max_tokens": "9"}),
        ("invoke", {"stop_sequences": "end"}),
        ("invoke", {"cache_control": "ephemeral"}),
    ],
    ids=repr,
)
def test_a_malformed_field_is_a_validation_error(emulator: BedrockEmulator, operation: str, wrong: Json) -> None:
    body, model = CASES[operation]
    status, code, _ = answered(emulator, operation, model, {**body, **wrong})
    assert (status, code) == (400, "ValidationException")


@pytest.mark.parametrize(
    "input_", [None, "x", {}, {"converse": "x"}, {"invokeModel": {"body": "e30"}}, {"invokeModel": {}}]
)
def test_a_malformed_count_is_a_validation_error(emulator: BedrockEmulator, input_: Any) -> None:
    status, code, _ = answered(emulator, "count-tokens", SONNET.removeprefix("us."), {"input": input_})
    assert (status, code) == (400, "ValidationException")


def test_a_body_nested_too_deeply_is_a_validation_error(emulator: BedrockEmulator) -> None:
    deep = b'{"system": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    delivery = emulator._service.respond(f"/model/{SONNET}/converse", HEADERS, deep)
    assert delivery.written.status == 400


def test_a_schema_that_demands_endless_answers_gets_one_with_an_end(emulator: BedrockEmulator) -> None:
    endless = {"type": "array", "minItems": 10**12, "items": {"type": "string", "minLength": 10**12}}
    body = {**MESSAGES, "max_tokens": 9, "output_config": {"format": {"type": "json_schema", "schema": endless}}}
    assert answered(emulator, "invoke", SONNET, body)[0] == 200
