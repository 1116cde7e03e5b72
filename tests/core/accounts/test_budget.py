"""A budget takes an amount of money, and stops the call after it is spent."""

from __future__ import annotations

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachepoint._later import later
from cachepoint.core.accounts import budget as room
from cachepoint.core.accounts.budget import USUAL_OUTPUT, Budget, Spending, estimate, output_limit, prompt_tokens
from cachepoint.core.accounts.ledger import CacheLedger
from cachepoint.core.accounts.record import CallRecord
from cachepoint.core.provider.prices import Cost
from cachepoint.core.provider.usage import Usage
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


# -- calls under way ------------------------------------------------------------------------------


def record(usd: str | None, *, at_least: bool = False) -> CallRecord:
    cost = None if usd is None else Cost(Decimal(usd))
    usage = None if usd is None else Usage(1)
    error = "Error" if usd is None else None
    return CallRecord(0, 1, "m", "m", None, "converse", "auto", None, usage, cost, error=error, at_least=at_least)


class Account:
    """A ledger with a budget for its calls."""

    def __init__(self, usd: str | None) -> None:
        self.ledger = CacheLedger()
        self.spending = Spending(Budget.of(usd), lambda: self.ledger.totals().cost.usd)

    def end(self, call: object, usd: str | None, *, at_least: bool = False) -> None:
        ended = record(usd, at_least=at_least)
        self.ledger.add(ended)
        self.spending.settle(call, ended)


def test_the_first_call_goes_out_whatever_it_may_cost() -> None:
    account = Account("0.02")
    account.spending.reserve("first", Decimal("0.98"))
    with pytest.raises(
        BudgetExceeded,
        match=r"^0 USD are spent, and 0\.98 USD are kept for calls under way, cut off or cancelled, "
        r"of a budget of 0\.02 USD; the next",
    ):
        account.spending.reserve("second", Decimal("0.01"))
    account.end("first", "0.004")
    account.spending.reserve("second", Decimal("0.98"))


def test_what_is_kept_for_a_call_is_free_again_once_it_is_told() -> None:
    account = Account("0.10")
    for number in range(9):  # at 0.01 each
        account.spending.reserve(number, Decimal("0.09"))
        account.end(number, "0.01")
    account.spending.check()
    account.spending.settle("never begun")
    account.spending.reserve("cached", Decimal("0.09"))
    account.spending.settle("cached")  # LangChain's cache answered
    account.spending.reserve("failed", Decimal("0.09"))
    account.end("failed", None)
    account.spending.check()


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (None, "0 USD are spent, and 0.06 USD are kept for calls under way, cut off"),  # nothing was told: the estimate
        ("0.01", "0.01 USD are spent, and 0.05 USD are kept"),  # the prompt was: as much as the estimate in all
        ("0.08", "0.08 USD are spent of a budget of 0.05 USD"),  # more than was estimated
    ],
)
def test_a_call_that_was_cut_counts_at_its_estimate(told: str | None, said: str) -> None:
    account = Account("0.05")
    account.spending.reserve("cut", Decimal("0.06"))
    account.end("cut", told, at_least=True)
    with pytest.raises(BudgetExceeded, match=f"^{re.escape(said)}"):
        account.spending.check()


def test_an_answer_that_tells_no_usage_counts_at_its_estimate() -> None:
    account = Account("0.05")
    account.spending.reserve("untold", Decimal("0.06"))
    account.spending.settle("untold", replace(record(None), error=None))
    with pytest.raises(BudgetExceeded, match=r"^0 USD are spent, and 0\.06 USD are kept"):
        account.spending.check()


def test_a_stream_that_was_left_counts_once_before_the_next_call_is_let_through() -> None:
    ledger = CacheLedger()
    spending = Spending(Budget.of("0.10"), lambda: ledger.spent)
    spending.reserve("left", Decimal("0.06"))

    def end() -> None:
        ledger.add(record("0.05"))
        spending.settle("left", record("0.05"))

    later(end)
    spending.reserve("next", Decimal("0.06"))  # 0.05 of 0.10 is spent; with its estimate it would be 0.11
    with pytest.raises(BudgetExceeded, match=r"0\.05 USD are spent, and 0\.06 USD are kept"):
        spending.reserve("third", Decimal("0.06"))


def test_of_too_many_calls_under_way_the_oldest_count_as_spent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "UNDER_WAY_KEPT", 3)
    account = Account("1")
    for number in range(5):
        account.spending.reserve(number, Decimal("0.1"))
    for number in range(5):
        account.end(number, "0.01")
    account.spending.reserve("last", Decimal("0.1"))
    account.end("last", "0.9")
    # 0.01 that each of the five told, and 0.9; and two at 0.1 that were let go.
    with pytest.raises(BudgetExceeded, match=r"^0\.95 USD are spent, and 0\.2 USD are kept"):
        account.spending.check()


def test_without_a_limit_nothing_is_kept() -> None:
    account = Account(None)
    assert not account.spending.limited
    account.spending.reserve("any", Decimal(10**9))
    account.spending.check()


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(0, 100), st.booleans()), max_size=60), st.integers(1, 200))
def test_calls_at_the_same_time_overspend_by_one_of_them_at_most(
    calls: list[tuple[int, int, bool]], budget: int
) -> None:
    """Each call has an estimate, a share of it that it comes to, and whether an earlier one ends before it starts."""
    account, under_way = Account(str(budget)), list[tuple[int, int]]()
    for number, (most, share, ends_one) in enumerate(calls):
        if ends_one and under_way:
            ended, usd = under_way.pop(0)
            account.end(ended, str(usd))
        try:
            account.spending.reserve(number, Decimal(most))
        except BudgetExceeded:
            continue
        under_way.append((number, most * share // 100))
    for ended, usd in under_way:
        account.end(ended, str(usd))
    assert account.ledger.totals().cost.usd < budget + max((most for most, _, _ in calls), default=1)


def test_twenty_threads_overspend_by_one_call_at_most() -> None:
    """Each call costs 0.01 and is estimated at 0.02, of a budget of 0.10: at most 0.12, whoever is first."""
    account, ready = Account("0.10"), threading.Barrier(20)

    def spend(thread: int) -> int:
        ready.wait()
        calls = 0
        for number in range(50):
            try:
                account.spending.reserve((thread, number), Decimal("0.02"))
            except BudgetExceeded:
                continue
            calls += 1
            account.end((thread, number), "0.01")
        return calls

    with ThreadPoolExecutor(20) as threads:
        calls = sum(threads.map(spend, range(20)))
    assert Decimal("0.01") * calls == account.ledger.totals().cost.usd
    assert Decimal("0.10") <= account.ledger.totals().cost.usd <= Decimal("0.12")


# -- estimates ------------------------------------------------------------------------------------


def test_a_call_is_estimated_at_the_dearest_way_to_send_its_prompt() -> None:
    """19 bytes are at most 10 tokens at 1.9 bytes each: 20 USD at 2 for an hour's write, and 5 for each of output."""

    def price(usage: Usage) -> Cost | None:
        return Cost(Decimal(usage.input + usage.cache_write_5m + 2 * usage.cache_write_1h + 5 * usage.output))

    assert estimate(price, "x" * 19, {"max_tokens": 3}) == 20 + 15
    assert estimate(price, "", {}) == 5 * USUAL_OUTPUT
    assert estimate(lambda _: None, "x", {}) == 0


@pytest.mark.parametrize(
    ("options", "limit"),
    [
        ({"max_tokens": 100}, 100),
        ({"inferenceConfig": {"maxTokens": 200}}, 200),
        ({"model_kwargs": {"max_tokens": 300}, "max_tokens": None}, 300),
        ({"max_tokens": "many", "inferenceConfig": 7}, USUAL_OUTPUT),
        ({}, USUAL_OUTPUT),
    ],
)
def test_an_answer_is_as_long_as_its_request_allows(options: dict[str, Any], limit: int) -> None:
    assert output_limit(options) == limit


def test_a_request_is_measured_whatever_it_holds() -> None:
    itself: list[Any] = ["x" * 190]
    itself.append(itself)
    assert prompt_tokens(itself) >= 100
    assert prompt_tokens("\u4f60\u597d" * 1000) == pytest.approx(6000 / 1.9)
    assert prompt_tokens("iVBORw0KGgo" * 1000) == 1500  # an image in base64
    assert prompt_tokens(b"%PDF" * 30_000) == 4000
    assert prompt_tokens({"a": [None, 7, object(), ("b",)]}) > 0
