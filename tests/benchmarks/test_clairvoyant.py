"""The lower bound is the least over every legal way to serve an edge, and below every bill."""

from __future__ import annotations

from itertools import pairwise, product

import pytest
from capture_lib.clairvoyant import Action, cheapest, price, schedule
from hypothesis import given
from hypothesis import strategies as st

from cachepoint.core.provider.prices import Rates
from cachepoint.core.provider.rules import TTL, TTL_SECONDS

RATES = Rates()
ACTIONS: tuple[Action, ...] = ("uncached", "write 5m", "write 1h", "read")
WRITTEN: dict[Action, TTL] = {"write 5m": "5m", "write 1h": "1h"}


def is_legal(visits: list[float], actions: tuple[Action, ...]) -> bool:
    """Whether every read finds a live entry; a visit that neither reads nor writes leaves the entry as it was."""
    ttl: TTL | None = None
    used = 0.0
    for at, action in zip(visits, actions, strict=True):
        if action == "read" and (ttl is None or at - used >= TTL_SECONDS[ttl]):
            return False
        ttl = WRITTEN.get(action, ttl)
        if action != "uncached":
            used = at
    return True


def by_brute_force(visits: list[float], rates: Rates) -> float:
    ways = product(ACTIONS, repeat=len(visits))
    return min(sum(price(action, rates) for action in way) for way in ways if is_legal(visits, way))


gaps = st.lists(st.sampled_from([0.0, 1.0, 299.0, 300.0, 301.0, 1000.0, 3599.0, 3600.0, 9999.0]), max_size=5)


@given(gaps, st.sampled_from([RATES, Rates(0.05, 1.0, 1.0), Rates(0.5, 1.25, 1.3)]))
def test_no_legal_schedule_is_cheaper_than_the_bound(gaps: list[float], rates: Rates) -> None:
    visits = [sum(gaps[:count]) for count in range(len(gaps) + 1)]
    best = schedule(visits, rates)

    assert is_legal(visits, tuple(best))
    assert cheapest(visits, rates) == pytest.approx(by_brute_force(visits, rates))


@pytest.mark.parametrize(
    ("gaps", "expected"),
    [
        ([], ["uncached"]),
        ([10], ["write 5m", "read"]),
        ([299], ["write 5m", "read"]),
        ([300], ["uncached", "uncached"]),
        ([600, 600], ["write 1h", "read", "read"]),
        ([3600], ["uncached", "uncached"]),
        ([10, 4000, 10], ["write 5m", "read", "write 5m", "read"]),
        ([10, 600, 600, 600], ["write 1h", "read", "read", "read", "read"]),
    ],
)
def test_an_edge_is_written_only_where_its_next_visits_pay_for_it(gaps: list[float], expected: list[str]) -> None:
    visits = [0.0]
    visits += [visits[0] + sum(gaps[: count + 1]) for count in range(len(gaps))]

    assert all(before <= after for before, after in pairwise(visits))
    assert schedule(visits, RATES) == expected
