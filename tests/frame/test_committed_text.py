"""What may not stand in a committed file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("src", "tests", "docs", "benchmarks", "examples", "constraints", ".ci")
SUFFIXES = {".py", ".md", ".toml", ".txt", ".json", ".cfg", ""}

# Spelled in parts, so that this file does not hold what it forbids.
MACHINE_PATH = re.compile(r"(?<![\w.~])/(?:work|root|farm|tmp|home/\w+)" + r"/[\w.-]+")
REGISTRY = re.compile("pythonhoste" + "d|pypi.or" + "g/simple|registry.npmj" + "s")


def committed() -> Iterator[Path]:
    yield from (path for path in ROOT.iterdir() if path.is_file() and path.suffix in SUFFIXES)
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and path.suffix in SUFFIXES and "__pycache__" not in path.parts:
                yield path


def found(pattern: re.Pattern[str]) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{number}: {match.group()}"
        for path in committed()
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        for match in pattern.finditer(line)
    ]


@pytest.mark.parametrize("pattern", [MACHINE_PATH, REGISTRY], ids=["path of one machine", "registry's host"])
def test_no_committed_file_names_a(pattern: re.Pattern[str]) -> None:
    assert not found(pattern)
