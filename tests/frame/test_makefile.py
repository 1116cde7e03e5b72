"""What the targets run: `make test` every check of this source, `make test-all` what that leaves out too."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

NEWEST, LOWEST, BARE = (f"{venv}/bin/python -m pytest --quiet" for venv in (".venv", ".venv-lowest", ".venv-bare"))
CHECKS = [
    ".venv/bin/ruff check .",
    ".venv/bin/ruff format --check .",
    ".venv/bin/mypy",
    f'{BARE} -p no:cacheprovider -m "not long" tests/core tests/frame/test_without_extras.py',
    f'{NEWEST} -n 2 -m "not long"',
]
THE_REST = [
    f"{LOWEST} -W default -n 2 --ignore tests/langchain/drop_in tests/langchain tests/llama_index",
    f"{NEWEST} -n 2 -m long",
]
# The make that runs this test hands its variables on through the environment.
HANDED_ON = ("MAKE", "MFLAGS", "SEED", "SHUFFLE_SEED", "MUTANTS", "WORKERS")


def commands(target: str) -> list[str]:
    """The commands of a target, without running them and without those that set up its environments."""
    make = shutil.which("make")
    if make is None or not (ROOT / "Makefile").is_file():
        pytest.skip("there is no make, or no Makefile")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(HANDED_ON)}
    printed = subprocess.run(
        [make, "--dry-run", target], cwd=ROOT, check=True, capture_output=True, text=True, env=environ
    ).stdout
    return [line for line in printed.splitlines() if line.startswith(".venv") and " -m pip " not in line]


def test_make_test_runs_every_check_and_the_whole_suite_last() -> None:
    assert commands("test") == CHECKS


def test_make_test_all_adds_the_oldest_releases_and_the_long_tests() -> None:
    assert commands("test-all") == CHECKS + THE_REST


def test_mutants_are_drawn_by_one_seed_and_the_shuffled_order_by_another() -> None:
    (drawn,) = commands("mutants")
    assert drawn == ".venv/bin/python benchmarks/mutants.py --seed 1 --count 200 --workers 2"
    (shuffled,) = commands("test-shuffled")
    assert shuffled.endswith(" -p randomly --randomly-seed=default")
