"""Trimming a history in chunks, so that its beginning stands still and the prefix with it.

Dropping from the front a little on every turn gives every request another prefix, and nothing is ever read.
"""

from __future__ import annotations

from collections.abc import Sequence


def start_in_chunks(sizes: Sequence[int], limit: int, keep: int) -> int:
    """The index of the first item to keep, worked out from all items there ever were.

    The start stands still until the items from it on exceed `limit`; then it moves to where at most `keep` are left.
    The last item is always kept. `sizes`, `limit` and `keep` are in the same unit, such as tokens.
    """
    start = held = 0
    for index, size in enumerate(sizes):
        held += size
        if held > limit:
            while start < index and held > keep:
                held -= sizes[start]
                start += 1
    return start
