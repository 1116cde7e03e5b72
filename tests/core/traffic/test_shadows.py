"""What static plans would have in the cache: lives, uses, losses, and what is forgotten."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachepoint.core.traffic.shadows import Shadowed, Shadows, Stamp
from cachepoint.core.traffic.static_plans import FAMILY, LONG, OURS, OURS_1H, Habit, StaticPlan

NOW = 1_000_000.0
SHORT, HOUR = (1 << FAMILY.index(StaticPlan(("system",), ttl)) for ttl in ("5m", "1h"))
HABIT = Habit("auto", tools=False, system=True, size=1000)


def stamped(shadows: Shadows, at: float, **prefixes: int) -> Shadows:
    """A request by which plans read or wrote prefixes."""
    shadows.began(Shadowed(HABIT, at, (), (), [Stamp(name.encode(), plans) for name, plans in prefixes.items()]))
    return shadows


@pytest.mark.parametrize(
    ("age", "alive"), [(0, SHORT | HOUR), (299.9, SHORT | HOUR), (300, HOUR), (3599.9, HOUR), (3600, 0)]
)
def test_a_prefix_lives_for_five_minutes_by_some_plans_and_for_an_hour_by_others(age: float, alive: int) -> None:
    shadows = stamped(Shadows(), NOW, system=SHORT | HOUR)
    assert shadows.alive(b"system", NOW + age) == alive
    assert shadows.alive(b"tools", NOW + age) == 0


def test_of_the_planner_unguarded_five_minutes_and_hours_are_told_apart() -> None:
    shadows = stamped(Shadows(), NOW, system=1 << OURS | 1 << OURS_1H)
    assert shadows.alive(b"system", NOW + 299) == 3 << OURS
    assert shadows.alive(b"system", NOW + 300) == 1 << OURS_1H


def test_a_use_renews_the_life_for_the_plan_that_used_it() -> None:
    other = 1 << FAMILY.index(StaticPlan(("end",)))
    shadows = stamped(Shadows(), NOW, system=SHORT | other)
    stamped(shadows, NOW + 200, system=SHORT)
    assert shadows.alive(b"system", NOW + 299) == SHORT | other
    assert shadows.alive(b"system", NOW + 300) == shadows.alive(b"system", NOW + 499) == SHORT
    assert shadows.alive(b"system", NOW + 500) == 0


def test_of_uses_no_more_is_kept_than_can_live() -> None:
    shadows = stamped(Shadows(), NOW, system=HOUR)
    for use in range(1, 50):
        stamped(shadows, NOW + 10 * use, system=HOUR)
    assert shadows.slots == {b"system": ((NOW + 490, HOUR),)}
    stamped(shadows, NOW + 490 + 3599, system=SHORT)
    assert shadows.slots == {b"system": ((NOW + 490, HOUR), (NOW + 490 + 3599, SHORT))}
    stamped(shadows, NOW + 490 + 3600, system=SHORT)
    assert shadows.slots == {b"system": ((NOW + 490 + 3600, SHORT),)}


def test_what_the_service_lost_is_lost_for_every_plan_that_had_it_by_then() -> None:
    shadows = stamped(Shadows(), NOW, system=SHORT, tools=SHORT | HOUR, tail=SHORT)
    stamped(shadows, NOW + 20, tools=HOUR)
    shadows.lost({b"system": None, b"tools": None, b"unknown": None}, NOW + 20)
    assert shadows.alive(b"system", NOW + 20) == 0
    assert shadows.alive(b"tools", NOW + 20) == HOUR
    assert shadows.alive(b"tail", NOW + 20) == SHORT
    assert len(shadows) == 2


def test_what_was_used_longest_ago_is_forgotten_first_and_missed_by_all() -> None:
    shadows = stamped(Shadows(), NOW, first=SHORT | HOUR, second=SHORT, third=SHORT)
    stamped(shadows, NOW + 10, first=SHORT)
    shadows.keep(2)
    assert shadows.alive(b"second", NOW + 10) == 0
    assert (shadows.alive(b"third", NOW + 10), shadows.alive(b"first", NOW + 10)) == (SHORT, SHORT | HOUR)
    shadows.keep(2)
    assert len(shadows) == 2
    shadows.keep(0)
    assert len(shadows) == 0


USES = st.lists(
    st.tuples(st.sampled_from([0, 100, 299, 300, 1000, 3599, 3600]), st.integers(0, (1 << OURS_1H + 1) - 1)), max_size=6
)


@given(USES, st.sampled_from([0, 250, 300, 3000, 3600]))
def test_a_plan_lives_by_its_own_last_use_whatever_others_do(uses: list[tuple[int, int]], after: int) -> None:
    shadows, now, last = Shadows(), NOW, dict[int, float]()
    for gap, plans in uses:
        now += gap
        stamped(shadows, now, system=plans)
        last.update((plan, now) for plan in range(OURS_1H + 1) if plans >> plan & 1)
    now += after
    alive = shadows.alive(b"system", now)
    for plan in range(OURS_1H + 1):
        lives = plan in last and now - last[plan] < (3600 if LONG >> plan & 1 else 300)
        assert bool(alive >> plan & 1) is lives
