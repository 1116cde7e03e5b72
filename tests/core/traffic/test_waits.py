"""Ages of what is under way: counted by beginning, in few slots, exactly enough for buckets a factor of three wide."""

from __future__ import annotations

import math

import pytest

from cachepoint.core.traffic.waits import Ages


def ages(*beginnings: float) -> Ages:
    made = Ages()
    for at in beginnings:
        made.add(at)
    return made


def test_beginnings_are_told_apart_from_five_seconds_on() -> None:
    assert list(ages(100.0, 104.0, 105.0).slots()) == [(102.0, 2), (105.0, 1)]
    assert len(ages(100.0, 104.0, 105.0)) == 3


def test_one_that_is_over_is_taken_out_of_its_slot() -> None:
    found = ages(100.0, 104.0, 105.0)
    assert found.remove(104.0)
    assert list(found.slots()) == [(100.0, 1), (105.0, 1)]
    assert found.remove(105.0)
    assert list(found.slots()) == [(100.0, 1)]


def test_what_never_began_is_not_over() -> None:
    found = ages(100.0)
    assert not found.remove(99.9)
    assert found.remove(100.0)
    assert not found.remove(100.0)
    assert len(found) == 0


def test_one_that_began_out_of_order_is_found_behind_an_emptied_slot() -> None:
    found = ages(100.0, 106.0)
    found.remove(100.0)
    found.add(105.9)
    assert found.remove(105.9)
    ((mean, count),) = found.slots()
    assert mean == pytest.approx(106.0)
    assert count == 1
    assert found.remove(106.0)
    assert not found.remove(105.9)


def test_a_slot_that_was_emptied_is_used_again() -> None:
    found = ages(100.0, 103.0)
    found.remove(100.0)
    found.remove(103.0)
    found.add(104.0)
    assert list(found.slots()) == [(104.0, 1)]


@pytest.mark.parametrize(("now", "slots"), [(83.0, [0.0, 6.0, 16.0, 83.0]), (84.0, [3.0, 16.0, 84.0])])
def test_slots_become_one_when_they_are_close_for_their_age(now: float, slots: list[float]) -> None:
    """The slots from 0 and from 6 end at 16: 16 s are 23.6% of 67.8 s."""
    found = ages(0.0, 6.0, 16.0)
    found.add(now)
    assert [begun for begun, _ in found.slots()] == slots


def test_however_many_begin_some_thirty_slots_are_kept_and_all_counted() -> None:
    found = Ages()
    for number in range(36_000):
        found.add(number / 10)
    slots = list(found.slots())
    assert len(slots) < 45
    assert sum(count for _, count in slots) == len(found) == 36_000
    mean = sum(begun * count for begun, count in slots) / 36_000
    assert mean == pytest.approx(1_799.95)
    for age in (15.0, 45.0, 120.0, 300.0, 900.0):
        older = sum(count for begun, count in slots if 3_600 - begun > age)
        assert older == pytest.approx((3_600 - age) * 10, rel=0.03)


def test_the_oldest_is_over_first() -> None:
    found = ages(100.0, 102.0, 200.0)
    assert found.remove_oldest() == 101.0
    assert list(found.slots()) == [(101.0, 1), (200.0, 1)]
    assert [found.remove_oldest() for _ in range(3)] == [101.0, 200.0, None]
    assert list(found.slots()) == []


def test_those_from_before_a_time_are_taken_out() -> None:
    found = ages(100.0, 102.0, 200.0)
    assert found.take_before(101.0) == []
    assert found.take_before(101.1) == [(101.0, 2)]
    assert list(found.slots()) == [(200.0, 1)]
    assert found.take_before(math.inf) == [(200.0, 1)]
    assert found.take_before(math.inf) == []


def test_an_emptied_slot_is_dropped_on_the_way() -> None:
    found = ages(100.0, 200.0, 300.0)
    found.remove(100.0)
    assert found.take_before(250.0) == [(200.0, 1)]


def test_two_are_put_together() -> None:
    one, other = ages(100.0, 300.0), ages(101.0, 103.0, 200.0)
    one.put_in(other)
    assert list(one.slots()) == [((100 + 2 * 102) / 3, 3), (200.0, 1), (300.0, 1)]
