"""A process forks while its threads call: every child ends, with what was learned and with figures of its own."""

from __future__ import annotations

import asyncio
import multiprocessing
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from converse_kit import SONNET, SYSTEM, question, text
from fork_kit import SECONDS, forked, join, needs_fork, warned_of_threads

import cachepoint
from cachepoint import CacheLedger, MemoryStore, _forks, _later
from cachepoint._forks import Lock
from cachepoint.bedrock.client import CacheClient
from cachepoint.bedrock.fan_out import current_fan_out
from cachepoint.core.retrieval.ordering import SessionOrders
from cachepoint.emulator import BedrockEmulator
from cachepoint.sinks import JsonLines

pytestmark = [needs_fork, warned_of_threads]


class Answering:
    """A client that answers at once, by Python alone: what hangs here is cachepoint."""

    def converse(self, **request: Any) -> dict[str, Any]:
        return {"usage": {"inputTokens": 10, "outputTokens": 1, "totalTokens": 2311, "cacheReadInputTokens": 2300}}


def asked(client: CacheClient, words: str) -> Any:
    return client.converse(modelId=SONNET, system=[text(SYSTEM)], messages=[{"role": "user", "content": [text(words)]}])


@contextmanager
def calling(client: CacheClient, threads: int) -> Iterator[None]:
    """Meanwhile so many threads call."""
    stop = threading.Event()

    def work(thread: int) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            asked(client, f"{thread} {number}")

    working = [threading.Thread(target=work, args=(thread,)) for thread in range(threads)]
    for each in working:
        each.start()
    try:
        yield
    finally:
        stop.set()
        for each in working:
            each.join(SECONDS)


@contextmanager
def holding(*locks: Lock) -> Iterator[threading.Event]:
    """Another thread is inside these locks, until the event is set or the block is over."""
    inside, leave = threading.Event(), threading.Event()

    def hold() -> None:
        for lock in locks:
            lock.held.acquire()
        inside.set()
        leave.wait(SECONDS)
        for lock in locks:
            lock.held.release()

    thread = threading.Thread(target=hold)
    thread.start()
    inside.wait(SECONDS)
    try:
        yield leave
    finally:
        leave.set()
        thread.join(SECONDS)


def test_sixteen_children_of_calling_threads_end_and_count_their_own_calls(tmp_path: Path) -> None:
    """Of children forked while 16 threads called, more than a third hung in the store's lock, and a few in Python
    3.11's `functools.cached_property`."""
    client = cachepoint.wrap(Answering(), ledger=CacheLedger(on_call=JsonLines(tmp_path / "calls.jsonl")))
    asked(client, "first")

    def child() -> None:
        assert client.ledger.totals().calls == 0
        asked(client, "child")
        assert (
            client.ledger.totals().calls == len(client.ledger.records) == client.ledger.by("model")[SONNET].calls == 1
        )

    with calling(client, threads=8):
        children = []
        for _ in range(16):
            time.sleep(0.01)
            children.append(forked(child))
        ended = join(*children)
    assert ended == ["well"] * 16
    lines = (tmp_path / "calls.jsonl").read_text().splitlines()
    assert len(lines) == client.ledger.totals().calls + 16
    client.ledger._sinks[0].close()  # type: ignore[attr-defined]


def test_a_fork_waits_for_who_is_inside_a_lock() -> None:
    """So that the child has what it guards whole."""
    lock = Lock()
    with holding(lock) as leave:
        release = threading.Timer(0.2, leave.set)
        release.start()
        began = time.monotonic()
        child = forked(lambda: lock.held.acquire(timeout=SECONDS) or pytest.fail("not free"))
        assert time.monotonic() - began > 0.1
        release.join()
        assert join(child) == ["well"]


def test_a_fork_does_not_wait_for_ever_and_its_child_has_every_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_forks, "WAIT_SECONDS", 0.05)
    client = cachepoint.wrap(Answering())
    locks = list(_forks._every_lock())
    assert len(locks) > 3

    def child() -> None:
        for lock in _forks._every_lock():
            assert lock.held.acquire(blocking=False)
        asked(client, "child")

    with holding(*locks):
        assert join(forked(child)) == ["well"]
    assert all(lock.held.acquire(blocking=False) for lock in locks)  # and so has the parent
    for lock in locks:
        lock.held.release()


def test_a_thread_may_fork_inside_a_lock_of_its_own() -> None:
    """As a signal handler may that comes in the middle of a call."""
    lock = Lock()

    def child() -> None:
        lock.held.release()
        other = threading.Thread(target=lambda: taken.append(lock.held.acquire(timeout=SECONDS)))
        taken: list[bool] = []
        other.start()
        other.join()
        assert taken == [True]

    with lock.held:
        assert join(forked(child)) == ["well"]


def test_a_child_knows_what_was_learned() -> None:
    client = cachepoint.wrap(BedrockEmulator().local_client())
    client.converse(**question())

    def child() -> None:
        assert client.converse(**question(1))["promptCache"]["status"] == "hit"

    assert join(forked(child)) == ["well"]


def test_a_stream_under_way_is_the_parents() -> None:
    """Its child neither records it nor keeps room for what it may cost, whichever of them closes it."""
    emulator = BedrockEmulator()
    client = cachepoint.wrap(emulator.local_client(), clock=emulator.clock)
    stream, left = (client.converse_stream(**question())["stream"] for _ in range(2))
    left.close()
    assert isinstance(client.store, MemoryStore)
    pools = client.store._pools.values()

    def child() -> None:
        assert not any(pool.waste.committed or pool.waste.readers for pool in pools)
        assert len(list(stream)) > 3
        stream.close()
        assert client.ledger.totals().calls == 0

    assert len(_later._put_off) == 1
    assert join(forked(child)) == ["well"]
    assert any(pool.waste.committed for pool in pools)
    stream.close()
    assert [record.error for record in client.ledger.records] == ["abandoned", "abandoned"]
    assert not any(pool.waste.committed or pool.waste.readers for pool in pools)


def test_a_leader_under_way_is_the_parents() -> None:
    with cachepoint.fan_out(timeout=SECONDS):
        block = current_fan_out()
        assert block is not None
        block.join("scope", (), [b"prefix"])
        assert block.join("scope", [b"prefix"], ()) is not None
        assert join(forked(lambda: block.join("scope", [b"prefix"], ()) is None or pytest.fail("waits"))) == ["well"]


def test_a_child_keeps_nothing_alive_and_closes_the_block_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_forks, "WAIT_SECONDS", 0.05)
    with cachepoint.keep_alive(budget_usd=1) as keeping:

        def child() -> None:
            assert keeping.next_due is None
            keeping.close()

        with holding(keeping._lock):
            assert join(forked(child)) == ["well"]


def test_orders_of_sessions_go_on_in_a_child() -> None:
    orders = SessionOrders()

    def ordered(items: list[str]) -> list[str]:
        return orders.ordered("session", items, text=str, key=str)

    assert ordered(["b"]) == ["b"]

    def child() -> None:
        assert ordered(["a", "b"]) == ["b", "a"]

    assert join(forked(child)) == ["well"]


def test_a_child_may_run_an_event_loop_of_its_own() -> None:
    from cachepoint.bedrock.threads import InThreads

    client = InThreads(cachepoint.wrap(Answering()))

    def child() -> None:
        asyncio.run(client.converse(**question()))

    asyncio.run(client.converse(**question()))
    assert join(forked(child)) == ["well"]


def _calls_of_a_worker(_: int) -> int:
    client = cachepoint.wrap(Answering())
    asked(client, "worker")
    return client.ledger.totals().calls


@pytest.mark.parametrize(
    "method",
    [
        "fork",
        pytest.param("spawn", marks=pytest.mark.long("starts an interpreter for each worker")),
        pytest.param("forkserver", marks=pytest.mark.long("starts an interpreter for the server")),
    ],
)
def test_workers_of_multiprocessing_call(method: str) -> None:
    client = cachepoint.wrap(Answering())
    with calling(client, threads=2), multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.map_async(_calls_of_a_worker, range(4)).get(SECONDS) == [1] * 4
