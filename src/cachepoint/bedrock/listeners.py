"""Who else hears of a call: the framework's run that makes it.

A run may be cancelled before its call ends, and LangChain then tells its callbacks nothing; and of a stream that was left
early they see no more than the chunks. So a callback handler says in the context of a run that it listens, and the next
call that begins there tells it its record, whenever that comes.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from contextvars import ContextVar

from cachepoint.bedrock.swallowed import swallow
from cachepoint.core.accounts.record import CallRecord


class Listener:
    """Hears the record of one call; `owner` is whose it is, of whom the latest in a context counts."""

    def __init__(self, owner: Hashable, hear: Callable[[CallRecord], None]) -> None:
        self.owner = owner
        self.waits = True
        """Whether no call has begun yet that will tell it."""
        self._hear = hear

    def tell(self, record: CallRecord) -> None:
        """The call has ended."""
        try:
            self._hear(record)
        except Exception as problem:  # noqa: BLE001 - counting must not make the call fail
            swallow(problem, "counting a call")


_LISTENING: ContextVar[tuple[Listener, ...]] = ContextVar("cachepoint_listening", default=())


def listen(listener: Listener) -> None:
    """Have the next call that begins in this context tell the listener."""
    others = [each for each in _LISTENING.get() if each.waits and each.owner != listener.owner]
    _LISTENING.set((*others, listener))


def take_listeners() -> list[Listener]:
    """Who listens to a call that begins here; each hears of one call only."""
    taken = [listener for listener in _LISTENING.get() if listener.waits]
    for listener in taken:
        listener.waits = False
    return taken
