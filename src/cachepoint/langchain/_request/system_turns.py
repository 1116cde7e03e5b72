"""System messages: each keeps a boundary of its own, and a late one keeps its place in the conversation.

`ChatBedrockConverse` joins consecutive system strings into one block and moves every system message
to the front, which changes the prefix of the whole conversation (langchain-aws 1.9.1
`bedrock_converse.py`, `_messages_to_bedrock`).

AWS takes a message of role "system" only directly after a user turn, last or before an assistant
turn, one at a time, and with text only (AWS user guide, "Mid-conversation system messages", 2026; what other sources
say: docs/rules.md, "Late system messages").
A late system message is therefore carried at the end of the user turn it follows, behind a marker that
the parent passes through untouched; `seat` makes it a message of its own again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage

from cachepoint.bedrock.wire.cache_point import is_cache_point
from cachepoint.langchain._request.cache_control import blocks_of
from cachepoint.langchain._request.carried import marker

_MARKER = marker("system_turn")


def keep_boundaries(messages: Iterable[BaseMessage]) -> list[BaseMessage]:
    """The messages with every run of plain system strings as one message of several blocks.

    The blocks joined are the string the parent would have sent.
    """
    kept: list[BaseMessage] = []
    for is_plain, grouped in groupby(messages, _is_plain_system):
        run = list(grouped)
        texts = [str(message.content) for message in run if message.content]
        if is_plain and len(texts) > 1:
            kept.append(SystemMessage(content=[{"type": "text", "text": text} for text in _pieces(texts)]))
        else:
            kept += run
    return kept


def carry_late(messages: Sequence[BaseMessage]) -> list[BaseMessage] | None:
    """The messages with every late system message in a place the service takes; None if one has none."""
    carried: list[BaseMessage] = []
    waiting: list[Any] = []
    for message in messages:
        if isinstance(message, SystemMessage) and any(not isinstance(each, SystemMessage) for each in carried):
            waiting += blocks_of(message.content)
            continue
        if isinstance(message, AIMessage):
            waiting = _put(carried, waiting)
        carried.append(message)
    waiting = _put(carried, waiting)
    return None if waiting or not _text_only(carried) else carried


def has_late(messages: Iterable[BaseMessage]) -> bool:
    """Whether a system message follows another kind of message."""
    kinds = [isinstance(message, SystemMessage) for message in messages]
    return any(kinds[kinds.index(False) :]) if False in kinds else False


def seat(request: Mapping[str, Any]) -> Mapping[str, Any]:
    """The Converse request with carried system messages as messages of their own; itself if there are none."""
    messages: list[dict[str, Any]] = []
    for message in request["messages"]:
        content = message["content"]
        if _MARKER in content:
            cut = content.index(_MARKER)
            messages.append({**message, "content": content[:cut]})
            messages.append({"role": "system", "content": content[cut + 1 :]})
        else:
            messages.append(message)
    return request if len(messages) == len(request["messages"]) else {**request, "messages": messages}


def hoist(request: Mapping[str, Any]) -> dict[str, Any]:
    """The Converse request with its system turns at the end of `system`, as the parent sends it."""
    turns = [message for message in request["messages"] if message["role"] == "system"]
    return {
        **request,
        "system": [*request.get("system", ()), *(block for turn in turns for block in turn["content"])],
        "messages": [message for message in request["messages"] if message["role"] != "system"],
    }


def _is_plain_system(message: BaseMessage) -> bool:
    return isinstance(message, SystemMessage) and isinstance(message.content, str)


def _pieces(texts: Sequence[str]) -> list[str]:
    # The separator leads the later piece, so that a first piece has the same bytes with and without a second.
    pieces = [texts[0]]
    for text in texts[1:]:
        if text.isspace() or pieces[-1].isspace():
            pieces[-1] += "\n" + text
        else:
            pieces.append("\n" + text)
    return pieces


def _put(carried: list[BaseMessage], waiting: list[Any]) -> list[Any]:
    """Put what waits behind the user turn that ends here; what cannot be put waits on."""
    if not waiting or not carried or isinstance(carried[-1], (AIMessage, SystemMessage)):
        return waiting
    carried.append(HumanMessage(content=[_MARKER, *waiting]))
    return []


def _text_only(messages: Iterable[BaseMessage]) -> bool:
    return all(
        is_cache_point(block) or block.get("type", "text") == "text"
        for message in messages
        if isinstance(message.content, list) and _MARKER in message.content
        for block in blocks_of(message.content)[1:]
    )
