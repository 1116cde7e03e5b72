"""What is remembered of a call, and how it is printed and read back."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from cachepoint.core.accounts.record import CallRecord, Miss, Status, read_contract, status_of
from cachepoint.core.accounts.sharing_out import PrefixUse
from cachepoint.core.planning.plan import Checkpoint
from cachepoint.core.planning.reasons import Placed, Rejected
from cachepoint.core.prompt.prompt import Where
from cachepoint.core.provider.prices import Cost
from cachepoint.core.provider.usage import Usage

POINT = Checkpoint(
    3, Where("system", None, 1), None, "1h", 4000, Placed("quoted", text="the system prompt"), path="system[2]"
)
HELD = Rejected("messages[0].content[0]", "below_minimum", text="too small")
MISS = Miss("expired", "system[0]", 90, "a hint", "0.0001")
CALL = CallRecord(
    started=5.0, seconds=1.5, model="us.m", base_model="m", region="eu-west-1", api="converse", mode="auto",
    status="hit", usage=Usage(10, 90, output=5), checkpoints=(POINT,), held=(HELD,), miss=MISS,
    tags={"tenant": "a"}, session="s",
    cost=Cost(Decimal("0.001"), Decimal("0.004"), Decimal("0.003"), "2026-11-04"),
)  # fmt: skip
CONTRACT = {
    "v": 1,
    "mode": "auto",
    "status": "hit",
    "checkpoints": [{"path": "system[2]", "tokens": 4000, "ttl": "1h", "why": "the system prompt"}],
    "usage": {"input": 10, "cache_read": 90, "cache_write_5m": 0, "cache_write_1h": 0, "output": 5},
    "cost": {"usd": "0.001", "uncached_usd": "0.004", "saved_usd": "0.003", "prices_as_of": "2026-11-04"},
    "held": [{"path": "messages[0].content[0]", "reason": "below_minimum", "why": "too small"}],
    "miss": {
        "reason": "expired", "path": "system[0]", "lost_tokens": 90, "lost_usd": "0.0001", "hint": "a hint",
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("usage", "status"),
    [
        (Usage(cache_read=1), "hit"),
        (Usage(cache_read=1, cache_write_5m=1), "extended"),
        (Usage(cache_read=1, cache_write_1h=1), "extended"),
        (Usage(cache_write_1h=1), "written"),
        (Usage(input=1, output=1), "uncached"),
    ],
)
def test_the_status_tells_what_was_read_and_written(usage: Usage, status: Status) -> None:
    assert status_of(usage) == status


def test_a_record_prints_its_contract() -> None:
    assert CALL.contract() == CONTRACT


def test_a_record_prints_whole() -> None:
    assert CALL.to_dict() == {
        "started": 5.0, "seconds": 1.5, "model": "us.m", "base_model": "m", "region": "eu-west-1", "api": "converse",
        "session": "s", "tags": {"tenant": "a"}, "error": None, "at_least": False,
        "retries": 0, **CONTRACT,
    }  # fmt: skip


def test_a_record_shows_nothing_of_what_was_read_and_written() -> None:
    assert "prefix" not in repr(CALL)
    assert CALL.prefix == PrefixUse()


def test_a_contract_read_back_has_the_place_but_not_the_plan() -> None:
    told = read_contract(CONTRACT)
    assert (told.mode, told.status, told.usage, told.cost, told.miss) == ("auto", "hit", CALL.usage, CALL.cost, MISS)
    assert told.checkpoints == (
        Checkpoint(
            -1, Where("system", None, 2), None, "1h", 4000, Placed("quoted", text="the system prompt"), path="system[2]"
        ),
    )


@pytest.mark.parametrize(
    ("path", "where"),
    [
        ("tools[3]", Where("tools", None, 3)),
        ("system[0]", Where("system", None, 0)),
        ("messages[12].content[1]", Where("messages", 12, 1)),
        ("messages[0].content[0]", Where("messages", 0, 0)),
        ("messages[2].content[0].toolResult.content[4]", Where("messages", 2, 0, nested=4)),
        ("messages[2].content[5].toolResult.content[0]", Where("messages", 2, 5, nested=0)),
    ],
)
def test_a_place_is_read_back_as_it_was_printed(path: str, where: Where) -> None:
    point = {"path": path, "tokens": 1, "ttl": "5m", "why": ""}
    read = read_contract({**CONTRACT, "checkpoints": [point]})
    assert [each.where for each in read.checkpoints] == [where]
    assert where.path == path


@pytest.mark.parametrize("path", ["messages[1]", "system", "documents[0]", "system[0].content[1]", "tools[-1]", ""])
def test_what_is_no_place_is_not_read_as_one(path: str) -> None:
    with pytest.raises(ValueError, match="is no place in a request"):
        read_contract({**CONTRACT, "checkpoints": [{"path": path, "tokens": 1, "ttl": "5m", "why": ""}]})


def test_a_miss_costs_what_reading_would_have_saved() -> None:
    """A million tokens at 3.00 USD read for 0.30 USD save 2.70 USD."""
    missed = Miss("expired", "system[0]", 1_000_000, "a hint")
    read = Cost(Decimal("0.30"), Decimal("3.00"), Decimal("2.70"))
    assert missed.priced(read).lost_usd == "2.7"
    assert missed.priced(None) is missed
    assert missed.lost_usd is None


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
    record = replace(CALL, checkpoints=points, miss=miss)
    bare = replace(CALL, status=None, usage=None, cost=None, miss=None, checkpoints=())
    # Read into the other one, so that nothing is right because it was there before.
    assert replace(bare, **read_contract(record.contract())._asdict()) == record
    assert replace(record, **read_contract(bare.contract())._asdict()) == bare


@pytest.mark.parametrize("contract", [{}, {"mode": "auto"}, [], None, "x"])
def test_what_is_no_contract_is_not_read_as_one(contract: object) -> None:
    with pytest.raises((KeyError, TypeError)):
        read_contract(contract)  # type: ignore[arg-type]
