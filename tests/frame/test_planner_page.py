"""What docs/planner.md says of constants and of the format of deltas is what the source has."""

from __future__ import annotations

import re
from ast import literal_eval
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from typing import Any, get_args

import pytest

from cachepoint import core
from cachepoint.core.traffic import evidence
from cachepoint.core.traffic.kinds import FIRST_KINDS, Role
from cachepoint.core.traffic.return_curves import Prior

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "planner.md").read_text("utf-8")
NAMES = [*(found.name for found in walk_packages(core.__path__, "cachepoint.core.")), "cachepoint.store._memory"]
CODE = re.compile(r"`([^`]+)`")


def rows(heading: str) -> list[list[str]]:
    """The cells of the first table under a heading."""
    section = PAGE.split(f"\n{heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.split("\n") if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines[1:]]


def constants() -> list[tuple[str, str]]:
    """Each constant that the page names, with the value it gives."""
    pairs: list[tuple[str, str]] = []
    for names, values, _ in rows("## The parameters, and why they are what they are"):
        pairs += zip(CODE.findall(names), CODE.findall(values), strict=True)
    return pairs


def plain(value: Any) -> Any:
    """A constant as the page can write it: of a prior, the chance of a return."""
    if isinstance(value, Mapping):
        return {name: plain(each) for name, each in value.items()}
    return value.returns if isinstance(value, Prior) else value


@pytest.mark.parametrize(("name", "value"), constants())
def test_each_constant_of_the_page_is_in_the_source_with_that_value(name: str, value: str) -> None:
    found = [vars(module)[name] for module in map(import_module, NAMES) if name in vars(module)]
    assert found, f"no module of core has {name}"
    for each in found:
        assert plain(each) == pytest.approx(literal_eval(value), abs=5e-5)


def test_the_page_names_every_constant_that_evidence_rests_on() -> None:
    named = {name for name, _ in constants()}
    assert {"HALF_LIFE", "EPOCH_HALF_LIVES", "FINEST", "RESOLUTION", "LONGEST_WAIT", "BUCKETS", "PRIORS"} <= named


def test_the_page_gives_the_counters_of_a_row_in_their_order() -> None:
    places = [(cells[0], CODE.findall(cells[1])[0]) for cells in rows("### The format of a delta")]
    starts = [(int(numbers.split(" ")[0]), int(numbers.split(" ")[-1])) for numbers, _ in places]
    assert [getattr(evidence, name) for _, name in places] == [start for start, _ in starts]
    assert [index for start, end in starts for index in range(start, end + 1)] == list(range(evidence.N_COUNTERS))
    assert evidence.EPOCH == 5_529_600  # as the page has it
    assert "5,529,600" in PAGE


def test_the_page_names_every_role_and_how_many_rows_they_make() -> None:
    text = PAGE.split("\n### The format of a delta\n")[1].split("\n### ")[0]
    assert set(get_args(Role)) <= set(CODE.findall(text))
    kinds = sum(len(sizes) + 2 for sizes in FIRST_KINDS.values())  # all sizes together, and those seen before
    assert f"at most {kinds} rows a base model" in text
