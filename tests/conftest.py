"""What every suite shares: where the recordings lie, and a machine without AWS settings."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path

import pytest
from botocore.loaders import JSONFileLoader
from hypothesis import HealthCheck, settings

from cachepoint.bedrock import swallowed, warn
from cachepoint.bedrock.bounded import Bounded

ROOT = Path(__file__).resolve().parent.parent

# Hypothesis stops a test whose example takes 0.2 seconds, or whose examples are slow to make: on a busy machine, any.
settings.register_profile("busy machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy machine")

# pytest-asyncio asks for the loop that is set before it sets its own (plugin.py, `_temporary_event_loop`). Where none
# ever was, Python makes one, and nobody closes it once `asyncio.run` has set another.
asyncio.set_event_loop(None)

# Every session of boto3 and aiobotocore parses the service's model, the endpoints and their rules anew, 30 to 80 ms
# each time; the clients of one session share the parsed files already, so those of all may.
_load_file = cache(partial(JSONFileLoader.load_file, JSONFileLoader()))
JSONFileLoader.load_file = lambda self, file_path: _load_file(file_path)  # type: ignore[method-assign]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for mark in item.iter_markers("long"):
            if not (mark.args and isinstance(mark.args[0], str)):
                raise pytest.UsageError(f"{item.nodeid} is marked long and does not say why")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the counts that tests recorded as properties, in whichever process they ran."""
    told = {
        (title, lines)
        for reports in terminalreporter.stats.values()
        for report in reports
        for title, lines in getattr(report, "user_properties", ())
    }
    for title, lines in sorted(told):
        terminalreporter.section(title)
        terminalreporter.write_line(lines)


def pytest_collection_finish() -> None:
    """What was imported stays: a collection of garbage need not look at it, which takes half a second each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def project_root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The project's shared data, which lies beside a clone and is no part of it."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("shared/data is not beside this clone")
    return folder


@pytest.fixture(autouse=True)
def no_aws_settings(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test reads the user's AWS files or asks an instance for credentials, nor inherits a CACHEPOINT_ setting."""
    nowhere = str(tmp_path_factory.getbasetemp() / "no-such-aws-file")
    monkeypatch.setenv("AWS_CONFIG_FILE", nowhere)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", nowhere)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_BEARER_TOKEN_BEDROCK"):
        monkeypatch.delenv(name, raising=False)
    for name in ("CACHEPOINT_MODE", "CACHEPOINT_RULES"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def faults(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Exception]]:
    """Faults of cachepoint's own that it swallowed in this test; those that the test does not take out fail it."""
    kept: list[Exception] = []

    def keep(fault: Exception, step: str) -> None:
        fault.add_note(f"swallowed in {step}")
        kept.append(fault)
        swallowed.report(fault, step)

    monkeypatch.setattr(swallowed, "_on_fault", keep)
    yield kept
    if kept:
        raise ExceptionGroup("cachepoint swallowed faults of its own", kept)


@pytest.fixture(autouse=True)
def nothing_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is warned of once in a process is warned of in this test."""
    monkeypatch.setattr(warn, "_given", Bounded(warn.KEYS_KEPT))
