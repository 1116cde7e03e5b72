"""What a finaliser leaves to be done, where it can be done.

A finaliser runs in the middle of anything its thread does, inside any lock, a user's own among them: a stream that is
collected, a generator that closes one in its `finally`, and what LangChain reports of either. Whatever is to be done
then is put off until the next call, or until somebody looks at what was recorded, or the program ends.
"""

from __future__ import annotations

import atexit
import os
from collections import deque
from collections.abc import Callable

_put_off: deque[Callable[[], object]] = deque()


def later(step: Callable[[], object]) -> None:
    """Have a step taken before the next call is made or a ledger is read; it must not raise."""
    _put_off.append(step)  # in one step of the interpreter, without a lock


def catch_up() -> None:
    """Take the steps that were put off, in the order in which they came."""
    while _put_off:
        try:
            step = _put_off.popleft()
        except IndexError:  # another thread took it
            return
        step()


atexit.register(catch_up)
if hasattr(os, "register_at_fork"):  # the parent takes its own steps
    os.register_at_fork(after_in_child=_put_off.clear)
