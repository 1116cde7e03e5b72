"""Hypothesis strategies of Anthropic Messages bodies that the service accepts but for their marks.

They are the Converse requests of `converse_requests` in the other format, so both dialects meet the same shapes.
"""

from __future__ import annotations

import base64
from typing import Any

from converse_requests import CLAUDE, conversations, requests
from hypothesis import strategies as st
from messages_kit import EPHEMERAL, ONE_HOUR, Json, body, marked, text

_CONTROLS = (EPHEMERAL, EPHEMERAL, {"type": "ephemeral", "ttl": "5m"}, ONE_HOUR)


def _base64(source: Json, media_type: str) -> Json:
    return {"type": "base64", "media_type": media_type, "data": base64.b64encode(source["bytes"]).decode()}


def _document(value: Json) -> Json:
    if value["format"] == "pdf":
        source = _base64(value["source"], "application/pdf")
    else:
        source = {"type": "text", "media_type": "text/plain", "data": value["source"]["bytes"].decode()}
    return {"type": "document", "title": value["name"], "source": source}


def _block(block: Json) -> Json:
    (kind, value), = block.items()  # fmt: skip
    match kind:
        case "text":
            return text(value)
        case "image":
            return {"type": "image", "source": _base64(value["source"], "image/png")}
        case "document":
            return _document(value)
        case "toolUse":
            return {"type": "tool_use", "id": value["toolUseId"], "name": value["name"], "input": value["input"]}
        case "toolResult":
            content = [_block(part) for part in value["content"]]
            return {"type": "tool_result", "tool_use_id": value["toolUseId"], "content": content}
        case "reasoningContent":
            said = value["reasoningText"]
            return {"type": "thinking", "thinking": said["text"], "signature": said["signature"]}
        case "guardContent":
            return text(value["text"]["text"])
        case "toolSpec":
            schema = value["inputSchema"]["json"]
            return {"name": value["name"], "description": value["description"], "input_schema": schema}
    return text(str(value))


def _blocks(blocks: list[Json]) -> list[Json]:
    """The blocks in the other format; a checkpoint becomes a mark of the block before it, if there is one."""
    made: list[Json] = []
    for block in blocks:
        if "cachePoint" not in block:
            made.append(_block(block))
        elif made:
            ttl = block["cachePoint"].get("ttl")
            made[-1] = marked(made[-1], EPHEMERAL if ttl is None else {**EPHEMERAL, "ttl": ttl})
    return made


def _plain(blocks: list[Json]) -> list[Json] | str:
    """A single unmarked text as the string that may stand in its place."""
    return blocks[0]["text"] if len(blocks) == 1 and blocks[0].keys() == {"type", "text"} else blocks


def as_messages(converse: Json, *, plain: bool = False) -> Json:
    """The body that says what a Converse request says, with strings for single texts if `plain`."""
    shape = _plain if plain else list
    rest: Json = dict(converse.get("additionalModelRequestFields", {}))
    config = converse.get("toolConfig", {})
    if config:
        rest["tools"] = _blocks(config["tools"])
        if "toolChoice" in config:
            rest["tool_choice"] = {"type": next(iter(config["toolChoice"]))}
    if "system" in converse:
        rest["system"] = shape(_blocks(converse["system"]))
    messages = [
        {"role": message["role"], "content": shape(_blocks(message["content"]))}
        for message in converse["messages"]
        if message["role"] != "system"
    ]
    return body(*messages, **rest)


def _mark_inside(draw: st.DrawFn, given: Json) -> None:
    """Marks where none may be: inside tool results, and at the body's top."""
    inner = [
        part
        for message in given["messages"]
        for block in message["content"]
        if isinstance(block, dict) and block["type"] == "tool_result"
        for part in block["content"]
    ]
    for part in inner[: draw(st.integers(0, 2))]:
        part["cache_control"] = draw(st.sampled_from(_CONTROLS))
    if draw(st.integers(0, 3)) == 0:
        given["cache_control"] = draw(st.sampled_from(_CONTROLS))


@st.composite
def messages_requests(draw: st.DrawFn) -> tuple[str, Json]:
    """A model and a body for it, sometimes with marks of the user's."""
    converse = draw(requests(CLAUDE))
    given = as_messages(converse, plain=draw(st.booleans()))
    if draw(st.booleans()):
        _mark_inside(draw, given)
    return converse["modelId"], given


@st.composite
def messages_conversations(draw: st.DrawFn) -> tuple[str, list[Json]]:
    """A model and bodies of one application in a row."""
    asked: list[Any] = draw(conversations(CLAUDE))
    plain = draw(st.booleans())
    return asked[0]["modelId"], [as_messages(each, plain=plain) for each in asked]
