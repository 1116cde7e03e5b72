"""Child processes of a test, forked at any moment; what fails in one fails the test."""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable

import pytest

SECONDS = 60.0
"""A child that has not ended by then hangs."""

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this platform")
warned_of_threads = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
"""Python 3.12 and later warn of what is tried here."""


def forked(run: Callable[[], object]) -> int:
    """A child process in which this runs and nothing else; its number."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        run()
        status = 0
    except BaseException:  # noqa: BLE001 - whatever it is, this process ends here
        traceback.print_exc(file=sys.__stderr__)
    finally:
        os._exit(status)


def join(*children: int) -> list[str]:
    """How each of the children ended."""
    deadline = time.monotonic() + SECONDS
    return [_ended(child, deadline) for child in children]


def _ended(child: int, deadline: float) -> str:
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return "well" if status == 0 else f"with status {status}"
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "never"
