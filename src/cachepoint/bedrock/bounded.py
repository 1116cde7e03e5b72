"""A mapping that cannot grow for ever."""

from __future__ import annotations

import threading
from typing import Any, TypeVar

K = TypeVar("K")
V = TypeVar("V")

_setting = threading.RLock()  # a stream that is collected in the middle of this warns too


class Bounded(dict[K, V]):
    """A dict of the `most` keys that came last; threads may share it."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._most,), None, None, iter(self.items())  # a dict's own way fills it before it is made

    def __setitem__(self, key: K, value: V) -> None:
        with _setting:
            super().__setitem__(key, value)
            while len(self) > self._most:
                del self[next(iter(self))]
