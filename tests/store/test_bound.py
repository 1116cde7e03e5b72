"""Bound A over a whole store: whatever the traffic, the service and the number of scopes, after every call.

bill ≤ 1.015 × the bill without caching + K × 0.25 × the largest prompt, K one until a read was tried and two from then
on, and what a profile brought. What proven roles have at stake is at most what was won, so it never shows.
Calls that read the same entry at the same time share one reservation: of what they lose together, one is in the bound.
"""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planner.kit import SCOPE, Caller, Request, asks, over_the_bound, prose

from cachepoint import MemoryStore
from cachepoint.core.exchange import Exchange
from cachepoint.core.planning.policy import CachePolicy
from cachepoint.core.provider.cache_model import CacheModel
from cachepoint.core.traffic.pool import Scope
from cachepoint.core.traffic.waste import CARRIED
from cachepoint.store import _memory

ROUNDING = 5.0
"""Tokens are whole in usage and not in estimates."""
GAPS = st.sampled_from([0.0, 10.0, 200.0, 400.0, 1_000.0, 4_000.0])
SIZES = st.sampled_from([300, 1_200, 4_000, 9_000])
KINDS = ("question", "system", "own system", "shared system", "document", "conversation", "marked")


class Step(NamedTuple):
    """One call begins, in one of the scopes; or one that is under way ends."""

    kind: str
    scope: int
    size: int
    gap: float
    ends: str
    evicts: bool


STEPS = st.builds(
    Step, st.sampled_from(KINDS), st.integers(0, 9), SIZES, GAPS,
    st.sampled_from(["at once", "later", "later", "never", "failed"]), st.booleans(),
)  # fmt: skip


class Everyone:
    """Callers of many scopes with one store and one service."""

    def __init__(self, store: MemoryStore, wrong: float, policy: CachePolicy | None = None) -> None:
        cache = CacheModel()
        self.callers = [
            Caller(
                store=store, cache=cache, tokens_per_estimate=wrong, policy=policy or CachePolicy(),
                scope=Scope(f"account|host|region|tenant{number}|converse", SCOPE.model),
            )
            for number in range(10)
        ]  # fmt: skip
        self.histories: dict[int, list[str]] = {}
        self.under_way: list[tuple[Caller, Exchange]] = []
        self.beside = 0.0
        self.shared: set[bytes] = set()
        self.now, self.number = 1_000_000.0, 0

    def request(self, step: Step) -> Request:
        """A request that nobody can foretell."""
        self.number += 1
        unique, question = prose(step.size, self.number), f"question {self.number}"
        if step.kind == "question":
            return asks(unique)
        if step.kind == "system":
            return asks("go", system=[unique])
        if step.kind == "own system":
            return asks(question, system=[prose(step.size, ("own", step.scope))])
        if step.kind == "shared system":
            return asks(question, system=[prose(step.size, "shared"), prose(200, step.scope)])
        if step.kind == "document":
            return asks(f"{prose(step.size, self.number % 3)}\n\n{question}", system=["short"])
        if step.kind == "marked":
            request = asks(question, system=[unique])
            system = request["system"]
            assert isinstance(system, list)
            system.append({"cachePoint": {"type": "default"}})
            return request
        history = self.histories.setdefault(step.scope, [])
        request = asks(question, history=history, system=[prose(1_500, "assistant")])
        self.histories[step.scope] = [*history, question, prose(step.size // 10, self.number)]
        return request

    def does(self, step: Step) -> None:
        """A call begins and, unless it ends later, ends; all that wait may end after it."""
        self.now += step.gap
        caller = self.callers[step.scope]
        caller.now = self.now
        if step.evicts:
            caller.cache.evict()
        exchange = caller.planned(self.request(step))
        caller.send(exchange)
        read = exchange.plan.risk.read
        if read and any(other.plan.risk.read == read for _, other in self.under_way):
            self.shared.add(read)
        if step.ends == "later":
            self.under_way.append((caller, exchange))
        elif step.ends == "failed":
            caller.learn(exchange.failed("ReadTimeout", 1.0))
        elif step.ends == "never":
            caller.served(exchange.request)
            caller.learn(exchange.began())
            caller.learn(exchange.ended("cut", "ReadTimeout", 1.0))
        else:
            self.ends(caller, exchange)
        if len(self.under_way) > 4:
            self.finish(self.number)

    def finish(self, seed: int) -> None:
        """All that is under way ends, in any order."""
        random.Random(seed).shuffle(self.under_way)
        for caller, exchange in self.under_way:
            caller.now = self.now
            self.ends(caller, exchange)
            self.check()
        self.under_way.clear()
        self.shared.clear()

    def ends(self, caller: Caller, exchange: Exchange) -> None:
        """A call ends; what several lose at once of an entry that is gone is beside the bound."""
        usage = caller.answer(exchange)
        if exchange.plan.risk.read in self.shared and not usage.cache_read:
            self.beside += 0.25 * usage.cache_write_5m + usage.cache_write_1h

    def check(self) -> None:
        """The bound holds; `beside` is what a profile brought, and what the user wants written."""
        assert over_the_bound(*self.callers) <= self.beside + ROUNDING


@settings(max_examples=30, deadline=None)
@given(st.lists(STEPS, min_size=5, max_size=30), st.integers(1, 12), st.sampled_from([200, 96_000]))
def test_no_traffic_no_service_and_no_number_of_scopes_breaks_the_bound(
    steps: list[Step], scopes_kept: int, boundaries_kept: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_memory, "SCOPES_KEPT", scopes_kept)
        patch.setattr(_memory, "REFUSALS_KEPT", 1)
        everyone = Everyone(MemoryStore(boundaries_kept=boundaries_kept), 1.0)
        for step in steps:
            if step.kind != "marked":  # what the user wants written is not the planner's risk
                everyone.does(step)
                everyone.check()
        everyone.finish(7)


@settings(max_examples=20, deadline=None)
@given(st.lists(STEPS, min_size=5, max_size=30), st.sampled_from([0.75, 0.9, 1.1, 1.3]))
def test_estimates_that_are_wrong_do_not_break_the_bound(steps: list[Step], wrong: float) -> None:
    everyone = Everyone(MemoryStore(), wrong)
    for step in steps:
        if step.kind != "marked" and step.ends != "never":  # of such a call the store has only the estimate
            everyone.does(step)
            everyone.check()
    everyone.finish(7)


@settings(max_examples=20, deadline=None)
@given(st.lists(STEPS, min_size=5, max_size=30))
def test_what_the_user_marks_comes_on_top_and_licenses_nothing(steps: list[Step]) -> None:
    everyone = Everyone(MemoryStore(), 1.0)
    for step in steps:
        if step.ends == "never":
            continue
        everyone.beside += 0.25 * 1.2 * step.size * (step.kind == "marked")  # prose is a fifth off its size at most
        everyone.does(step._replace(ends="at once"))
        everyone.check()


@settings(max_examples=20, deadline=None)
@given(st.lists(STEPS, min_size=5, max_size=20), st.integers(1, 10))
def test_a_profile_brings_winnings_and_no_more_than_it_tells(steps: list[Step], rounds: int) -> None:
    store = MemoryStore()
    teacher = Caller(store=store)
    for number in range(rounds):
        teacher.call(asks(f"question {number}", system=[prose(4_000, "taught")]), after=200 * number)
    brought = store._pools[SCOPE.model].waste.carried()
    assert brought <= CARRIED * teacher.largest
    with TemporaryDirectory() as directory:
        store.save(Path(directory) / "profile.json")
        everyone = Everyone(MemoryStore.load(Path(directory) / "profile.json"), 1.0)
    everyone.beside = brought
    for step in steps:
        if step.kind != "marked":
            everyone.does(step)
            everyone.check()
    everyone.finish(7)


def test_threads_do_not_spend_the_same_room() -> None:
    """Eight plan at once, each a write of its own that alone is covered; one of them is."""
    store = MemoryStore(key=b"k" * 32)
    callers = [Caller(store=store, scope=Scope(f"scope{number}", "model")) for number in range(8)]
    ready = threading.Barrier(len(callers))

    def call(number: int) -> Exchange:
        exchange = callers[number].planned(asks("go", system=[prose(5_000, number)]))
        assert exchange.plan.checkpoints
        ready.wait(30)
        callers[number].send(exchange)
        return exchange

    with ThreadPoolExecutor(len(callers)) as threads:
        exchanges = list(threads.map(call, range(len(callers)), timeout=60))
    written = [exchange for exchange in exchanges if exchange.plan.checkpoints]
    assert len(written) == 1
    denied = next(exchange for exchange in exchanges if exchange not in written)
    for caller, exchange in zip(callers, exchanges, strict=True):
        caller.answer(exchange)
    assert denied.record is not None
    assert "allowance_spent" in {held.reason for held in denied.record.held}
    assert over_the_bound(*callers) <= ROUNDING
    assert not store.peek(SCOPE, (), 1_000_000.0).waste.committed
