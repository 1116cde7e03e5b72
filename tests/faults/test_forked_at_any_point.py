"""A process forks while another thread is at any line of a call: the child's own call is answered."""

from __future__ import annotations

import os
import random
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Self

import pytest
from converse_kit import question
from fork_kit import SECONDS, forked, join, needs_fork, warned_of_threads

import cachepoint
from cachepoint import _forks
from cachepoint.bedrock.client import CacheClient
from cachepoint.emulator import BedrockEmulator

pytestmark = [needs_fork, warned_of_threads]
OURS = os.fspath(Path(cachepoint.__file__).parent)


class Stopped:
    """Runs a part in a thread as far as its n-th line in cachepoint, and there until it is let go."""

    def __init__(self, part: Callable[[], object], line: int) -> None:
        self._part, self._left = part, line
        self._there, self._go = threading.Event(), threading.Event()
        self.lines = 0
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._there.wait(SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        self._go.set()
        self._thread.join(SECONDS)

    def _run(self) -> None:
        sys.settrace(self._trace)
        try:
            self._part()
        finally:
            sys.settrace(None)
            self._there.set()

    def _trace(self, frame: FrameType, event: str, _: Any) -> Any:
        if not frame.f_code.co_filename.startswith(OURS):
            return None
        if event == "line":
            self.lines += 1
            self._left -= 1
            if self._left == 0:
                self._there.set()
                self._go.wait(SECONDS)
        return self._trace


def client_of_its_own() -> CacheClient:
    client = cachepoint.wrap(BedrockEmulator().local_client())
    client.converse(**question(0))
    return client


def a_childs_call(client: CacheClient) -> None:
    before = client.ledger.totals().calls
    client.converse(**question(1))
    assert (before, client.ledger.totals().calls) == (0, 1)


def children_of(forks: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    # The stopped thread may be inside a lock, and is not let go while the fork waits for it.
    monkeypatch.setattr(_forks, "WAIT_SECONDS", 0.05)
    client = client_of_its_own()
    with Stopped(lambda: client.converse(**question(2)), line=-1) as whole:
        pass
    chance, ended = random.Random(11), []
    for _ in range(forks):
        with Stopped(lambda: client.converse(**question(3)), chance.randint(1, whole.lines)):
            ended += join(forked(lambda: a_childs_call(client)))
    return ended


def test_a_child_of_a_fork_at_any_line_of_a_call_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    assert children_of(16, monkeypatch) == ["well"] * 16


@pytest.mark.long("three hundred forks take twenty seconds")
def test_children_of_forks_at_three_hundred_lines_are_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    assert children_of(300, monkeypatch) == ["well"] * 300
