"""A sum of money that calls may cost."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from cachepoint.core.provider.prices import plain
from cachepoint.errors import BudgetExceeded, ConfigurationError


@dataclass(frozen=True, slots=True)
class Budget:
    """At most so many USD; None sets no limit."""

    usd: Decimal | None = None

    @classmethod
    def of(cls, given: Decimal | float | str | None) -> Budget:
        """The budget a user gave; a float counts as it is written. Raises ConfigurationError for what is no amount."""
        if given is None:
            return cls()
        try:
            amount = Decimal(str(given))
        except InvalidOperation:
            amount = Decimal("nan")
        if isinstance(given, bool) or not amount.is_finite() or amount < 0:
            raise ConfigurationError(f"budget_usd={given!r}: give an amount in USD, 0 or more")
        return cls(amount)

    def check(self, spent: Decimal) -> None:
        """Raise BudgetExceeded if nothing is left for another call."""
        if self.usd is not None and spent >= self.usd:
            raise BudgetExceeded(
                f"{plain(spent)} USD are spent of a budget of {plain(self.usd)} USD; the next call was not sent"
            )
