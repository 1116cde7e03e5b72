"""What a ledger tells at a glance, for all who show one: properties and plain JSON types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cachepoint.core.accounts.ledger import CacheLedger
from cachepoint.core.accounts.record import CallRecord
from cachepoint.core.accounts.totals import Totals
from cachepoint.core.provider.prices import Cost
from cachepoint.core.provider.usage import Usage


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
        return self.ledger.summary()

    def to_dict(self) -> dict[str, Any]:
        """The sums, in all and by model, as plain JSON types."""
        by_model = {model: totals.to_dict() for model, totals in self.ledger.by("model").items()}
        return {**self.ledger.totals().to_dict(), "by_model": by_model}
