"""What may not stand in a committed file."""

from __future__ import annotations

import re
import subprocess
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
    """What git keeps; where there is no git, as in a source distribution, what lies in the folders it would keep."""
    try:
        listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError):
        folders = [ROOT / folder for folder in FOLDERS]
        paths = [path for path in ROOT.iterdir() if path.name != ".git"]
        paths += [path for folder in folders for path in folder.rglob("*") if "__pycache__" not in path.parts]
    else:
        paths = [ROOT / name for name in listing.split("\0") if name]
    yield from (path for path in paths if path.is_file() and path.suffix in SUFFIXES)


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


def test_no_test_has_a_name_of_eighty_characters() -> None:
    assert not found(re.compile(r"\bdef test_\w{75,}"))
