"""Late system messages: a message of role `system` in a conversation, put where the service takes it.

Who takes such messages is contested (docs/rules.md, "Late system messages"). Where a model is known to take them they
stay: directly after a user turn, last or before an assistant turn, and with text only (AWS user guide,
"Mid-conversation system messages"). Everywhere else each becomes text of the user's in its place, between `<system>`
tags. The prefix before it stays as it was, which it would not if the text went to the front; this is the one thing
that cachepoint changes of what a model reads.

Pure steps over the messages of either dialect; what is not touched is shared with the messages given.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cachepoint.core.prompt.prompt import Hints, Where

Message = Mapping[str, Any]
_Source = tuple[int, int]
"""A block as it was: the index of its message and its own."""


@dataclass
class _Turn:
    """A message to send. `message` is the one it was made of; `ours` says that blocks were put into it."""

    role: str
    message: Message
    blocks: list[tuple[_Source, Any]]
    ours: bool = False

    def sent(self) -> Message:
        """The message, itself where nothing was put into it."""
        if not self.ours:
            return self.message
        return {**self.message, "role": self.role, "content": [block for _, block in self.blocks]}


@dataclass
class Placed:
    """The messages as they go out, what each was made of, and where each block of those given stands in them."""

    messages: list[Message]
    originals: list[Message]
    places: Mapping[_Source, _Source] = field(default_factory=dict)

    def hints(self, hints: Hints) -> dict[Where, Any]:
        """Hints about the messages given, at the places where their blocks stand now."""
        return {self._moved(where): hint for where, hint in hints.items()}

    def _moved(self, where: Where) -> Where:
        if where.section != "messages" or where.message is None:
            return where
        message, item = self.places.get((where.message, where.item), (where.message, where.item))
        return where._replace(message=message, item=item)


def has_system_turns(messages: Any) -> bool:
    """Whether any of these is a system message; what is no list of messages is left to the service to judge."""
    return isinstance(messages, list | tuple) and any(
        isinstance(message, Mapping) and message.get("role") == "system" for message in messages
    )


def placed(messages: Sequence[Message], *, taken: bool) -> Placed | None:
    """Put each system message where it is taken; None where these are no messages that anybody could send."""
    if not all(map(_is_message, messages)):
        return None
    turns: list[_Turn] = []
    number = 0
    while number < len(messages):
        message, run = messages[number], _run(messages, number)
        if run == number:
            _follow(turns, _Turn(message["role"], message, list(_blocks(messages, number))))
            number += 1
            continue
        blocks = [block for each in range(number, run) for block in _blocks(messages, each)]
        stays = taken and _may_stay(turns, messages, run) and all(_is_text(block) for _, block in blocks)
        if stays and blocks:
            turns.append(_Turn("system", message, blocks, ours=run - number > 1))
        elif blocks:
            _speak(turns, message, [(source, labelled(block)) for source, block in blocks])
        number = run
    places = {
        source: (at, item) for at, turn in enumerate(turns) for item, (source, _) in enumerate(turn.blocks)
    }  # fmt: skip
    return Placed([turn.sent() for turn in turns], [turn.message for turn in turns], places)


def labelled(block: Mapping[str, Any]) -> dict[str, Any]:
    """A block of a system message as the user would say it."""
    text = block.get("text")
    return {**block, "text": f"<system>\n{text}\n</system>"} if isinstance(text, str) else dict(block)


def _run(messages: Sequence[Message], number: int) -> int:
    """The end of the system messages that begin here; this number itself where none does."""
    while number < len(messages) and messages[number]["role"] == "system":
        number += 1
    return number


def _may_stay(turns: Sequence[_Turn], messages: Sequence[Message], after: int) -> bool:
    behind_the_user = bool(turns) and turns[-1].role == "user"
    return behind_the_user and (after == len(messages) or messages[after]["role"] == "assistant")


def _follow(turns: list[_Turn], turn: _Turn) -> None:
    """Add a message of the user's own; roles alternate where what was said before it became a user turn."""
    last = turns[-1] if turns else None
    if last is None or not last.ours or (last.role, turn.role) != ("user", "user"):
        turns.append(turn)
        return
    # The results of tools come first in the turn after their calls (Anthropic, "Handle tool calls").
    results = 0
    if last.message.get("role") == "system":
        while results < len(turn.blocks) and _is_tool_result(turn.blocks[results][1]):
            results += 1
    last.blocks = [*turn.blocks[:results], *last.blocks, *turn.blocks[results:]]


def _speak(turns: list[_Turn], message: Message, blocks: list[tuple[_Source, Any]]) -> None:
    """Say it as the user, in the turn before if that is the user's."""
    if turns and turns[-1].role == "user":
        turns[-1].blocks += blocks
        turns[-1].ours = True
    else:
        turns.append(_Turn("user", message, blocks, ours=True))


def _is_message(message: Any) -> bool:
    content = message.get("content") if isinstance(message, Mapping) else None
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        return False
    return isinstance(content, str) or (
        isinstance(content, list | tuple) and all(isinstance(block, Mapping) for block in content)
    )


def _blocks(messages: Sequence[Message], number: int) -> Iterator[tuple[_Source, Any]]:
    content = messages[number]["content"]
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
    for item, block in enumerate(blocks):
        yield (number, item), block


def _is_text(block: Message) -> bool:
    return "text" in block or "cachePoint" in block


def _is_tool_result(block: Message) -> bool:
    return "toolResult" in block or block.get("type") == "tool_result"
