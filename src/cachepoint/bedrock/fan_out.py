"""Many concurrent calls on one cold prefix: one goes first, the others follow once its response has begun.

An entry cannot be read before the response to the request that writes it begins (R3.9), so parallel
first requests would all write. Inside a `fan_out()` block the first call to arrive that writes a prefix
leads; a call whose prompt starts with that prefix waits for it, then plans anew and reads. A leader is
always a call already on its way, it never waits itself, and every wait is bounded, so nothing deadlocks.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import partial
from queue import Empty, SimpleQueue

from cachepoint._forks import Lock
from cachepoint.bedrock.blocks import in_block
from cachepoint.errors import ConfigurationError

TIMEOUT_SECONDS = 60.0


class Flight:
    """A leader under way; `release` lets those who wait for it go.

    It has no lock: a leader that nobody holds may be collected, and so released, in the middle of any step here.
    """

    def __init__(self, deadline: float) -> None:
        self._released = False
        self._wake: list[Callable[[], object]] = []
        self._deadline = deadline

    @property
    def over(self) -> bool:
        """Whether nobody waits for it any more."""
        return self._released or time.monotonic() >= self._deadline

    def release(self) -> None:
        """The leader's response began, or it failed."""
        self._released = True
        while self._wake:
            with suppress(IndexError, RuntimeError):  # another woke it; a loop closed meanwhile has nobody waiting
                self._wake.pop()()

    def wait(self) -> None:
        """Block this thread until the leader's response began or the time is out."""
        woken: SimpleQueue[None] = SimpleQueue()
        self._wake.append(partial(woken.put, None))
        if not self._released:
            with suppress(Empty):
                woken.get(timeout=max(self._deadline - time.monotonic(), 0.0))

    async def wait_async(self) -> None:
        """The same on the event loop."""
        loop = asyncio.get_running_loop()
        woken: asyncio.Future[None] = loop.create_future()
        self._wake.append(partial(loop.call_soon_threadsafe, _settle, woken))
        if not self._released:
            with suppress(TimeoutError):
                await asyncio.wait_for(woken, max(self._deadline - time.monotonic(), 0.0))


class Paused(Exception):
    """A call that must not block its thread has a leader to wait for; made again once `flight` is over, it goes on.

    `give_up` is for who does not make it again, with the reason.
    """

    def __init__(self, flight: Flight, give_up: Callable[[BaseException], None]) -> None:
        super().__init__("wait for the leader, then make the same call again")
        self.flight = flight
        self.give_up = give_up


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class FanOut:
    """The leaders of one block, by the digests of the prefixes they write."""

    def __init__(self, timeout: float) -> None:
        self._timeout = min(timeout, threading.TIMEOUT_MAX)
        self._lock = Lock(self._begin)
        self._begin()

    def _begin(self) -> None:
        """Nobody leads, as in a child process: leaders under way are its parent's."""
        self._leaders: dict[tuple[str, bytes], Flight] = {}

    def join(self, scope: str, waits_for: Collection[bytes], writes: Collection[bytes]) -> tuple[Flight, bool] | None:
        """Join with the prefixes a call could read and those it writes.

        Returns a leader to wait for and False, or this call's own flight and True when it leads, or
        None when it neither waits nor leads.
        """
        with self._lock.held:
            for digest in waits_for:
                leader = self._leaders.get((scope, digest))
                if leader is not None and not leader.over:
                    return leader, False
            if not writes:
                return None
            flight = Flight(time.monotonic() + self._timeout)
            self._leaders = {key: leader for key, leader in self._leaders.items() if not leader.over}
            self._leaders.update(((scope, digest), flight) for digest in writes)
            return flight, True


_FAN_OUT: ContextVar[FanOut | None] = ContextVar("cachepoint_fan_out", default=None)


@contextmanager
def fan_out(timeout: float = TIMEOUT_SECONDS) -> Iterator[None]:
    """Let concurrent calls in the block write a shared cold prefix once.

    `timeout` bounds each wait, in seconds. A block inside a block joins the outer one. Threads take part
    when they run in a copy of this context, as LangChain's and asyncio's do.
    """
    if not timeout > 0:
        raise ConfigurationError(f"fan_out(timeout={timeout!r}): give seconds, more than 0")
    if _FAN_OUT.get() is not None:
        yield
        return
    with in_block(_FAN_OUT, FanOut(timeout)):
        yield


def current_fan_out() -> FanOut | None:
    """The block in force here."""
    return _FAN_OUT.get()
