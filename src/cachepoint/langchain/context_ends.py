"""Blocks that end a context, told to the planner: a place likely to be read again, and no order to write there.

`extras` of a content block is LangChain's place for what one provider wants to know; the others leave it out. It says
so in a message. On the way through the parent, which drops `extras`, a marker in front of the block says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage

from cachepoint.core.prompt import Where

_KEY = "cachepoint"
_ENDS = "context_end"
_MARKER = {_KEY: _ENDS}


def ending_a_context(block: Mapping[str, Any]) -> dict[str, Any]:
    """The content block, said to end a context."""
    return {**block, "extras": {**(block.get("extras") or {}), **_MARKER}}


def carry_ends(messages: Iterable[BaseMessage]) -> list[BaseMessage]:
    """The messages with a marker in front of every block that ends a context."""
    return [_carrying(message) for message in messages]


def take_ends(request: Mapping[str, Any]) -> tuple[Mapping[str, Any], frozenset[Where]]:
    """The Converse request without markers, and where the blocks that end a context are in it."""
    ends: set[Where] = set()
    taken = dict(request)
    if "system" in request:
        taken["system"] = _taken(request["system"], Where("system", None, 0), ends)
    taken["messages"] = [
        {**message, "content": _taken(message["content"], Where("messages", number, 0), ends)}
        for number, message in enumerate(request["messages"])
    ]
    return (taken, frozenset(ends)) if ends else (request, frozenset())


def _carrying(message: BaseMessage) -> BaseMessage:
    # The parent reads `type` of every block of an assistant turn, and context does not stand in one.
    if isinstance(message, AIMessage) or isinstance(message.content, str) or not any(map(_ends, message.content)):
        return message
    return message.model_copy(update={"content": list(_marked(message.content))})


def _marked(blocks: Iterable[Any]) -> Iterator[Any]:
    for block in blocks:
        if _ends(block):
            yield dict(_MARKER)
        yield block


def _ends(block: Any) -> bool:
    return isinstance(block, dict) and (block.get("extras") or {}).get(_KEY) == _ENDS


def _taken(blocks: Iterable[Any], where: Where, ends: set[Where]) -> list[Any]:
    kept: list[Any] = []
    for block in blocks:
        if block == _MARKER:
            ends.add(where._replace(item=len(kept)))
        else:
            kept.append(block)
    return kept
