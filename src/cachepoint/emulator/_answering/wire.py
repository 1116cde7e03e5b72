"""How an answer goes out: Converse's body and events, and Anthropic's body, headers and chunks.

Which cache counters are there follows the recordings (docs/rules.md, C1): Converse on Claude always has them,
ConverseStream on Claude and Nova only when the request had checkpoints, and models that cannot cache never.
`cacheDetails` is there exactly when Claude wrote.
"""

from __future__ import annotations

import base64
import json
import re
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from cachepoint.core.provider.usage import Usage
from cachepoint.emulator._answering.eventstream import event_frame
from cachepoint.emulator._checks.service_errors import ServiceError
from cachepoint.emulator._reading.request import Call, Json
from cachepoint.emulator.replies import Answer, Part, Reasoning, Text, ToolCall

_WORDS_A_DELTA = 4
_JSON_A_DELTA = 16
_MODEL_NAME = re.compile(r"claude-[a-z0-9-]+?(?=-\d{8}|-v\d|$)")
_MESSAGES_REASONS: Mapping[str, str] = {"content_filtered": "refusal"}


@dataclass(frozen=True, slots=True)
class Metrics:
    """Latency of a call in milliseconds, as the model of `Latency` has it; slept only when asked."""

    first_byte: int
    whole: int


@dataclass(frozen=True, slots=True)
class Written:
    """An answer on the wire: a body, or frames when it streams."""

    headers: Mapping[str, str]
    body: bytes = b""
    frames: tuple[bytes, ...] = ()
    status: int = 200

    @property
    def request_id(self) -> str:
        """The id under which the call stands in the service's logs."""
        return self.headers["x-amzn-requestid"]


def write_answer(call: Call, answer: Answer, usage: Usage, metrics: Metrics, *, has_points: bool) -> Written:
    """The answer in the dialect and manner of its operation."""
    operation = call.target.operation
    headers = _headers("application/json")
    message = _Message(_model_name(call.target.model_id), headers["x-amzn-requestid"])
    if operation == "Converse":
        reported = converse_usage(call, usage, has_points=has_points)
        return Written(headers, encoded(_converse_body(call, answer, reported, metrics)))
    if operation == "InvokeModel":
        body = _messages_body(answer, usage, message)
        return Written(headers | _usage_headers(usage, metrics), encoded(body))
    headers["content-type"] = "application/vnd.amazon.eventstream"
    if operation == "ConverseStream":
        frames = _converse_events(call, answer, converse_usage(call, usage, has_points=has_points), metrics)
    else:
        headers["x-amzn-bedrock-content-type"] = "application/json"
        frames = _messages_frames(answer, usage, message, metrics)
    return Written(headers, frames=tuple(frames))


def write_count(tokens: int) -> Written:
    """The answer of CountTokens."""
    return Written(_headers("application/json"), encoded({"inputTokens": tokens}))


def write_error(error: ServiceError) -> Written:
    """An error, whose name boto3 reads from a header."""
    headers = _headers("application/json") | {"x-amzn-errortype": error.code}
    return Written(headers, encoded({"message": error.message}), status=error.status)


def logged_answer(
    call: Call, answer: Answer, usage: Usage, metrics: Metrics, request_id: str, *, has_points: bool
) -> Json | list[Json]:
    """The answer as the invocation log keeps it (records of April to September 2026).

    Both operations of Converse have the same object, without the counters that only the wire repeats and without
    `cacheDetails`; InvokeModel has the model's own body, or the list of its events.
    """
    message = _Message(_model_name(call.target.model_id), request_id)
    if call.target.operation == "InvokeModel":
        return _messages_body(answer, usage, message)
    if call.target.operation == "InvokeModelWithResponseStream":
        return list(_messages_events(answer, usage, message, metrics))
    # Recorded for Nova: no cache counters without checkpoints. For a stream of Claude without any it is assumed.
    cached = {"cacheReadInputTokens": usage.cache_read, "cacheWriteInputTokens": usage.cache_write}
    return {
        "output": _output(answer),
        "stopReason": answer.stop_reason,
        "metrics": {"latencyMs": metrics.whole},
        "usage": {
            "inputTokens": usage.input,
            **(cached if call.rule.explicit and (call.traits.claude or has_points) else {}),
            "outputTokens": usage.output,
            "totalTokens": usage.prompt + usage.output,
        },
    }


def _headers(content_type: str) -> dict[str, str]:
    return {"content-type": content_type, "x-amzn-requestid": str(uuid.uuid4())}


def encoded(value: Json) -> bytes:
    """A JSON body."""
    return json.dumps(value, separators=(",", ":")).encode()


def _pieces(text: str) -> list[str]:
    words = text.split(" ")
    groups = [words[at : at + _WORDS_A_DELTA] for at in range(0, len(words), _WORDS_A_DELTA)]
    return [" ".join(group) + (" " if index < len(groups) - 1 else "") for index, group in enumerate(groups)]


def _json_pieces(call: ToolCall) -> list[str]:
    text = json.dumps(call.input, ensure_ascii=False)[: call.cut]
    return [text[at : at + _JSON_A_DELTA] for at in range(0, len(text), _JSON_A_DELTA)]


def _complete_members(call: ToolCall) -> Json:
    """The arguments in a whole answer; of those that broke off nobody says, so the members before that are assumed."""
    members = list(call.input.items())
    while call.cut is not None and members and len(json.dumps(dict(members), ensure_ascii=False)) > call.cut:
        members.pop()
    return dict(members)


# -- Converse --------------------------------------------------------------------------------------


def converse_usage(call: Call, usage: Usage, *, has_points: bool) -> Json:
    """`usage` of Converse and of the stream's `metadata` event, wire extras included (R1.11)."""
    counters: Json = {
        "inputTokens": usage.input,
        "outputTokens": usage.output,
        "totalTokens": usage.prompt + usage.output,
        "serverToolUsage": {},
    }
    always = call.traits.claude and not call.target.streams
    if call.rule.explicit and (always or has_points):
        counters["cacheReadInputTokens"] = counters["cacheReadInputTokenCount"] = usage.cache_read
        counters["cacheWriteInputTokens"] = counters["cacheWriteInputTokenCount"] = usage.cache_write
    if call.traits.claude and usage.cache_write:
        by_ttl = (("1h", usage.cache_write_1h), ("5m", usage.cache_write_5m))
        counters["cacheDetails"] = [{"ttl": ttl, "inputTokens": tokens} for ttl, tokens in by_ttl if tokens]
    return counters


def _converse_body(call: Call, answer: Answer, usage: Json, metrics: Metrics) -> Json:
    return {"output": _output(answer), "stopReason": answer.stop_reason, **_metadata(call, usage, metrics)}


def _output(answer: Answer) -> Json:
    return {"message": {"role": "assistant", "content": [_converse_block(part) for part in answer.parts]}}


def _metadata(call: Call, usage: Json, metrics: Metrics) -> Json:
    repeated: Json = {name: call.body[name] for name in ("performanceConfig", "serviceTier") if name in call.body}
    return {"usage": usage, "metrics": {"latencyMs": metrics.whole}, **repeated}


def _converse_block(part: Part) -> Json:
    if isinstance(part, Text):
        return {"text": part.text}
    if isinstance(part, ToolCall):
        return {"toolUse": {"toolUseId": part.id, "name": part.name, "input": _complete_members(part)}}
    return {"reasoningContent": {"reasoningText": {"text": part.text, "signature": part.signature}}}


def _converse_events(call: Call, answer: Answer, usage: Json, metrics: Metrics) -> Iterator[bytes]:
    yield event_frame("messageStart", {"role": "assistant"})
    for index, part in enumerate(answer.parts):
        if isinstance(part, ToolCall):
            start = {"toolUse": {"toolUseId": part.id, "name": part.name}}
            yield event_frame("contentBlockStart", {"contentBlockIndex": index, "start": start})
        for delta in _converse_deltas(part):
            yield event_frame("contentBlockDelta", {"contentBlockIndex": index, "delta": delta})
        yield event_frame("contentBlockStop", {"contentBlockIndex": index})
    yield event_frame("messageStop", {"stopReason": answer.stop_reason})
    yield event_frame("metadata", _metadata(call, usage, metrics))


def _converse_deltas(part: Part) -> Iterator[Json]:
    if isinstance(part, Text):
        yield from ({"text": piece} for piece in _pieces(part.text))
    elif isinstance(part, ToolCall):
        yield from ({"toolUse": {"input": piece}} for piece in _json_pieces(part))
    else:
        yield from ({"reasoningContent": {"text": piece}} for piece in _pieces(part.text))
        yield {"reasoningContent": {"signature": part.signature}}


# -- Anthropic Messages ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Message:
    """What names an answer: its model, and an id that goes with the request's."""

    model: str
    request_id: str

    @property
    def id(self) -> str:
        return f"msg_bdrk_{self.request_id[:22]}"


def _model_name(model_id: str) -> str:
    """A Claude answer names its model without geography, date and version (35 of 35 recorded answers)."""
    found = _MODEL_NAME.search(model_id)
    return found[0] if found else model_id


def _messages_usage(usage: Usage) -> Json:
    return {
        "input_tokens": usage.input,
        "cache_creation_input_tokens": usage.cache_write,
        "cache_read_input_tokens": usage.cache_read,
        "cache_creation": {
            "ephemeral_5m_input_tokens": usage.cache_write_5m,
            "ephemeral_1h_input_tokens": usage.cache_write_1h,
        },
        "output_tokens": usage.output,
    }


def _usage_headers(usage: Usage, metrics: Metrics) -> dict[str, str]:
    # They repeat the body's usage (R1.12).
    return {
        "x-amzn-bedrock-input-token-count": str(usage.input),
        "x-amzn-bedrock-output-token-count": str(usage.output),
        "x-amzn-bedrock-cache-read-input-token-count": str(usage.cache_read),
        "x-amzn-bedrock-cache-write-input-token-count": str(usage.cache_write),
        "x-amzn-bedrock-invocation-latency": str(metrics.whole),
    }


def _messages_body(answer: Answer, usage: Usage, message: _Message) -> Json:
    return {
        "id": message.id,
        "type": "message",
        "role": "assistant",
        "model": message.model,
        "content": [_messages_block(part) for part in answer.parts],
        "stop_reason": _MESSAGES_REASONS.get(answer.stop_reason, answer.stop_reason),
        "stop_sequence": answer.stop_sequence,
        "usage": _messages_usage(usage),
    }


def _messages_block(part: Part) -> Json:
    if isinstance(part, Text):
        return {"type": "text", "text": part.text}
    if isinstance(part, ToolCall):
        return {"type": "tool_use", "id": part.id, "name": part.name, "input": _complete_members(part)}
    return {"type": "thinking", "thinking": part.text, "signature": part.signature}


def _messages_frames(answer: Answer, usage: Usage, message: _Message, metrics: Metrics) -> Iterator[bytes]:
    for event in _messages_events(answer, usage, message, metrics):
        yield event_frame("chunk", {"bytes": base64.b64encode(json.dumps(event).encode()).decode()})


def _messages_events(answer: Answer, usage: Usage, message: _Message, metrics: Metrics) -> Iterator[Json]:
    started = _messages_body(Answer((), "", 1), usage, message)
    started |= {"stop_reason": None, "usage": {**_messages_usage(usage), "output_tokens": 1}}
    yield {"type": "message_start", "message": started}
    for index, part in enumerate(answer.parts):
        yield {"type": "content_block_start", "index": index, "content_block": _messages_start(part)}
        for delta in _messages_deltas(part):
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    delta = {"stop_reason": answer.stop_reason, "stop_sequence": answer.stop_sequence}
    # From October 2026 the delta repeats the whole usage (R1.12): readers must not add it up.
    yield {"type": "message_delta", "delta": delta, "usage": _messages_usage(usage)}
    yield {
        "type": "message_stop",
        "amazon-bedrock-invocationMetrics": {
            "inputTokenCount": usage.input,
            "outputTokenCount": usage.output,
            "invocationLatency": metrics.whole,
            "firstByteLatency": metrics.first_byte,
            "cacheReadInputTokenCount": usage.cache_read,
            "cacheWriteInputTokenCount": usage.cache_write,
        },
    }


def _messages_start(part: Part) -> Json:
    if isinstance(part, Text):
        return {"type": "text", "text": ""}
    if isinstance(part, Reasoning):
        return {"type": "thinking", "thinking": "", "signature": ""}
    return {"type": "tool_use", "id": part.id, "name": part.name, "input": {}}


def _messages_deltas(part: Part) -> Iterator[Json]:
    if isinstance(part, Text):
        yield from ({"type": "text_delta", "text": piece} for piece in _pieces(part.text))
    elif isinstance(part, Reasoning):
        yield from ({"type": "thinking_delta", "thinking": piece} for piece in _pieces(part.text))
        yield {"type": "signature_delta", "signature": part.signature}
    else:
        yield from ({"type": "input_json_delta", "partial_json": piece} for piece in _json_pieces(part))
