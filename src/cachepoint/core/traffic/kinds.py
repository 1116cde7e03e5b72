"""What kind a boundary is, and in which bucket a gap falls: the two axes on which habits are counted."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from typing import Literal, get_args

Role = Literal[
    "tools_end", "system_end", "context_end", "history_end",
    "tail_single", "tail_turns", "tail_stuffed", "tail_tools", "inner", "cut",
]  # fmt: skip
"""What a boundary is in its prompt: the evidence of like boundaries is shared."""
NAMED: frozenset[Role] = frozenset(get_args(Role)) - {"inner", "cut"}
"""The roles that the prompt's structure gives, seen before or not."""

STATIC: frozenset[Role] = frozenset(("tools_end", "system_end", "context_end"))
"""The roles of what is by convention the same in every request of an application."""

TAILS: frozenset[Role] = frozenset(("tail_single", "tail_turns", "tail_stuffed", "tail_tools"))
"""The roles of a prompt's end."""

CurveKey = tuple[Role, bool, int]
"""A kind of boundary: its role, whether it was seen before, and the class of what a first visit adds, else 0."""

BUCKETS = (15.0, 45.0, 120.0, 300.0, 900.0, 3600.0)
"""Bucket limits in seconds; the last bucket is everything later."""
N_BUCKETS = len(BUCKETS) + 1
UNTIL_5M = BUCKETS.index(300.0) + 1
UNTIL_1H = BUCKETS.index(3600.0) + 1

SIZE_LIMITS = tuple(64 << power for power in range(10))
"""Limits in tokens of the classes of what a first visit adds to the prefixes known, 64 to 32,768: large additions
come back less often."""
COARSE = -1
"""The class that stands for all sizes of a role where there is no room to tell them apart."""

AGAIN_KIND: Mapping[Role, CurveKey] = {role: (role, True, 0) for role in get_args(Role)}
"""The kind of a boundary that was seen before."""
FIRST_KINDS: Mapping[Role, tuple[CurveKey, ...]] = {
    role: tuple((role, False, size) for size in range(len(SIZE_LIMITS) + 1)) for role in get_args(Role)
}
"""The kinds of a first visit by size class; one tuple each, since every boundary that is kept points at two."""


def bucket(gap: float) -> int:
    """The bucket a gap in seconds falls into; a clock gone backwards counts as no gap."""
    return bisect_right(BUCKETS, gap)


def coarser(kind: CurveKey) -> CurveKey:
    """The kind that counts for all sizes of this one."""
    return (kind[0], kind[1], COARSE)
