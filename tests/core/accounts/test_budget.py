"""A budget takes an amount of money, and stops the call after it is spent."""

from __future__ import annotations

from decimal import Decimal

import pytest

from cachepoint.core.accounts.budget import Budget
from cachepoint.errors import BudgetExceeded, ConfigurationError


@pytest.mark.parametrize(
    ("given", "usd"),
    [
        (None, None),
        (0, Decimal(0)),
        (2.5, Decimal("2.5")),
        ("0.10", Decimal("0.1")),
        (Decimal("1e-9"), Decimal("1e-9")),
    ],
)
def test_an_amount_counts_as_it_is_written(given: Decimal | float | str | None, usd: Decimal | None) -> None:
    assert Budget.of(given) == Budget(usd)


@pytest.mark.parametrize("wrong", [-0.01, "ten", float("nan"), "Infinity", True, False, ""])
def test_what_is_no_amount_is_refused_by_name(wrong: object) -> None:
    with pytest.raises(ConfigurationError, match="budget_usd=") as refusal:
        Budget.of(wrong)  # type: ignore[arg-type]
    assert repr(wrong) in str(refusal.value)


def test_a_call_is_stopped_once_nothing_is_left() -> None:
    budget = Budget.of("0.50")
    budget.check(Decimal("0.4999"))
    for spent in ("0.5", "0.75"):
        with pytest.raises(BudgetExceeded, match=rf"^{spent} USD are spent of a budget of 0\.5 USD"):
            budget.check(Decimal(spent))


def test_without_a_budget_no_call_is_stopped() -> None:
    Budget().check(Decimal(10**9))


def test_a_budget_of_nothing_lets_no_call_through() -> None:
    with pytest.raises(BudgetExceeded):
        Budget.of(0).check(Decimal(0))
