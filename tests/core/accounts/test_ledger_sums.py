"""The ledger's sums: grouped by what calls carry, and bounded whatever they carry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal

import pytest

from cachepoint.core.accounts import ledger as ledger_module
from cachepoint.core.accounts.ledger import OTHER, CacheLedger
from cachepoint.core.accounts.record import CallRecord, Miss
from cachepoint.core.accounts.sharing_out import PrefixUse, Written
from cachepoint.core.accounts.totals import table
from cachepoint.core.provider.prices import Cost
from cachepoint.core.provider.usage import Usage
from cachepoint.errors import ConfigurationError

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
    # Keys one too many are not told apart either: under each, what calls with any of them cost.
    assert {value: totals.calls for value, totals in ledger.by("key8").items()} == {OTHER: 8}
    assert ledger.by("key8", shared="pro_rata").keys() == {OTHER}
    assert ledger.summary().endswith("8 with more tags than are told apart, summed as (other)")
    assert sum(each.calls for each in ledger.by("request", shared="pro_rata").values()) == 9


def test_all_sums_together_are_bounded_and_no_call_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three new values with each call: 7 sums are kept, which are two calls' and one of the third's; then each key has
    one more. Models are told apart all the same."""
    monkeypatch.setattr(ledger_module, "SUMS_KEPT", 7)
    ledger = CacheLedger(keep=0)
    for number in range(100):
        ledger.add(replace(tagged(a=f"a{number}", b=f"b{number}", session=f"s{number}"), model=f"m{number % 20}"))
    assert {key: len(ledger.by(key)) for key in ("session", "a", "b")} == {"session": 4, "a": 3, "b": 3}
    assert all(sum(each.calls for each in ledger.by(key).values()) == 100 for key in ("model", "session", "a", "b"))
    assert len(ledger.by("model")) == 20
    assert ledger.summary().endswith("98 with more tags than are told apart, summed as (other)")


# -- shared out, worked by hand -------------------------------------------------------------------


def used(tenant: str, started: float, write_usd: str, prefix: PrefixUse) -> CallRecord:
    cost = Cost(Decimal(write_usd), Decimal(1), Decimal(1) - Decimal(write_usd), "", Decimal(write_usd))
    return replace(CALL, tags={"tenant": tenant} if tenant else {}, started=started, prefix=prefix, cost=cost)


WRITE, READ = PrefixUse(None, (Written("p", 90),)), PrefixUse("p", (), 90)


def test_a_write_is_borne_by_all_who_read_it_whatever_order_they_ended_in() -> None:
    """0.60 USD for a prefix that a wrote and b and c read: 0.20 each; the read that ended first started last."""
    ledger = CacheLedger()
    for record in (used("b", 2.0, "0", READ), used("a", 1.0, "0.60", WRITE), used("c", 3.0, "0", READ)):
        ledger.add(record)
    billed, shared = ledger.by("tenant"), ledger.by("tenant", shared="pro_rata")
    assert {name: totals.cost.usd for name, totals in billed.items()} == {"a": Decimal("0.6"), "b": 0, "c": 0}
    assert {name: totals.cost.usd for name, totals in shared.items()} == dict.fromkeys("abc", Decimal("0.2"))
    assert {name: totals.cost.saved_usd for name, totals in shared.items()} == dict.fromkeys("abc", Decimal("0.8"))
    assert {name: totals.usage for name, totals in shared.items()} == dict.fromkeys("abc", CALL.usage)


def test_what_calls_without_the_key_bear_is_in_no_sum() -> None:
    """Half of 0.60 USD goes to a call of nobody: 0.30 are left to a."""
    ledger = CacheLedger()
    ledger.add(used("a", 1.0, "0.60", WRITE))
    ledger.add(used("", 2.0, "0", READ))
    assert {name: totals.cost.usd for name, totals in ledger.by("tenant", shared="pro_rata").items()} == {
        "a": Decimal("0.3")
    }


def test_a_call_without_a_cost_bears_its_share() -> None:
    ledger = CacheLedger()
    ledger.add(used("a", 1.0, "0.60", WRITE))
    ledger.add(replace(used("b", 2.0, "0", READ), cost=None))
    shared = ledger.by("tenant", shared="pro_rata")
    assert shared["b"].cost.usd == Decimal("0.3")


@pytest.mark.parametrize(("key", "shared"), [("tag", "pro_rata"), ("tenant", "evenly"), ("tenant", "")])
def test_another_way_to_share_is_refused_by_name(key: str, shared: str) -> None:
    with pytest.raises(ConfigurationError, match=f"by\\('{key}', shared='{shared}'\\)"):
        CacheLedger().by(key, shared=shared)  # type: ignore[arg-type]


def test_tags_without_values_are_summed_as_billed() -> None:
    ledger = CacheLedger()
    ledger.add(tagged(beta="", gamma=""))
    assert {name: totals.calls for name, totals in ledger.by("tag").items()} == {"beta": 1, "gamma": 1}


def test_a_tag_called_as_a_field_does_not_count_twice() -> None:
    ledger = CacheLedger()
    ledger.add(replace(CALL, tags={"model": "other", "session": "other"}, session="s"))
    assert list(ledger.by("model")) == ["m"]
    assert list(ledger.by("session")) == ["s"]


def test_an_empty_session_is_one() -> None:
    ledger = CacheLedger()
    ledger.add(replace(CALL, session=""))
    assert ledger.by("session")[""].calls == 1


def test_ten_thousand_records_and_values_and_a_thousand_keys_are_kept_unless_told() -> None:
    """A key, a value or a record more, and the first is no longer there on its own."""
    assert (ledger_module.RECORDS_KEPT, ledger_module.KEYS_KEPT, ledger_module.VALUES_KEPT) == (10_000, 1_000, 10_000)
    ledger = CacheLedger()
    for _ in range(3):
        ledger.add(replace(CALL, tags={f"key{number}": "x" for number in range(1_100)}))
    keys = [number for number in range(1_100) if "x" in ledger.by(f"key{number}")]
    assert keys == list(range(999))  # beside the model
    assert {ledger.by(f"key{number}")["x"].calls for number in keys} == {3}


def test_a_sink_may_stand_alone_and_hears_a_call_once_it_is_summed() -> None:
    heard: list[int] = []
    ledger = CacheLedger(on_call=lambda record: heard.append(ledger.totals().calls))
    ledger.add(CALL)
    ledger.add(CALL)
    assert heard == [1, 2]


def test_what_the_first_broken_sink_raised_is_raised() -> None:
    def broken(name: str) -> Callable[[CallRecord], None]:
        def sink(_: CallRecord) -> None:
            raise RuntimeError(name)

        return sink

    with pytest.raises(RuntimeError, match="first"):
        CacheLedger(on_call=[broken("first"), broken("second")]).add(CALL)


def test_a_call_that_cannot_be_summed_does_not_stop_the_next() -> None:
    ledger = CacheLedger()
    with pytest.raises(AttributeError):
        ledger.add(replace(CALL, tags=None))  # type: ignore[arg-type]
    ledger.add(tagged(tenant="a"))
    assert ledger.by("tenant")["a"].calls == 1


def test_the_summary_is_the_table_of_all_models() -> None:
    ledger = CacheLedger()
    ledger.add(CALL)
    assert ledger.summary() == table(ledger.totals(), {"m": ledger.totals()})


def test_values_beyond_those_kept_bear_their_shares_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """0.60 USD that a wrote and b and c read: 0.40 to the two of them, who have no sum of their own."""
    monkeypatch.setattr(ledger_module, "VALUES_KEPT", 1)
    ledger = CacheLedger()
    for record in (used("a", 1.0, "0.60", WRITE), used("b", 2.0, "0", READ), used("c", 3.0, "0", READ)):
        ledger.add(record)
    shared = ledger.by("tenant", shared="pro_rata")
    assert {name: totals.cost.usd for name, totals in shared.items()} == {"a": Decimal("0.2"), OTHER: Decimal("0.4")}


def test_a_call_that_ends_while_another_is_summed_is_not_lost() -> None:
    """As an abandoned stream does that is collected at that very moment, in the same thread."""
    ledger, waiting = CacheLedger(), [replace(CALL, model="collected")]

    class Collecting(Miss):
        def __bool__(self) -> bool:
            if waiting:
                ledger.add(waiting.pop())
            return True

    ledger.add(replace(CALL, miss=Collecting("expired", "", 1, "")))
    assert (ledger.totals().calls, ledger.totals().usage) == (2, Usage(20, 180, output=10))
    assert {name: totals.calls for name, totals in ledger.by("model").items()} == {"m": 1, "collected": 1}
