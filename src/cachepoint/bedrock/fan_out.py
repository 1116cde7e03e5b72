"""Many concurrent calls on one cold prefix: one goes first, the others follow once its response has begun.

An entry cannot be read before the response to the request that writes it begins (R3.9), so parallel
first requests would all write. Inside a `fan_out()` block the first call to arrive that writes a prefix
leads; a call whose prompt starts with that prefix waits for it, then plans anew and reads. A leader is
always a call already on its way and never waits itself, so nothing deadlocks.

A service in trouble is never queued for, or calls that would fail side by side fail one after the other. Where a
leader's attempt fails, everybody who waits for it goes out at once, and nobody waits or leads there for a while.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from contextvars import ContextVar
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

from cachepoint._forks import Lock
from cachepoint.bedrock.blocks import in_block
from cachepoint.bedrock.wire.failures import is_status_of_trouble
from cachepoint.errors import ConfigurationError

TIMEOUT_SECONDS = 60.0
"""An answer that is not streamed begins when it ends, which takes tens of seconds. A leader that has told nothing for
longer than this has failed: botocore too gives an attempt up then (its `read_timeout`, 60 seconds by default)."""
PAUSE_SECONDS = 20.0
"""The longest that botocore waits before it repeats an attempt (`max_backoff` of retries/standard.py): a call that
arrives within this time meets the trouble that the failed one met, and those that it holds up are still at it."""


class Flight:
    """A leader under way; `release` lets those who wait for it go.

    It has no lock: a leader that nobody holds may be collected, and so released, in the middle of any step here.
    """

    def __init__(self, deadline: float, on_failure: Callable[[], object] = lambda: None) -> None:
        self._released = False
        self._failed = False
        self._wake: list[Callable[[], object]] = []
        self._deadline = deadline
        self._on_failure = on_failure

    @property
    def over(self) -> bool:
        """Whether nobody waits for it any more."""
        return self._released or time.monotonic() >= self._deadline

    @property
    def in_vain(self) -> bool:
        """Whether who waited for it has nothing to read: it failed, or has told nothing so far."""
        return self._failed or not self._released

    def release(self) -> None:
        """The leader's response began, or nobody wants it any more."""
        self._released = True
        while self._wake:
            with suppress(IndexError, RuntimeError):  # another woke it; a loop closed meanwhile has nobody waiting
                self._wake.pop()()

    def fail(self) -> None:
        """The leader failed, or its first attempt did; after its response began, this changes nothing."""
        if not self._released:
            self._on_failure()
            self._failed = True
            self.release()

    def wait(self, until: float) -> None:
        """Block this thread until the leader's response began, it failed, or its time or the call's is out."""
        woken: SimpleQueue[None] = SimpleQueue()
        self._wake.append(partial(woken.put, None))
        if not self._released:
            with suppress(Empty):
                woken.get(timeout=self._seconds(until))

    async def wait_async(self, until: float) -> None:
        """The same on the event loop."""
        loop = asyncio.get_running_loop()
        woken: asyncio.Future[None] = loop.create_future()
        self._wake.append(partial(loop.call_soon_threadsafe, _settle, woken))
        if not self._released:
            with suppress(TimeoutError):
                await asyncio.wait_for(woken, self._seconds(until))

    def _seconds(self, until: float) -> float:
        return max(min(self._deadline, until) - time.monotonic(), 0.0)


class Wait:
    """What a call needs that has a leader to wait for, until a time by `time.monotonic` at most."""

    def __init__(self, flight: Flight, until: float) -> None:
        self._flight, self._until = flight, until

    def wait(self) -> None:
        """Block this thread."""
        self._flight.wait(self._until)

    async def wait_async(self) -> None:
        """Wait on the event loop."""
        await self._flight.wait_async(self._until)


class Paused(Exception):
    """A call that must not block its thread has a leader to wait for; made again after its `wait`, it goes on.

    `give_up` is for who does not make it again, with the reason.
    """

    def __init__(self, wait: Wait, give_up: Callable[[BaseException], None]) -> None:
        super().__init__("wait for the leader, then make the same call again")
        self.wait = wait
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
        self._troubled: dict[str, float] = {}

    def join(self, scope: str, waits_for: Collection[bytes], writes: Collection[bytes]) -> tuple[Flight, bool] | None:
        """Join with the prefixes a call could read and those it writes.

        Returns a leader to wait for and False, or this call's own flight and True when it leads, or
        None when it neither waits nor leads.
        """
        with self._lock.held:
            if time.monotonic() < self._troubled.get(scope, 0.0):
                return None
            for digest in waits_for:
                leader = self._leaders.get((scope, digest))
                if leader is not None and not leader.over:
                    return leader, False
            if not writes:
                return None
            flight = Flight(self.deadline(), partial(self.pause, scope))
            self._leaders = {key: leader for key, leader in self._leaders.items() if not leader.over}
            self._leaders.update(((scope, digest), flight) for digest in writes)
            return flight, True

    def deadline(self) -> float:
        """When a wait that begins now ends at the latest, by `time.monotonic`."""
        return time.monotonic() + self._timeout

    def pause(self, scope: str) -> None:
        """Let nobody wait or lead here for a while: the service is in trouble."""
        self._troubled[scope] = time.monotonic() + PAUSE_SECONDS


_LEADING: ContextVar[Flight | None] = ContextVar("cachepoint_leading", default=None)


def leading(flight: Flight, client: Any) -> AbstractContextManager[None]:
    """While a leader is sent in the block: its first attempt that fails lets the others go.

    botocore may repeat an attempt for a minute, and raises only after the last.
    """
    with suppress(Exception):  # a client that is not botocore's raises at once
        client.meta.events.register_first("needs-retry.bedrock-runtime", _attempted, unique_id="cachepoint-fan-out")
    return in_block(_LEADING, flight)


def _attempted(response: Any = None, caught_exception: Any = None, **_: Any) -> None:
    """Hear from botocore how an attempt went, and leave to others what becomes of it."""
    flight = _LEADING.get()
    if flight is not None and (caught_exception is not None or is_status_of_trouble(_status(response))):
        flight.fail()


def _status(response: Any) -> Any:
    try:
        return response[0].status_code
    except Exception:  # noqa: BLE001 - botocore's own types, which are not public
        return 0


_FAN_OUT: ContextVar[FanOut | None] = ContextVar("cachepoint_fan_out", default=None)


@contextmanager
def fan_out(timeout: float = TIMEOUT_SECONDS) -> Iterator[None]:
    """Let concurrent calls in the block write a shared cold prefix once.

    `timeout` bounds how long one call waits, in seconds, for however many leaders; the default is 60. A block inside a
    block joins the outer one. Threads take part when they run in a copy of this context, as LangChain's and asyncio's
    do.
    """
    seconds: object = timeout
    if not isinstance(seconds, int | float) or not seconds > 0:
        raise ConfigurationError(f"fan_out(timeout={timeout!r}): give seconds, more than 0")
    if _FAN_OUT.get() is not None:
        yield
        return
    with in_block(_FAN_OUT, FanOut(timeout)):
        yield


def current_fan_out() -> FanOut | None:
    """The block in force here."""
    return _FAN_OUT.get()
