"""Dropping and clearing the beginning of a history in chunks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachepoint.core.retrieval.trimming import cleared_in_chunks, start_in_chunks

LIMIT, KEEP = 100, 40
items = st.lists(st.tuples(st.integers(1, 40), st.floats(0, 1)), min_size=1, max_size=60)


@given(items, st.integers(1, 4))
def test_the_end_of_what_is_cleared_moves_forward_seldom_and_spares_the_last(
    given_items: list[tuple[int, float]], spared: int
) -> None:
    sizes = [size for size, _ in given_items]
    freed = [int(size * share) for size, share in given_items]
    ends = [cleared_in_chunks(sizes[:count], freed[:count], LIMIT, KEEP, spared) for count in range(1, len(sizes) + 1)]
    assert ends == sorted(ends)
    assert all(end <= max(count - spared, 0) for count, end in enumerate(ends, start=1))
    # Each move frees at least half of what lies between the limit and what is kept, of what came in since.
    assert len(set(ends)) - 1 <= 2 * sum(freed) / (LIMIT - KEEP)


def test_it_goes_down_to_what_is_kept() -> None:
    assert cleared_in_chunks([30] * 3, [30] * 3, LIMIT, KEEP, 1) == 0
    assert cleared_in_chunks([30] * 4, [30] * 4, LIMIT, KEEP, 1) == 3


def test_nothing_is_cleared_while_that_would_free_little() -> None:
    assert cleared_in_chunks([30] * 9, [1] * 9, LIMIT, KEEP, 1) == 0


@given(st.lists(st.integers(1, 30), min_size=1, max_size=60))
def test_a_trimmed_history_fits_and_its_start_moves_seldom(sizes: list[int]) -> None:
    limit, keep = 100, 50
    starts = [start_in_chunks(sizes[: end + 1], limit, keep) for end in range(len(sizes))]
    assert starts == sorted(starts)
    for end, start in enumerate(starts):
        assert sum(sizes[start : end + 1]) <= limit or start == end
    # Between two moves at least limit - keep has to come in.
    assert len(set(starts)) - 1 <= sum(sizes) / (limit - keep)


def test_one_item_above_the_limit_is_kept() -> None:
    assert start_in_chunks([10, 500], 100, 50) == 1


@pytest.mark.parametrize(
    ("sizes", "start"),
    [
        ([30, 30, 30], 0),  # 90
        ([30, 30, 40], 0),  # 100 is not more than the limit
        ([30, 30, 41], 2),  # 101, then 71, then 41: the last stays although it is more than 40
        ([30, 30, 30, 30], 3),  # 120, then 90, 60, 30
        ([61, 20, 20], 1),  # 101, then 40: what is kept may be as much as that
        ([60, 21, 20], 2),  # 101, then 41, then 20
        ([30, 30, 30, 30, 30, 40], 3),  # 30 are left of the first four; with 30 and 40 more the limit is just reached
        ([30, 30, 30, 30, 30, 41], 5),  # one more, and only that is left
        ([500, 1], 1),
        ([1, 500], 1),
        ([500], 0),
        ([], 0),
    ],
)
def test_a_start_moves_once_the_limit_is_passed_to_where_so_much_is_left(sizes: list[int], start: int) -> None:
    assert start_in_chunks(sizes, LIMIT, KEEP) == start


@pytest.mark.parametrize(
    ("sizes", "freed", "spared", "end"),
    [
        ([25] * 4, [25] * 4, 1, 0),  # 100 is not more than the limit
        ([25] * 5, [25] * 5, 1, 4),  # 125, then 100, 75, 50, 25: four cleared, none but the spared left
        ([25] * 5, [25] * 5, 3, 2),  # of the three that are spared none is cleared, though 75 are left
        ([25] * 5, [15] * 5, 3, 2),  # clearing the first two frees 30, half of what lies between 100 and 40
        ([25] * 5, [14] * 5, 3, 0),  # 28 are too little
        ([25] * 5, [20] * 5, 0, 5),  # 125, then 105, 85, 65, 45, 25
        ([61, 20, 20], [61, 0, 0], 1, 1),  # 101, then 40: so much may be left
        ([60, 21, 20], [60, 0, 0], 1, 2),  # 101, then 41, and clearing the second frees nothing more
        ([25] * 9, [25] * 9, 1, 8),  # 125 cleared to 25 by the fifth; the ninth makes 125 of it again
        ([25] * 8, [25] * 8, 1, 4),  # the eighth only 100
        ([25] * 4, [25] * 4, 9, 0),
        ([], [], 1, 0),
    ],
)
def test_an_end_moves_once_clearing_is_worth_it(sizes: list[int], freed: list[int], spared: int, end: int) -> None:
    assert cleared_in_chunks(sizes, freed, LIMIT, KEEP, spared) == end


def test_what_was_cleared_frees_nothing_a_second_time() -> None:
    """Four of 30 are cleared to the last by the fifth. Of the items that follow the first is that one, which frees
    30 once it is no longer spared; the others free 1 each. 30 is enough for one clearing; after it nothing is."""
    sizes, freed = [30] * 14, [30] * 4 + [1] * 10
    ends = [cleared_in_chunks(sizes[:count], freed[:count], LIMIT, KEEP, 1) for count in range(1, 15)]
    assert ends == [0, 0, 0, 3, 3, 3, 6, 6, 6, 6, 6, 6, 6, 6]
