"""Sums over calls, and the table of them."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from cachepoint.core.accounts.record import CallRecord, Miss, MissReason
from cachepoint.core.accounts.totals import Totals, table
from cachepoint.core.provider.prices import Cost
from cachepoint.core.provider.usage import Usage

CALL = CallRecord(
    started=0.0, seconds=1.0, model="m", base_model=None, region=None, api="converse", mode="auto", status="hit",
    usage=Usage(10, 60, 20, 10, 5), cost=Cost(Decimal("0.25"), Decimal(1), Decimal("0.75"), "2026-11-04"),
)  # fmt: skip
FAILED = replace(CALL, usage=None, cost=None, status=None, error="ReadTimeoutError")
UNPRICED = replace(CALL, cost=None)


def summed(*records: CallRecord) -> Totals:
    totals = Totals()
    for record in records:
        totals = totals.plus(record)
    return totals


def missed(reason: MissReason) -> CallRecord:
    return replace(CALL, miss=Miss(reason, "", 1, ""))


def test_each_call_adds_what_it_has() -> None:
    assert summed(CALL, CALL) == Totals(
        2, Usage(20, 120, 40, 20, 10), Cost(Decimal("0.5"), Decimal(2), Decimal("1.5"), "2026-11-04")
    )
    assert summed(FAILED) == Totals(1, unreported=1, errors=1)
    assert summed(UNPRICED, UNPRICED) == Totals(2, Usage(20, 120, 40, 20, 10), unpriced=2)


def test_what_is_missing_is_counted_beside_what_is_there() -> None:
    totals = summed(CALL, FAILED, UNPRICED, FAILED, CALL)
    assert (totals.calls, totals.unpriced, totals.unreported, totals.errors) == (5, 1, 2, 2)
    assert totals.cost == summed(CALL, CALL).cost
    assert totals.usage == summed(CALL, CALL, CALL).usage


def test_an_error_after_the_usage_came_is_an_error_all_the_same() -> None:
    totals = summed(replace(CALL, error="abandoned"))
    assert (totals.errors, totals.unreported, totals.usage) == (1, 0, CALL.usage)


def test_the_hit_rate_is_what_was_read_of_the_prompts() -> None:
    """60 of 10 + 60 + 20 + 10 tokens."""
    assert summed(CALL, CALL).hit_rate == 0.6
    assert Totals().hit_rate == 0.0
    assert summed(replace(CALL, usage=Usage(output=5))).hit_rate == 0.0


def test_sums_print_as_plain_json() -> None:
    assert summed(missed("expired"), missed("expired"), missed("lookback"), FAILED).to_dict() == {
        "calls": 4,
        "usage": {"input": 30, "cache_read": 180, "cache_write_5m": 60, "cache_write_1h": 30, "output": 15},
        "cost": {"usd": "0.75", "uncached_usd": "3", "saved_usd": "2.25", "prices_as_of": "2026-11-04"},
        "hit_rate": 0.6,
        "misses": {"expired": 2, "lookback": 1},
        "unpriced": 0,
        "unreported": 1,
        "errors": 1,
        "at_least": 0,
        "retries": 0,
    }


def test_what_may_have_been_billed_besides_is_counted_and_named() -> None:
    left, repeated = replace(CALL, at_least=True), replace(CALL, retries=2)
    totals = summed(left, repeated, repeated)
    assert (totals.at_least, totals.retries) == (1, 4)
    assert table(totals, {}).splitlines()[2:] == [
        "1 cut, left or lost, which may have been billed more than is counted",
        "4 earlier attempts, of which those that timed out or lost their connection may have been billed",
    ]


def test_a_sum_keeps_its_misses_when_another_call_is_added() -> None:
    before = summed(missed("expired"))
    before.plus(missed("expired"))
    assert before.misses == {"expired": 1}


def test_the_table_has_a_line_for_each_model_and_one_for_all() -> None:
    small, large = summed(CALL), summed(*[replace(CALL, usage=Usage(1000, 2000, 500, 500, 70))] * 2)
    assert table(summed(CALL), {"m": small, "longer-name": large}).splitlines() == [
        "model        calls  input   read  written  output  hit rate       USD  uncached     saved",
        "m                1     10     60       30       5     60.0%  0.250000  1.000000  0.750000",
        "longer-name      2  2,000  4,000    2,000     140     50.0%  0.500000  2.000000  1.500000",
        "all              1     10     60       30       5     60.0%  0.250000  1.000000  0.750000",
    ]


def test_the_table_ends_with_what_is_missing_and_the_misses_most_frequent_first() -> None:
    reasons: tuple[MissReason, ...] = ("lookback", "not_marked", "expired", "lookback")
    records = [FAILED, FAILED, UNPRICED, *(missed(reason) for reason in reasons)]
    assert table(summed(*records), {}).splitlines()[2:] == [
        "2 failed",
        "2 without a usage",
        "1 without a known price",
        "misses: lookback 2, expired 1, not_marked 1",
    ]
    assert len(table(summed(CALL), {}).splitlines()) == 2
