"""What a store keeps when there is not room for all: shared out over scopes, and never what guards money."""

from __future__ import annotations

import gc
import json
import tracemalloc
from pathlib import Path
from typing import get_args

import pytest

from cachepoint import MemoryStore, Usage
from cachepoint.core.prompt.tokens import Band
from cachepoint.core.traffic.entries import Sent, SentPoint, Shape
from cachepoint.core.traffic.evidence import AT_RISK
from cachepoint.core.traffic.kinds import Role
from cachepoint.core.traffic.pool import Scope
from cachepoint.core.traffic.refusals import Feature, Outcome
from cachepoint.core.traffic.view import Step
from cachepoint.core.traffic.waste import Risk, Segment, Waste
from cachepoint.errors import ConfigurationError
from cachepoint.store import _memory
from cachepoint.store._memory import _level

NOW = 1_000_000.0
ROLES: tuple[Role, ...] = get_args(Role)


def of(name: str) -> Scope:
    return Scope(name, "model")


def steps(*names: object) -> list[Step]:
    return [Step(repr(name).encode().ljust(16)[:16], "tail_single", 1_000.0) for name in names]


def lost(tokens: int = 1_000) -> Sent:
    """A write of which no answer ever comes: at 1.25, a quarter of it is wasted."""
    risk = Risk((Segment(b"p" * 16, "tail_single", tokens, 0.25),), Band(tokens, tokens, tokens))
    return Sent((SentPoint(b"p" * 16, "5m", tokens),), risk=risk, estimated=tokens)


def lose(store: MemoryStore, name: str, tokens: int = 1_000, now: float = NOW) -> None:
    store.sent(of(name), lost(tokens), now)
    store.settled(of(name), lost(tokens), None, now)


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
    store.visit(of("small"), steps(*range(50)), None, NOW)
    for number in range(150):
        store.visit(of("busy"), steps(*((number, place) for place in range(10))), None, NOW + number)
    assert len(store.peek(of("small"), steps(*range(50)), NOW).seen) == 50
    kept = store.peek(of("busy"), steps(*((number, place) for number in range(150) for place in range(10))), NOW).seen
    assert 900 < len(kept) <= 950
    assert store.peek(of("busy"), steps((149, 0)), NOW).seen
    assert not store.peek(of("busy"), steps((0, 0)), NOW).seen


def test_a_scope_that_was_idle_for_an_hour_gives_up_first_what_it_remembers() -> None:
    store = MemoryStore(boundaries_kept=1_000)
    store.visit(of("idle"), steps(*range(400)), None, NOW)
    lose(store, "idle")
    before = store.peek(of("idle"), (), NOW).waste
    for number in range(100):
        store.visit(of("busy"), steps(*((number, place) for place in range(10))), None, NOW + 3_601 + number)
    assert not store.peek(of("idle"), steps(*range(400)), NOW).seen
    assert store.peek(of("idle"), (), NOW).waste == before == Waste(250, baseline=1_000, largest=1_000)
    assert len(store.peek(of("busy"), steps(*((n, p) for n in range(100) for p in range(10))), NOW).seen) == 1_000


@pytest.mark.parametrize(
    "scopes", [1, *(pytest.param(number, marks=pytest.mark.long("seven seconds")) for number in (20, 200))]
)
def test_memory_is_bounded_whatever_the_number_of_scopes(scopes: int) -> None:
    """At a fiftieth of the default size; `benchmarks/memory.py` runs it in full."""
    store = MemoryStore(boundaries_kept=2_000)
    tracemalloc.start()
    try:
        for number in range(1_000):
            scope, here = f"scope{number % scopes}", steps(*((number, place) for place in range(6)))
            store.visit(of(scope), here, None, NOW + number)
            blocks = tuple(bytes([block % 256]) * 16 for block in range(1_000))
            sent = Sent(
                (SentPoint(here[0].digest, "1h", 1e3),), shape=Shape(blocks, (9,) * 1_000, (0, 0), (), 0, "1h", 0)
            )
            store.sent(of(scope), sent, NOW + number)
            store.settled(of(scope), sent, Usage(cache_write_1h=1_000), NOW + number)
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
        store.visit(of(f"scope{number % 9}"), here, None, NOW + number * 60)
        lose(store, f"scope{number % 5}", now=NOW + number * 60)
        assert store._kept == store._counted()
        assert all(held <= most for held, most in zip(store._kept, store._most, strict=True))


def test_base_models_share_the_room_for_curves() -> None:
    store = MemoryStore(boundaries_kept=1_000)  # a hundred curves
    here = [Step(bytes([place]) * 16, role, 32.0 * 4**place) for role in ROLES for place in range(8)]
    for number in range(40):
        store.visit(Scope(f"scope{number}", f"model{number % 4}"), here, None, NOW + number)
    assert len(store._pools) == 4
    assert all(10 < len(pool.habits.curves) <= 25 for pool in store._pools.values())
    store.visit(Scope("scope", "fifth"), here, None, NOW)
    assert all(10 < len(pool.habits.curves) <= 20 for pool in store._pools.values())


def test_models_that_there_is_no_room_to_tell_apart_are_taken_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_memory, "POOLS_KEPT", 2)
    store = MemoryStore()
    for number in range(6):
        store.visit(Scope(f"scope{number}", f"model{number}"), steps("x"), None, NOW + number)
    assert len(store._pools) == 3
    counted = [sum(map(len, (curve.waits for curve in pool.habits.curves.values()))) for pool in store._pools.values()]
    assert counted == [1, 1, 4]


def test_a_scope_that_is_forgotten_counts_as_far_as_its_waits_have_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_memory, "SCOPES_KEPT", 1)
    store = MemoryStore()
    store.visit(of("a"), steps("x"), None, NOW)
    store.visit(of("b"), steps("y"), None, NOW + 60)
    (row,) = store.evidence(of("c"), NOW + 60).counted(NOW + 60).values()
    # The wait of a was given up after nothing, the newest thing its model knew of then; that of b goes on.
    assert row[AT_RISK : AT_RISK + 2] == pytest.approx((2 * 0.5, 0), abs=1e-3)


def test_what_caching_cost_is_kept_by_base_model_and_outlives_every_scope(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_memory, "SCOPES_KEPT", 2)
    store = MemoryStore()
    for number in range(9):
        lose(store, f"scope{number}", 1_000 * (number + 1))
    waste = store.peek(of("new"), (), NOW).waste
    assert (waste.general, waste.baseline, waste.largest) == (11_250, 45_000, 9_000)
    assert store.peek(Scope("another", "another model"), (), NOW).waste == Waste()


def test_a_call_under_way_in_a_scope_that_is_forgotten_is_settled_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_memory, "SCOPES_KEPT", 1)
    store = MemoryStore()
    store.sent(of("a"), lost(), NOW)
    store.peek(of("b"), (), NOW)
    assert store.peek(of("b"), (), NOW).waste.committed == {"tail_single": 250}
    store.failed(of("a"), lost())
    assert store.peek(of("b"), (), NOW).waste == Waste()


def test_what_is_not_covered_is_answered_with_the_accounts_as_they_stand() -> None:
    store = MemoryStore()
    assert store.sent(of("a"), lost(), NOW) is None
    answer = store.sent(of("b"), lost(), NOW)
    assert answer == store.peek(of("b"), (), NOW).waste
    assert answer is not None
    assert answer.committed == {"tail_single": 250}


def test_refusals_outlive_their_scope_and_of_too_many_hold_for_every_new_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_memory, "SCOPES_KEPT", 1)
    monkeypatch.setattr(_memory, "REFUSALS_KEPT", 2)
    store = MemoryStore()
    sections: dict[str, Feature] = {"a": "messages", "b": "system", "c": "tools"}
    for name, section in sections.items():
        store.refuse(of(name), Outcome("refused", frozenset({section}), NOW))
    store.peek(of("fine"), (), NOW)  # a, b and c are not kept any more, and of c and b the refusals are
    assert store.peek(of("b"), (), NOW).left_out == ("system",)
    assert store.peek(of("c"), (), NOW).left_out == ("tools",)
    for name in ("new", "a"):
        assert store.peek(of(name), (), NOW).left_out == ("messages",)


def test_a_profile_carries_no_refusal(tmp_path: Path) -> None:
    """The service may take it on the day the profile is loaded."""
    store = MemoryStore()
    store.refuse(of("a"), Outcome("refused", frozenset({"tools"}), NOW))
    store.save(tmp_path / "profile.json")
    assert "refused" not in (tmp_path / "profile.json").read_text()
    assert MemoryStore.load(tmp_path / "profile.json").peek(of("a"), (), NOW).left_out == ()


def test_an_entry_of_another_scope_is_found_while_it_lives() -> None:
    store, system = MemoryStore(), [Step(b"s" * 16, "system_end", 1_000.0)]
    sent = Sent((SentPoint(b"s" * 16, "5m", 1_000.0),))
    store.visit(of("a"), system, None, NOW)
    store.sent(of("a"), sent, NOW)
    store.began(of("a"), sent)
    assert store.visit(of("b"), system, None, NOW + 1).other_scope
    assert not store.visit(of("a"), system, None, NOW + 2).other_scope
    assert not store.visit(of("b"), [Step(b"s" * 16, "inner", 1_000.0)], None, NOW + 3).other_scope
    assert not store.visit(of("b"), system, None, NOW + 300).other_scope


def test_a_profile_of_an_earlier_version_says_how_to_get_a_new_one(tmp_path: Path) -> None:
    MemoryStore().save(tmp_path / "profile.json")
    content = json.loads((tmp_path / "profile.json").read_text())
    (tmp_path / "profile.json").write_text(json.dumps({**content, "version": 1}))
    with pytest.raises(ConfigurationError, match=r"a profile of version 1; this cachepoint reads 2 and 3"):
        MemoryStore.load(tmp_path / "profile.json")


ROW = [2.0, *[0.0] * 6, 3.0, *[0.0] * 12]


def old_row(samples: float, digest: str, times: float, entry: str) -> dict[str, object]:
    """What a profile of version 2 says of a scope."""
    return {
        "calibration": [1.5, 0.1, samples],
        "learned_minimum": int(samples),
        "refused": ["tools"],
        "splits_trusted": True,
        "curves": [[["system_end", True, 0], ROW]],
        "seen": {digest: [times, ["system_end", True, 0], ["system_end", False, 3], []]},
        "entries": {entry: ["1h", NOW, []]},
    }


def test_a_profile_of_version_2_is_read_and_pooled_by_base_model(tmp_path: Path) -> None:
    one, two, three = (
        f"1|host|us-east-1|{model}|converse" for model in ("us.anthropic.claude-x", "eu.anthropic.claude-x", "nova")
    )
    rows = {one: old_row(3, "aa" * 16, 4, "11" * 16), two: old_row(9, "aa" * 16, 7, "22" * 16)}
    content = {"version": 2, "key": "00" * 32, "scopes": {**rows, three: old_row(1, "bb" * 16, 2, "33" * 16)}}
    (tmp_path / "profile.json").write_text(json.dumps(content))
    for _ in range(2):  # as it was read, and as it is written since
        store = MemoryStore.load(tmp_path / "profile.json")
        new = Scope("2|host|eu-west-1|anthropic.claude-x|converse", "anthropic.claude-x")
        view = store.peek(new, [Step(b"\xaa" * 16, "system_end", 1_000.0), Step(b"\x11" * 16, "cut", 1_001.0)], NOW)
        assert view.seen[b"\xaa" * 16].times == 7
        assert (view.calibration.samples, view.entries, view.left_out) == (9, {}, ())
        assert view.learned_minimum == 0  # a wrong one would keep shorter prompts uncached for good
        assert store.evidence(new, NOW).counted(NOW) == {("system_end", True, 0): pytest.approx([2 * n for n in ROW])}
        old = store.peek(Scope(one, "anthropic.claude-x"), [Step(b"\xaa" * 16, "cut")], NOW)
        # What is refused is found out anew.
        assert (old.left_out, store._scopes[one].holds([b"\x11" * 16], NOW)) == ((), True)
        store.save(tmp_path / "profile.json")
    assert json.loads((tmp_path / "profile.json").read_text())["version"] == 3


def test_a_profile_counts_towards_the_room(tmp_path: Path) -> None:
    store = MemoryStore()
    for _ in range(2):
        store.visit(of("a"), steps(*range(50)), None, NOW)
    store.save(tmp_path / "profile.json")
    loaded = MemoryStore.load(tmp_path / "profile.json", boundaries_kept=40)
    loaded.visit(of("b"), steps("x"), None, NOW)
    assert len(loaded.peek(of("a"), steps(*range(50)), NOW).seen) < 40
