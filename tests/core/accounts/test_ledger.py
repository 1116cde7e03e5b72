"""Every call lands in the ledger exactly once; records are bounded, sums are not."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import pytest

from cachepoint import CacheLedger, CallRecord, Usage
from cachepoint.core.accounts.ledger import VALUES_KEPT
from cachepoint.core.accounts.record import Miss
from cachepoint.core.accounts.totals import Totals
from cachepoint.core.provider.prices import Cost

COST = Cost(Decimal("0.1"), Decimal("0.3"), Decimal("0.2"), "2026-11-01")
USAGE = Usage(input=10, cache_read=80, cache_write_5m=10, output=5)


def record(**changes: object) -> CallRecord:
    values: dict[str, object] = {
        "started": 1.0, "seconds": 0.5, "model": "us.model", "base_model": "model", "region": "us-east-1",
        "api": "converse", "mode": "auto", "status": "extended", "usage": USAGE, "cost": COST,
    }  # fmt: skip
    return CallRecord(**{**values, **changes})  # type: ignore[arg-type]


def filled(*records: CallRecord, keep: int = 10) -> CacheLedger:
    ledger = CacheLedger(keep=keep)
    for each in records:
        ledger.add(each)
    return ledger


def test_totals_are_exact_sums() -> None:
    totals = filled(*[record()] * 3).totals()
    assert totals.calls == 3
    assert totals.usage == Usage(30, 240, 30, 0, 15)
    assert totals.cost == Cost(Decimal("0.3"), Decimal("0.9"), Decimal("0.6"), "2026-11-01")
    assert totals.hit_rate == pytest.approx(0.8)


def test_an_empty_ledger_has_no_hit_rate_to_divide_by() -> None:
    assert CacheLedger().totals() == Totals()
    assert CacheLedger().totals().hit_rate == 0.0


def test_a_call_without_usage_counts_as_unreported_and_costs_nothing() -> None:
    totals = filled(record(usage=None, cost=None, status=None, error="abandoned"), record()).totals()
    assert (totals.calls, totals.unreported, totals.errors) == (2, 1, 1)
    assert totals.usage == USAGE


def test_a_call_without_a_known_price_still_counts_its_tokens() -> None:
    totals = filled(record(cost=None), record()).totals()
    assert (totals.unpriced, totals.cost) == (1, COST)
    assert totals.usage.cache_read == 160


def test_records_are_bounded_and_sums_survive_them() -> None:
    ledger = filled(*(record(started=float(number), tags={"n": str(number % 2)}) for number in range(25)), keep=4)
    assert [kept.started for kept in ledger.records] == [21.0, 22.0, 23.0, 24.0]
    assert ledger.totals().calls == 25
    assert {value: sums.calls for value, sums in ledger.by("n").items()} == {"0": 13, "1": 12}


def test_sums_are_kept_by_model_tag_and_session() -> None:
    ledger = filled(
        record(tags={"tenant": "a"}, session="s1"),
        record(tags={"tenant": "b"}, session="s1"),
        record(base_model=None),
    )
    assert {value: sums.calls for value, sums in ledger.by("model").items()} == {"model": 2, "us.model": 1}
    assert {value: sums.calls for value, sums in ledger.by("tenant").items()} == {"a": 1, "b": 1}
    assert {value: sums.calls for value, sums in ledger.by("session").items()} == {"s1": 2}
    assert ledger.by("colour") == {}


def test_a_tag_with_ever_new_values_does_not_grow_without_end() -> None:
    ledger = filled(*(record(tags={"request": str(number)}) for number in range(VALUES_KEPT + 50)))
    sums = ledger.by("request")
    assert len(sums) == VALUES_KEPT + 1
    assert sum(each.calls for each in sums.values()) == VALUES_KEPT + 50


def test_misses_are_counted_by_reason() -> None:
    ledger = filled(*(record(miss=Miss(why, "", 1, "")) for why in ("expired", "lookback", "expired")), record())
    assert ledger.totals().misses == {"expired": 2, "lookback": 1}


def test_what_is_handed_out_does_not_change_later() -> None:
    ledger = filled(record())
    before, by_model = ledger.totals(), ledger.by("model")
    ledger.add(record())
    assert (before.calls, by_model["model"].calls) == (1, 1)


def test_every_call_of_every_thread_is_counted_once() -> None:
    ledger = CacheLedger(keep=100)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(ledger.add, [record(tags={"t": "x"})] * 2000))
    assert ledger.totals().calls == ledger.by("t")["x"].calls == 2000
    assert ledger.totals().usage.output == 10_000


def test_a_call_that_ends_in_the_middle_of_another_is_counted_too() -> None:
    """As a stream does that is collected while a ledger sums: it records itself from the same thread."""
    ledger = CacheLedger()

    class Collecting(dict[str, str]):
        def items(self) -> Any:
            ledger.add(record(error="abandoned", usage=None, cost=None))
            return super().items()

        def __iter__(self) -> Any:
            return iter(dict(self.items()))

        def keys(self) -> Any:
            return dict(self.items()).keys()

    ledger.add(record(tags=Collecting(tenant="a")))
    totals = ledger.totals()
    assert totals.calls == len(ledger.records) > 1
    assert (totals.usage, totals.unreported) == (USAGE, totals.calls - 1)


def test_a_broken_sink_spoils_neither_the_sums_nor_the_other_sinks() -> None:
    heard: list[CallRecord] = []

    def broken(_: CallRecord) -> None:
        raise RuntimeError("sink")

    ledger = CacheLedger(on_call=[broken, heard.append])
    with pytest.raises(RuntimeError, match="sink"):
        ledger.add(record())
    assert len(heard) == ledger.totals().calls == 1
