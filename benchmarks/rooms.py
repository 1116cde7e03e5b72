"""How the house measures: modules, their sizes, who is imported by how many, and one warm LangChain call's way through.

A room is a module of cachepoint. `changes` counts how often the call goes from one room into another, by
`sys.setprofile`: every call and return between functions of two different modules, in the thread that makes the call.
"""

from __future__ import annotations

import argparse
import ast
import json
import statistics
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import cachepoint

PACKAGE = Path(cachepoint.__file__).parent
DOCUMENT = "Bedrock keeps what a request has in common with the one before. " * 400


class Walk:
    """The rooms a thread goes through while it is profiled."""

    def __init__(self) -> None:
        self.doors: Counter[tuple[str, str]] = Counter()
        self.rooms: set[str] = set()
        self._here = ""

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        if event not in ("call", "return"):
            return
        seen = frame if event == "call" else frame.f_back
        while seen is not None and not (room := room_of(seen.f_code.co_filename)):
            seen = seen.f_back
        if seen is None or room == self._here:
            return
        if self._here:
            self.doors[self._here, room] += 1
        self._here = room
        self.rooms.add(room)


def room_of(filename: str) -> str:
    """The module a file is, by its path in the package; "" for anybody else's."""
    if not filename.startswith(str(PACKAGE)):
        return ""
    return Path(filename).relative_to(PACKAGE).with_suffix("").as_posix()


def walked() -> Walk:
    """One warm call of a chat of a few turns through LangChain's class, on the emulator in this process."""
    from cachepoint.emulator import BedrockEmulator
    from cachepoint.langchain import CacheAwareChatBedrockConverse

    turns: list[tuple[str, str]] = [("system", DOCUMENT), ("human", "Why?"), ("ai", "So."), ("human", "And how?")]
    with BedrockEmulator() as emulator:
        model = CacheAwareChatBedrockConverse(
            model="us.anthropic.claude-sonnet-4-5-20250929-v1:0", client=emulator.client(region="us-east-1")
        )
        for _ in range(3):
            model.invoke(turns)
        walk = Walk()
        sys.setprofile(walk)
        try:
            model.invoke(turns)
        finally:
            sys.setprofile(None)
    return walk


def sizes() -> dict[str, int]:
    """Lines of every module."""
    return {room_of(str(path)): path.read_text("utf-8").count("\n") for path in PACKAGE.rglob("*.py")}


def fan_in() -> Counter[str]:
    """How many modules import each."""
    known, found = sizes(), Counter[str]()
    for path in PACKAGE.rglob("*.py"):
        named = {
            candidate
            for node in ast.walk(ast.parse(path.read_text("utf-8")))
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cachepoint.")
            for candidate in _modules(node, known)
        }
        found.update(named - {room_of(str(path))})
    return found


def _modules(node: ast.ImportFrom, known: dict[str, int]) -> list[str]:
    place = (node.module or "").removeprefix("cachepoint.").replace(".", "/")
    inner = [f"{place}/{alias.name}" for alias in node.names if f"{place}/{alias.name}" in known]
    return inner or [place]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to a file as well")
    parser.add_argument("--doors", type=int, default=8, metavar="N", help="show the N doors used most (default 8)")
    given = parser.parse_args(arguments)
    lines, walk, imported = sizes(), walked(), fan_in()
    largest, most = max(lines, key=lines.__getitem__), imported.most_common(1)[0]
    figures = {
        "modules": len(lines),
        "median_lines": round(statistics.median(lines.values())),
        "largest": [largest, lines[largest]],
        "most_imported": list(most),
        "rooms": len(walk.rooms),
        "changes": sum(walk.doors.values()),
    }
    for name, figure in figures.items():
        print(f"{name:16}{figure}")
    for (before, after), count in walk.doors.most_common(given.doors):
        print(f"{count:6}  {before} → {after}")
    if given.json:
        given.json.write_text(json.dumps(figures, indent=1), "utf-8")


if __name__ == "__main__":
    main()
