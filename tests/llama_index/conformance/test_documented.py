"""The docs name every failure of the other class."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "llama-index.md").read_text("utf-8")


def test_every_known_failure_is_in_the_docs(bedrock_converse_fails: Mapping[str, str]) -> None:
    documented = " ".join(PAGE.split())
    assert [reason for reason in set(bedrock_converse_fails.values()) if reason not in documented] == []
