"""A property that is computed once, without a lock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, Self, TypeVar, overload

T = TypeVar("T")


class cached_property(Generic[T]):  # noqa: N801 - it stands where functools' would
    """As `functools.cached_property`, which in Python 3.11 computes under one lock for the property of all objects.

    That lock a fork leaves taken in the child where another thread computes (removed in 3.12, gh-87634). Two threads
    that come at once compute both, to the same end.
    """

    def __init__(self, compute: Callable[[Any], T]) -> None:
        self._compute = compute
        self.__doc__ = compute.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: object, owner: type) -> T: ...
    def __get__(self, instance: object | None, owner: type) -> Self | T:
        if instance is None:
            return self
        # From now on found before this, which is no data descriptor.
        value = instance.__dict__[self._name] = self._compute(instance)
        return value
