"""`cache_control` in LangChain's shapes becomes a Converse `cachePoint` after the block or tool it marks.

Users of Claude write `cache_control` on content blocks, in a block's `extras`, on tool dicts and in
`@tool(extras=...)`; `ChatBedrockConverse` drops all of them. Nothing given here is changed in place.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

from cachepoint.bedrock.wire.cache_point import CACHE_POINT, cache_point_for, is_cache_point
from cachepoint.errors import ConfigurationError

M = TypeVar("M", bound=BaseMessage)

_RESULT_TYPES = ("tool_result", "server_tool_result")


def mark_messages(messages: Iterable[BaseMessage]) -> list[BaseMessage]:
    """The messages with a checkpoint after every marked block."""
    return [_mark_message(message) for message in messages]


def mark_system(entries: Sequence[str | dict[str, Any]]) -> list[str | dict[str, Any]]:
    """The model's `system` entries as Converse blocks, with a checkpoint after every marked one."""
    # Converse's own blocks have no `type`; users of Claude write one.
    return [
        {"text": block["text"]}
        if isinstance(block, dict) and block.get("type") == "text" and "text" in block
        else block
        for block in _with_points(entries)
    ]


def mark_tools(tools: Iterable[Any]) -> list[Any]:
    """The tools with a checkpoint after every marked one."""
    placed: list[Any] = []
    for tool in tools:
        if isinstance(tool, dict):
            placed += _tool_dict(tool)
            continue
        placed.append(tool)
        if mark := (getattr(tool, "extras", None) or {}).get("cache_control"):
            placed.append(cache_point_for(mark))
    return placed


def ending_in_a_mark(messages: Sequence[BaseMessage], ttl: str | None) -> list[BaseMessage]:
    """The messages as a prefix to write: marked at the end, and with a turn to answer where they have none."""
    if not messages or not messages[-1].content:
        raise ConfigurationError("warm(): nothing to write; give messages, of which the last is not empty")
    *before, last = messages
    asked = [] if isinstance(last, HumanMessage) else [HumanMessage("Reply with one word.")]
    return [*before, marked_at_end(last, ttl), *asked]


def marked_at_end(message: M, ttl: str | None = None) -> M:
    """The message with a mark on its last block; an empty one has nowhere to put it."""
    if not message.content:
        return message
    *before, last = blocks_of(message.content)
    return message.model_copy(update={"content": [*before, marked(last, ttl)]})


def marked(block: Mapping[str, Any], ttl: str | None = None) -> dict[str, Any]:
    """The content block with a mark, as users of Claude write it."""
    return {**block, "cache_control": {"type": "ephemeral", "ttl": ttl} if ttl else {"type": "ephemeral"}}


def carries_mark(given: Mapping[str, Any]) -> bool:
    """Whether a block, or a tool, asks for a checkpoint after it."""
    return CACHE_POINT in given or bool(_mark_of(given))


def blocks_of(content: str | Sequence[str | Mapping[str, Any]]) -> list[Any]:
    """A message's content as blocks alone."""
    parts = [content] if isinstance(content, str) else content
    return [{"type": "text", "text": part} if isinstance(part, str) else dict(part) for part in parts]


def _tool_dict(tool: dict[str, Any]) -> Iterator[dict[str, Any]]:
    function = tool.get("function")
    if isinstance(function, dict) and "cache_control" in function:
        tool = {"cache_control": function["cache_control"], **tool, "function": _without(function, "cache_control")}
    yield from _split(tool)


def _mark_message(message: BaseMessage) -> BaseMessage:
    content = message.content
    if isinstance(content, str) or not any(_is_marked(block) for block in content):
        return message
    # The parent reads `type` of every block of a normalised assistant turn, and unwraps this one.
    wrap = isinstance(message, AIMessage)
    return message.model_copy(update={"content": list(_with_points(content, wrap=wrap))})


def _is_marked(block: Any) -> bool:
    if not isinstance(block, dict):
        return False
    if _mark_of(block) or (CACHE_POINT in block and len(block) > 1):
        return True
    return any(_is_marked(inner) for inner in _results(block))


def _mark_of(block: Mapping[str, Any]) -> Any:
    extras = block.get("extras")
    return block.get("cache_control") or (extras.get("cache_control") if isinstance(extras, dict) else None)


def _results(block: Mapping[str, Any]) -> Sequence[Any]:
    content = block.get("content") if block.get("type") in _RESULT_TYPES else None
    return content if isinstance(content, list) else ()


def _with_points(blocks: Iterable[Any], *, wrap: bool = False) -> Iterator[Any]:
    for block in blocks:
        if not _is_marked(block):
            yield block
            continue
        for part in _split(block):
            if wrap and is_cache_point(part):
                yield {"type": "non_standard", "value": part}
            elif results := _results(part):
                yield {**part, "content": list(_with_points(results))}
            else:
                yield part


def _split(block: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The block without its mark, then the checkpoint; Converse takes one member in a block."""
    mark, point = _mark_of(block), block.get(CACHE_POINT)
    rest = _without(block, "cache_control", CACHE_POINT)
    if point and "type" not in rest:
        yield from ({name: value} for name, value in rest.items())
    elif rest:
        yield rest
    if point:
        yield {CACHE_POINT: point}
    elif mark:
        yield cache_point_for(mark)


def _without(given: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in given.items() if name not in names}
