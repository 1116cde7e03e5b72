"""Writes of a prefix spread over those who used it."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from cachepoint.core.accounts.sharing_out import PrefixUse, Written, prefix_use, spread
from cachepoint.core.provider.usage import Usage

SYSTEM, DOCUMENT = b"system", b"document"
ENDS = {SYSTEM: 3000.0, DOCUMENT: 9000.0}
COST = Decimal("1.2")


def used(sent: list[bytes], usage: Usage, ends: dict[bytes, float] | None = None) -> PrefixUse:
    return prefix_use("scope", ENDS if ends is None else ends, sent, usage, total=9100.0)


WROTE_BOTH = used([SYSTEM, DOCUMENT], Usage(input=100, cache_write_5m=9000))
READ_SYSTEM = used([SYSTEM], Usage(input=6100, cache_read=3000))
READ_BOTH = used([SYSTEM, DOCUMENT], Usage(input=100, cache_read=9000))


def test_what_a_call_wrote_is_cut_at_its_checkpoints() -> None:
    assert WROTE_BOTH.read is None
    assert [written.tokens for written in WROTE_BOTH.wrote] == [3000, 6000]


def test_what_a_call_read_is_named_as_it_was_written() -> None:
    assert [READ_SYSTEM.read, READ_BOTH.read] == [written.end for written in WROTE_BOTH.wrote]


def test_sizes_are_the_services_and_not_the_estimates() -> None:
    use = used([SYSTEM, DOCUMENT], Usage(input=80, cache_write_5m=7400, output=5))
    assert sum(written.tokens for written in use.wrote) == 7400
    assert used([DOCUMENT], Usage(input=80, cache_read=7390)).read == READ_BOTH.read


def test_a_call_that_extends_starts_where_it_read() -> None:
    use = used([SYSTEM, DOCUMENT], Usage(input=100, cache_read=3000, cache_write_5m=6000))
    assert use.read == READ_SYSTEM.read
    assert use.wrote == WROTE_BOTH.wrote[1:]


def test_a_read_of_what_nobody_here_wrote_has_no_name() -> None:
    assert used([], Usage(input=100, cache_read=9000), {}) == PrefixUse(read_tokens=9000)
    assert used([DOCUMENT], Usage(input=4100, cache_read=5000)).read is None


def test_scopes_do_not_share() -> None:
    elsewhere = prefix_use("other", ENDS, [SYSTEM], Usage(cache_read=3000, input=6100), 9100.0)
    assert elsewhere.read != READ_SYSTEM.read


def test_writer_and_readers_bear_a_write_alike() -> None:
    shifts = spread([("a", WROTE_BOTH, COST), ("b", READ_BOTH, Decimal(0)), ("c", READ_BOTH, Decimal(0))])
    assert shifts == {"a": Decimal("-0.8"), "b": Decimal("0.4"), "c": Decimal("0.4")}


def test_each_bears_only_the_stretch_it_used() -> None:
    shifts = spread([("a", WROTE_BOTH, COST), ("b", READ_SYSTEM, Decimal(0))])
    assert shifts == {"a": Decimal("-0.2"), "b": Decimal("0.2")}


def test_a_read_tells_how_large_a_stretch_really_was() -> None:
    read = used([SYSTEM], Usage(input=6100, cache_read=2700))
    assert spread([("a", WROTE_BOTH, COST), ("b", read, Decimal(0))]) == {"a": Decimal("-0.18"), "b": Decimal("0.18")}


def test_who_alone_uses_a_prefix_bears_it_alone() -> None:
    assert spread([("a", WROTE_BOTH, COST), ("a", READ_BOTH, Decimal(0))]) == {"a": 0}


def test_a_second_write_is_borne_by_those_who_use_it_then() -> None:
    calls = [
        ("a", WROTE_BOTH, COST),
        ("b", READ_BOTH, Decimal(0)),
        ("b", WROTE_BOTH, COST),
        ("b", READ_BOTH, Decimal(0)),
    ]
    assert spread(calls) == {"a": Decimal("-0.6"), "b": Decimal("0.6")}


USES = st.builds(
    PrefixUse,
    st.none() | st.sampled_from("pqrs"),
    st.lists(st.builds(Written, st.sampled_from("pqrs"), st.integers(0, 9999)), max_size=3).map(tuple),
    st.integers(0, 9999),
)
CALLS = st.lists(
    st.tuples(st.none() | st.sampled_from("abc"), USES, st.decimals(0, 100, places=9)), max_size=30
)  # fmt: skip


@given(CALLS)
def test_spreading_moves_money_and_makes_none(calls: list[tuple[str | None, PrefixUse, Decimal]]) -> None:
    assert sum(spread(calls).values()) == 0
