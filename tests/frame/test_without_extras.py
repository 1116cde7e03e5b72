"""What works when no extra is installed, and what is said where one is needed.

Runs in an environment that has none (`make test-bare`), and everywhere else with their packages hidden.
"""

from __future__ import annotations

import json
import subprocess
import sys
from decimal import Decimal
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber

import cachepoint

PACKAGES = (
    *("langchain", "langchain_aws", "langchain_core", "langgraph", "llama_index"),
    *("aiobotocore", "opentelemetry", "redis", "uvicorn"),
)
HIDDEN = f"""
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {PACKAGES!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Hidden())
"""
MODEL = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"


def without_extras(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", HIDDEN + code], capture_output=True, text=True, check=False)


def answer(**usage: Any) -> dict[str, Any]:
    """What Converse answers, in the shape that boto3 checks."""
    return {
        "output": {"message": {"role": "assistant", "content": [{"text": "yes"}]}},
        "stopReason": "end_turn",
        "usage": usage,
        "metrics": {"latencyMs": 900},
    }


def test_a_wrapped_client_places_checkpoints_and_prices_both_lifetimes_of_writes() -> None:
    raw = boto3.client(
        "bedrock-runtime", region_name="us-east-1", aws_access_key_id="local", aws_secret_access_key="local"
    )
    manual = "A checkpoint marks where a prefix ends that may be read again. " * 300
    request = {"modelId": MODEL, "messages": [{"role": "user", "content": [{"text": "What is a checkpoint?"}]}]}
    usage = {"inputTokens": 12, "outputTokens": 3, "totalTokens": 4015, "cacheWriteInputTokens": 4000}
    details = [{"ttl": "1h", "inputTokens": 1000}, {"ttl": "5m", "inputTokens": 3000}]
    with Stubber(raw) as service:
        service.add_response(
            "converse",
            answer(**usage, cacheReadInputTokens=0, cacheDetails=details),
            request | {"system": [{"text": manual}, {"cachePoint": {"type": "default"}}]},
        )
        told = cachepoint.wrap(raw).converse(**request, system=[{"text": manual}])["promptCache"]
    assert told["usage"] == {"input": 12, "cache_read": 0, "cache_write_5m": 3000, "cache_write_1h": 1000, "output": 3}
    expected = (12 * Decimal("3.3") + 3000 * Decimal("4.125") + 1000 * Decimal("6.6") + 3 * Decimal("16.5")) / 10**6
    assert Decimal(told["cost"]["usd"]) == expected
    json.dumps(told)


@pytest.mark.parametrize(
    ("name", "extra"),
    [
        ("cachepoint.langchain.CacheAwareChatBedrockConverse", "langchain"),
        ("cachepoint.llama_index.CacheAwareBedrockConverse", "llama-index"),
    ],
)
def test_what_needs_an_extra_names_the_command_that_installs_it(name: str, extra: str) -> None:
    module, _, attribute = name.rpartition(".")
    failed = without_extras(f"from {module} import {attribute}")
    assert "MissingDependencyError" in failed.stderr
    assert f"pip install 'cachepoint[{extra}]'" in failed.stderr


def test_the_emulator_names_the_command_that_installs_it() -> None:
    failed = without_extras("from cachepoint.emulator import BedrockEmulator\nBedrockEmulator().start()")
    assert "MissingDependencyError" in failed.stderr
    assert "pip install 'cachepoint[emulator]'" in failed.stderr


@pytest.mark.parametrize(("command", "extra"), [("demo", "langchain,emulator"), ("serve", "emulator")])
def test_a_command_that_needs_an_extra_says_so_without_a_traceback(command: str, extra: str) -> None:
    failed = without_extras(f"from cachepoint.cli import main\nsys.exit(main([{command!r}]))")
    assert failed.returncode == 1
    assert f"pip install 'cachepoint[{extra}]'" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_the_model_table_is_printed_without_any_extra() -> None:
    printed = without_extras(f"from cachepoint.cli import main\nsys.exit(main(['rules', {MODEL!r}]))")
    assert printed.returncode == 0, printed.stderr
    assert "Claude Sonnet 4.5" in printed.stdout
