"""Locks that a fork leaves free in the child.

Of a process that forks, only the forking thread lives on in the child. A lock that another thread held at that moment
stays locked there for ever, and what it guards stays half changed. So a fork waits until no other thread is inside one
of these locks, as `logging` does with its own (Lib/logging/__init__.py, `os.register_at_fork`); but not for ever.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from weakref import WeakMethod, ref

WAIT_SECONDS = 5.0
"""What is done inside a lock takes microseconds, and on a busy machine some turns of the scheduler. After so long the
fork goes ahead, and its child has what is guarded as it stands."""


class Lock:
    """A lock that is free in a forked child, what it guards being whole there: `with lock.held: …`.

    Inside it nothing is waited for and no other lock is taken. The thread that has it may take it again, for a signal
    handler runs in the middle of anything; what a finaliser may run takes none, but is put off (`_later`).
    `in_child` makes of the parent's state the child's; its object is not kept alive by that. A lock inside which files
    may be read, a service asked or another lock taken is not `waited_for`: what it guards has to be safe as it stands,
    or begun anew by `in_child`.
    """

    __slots__ = ("__weakref__", "held", "in_child", "waited_for")

    def __init__(self, in_child: Callable[[], None] | None = None, *, waited_for: bool = True) -> None:
        self.waited_for = waited_for
        # Taken by the interpreter itself: in an `__enter__` of ours, Ctrl-C could come between taking it and the block.
        self.held = threading.RLock()
        self.in_child = None if in_child is None else WeakMethod(in_child)
        _locks[ref(self, _forget)] = None


_locks: dict[ref[Lock], None] = {}
"""Every lock there is, in the order in which all that fork take them."""


class _Taken(threading.local):
    """The locks that this thread has taken for a fork."""

    def __init__(self) -> None:
        self.locks: list[Lock] = []


_taken = _Taken()


def _forget(lock: ref[Lock]) -> None:
    _locks.pop(lock, None)


def _every_lock() -> Iterator[Lock]:
    for each in list(_locks):  # in one step, since others are made and collected meanwhile
        if (lock := each()) is not None:
            yield lock


def _before() -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    for lock in _every_lock():
        if lock.waited_for and lock.held.acquire(timeout=max(deadline - time.monotonic(), 0.0)):
            _taken.locks.append(lock)


def _in_parent() -> None:
    while _taken.locks:
        _taken.locks.pop().held.release()


def _in_child() -> None:
    free = set(_taken.locks)
    _in_parent()
    for lock in _every_lock():
        if lock not in free:
            lock.held = threading.RLock()
    for lock in _every_lock():
        if lock.in_child is not None and (begin := lock.in_child()) is not None:
            begin()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
