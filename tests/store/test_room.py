"""What a store keeps when there is not room for all: shared out over scopes, and never what guards money."""

from __future__ import annotations

import gc
import json
import tracemalloc
from pathlib import Path
from unittest.mock import Mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cachepoint import MemoryStore, Usage
from cachepoint.core.provider.prices import Rates
from cachepoint.core.traffic.entries import Sent, SentPoint, Shape
from cachepoint.core.traffic.view import Step
from cachepoint.core.traffic.waste import Waste
from cachepoint.errors import ConfigurationError
from cachepoint.store import _memory
from cachepoint.store._memory import _level

NOW = 1_000_000.0


def steps(*names: object) -> list[Step]:
    return [Step(repr(name).encode().ljust(16)[:16], "tail_single", 1_000.0) for name in names]


def lose(store: MemoryStore, scope: str, tokens: int = 1_000, now: float = NOW) -> None:
    """A write of which no answer ever came: at 1.25, a quarter of it is wasted."""
    sent = Sent((SentPoint(b"p" * 16, "5m", tokens),), written=tokens, estimated=tokens)
    store.sent(scope, sent, now)
    store.settled(scope, sent, None, now)


def waste(store: MemoryStore, scope: str) -> Waste:
    return store.peek(scope, (), NOW).waste


@pytest.mark.parametrize(
    ("parts", "most", "level"),
    [
        ([5, 3, 9], 17, 9),  # there is room for all
        ([10, 10, 10], 30, 10),
        ([100, 1, 1], 64, 60),  # of 64, 2 are kept free: 62, less 1 and 1
        ([100, 100, 2], 64, 30),
        ([40, 40, 40, 40], 64, 15),
        ([0, 0], 0, 0),
    ],
)
def test_parts_are_cut_to_the_highest_level_at_which_all_have_room(parts: list[int], most: int, level: int) -> None:
    assert _level(parts, most) == level


def test_a_busy_scope_makes_room_and_a_small_one_keeps_what_it_has() -> None:
    store = MemoryStore(boundaries_kept=1_000)
    store.visit("small", steps(*range(50)), None, NOW)
    for number in range(150):
        store.visit("busy", steps(*((number, place) for place in range(10))), None, NOW + number)
    assert len(store.peek("small", steps(*range(50)), NOW).seen) == 50
    kept = store.peek("busy", steps(*((number, place) for number in range(150) for place in range(10))), NOW).seen
    assert 900 < len(kept) <= 950
    assert store.peek("busy", steps((149, 0)), NOW).seen
    assert not store.peek("busy", steps((0, 0)), NOW).seen


def test_a_scope_that_was_idle_for_an_hour_gives_up_first_what_it_remembers() -> None:
    store = MemoryStore(boundaries_kept=1_000)
    store.visit("idle", steps(*range(400)), None, NOW)
    lose(store, "idle")
    before = waste(store, "idle")
    for number in range(100):
        store.visit("busy", steps(*((number, place) for place in range(10))), None, NOW + 3_601 + number)
    assert not store.peek("idle", steps(*range(400)), NOW).seen
    assert waste(store, "idle") == before
    assert len(store.peek("busy", steps(*((n, p) for n in range(100) for p in range(10))), NOW).seen) == 1_000


@pytest.mark.parametrize("scopes", [1, 20, 200])
def test_memory_is_bounded_whatever_the_number_of_scopes(scopes: int) -> None:
    """At a fiftieth of the default size; `benchmarks/memory.py` runs it in full."""
    store = MemoryStore(boundaries_kept=2_000)
    tracemalloc.start()
    try:
        for number in range(1_000):
            scope, here = f"scope{number % scopes}", steps(*((number, place) for place in range(6)))
            store.visit(scope, here, None, NOW + number)
            blocks = tuple(bytes([block % 256]) * 16 for block in range(1_000))
            sent = Sent(
                (SentPoint(here[0].digest, "1h", 1e3),), shape=Shape(blocks, (9,) * 1_000, (0, 0), (), 0, "1h", 0)
            )
            store.sent(scope, sent, NOW + number)
            store.settled(scope, sent, Usage(cache_write_1h=1_000), NOW + number)
        gc.collect()  # which empties the interpreter's lists of freed tuples, too
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # 64 MiB over fifty, and two kilobytes for every scope
    assert used < 64 * 2**20 / 50 + 2_048 * scopes


def test_what_is_counted_is_what_is_kept() -> None:
    store = MemoryStore(boundaries_kept=500)
    for number in range(400):
        here = steps(*((number, place) for place in range(number % 7)))
        store.visit(f"scope{number % 9}", here, None, NOW + number * 60)
        lose(store, f"scope{number % 5}", now=NOW + number * 60)
        assert store._kept == store._counted()
        assert all(held <= most for held, most in zip(store._kept, store._room_at, strict=True))
    assert store._room_at[:3] == store._most[:3]


def test_curves_that_cannot_be_lumped_together_do_not_make_every_request_make_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = MemoryStore(boundaries_kept=1_000)
    make_room = Mock(side_effect=store._make_room)
    monkeypatch.setattr(store, "_make_room", make_room)
    for number in range(400):
        store.visit(f"scope{number % 200}", steps(number), None, NOW + number)
    assert len(store._scopes) == store._kept.curves == 200  # twice as many as there is room for
    assert make_room.call_count < 45


def test_what_guards_money_outlives_its_scope(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_memory, "SCOPES_KEPT", 3)
    store = MemoryStore()
    store.visit("a", steps("x"), None, NOW)
    lose(store, "a")
    store.refuse("a", "tools")
    for number in range(5):
        store.visit(f"other{number}", steps("x"), None, NOW)
    assert len(store._scopes) == 3
    view = store.peek("a", steps("x"), NOW)
    assert view.seen == {}
    assert (view.waste, view.refused) == (Waste(250, 0, 1_000, 1_000), ("tools",))
    assert waste(store, "new") == Waste()


def test_guards_of_scopes_no_longer_told_apart_hold_for_every_new_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_memory, "SCOPES_KEPT", 2)
    monkeypatch.setattr(_memory, "GUARDS_KEPT", 1)
    store = MemoryStore()
    for name in ("a", "b", "c", "d", "e"):
        lose(store, name, 1_000 if name == "a" else 2_000)
        store.refuse(name, f"section {name}")
    # d and e are kept, c's guards are; a's were lumped together before e began, and b's after
    assert set(store._scopes) == {"d", "e"}
    assert (waste(store, "d"), store.peek("d", (), NOW).refused) == (Waste(500, 0, 2_000, 2_000), ("section d",))
    assert waste(store, "e") == Waste(500 + 750, 0, 2_000, 2_000)
    new = store.peek("new", (), NOW)  # which makes c's one of them too
    assert (new.waste, new.refused) == (Waste(1_250), ("section a", "section b", "section c"))
    # what they wasted is counted once, whichever scopes come and go
    for number in range(20):
        store.peek(f"new{number}", (), NOW)
    own = [*(guards.waste for guards in store._guards.values()), *(found.waste for found in store._scopes.values())]
    assert store._lumped.waste.net + sum(each.net for each in own) == 250 + 4 * 500


def test_a_scope_that_others_bind_stays_bound_when_it_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_memory, "SCOPES_KEPT", 1)
    monkeypatch.setattr(_memory, "GUARDS_KEPT", 1)
    store = MemoryStore()
    for name in ("a", "b", "c", "again", "b"):  # a's are lumped together; "again" goes and has a row of its own
        lose(store, name)
    assert "again" in store._guards
    # its own, and those of a, b and c, since it may be one of them
    assert waste(store, "again").net == 250 + 250 + 250 + 250
    store = MemoryStore()
    lose(store, "a")
    for name in ("b", "c", "d"):
        store.peek(name, (), NOW)
    assert waste(store, "d").net == 250  # a's are among those that are lumped, and d may be a


def test_many_scopes_that_lost_nothing_allow_a_new_one_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_memory, "SCOPES_KEPT", 4)
    monkeypatch.setattr(_memory, "GUARDS_KEPT", 4)
    store, sent = MemoryStore(), Sent(estimated=1_000_000)
    for number in range(40):
        store.sent(f"big{number}", sent, NOW)
        store.settled(f"big{number}", sent, Usage(input=1_000_000), NOW)
    for name in ("new", "newer"):
        # .015 × 10,000 + 2 × 1.25 × 10,000, as in a store of its own
        assert waste(store, name).allowance(10_000, Rates()) == 25_150


def test_rotating_scopes_gives_no_more_than_two_writes_to_each_that_is_told_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A write of 1,000 tokens may lose 1,150 with a 1-hour TTL, beyond 1.5%: of 2,515 that is two."""
    monkeypatch.setattr(_memory, "SCOPES_KEPT", 3)
    monkeypatch.setattr(_memory, "GUARDS_KEPT", 4)
    store, lost = MemoryStore(), 0.0
    sent = Sent((SentPoint(b"p" * 16, "1h", 1_000.0),), written=1_000.0, estimated=1_000.0)
    for number in range(400):
        name = f"scope{number % 40}"
        if waste(store, name).allowance(1_000, Rates()) >= sent.surcharge:
            store.sent(name, sent, NOW)
            store.settled(name, sent, Usage(cache_write_1h=1_000), NOW)
            lost += sent.surcharge
    # seven are told apart while nothing is lumped; from then on each loss counts for all that come
    assert lost <= (3 + 4 + 1) * (2 * 1.25 + 0.015 * 3) * 1_000


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c", "d", "e"]),
        st.sampled_from(["sent", "failed", "lost", "written", "read"]),
        st.integers(1, 20).map(lambda thousands: thousands * 1_000),
    ),
    max_size=25,
)


def happens(store: MemoryStore, scope: str, what: str, tokens: int) -> None:
    sent = Sent((SentPoint(b"p" * 16, "5m", tokens),), written=tokens, estimated=tokens)
    if what == "sent":
        store.sent(scope, sent, NOW)
    elif what == "failed":
        store.failed(scope, sent)
    else:
        usage = {"lost": None, "written": Usage(cache_write_5m=tokens), "read": Usage(cache_read=tokens)}[what]
        store.settled(scope, sent, usage, NOW)


@settings(deadline=None, max_examples=60)
@given(OPERATIONS, st.integers(1, 3), st.integers(0, 2))
def test_no_eviction_allows_any_scope_more_than_it_has_alone(
    operations: list[tuple[str, str, int]], scopes_kept: int, guards_kept: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_memory, "SCOPES_KEPT", scopes_kept)
        patch.setattr(_memory, "GUARDS_KEPT", guards_kept)
        store, alone = MemoryStore(), {name: MemoryStore() for name in "abcde"}
        for scope, what, tokens in operations:
            for each in (store, alone[scope]):
                happens(each, scope, what, tokens)
            for name in "abcde":
                for prompt in (1_000, 50_000):
                    found, own = (waste(each, name).allowance(prompt, Rates()) for each in (store, alone[name]))
                    assert found <= own + 1e-6


def test_an_entry_of_another_scope_is_found_while_it_lives() -> None:
    store, system = MemoryStore(), [Step(b"s" * 16, "system_end", 1_000.0)]
    sent = Sent((SentPoint(b"s" * 16, "5m", 1_000.0),))
    store.visit("a", system, None, NOW)
    store.sent("a", sent, NOW)
    store.began("a", sent)
    assert store.visit("b", system, None, NOW + 1).other_scope
    assert not store.visit("a", system, None, NOW + 2).other_scope
    assert not store.visit("b", [Step(b"s" * 16, "inner", 1_000.0)], None, NOW + 3).other_scope
    assert not store.visit("b", system, None, NOW + 300).other_scope


def test_a_profile_of_an_earlier_version_says_how_to_get_a_new_one(tmp_path: Path) -> None:
    MemoryStore().save(tmp_path / "profile.json")
    content = json.loads((tmp_path / "profile.json").read_text())
    (tmp_path / "profile.json").write_text(json.dumps({**content, "version": 1}))
    with pytest.raises(ConfigurationError, match=r"profile\.json: a profile of version 1; this cachepoint reads 2"):
        MemoryStore.load(tmp_path / "profile.json")


def test_a_profile_counts_towards_the_room(tmp_path: Path) -> None:
    store = MemoryStore()
    for _ in range(2):
        store.visit("a", steps(*range(50)), None, NOW)
    store.save(tmp_path / "profile.json")
    loaded = MemoryStore.load(tmp_path / "profile.json", boundaries_kept=40)
    loaded.visit("b", steps("x"), None, NOW)
    assert len(loaded.peek("a", steps(*range(50)), NOW).seen) < 40
