"""The text of a JSON document, edited in place: what no edit touches keeps its bytes.

A parsed document does not give its text back: `1e400`, `1.00`, escapes, blanks and the order of keys are lost in it. So
values are changed where they stand in the text, which Python's own decoder finds, and only as deep as an edit reaches.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Raw: TypeAlias = str | bytes | bytearray
"""A document as a caller has it; bytes are UTF-8."""
Path: TypeAlias = tuple[str | int, ...]
"""Names of members and numbers of items that lead to a value; `()` is the document."""
Object: TypeAlias = dict[str, Any]

_decode = json.JSONDecoder().raw_decode
_blanks = re.compile(r"[ \t\n\r]*").match
_PAIR = r"\\u[dD][89abAB]..\\u[dD][c-fC-F].."
_escapes = re.compile(rf"((?:{_PAIR})+)|((?:(?!{_PAIR})\\u....)+)|((?:\\[^u])+)").match
_WIDTHS = (12, 6, 2)
"""How much text a character takes in each of these runs: a pair of surrogates, one code unit, a short escape."""


def parsed(raw: Raw) -> Object:
    """A JSON object whose text can be edited; raises ValueError for any other document, also one with a key repeated.

    Which of two equal keys counts is not defined (RFC 8259, section 4), so nobody knows what such a document says.
    """
    try:
        value = json.loads(raw, object_pairs_hook=_object, parse_constant=_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004 - the document is wrong and not the argument
    return value


def _object(members: list[tuple[str, Any]]) -> Object:
    value = dict(members)
    if len(value) < len(members):
        raise ValueError("a key is repeated")
    return value


def _constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


@dataclass(slots=True)
class Value:
    """Where a value stands in the text: `text[start:end]`.

    `members` are those of an object that was looked into, each with the place where its key begins.
    """

    start: int
    end: int
    members: dict[str, tuple[int, Value]] = field(default_factory=dict)


@dataclass
class JsonText:
    """A JSON document that `parsed` has read, and the edits to be made in its text.

    Looks into it along `paths`: what stands at these and above them is in `values`, as far as it is there.
    """

    raw: Raw
    paths: Collection[Path]
    values: dict[Path, Value] = field(init=False, default_factory=dict)
    _edits: list[tuple[int, int, str]] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        # As json.loads decodes; a byte order mark stays the text's first character.
        self.text = self.raw if isinstance(self.raw, str) else self.raw.decode("utf-8", "surrogatepass")
        tree: dict[Any, Any] = {}
        for path in self.paths:
            branch = tree
            for step in path:
                branch = branch.setdefault(step, {})
        self._look((), self._over(1 if self.text.startswith("\ufeff") else 0), tree)

    def replace(self, start: int, end: int, text: str) -> None:
        """Put a text in place of another; no two edits may overlap."""
        self._edits.append((start, end, text))

    def insert(self, at: int, text: str) -> None:
        """Put a text before what stands at a place."""
        self.replace(at, at, text)

    def set(self, path: Path, name: str, text: str | None) -> None:
        """Give the object at a path, which was looked into, a member of this text; None takes the member out."""
        here = self.values[path]
        if self.text[here.start] != "{":
            raise ValueError(f"no object stands at {path}")
        if name in here.members:
            key, value = here.members[name]
            if text is not None:
                self.replace(value.start, value.end, text)
            else:
                self._take_out(here, key, value.end)
        elif text is not None:
            self._add(here, f"{json.dumps(name)}:{text}")

    def add(self, path: Path, members: Object) -> None:
        """Give the object at a path, which was looked into, members that it does not have."""
        if members:
            self._add(self.values[path], json.dumps(members)[1:-1])

    def _add(self, here: Value, members: str) -> None:
        last = max((value.end for _, value in here.members.values()), default=None)
        self.insert(here.start + 1 if last is None else last, members if last is None else f",{members}")

    def _take_out(self, here: Value, key: int, end: int) -> None:
        before = [value.end for _, value in here.members.values() if value.end < key]
        after = [other for other, _ in here.members.values() if other > key]
        if before:  # with the comma on one side or the other
            self.replace(max(before), end, "")
        else:
            self.replace(key, min(after, default=end), "")

    def characters(self, start: int, offsets: Sequence[int]) -> list[int]:
        """Where characters of the string that begins at `start` stand, by their ascending offsets in its value."""
        text, found = self.text, list[int]()
        at, done = start + 1, 0  # character `done` of the value stands at `at`
        for offset in offsets:
            # No escape has a blank in it: what stands before one is decoded by itself, the most of it at once.
            while (blank := text.rfind(" ", at, at + offset - done)) > at:
                done += len(_decode(f'"{text[at:blank]}"')[0])
                at = blank
            while (begins := text.find("\\", at, at + offset - done)) >= 0 and (run := _escapes(text, begins)):
                width = _WIDTHS[(run.lastindex or 1) - 1]
                done += begins - at
                count = min((run.end() - begins) // width, offset - done)
                at, done = begins + count * width, done + count
            found.append(at + offset - done)
            at, done = found[-1], offset
        return found

    def edited(self) -> Raw:
        """The document with the edits made, text as text and bytes as bytes; the very one given without any."""
        if not self._edits:
            return self.raw
        parts: list[str] = []
        done = 0
        for start, end, text in sorted(self._edits, key=lambda edit: edit[:2]):
            parts += (self.text[done:start], text)
            done = end
        result = "".join([*parts, self.text[done:]])
        return result if isinstance(self.raw, str) else result.encode("utf-8", "surrogatepass")

    # -- looking ----------------------------------------------------------------------------------

    def _over(self, at: int) -> int:
        blanks = _blanks(self.text, at)
        return blanks.end() if blanks else at

    def _look(self, path: Path, at: int, tree: Mapping[Any, Any]) -> Value:
        """Find out where the value that begins at a place ends, looking into it along a tree of steps."""
        look = {"{": self._members, "[": self._items}.get(self.text[at])
        if look is None:
            value = Value(at, _decode(self.text, at)[1])
        else:
            value = Value(at, at)
            value.end = look(path, value, tree)
        self.values[path] = value
        return value

    def _members(self, path: Path, here: Value, tree: Mapping[Any, Any]) -> int:
        text, at = self.text, self._over(here.start + 1)
        while text[at] != "}":
            key, end = _decode(text, at)
            value = self._value((*path, key), self._over(self._over(end) + 1), tree.get(key))
            here.members[key] = at, value
            at = self._next(value.end)
        return at + 1

    def _items(self, path: Path, here: Value, tree: Mapping[Any, Any]) -> int:
        text, at, number = self.text, self._over(here.start + 1), 0
        while text[at] != "]":
            at = self._next(self._value((*path, number), at, tree.get(number)).end)
            number += 1
        return at + 1

    def _value(self, path: Path, at: int, tree: Mapping[Any, Any] | None) -> Value:
        return Value(at, _decode(self.text, at)[1]) if tree is None else self._look(path, at, tree)

    def _next(self, at: int) -> int:
        """Where the next member or item begins after one, or its object or array ends."""
        at = self._over(at)
        return self._over(at + 1) if self.text[at] == "," else at
