"""A synchronous client under an event loop: nothing blocks the loop, and calls that wait hold no thread."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar, copy_context
from functools import partial
from typing import Any

import pytest
from converse_kit import Bedrock, question

import cachepoint
from cachepoint.bedrock.fan_out import Flight
from cachepoint.bedrock.threads import InThreads, ThreadedStream, in_thread
from cachepoint.emulator import BedrockEmulator, Latency, failed, slow

NAME: ContextVar[str] = ContextVar("NAME", default="nobody")


class Slow:
    """A stream whose second item comes when it is let come."""

    def __init__(self) -> None:
        self.reading, self.come, self.closed = threading.Event(), threading.Event(), threading.Event()
        self.closed_while_read = False

    def __iter__(self) -> Iterator[int]:
        yield 1
        self.reading.set()
        assert self.come.wait(30)
        self.closed_while_read = self.closed.is_set()
        yield 2

    def close(self) -> None:
        self.closed.set()


async def test_a_step_in_a_thread_has_the_callers_context() -> None:
    NAME.set("caller")
    assert await in_thread(lambda: (NAME.get(), threading.current_thread() is threading.main_thread())) == (
        "caller",
        False,
    )


async def test_a_stop_of_an_iterator_is_raised_and_hangs_nothing() -> None:
    with pytest.raises(RuntimeError, match="StopIteration"):
        await asyncio.wait_for(in_thread(lambda: next(iter(()))), 30)


async def test_a_stream_is_read_to_its_end() -> None:
    stream = Slow()
    stream.come.set()
    assert [item async for item in ThreadedStream[int](stream)] == [1, 2]


async def test_closing_a_stream_waits_for_nobody_and_ends_it_after_the_item_under_way() -> None:
    stream = Slow()
    items = ThreadedStream[int](stream)

    async def read() -> list[int]:
        return [item async for item in items]

    reading = asyncio.ensure_future(read())
    await asyncio.to_thread(stream.reading.wait, 30)
    items.close()
    assert not stream.closed.is_set()
    stream.come.set()
    assert await reading == [1, 2]
    assert await asyncio.to_thread(stream.closed.wait, 30)
    assert not stream.closed_while_read


async def test_a_stream_nobody_reads_is_closed_at_once() -> None:
    stream = Slow()
    ThreadedStream[int](stream).close()
    assert await asyncio.to_thread(stream.closed.wait, 30)


def test_a_stream_is_closed_where_no_loop_runs() -> None:
    stream = Slow()
    ThreadedStream[int](stream).close()
    assert stream.closed.is_set()


async def test_calls_that_wait_for_another_leave_the_threads_free() -> None:
    with BedrockEmulator(latency=Latency(fixed=1.0, sleep=True)) as emulator:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2))
        client = InThreads(cachepoint.wrap(emulator.client(), clock=emulator.clock))
        with cachepoint.fan_out():
            calls = [asyncio.ensure_future(client.converse(**question(number))) for number in range(6)]
            await asyncio.sleep(0.5)  # the leader is under way in one of the two threads
            assert await asyncio.wait_for(asyncio.to_thread(lambda: "free"), 0.45) == "free"
            told: list[Any] = [answer["promptCache"]["status"] for answer in await asyncio.gather(*calls)]
    assert sorted(told) == ["hit"] * 5 + ["written"]


async def test_a_call_that_is_cancelled_while_it_waits_is_recorded() -> None:
    with BedrockEmulator(latency=Latency(fixed=1.0, sleep=True)) as emulator:
        wrapped = cachepoint.wrap(emulator.client(), clock=emulator.clock)
        client = InThreads(wrapped)
        with cachepoint.fan_out():
            leader = asyncio.ensure_future(client.converse(**question(0)))
            await asyncio.sleep(0.5)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(client.converse(**question(1)), 0.2)
            assert [record.error for record in wrapped.ledger.records] == ["CancelledError"]
            await leader
    assert [record.error for record in wrapped.ledger.records] == ["CancelledError", None]


async def test_a_streamed_call_tells_what_it_read(bedrock: Bedrock) -> None:
    client = InThreads(bedrock.wrapped())
    await client.converse(**question(1))
    stream = (await client.converse_stream(**question(2)))["stream"]
    events = [event async for event in stream]
    assert events[-1]["metadata"]["promptCache"]["status"] == "hit"


def test_a_wait_without_an_end_is_a_wait_all_the_same(bedrock: Bedrock) -> None:
    """No event of Python's takes an endless time-out."""
    client = bedrock.wrapped()
    with cachepoint.fan_out(timeout=float("inf")), ThreadPoolExecutor(3) as pool:
        calls = [pool.submit(copy_context().run, partial(client.converse, **question())) for _ in range(3)]
        statuses = sorted(call.result(60)["promptCache"]["status"] for call in calls)
    assert statuses.count("written") == 1


def wait_for(arrived: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not arrived() and time.monotonic() < deadline:
        time.sleep(0.01)


class Stop(BaseException):
    """What a ledger's listener may raise to end the program."""


def test_a_listener_that_ends_the_leader_does_not_hold_those_who_wait(bedrock: Bedrock) -> None:
    def listen(record: cachepoint.CallRecord) -> None:
        if record.error:
            raise Stop

    client = bedrock.wrapped(ledger=cachepoint.CacheLedger(on_call=listen))
    bedrock.emulator.fail_next(failed("ModelErrorException"))
    with cachepoint.fan_out(timeout=300), ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(copy_context().run, partial(client.converse, **question())) for _ in range(2)]
        ended = [call.exception(60) for call in calls]
    assert sorted(map(type, ended), key=str) == sorted([Stop, type(None)], key=str)


def test_a_leader_released_in_the_middle_of_a_wait_wakes_who_is_about_to_wait() -> None:
    flight = Flight(time.monotonic() + 300)

    class Collected(list[Any]):
        """A list whose growing is the moment at which the leader is collected."""

        def append(self, item: Any) -> None:
            flight.release()
            super().append(item)

    flight._wake = Collected()
    flight.wait(time.monotonic() + 300)
    asyncio.run(asyncio.wait_for(flight.wait_async(time.monotonic() + 300), 30))
    assert flight.over


async def test_a_call_cancelled_while_its_thread_plans_is_ended_and_recorded(bedrock: Bedrock) -> None:
    planning, go_on = threading.Event(), threading.Event()

    class Slow(cachepoint.MemoryStore):
        def visit(self, *given: Any) -> Any:
            if planning.is_set():
                return super().visit(*given)
            planning.set()
            assert go_on.wait(30)
            return super().visit(*given)

    client = bedrock.wrapped(store=Slow())
    with cachepoint.fan_out():
        cancelled = asyncio.ensure_future(InThreads(client).converse(**question()))
        assert await asyncio.to_thread(planning.wait, 30)
        bedrock.emulator.fail_next(slow(1.0))
        leader = asyncio.ensure_future(InThreads(client).converse(**question()))
        await asyncio.to_thread(wait_for, lambda: bool(bedrock.calls) or leader.done())
        cancelled.cancel()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        await leader
    await asyncio.to_thread(wait_for, lambda: len(client.ledger.records) == 2)
    assert {record.error for record in client.ledger.records} <= {None, "CancelledError"}
    assert len(client.ledger.records) == 2
