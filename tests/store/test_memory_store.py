"""The store in memory: digests only, bounded, apart by scope, and safe to share."""

from __future__ import annotations

import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b

import pytest

from cachepoint import MemoryStore, Usage
from cachepoint.core.traffic.entries import Sent, SentPoint
from cachepoint.core.traffic.pool import Scope
from cachepoint.core.traffic.refusals import Outcome
from cachepoint.core.traffic.view import Step

SCOPE = Scope("account|endpoint|us-east-1|model|converse", "model")
ANOTHER = Scope("another", "model")


def digest(*names: object) -> bytes:
    return blake2b(repr(names).encode(), digest_size=16).digest()


def steps(*names: object) -> list[Step]:
    return [Step(digest("system"), "system_end"), *(Step(digest(name), "tail_single") for name in names)]


def written(*names: object, tokens: float = 4000.0, ttl: str = "5m") -> Sent:
    points = tuple(SentPoint(step.digest, ttl, tokens) for step in steps(*names))  # type: ignore[arg-type]
    return Sent(points=points, estimated=tokens + 10, minimum=1024)


def serve(store: MemoryStore, *names: object, scope: Scope = SCOPE, now: float = 1000.0) -> None:
    store.visit(scope, steps(*names), None, now)
    sent = written(*names)
    store.sent(scope, sent, now)
    store.began(scope, sent)
    store.settled(scope, sent, Usage(input=10, cache_write_5m=4000), now)


def test_a_visit_says_what_was_known_before_it() -> None:
    store = MemoryStore()
    first, second = (store.visit(SCOPE, steps("a"), None, now) for now in (0.0, 20.0))
    assert first.seen == {}
    assert [seen.visits for seen in second.seen.values()] == [1, 1]


def test_peeking_remembers_nothing() -> None:
    store = MemoryStore()
    store.peek(SCOPE, steps("a"), 0.0)
    assert store.peek(SCOPE, steps("a"), 1.0).seen == {}


def test_scopes_know_nothing_of_each_other_but_that_a_prefix_lives_elsewhere() -> None:
    store = MemoryStore()
    serve(store, "a")
    view = store.visit(ANOTHER, steps("a"), None, 1001.0)
    assert (view.seen, view.entries, view.other_scope) == ({}, {}, True)


def test_an_entry_is_unreadable_until_its_response_begins() -> None:
    store, sent = MemoryStore(), written("a")
    store.visit(SCOPE, steps("a"), None, 0.0)
    store.sent(SCOPE, sent, 0.0)
    assert {entry.readable for entry in store.peek(SCOPE, steps("a"), 1.0).entries.values()} == {False}
    store.began(SCOPE, sent)
    assert {entry.readable for entry in store.peek(SCOPE, steps("a"), 1.0).entries.values()} == {True}


def test_what_failed_wrote_nothing() -> None:
    store, sent = MemoryStore(), written("a")
    store.visit(SCOPE, steps("a"), None, 0.0)
    store.sent(SCOPE, sent, 0.0)
    store.failed(SCOPE, sent)
    assert store.peek(SCOPE, steps("a"), 1.0).entries == {}


@pytest.mark.parametrize(("age", "lives"), [(0.0, True), (299.0, True), (300.0, False), (-1.0, True), (-600.0, False)])
def test_an_entry_lives_five_minutes_and_a_clock_set_back_does_not_prolong_it(age: float, lives: bool) -> None:
    store = MemoryStore()
    serve(store, "a", now=1000.0)
    assert bool(store.peek(SCOPE, steps("a"), 1000.0 + age).entries) is lives


def test_a_refusal_is_remembered_for_its_scope() -> None:
    store = MemoryStore()
    store.refuse(SCOPE, Outcome("refused", frozenset({"tools"}), 0.0))
    assert store.peek(SCOPE, (), 0.0).left_out == ("tools",)
    assert store.peek(ANOTHER, (), 0.0).left_out == ()


def test_each_store_has_a_key_of_its_own_unless_given_one() -> None:
    assert len({MemoryStore().key for _ in range(3)}) == 3
    assert MemoryStore(key=b"k" * 32).key == b"k" * 32


def test_what_is_used_is_kept_while_what_never_returns_is_forgotten() -> None:
    store = MemoryStore(boundaries_kept=2000)
    for number in range(5000):
        serve(store, number, now=1000.0 + number / 100)
    view = store.peek(SCOPE, steps(0, 4999), 1051.0)
    # Visits count half after a day: one n hundredths of a second before the last counts 1 - n × ln 2 / 8,640,000, which
    # adds up over n < 5000 to 5000 - 12,497,500 × 8.0225e-8 = 4998.997.
    assert view.seen[digest("system")].visits == 4999
    assert digest(4999) in view.seen
    assert digest(0) not in view.seen
    assert digest("system") in view.entries


@pytest.mark.parametrize("scopes", [1, 4])
def test_memory_is_bounded_whatever_comes(scopes: int) -> None:
    """At a sixtieth of the default size; `benchmarks/memory.py` runs it in full."""
    store = MemoryStore(boundaries_kept=2000)
    tracemalloc.start()
    try:
        for number in range(1500):
            serve(
                store,
                *((number, place) for place in range(3)),
                scope=Scope(f"scope{number % scopes}", "model"),
                now=number / 100,
            )
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert used < 64 * 2**20 / 60


def test_lookups_do_not_slow_as_the_store_fills() -> None:
    store = MemoryStore(boundaries_kept=4000)

    def seconds(start: int) -> float:
        began = time.process_time()
        for number in range(start, start + 2000):
            serve(store, number, now=1000.0 + number / 1000)
        return time.process_time() - began

    early = min(seconds(0), seconds(2000))
    for start in range(4000, 12_000, 2000):
        seconds(start)
    assert min(seconds(12_000), seconds(14_000)) < 3 * early


def test_threads_may_share_a_store() -> None:
    store = MemoryStore()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: serve(store, number), [*range(300)] * 4))
    assert store.peek(SCOPE, steps(), 1001.0).seen[digest("system")].visits == 1200
