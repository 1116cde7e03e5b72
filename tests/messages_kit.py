"""How the suites make InvokeModel requests in Anthropic's Messages format, and read what was sent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from converse_kit import SONNET

from cachepoint.bedrock.wire.edits import ListEdits, edits_of, rewritten
from cachepoint.core.planning.plan import Plan

Json = dict[str, Any]

EPHEMERAL: Json = {"type": "ephemeral"}
ONE_HOUR: Json = {"type": "ephemeral", "ttl": "1h"}


def text(words: str, control: Json | None = None) -> Json:
    return marked({"type": "text", "text": words}, control)


def marked(block: Json, control: Json | None = EPHEMERAL) -> Json:
    return block if control is None else {**block, "cache_control": control}


def user(*content: Json | str) -> Json:
    return {"role": "user", "content": [text(part) if isinstance(part, str) else part for part in content]}


def assistant(*content: Json | str) -> Json:
    return {"role": "assistant", "content": [text(part) if isinstance(part, str) else part for part in content]}


def tool(name: str = "search", description: str = "Looks something up.") -> Json:
    schema = {"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]}
    return {"name": name, "description": description, "input_schema": schema}


def tool_use(number: int = 0, name: str = "search") -> Json:
    return {"type": "tool_use", "id": f"use-{number}", "name": name, "input": {"query": f"topic {number}"}}


def tool_result(number: int = 0, *content: Json) -> Json:
    return {"type": "tool_result", "tool_use_id": f"use-{number}", "content": list(content) or f"result {number}"}


def thinking(words: str = "First the question, then the answer.") -> Json:
    return {"type": "thinking", "thinking": words, "signature": "c2lnbmVk"}


def body(*messages: Json, **rest: Any) -> Json:
    """A body as Anthropic's Messages want it; `messages` may be plain user questions."""
    return {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 300, **rest, "messages": list(messages)}


def request(given: Json, model: str = SONNET, **rest: Any) -> Json:
    """The arguments of `invoke_model` for a body."""
    return {"modelId": model, "body": json.dumps(given), **rest}


def answer(response: Json) -> Json:
    """The answer that a response's body holds."""
    read: Json = json.loads(response["body"].read())
    return read


def lists(given: Json) -> Iterator[tuple[str, Any]]:
    """The block lists of a body, or the strings in their place, each with its path."""
    yield "tools", given.get("tools") or []
    yield "system", given.get("system") or []
    for number, message in enumerate(given["messages"]):
        yield f"messages[{number}].content", message["content"]


def checkpoints(given: Json) -> list[tuple[str, str]]:
    """Path and TTL of every checkpoint in a body as sent, wherever it is nested."""
    found = [("top", given["cache_control"].get("ttl", "5m"))] if "cache_control" in given else []
    for path, blocks in lists(given):
        for number, block in enumerate(blocks if isinstance(blocks, list) else ()):
            inner = block.get("content") if block.get("type") == "tool_result" else ()
            places = [(f"{path}[{number}]", block)]
            places += [(f"{path}[{number}].content", part) for part in (inner if isinstance(inner, list) else ())]
            found += [
                (place, part["cache_control"].get("ttl", "5m")) for place, part in places if "cache_control" in part
            ]
    return found


def joined_texts(given: Json) -> list[str]:
    """The text of every list, joined: what the model reads, however it is cut into blocks."""
    return [
        blocks if isinstance(blocks, str) else "".join(block["text"] for block in blocks if block.get("type") == "text")
        for _, blocks in lists(given)
    ]


def planned(given: Json, plan: Plan) -> Json:
    """The body with a plan's checkpoints and splits in place of the user's own, worked out on its values."""
    result = rewritten(given, edits_of(plan), _planned)
    top = any(mark.where.section == "messages" and mark.where.message is None for mark in plan.marks)
    return _bare(result) if top else result


def _planned(items: Any, edits: ListEdits) -> list[Json]:
    blocks = [text(items)] if isinstance(items, str) else items
    return [
        piece if ttl is None else marked(piece, ONE_HOUR if ttl == "1h" else EPHEMERAL)
        for number, block in enumerate(blocks)
        for piece, ttl in edits.pieces(number, _bare(block) if number in edits.marks else block)
    ]


def _bare(block: Json) -> Json:
    inner = block.get("content") if block.get("type") == "tool_result" else None
    bare = {name: value for name, value in block.items() if name != "cache_control"}
    return {**bare, "content": [_bare(part) for part in inner]} if isinstance(inner, list) else bare
