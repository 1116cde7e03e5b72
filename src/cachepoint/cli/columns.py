"""Text in columns and paragraphs, for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from textwrap import fill

_NUMERIC = frozenset("0123456789-+$")


def columns(rows: Iterable[Sequence[str]], *, header: Sequence[str] = ()) -> str:
    """Rows in aligned columns; one whose cells all start like a number is aligned to the right."""
    body = [list(row) for row in rows]
    head = [[*header], ["-" * max(map(len, column)) for column in zip(header, *body, strict=True)]] if header else []
    widths = [max(map(len, column)) for column in zip(*head, *body, strict=True)]
    numeric = [all(cell[:1] in _NUMERIC for cell in column if cell) for column in zip(*body, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if to_the_right else cell.ljust(width)
            for cell, width, to_the_right in zip(row, widths, numeric, strict=True)
        ).rstrip()
        for row in [*head, *body]
    )


def paragraph(text: str, *, indent: str = "", width: int = 100) -> str:
    """Text wrapped to a width, its lines after the first indented."""
    return fill(text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
