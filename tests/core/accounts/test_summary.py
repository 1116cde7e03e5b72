"""A report shows what its ledger knows."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from cachepoint.core.accounts.ledger import CacheLedger
from cachepoint.core.accounts.record import CallRecord, Miss
from cachepoint.core.accounts.summary import LedgerReport
from cachepoint.core.provider.prices import Cost
from cachepoint.core.provider.usage import Usage

CALL = CallRecord(
    started=0.0, seconds=1.0, model="m", base_model=None, region=None, api="converse", mode="auto", status="hit",
    usage=Usage(10, 90, output=5), cost=Cost(Decimal("0.25"), Decimal(1), Decimal("0.75"), "2026-11-04"),
    miss=Miss("expired", "", 1, ""),
)  # fmt: skip


def test_a_report_is_its_ledger() -> None:
    report = LedgerReport()
    report.ledger = CacheLedger()
    for record in (CALL, replace(CALL, model="n", tags={"tenant": "a"})):
        report.ledger.add(record)
    assert (report.calls, report.hit_rate, report.usage) == (2, 0.9, Usage(20, 180, output=10))
    assert (report.cost.usd, report.misses) == (Decimal("0.5"), {"expired": 2})
    assert [record.model for record in report.records] == ["m", "n"]
    assert {name: totals.calls for name, totals in report.by("tenant").items()} == {"a": 1}
    assert report.summary() == report.ledger.summary()
    assert report.to_dict() == {
        **report.ledger.totals().to_dict(),
        "by_model": {name: totals.to_dict() for name, totals in report.ledger.by("model").items()},
    }
