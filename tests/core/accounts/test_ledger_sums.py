"""The ledger's sums: grouped by what calls carry, and bounded whatever they carry."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from cachepoint.core.accounts import ledger as ledger_module
from cachepoint.core.accounts.ledger import OTHER, CacheLedger
from cachepoint.core.accounts.record import CallRecord, Miss, read_contract
from cachepoint.core.accounts.sharing_out import PrefixUse, Written
from cachepoint.core.planning.plan import Checkpoint
from cachepoint.core.planning.reasons import Placed, Rejected
from cachepoint.core.prompt.prompt import Where
from cachepoint.core.provider.prices import Cost
from cachepoint.core.provider.usage import Usage

CALL = CallRecord(
    started=0.0, seconds=1.0, model="m", base_model=None, region=None, api="converse", mode="auto", status="hit",
    usage=Usage(10, 90, output=5), cost=Cost(Decimal("0.001"), Decimal("0.004"), Decimal("0.003"), "2026-11-04"),
)  # fmt: skip


def tagged(**tags: str) -> CallRecord:
    return replace(CALL, tags=tags, session=tags.get("session"))


def test_calls_are_summed_by_model_session_and_each_tag() -> None:
    ledger = CacheLedger()
    for record in (tagged(tenant="a", session="s", beta=""), tagged(tenant="a"), tagged(tenant="b", beta="")):
        ledger.add(record)
    assert {value: totals.calls for value, totals in ledger.by("tenant").items()} == {"a": 2, "b": 1}
    assert {value: totals.calls for value, totals in ledger.by("tag").items()} == {"beta": 2}
    assert {value: totals.calls for value, totals in ledger.by("session").items()} == {"s": 1}
    assert ledger.by("model")["m"] == ledger.totals()
    assert ledger.by("beta") == {}


def test_a_base_model_stands_for_the_arn_in_front_of_it() -> None:
    ledger = CacheLedger()
    ledger.add(replace(CALL, model="arn:x", base_model="m"))
    assert list(ledger.by("model")) == ["m"]


def test_sums_are_bounded_where_values_or_keys_are_made_up_for_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "VALUES_KEPT", 3)
    monkeypatch.setattr(ledger_module, "KEYS_KEPT", 4)
    ledger = CacheLedger(keep=10)
    use = PrefixUse(None, (Written("p", 90),))
    for number in range(9):
        record = tagged(**{"request": str(number), f"key{number}": "x", f"tag{number}": ""})
        ledger.add(replace(record, prefix=use))
    assert {value: totals.calls for value, totals in ledger.by("request").items()} == {"0": 1, "1": 1, "2": 1, OTHER: 6}
    assert ledger.by("tag")[OTHER].calls == 6
    assert ledger.by("key8") == ledger.by("key8", shared="pro_rata") == {}
    assert sum(each.calls for each in ledger.by("request", shared="pro_rata").values()) == 9


def test_a_contract_read_back_is_the_record_it_was_printed_from() -> None:
    places = (
        Where("tools", None, 3),
        Where("system", None, 0),
        Where("messages", 12, 1),
        Where("messages", 2, 0, nested=4),
    )
    points = tuple(
        Checkpoint(-1, where, None, "1h", 7, Placed("quoted", text="why"), path=where.path) for where in places
    )
    miss = Miss("expired", "system[0]", 90, "a hint", "0.0001")
    held = (Rejected("system[1]", "below_minimum", text="too small"),)
    record = replace(CALL, checkpoints=points, miss=miss, held=held)
    assert replace(CALL, **read_contract(record.contract())._asdict()) == record
    bare = replace(CALL, status=None, usage=None, cost=None)
    assert replace(CALL, **read_contract(bare.contract())._asdict()) == bare


@pytest.mark.parametrize("contract", [{}, {"mode": "auto"}, [], None, "x"])
def test_what_is_no_contract_is_not_read_as_one(contract: object) -> None:
    with pytest.raises((KeyError, TypeError)):
        read_contract(contract)  # type: ignore[arg-type]
