"""The examples run as they stand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SAYS = {
    "llama_index_query_engine.py": "hit",
    "llama_index_chat_engine.py": "all ",
    "llama_index_agent.py": "all ",
    "llama_index_cost_by_tenant.py": "globex: 3 calls",
}


@pytest.mark.parametrize("name", sorted(SAYS))
def test_an_example_runs(name: str) -> None:
    done = subprocess.run([sys.executable, EXAMPLES / name], capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    assert SAYS[name] in done.stdout


def test_every_example_is_run() -> None:
    scripts = {path.name for path in EXAMPLES.glob("llama_index_*.py")} - {"llama_index_common.py"}
    assert scripts == set(SAYS)
