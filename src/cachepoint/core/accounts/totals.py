"""Sums of calls, and a table of them to print."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cachepoint.core.accounts.record import CallRecord
from cachepoint.core.provider.prices import Cost
from cachepoint.core.provider.usage import Usage


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over calls.

    `hit_rate` is tokens read over prompt tokens, 0 to 1. `unpriced` calls have a usage and no known
    price, `unreported` ones no usage; neither is in `cost`. `at_least` calls were cut, left or lost, and
    may have been billed more than they told; so may the attempts that were repeated, `retries`. `misses`
    counts reasons.
    """

    calls: int = 0
    usage: Usage = Usage()
    cost: Cost = Cost()
    misses: Mapping[str, int] = field(default_factory=dict)
    unpriced: int = 0
    unreported: int = 0
    errors: int = 0
    at_least: int = 0
    retries: int = 0

    @property
    def hit_rate(self) -> float:
        """Tokens read from the cache as a share of all prompt tokens."""
        return self.usage.cache_read / self.usage.prompt if self.usage.prompt else 0.0

    def plus(self, record: CallRecord) -> Totals:
        """These totals with one more call."""
        misses = self.misses
        if record.miss:
            misses = {**misses, record.miss.reason: misses.get(record.miss.reason, 0) + 1}
        return Totals(
            self.calls + 1,
            self.usage + record.usage if record.usage else self.usage,
            self.cost + record.cost if record.cost else self.cost,
            misses,
            self.unpriced + (record.usage is not None and record.cost is None),
            self.unreported + (record.usage is None),
            self.errors + (record.error is not None),
            self.at_least + record.at_least,
            self.retries + record.retries,
        )

    def to_dict(self) -> dict[str, Any]:
        """The sums as plain JSON types."""
        return {
            "calls": self.calls,
            "usage": self.usage.to_dict(),
            "cost": self.cost.to_dict(),
            "hit_rate": self.hit_rate,
            "misses": dict(self.misses),
            "unpriced": self.unpriced,
            "unreported": self.unreported,
            "errors": self.errors,
            "at_least": self.at_least,
            "retries": self.retries,
        }


_COLUMNS = ("calls", "input", "read", "written", "output", "hit rate", "USD", "uncached", "saved")


def table(totals: Totals, by_model: Mapping[str, Totals]) -> str:
    """A line for each model and one for all, then the misses."""
    rows: list[tuple[str, ...]] = [("model", *_COLUMNS)]
    rows += [(model, *_cells(sums)) for model, sums in by_model.items()]
    rows.append(("all", *_cells(totals)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]
    notes = {
        "failed": totals.errors,
        "without a usage": totals.unreported,
        "without a known price": totals.unpriced,
        "cut, left or lost, which may have been billed more than is counted": totals.at_least,
        "earlier attempts, of which those that timed out or lost their connection may have been billed": totals.retries,
    }
    lines += [f"{count} {what}" for what, count in notes.items() if count]
    if totals.misses:
        most = sorted(totals.misses.items(), key=lambda miss: (-miss[1], miss[0]))
        lines.append("misses: " + ", ".join(f"{reason} {count}" for reason, count in most))
    return "\n".join(lines)


def _cells(totals: Totals) -> tuple[str, ...]:
    usage, cost = totals.usage, totals.cost
    counts = (totals.calls, usage.input, usage.cache_read, usage.cache_write, usage.output)
    amounts = (cost.usd, cost.uncached_usd, cost.saved_usd)
    return (
        *(f"{count:,}" for count in counts),
        f"{totals.hit_rate:.1%}",
        *(f"{amount:.6f}" for amount in amounts),
    )
