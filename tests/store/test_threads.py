"""A store shared by threads: nothing is lost, and no lock is held over a plan."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from planner.kit import CLAUDE, Caller, asks, prose

from cachepoint import MemoryStore, Usage
from cachepoint.core.planning import planner
from cachepoint.core.planning.policy import CachePolicy
from cachepoint.core.provider.prices import Rates
from cachepoint.core.traffic.boundaries import steps as steps_of
from cachepoint.core.traffic.entries import Sent, SentPoint
from cachepoint.core.traffic.evidence import AT_RISK, EVENTS
from cachepoint.core.traffic.kinds import AGAIN_KIND
from cachepoint.core.traffic.view import Step

THREADS, EACH = 8, 100
NOW = 1_000_000.0
SHARED = Step(b"s" * 16, "system_end", 2_000.0)


def in_threads(work: Callable[[int], object]) -> None:
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(work, range(THREADS), timeout=60))


def test_eight_threads_lose_no_observation() -> None:
    store, sent = MemoryStore(), Sent((SentPoint(SHARED.digest, "5m", 2_000.0),), written=2_000.0, estimated=2_100.0)
    started = threading.Barrier(THREADS)

    def work(thread: int) -> None:
        started.wait(30)
        for number in range(EACH):
            own = Step(bytes([thread, number]) * 8, "tail_single", 2_100.0)
            store.visit("scope", [SHARED, own], None, NOW)
            store.sent("scope", sent, NOW)
            store.began("scope", sent)
            store.settled("scope", sent, Usage(input=100, cache_read=2_000), NOW)

    in_threads(work)
    own = [Step(bytes([thread, number]) * 8, "tail_single") for thread in range(THREADS) for number in range(EACH)]
    view = store.peek("scope", [SHARED, *own], NOW)
    assert view.seen[SHARED.digest].visits == THREADS * EACH
    assert all(view.seen[step.digest].visits == 1 for step in own)
    assert view.waste.committed == pytest.approx(0, abs=1e-6)
    assert view.waste.baseline == THREADS * EACH * 2_100
    # all visits but the first two ended a wait of one that had come back, within the first bucket
    again = store._scopes["scope"].habits.counted(NOW)[AGAIN_KIND["system_end"]]
    assert again[EVENTS] == pytest.approx(THREADS * EACH - 2)
    assert again[AT_RISK] == pytest.approx(THREADS * EACH - 2 + 0.5)


def test_eight_threads_plan_at_once_while_others_use_the_store() -> None:
    """All eight are past their visit and before their plan at one time, and each sees the store answer a ninth."""
    caller = Caller()
    prompt = caller.read(asks("question", system=[prose(2_000, "system")]))
    boundaries, meet, answered = steps_of(prompt), threading.Barrier(THREADS), threading.Event()

    def other() -> None:
        caller.store.visit("scope", boundaries, None, NOW + 1)
        answered.set()

    def work(thread: int) -> None:
        view = caller.store.visit("scope", boundaries, None, NOW)
        meet.wait(30)
        if thread == 0:
            threading.Thread(target=other).start()
        assert answered.wait(30)
        first = planner.plan(prompt, CLAUDE, CachePolicy(), view, Rates(), NOW)
        assert planner.plan(prompt, CLAUDE, CachePolicy(), view, Rates(), NOW) == first

    in_threads(work)
    assert {seen.visits for seen in caller.store.peek("scope", boundaries, NOW + 1).seen.values()} == {THREADS + 1}
