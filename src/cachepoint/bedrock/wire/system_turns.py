"""Late system messages: a message of role `system` in a conversation, put where the service takes it.

Who takes such messages is contested (docs/rules.md, "Late system messages"). Where a model is known to take them they
stay: directly after a user turn, last or before an assistant turn, and with text only (AWS user guide,
"Mid-conversation system messages"). Everywhere else each becomes text of the user's in its place, between `<system>`
tags. The prefix before it stays as it was, which it would not if the text went to the front; this is the one thing
that cachepoint changes of what a model reads.

Pure steps over the messages of either dialect; what is not touched is shared with the messages given. In the text of a
body every block keeps its bytes, and so does all that is not in a message that was changed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

from cachepoint.bedrock.wire.json_text import JsonText, Path, Raw, Value
from cachepoint.core.prompt.prompt import Hints, Where

Message = Mapping[str, Any]
_BEFORE, _AFTER = "<system>\n", "\n</system>"


class _Block(NamedTuple):
    """A block as it was, and where; `spoken` says that it is a system message's and said by the user now."""

    message: int
    item: int
    value: Any
    spoken: bool = False


@dataclass
class _Turn:
    """A message to send. It is made of the one of this number; `ours` says that blocks were put into it."""

    role: str
    number: int
    message: Message
    blocks: list[_Block]
    ours: bool = False

    def sent(self) -> Message:
        """The message, itself where nothing was put into it."""
        if not self.ours:
            return self.message
        content = [labelled(block.value) if block.spoken else block.value for block in self.blocks]
        return {**self.message, "role": self.role, "content": content}


class Placed:
    """The messages as they go out, and where each block of those given stands in them."""

    def __init__(self, given: Sequence[Message], turns: Sequence[_Turn]) -> None:
        self._given, self._turns = given, turns
        self.messages = [turn.sent() for turn in turns]

    def hints(self, hints: Hints) -> dict[Where, Any]:
        """Hints about the messages given, at the places where their blocks stand now."""
        places = {
            (block.message, block.item): (at, item)
            for at, turn in enumerate(self._turns)
            for item, block in enumerate(turn.blocks)
        }

        def moved(where: Where) -> Where:
            if where.section != "messages" or where.message is None:
                return where
            message, item = places.get((where.message, where.item), (where.message, where.item))
            return where._replace(message=message, item=item)

        return {moved(where): hint for where, hint in hints.items()}

    def in_text(self, body: Raw) -> Raw:
        """The body of Anthropic Messages whose messages were given, with these in its text."""
        paths: list[Path] = [("messages", number) for number in range(len(self._given))]
        paths += [(*_path(block), "text") for turn in self._turns if turn.ours for block in turn.blocks]
        document = JsonText(body, paths)
        for turn in self._turns:
            if turn.ours:
                message = ("messages", turn.number)
                if turn.role != turn.message["role"]:
                    document.set(message, "role", f'"{turn.role}"')
                content = ",".join(_text(document, block) for block in turn.blocks)
                document.set(message, "content", f"[{content}]")
        for begin, end in self._left_out(document):
            document.replace(begin, end, "")
        return document.edited()

    def _left_out(self, document: JsonText) -> Iterator[tuple[int, int]]:
        """Where the messages stand of which no turn is made, each with a comma."""
        each = [document.values["messages", number] for number in range(len(self._given))]
        kept = [turn.number for turn in self._turns]
        for number, after in pairwise([*kept, len(each)]):
            if after > number + 1:
                yield each[number].end, each[after - 1].end
        if not kept:
            yield each[0].start, each[-1].end
        elif kept[0] > 0:
            yield each[0].start, each[kept[0]].start


def _path(block: _Block) -> Path:
    return "messages", block.message, "content", block.item


def _text(document: JsonText, block: _Block) -> str:
    """The text of a block as it goes out, which a string becomes."""
    path, text, values = _path(block), document.text, document.values
    if path not in values:
        return f'{{"type":"text","text":{_words(document, block, values[path[:-1]])}}}'
    whole, words = values[path], values.get((*path, "text"))
    if words is None:
        return text[whole.start : whole.end]
    return f"{text[whole.start : words.start]}{_words(document, block, words)}{text[words.end : whole.end]}"


def _words(document: JsonText, block: _Block, words: Value) -> str:
    literal = document.text[words.start : words.end]
    if block.spoken and literal.startswith('"'):
        return f"{json.dumps(_BEFORE)[:-1]}{literal[1:-1]}{json.dumps(_AFTER)[1:]}"
    return literal


def has_system_turns(messages: Any) -> bool:
    """Whether any of these is a system message; what is no list of messages is left to the service to judge."""
    if not isinstance(messages, list | tuple):
        return False
    return "system" in [message.get("role") for message in messages if isinstance(message, dict)]


def placed(messages: Sequence[Message], *, taken: bool) -> Placed | None:
    """Put each system message where it is taken; None where these are no messages that anybody could send."""
    if not all(map(_is_message, messages)):
        return None
    turns: list[_Turn] = []
    number = 0
    while number < len(messages):
        message, run = messages[number], _run(messages, number)
        if run == number:
            _follow(turns, _Turn(message["role"], number, message, list(_blocks(messages, number))))
            number += 1
            continue
        blocks = [block for each in range(number, run) for block in _blocks(messages, each)]
        stays = taken and _may_stay(turns, messages, run) and all(_is_text(block.value) for block in blocks)
        if stays and blocks:
            turns.append(_Turn("system", number, message, blocks, ours=run - number > 1))
        elif blocks:
            _speak(turns, _Turn("user", number, message, [block._replace(spoken=True) for block in blocks], ours=True))
        number = run
    return Placed(messages, turns)


def labelled(block: Mapping[str, Any]) -> dict[str, Any]:
    """A block of a system message as the user would say it."""
    text = block.get("text")
    return {**block, "text": f"{_BEFORE}{text}{_AFTER}"} if isinstance(text, str) else dict(block)


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
        while results < len(turn.blocks) and _is_tool_result(turn.blocks[results].value):
            results += 1
    last.blocks = [*turn.blocks[:results], *last.blocks, *turn.blocks[results:]]


def _speak(turns: list[_Turn], turn: _Turn) -> None:
    """Say it as the user, in the turn before if that is the user's."""
    if turns and turns[-1].role == "user":
        turns[-1].blocks += turn.blocks
        turns[-1].ours = True
    else:
        turns.append(turn)


def _is_message(message: Any) -> bool:
    content = message.get("content") if isinstance(message, Mapping) else None
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        return False
    return isinstance(content, str) or (
        isinstance(content, list | tuple) and all(isinstance(block, Mapping) for block in content)
    )


def _blocks(messages: Sequence[Message], number: int) -> Iterator[_Block]:
    content = messages[number]["content"]
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
    for item, block in enumerate(blocks):
        yield _Block(number, item, block)


def _is_text(block: Message) -> bool:
    return "text" in block or "cachePoint" in block


def _is_tool_result(block: Message) -> bool:
    return "toolResult" in block or block.get("type") == "tool_result"
