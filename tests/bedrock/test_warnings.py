"""Warnings carry the user's own line, are given once, and are forgotten in the end."""

from __future__ import annotations

import copy
import pickle
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path
from typing import Any

import pytest
from converse_kit import SONNET, Bedrock, question, tool

from cachepoint.bedrock import warn
from cachepoint.bedrock.bounded import Bounded
from cachepoint.errors import CachepointWarning


def refusing(bedrock: Bedrock) -> dict[str, Any]:
    """A request whose checkpoint will be refused, of which the user is warned."""
    bedrock.emulator.refuse_checkpoints("tools", SONNET)
    return {**question(), "toolConfig": {"tools": [tool("search", "Finds. " * 2_000)]}}


def lines(warned: pytest.WarningsRecorder) -> list[str]:
    return [warning.filename for warning in warned]


def test_a_warning_of_a_wrapped_client_is_at_the_line_that_calls(bedrock: Bedrock) -> None:
    request = refusing(bedrock)
    with pytest.warns(CachepointWarning, match="refused") as warned:
        bedrock.wrapped().converse(**request)
    assert lines(warned) == [__file__]
    called = Path(__file__).read_text("utf-8").splitlines()[warned[0].lineno - 1]
    assert "bedrock.wrapped().converse(" in called


def test_a_warning_in_a_bare_thread_is_still_given(bedrock: Bedrock) -> None:
    with pytest.warns(CachepointWarning, match="said") as warned:
        thread = threading.Thread(target=warn.warn, args=("said",))
        thread.start()
        thread.join()
    assert lines(warned) == [threading.__file__]


def test_a_thread_that_was_handed_the_line_warns_there() -> None:
    with ThreadPoolExecutor(1) as pool, pytest.warns(CachepointWarning) as warned:
        with warn.on_behalf_of_caller():
            context = copy_context()
        pool.submit(context.run, warn.warn, "said").result()
    assert lines(warned) == [__file__]


def test_a_warning_is_given_once_and_leaves_nothing_in_the_users_module() -> None:
    before = dict(globals().get("__warningregistry__", {}))
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("default")
        for _ in range(3):
            warn.warn_once("one key", "said once")
    assert [str(warning.message) for warning in warned] == ["said once"]
    assert {name for name in globals().get("__warningregistry__", {}) if name != "version"} == set(before) - {"version"}


def test_what_was_warned_of_is_forgotten_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warn, "_given", Bounded(2))
    with pytest.warns(CachepointWarning) as warned:
        for key in ("a", "b", "c", "c", "a"):
            warn.warn_once(key, key)
    assert [str(warning.message) for warning in warned] == ["a", "b", "c", "a"]


def test_a_bounded_mapping_keeps_what_came_last() -> None:
    kept: Bounded[int, str] = Bounded(3)
    for number in range(10):
        kept[number] = str(number)
    assert kept == {7: "7", 8: "8", 9: "9"}
    for copied in (pickle.loads(pickle.dumps(kept)), copy.deepcopy(kept), copy.copy(kept)):
        copied[10] = "10"
        assert copied == {8: "8", 9: "9", 10: "10"}
    assert len(kept) == 3
