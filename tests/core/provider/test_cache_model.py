"""The provider's cache: what a request reads, writes and leaves, and the switches where the sources leave it open."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachepoint.core.provider.cache_model import CacheModel, CacheRequest, CacheSwitches, Point, Position, Served
from cachepoint.core.provider.rules import TTL, ModelRule
from cachepoint.core.provider.usage import Usage

RULE = ModelRule(name="test", pattern=".", minimum=1000, ttls=("5m", "1h"))
BLOCK = 500


def prompt(*blocks: str, points: tuple[tuple[int, TTL], ...] = (), scope: str = "account") -> CacheRequest:
    """Blocks of 500 tokens each and three tokens after the last; points by the number of blocks before them."""
    positions = [Position("/".join(blocks[: n + 1]).encode(), BLOCK * (n + 1)) for n in range(len(blocks))]
    return CacheRequest(scope, positions, [Point(after - 1, ttl) for after, ttl in points], BLOCK * len(blocks) + 3)


class Service:
    """A cache with a clock; every response begins at once unless told otherwise."""

    def __init__(self, rule: ModelRule = RULE, **switches: bool | int) -> None:
        self.model = CacheModel(CacheSwitches(**switches))  # type: ignore[arg-type]
        self.rule, self.now = rule, 1000.0

    def asks(self, request: CacheRequest, begins: bool = True) -> Served:
        served = self.model.serve(request, self.rule, self.now)
        if begins:
            self.model.begin_response(served, self.now)
        return served

    def uses(self, *blocks: str, points: tuple[tuple[int, TTL], ...] = (), scope: str = "account") -> Usage:
        return self.asks(prompt(*blocks, points=points, scope=scope)).usage


def test_a_prefix_is_written_once_and_then_read() -> None:
    service = Service()
    assert service.uses("a", "b", "c", points=((2, "5m"),)) == Usage(input=503, cache_write_5m=1000)
    assert service.uses("a", "b", "d", points=((2, "5m"),)) == Usage(input=503, cache_read=1000)


def test_nothing_is_written_without_a_checkpoint_or_below_the_minimum() -> None:
    service = Service()
    assert service.uses("a", "b", "c") == Usage(input=1503)
    assert service.uses("a", "b", points=((1, "5m"),)) == Usage(input=1003)


def test_every_checkpoint_that_reaches_the_minimum_makes_an_entry() -> None:
    service = Service()
    service.uses("a", "b", "c", "d", points=((2, "5m"), (4, "5m")))
    assert service.uses("a", "b", "x", points=((2, "5m"),)).cache_read == 1000


def test_a_longer_prompt_reads_the_highest_entry_and_writes_the_rest() -> None:
    service = Service()
    service.uses("a", "b", points=((2, "5m"),))
    assert service.uses("a", "b", "c", "d", points=((4, "5m"),)) == Usage(3, cache_read=1000, cache_write_5m=1000)


def test_mixed_ttls_split_the_write() -> None:
    service = Service()
    usage = service.uses("a", "b", "c", "d", points=((2, "1h"), (4, "5m")))
    assert usage == Usage(3, cache_write_5m=1000, cache_write_1h=1000)
    service.now += 600
    assert service.uses("a", "b", "c", "d", points=((2, "1h"), (4, "5m"))) == Usage(
        3, cache_read=1000, cache_write_5m=1000
    )


@pytest.mark.parametrize(("added", "reads"), [(19, True), (20, False)])
def test_a_checkpoint_looks_back_over_twenty_positions_its_own_included(added: int, reads: bool) -> None:
    service = Service()
    service.uses("a", "b", points=((2, "5m"),))
    more = [f"block{number}" for number in range(added)]
    assert (service.uses("a", "b", *more, points=((added + 2, "5m"),)).cache_read == 1000) is reads


def test_lookback_may_be_more_than_documented() -> None:
    service = Service(lookback_extra=2)
    service.uses("a", "b", points=((2, "5m"),))
    more = [f"block{number}" for number in range(21)]
    assert service.uses("a", "b", *more, points=((23, "5m"),)).cache_read == 1000


@pytest.mark.parametrize(("ttl", "lives", "dies"), [("5m", 299.0, 300.0), ("1h", 3599.0, 3600.0)])
def test_an_entry_lives_as_long_as_its_ttl(ttl: TTL, lives: float, dies: float) -> None:
    for age, read in ((lives, 1000), (dies, 0)):
        service = Service()
        service.uses("a", "b", points=((2, ttl),))
        service.now += age
        assert service.uses("a", "b", points=((2, ttl),)).cache_read == read


def test_every_read_starts_its_time_again() -> None:
    service = Service()
    for _ in range(5):
        service.uses("a", "b", points=((2, "5m"),))
        service.now += 200
    assert service.uses("a", "b", points=((2, "5m"),)).cache_read == 1000


def test_a_clock_that_goes_back_lengthens_no_life() -> None:
    service = Service()
    service.uses("a", "b", points=((2, "5m"),))
    service.now -= 5000
    service.uses("a", "b", points=((2, "5m"),))
    service.now += 301
    assert service.uses("a", "b", points=((2, "5m"),)).cache_read == 0


@pytest.mark.parametrize(("refresh_inner", "reads"), [(True, 1000), (False, 0)])
def test_a_read_may_keep_inner_entries_alive(refresh_inner: bool, reads: int) -> None:
    service = Service(refresh_inner=refresh_inner)
    for pause in (200, 150):
        service.uses("a", "b", "c", "d", points=((2, "5m"), (4, "5m")))
        service.now += pause
    assert service.uses("a", "b", "x", points=((3, "5m"),)).cache_read == reads


@pytest.mark.parametrize(("readable", "reads"), [(False, 0), (True, 1000)])
def test_an_entry_in_flight_is_unreadable_unless_switched(readable: bool, reads: int) -> None:
    service = Service(in_flight_readable=readable)
    first = service.asks(prompt("a", "b", points=((2, "5m"),)), begins=False)
    assert service.uses("a", "b", points=((2, "5m"),)).cache_read == reads
    service.model.begin_response(first, service.now)
    assert service.uses("a", "b", points=((2, "5m"),)).cache_read == 1000


@pytest.mark.parametrize(("from_response", "reads"), [(False, 0), (True, 1000)])
def test_the_time_starts_with_the_request_unless_switched(from_response: bool, reads: int) -> None:
    service = Service(clock_from_response=from_response)
    first = service.asks(prompt("a", "b", points=((2, "5m"),)), begins=False)
    service.now += 100
    service.model.begin_response(first, service.now)
    service.now += 250
    assert service.uses("a", "b", points=((2, "5m"),)).cache_read == reads


def test_what_failed_before_its_response_wrote_nothing() -> None:
    service = Service()
    service.model.abandon(service.asks(prompt("a", "b", points=((2, "5m"),)), begins=False))
    assert service.model.live(service.now) == 0
    assert service.uses("a", "b", points=((2, "5m"),)).cache_read == 0


@pytest.mark.parametrize(("shared", "reads"), [(True, 1000), (False, 0)])
def test_ttls_share_entries_unless_switched(shared: bool, reads: int) -> None:
    service = Service(ttl_shared=shared)
    service.uses("a", "b", points=((2, "1h"),))
    assert service.uses("a", "b", points=((2, "5m"),)).cache_read == reads


@pytest.mark.parametrize(("cap", "drops", "written"), [(1500, False, 2000), (1500, True, 1000), (2000, True, 2000)])
def test_above_the_cap_entries_are_made_unless_switched(cap: int, drops: bool, written: int) -> None:
    capped = ModelRule(name="capped", pattern=".", minimum=1000, max_cached_tokens=cap)
    service = Service(capped, cap_drops_entry=drops)
    assert service.uses("a", "b", "c", "d", points=((2, "5m"), (4, "5m"))).cache_write == written


def test_scopes_do_not_share() -> None:
    service = Service()
    service.uses("a", "b", points=((2, "5m"),))
    assert service.uses("a", "b", points=((2, "5m"),), scope="other").cache_read == 0


def test_eviction_drops_a_scope_or_all() -> None:
    service = Service()
    service.uses("a", "b", points=((2, "5m"),))
    for letter in "xyz":
        service.uses(letter, "b", points=((2, "5m"),), scope="other")
    assert (service.model.live(service.now), service.model.evict("other"), service.model.live(service.now)) == (4, 3, 1)
    assert service.model.evict() == 1


# -- what is read is not written ------------------------------------------------------------------


def test_what_was_just_read_is_not_written_again() -> None:
    service = Service()
    service.uses("a", "b", points=((2, "5m"),))
    assert service.asks(prompt("a", "b", points=((2, "5m"),))).written == ()


def test_an_hour_read_by_a_five_minute_checkpoint_stays_an_hour() -> None:
    """Written at 0 s, read at 100 s: it lives to 3,700 s. Written again by the reader it would end at 400 s."""
    service = Service()
    service.uses("a", "b", points=((2, "1h"),))
    service.now += 100
    service.uses("a", "b", points=((2, "5m"),))
    service.now += 3599
    assert service.uses("a", "b", points=((2, "5m"),)).cache_read == 1000


def test_a_checkpoint_inside_what_is_read_makes_its_entry_at_no_cost() -> None:
    service = Service()
    service.uses("a", "b", "c", "d", points=((4, "5m"),))
    inner = service.asks(prompt("a", "b", "c", "d", points=((2, "5m"), (4, "5m"))))
    assert inner.usage == Usage(3, cache_read=2000)
    assert [(position.tokens, ttl) for position, ttl in inner.written] == [(1000, "5m")]
    assert service.uses("a", "b", "x", points=((2, "5m"),)).cache_read == 1000


def test_the_hour_is_written_up_to_its_last_checkpoint() -> None:
    """1h from 0 to 1,500 although a 1h checkpoint stands at 1,000 too; 5m from there to 2,000."""
    usage = Service().uses("a", "b", "c", "d", points=((2, "1h"), (3, "1h"), (4, "5m")))
    assert usage == Usage(3, cache_write_5m=500, cache_write_1h=1500)


def test_an_hour_that_was_read_is_not_written_once_more() -> None:
    """1h up to 1,000 is read, so that nothing of the hour is left to write: 5m from 1,000 to 2,000."""
    service = Service()
    service.uses("a", "b", points=((2, "1h"),))
    usage = service.uses("a", "b", "c", "d", points=((2, "1h"), (4, "5m")))
    assert usage == Usage(3, cache_read=1000, cache_write_5m=1000)


# -- how far a checkpoint looks -------------------------------------------------------------------


def test_the_first_block_of_all_may_be_a_prefix() -> None:
    service = Service(ModelRule(name="short", pattern=".", minimum=BLOCK))
    assert service.uses("a", points=((1, "5m"),)) == Usage(3, cache_write_5m=500)
    assert service.uses("a", "b", points=((2, "5m"),)) == Usage(3, cache_read=500, cache_write_5m=500)


def test_a_later_checkpoint_reads_on_from_the_very_next_block() -> None:
    service = Service()
    service.uses("a", "b", "c", points=((2, "5m"), (3, "5m")))
    assert service.uses("a", "b", "c", "d", points=((2, "5m"), (4, "5m"))).cache_read == 1500


def test_a_shorter_entry_of_the_other_ttl_never_replaces_a_longer_read() -> None:
    service = Service(ttl_shared=False)
    service.uses("a", "b", points=((2, "1h"),))
    service.uses("a", "b", "c", points=((3, "5m"),))
    assert service.uses("a", "b", "c", "d", points=((3, "5m"), (4, "1h"))).cache_read == 1500


# -- lives ----------------------------------------------------------------------------------------


def test_only_what_a_request_matches_is_kept_alive() -> None:
    """The 1h entry at 2,000 is not matched by the 5m checkpoint of the request at 100 s: it dies at 3,600 s."""
    service = Service(ttl_shared=False)
    service.uses("a", "b", "c", "d", points=((2, "5m"), (4, "1h")))
    service.now += 100
    assert service.uses("a", "b", "c", "d", points=((2, "5m"), (4, "5m"))).cache_read == 1000
    service.now += 3550
    assert service.uses("a", "b", "c", "d", points=((4, "1h"),)).cache_read == 0


def test_a_look_at_an_earlier_time_counts_from_there_on() -> None:
    """Seen at 0 s, an entry of 5 minutes is over at 300 s, though it was written when the clock showed 1,000 s."""
    service = Service()
    service.uses("a", "b", points=((2, "5m"),))
    assert [service.model.live(now) for now in (0.0, 299.0, 300.0)] == [1, 1, 0]


def test_an_entry_found_dead_is_forgotten() -> None:
    service = Service()
    service.uses("a", "b", points=((2, "5m"),))
    service.now += 300
    service.uses("a", "b", "c", points=((3, "5m"),))
    assert service.model.evict() == 1


def test_the_dead_may_be_dropped_all_at_once() -> None:
    """At 300 s the entries of five minutes are over, and the one of an hour is not."""
    service = Service()
    service.uses("a", "b", "c", points=((2, "1h"), (3, "5m")))
    service.uses("x", "b", points=((2, "5m"),))
    assert service.model.drop_dead(service.now + 299) == 0
    assert service.model.drop_dead(service.now + 300) == 2
    assert service.model.evict() == 1


def test_beyond_a_number_those_used_longest_ago_are_dropped() -> None:
    service = Service()
    for name in ("a", "b", "c"):
        service.uses(name, "x", points=((2, "5m"),))
        service.now += 10
    service.uses("a", "x", points=((2, "5m"),))  # read once more, after c was written
    assert service.model.drop_oldest(3) == 0
    assert service.model.drop_oldest(2) == 1
    assert service.uses("a", "x", points=((2, "5m"),)).cache_read == 1000
    assert service.uses("c", "x", points=((2, "5m"),)).cache_read == 1000
    assert service.uses("b", "x", points=((2, "5m"),)).cache_read == 0


# -- requests that overlap ------------------------------------------------------------------------


def test_two_requests_at_once_both_write_and_the_first_to_begin_makes_it_readable() -> None:
    service = Service()
    first, second = (service.asks(prompt("a", "b", points=((2, "5m"),)), begins=False) for _ in range(2))
    assert first.usage == second.usage == Usage(3, cache_write_5m=1000)
    service.model.begin_response(second, service.now)
    assert service.uses("a", "b", points=((2, "5m"),)).cache_read == 1000


def test_a_failure_leaves_what_another_request_made_readable() -> None:
    service = Service()
    first, second = (service.asks(prompt("a", "b", points=((2, "5m"),)), begins=False) for _ in range(2))
    service.model.begin_response(first, service.now)
    service.model.abandon(second)
    assert service.uses("a", "b", points=((2, "5m"),)).cache_read == 1000


def test_a_failure_of_a_request_takes_only_its_own_entries() -> None:
    service = Service()
    service.uses("a", "b", points=((2, "5m"),))
    longer = service.asks(prompt("a", "b", "c", points=((2, "5m"), (3, "5m"))), begins=False)
    service.model.abandon(longer)
    assert service.model.live(service.now) == 1


@pytest.mark.parametrize("ends", [CacheModel.abandon, lambda model, served: model.begin_response(served, 1000.0)])
def test_a_response_whose_entries_were_dropped_brings_none_back(ends: Callable[[CacheModel, Served], None]) -> None:
    service = Service()
    served = service.asks(prompt("a", "b", points=((2, "5m"),)), begins=False)
    service.model.evict()
    ends(service.model, served)
    assert service.model.live(service.now) == 0


# -- what it is made of ---------------------------------------------------------------------------


def test_the_open_questions_are_answered_as_documented() -> None:
    assert CacheSwitches() == CacheSwitches(
        ttl_shared=True, lookback_extra=0, refresh_inner=True, clock_from_response=False, in_flight_readable=False,
        cap_drops_entry=False,
    )  # fmt: skip
    assert Point(3) == Point(3, "5m")


def test_a_model_is_printed_without_its_entries() -> None:
    service = Service()
    service.uses("a", "b", points=((2, "5m"),))
    assert repr(service.model) == f"CacheModel(switches={CacheSwitches()!r})"


@given(
    calls=st.lists(
        st.tuples(
            st.lists(st.sampled_from("abc"), min_size=1, max_size=8),
            st.lists(st.tuples(st.integers(1, 8), st.sampled_from(["5m", "1h"])), max_size=4),
            st.floats(0, 5000),
        ),
        max_size=12,
    )
)
def test_tokens_always_add_up_and_a_repeat_reads_all_that_was_cached(
    calls: list[tuple[list[str], list[tuple[int, TTL]], float]],
) -> None:
    service = Service()
    for blocks, wanted, later in calls:
        points = tuple(sorted((min(after, len(blocks)), ttl) for after, ttl in wanted))
        request = prompt(*blocks, points=points)
        first, again = service.asks(request).usage, service.asks(request).usage
        assert first.prompt == again.prompt == request.total
        assert min(first.input, first.cache_read, first.cache_write_5m, first.cache_write_1h) >= 0
        assert (again.cache_read, again.cache_write) == (first.cache_read + first.cache_write, 0)
        service.now += later
