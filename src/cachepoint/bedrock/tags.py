"""What surrounds a call without being an argument of it: tags."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar

_TAGS: ContextVar[Mapping[str, str]] = ContextVar("cachepoint_tags", default={})  # noqa: B039 - never mutated


@contextmanager
def tags(**metadata: object) -> Iterator[None]:
    """Give every call in the block these tags; inner blocks add to outer ones.

    Values are kept as strings. The tag `session` also becomes the record's session.
    """
    token = _TAGS.set({**_TAGS.get(), **{name: str(value) for name, value in metadata.items()}})
    try:
        yield
    finally:
        with suppress(ValueError):  # a generator may be closed in another context than it was begun in
            _TAGS.reset(token)


def current_tags() -> Mapping[str, str]:
    """The tags in force here."""
    return _TAGS.get()
