"""All rows as their distance to the best static plan."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape

from capture_lib.report import Result

from league_lib.report import standings
from league_lib.standing import LOST_PREFIX, SLACK, Standing, Verdict

WIDTH, LEFT, RIGHT, TOP, STEP = 900, 190, 150, 78, 17
LEAST, MOST = 0.4, 2.2
"""Ours over the best static plan is drawn between these, to a logarithmic scale; beyond them at the edge."""
COLORS: dict[Verdict, str] = {"over": "#b3261e", "listed": "#b07a00", "within": "#0b6e4f", "ahead": "#2b6cb0"}
_TICKS = (0.4, 0.5, 0.6, 0.8, 1.0, 1.2, 1.5, 2.0)


def picture(results: Sequence[Result]) -> str:
    """The picture as SVG, on a ground of its own so that it can be read on any page; the worst rows first."""
    found = standings(results)
    height = TOP + STEP * len(found) + 36
    box = f'viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="11" role="img"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {box}>',
            "<title>cachepoint's bill over that of the best static plan, by row</title>",
            f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
            *_legend(),
            *_axis(height),
            *(mark for number, each in enumerate(found) for mark in _row(each, TOP + STEP * (number + 0.5))),
            "</svg>",
            "",
        ]
    )


def _x(ratio: float) -> float:
    share = math.log(min(max(ratio, LEAST), MOST) / LEAST) / math.log(MOST / LEAST)
    return LEFT + share * (WIDTH - LEFT - RIGHT)


def _legend() -> Iterator[str]:
    yield (
        '<text x="8" y="20" font-size="13" fill="#222">cachepoint over the best static plan, known with hindsight '
        "(1.0): full marks cold, rings with a profile</text>"
    )
    for number, (verdict, color) in enumerate(COLORS.items()):
        x = LEFT + 90 * number
        yield f'<circle cx="{x}" cy="40" r="4.5" fill="{color}"/>'
        yield f'<text x="{x + 9}" y="44" fill="#222">{verdict}</text>'
    x = LEFT + 90 * len(COLORS)
    yield f'<rect x="{x}" y="35" width="26" height="10" fill="#e6e6e6"/>'
    yield f'<text x="{x + 32}" y="44" fill="#222">allowed: 3% and one lost prefix</text>'


def _axis(height: float) -> Iterator[str]:
    for tick in _TICKS:
        x, color = _x(tick), "#666" if tick == 1 else "#e2e2e2"
        yield f'<line x1="{x:.1f}" y1="{TOP - 8}" x2="{x:.1f}" y2="{height - 26}" stroke="{color}"/>'
        yield f'<text x="{x:.1f}" y="{height - 10}" text-anchor="middle" fill="#555">{tick:g}</text>'


def _row(found: Standing, y: float) -> Iterator[str]:
    allowed = 1 + SLACK + LOST_PREFIX * found.largest / found.best_bill
    yield f'<rect x="{_x(1):.1f}" y="{y - 5:.1f}" width="{_x(allowed) - _x(1):.1f}" height="10" fill="#e6e6e6"/>'
    yield f'<text x="8" y="{y + 4:.1f}" fill="#222">{escape(found.row)}</text>'
    yield f'<text x="{WIDTH - RIGHT + 12}" y="{y + 4:.1f}" font-size="10" fill="#555">{escape(found.best)}</text>'
    if found.warm is not None:
        x = _x(found.warm / found.best_bill)
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="none" stroke="#444" stroke-width="1.2"/>'
    yield f'<circle cx="{_x(found.over_best):.1f}" cy="{y:.1f}" r="4.5" fill="{COLORS[found.verdict]}"/>'
    if not LEAST <= found.over_best <= MOST:
        end, aside = ("start", 9) if found.over_best < LEAST else ("end", -9)
        place = f'x="{_x(found.over_best) + aside:.1f}" y="{y + 4:.1f}" text-anchor="{end}"'
        yield f'<text {place} font-size="10" fill="#222">{found.over_best:.2f}</text>'
