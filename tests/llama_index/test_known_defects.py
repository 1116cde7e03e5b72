"""The table of defects in `docs/llama-index.md`: each has a test of this folder that shows it fixed, or a reason."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import NamedTuple

import pytest

SUITE = Path(__file__).resolve().parent
PAGE = (SUITE.parents[1] / "docs" / "llama-index.md").read_text("utf-8")


class Defect(NamedTuple):
    number: int
    name: str
    shown_by: str

    @property
    def tests(self) -> list[str]:
        return re.findall(r"`(test_\w+)`", self.shown_by)


TABLE = [
    Defect(int(number), name, shown_by)
    for number, name, shown_by in re.findall(r"^\| (\d+) \| (.+?) \| (.+) \|$", PAGE, re.MULTILINE)
]


@pytest.fixture(scope="module")
def tests_here() -> set[str]:
    """The names of the functions that pytest collects in this folder."""
    modules = (ast.parse(path.read_text("utf-8")) for path in SUITE.rglob("test_*.py"))
    functions = (
        node for module in modules for node in module.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    return {function.name for function in functions if function.name.startswith("test_")}


def test_the_defects_are_numbered_and_named_once() -> None:
    assert len(TABLE) > 50
    assert [defect.number for defect in TABLE] == list(range(1, len(TABLE) + 1))
    assert len({defect.name for defect in TABLE}) == len(TABLE)


def test_each_defect_has_a_test_or_a_reason() -> None:
    assert [defect.name for defect in TABLE if not defect.tests and not defect.shown_by.startswith("not ")] == []


def test_every_test_the_page_names_exists(tests_here: set[str]) -> None:
    assert sorted(set(re.findall(r"`(test_\w+)`", PAGE)) - tests_here) == []
