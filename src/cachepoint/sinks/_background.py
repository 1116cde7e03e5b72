"""A sink that keeps another one's work out of the calls."""

from __future__ import annotations

import atexit
import logging
import os
import threading
from collections.abc import Callable
from contextvars import Context, copy_context
from queue import SimpleQueue
from typing import Any, Self
from weakref import WeakSet

from cachepoint.core.accounts.record import CallRecord
from cachepoint.errors import ConfigurationError

logger = logging.getLogger("cachepoint")

CLOSE_SECONDS = 5.0
"""A program that ends waits so long for a sink that hangs."""


class InBackground:
    """Has another sink called in a thread of its own: `CacheLedger(on_call=InBackground(JsonLines("calls.jsonl")))`.

    A ledger calls its sinks at the end of a call, where one that writes to a slow disk or a network holds up the event
    loop. Here at most `most` records wait for `sink`; any more are dropped, and counted in `dropped`. What the sink
    raises is logged. `close()`, the end of a `with` block and the end of the program wait until all are written, five
    seconds at most, and close the sink. A process that is killed or frozen loses what waits, as a Lambda function's may
    be after its answer. A forked child writes its own calls only.
    """

    def __init__(self, sink: Callable[[CallRecord], object], most: int = 10_000) -> None:
        given: tuple[Any, Any] = sink, most
        if not callable(given[0]):
            raise ConfigurationError(f"InBackground({sink!r:.80}): give a function that takes a record")
        if type(given[1]) is not int or most < 1:
            raise ConfigurationError(f"InBackground(most={most!r:.80}): use a whole number from 1")
        self._sink, self._most = sink, most
        self._closed = False
        self.dropped = 0
        self._start()
        _open.add(self)

    def __call__(self, record: CallRecord) -> None:
        """Have a call written soon."""
        if self._closed or self._waiting.qsize() >= self._most:
            if not self.dropped:
                logger.warning(
                    "cachepoint: the sink %s does not keep up; calls are left out. Give a larger `most`, "
                    "or a faster sink",
                    type(self._sink).__name__,
                )
            self.dropped += 1
        else:
            self._waiting.put((copy_context(), record))  # for a sink that puts attributes on the current span

    def close(self, timeout: float = CLOSE_SECONDS) -> None:
        """Wait for what is still to be written, for `timeout` seconds at most, and close the sink."""
        if self._closed:
            return
        self._closed = True
        self._waiting.put(None)
        self._thread.join(timeout)
        if not self._thread.is_alive() and callable(close := getattr(self._sink, "close", None)):
            close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _start(self) -> None:
        self._waiting: SimpleQueue[tuple[Context, CallRecord] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._write, args=(self._waiting,), name="cachepoint-sink", daemon=True)
        self._thread.start()

    def _write(self, waiting: SimpleQueue[tuple[Context, CallRecord] | None]) -> None:
        while (item := waiting.get()) is not None:
            context, record = item
            try:
                context.run(self._sink, record)
            except Exception as error:  # noqa: BLE001 - the next call may be written
                logger.warning(
                    "cachepoint: the sink %s raised %s; the call is in the ledger, but not where the sink keeps it",
                    type(self._sink).__name__,
                    type(error).__name__,
                )


_open: WeakSet[InBackground] = WeakSet()


def _close_all() -> None:
    for sink in list(_open):
        sink.close()


def _start_anew() -> None:
    for sink in list(_open):
        if not sink._closed:
            sink._start()


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):  # a child has none of its parent's threads
    os.register_at_fork(after_in_child=_start_anew)
