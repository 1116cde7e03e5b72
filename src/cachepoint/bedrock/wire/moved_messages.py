"""The text of a body whose system messages were moved.

A message that changed is put together out of the body's own literals, so that numbers, escapes and blanks inside of
blocks keep their bytes, as all of the text around does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from cachepoint.bedrock.wire.json_text import JsonText, Path, Raw, Value
from cachepoint.bedrock.wire.system_turns import Placed, labelled

_AROUND = json.dumps(labelled({"text": "|"})["text"])[1:-1].split("|")
"""What stands before and behind the text of a system message that the user says, inside of its literal."""


def moved(body: Raw, messages: Sequence[Mapping[str, Any]], placed: Placed) -> Raw:
    """The body, whose messages these are, with those that were placed; text comes back as text and bytes as bytes."""
    pieces = _Pieces(body, messages, placed)
    same = 0
    while same < len(placed.messages) and placed.messages[same] is messages[same]:
        same += 1
    written = [pieces.message(at) for at in range(same, len(placed.messages))]
    if same:  # with the blanks between the messages as they are
        pieces.replace(pieces.value(same - 1).end, "".join(f",{message}" for message in written))
    else:
        pieces.replace(pieces.value(0).start, ",".join(written))
    return pieces.document.edited()


class _Pieces:
    def __init__(self, body: Raw, messages: Sequence[Mapping[str, Any]], placed: Placed) -> None:
        self._messages, self._placed = messages, placed
        self._numbers = {id(message): number for number, message in enumerate(messages)}
        self._sources = {place: source for source, place in placed.places.items()}
        paths: list[Path] = []
        for number, message in enumerate(messages):
            paths += [("messages", number, "role"), ("messages", number, "content")]
            if isinstance(message["content"], list):
                paths += [("messages", number, "content", item, "text") for item in range(len(message["content"]))]
        self.document = JsonText(body, paths)

    def value(self, *steps: str | int) -> Value:
        """Where something in the messages stands."""
        return self.document.values["messages", *steps]

    def replace(self, start: int, text: str) -> None:
        """Put a text in place of all the messages from there on."""
        self.document.replace(start, self.value(len(self._messages) - 1).end, text)

    def message(self, at: int) -> str:
        """A message that was placed."""
        message, original = self._placed.messages[at], self._placed.originals[at]
        number = self._numbers[id(original)]
        whole = self.value(number)
        if message is original:
            return self._literal(whole)
        blocks = ",".join(self._block(at, item) for item in range(len(message["content"])))
        new = {"role": json.dumps(message["role"]), "content": f"[{blocks}]"}
        parts, done = [], whole.start
        for value, text in sorted(((self.value(number, name), text) for name, text in new.items()), key=_start):
            parts += [self.document.text[done : value.start], text]
            done = value.end
        return "".join([*parts, self.document.text[done : whole.end]])

    def _block(self, at: int, item: int) -> str:
        number, own = self._sources[at, item]
        content, now = self._messages[number]["content"], self._placed.messages[at]["content"][item]
        if isinstance(content, str):
            said = self._literal(self.value(number, "content"))
            return f'{{"type":"text","text":{said if now["text"] == content else _labelled(said)}}}'
        block = self.value(number, "content", own)
        if now == content[own]:
            return self._literal(block)
        text = self.value(number, "content", own, "text")
        before, behind = self.document.text[block.start : text.start], self.document.text[text.end : block.end]
        return f"{before}{_labelled(self._literal(text))}{behind}"

    def _literal(self, value: Value) -> str:
        return self.document.text[value.start : value.end]


def _start(part: tuple[Value, str]) -> int:
    return part[0].start


def _labelled(literal: str) -> str:
    opening, closing = _AROUND
    return f'"{opening}{literal[1:-1]}{closing}"'
