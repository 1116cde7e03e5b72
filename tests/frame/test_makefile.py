"""What `make test` leaves out, `make test-all` runs."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def commands(target: str) -> list[str]:
    """The commands of a target that run pytest on the newest releases, without running them."""
    make = shutil.which("make")
    if make is None or not (ROOT / "Makefile").is_file():
        pytest.skip("there is no make, or no Makefile")
    # The make that runs this test hands its variables on through the environment.
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    printed = subprocess.run(
        [make, "--dry-run", target], cwd=ROOT, check=True, capture_output=True, text=True, env=environ
    ).stdout
    return [line for line in printed.splitlines() if line.startswith(".venv/bin/python -m pytest")]


def test_the_long_tests_are_the_only_ones_that_make_test_leaves_out() -> None:
    (short,) = commands("test")
    assert short.endswith('-m "not long"')
    assert commands("test-all") == [short, short.replace('"not long"', "long")]
