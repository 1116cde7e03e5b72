"""A store shared by threads: nothing is lost, and no lock is held over a plan."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from converse_kit import SONNET, SONNET_46, question

import cachepoint
from cachepoint import MemoryStore, Usage
from cachepoint.core.planning import planner
from cachepoint.core.planning.plan import Plan
from cachepoint.core.prompt.tokens import Band
from cachepoint.core.traffic.entries import Sent, SentPoint
from cachepoint.core.traffic.evidence import AT_RISK, EVENTS
from cachepoint.core.traffic.kinds import AGAIN_KIND
from cachepoint.core.traffic.pool import Scope
from cachepoint.core.traffic.view import Step
from cachepoint.core.traffic.waste import Risk, Segment
from cachepoint.emulator import BedrockEmulator

THREADS, EACH = 8, 100
NOW = 1_000_000.0
SCOPE = Scope("scope", "model")
SHARED = Step(b"s" * 16, "system_end", 2_000.0)
RISK = Risk((Segment(SHARED.digest, "system_end", 2_000.0, 0.25),), Band(2_100.0, 2_100.0, 2_100.0))


def in_threads(work: Callable[[int], object]) -> None:
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(work, range(THREADS), timeout=60))


def test_eight_threads_lose_no_observation() -> None:
    store, sent = MemoryStore(), Sent((SentPoint(SHARED.digest, "5m", 2_000.0),), risk=RISK, estimated=2_100.0)
    started = threading.Barrier(THREADS)

    def work(thread: int) -> None:
        started.wait(30)
        for number in range(EACH):
            own = Step(bytes([thread, number]) * 8, "tail_single", 2_100.0)
            store.visit(SCOPE, [SHARED, own], None, NOW)
            store.sent(SCOPE, sent, NOW)
            store.began(SCOPE, sent)
            store.settled(SCOPE, sent, Usage(input=100, cache_read=2_000), NOW)

    in_threads(work)
    own = [Step(bytes([thread, number]) * 8, "tail_single") for thread in range(THREADS) for number in range(EACH)]
    view = store.peek(SCOPE, [SHARED, *own], NOW)
    assert view.seen[SHARED.digest].visits == THREADS * EACH
    assert all(view.seen[step.digest].visits == 1 for step in own)
    assert not view.waste.committed
    assert view.waste.baseline == THREADS * EACH * 2_100
    # all visits but the first two ended a wait of one that had come back, within the first bucket
    again = store._scopes[SCOPE.name].habits.counted(NOW)[AGAIN_KIND["system_end"]]
    assert again[EVENTS] == pytest.approx(THREADS * EACH - 2)
    assert again[AT_RISK] == pytest.approx(THREADS * EACH - 2 + 0.5)


@pytest.mark.parametrize("other_scope", [False, True])
def test_no_lock_of_the_store_is_held_while_a_call_is_planned(
    monkeypatch: pytest.MonkeyPatch, *, other_scope: bool
) -> None:
    """One client stands still in the middle of its plan; another on the same store goes from visit to answer."""
    emulator, store = BedrockEmulator(keep_text=True), MemoryStore()
    one, other = (cachepoint.wrap(emulator.local_client(), store=store, clock=emulator.clock) for _ in range(2))
    planning, go_on, plan = threading.Event(), threading.Event(), planner.plan

    def stands_still(*args: Any, **options: Any) -> Plan:
        if threading.current_thread() is not threading.main_thread() and not planning.is_set():
            planning.set()
            assert go_on.wait(60)
        return plan(*args, **options)

    monkeypatch.setattr(planner, "plan", stands_still)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(one.converse, **question())
        try:
            assert planning.wait(60)
            second = pool.submit(other.converse, **question(model=SONNET_46 if other_scope else SONNET))
            assert second.result(60)["promptCache"]
            assert not first.done()
        finally:
            go_on.set()
        assert first.result(60)["promptCache"]
    assert [client.ledger.totals().calls for client in (one, other)] == [1, 1]
