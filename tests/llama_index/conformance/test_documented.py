"""The docs name every failure of the other class, and only tests that exist."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

SUITE = Path(__file__).resolve().parents[1]
PAGE = (SUITE.parents[1] / "docs" / "llama-index.md").read_text("utf-8")


def test_every_known_failure_is_in_the_docs(bedrock_converse_fails: Mapping[str, str]) -> None:
    documented = " ".join(PAGE.split())
    assert [reason for reason in set(bedrock_converse_fails.values()) if reason not in documented] == []


def test_every_test_the_docs_name_exists() -> None:
    defined = {
        name for path in SUITE.rglob("test_*.py") for name in re.findall(r"def (test_\w+)", path.read_text("utf-8"))
    }
    assert sorted(set(re.findall(r"`(test_\w+)`", PAGE)) - defined) == []
