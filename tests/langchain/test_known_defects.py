"""Every known defect has a test that shows it right for our users, or the reason why it is not."""

from __future__ import annotations

import ast
import re
import tomllib
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).parents[1]
FACTS = TESTS.parents[1] / "shared" / "facts"
TABLE: dict[str, dict[str, dict[str, Any]]] = tomllib.loads(Path(__file__).with_name("known_defects.toml").read_text())
NUMBERED = {"langchain": "Bugs/gaps verified by experiment", "field": "Each line: symptom"}
"""Where the lines with numbers begin that each part of the table answers."""
PAGES = {"langchain": "langchain.md", "field": "failures.md"}


@lru_cache(maxsize=64)
def defined_in(file: str) -> frozenset[str]:
    """The tests of a file, those of its classes behind the class's name."""
    path = TESTS / file
    if not path.is_file():
        return frozenset()
    names: set[str] = set()
    for node in ast.parse(path.read_text("utf-8")).body:
        inside = node.body if isinstance(node, ast.ClassDef) else [node]
        prefix = f"{node.name}::" if isinstance(node, ast.ClassDef) else ""
        names.update(prefix + each.name for each in inside if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef))
    return frozenset(names)


def entries() -> list[Any]:
    return [
        pytest.param(entry, id=f"{part} {number}")
        for part, defects in TABLE.items()
        for number, entry in defects.items()
    ]


@pytest.mark.parametrize("entry", entries())
def test_each_names_tests_that_exist_or_a_reason(entry: dict[str, Any]) -> None:
    assert set(entry) <= {"defect", "shown_by", "but"}
    assert entry["defect"]
    assert entry.get("shown_by") or entry.get("but")
    for shown_by in entry.get("shown_by", ()):
        file, _, test = shown_by.partition("::")
        assert test in defined_in(file), f"{shown_by} does not exist"


@pytest.mark.parametrize("part", PAGES)
def test_none_is_missing(part: str) -> None:
    page = FACTS / PAGES[part]
    if not page.exists():
        pytest.skip(f"../shared/facts/{PAGES[part]} is not beside this clone")
    _, _, listed = page.read_text("utf-8").partition(NUMBERED[part])
    numbers = re.findall(r"^(\d+)\.? ", listed.partition("### Request dicts")[0], flags=re.MULTILINE)
    assert len(numbers) > 20
    assert set(numbers) == set(TABLE[part])
