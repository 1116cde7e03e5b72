"""Notes on content blocks, carried in a message and through the parent to where a request goes out.

Four things are noted: that context ends with a block, that with it begins what the history will not keep, and that
a system message begins with it, or ended before it. `extras` of a content block is LangChain's place for what one
provider wants to know; the others leave it out. It holds a note in a message. On the way through the parent, which
drops `extras` and passes on blocks that it does not know, a marker in front of the block holds it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

from langchain_core.messages import AIMessage, BaseMessage

from cachepoint.core.prompt.prompt import NO_HINTS, Hint, Hints, Where

Note = Hint | Literal["system_turn", "system_turn_end"]

_KEY = "cachepoint"


def marker(note: Note) -> dict[str, Any]:
    """What stands for a note in front of its block."""
    return {_KEY: note}


def hinted(block: Mapping[str, Any], hint: Hint) -> dict[str, Any]:
    """The content block with a hint on it."""
    return {**block, "extras": {**(block.get("extras") or {}), _KEY: hint}}


def carry_hints(messages: Iterable[BaseMessage]) -> list[BaseMessage]:
    """The messages with a marker in front of every block that has a hint."""
    return [_carrying(message) for message in messages]


def take_hints(request: Mapping[str, Any]) -> tuple[Mapping[str, Any], Hints]:
    """The Converse request without markers, and what they say of its blocks."""
    hints: dict[Where, Hint] = {}
    taken = dict(request)
    if "system" in request:
        taken["system"] = _taken(request["system"], Where("system", None, 0), hints)
    taken["messages"] = [
        {**message, "content": _taken(message["content"], Where("messages", number, 0), hints)}
        for number, message in enumerate(request["messages"])
    ]
    return (taken, hints) if hints else (request, NO_HINTS)


def _carrying(message: BaseMessage) -> BaseMessage:
    # The parent reads `type` of every block of an assistant turn, and context does not stand in one.
    if isinstance(message, AIMessage) or isinstance(message.content, str) or not any(map(_hint, message.content)):
        return message
    return message.model_copy(update={"content": list(_marked(message.content))})


def _marked(blocks: Iterable[Any]) -> Iterator[Any]:
    for block in blocks:
        if hint := _hint(block):
            yield marker(hint)
        yield block


def _hint(block: Any) -> Any:
    return (block.get("extras") or {}).get(_KEY) if isinstance(block, dict) else None


def _taken(blocks: Iterable[Any], where: Where, hints: dict[Where, Hint]) -> list[Any]:
    kept: list[Any] = []
    for block in blocks:
        if isinstance(block, dict) and block.keys() == {_KEY}:
            hints[where._replace(item=len(kept))] = block[_KEY]
        else:
            kept.append(block)
    return kept
