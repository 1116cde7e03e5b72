"""What a ledger tells at a glance, for all who show one: properties, a table, plain JSON types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cachepoint.core.ledger import CacheLedger, Totals
from cachepoint.core.prices import Cost
from cachepoint.core.record import CallRecord
from cachepoint.core.usage import Usage

_COLUMNS = ("calls", "input", "read", "written", "output", "hit rate", "USD", "uncached", "saved")


class LedgerReport:
    """The sums of a ledger, as properties."""

    ledger: CacheLedger

    @property
    def calls(self) -> int:
        """How many calls there were, failed ones included."""
        return self.ledger.totals().calls

    @property
    def usage(self) -> Usage:
        """Tokens by the class they are billed in."""
        return self.ledger.totals().usage

    @property
    def cost(self) -> Cost:
        """What the calls cost, what they would have cost without caching, and the difference."""
        return self.ledger.totals().cost

    @property
    def hit_rate(self) -> float:
        """Tokens read from the cache as a share of all prompt tokens."""
        return self.ledger.totals().hit_rate

    @property
    def misses(self) -> Mapping[str, int]:
        """How often each reason made a call read less than it could have."""
        return self.ledger.totals().misses

    @property
    def records(self) -> tuple[CallRecord, ...]:
        """The newest calls, oldest first."""
        return self.ledger.records

    def by(self, key: str) -> dict[str, Totals]:
        """Sums by the values of a key, as billed; see `CacheLedger.by`."""
        return self.ledger.by(key)

    def summary(self) -> str:
        """A table to print: a line for each model and the sum, then the misses."""
        return summary(self.ledger)

    def to_dict(self) -> dict[str, Any]:
        """The sums, in all and by model, as plain JSON types."""
        by_model = {model: totals.to_dict() for model, totals in self.ledger.by("model").items()}
        return {**self.ledger.totals().to_dict(), "by_model": by_model}


def summary(ledger: CacheLedger) -> str:
    """A table of what a ledger holds, by model, and its misses."""
    totals = ledger.totals()
    rows: list[tuple[str, ...]] = [("model", *_COLUMNS)]
    rows += [(model, *_cells(sums)) for model, sums in ledger.by("model").items()]
    rows.append(("all", *_cells(totals)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]
    notes = {"failed": totals.errors, "without a usage": totals.unreported, "without a known price": totals.unpriced}
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
