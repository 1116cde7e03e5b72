"""The Anthropic Messages dialect of InvokeModel, read into the Converse shape.

One shape behind both APIs keeps one reading of prompts; the two never share cache entries, because the API is
part of the scope. A block's `cache_control` becomes a cachePoint after it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from cachepoint.emulator._reading.request import Json

_CHOICES: Mapping[str, str] = {"auto": "auto", "any": "any", "tool": "tool", "none": "auto"}
_KEPT_FIELDS = ("thinking", "output_config", "speed", "context_management", "anthropic_beta", "mcp_servers")


def as_converse(body: Json) -> Json:
    """The Converse body that says what an Anthropic Messages body says."""
    read: Json = {
        "messages": [
            {"role": message.get("role"), "content": list(_blocks(message.get("content", [])))}
            for message in body.get("messages", [])
        ],
        "system": list(_blocks(body.get("system") or [])),
        "inferenceConfig": _inference(body),
        "additionalModelRequestFields": {name: body[name] for name in _KEPT_FIELDS if name in body},
    }
    if body.get("tools"):
        read["toolConfig"] = {"tools": list(_tools(body["tools"])), "toolChoice": _choice(body)}
    schema = ((body.get("output_config") or {}).get("format") or {}).get("schema")
    if schema is not None:
        read["outputConfig"] = {"textFormat": {"structure": {"jsonSchema": {"schema": schema}}}}
    if body.get("cache_control") and read["messages"]:
        # Automatic caching puts the checkpoint after the last block (docs/rules.md, R3.19).
        read["messages"][-1]["content"].append(_point(body["cache_control"]))
    return read


def content_blocks(content: object) -> list[Json]:
    """A `content` or `system` field as a list of blocks; a plain string is one text block."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return [block for block in content if isinstance(block, dict)] if isinstance(content, list) else []


def _point(control: Json) -> Json:
    ttl = control.get("ttl")
    return {"cachePoint": {"type": "default", **({"ttl": ttl} if ttl else {})}}


def _blocks(content: object) -> Iterator[Json]:
    for block in content_blocks(content):
        yield _block(block)
        if block.get("cache_control"):
            yield _point(block["cache_control"])


def _block(block: Json) -> Json:
    kind = block.get("type")
    if kind == "text":
        return {"text": block.get("text", "")}
    if kind == "tool_use":
        use = {"toolUseId": block.get("id"), "name": block.get("name", ""), "input": block.get("input")}
        return {"toolUse": use}
    if kind == "tool_result":
        results = [_block(each) for each in content_blocks(block.get("content", []))]
        return {"toolResult": {"toolUseId": block.get("tool_use_id"), "content": results}}
    if kind == "thinking":
        return {"reasoningContent": {"reasoningText": {"text": block.get("thinking", "")}}}
    source = block.get("source") or {}
    if kind == "image":
        return {"image": {"source": {"bytes": source.get("data", "")}}}
    if kind == "document":
        return {"document": _document(source)}
    return {str(kind): {name: value for name, value in block.items() if name != "cache_control"}}


def _document(source: Json) -> Json:
    if source.get("type") == "text":
        return {"format": "txt", "source": {"text": source.get("data", "")}}
    return {"format": "pdf", "source": {"bytes": source.get("data", "")}}


def _tools(tools: Iterable[Json]) -> Iterator[Json]:
    for tool in tools:
        plain = {name: value for name, value in tool.items() if name != "cache_control"}
        if "input_schema" in plain:
            plain["inputSchema"] = {"json": plain.pop("input_schema")}
        yield {"toolSpec": plain}
        if tool.get("cache_control"):
            yield _point(tool["cache_control"])


def _choice(body: Json) -> Json:
    given = body.get("tool_choice") or {}
    kind = _CHOICES.get(given.get("type", "auto"), "auto")
    return {kind: {"name": given["name"]} if kind == "tool" and "name" in given else {}}


def _inference(body: Json) -> Json:
    inference: Json = {}
    if "max_tokens" in body:
        inference["maxTokens"] = body["max_tokens"]
    if body.get("stop_sequences"):
        inference["stopSequences"] = body["stop_sequences"]
    return inference
