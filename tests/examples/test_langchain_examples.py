"""The LangChain examples run as they stand, on the emulator."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("langchain_aws", reason="the extra `langchain` is not installed")

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SAYS = {
    "article_boto3.py": ("converse      hit", "invoke_model  hit"),
    "langchain_agent.py": ("all: ", "saved"),
    "langchain_batch.py": ("all: 2 writes",),
    "langchain_chain.py": ("> How are thousands separated?", "saved"),
    "langchain_cost_by_tenant.py": ("globex: 3 calls", "with the write shared out"),
    "langchain_graph.py": ("three: ", "hit", "no checkpoint after messages[2].content[1]: about"),
    "langchain_observe.py": ("would put a checkpoint", "put a checkpoint"),
    "langchain_rag.py": ("number 1 by relevance", "hit"),
}


@pytest.mark.parametrize("name", sorted(SAYS))
def test_an_example_runs(name: str, tmp_path: Path) -> None:
    if name == "langchain_rag.py":
        pytest.importorskip("bm25s", reason="bm25s is not installed: pip install bm25s")
    done = subprocess.run(
        [sys.executable, EXAMPLES / name], capture_output=True, text=True, timeout=280, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    for said in SAYS[name]:
        assert said in done.stdout
    assert "Warning" not in done.stderr


def test_every_example_is_run() -> None:
    scripts = {path.name for path in EXAMPLES.glob("*.py") if not path.name.startswith("llama_index_")}
    assert scripts - {"langchain_common.py"} == set(SAYS)
