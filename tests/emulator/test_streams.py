"""Streams: frames as botocore decodes them, events in their order, and the same answer as without streaming."""

from __future__ import annotations

import json
from typing import Any

import pytest
from botocore.eventstream import EventStreamBuffer
from emulator.conftest import SONNET, ask, cached_system
from hypothesis import given
from hypothesis import strategies as st

from cachepoint.emulator import BedrockEmulator, Reasoning, Text, ToolCall
from cachepoint.emulator._answering.eventstream import encode_frame, event_frame, exception_frame


def decode(frames: bytes) -> list[Any]:
    """The messages botocore reads from frames."""
    buffer = EventStreamBuffer()
    buffer.add_data(frames)
    return list(buffer)


HEADERS = st.dictionaries(
    st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=40),
    st.text(max_size=200),
    max_size=5,
)


@given(st.lists(st.tuples(HEADERS, st.binary(max_size=2000)), min_size=1, max_size=5))
def test_botocore_decodes_every_frame_as_it_was_encoded(frames: list[tuple[dict[str, str], bytes]]) -> None:
    decoded = [
        (message.headers, message.payload)
        for message in decode(b"".join(encode_frame(headers, payload) for headers, payload in frames))
    ]
    assert decoded == frames


def test_events_and_exceptions_say_what_they_are() -> None:
    event, exception = decode(
        event_frame("messageStart", {"role": "assistant"}) + exception_frame("throttlingException", "slow")
    )
    assert event.headers[":message-type"] == "event"
    assert event.to_response_dict()["headers"][":event-type"] == "messageStart"
    assert exception.to_response_dict()["status_code"] == 400
    assert exception.headers[":exception-type"] == "throttlingException"


def converse_events(client: Any, **request: Any) -> list[dict[str, Any]]:
    request.setdefault("messages", ask())
    return list(client.converse_stream(modelId=SONNET, **request)["stream"])


def test_a_stream_tells_its_answer_in_several_deltas_and_its_usage_last(client: Any) -> None:
    events = converse_events(client)
    kinds = [next(iter(event)) for event in events]
    deltas = kinds.count("contentBlockDelta")
    assert deltas > 3
    assert kinds == [
        "messageStart",
        *["contentBlockDelta"] * deltas,
        "contentBlockStop",
        "messageStop",
        "metadata",
    ]


def test_a_stream_says_what_converse_says(emulator: BedrockEmulator, client: Any) -> None:
    whole = client.converse(modelId=SONNET, messages=ask())
    events = converse_events(client)
    text = "".join(event["contentBlockDelta"]["delta"]["text"] for event in events if "contentBlockDelta" in event)
    assert text == whole["output"]["message"]["content"][0]["text"]
    assert events[-2]["messageStop"]["stopReason"] == whole["stopReason"]
    assert events[-1]["metadata"]["usage"]["outputTokens"] == whole["usage"]["outputTokens"]


def test_tool_calls_and_reasoning_are_streamed_in_pieces(emulator: BedrockEmulator, client: Any) -> None:
    arguments = {"city": "Łódź", "days": [1, 2, 3]}
    emulator.script([Reasoning("First the weather, then the rest of the day.", "sig"), ToolCall("weather", arguments)])
    tools = [{"toolSpec": {"name": "weather", "inputSchema": {"json": {"type": "object"}}}}]
    events = converse_events(client, toolConfig={"tools": tools})
    deltas = [event["contentBlockDelta"] for event in events if "contentBlockDelta" in event]
    reasoning = [delta["delta"]["reasoningContent"] for delta in deltas if delta["contentBlockIndex"] == 0]
    pieces = [delta["delta"]["toolUse"]["input"] for delta in deltas if delta["contentBlockIndex"] == 1]
    started = next(event["contentBlockStart"] for event in events if "contentBlockStart" in event)
    assert "".join(each.get("text", "") for each in reasoning) == "First the weather, then the rest of the day."
    assert reasoning[-1] == {"signature": "sig"}
    assert len(pieces) > 1
    assert json.loads("".join(pieces)) == arguments
    assert started["start"]["toolUse"]["name"] == "weather"
    assert events[-2]["messageStop"]["stopReason"] == "tool_use"


class TestInvokeModel:
    def body(self) -> str:
        system = [{"type": "text", "text": cached_system()[0]["text"], "cache_control": {"type": "ephemeral"}}]
        messages = [{"role": "user", "content": "At noon?"}]
        return json.dumps(
            {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 200, "system": system, "messages": messages}
        )

    def test_body_and_headers_tell_the_same_usage(self, client: Any) -> None:
        answer = client.invoke_model(modelId=SONNET, body=self.body())
        body = json.loads(answer["body"].read())
        headers = answer["ResponseMetadata"]["HTTPHeaders"]
        usage = body["usage"]
        assert usage["cache_creation_input_tokens"] > 1024
        assert usage["cache_creation"] == {
            "ephemeral_5m_input_tokens": usage["cache_creation_input_tokens"],
            "ephemeral_1h_input_tokens": 0,
        }
        for counter, header in {
            "input_tokens": "input-token-count",
            "output_tokens": "output-token-count",
            "cache_read_input_tokens": "cache-read-input-token-count",
            "cache_creation_input_tokens": "cache-write-input-token-count",
        }.items():
            assert headers[f"x-amzn-bedrock-{header}"] == str(usage[counter])

    def test_a_stream_repeats_its_usage_at_start_and_end(self, client: Any) -> None:
        answer = client.invoke_model_with_response_stream(modelId=SONNET, body=self.body())
        events = [json.loads(event["chunk"]["bytes"]) for event in answer["body"]]
        kinds = [event["type"] for event in events]
        started, metrics = events[0]["message"]["usage"], events[-1]["amazon-bedrock-invocationMetrics"]
        assert kinds[0] == "message_start"
        assert kinds[-2:] == ["message_delta", "message_stop"]
        assert kinds.count("content_block_delta") > 3
        assert metrics["cacheWriteInputTokenCount"] == started["cache_creation_input_tokens"] > 1024
        assert metrics["outputTokenCount"] == events[-2]["usage"]["output_tokens"] > started["output_tokens"]

    @pytest.mark.parametrize(
        ("model_id", "name"),
        [
            ("eu.anthropic.claude-haiku-4-5-20251001-v1:0", "claude-haiku-4-5"),
            ("anthropic.claude-3-5-haiku-20241022-v1:0", "claude-3-5-haiku"),
            ("global.anthropic.claude-opus-4-6-v1", "claude-opus-4-6"),
            ("us.anthropic.claude-sonnet-4-6", "claude-sonnet-4-6"),
        ],
    )
    def test_an_answer_names_its_model_as_the_recorded_ones_do(self, client: Any, model_id: str, name: str) -> None:
        request = {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 9}
        body = json.dumps({**request, "messages": [{"role": "user", "content": "Hi"}]})
        assert json.loads(client.invoke_model(modelId=model_id, body=body)["body"].read())["model"] == name
        stream = client.invoke_model_with_response_stream(modelId=model_id, body=body)["body"]
        started, *_ = [json.loads(event["chunk"]["bytes"]) for event in stream]
        assert started["message"]["model"] == name

    def test_it_shares_no_entries_with_converse(self, client: Any) -> None:
        client.converse(modelId=SONNET, system=cached_system(), messages=ask())
        answer = client.invoke_model(modelId=SONNET, body=self.body())
        assert json.loads(answer["body"].read())["usage"]["cache_read_input_tokens"] == 0

    def test_tool_calls_come_as_anthropic_writes_them(self, emulator: BedrockEmulator, client: Any) -> None:
        emulator.script([Text("Looking."), ToolCall("lamp", {"on": True})])
        body = json.loads(client.invoke_model(modelId=SONNET, body=self.body())["body"].read())
        assert body["stop_reason"] == "tool_use"
        assert body["content"][1] == {
            "type": "tool_use",
            "id": body["content"][1]["id"],
            "name": "lamp",
            "input": {"on": True},
        }
