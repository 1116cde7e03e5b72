"""A pytest plugin for langchain-aws's own tests: puts our class in the place of theirs, and writes down how tests end.

It runs in a pytest of its own, which `test_drop_in.py` starts.
"""

from __future__ import annotations

import json
from pathlib import Path

import langchain_aws
import langchain_aws.chat_models
import langchain_aws.chat_models.bedrock_converse
import langchain_aws.middleware.prompt_caching
import pytest

from cachepoint.langchain import CacheAwareChatBedrockConverse

_MODULES = (
    langchain_aws,
    langchain_aws.chat_models,
    langchain_aws.chat_models.bedrock_converse,
    langchain_aws.middleware.prompt_caching,
)
_ended: dict[str, str] = {}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--ours-in-place", action="store_true", help="run the tests with cachepoint's class")
    parser.addoption("--ended", type=Path, help="where to write how each test ended, as JSON")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--ours-in-place"):
        for module in _MODULES:
            module.ChatBedrockConverse = CacheAwareChatBedrockConverse  # type: ignore[attr-defined]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" or report.outcome != "passed":
        # What a test that its authors expect to fail does, says nothing.
        _ended[report.nodeid] = "expected to fail" if hasattr(report, "wasxfail") else report.outcome


def pytest_unconfigure(config: pytest.Config) -> None:
    config.getoption("--ended").write_text(json.dumps(_ended), "utf-8")
