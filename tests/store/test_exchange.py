"""Stores that exchange what they learned: each is a keeper of deltas, and the sum is the same wherever it is kept."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest

from cachepoint import MemoryStore
from cachepoint.core.traffic.evidence import EPOCH, EVENTS, N_COUNTERS, NO_COUNTS, Delta, epoch_of
from cachepoint.core.traffic.kinds import AGAIN_KIND, FIRST_KINDS
from cachepoint.core.traffic.pool import Scope
from cachepoint.core.traffic.view import Step
from cachepoint.errors import ConfigurationError

NOW = 1_760_000_000.0
SCOPE, ANOTHER = Scope("scope", "model"), Scope("another", "another model")
SYSTEM = Step(b"s" * 16, "system_end", 2_000.0)


def busy(seed: int, seconds: float) -> MemoryStore:
    """A process that had an hour of traffic, a request every so many seconds, until now."""
    store, chance, at = MemoryStore(), random.Random(seed), NOW - 3_600
    while at < NOW:
        tail = Step(bytes([chance.randrange(40)]) * 16, "tail_turns", 2_000.0 + 100 * chance.randrange(9))
        store.visit(SCOPE, [SYSTEM, tail], None, at)
        at += chance.uniform(0, 2 * seconds)
    return store


def test_two_stores_that_exchange_their_evidence_agree() -> None:
    one, other = busy(1, 20.0), busy(2, 300.0)
    ours, theirs = one.evidence(SCOPE, NOW), other.evidence(SCOPE, NOW)
    assert ours != theirs
    one.learn(SCOPE, theirs)
    other.learn(SCOPE, ours)
    told = MemoryStore()
    told.learn(SCOPE, ours.merged(theirs))
    found = [store.evidence(SCOPE, NOW).counted(NOW) for store in (one, other, told)]
    assert found[0].keys() == found[1].keys() == found[2].keys()
    for kind, row in found[0].items():
        assert row == pytest.approx(found[1][kind], rel=1e-9, abs=1e-12)
        assert row == pytest.approx(found[2][kind], rel=1e-9, abs=1e-12)
    # and so they expect the same of a request that none of them saw
    new = [Step(b"n" * 16, "system_end", 2_000.0), Step(b"m" * 16, "tail_turns", 2_300.0)]
    views = [store.peek(SCOPE, new, NOW) for store in (one, other, told)]
    for step in new:
        expected = views[0].outlook(step)
        assert views[1].outlook(step) == pytest.approx(expected, rel=1e-9)
        assert views[2].outlook(step) == pytest.approx(expected, rel=1e-9)
        assert expected != MemoryStore().peek(SCOPE, new, NOW).outlook(step)


def test_evidence_is_of_its_base_model_and_tells_of_no_boundary() -> None:
    store = busy(1, 60.0)
    assert store.evidence(ANOTHER, NOW).rows == {}
    assert all(len(row) == N_COUNTERS and min(row) >= 0 for row in store.evidence(SCOPE, NOW).rows.values())
    other = MemoryStore()
    other.learn(ANOTHER, store.evidence(SCOPE, NOW))
    assert other.peek(SCOPE, [SYSTEM], NOW).seen == {}
    assert other.peek(ANOTHER, [SYSTEM], NOW).seen == {}
    assert other.evidence(SCOPE, NOW).rows == {}


def test_what_is_learned_counts_towards_the_room() -> None:
    store = MemoryStore(boundaries_kept=50)  # five curves
    store.learn(SCOPE, Delta.at(NOW, dict.fromkeys(FIRST_KINDS["inner"], (1.0,) * N_COUNTERS)))
    assert store._kept == store._counted()
    rows = store.evidence(SCOPE, NOW).counted(NOW)
    assert rows == {("inner", False, -1): pytest.approx((11.0,) * N_COUNTERS)}


@pytest.mark.parametrize("row", [(1.0,), (*NO_COUNTS, 0.0), (-1e-9, *NO_COUNTS[1:]), (*NO_COUNTS[1:], math.nan)])
def test_what_are_no_counters_is_not_learned(row: tuple[float, ...]) -> None:
    store = MemoryStore()
    good = Delta.at(NOW, {AGAIN_KIND["cut"]: NO_COUNTS})
    bad = replace(good, rows={**good.rows, AGAIN_KIND["system_end"]: row})
    with pytest.raises(ConfigurationError, match=rf"'system_end', True, 0.*{N_COUNTERS} numbers, none below 0"):
        store.learn(SCOPE, bad)
    assert store.evidence(SCOPE, NOW).rows == {}


@pytest.mark.parametrize("ahead", [1, 20, 10_000])
def test_a_keeper_whose_clock_is_far_ahead_stops_no_other_from_learning(ahead: int) -> None:
    """Twenty epochs are 1,280 half-lives: what an event of today counts in their numbers is nothing."""
    store, kind = MemoryStore(), AGAIN_KIND["system_end"]
    store.learn(SCOPE, replace(Delta.at(NOW, {kind: NO_COUNTS}), epoch=epoch_of(NOW) + ahead))
    for number in range(40):
        store.visit(SCOPE, [SYSTEM], None, NOW + 10 * number)
    again = store.evidence(SCOPE, NOW + 400).counted((epoch_of(NOW) + ahead) * EPOCH)[kind]
    assert again[EVENTS] == pytest.approx(38, rel=0.1)  # all but the first two, each within 15 s
    view = store.peek(SCOPE, [SYSTEM], NOW + 400)
    assert view.forecasts[kind].returns[0] > 0.8
    assert math.isfinite(view.outlook(SYSTEM).visits)
