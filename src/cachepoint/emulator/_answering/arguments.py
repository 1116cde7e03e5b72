"""Tool arguments and structured answers made from a JSON schema and the words of a question."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from math import inf, isfinite
from typing import Any

from cachepoint.emulator._reading.request import Json

_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_QUOTED = re.compile(r"(?<!\w)(?:'([^']+)'|\"([^\"]+)\")(?!\w)")
_PROPER_NAME = re.compile(r"(?<=[a-z,] )[A-Z]\w+(?: [A-Z]\w+)*(?:, [A-Z]{2}\b)?")
_NAME_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+|\d+")
_VAGUE = frozenset({"tool", "with", "make", "find", "call", "from", "name", "function", "args", "what"})
_DEEPEST = 8
# However many a schema demands: an answer has an end.
_MOST_ITEMS, _LONGEST = 100, 10_000


def relevant_tool(names: Sequence[str], text: str) -> str | None:
    """The tool a text plainly asks for: one it names in full, else one whose name shares a telling word with it."""
    named = [name for name in names if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text, re.IGNORECASE)]
    if named:
        return named[0]
    asked = {word.lower() for word in _NAME_WORD.findall(text)}
    for name in names:
        telling = {word.lower() for word in _NAME_WORD.findall(name)} - _VAGUE
        if any(len(word) >= 4 and word in asked for word in telling):
            return name
    return None


def arguments_for(schema: Json, text: str) -> Any:
    """A value that fits a JSON schema, filled with the numbers, quotations and names of a text, in their order."""
    filler = _Filler(schema, text)
    return filler.value(schema, "value", 0)


class _Filler:
    def __init__(self, schema: Json, text: str) -> None:
        self._root = schema
        self._text = text
        self._numbers = iter(_NUMBER.findall(text))
        self._strings = _strings(text)

    def value(self, schema: Any, name: str, depth: int) -> Any:
        """A value that fits a schema inside the root; `name` is its property's, `depth` how deep the schema lies."""
        schema = self._resolved(schema if isinstance(schema, dict) else {})
        if "const" in schema:
            return schema["const"]
        if schema.get("enum"):
            return self._choice(schema["enum"])
        kind = schema.get("type", "object" if "properties" in schema else "string")
        if isinstance(kind, list):
            kind = next((each for each in kind if each != "null"), "null")
        if kind == "object":
            return self._object(schema, depth)
        if kind == "array":
            least = min(max(int(schema.get("minItems", 1)), 1), _MOST_ITEMS)
            return [self.value(schema.get("items") or {}, name, depth + 1) for _ in range(least)]
        if kind in ("integer", "number"):
            return self._number(schema, kind)
        if kind == "boolean":
            return True
        return None if kind == "null" else self._string(schema, name)

    def _resolved(self, schema: Json) -> Json:
        for _ in range(_DEEPEST):
            if "$ref" in schema:
                schema = self._referred(schema["$ref"])
                continue
            several = schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf")
            if not several:
                return schema
            known = [each for each in several if isinstance(each, dict)] or [{}]
            schema = next((each for each in known if each.get("type") != "null"), known[0])
        return schema

    def _referred(self, reference: str) -> Json:
        found: Any = self._root
        for key in reference.removeprefix("#/").split("/"):
            found = found.get(key, {}) if isinstance(found, dict) else {}
        return found if isinstance(found, dict) else {}

    def _choice(self, options: Sequence[Any]) -> Any:
        return next((option for option in options if isinstance(option, str) and option in self._text), options[0])

    def _object(self, schema: Json, depth: int) -> Json:
        properties: Json = schema.get("properties") or {}
        # Deep inside a schema that refers to itself only what it demands is filled.
        wanted = properties if depth < _DEEPEST // 2 else schema.get("required") or ()
        if depth >= _DEEPEST:
            wanted = ()
        return {name: self.value(properties.get(name) or {}, name, depth + 1) for name in wanted}

    def _number(self, schema: Json, kind: str) -> int | float:
        least = schema.get("minimum", schema.get("exclusiveMinimum", 0) + 1 if "exclusiveMinimum" in schema else 1)
        given = next(self._numbers, None)
        number = float(given) if given is not None else float(least)
        number = float(min(max(number, schema.get("minimum", -inf)), schema.get("maximum", inf)))
        if not isfinite(number):
            return 1
        return int(number) if kind == "integer" or number.is_integer() else number

    def _string(self, schema: Json, name: str) -> str:
        made = {"date": "2026-01-01", "date-time": "2026-01-01T00:00:00Z", "time": "00:00:00Z"}
        if schema.get("format") in made:
            return made[schema["format"]]
        text = next(self._strings, name)
        text = text.ljust(min(int(schema.get("minLength", 0)), _LONGEST), ".")
        return text[: int(schema.get("maxLength", len(text)))]


def _strings(text: str) -> Iterator[str]:
    for found in _QUOTED.finditer(text):
        yield found[1] or found[2]
    yield from (found[0] for found in _PROPER_NAME.finditer(text))
