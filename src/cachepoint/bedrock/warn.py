"""Warnings that carry the user's own line, whatever lies between: our rooms, frameworks, an event loop, a thread."""

from __future__ import annotations

import logging
import sys
import warnings
from contextlib import AbstractContextManager, suppress
from contextvars import ContextVar
from types import FrameType
from typing import Any, NamedTuple

from cachepoint._forks import Lock
from cachepoint.bedrock.blocks import in_block
from cachepoint.bedrock.bounded import Bounded
from cachepoint.errors import CachepointWarning

logger = logging.getLogger("cachepoint")

KEYS_KEPT = 1_000
"""Keys name scopes and models, of which a long-lived gateway sees ever more; the oldest may be warned of again."""

_OURS = "cachepoint"
_LOOP = "asyncio.events"
"""Which runs each step of a task."""
_FRAMEWORKS = frozenset({
    "langchain", "langchain_classic", "langchain_community", "langchain_core", "langchain_aws", "langgraph",
    "langsmith", "deepagents", "llama_index", "llama_index_instrumentation", "workflows", "boto3", "botocore",
    "aiobotocore", "pydantic", "anyio", "uvloop", "nest_asyncio", "tenacity", "wrapt", "opentelemetry", "langfuse",
})  # fmt: skip
"""What calls cachepoint for the user, and what runs it; of the standard library, every module counts as such."""

_given: Bounded[str, None] = Bounded(KEYS_KEPT)
_lock = Lock()


class _Line(NamedTuple):
    """A line of a module's code."""

    file: str
    number: int
    module: dict[str, Any]
    """The module's globals, where Python keeps which warnings the line has given."""


_handed_over: ContextVar[_Line | None] = ContextVar("cachepoint_handed_over", default=None)


def warn(message: str) -> None:
    """Warn at the user's line; never raises.

    Where the program makes errors of warnings, the message is logged: caching must not fail a call.
    """
    line = _users_line()
    _give(message, line, line.module.setdefault("__warningregistry__", {}))


def warn_once(key: str, message: str) -> None:
    """As `warn`, unless a warning with the same key was given before."""
    with _lock.held:
        if key in _given:
            return
        _given[key] = None
    # Without the module's registry, which would grow with every model id that a message names.
    _give(message, _users_line(), None)


def _give(message: str, line: _Line, registry: dict[str | tuple[str, type[Warning], int], int] | None) -> None:
    try:
        warnings.warn_explicit(message, CachepointWarning, line.file, line.number, _name_of(line.module), registry)
    except Exception:  # noqa: BLE001 - made an error, or what a program has put in place of `showwarning` failed
        with suppress(Exception):  # a filter of the program's
            logger.warning("%s", message)


def on_behalf_of_caller() -> AbstractContextManager[None]:
    """What is warned of in the block, also in threads and tasks that inherit its context, is at the line that is here.

    For where a call is handed to another thread or task, on whose stack the user's line no longer stands.
    """
    return in_block(_handed_over, _users_line())


def _users_line() -> _Line:
    """The innermost line that is neither ours nor a framework's, on this stack or where it was handed over.

    Where there is none, the innermost that is not ours.
    """
    handed_over = _handed_over.get()
    outside: _Line | None = None
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        module = _name_of(frame.f_globals)
        if module == _LOOP and handed_over:  # what stands below started the loop, not this task
            break
        package = module.partition(".")[0]
        if package != _OURS:
            if package not in _FRAMEWORKS and package not in sys.stdlib_module_names:
                return _line(frame)
            outside = outside or _line(frame)
        frame = frame.f_back
    return handed_over or outside or _line(sys._getframe(1))


def _line(frame: FrameType) -> _Line:
    return _Line(frame.f_code.co_filename, frame.f_lineno, frame.f_globals)


def _name_of(module: dict[str, Any]) -> str:
    return str(module.get("__name__") or "<unknown>")
