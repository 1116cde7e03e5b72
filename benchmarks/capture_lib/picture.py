"""The first table as a picture: for each row, everyone's bill between the bound and no caching."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

WIDTH, LEFT, RIGHT, TOP, STEP = 860, 240, 30, 76, 34
LARGEST = 1.3
"""Bills above this are drawn at the edge, with their figure."""


class Style(NamedTuple):
    """How one contender is drawn."""

    label: str
    shape: str
    color: str


STYLES: Mapping[str, Style] = {
    "cachepoint (LangChain)": Style("cachepoint", "disc", "#0b6e4f"),
    "ChatBedrockConverse 5m": Style("LangChain 5m", "cross", "#b3541e"),
    "ChatBedrockConverse 1h": Style("LangChain 1h", "plus", "#7a4f9e"),
    "pydantic-ai": Style("pydantic-ai", "square", "#2b6cb0"),
    "Strands": Style("Strands", "diamond", "#8a8a00"),
    "LlamaIndex": Style("LlamaIndex", "triangle", "#a02050"),
}


def picture(results: Sequence[Mapping[str, Any]], rows: Sequence[str]) -> str:
    """The picture as SVG, on a ground of its own so that it can be read on any page."""
    height = TOP + STEP * len(rows) + 40
    box = f'viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="13" role="img"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {box}>',
            "<title>Bill over no caching, by workload</title>",
            f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
            *_legend(),
            *_axis(height),
            *(mark for number, row in enumerate(rows) for mark in _row(results, row, TOP + STEP * (number + 0.5))),
            "</svg>",
            "",
        ]
    )


def _x(ratio: float) -> float:
    return LEFT + min(ratio, LARGEST) / LARGEST * (WIDTH - LEFT - RIGHT)


def _legend() -> Iterator[str]:
    yield f'<text x="{LEFT}" y="20" fill="#222">Bill over no caching, input side; the grey bar ends at the bound</text>'
    for number, style in enumerate(STYLES.values()):
        x = LEFT + number * (WIDTH - LEFT - RIGHT) / len(STYLES)
        yield _mark(style, x + 6, 42)
        yield f'<text x="{x + 15:.0f}" y="46" font-size="11" fill="#222">{escape(style.label)}</text>'


def _axis(height: float) -> Iterator[str]:
    for tenth in range(0, 13, 2):
        x, color = _x(tenth / 10), "#888" if tenth == 10 else "#e2e2e2"
        yield f'<line x1="{x:.1f}" y1="{TOP - 8}" x2="{x:.1f}" y2="{height - 30}" stroke="{color}"/>'
        yield f'<text x="{x:.1f}" y="{height - 12}" text-anchor="middle" fill="#555">{tenth / 10:.1f}</text>'


def _row(results: Sequence[Mapping[str, Any]], row: str, y: float) -> Iterator[str]:
    found = {result["contender"]: result for result in results if result["row"] == row}
    if not found:
        return
    some = next(iter(found.values()))
    title = str(some["title"]).partition(":")[0].partition(",")[0]
    yield f'<text x="8" y="{y + 4:.0f}" fill="#222">{row}</text>'
    yield f'<text x="40" y="{y + 4:.0f}" font-size="11" fill="#555">{escape(title[:34])}</text>'
    width = _x(some["bound"]) - LEFT
    yield f'<rect x="{LEFT}" y="{y - 9:.1f}" width="{width:.1f}" height="18" fill="#dddddd"/>'
    for name, style in reversed(list(STYLES.items())):
        if name in found:
            yield _mark(style, _x(found[name]["ratio"]), y)
            if found[name]["ratio"] > LARGEST:
                yield (
                    f'<text x="{WIDTH - RIGHT - 8}" y="{y + 4:.0f}" text-anchor="end" font-size="10" '
                    f'fill="{style.color}">{found[name]["ratio"]:.2f}</text>'
                )


def _mark(style: Style, x: float, y: float) -> str:
    stroke = f'fill="none" stroke="{style.color}" stroke-width="2"'
    shapes = {
        "disc": f'<circle cx="{x:.1f}" cy="{y:.1f}" r="6" fill="{style.color}"/>',
        "cross": f'<path d="M{x - 4:.1f} {y - 4:.1f}l8 8m0 -8l-8 8" {stroke}/>',
        "plus": f'<path d="M{x - 5:.1f} {y:.1f}h10m-5 -5v10" {stroke}/>',
        "square": f'<rect x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" height="8" {stroke}/>',
        "diamond": f'<path d="M{x:.1f} {y - 6:.1f}l6 6l-6 6l-6 -6z" {stroke}/>',
        "triangle": f'<path d="M{x:.1f} {y - 5:.1f}l5 9h-10z" {stroke}/>',
    }
    return shapes[style.shape]
