"""What the programs are to reach, and whether a run's rows do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]

CHATS = ("chat_context", "chat_condense_question", "chat_condense_context", "chat_context_first", "chat_best")


@dataclass(frozen=True)
class Target:
    """At most `limit` in every one of these rows; a row that has no figure counts as met."""

    what: str
    rows: Sequence[str]
    figure: Callable[[Row], float | None]
    limit: float

    def told(self, rows: Sequence[Row]) -> Iterator[str]:
        """A line for each of the rows that were measured."""
        for row in rows:
            figure = self.figure(row) if row["row"] in self.rows else None
            if figure is not None:
                verdict = "met   " if figure <= self.limit else "MISSED"
                yield f"{verdict} {figure:7.3f} (at most {self.limit:.2f})  {row['row']}: {self.what}"


def _over(other: str) -> Callable[[Row], float]:
    return lambda row: float(row["ours"] / row[other])


TARGETS = (
    Target("first session of eight turns, in USD", ["rag_system short"], lambda row: row["ours"], 0.21),
    Target(
        "over no caching from the fifth turn on",
        [f"{name} {form}" for name in CHATS for form in ("short", "long", "ten")],
        lambda row: row["dearest_from_fifth_turn"],
        1.05,
    ),
    Target("over by hand at fifteen turns", [f"{name} long" for name in CHATS], _over("by_hand"), 1.10),
    Target("over no caching at five turns", ["memory_agent short"], _over("no_caching"), 0.57),
    Target("over no caching at fifteen turns", ["memory_agent long"], _over("no_caching"), 0.62),
    Target("auto over ttl=5m", ["supervisor short", "supervisor long", "supervisor ten"], _over("ours_5m"), 1.02),
    Target(
        "over langchain-aws",
        ["documents_tools short", "documents_tools long", "documents_tools ten"],
        _over("peer"),
        1.0,
    ),
)
QUICK = ("rag_system", "documents_tools", "supervisor", *CHATS, "memory_agent")


def told(rows: Sequence[Row]) -> list[str]:
    """All targets of which these rows have the figures."""
    return [line for target in TARGETS for line in target.told(rows)]
