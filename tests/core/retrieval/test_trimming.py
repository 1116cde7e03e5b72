"""Clearing the beginning of a history in chunks."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cachepoint.core.retrieval.trimming import cleared_in_chunks

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
