"""System messages: each keeps a boundary of its own, and a late one keeps its place in the conversation.

`ChatBedrockConverse` joins consecutive system strings into one block and moves every system message
to the front, which changes the prefix of the whole conversation (langchain-aws 1.9.1
`bedrock_converse.py`, `_messages_to_bedrock`). A late one is therefore carried in its place as a user's message,
between markers that the parent passes through untouched; `seat` makes it a message of role "system" again. Where that
goes is for the wrapped client to say (`bedrock/wire/system_turns.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

from langchain_core.messages import BaseMessage, HumanMessage, SystemMessage

from cachepoint.langchain._request.cache_control import blocks_of
from cachepoint.langchain._request.carried import marker

_BEGIN, _END = marker("system_turn"), marker("system_turn_end")


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


def carry_late(messages: Sequence[BaseMessage]) -> list[BaseMessage]:
    """The messages with every late system message carried in its place through the parent."""
    carried: list[BaseMessage] = []
    late = False
    for message in messages:
        late = late or not isinstance(message, SystemMessage)
        if late and isinstance(message, SystemMessage):
            carried.append(HumanMessage(content=[_BEGIN, *blocks_of(message.content), _END]))
        else:
            carried.append(message)
    return carried


def has_late(messages: Iterable[BaseMessage]) -> bool:
    """Whether a system message follows another kind of message."""
    kinds = [isinstance(message, SystemMessage) for message in messages]
    return any(kinds[kinds.index(False) :]) if False in kinds else False


def seat(request: Mapping[str, Any]) -> Mapping[str, Any]:
    """The Converse request with carried system messages as messages of their own; itself if there are none."""
    if not any(_BEGIN in message["content"] for message in request["messages"]):
        return request
    messages = [
        {**message, "role": role, "content": content}
        for message in request["messages"]
        for role, content in _seated(message["role"], message["content"])
    ]
    return {**request, "messages": messages}


def _seated(role: str, content: Sequence[Any]) -> list[tuple[str, list[Any]]]:
    """A turn in the parts that it was made of."""
    parts: list[tuple[str, list[Any]]] = [(role, [])]
    for block in content:
        if block in (_BEGIN, _END):
            parts.append(("system" if block == _BEGIN else role, []))
        else:
            parts[-1][1].append(block)
    return [(role, blocks) for role, blocks in parts if blocks]


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
