"""Writes of a prefix spread over those who used it."""

from __future__ import annotations

from decimal import Decimal

import pytest
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


# -- worked by hand -------------------------------------------------------------------------------


def whole(usage: Usage, sent: tuple[bytes, ...] = (SYSTEM, DOCUMENT)) -> PrefixUse:
    """A use whose estimates are the service's own counts: the prompt is as large as was thought."""
    return prefix_use("scope", ENDS, sent, usage, total=usage.prompt)


@pytest.mark.parametrize(
    ("read", "named"), [(3000, True), (2609, True), (2608, False), (3529, True), (3530, False), (9000, True)]
)
def test_a_read_is_named_where_it_is_within_15_percent(read: int, named: bool) -> None:
    """3,000 is 391 above 2,609, which is 0.15 of it just about, and 529 below 3,529; one token more is too far."""
    assert (whole(Usage(input=100, cache_read=read)).read is not None) is named


def test_a_read_is_of_the_nearest_prefix() -> None:
    near = prefix_use("scope", {b"a": 1000.0, b"b": 1100.0}, [], Usage(cache_read=1060, input=40), 1100)
    exact = prefix_use("scope", {b"b": 1100.0}, [], Usage(cache_read=1100), 1100)
    assert near.read == exact.read


def test_estimates_are_scaled_by_what_the_whole_prompt_came_to() -> None:
    """The prompt has 4,550 tokens where 9,100 were thought: the prefix of 3,000 is one of 1,500."""
    use = used([SYSTEM, DOCUMENT], Usage(input=50, cache_read=1500, cache_write_5m=3000))
    assert (use.read, use.read_tokens) == (READ_SYSTEM.read, 1500)
    assert use.wrote == (Written(WROTE_BOTH.wrote[1].end, 3000),)


def test_a_prompt_of_which_nothing_was_estimated_is_taken_as_it_is() -> None:
    use = prefix_use("scope", ENDS, [SYSTEM], Usage(cache_write_5m=3000), total=0)
    assert use.wrote == WROTE_BOTH.wrote[:1]


def test_what_was_written_goes_to_the_stretches_by_their_size() -> None:
    """10 tokens over ends at 3,000 and 9,000: a third is 3, and the rest 7."""
    use = whole(Usage(input=8990, cache_write_1h=10))
    assert [written.tokens for written in use.wrote] == [3, 7]


def test_nothing_is_written_without_tokens_or_checkpoints() -> None:
    assert whole(Usage(input=9000)) == PrefixUse()
    assert whole(Usage(cache_write_5m=9000), sent=()) == PrefixUse()


def test_a_checkpoint_at_what_was_read_wrote_nothing() -> None:
    """Neither one at its end nor one before it, though the read came a little short of the estimate."""
    use = whole(Usage(input=500, cache_read=8600, cache_write_5m=100))
    assert use == PrefixUse(READ_BOTH.read, (), 8600)


def test_a_read_without_a_name_counts_where_writes_begin() -> None:
    """5,000 read of nobody's: the system prompt of 3,000 lies within; only the document was written."""
    use = whole(Usage(input=0, cache_read=5000, cache_write_5m=4000))
    assert use == PrefixUse(None, (Written(WROTE_BOTH.wrote[1].end, 4000),), 5000)


def test_names_are_24_hex_digits_that_do_not_show_the_digest() -> None:
    name = READ_SYSTEM.read
    assert name is not None
    assert (len(name), SYSTEM.hex() in name) == (24, False)


def test_uses_count_as_often_as_they_are() -> None:
    """1.20 USD used by its writer and three times by b: three quarters go to b."""
    read = (READ_SYSTEM, Decimal(0))
    wrote = PrefixUse(None, WROTE_BOTH.wrote[:1])
    assert spread([("a", wrote, COST), *[("b", *read)] * 3]) == {"a": Decimal("-0.9"), "b": Decimal("0.9")}


def test_what_stands_on_a_prefix_uses_it() -> None:
    """a wrote the system prompt for 1.20, b read it and wrote the document for 2.40, c read both.

    The system prompt has three users, 0.40 each: a gives 0.80. The document has two, 1.20 each: b gives 1.20 and takes
    0.40, c takes 0.40 and 1.20.
    """
    system, document = WROTE_BOTH.wrote
    calls = [
        ("a", PrefixUse(None, (system,)), COST),
        ("b", PrefixUse(system.end, (document,), 3000), 2 * COST),
        ("c", PrefixUse(document.end, (), 9000), Decimal(0)),
    ]
    assert spread(calls) == {"a": Decimal("-0.8"), "b": Decimal("-0.8"), "c": Decimal("1.6")}


def test_calls_of_nobody_bear_their_share_too() -> None:
    assert spread([(None, WROTE_BOTH, COST), ("b", READ_BOTH, Decimal(0))]) == {
        None: Decimal("-0.6"),
        "b": Decimal("0.6"),
    }


def test_who_paid_keeps_what_does_not_divide() -> None:
    """1 USD by three: 0.333333333333333 to each of the two readers, 15 places and no more."""
    third = Decimal("0.333333333333333")
    shifts = spread(
        [("a", PrefixUse(None, WROTE_BOTH.wrote[:1]), Decimal(1)), *[(u, READ_SYSTEM, Decimal(0)) for u in "bc"]]
    )
    assert shifts == {"b": third, "c": third, "a": -2 * third}


def test_a_read_of_what_nobody_wrote_moves_nothing() -> None:
    assert spread([("a", READ_BOTH, Decimal(0)), ("b", PrefixUse(), Decimal(0))]) == {}


def test_sizes_that_reads_tell_stay_within_what_was_written() -> None:
    """A read of 9,999 tells more of the first stretch than the 9,000 that were paid for: all of it is paid there."""
    read = PrefixUse(READ_SYSTEM.read, (), 9999)
    assert spread([("a", WROTE_BOTH, COST), ("b", read, Decimal(0))]) == {"a": Decimal("-0.6"), "b": Decimal("0.6")}


def test_a_read_tells_the_size_from_where_the_write_began() -> None:
    """Read up to 1,000, then two stretches of 1,000, of which the first ends at 2,600 as a read tells: 0.96 of 1.20."""
    wrote = PrefixUse("o", (Written("p", 1000), Written("q", 1000)), 1000)
    shifts = spread([("a", wrote, COST), ("b", PrefixUse("p", (), 2600), Decimal(0))])
    assert shifts == {"a": Decimal("-0.48"), "b": Decimal("0.48")}


def test_a_write_of_no_tokens_costs_nothing_to_share() -> None:
    empty = PrefixUse(None, (Written("p", 0),))
    assert spread([("a", empty, Decimal(0)), ("b", PrefixUse("p"), Decimal(0))]) == {"a": 0, "b": 0}


def test_all_that_was_paid_is_shared_whatever_size_a_read_tells() -> None:
    """9,000 tokens for 1.20 USD were one stretch: half of it goes to the reader, although the read was of 8,000."""
    wrote, read = PrefixUse(None, (Written("p", 9000),)), PrefixUse("p", (), 8000)
    assert spread([("a", wrote, COST), ("b", read, Decimal(0))]) == {"a": Decimal("-0.6"), "b": Decimal("0.6")}


def test_a_prefix_of_the_size_that_was_read_was_not_written() -> None:
    ends = {b"one": 3000.0, b"same size": 3000.0}
    use = prefix_use("scope", ends, list(ends), Usage(input=90, cache_read=3000, cache_write_5m=10), 3100)
    assert use.wrote == ()
