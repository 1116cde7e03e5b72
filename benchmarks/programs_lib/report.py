"""Rows as text."""

from __future__ import annotations

from typing import Any

_FORMAT = "{:28} {:>5} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>7} {:>7} {:>7} {:>8}  {}"
HEADER = _FORMAT.format(
    "program",
    "calls",
    "none",
    "by hand",
    "ours",
    "ours 5m",
    "peer",
    "best",
    "/none",
    "/hand",
    "turn 5+",
    "distance",
    "best static plan",
)


def line(row: dict[str, Any]) -> str:
    """One row for the terminal, in USD."""
    names = ("no_caching", "by_hand", "ours", "ours_5m", "peer", "best")
    amounts = [f"{row[name]:.4f}" for name in names]
    dearest = row["dearest_from_fifth_turn"]
    return _FORMAT.format(
        row["row"],
        row["requests"],
        *amounts,
        f"{row['ours'] / row['no_caching']:.3f}",
        f"{row['ours'] / row['by_hand']:.3f}",
        "" if dearest is None else f"{dearest:.3f}",
        f"{row['distance']:+.4f}",
        row["best_plan"],
    )
