"""What a JSON value has to be, as small functions: each takes a value in, or says what it is to be instead.

A `Shape` gives what becomes of the value, and raises `MisfitError` where it has another. Shapes of parts make those of
wholes, and a misfit names the part it was found in.
"""

from __future__ import annotations

import json
import os
import re
import stat
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

_T = TypeVar("_T")
_K = TypeVar("_K")
Shape = Callable[[Any], _T]


class MisfitError(ValueError):
    """A value that is not what it is to be; `path` are the parts it stands in, from the inside out."""

    def __init__(self, value: Any, wanted: str) -> None:
        super().__init__()
        self.value, self.wanted = value, wanted
        self.path: list[str] = []

    def __str__(self) -> str:
        where = "".join(reversed(self.path)).removeprefix(".") or "what is in it"
        found = f"{self.value!r:.60}"
        if isinstance(self.value, dict | list):
            found = f"{'a list' if isinstance(self.value, list) else 'an object'} of {len(self.value)}"
        return f"{where} is {found}, and is to be {self.wanted}"


def document(path: Path, most_bytes: int) -> Any:
    """The JSON document in a file; raises OSError, ValueError or RecursionError where it is none, or is larger."""
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):  # reading a pipe may take for ever
        raise ValueError("it is no regular file")
    with path.open("rb") as file:
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise ValueError(f"it has more than {most_bytes:,} bytes")
    return json.loads(content.decode("utf-8"), object_pairs_hook=_object, parse_constant=_no_number)


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for index, (name, _) in enumerate(pairs) if name in dict(pairs[:index]))
        raise ValueError(f"{twice[:60]!r} stands twice in one object")
    return found


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def fault(problem: Exception) -> str:
    """Why a document could not be read, as the part of a sentence."""
    if isinstance(problem, RecursionError):
        return "it is nested too deeply"
    if isinstance(problem, OSError):
        return f"it cannot be read: {os.strerror(problem.errno) if problem.errno else type(problem).__name__}"
    return f"it is no JSON: {problem}" if isinstance(problem, json.JSONDecodeError | UnicodeError) else str(problem)


def number(least: float, most: float) -> Shape[float]:
    """A number in a range, which is finite."""

    def shape(value: Any) -> float:
        if type(value) in (float, int) and least <= value <= most:  # which infinity and NaN are not
            return float(value)
        raise MisfitError(value, f"a number from {least:,g} to {most:,g}")

    return shape


def whole(least: int, most: int) -> Shape[int]:
    """A whole number in a range."""

    def shape(value: Any) -> int:
        if type(value) is not int or not least <= value <= most:
            raise MisfitError(value, f"a whole number from {least} to {most:,}")
        return value

    return shape


def flag(value: Any) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise MisfitError(value, "true or false")
    return value


def one_of(*allowed: _T) -> Shape[_T]:
    """One of a few strings or numbers."""

    def shape(value: Any) -> _T:
        for each in allowed:
            if type(value) is type(each) and value == each:
                return each
        raise MisfitError(value, f"one of {', '.join(map(repr, allowed))}")

    return shape


def text(most: int) -> Shape[str]:
    """A string of so many characters at most."""

    def shape(value: Any) -> str:
        if not isinstance(value, str) or len(value) > most:
            raise MisfitError(value, f"a string of at most {most} characters")
        return value

    return shape


def hexed(lengths: range) -> Shape[bytes]:
    """Bytes in hexadecimal digits, of which there may be so many."""
    pattern = re.compile(r"(?:[0-9a-f]{2})*")
    wanted = f"{lengths[0]} bytes" if len(lengths) == 1 else f"{lengths[0]} to {lengths[-1]} bytes"

    def shape(value: Any) -> bytes:
        if not isinstance(value, str) or not pattern.fullmatch(value) or len(value) // 2 not in lengths:
            raise MisfitError(value, f"{wanted} in hexadecimal digits")
        return bytes.fromhex(value)

    return shape


def row(*shapes: Shape[Any]) -> Shape[tuple[Any, ...]]:
    """A list of so many values, each with a shape of its own."""

    def shape(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list) or len(value) != len(shapes):
            raise MisfitError(value, f"a list of {len(shapes)}")
        return _each(zip(shapes, value, strict=True))

    return shape


def several(of: Shape[_T], most: int) -> Shape[tuple[_T, ...]]:
    """A list of like values, so many at most."""

    def shape(value: Any) -> tuple[_T, ...]:
        if not isinstance(value, list) or len(value) > most:
            raise MisfitError(value, f"a list of at most {most}")
        return _each((of, each) for each in value)

    return shape


def _each(parts: Iterable[tuple[Shape[_T], Any]]) -> tuple[_T, ...]:
    taken: list[_T] = []
    try:
        for shape, value in parts:
            taken.append(shape(value))
    except MisfitError as misfit:
        misfit.path.append(f"[{len(taken)}]")
        raise
    return tuple(taken)


def table(name: Shape[_K], of: Shape[_T], most: int = sys.maxsize) -> Shape[dict[_K, _T]]:
    """An object of like values by name, so many at most."""

    def shape(value: Any) -> dict[_K, _T]:
        if not isinstance(value, dict) or len(value) > most:
            raise MisfitError(value, f"an object of at most {most:,} members")
        taken: dict[_K, _T] = {}
        for key, each in value.items():
            try:
                taken[name(key)] = of(each)
            except MisfitError as misfit:
                misfit.path.append(f"[{key[:60]!r}]")
                raise
        return taken

    return shape


def record(members: Mapping[str, Shape[Any]], defaults: Mapping[str, Any] | None = None) -> Shape[dict[str, Any]]:
    """An object of these members, of which those with a default may be missing; others are not looked at.

    A later release may add members within a version.
    """
    left_out = dict(defaults or {})

    def shape(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise MisfitError(value, "an object")
        for name in members:
            if name not in value and name not in left_out:
                raise MisfitError(value, f"an object that has {name!r}")
        return {
            **left_out,
            **{name: _inside(f".{name}", members[name], value[name]) for name in members if name in value},
        }

    return shape


def _inside(part: str, shape: Shape[_T], value: Any) -> _T:
    try:
        return shape(value)
    except MisfitError as misfit:
        misfit.path.append(part)
        raise
