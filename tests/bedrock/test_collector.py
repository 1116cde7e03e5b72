"""The collector may run anywhere: what a finaliser has to say is put off, and is in the figures all the same."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from contextvars import ContextVar
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from converse_kit import question

import cachepoint
from cachepoint import CacheLedger, CallRecord, _later
from cachepoint.bedrock.client import CacheClient
from cachepoint.emulator import BedrockEmulator

SECONDS = 60.0
HERE = (str(Path(cachepoint.__file__).parent), __file__)
LINES_APART = 211
"""Of a call's some thousand lines; prime, so that later calls are met at others."""

# What botocore leaves open when a stream is dropped unread, with or without cachepoint.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


class LockedSink:
    """A user's sink with a lock that does not let its own thread in again."""

    def __init__(self) -> None:
        self.records: list[CallRecord] = []
        self._lock = threading.Lock()

    def __call__(self, record: CallRecord) -> None:
        with self._lock:
            self.records.append(record)


class Cycle:
    """What only the collector can take apart."""

    def __init__(self, kept: object) -> None:
        self.kept, self.itself = kept, self


def events(client: CacheClient) -> Iterator[object]:
    """As a program writes it: a stream that is closed when its reader is, whenever that is."""
    with closing(client.converse_stream(**question())["stream"]) as stream:
        yield from stream


def in_time(work: Callable[[], object]) -> None:
    """Do this in a thread; fail where it waits for ever."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as failure:  # noqa: BLE001 - raised below
            failures.append(failure)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(SECONDS)
    assert not thread.is_alive(), "it hangs"
    if failures:
        raise failures[0]


@contextmanager
def collecting(garbage: list[object]) -> Iterator[None]:
    """Meanwhile a piece of garbage is collected before every so many lines of cachepoint or of this file."""
    left = LINES_APART

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal left
        if not frame.f_code.co_filename.startswith(HERE):
            return None
        left -= event == "line"
        if left <= 0 and garbage:
            left = LINES_APART
            Cycle(garbage.pop())
            gc.collect()
        return trace

    gc.collect()
    gc.freeze()  # what is there already need not be looked at each time
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(None)
        gc.unfreeze()


def test_streams_may_be_collected_at_any_line_of_other_calls() -> None:
    """A callback handler's lock, and a sink's, were taken a second time by the thread that had them."""
    emulator, sink = BedrockEmulator(), LockedSink()
    client = cachepoint.wrap(emulator.local_client(), ledger=CacheLedger(on_call=sink), clock=emulator.clock)

    def work() -> None:
        left: list[Any] = [client.converse_stream(**question())["stream"] for _ in range(15)]
        for _ in range(15):
            left.append(events(client))
            next(left[-1])
        count = len(left)
        with collecting(left):
            for number in range(4):
                client.converse(**question(number))
                client.ledger.totals()
        assert len(left) < count / 2
        left.clear()
        gc.collect()
        totals = client.ledger.totals()
        assert (totals.calls, totals.errors, totals.unreported) == (count + 4, count, count)

    in_time(work)
    assert sorted(map(id, sink.records)) == sorted(map(id, client.ledger.records))
    assert isinstance(client.store, cachepoint.MemoryStore)
    assert not any(pool.waste.committed or pool.waste.readers for pool in client.store._pools.values())


def test_threads_that_collect_each_others_streams_do_not_wait_for_each_other() -> None:
    emulator = BedrockEmulator()
    client = cachepoint.wrap(emulator.local_client(), clock=emulator.clock)

    def work() -> None:
        for _ in range(8):
            Cycle(client.converse_stream(**question())["stream"])
            client.ledger.totals()

    before = gc.get_threshold()
    gc.set_threshold(20)
    try:
        threads = [threading.Thread(target=work, daemon=True) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SECONDS)
        assert not any(thread.is_alive() for thread in threads)
    finally:
        gc.set_threshold(*before)
    gc.collect()
    assert client.ledger.totals().errors == 32


def test_a_stream_that_is_left_reaches_the_sinks_with_the_next_call() -> None:
    emulator, heard = BedrockEmulator(), list[str | None]()
    ledger = CacheLedger(on_call=lambda record: heard.append(record.error))
    client = cachepoint.wrap(emulator.local_client(), ledger=ledger, clock=emulator.clock)
    list(islice(events(client), 2))
    assert heard == []
    client.converse(**question(1))
    assert heard == ["abandoned", None]


def test_a_stream_that_is_left_is_recorded_in_the_context_of_its_call() -> None:
    """Where the current span is that of the call, say."""
    tenant: ContextVar[str] = ContextVar("tenant", default="nobody")
    emulator, heard = BedrockEmulator(), list[str]()
    ledger = CacheLedger(on_call=lambda _: heard.append(tenant.get()))
    client = cachepoint.wrap(emulator.local_client(), ledger=ledger, clock=emulator.clock)
    token = tenant.set("a")
    client.converse_stream(**question())["stream"].close()
    tenant.reset(token)
    assert client.ledger.totals().calls == 1
    assert heard == ["a"]


def test_a_stream_took_as_long_as_it_was_read() -> None:
    emulator = BedrockEmulator()
    client = cachepoint.wrap(emulator.local_client(), clock=emulator.clock)
    client.converse_stream(**question())["stream"].close()
    left = threading.Event()
    left.wait(0.3)
    (record,) = client.ledger.records
    assert record.seconds < 0.3


def test_what_a_program_leaves_at_its_end_is_recorded() -> None:
    program = """
import cachepoint

class Bedrock:
    def converse(self, **_): ...
    def converse_stream(self, **_): return {"stream": iter(())}

ledger = cachepoint.CacheLedger(on_call=lambda record: print(record.error))
cachepoint.wrap(Bedrock(), ledger=ledger).converse_stream(modelId="m", messages=[])
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=SECONDS, check=True)
    assert ended.stdout == "abandoned\n"


def test_a_step_that_another_thread_took_is_taken_once() -> None:
    taken: list[int] = []
    for number in range(100):
        _later.later(lambda number=number: taken.append(number))  # type: ignore[misc]
    threads = [threading.Thread(target=_later.catch_up) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    assert sorted(taken) == list(range(100))
