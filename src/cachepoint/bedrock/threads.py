"""A synchronous client under an event loop: calls run in the loop's own threads, and wait for each other on the loop.

The threads are those of the loop's default executor, as they are where LangChain or LlamaIndex runs a synchronous
client itself: who sizes that executor bounds the calls under way. A call that has a leader to wait for gives its thread
back, or calls that wait could hold all of them.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import Any, Generic, TypeVar

from cachepoint.bedrock.call import Call, Need
from cachepoint.bedrock.client import CacheClient
from cachepoint.bedrock.fan_out import Paused, Wait
from cachepoint.bedrock.warn import on_behalf_of_caller
from cachepoint.bedrock.wire.dialect import Dialect

T = TypeVar("T")

_END: Any = object()


async def in_thread(run: Callable[[], T]) -> T:
    """What `run` returns in a thread, in a copy of the caller's context.

    Where a call of a `PausingClient` in it has a leader to wait for, the loop waits, and `run` is run again.
    """
    with on_behalf_of_caller():
        context = copy_context()
    loop = asyncio.get_running_loop()
    while True:
        step = _Step(run)
        try:
            return await loop.run_in_executor(None, partial(context.run, step.take))
        except Paused as paused:
            try:
                await paused.wait.wait_async()
            except BaseException as error:
                paused.give_up(error)
                raise
        except BaseException as error:
            step.leave(error)
            raise


class _Step(Generic[T]):
    """One run in a thread; should nobody wait for it any more when it pauses, its call is given up."""

    def __init__(self, run: Callable[[], T]) -> None:
        self._run = run
        self._lock = threading.Lock()
        self._paused: Paused | None = None
        self._left: BaseException | None = None

    def take(self) -> T:
        """Run it, in the thread."""
        try:
            return _stopping(self._run)
        except Paused as paused:
            with self._lock:
                self._paused, left = paused, self._left
            if left is not None:
                paused.give_up(left)
            raise

    def leave(self, error: BaseException) -> None:
        """The caller was cancelled while the thread was at it."""
        with self._lock:
            self._left, paused = error, self._paused
        if paused is not None:
            paused.give_up(error)


def _stopping(run: Callable[[], T]) -> T:
    try:
        return run()
    except StopIteration as stop:  # asyncio cannot put one into a future, and would leave it pending for ever
        raise RuntimeError("StopIteration in a thread") from stop


class PausingClient(CacheClient):
    """For one call that a loop runs in a thread: it raises `Paused` instead of blocking the thread.

    The same call made again goes on where it was, so that it is planned and recorded once.
    """

    def __init__(self, client: CacheClient) -> None:
        super().__init__(client.wrapped, client._settings)
        self._paused: tuple[Call, Generator[Need, Any, None]] | None = None

    def _call(self, dialect: Dialect, request: Mapping[str, Any]) -> Call:
        return super()._call(dialect, request) if self._paused is None else self._paused[0]

    def _depart(self, call: Call) -> None:
        needs = call.departure() if self._paused is None else self._paused[1]
        self._paused, answer = None, None
        with suppress(StopIteration):
            while True:
                need = needs.send(answer)
                if isinstance(need, Wait):
                    self._paused = call, needs
                    raise Paused(need, call.failed)
                answer = need.wait()


class ThreadedStream(Generic[T]):
    """A synchronous stream, or a generator, read asynchronously: each item is fetched in a thread."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._items: Iterator[T] = iter(stream)
        self._reading = threading.Lock()
        self._closed = False

    async def __aiter__(self) -> AsyncIterator[T]:
        while (item := await in_thread(self._next)) is not _END:
            yield item

    def close(self) -> None:
        """End the stream; one that a thread is reading ends when that thread has its item, which nobody waits for."""
        self._closed = True
        try:
            asyncio.get_running_loop().run_in_executor(None, copy_context().run, self._end)
        except RuntimeError:  # no loop runs here, or its threads are gone
            self._end()

    def _next(self) -> T:
        try:
            with self._reading:
                return _END if self._closed else next(self._items, _END)
        finally:
            if self._closed:
                self._end()

    def _end(self) -> None:
        # Who finds the lock taken leaves the end to the thread that has it, which looks once more after its release.
        if self._reading.acquire(blocking=False):
            try:
                self._stream.close()
            finally:
                self._reading.release()


class InThreads:
    """A wrapped synchronous client with the face of an asynchronous one."""

    def __init__(self, client: CacheClient) -> None:
        self._client = client

    async def converse(self, **request: Any) -> dict[str, Any]:
        """`converse`, in a thread."""
        return await in_thread(partial(PausingClient(self._client).converse, **request))

    async def converse_stream(self, **request: Any) -> dict[str, Any]:
        """`converse_stream`, whose `stream` is read asynchronously."""
        response = await in_thread(partial(PausingClient(self._client).converse_stream, **request))
        return {**response, "stream": ThreadedStream(response["stream"])}
