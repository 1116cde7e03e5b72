"""What holds in a `with` block, and in the threads and tasks that inherit its context."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import TypeVar

T = TypeVar("T")


@contextmanager
def in_block(variable: ContextVar[T], value: T) -> Iterator[None]:
    """Give a context variable this value in the block."""
    token = variable.set(value)
    try:
        yield
    finally:
        with suppress(ValueError):  # a generator may be closed in another context than it was begun in
            variable.reset(token)
