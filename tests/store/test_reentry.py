"""A store entered in the middle of its own call, by an abandoned stream that settles itself when it is collected."""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import cachepoint
from cachepoint import MemoryStore, Usage
from cachepoint.core.prompt.tokens import Band
from cachepoint.core.traffic.entries import Sent, SentPoint
from cachepoint.core.traffic.pool import Scope
from cachepoint.core.traffic.refusals import Outcome
from cachepoint.core.traffic.view import Step
from cachepoint.core.traffic.waste import Risk, Segment, Waste
from cachepoint.store import _memory

NOW = 1_000_000.0
PACKAGE = str(Path(cachepoint.__file__).parent)
RISK = Risk((Segment(b"p" * 16, "tail_single", 1_000.0, 0.25),), Band(1_000.0, 1_000.0, 1_000.0))
SENT = Sent((SentPoint(b"p" * 16, "5m", 1_000.0),), risk=RISK, estimated=1_000)


def of(name: str) -> Scope:
    """A scope of a base model of its own."""
    return Scope(name, name)


def steps(*names: object) -> list[Step]:
    return [Step(repr(name).encode().ljust(16)[:16], "tail_single", 1_000.0) for name in names]


def filled() -> MemoryStore:
    """So full that the next request makes room, with a call under way in each of two scopes."""
    store = MemoryStore(boundaries_kept=40)
    for scope in ("abandoned", "idle"):
        store.visit(of(scope), steps(*((scope, place) for place in range(9))), None, NOW)
        store.sent(of(scope), SENT, NOW)
    for number in range(4):
        store.visit(of("busy"), steps(*((number, place) for place in range(5))), None, NOW + number)
    return store


def interrupted(call: Callable[[], object], at: int, by: Callable[[], object]) -> bool:
    """Do `by` in the middle of a call, before the `at`-th line of this package that it runs; False if it runs fewer."""
    left = at

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal left
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        if event == "line":
            left -= 1
            if left == 0:
                by()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return left <= 0


def abandon(store: MemoryStore) -> None:
    """A stream ends without its answer, and one that was never begun."""
    store.settled(of("abandoned"), SENT, None, NOW)
    store.failed(of("idle"), SENT)
    store.refuse(of("new"), Outcome("refused", frozenset({"tools"}), NOW))


@pytest.mark.parametrize(
    "by", [pytest.param("visit", marks=pytest.mark.long("the longest of the three, nine seconds")), "sent", "save"]
)
def test_a_stream_may_settle_itself_at_any_line_of_another_call(
    by: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_memory, "SCOPES_KEPT", 3)
    lines = 0
    while True:
        lines += 1
        store = filled()
        calls: dict[str, Callable[[], object]] = {
            "visit": lambda store=store: store.visit(of("another"), steps(*range(30)), None, NOW + 9),  # type: ignore[misc]
            "sent": lambda store=store: store.sent(of("busy"), SENT, NOW + 9),  # type: ignore[misc]
            "save": lambda store=store: store.save(tmp_path / "profile"),  # type: ignore[misc]
        }
        came = interrupted(calls[by], lines, lambda store=store: abandon(store))  # type: ignore[misc]
        if not came:
            break
        assert store._kept == store._counted()
        # Nothing is lost: a quarter of 1,000 tokens is wasted, and no call is under way any more.
        assert store.peek(of("abandoned"), (), NOW + 9).waste == Waste(250, baseline=1_000, largest=1_000)
        assert store.peek(of("idle"), (), NOW + 9).waste == Waste()
        assert store.peek(of("new"), (), NOW + 9).left_out == ("tools",)
        assert store._kept == store._counted()
    assert lines > 20


def test_what_waits_is_done_in_the_order_in_which_it_came() -> None:
    store = MemoryStore()

    def lessons() -> None:
        store.settled(of("scope"), SENT, Usage(cache_write_5m=1_000), NOW)
        store.settled(of("scope"), SENT, Usage(input=1_000), NOW)

    store.sent(of("scope"), SENT, NOW)
    interrupted(lambda: store.visit(of("scope"), steps("x"), None, NOW), 5, lessons)
    # The second answer, which cached nothing, ends the entry of the first.
    assert store.peek(of("scope"), (), NOW).waste == Waste(250, baseline=2_000, largest=1_000)
    assert not store._scopes["scope"].entries


def test_what_is_to_be_sent_in_the_middle_of_another_call_is_refused() -> None:
    """Whether it is covered cannot be told there; the call goes out as the user wrote it."""
    store = MemoryStore()

    def send() -> None:
        with pytest.raises(RuntimeError, match="in the middle of another"):
            store.sent(of("scope"), SENT, NOW)

    interrupted(lambda: store.visit(of("scope"), steps("x"), None, NOW), 12, send)
    assert store.peek(of("scope"), (), NOW).waste == Waste()


def test_a_view_in_the_middle_of_another_call_is_refused_and_the_call_goes_on() -> None:
    store, refused = MemoryStore(), []

    def ask() -> None:
        with pytest.raises(RuntimeError, match="in the middle of another"):
            store.visit(of("scope"), steps("y"), None, NOW)
        refused.append(True)

    interrupted(lambda: store.visit(of("scope"), steps("x"), None, NOW), 12, ask)
    assert refused
    assert len(store.peek(of("scope"), steps("x"), NOW).seen) == 1


class SoftTimeLimitError(Exception):
    """What a signal handler raises, as Ctrl-C does and a job queue that gives a task up."""


def raised_at(call: Callable[[], object], at: int) -> bool:
    """Raise in the middle of a call, where a handler may: as the `at`-th function of this package begins or ends."""
    left = at

    def profile(frame: FrameType, event: str, _: Any) -> None:
        nonlocal left
        if event in ("call", "return", "c_return") and frame.f_code.co_filename.startswith(PACKAGE):
            left -= 1
            if left == 0:
                raise SoftTimeLimitError

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        call()
    except SoftTimeLimitError:
        return True
    finally:
        sys.setprofile(before)
    return False


def test_a_signal_handler_may_raise_anywhere_and_the_store_stays_open_to_others() -> None:
    places, came = 0, True
    with ThreadPoolExecutor(1) as other:
        while came:
            places += 1
            store = filled()
            came = raised_at(partial(store.visit, of("another"), steps(*range(5)), None, NOW + 9), places)
            other.submit(store.peek, of("busy"), (), NOW + 9).result(timeout=5)
    assert places > 20
