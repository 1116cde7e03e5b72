"""A mapping that cannot grow for ever."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Bounded(dict[K, V]):
    """A dict of the `most` keys that came last; threads may share it.

    It has no lock: a finaliser may take a key out in the middle of any step here.
    """

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._most,), None, None, iter(self.items())  # a dict's own way fills it before it is made

    def __setitem__(self, key: K, value: V) -> None:
        super().__setitem__(key, value)
        while len(self) > self._most:
            with suppress(KeyError, RuntimeError, StopIteration):  # another took one out just now
                del self[next(iter(self))]
