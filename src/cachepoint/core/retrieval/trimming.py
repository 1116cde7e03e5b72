"""Trimming and clearing a history in chunks, so that its beginning stands still and the prefix with it.

Dropping from the front a little on every turn gives every request another prefix, and nothing is ever read.
"""

from __future__ import annotations

from collections import deque
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


def cleared_in_chunks(sizes: Sequence[int], freed: Sequence[int], limit: int, keep: int, spared: int) -> int:
    """The index before which items are cleared, worked out from all items there ever were.

    `freed` says what clearing each item would free of its size. The index stands still until the items exceed `limit`
    and clearing would free half of what lies between `limit` and `keep`, or nothing would be read between one
    clearing and the next; then it moves to where at most `keep` is left. The last `spared` items are never cleared.
    """
    end = held = free = 0
    waiting: deque[int] = deque()
    for index, size in enumerate(sizes):
        held += size
        waiting.append(index)
        if len(waiting) > spared:
            free += freed[waiting[-1 - spared]]
        if held <= limit or 2 * free < limit - keep:
            continue
        while held > keep and len(waiting) > spared:
            cleared = waiting.popleft()
            held -= freed[cleared]
            free -= freed[cleared]
            end = cleared + 1
    return end
