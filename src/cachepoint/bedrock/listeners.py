"""Who else hears of a call: the framework's run that makes it.

A run may be cancelled before its call ends, and LangChain then tells its callbacks nothing; and of a stream that was
left early they see no more than the chunks. So a callback handler says in the context of a run that it listens, and the
next call that begins there tells it its record, whenever that comes.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from contextlib import AbstractContextManager
from contextvars import ContextVar

from cachepoint.bedrock.blocks import in_block
from cachepoint.bedrock.swallowed import swallow
from cachepoint.core.accounts.record import CallRecord


class Listener:
    """Hears the record of one call of a run.

    `owner` is whose it is, of whom the latest in a context counts. `begins` is called when the call begins, and may
    raise what stops it; `called_off` where it is stopped after that, or the run does not start.
    """

    def __init__(
        self,
        owner: object,
        run: Hashable,
        hear: Callable[[CallRecord], None],
        called_off: Callable[[], None],
        begins: Callable[[], None] | None = None,
    ) -> None:
        self.owner = owner
        self.run = run
        self.waits = True
        """Whether no call has begun yet that will tell it."""
        self.called_off = called_off
        self.begins = begins
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
    others = [each for each in _LISTENING.get() if each.waits and each.owner is not listener.owner]
    _LISTENING.set((*others, listener))


def listening(listeners: Iterable[Listener]) -> AbstractContextManager[None]:
    """Have the call that begins in the block tell these listeners."""
    return in_block(_LISTENING, (*_LISTENING.get(), *listeners))


def call_off(run: Hashable) -> None:
    """A run does not start after all: who listens already is told so."""
    for listener in _LISTENING.get():
        if listener.waits and listener.run == run:
            listener.waits = False
            listener.called_off()


def take_listeners() -> list[Listener]:
    """Who listens to a call that begins here; each hears of one call only. Raises what stops the call."""
    taken: list[Listener] = []
    try:
        for listener in _LISTENING.get():
            if listener.waits:
                listener.waits = False
                if listener.begins is not None:
                    listener.begins()
                taken.append(listener)
    except BaseException:
        for listener in taken:
            listener.called_off()
        raise
    return taken
