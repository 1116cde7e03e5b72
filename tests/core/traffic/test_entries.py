"""Entries, and what is kept of a request until its answer."""

from __future__ import annotations

import pytest

from cachepoint.core.provider.rules import TTL
from cachepoint.core.traffic.entries import Digests, Entry, SentPoint, Shape, arrived, by_life

DIGESTS = [bytes([number]) * 16 for number in range(3)]


@pytest.mark.parametrize(
    ("ttl", "age", "lives"),
    [
        ("5m", 299.9, True),
        ("5m", 300, False),
        ("1h", 3_599.9, True),
        ("1h", 3_600, False),
        ("5m", -1, True),
        ("5m", -1.1, False),
    ],
)
def test_an_entry_lives_for_its_ttl(ttl: TTL, age: float, lives: bool) -> None:
    assert Entry(ttl, 1_000.0).lives(1_000.0 + age) is lives


@pytest.mark.parametrize(("age", "lives"), [(119.9, True), (120, False)])
def test_an_entry_in_flight_is_given_up_after_two_minutes(age: float, lives: bool) -> None:
    assert Entry("1h", 1_000.0, readable=False).lives(1_000.0 + age) is lives


def test_entries_are_parted_by_life() -> None:
    old, new = Entry("5m", 0.0), Entry("5m", 400.0)
    assert by_life({b"old": old, b"new": new}, 500.0) == ({b"new": new}, {b"old": old})


@pytest.mark.parametrize(
    ("exact", "read", "came"), [(True, 980, True), (True, 979, False), (False, 750, True), (False, 749, False)]
)
def test_an_expected_read_may_be_a_little_short(exact: bool, read: int, came: bool) -> None:
    assert arrived(SentPoint(b"", "5m", 1_000.0, exact=exact), read) is came


def test_digests_in_one_piece_are_the_same_digests() -> None:
    packed = Digests(DIGESTS)
    assert list(packed) == DIGESTS
    assert len(packed) == 3
    assert (packed[0], packed[2], packed[-1], packed[-3]) == (DIGESTS[0], DIGESTS[2], DIGESTS[2], DIGESTS[0])
    assert list(packed[1:]) == DIGESTS[1:]
    for beyond in (3, -4):
        with pytest.raises(IndexError):
            packed[beyond]


def test_a_shape_is_kept_packed_and_of_a_long_one_the_first_blocks() -> None:
    shape = Shape(tuple(DIGESTS), (5, 2**40, 7), (0, 1), (), 0.0, "1h", 0.0)
    kept = shape.kept(99.0, 1_000.0, 2)
    assert (list(kept.digests), list(kept.sizes)) == (DIGESTS[:2], [5, 2**40])
    assert kept[2:] == ((0, 1), (), 99.0, "1h", 1_000.0)
    assert list(shape.kept(99.0, 1_000.0, 3).digests) == DIGESTS
