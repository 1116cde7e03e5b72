"""InvokeModel: the envelope around a body in its model's own format.

Bodies of Anthropic Messages are planned by the dialect `messages`. All others, Nova's and Llama's among
them, are passed on as they are; their calls are recorded with the usage that headers or stream metrics
report. What a plan does not change of a body goes out byte for byte as it came, and so does the whole of one that has a
key twice in an object, has not the shape that its format wants, or is read from a file.
"""

from __future__ import annotations

import asyncio
import io
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Self

from cachepoint.bedrock.wire import anthropic_messages as messages
from cachepoint.bedrock.wire import system_turns
from cachepoint.bedrock.wire.dialect import Answered, Heard, Reporter, mapping, told
from cachepoint.bedrock.wire.json_text import parsed
from cachepoint.core.exchange import Warn
from cachepoint.core.planning.plan import Plan
from cachepoint.core.prompt.prompt import Hints, Prompt
from cachepoint.core.provider.rules import ModelRule
from cachepoint.core.provider.usage import count

API = messages.API
usage = messages.usage

_VERSION = "anthropic_version"  # what Bedrock demands of every Anthropic Messages body
_SYSTEM_ROLE = re.compile(r'"role"\s*:\s*"system"')
_SYSTEM_ROLE_BYTES = re.compile(_SYSTEM_ROLE.pattern.encode())
_METRICS = "amazon-bedrock-invocationMetrics"
_HEADERS = {
    "input_tokens": "x-amzn-bedrock-input-token-count",
    "output_tokens": "x-amzn-bedrock-output-token-count",
    "cache_read_input_tokens": "x-amzn-bedrock-cache-read-input-token-count",
    "cache_creation_input_tokens": "x-amzn-bedrock-cache-write-input-token-count",
}
_COUNTERS = {
    "input_tokens": "inputTokenCount",
    "output_tokens": "outputTokenCount",
    "cache_read_input_tokens": "cacheReadInputTokenCount",
    "cache_creation_input_tokens": "cacheWriteInputTokenCount",
}
_TELLING = (b'"usage"', b'"message_stop"', _METRICS.encode())


def has_system_turns(request: Mapping[str, Any]) -> bool:
    """Whether a request seems to have system messages in its conversation, without parsing its body."""
    body = request.get("body")
    if not has_messages(request):
        return False
    return (_SYSTEM_ROLE.search(body) if isinstance(body, str) else _SYSTEM_ROLE_BYTES.search(body or b"")) is not None


def place_system_turns(request: Mapping[str, Any], hints: Hints, *, taken: bool) -> tuple[Mapping[str, Any], Hints]:
    """The request with its system messages where the service takes them, itself where nothing moves; and the hints.

    Itself too where its body is none that can be read.
    """
    body = _body(request) if has_system_turns(request) else None
    if body is None or not system_turns.has_system_turns(body["messages"]):
        return request, hints
    placed = system_turns.placed(body["messages"], taken=taken)
    if placed is None or placed.messages == body["messages"]:
        return request, hints
    return {**request, "body": placed.in_text(request["body"])}, placed.hints(hints)


def read(request: Mapping[str, Any], key: bytes, rule: ModelRule, hints: Hints) -> Prompt | None:
    """The request in wire order; None when its body is not of Anthropic Messages."""
    body = _body(request)
    if body is None:
        return None
    return messages.read(body, key, rule, hints, guarded="guardrailIdentifier" in request)


def sendable(request: Mapping[str, Any]) -> tuple[Mapping[str, Any], Sequence[Warn]]:
    """The request as it is: a `cache_control` stands on a block, and never alone."""
    return request, ()


def apply(request: Mapping[str, Any], plan: Plan) -> dict[str, Any]:
    """The request with a planned body, or as it was where nothing changes."""
    if plan.changes_nothing:
        return dict(request)
    return {**request, "body": messages.apply(request["body"], plan)}


def count_input(request: Mapping[str, Any]) -> dict[str, Any]:
    """What CountTokens is asked about a request."""
    return {"invokeModel": {"body": request["body"]}}


def service_tier(request: Mapping[str, Any]) -> str | None:
    """The service tier a request names."""
    tier: str | None = request.get("serviceTier")
    return tier


def has_messages(request: Mapping[str, Any]) -> bool:
    """Whether a request's body looks like Anthropic Messages, without parsing it."""
    body = request.get("body")
    if isinstance(body, str):
        return _VERSION in body
    return isinstance(body, bytes | bytearray) and _VERSION.encode() in body


def _body(request: Mapping[str, Any]) -> dict[str, Any] | None:
    if not has_messages(request):
        return None
    try:
        body = parsed(request["body"])
    except ValueError:
        return None
    return body if _VERSION in body and messages.has_its_shape(body) else None


# -- answers --------------------------------------------------------------------------------------


def reported(response: Mapping[str, Any], raw: bytes = b"") -> dict[str, Any]:
    """The usage that an answer reports, in the names of Anthropic Messages; the body's before the headers'.

    Only the body tells writes of 5m and of 1h apart.
    """
    headers = _reported(_reported(response.get("ResponseMetadata")).get("HTTPHeaders"))
    counts = {name: count(headers.get(header)) for name, header in _HEADERS.items()}
    return _reported(counts) | _reported(_json(raw).get("usage"))


def _json(raw: bytes) -> dict[str, Any]:
    """A JSON object; an empty one for anything else, which is then left to those who can read it."""
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def reporter(answered: Answered, heard: Heard) -> Reporter:
    """A stream reports its usage two or three times, each time more of it; the last event gets the call's report."""
    so_far: dict[str, Any] = {}

    def passed(event: dict[str, Any]) -> dict[str, Any]:
        """The event, with the call's report where it ends the answer; remembers what usage it reports."""
        raw = mapping(event.get("chunk")).get("bytes", b"")
        if not any(word in raw for word in _TELLING):
            return event
        content = _json(raw)
        metrics = _reported(content.get(_METRICS))
        so_far.update(_reported(_reported(content.get("message")).get("usage")))
        so_far.update(_reported(content.get("usage")))
        so_far.update({name: metrics[counter] for name, counter in _COUNTERS.items() if counter in metrics})
        if not metrics and content.get("type") != "message_stop":
            heard(dict(so_far))
            return event
        return told(event, answered(so_far))

    return passed


def _reported(part: Any) -> dict[str, Any]:
    """What a part of an answer reports; nothing where it is missing or of another kind."""
    return {name: value for name, value in part.items() if value is not None} if isinstance(part, Mapping) else {}


def again(raw: bytes) -> Any:
    """A response body already read, to be read by the caller as boto3 gave it."""
    from botocore.response import StreamingBody

    return StreamingBody(io.BytesIO(raw), len(raw))


def again_async(raw: bytes) -> Any:
    """The same as aiobotocore gave it."""
    from aiobotocore.response import StreamingBody  # type: ignore[import-untyped]

    return StreamingBody(_Received(raw), str(len(raw)))


class _Received:
    """A response all of which has come, as far as aiobotocore's StreamingBody looks at one."""

    url = ""

    def __init__(self, raw: bytes) -> None:
        self.content = asyncio.StreamReader()
        self.content.feed_data(raw)
        self.content.feed_eof()

    def close(self) -> None:
        """Nothing is open."""

    async def read(self) -> bytes:
        return await self.content.read()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        self.close()
