"""What a scope learns from one request to the next, in figures."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cachepoint.core.prompt.tokens import Band
from cachepoint.core.provider.prices import Rates
from cachepoint.core.provider.usage import Usage
from cachepoint.core.traffic.entries import Cold, Entry, Reach, Sent, SentPoint, Shape
from cachepoint.core.traffic.evidence import AT_RISK, BEGUN, ELSEWHERE, EVENTS, FOLLOWED, NO_COUNTS
from cachepoint.core.traffic.kinds import AGAIN_KIND, FIRST_KINDS, CurveKey
from cachepoint.core.traffic.latest import EMPTY, Latest, Room
from cachepoint.core.traffic.pool import Pool
from cachepoint.core.traffic.refusals import Outcome
from cachepoint.core.traffic.return_curves import as_they_came
from cachepoint.core.traffic.traffic import Traffic
from cachepoint.core.traffic.view import Seen, Step
from cachepoint.core.traffic.waste import Risk, Segment, Stake, Waste

NOW = 1_000_000.0
SYSTEM = Step(b"system", "system_end", 3_000.0)
TAIL = Step(b"tail", "tail_turns", 4_000.0)
FIRST_SYSTEM, SYSTEM_AGAIN = FIRST_KINDS["system_end"][6], AGAIN_KIND["system_end"]  # 3,000 of 2,048 to 4,096
FIRST_TAIL, TAIL_AGAIN = FIRST_KINDS["tail_turns"][6], AGAIN_KIND["tail_turns"]
LOTS = Room(10**6, 10**6, 10**6)


def visited(*steps: Step, at: float = NOW, traffic: Traffic | None = None, history: bytes | None = None) -> Traffic:
    traffic = traffic or Traffic()
    traffic.visit(steps, history, at)
    return traffic


def counts(traffic: Traffic, kind: CurveKey, at: float = NOW) -> tuple[float, ...]:
    return traffic.habits.counted(at)[kind]


def point(name: bytes = b"system", tokens: float = 3_000.0, splits: tuple[bytes, ...] = ()) -> SentPoint:
    return SentPoint(name, "5m", tokens, splits)


def sent(*points: SentPoint, read: SentPoint | None = None, **more: object) -> Sent:
    return replace(Sent(points, read, estimated=5_000.0, minimum=1_024, rates=Rates()), **more)  # type: ignore[arg-type]


def risk(tokens: float = 3_000.0, digest: bytes = b"system") -> Risk:
    """Of a prompt of 5,000 tokens, so many are written at 1.25."""
    return Risk((Segment(digest, "system_end", tokens, 0.25),), Band(5_000, 5_000, 5_000))


def served(traffic: Traffic, what: Sent, usage: Usage | None, at: float = NOW) -> Traffic:
    traffic.sent(what, at)
    traffic.began(what)
    traffic.settled(what, usage, at)
    return traffic


# -- visits ---------------------------------------------------------------------------------------


def test_a_view_tells_what_was_known_before_the_visit() -> None:
    traffic = visited(SYSTEM)
    view = traffic.visit([SYSTEM, TAIL], None, NOW + 20)
    assert set(view.seen) == {b"system"}
    assert (view.known, view.alive, view.now) == (3_000.0, 0.0, NOW + 20)
    # beyond the 3,000 tokens known the tail adds 1,000: of 512 to 1,024
    assert set(view.forecasts) == {SYSTEM_AGAIN, FIRST_KINDS["tail_turns"][4]}
    assert traffic.view([SYSTEM, TAIL], NOW + 20).seen[b"system"].visits == 2


def test_a_first_visit_waits_for_the_next_which_is_a_return() -> None:
    traffic = visited(SYSTEM)
    assert counts(traffic, FIRST_SYSTEM)[AT_RISK] == pytest.approx(0.5)
    visited(SYSTEM, at=NOW + 20, traffic=traffic)
    first, again = counts(traffic, FIRST_SYSTEM), counts(traffic, SYSTEM_AGAIN)
    assert (first[EVENTS + 1], first[AT_RISK + 1]) == pytest.approx((1, 1), rel=1e-3)
    assert (sum(first[EVENTS : EVENTS + 7]), sum(again[EVENTS : EVENTS + 7])) == pytest.approx((1, 0), rel=1e-3)
    assert again[AT_RISK] == pytest.approx(0.5, rel=1e-3)
    visited(SYSTEM, at=NOW + 70, traffic=traffic)
    assert counts(traffic, SYSTEM_AGAIN)[EVENTS + 2] == pytest.approx(1, rel=1e-2)


def test_what_follows_counts_for_what_a_boundary_was_at_first_and_what_it_is() -> None:
    traffic = Traffic()
    for number in range(4):
        visited(SYSTEM, at=NOW + number, traffic=traffic)
    later = NOW + 3
    # three visits followed the first; two followed the second, from which on it is one that came back
    assert counts(traffic, FIRST_SYSTEM, later)[FOLLOWED] == pytest.approx(3, rel=1e-3)
    assert counts(traffic, SYSTEM_AGAIN, later)[FOLLOWED] == pytest.approx(2, rel=1e-3)
    assert len(traffic.habits.curve(FIRST_SYSTEM).young) == len(traffic.habits.curve(SYSTEM_AGAIN).young) == 1


def test_inside_text_only_the_boundary_where_requests_part_waits() -> None:
    cuts = [Step(bytes([number]), "cut", 100.0 * number) for number in range(1, 4)]
    traffic = visited(*cuts)
    assert not traffic.habits.curves
    visited(*cuts[:2], at=NOW + 20, traffic=traffic)
    assert set(traffic.habits.curves) == {AGAIN_KIND["cut"]}
    assert [traffic.seen[cut.digest].waits_since for cut in cuts] == [None, NOW + 20, None]
    assert counts(traffic, AGAIN_KIND["cut"])[FOLLOWED] == counts(traffic, AGAIN_KIND["cut"])[BEGUN] == 0


def test_the_end_of_a_block_waits_at_its_first_visit_and_where_requests_part() -> None:
    inner = [Step(bytes([number]), "inner", 100.0 * number) for number in range(1, 4)]
    traffic = visited(*inner)
    assert [traffic.seen[step.digest].waits_since for step in inner] == [NOW] * 3
    visited(*inner[:2], at=NOW + 20, traffic=traffic)
    assert [traffic.seen[step.digest].waits_since for step in inner] == [None, NOW + 20, NOW]


def test_a_conversation_that_goes_on_without_its_tail_will_not_come_back_to_it() -> None:
    history, other = Step(b"history", "history_end", 3_500.0), Step(b"other", "tail_turns", 4_100.0)
    traffic = visited(history, TAIL, history=b"history")
    visited(history, other, at=NOW + 1, traffic=traffic, history=b"history")
    # the first tail will never return; the other adds 600 tokens to what is known, of another class
    assert counts(traffic, FIRST_TAIL)[AT_RISK : AT_RISK + 7] == pytest.approx((1,) * 7, rel=1e-3)
    assert traffic.seen[b"tail"].waits_since is None
    assert traffic.tails == {b"history": b"other"}


def test_a_conversation_that_goes_on_with_its_tail_keeps_waiting_for_it() -> None:
    history, more = Step(b"history", "history_end", 3_500.0), Step(b"more", "tail_turns", 4_500.0)
    traffic = visited(history, TAIL, history=b"history")
    visited(history, replace_role(TAIL), more, at=NOW + 1, traffic=traffic)
    assert counts(traffic, FIRST_TAIL)[EVENTS] == pytest.approx(1, rel=1e-3)
    assert traffic.tails == {b"history": b"tail"}


def test_a_tail_that_is_no_longer_remembered_is_not_awaited_either() -> None:
    history, other = Step(b"history", "history_end", 3_500.0), Step(b"other", "tail_turns", 4_100.0)
    traffic = visited(TAIL, history, at=NOW, history=b"history")
    traffic.tails.put(b"history", b"tail")
    traffic.keep(LOTS._replace(boundaries=1), NOW)
    visited(history, other, at=NOW + 1, traffic=traffic, history=b"history")
    assert traffic.tails == {b"history": b"other"}
    assert counts(traffic, FIRST_TAIL)[AT_RISK + 6] == 0


def test_a_tail_that_is_not_awaited_is_not_given_up_twice() -> None:
    history = Step(b"history", "history_end", 3_500.0)
    traffic = visited(history, TAIL, history=b"history")
    for number, name in enumerate((b"other", b"third")):
        visited(history, Step(name, "tail_turns", 4_100.0), at=NOW + number, traffic=traffic, history=b"history")
        traffic.tails.put(b"history", b"tail")
    assert counts(traffic, FIRST_TAIL)[AT_RISK + 6] == pytest.approx(1, rel=1e-3)


def replace_role(step: Step) -> Step:
    return step._replace(role="inner")


# -- entries --------------------------------------------------------------------------------------


def test_an_entry_lives_from_sending_and_is_read_once_the_answer_begins() -> None:
    traffic, what = visited(SYSTEM), sent(point(), risk=risk())
    traffic.sent(what, NOW)
    assert traffic.view([SYSTEM], NOW).entries == {b"system": Entry("5m", NOW, readable=False)}
    traffic.began(what)
    view = traffic.view([SYSTEM, TAIL], NOW)
    assert view.entries == {b"system": Entry("5m", NOW)}
    assert view.alive == 3_000
    assert traffic.view([SYSTEM], NOW + 300).lapsed == {b"system": Entry("5m", NOW)}
    assert traffic.view([SYSTEM], NOW + 300).alive == 0


def test_a_live_entry_is_not_begun_again_unless_its_text_is_split_otherwise() -> None:
    traffic = Traffic()
    traffic.entries.put(b"system", Entry("1h", NOW - 10))
    traffic.sent(sent(point()), NOW)
    assert traffic.entries[b"system"] == Entry("1h", NOW - 10)
    traffic.sent(sent(point(splits=(b"cut",))), NOW)
    assert traffic.entries[b"system"] == Entry("5m", NOW, (b"cut",), readable=False)
    traffic.entries.put(b"system", Entry("5m", NOW - 300))
    traffic.sent(sent(point()), NOW)
    assert traffic.entries[b"system"] == Entry("5m", NOW, readable=False)


def test_what_failed_wrote_nothing_and_commits_nothing() -> None:
    traffic, what = Traffic(), sent(point(), risk=risk())
    assert traffic.sent(what, NOW) is None
    assert traffic.pool.waste.committed == {"system_end": 750}  # .25 × 3,000
    traffic.failed(what)
    assert (traffic.pool.waste, traffic.entries) == (Waste(), {})
    traffic.entries.put(b"system", Entry("5m", NOW))
    traffic.failed(what)
    assert traffic.entries == {b"system": Entry("5m", NOW)}


def test_an_answer_lost_on_its_way_may_have_cost_all_and_left_nothing() -> None:
    lost, cut, what = Traffic(), Traffic(), sent(point(), risk=risk())
    for traffic in (lost, cut):
        traffic.sent(what, NOW)
    lost.failed(what, lost=True)
    cut.settled(what, None, NOW)
    assert lost.pool.waste == cut.pool.waste
    assert lost.pool.waste.general == 750
    assert not lost.holds([b"system"], NOW)
    assert b"system" in lost.entries  # written once, as far as anybody knows


def test_usage_tells_the_size_of_what_was_written_and_what_it_cost() -> None:
    first = point(b"tools", 1_000.0)
    both = Risk(
        (Segment(b"tools", "tools_end", 1_000, 0.25), Segment(b"system", "system_end", 2_000, 0.25)),
        Band(5_000, 5_000, 5_000),
    )
    traffic = served(Traffic(), sent(first, point(), risk=both), Usage(input=2_000, cache_write_5m=3_100))
    assert traffic.pool.waste == Waste(775, baseline=5_100, largest=5_100)  # .25 × 3,100, a third of it for the tools
    tools, system = traffic.entries[b"tools"], traffic.entries[b"system"]
    assert (tools.tokens, system.tokens) == (None, 3_100)
    assert tools.stake is not None
    assert system.stake is not None
    assert (tools.stake.role, system.stake.role) == ("tools_end", "system_end")
    assert (tools.stake.general, system.stake.general) == pytest.approx((775 / 3, 1_550 / 3))
    assert traffic.pool.calibration.factor == pytest.approx(5_100 / 5_000)


def test_a_point_far_below_the_minimum_makes_no_entry() -> None:
    for tokens, made in ((767.0, False), (768.0, True)):  # three quarters of 1,024
        traffic = served(Traffic(), sent(point(tokens=tokens)), Usage(input=10, cache_write_5m=800))
        assert (b"system" in traffic.entries) is made


def test_an_entry_that_was_forgotten_under_way_is_known_again_from_the_answer() -> None:
    traffic, what = Traffic(), sent(point())
    traffic.began(what)
    assert traffic.entries == {}
    traffic.settled(what, Usage(cache_write_5m=3_000), NOW)
    assert traffic.entries == {b"system": Entry("5m", NOW, tokens=3_000)}


@pytest.mark.parametrize(
    "before",
    [Entry("1h", NOW - 9, (b"other",)), Entry("1h", NOW - 9, readable=False), Entry("1h", NOW - 4_000)],
    ids=["split otherwise", "in flight", "lapsed"],
)
def test_an_entry_that_could_not_be_read_was_written_anew(before: Entry) -> None:
    traffic = Traffic()
    traffic.entries.put(b"system", before)
    traffic.settled(sent(point(), point(b"tail")), Usage(cache_write_5m=4_000), NOW)
    assert traffic.entries == {
        b"system": Entry("5m", NOW),
        b"tail": Entry("5m", NOW, tokens=4_000),
    }


def test_an_entry_that_could_be_read_keeps_its_ttl_and_its_size() -> None:
    traffic = Traffic()
    traffic.entries.put(b"system", Entry("1h", NOW - 9, tokens=2_900))
    traffic.settled(sent(point(), point(b"tail")), Usage(cache_read=2_900, cache_write_5m=1_100), NOW)
    assert traffic.entries[b"system"] == Entry("1h", NOW, tokens=2_900)


def test_whether_any_of_some_entries_lives() -> None:
    traffic = Traffic()
    traffic.entries.put(b"a", Entry("5m", NOW - 400))
    traffic.entries.put(b"b", Entry("5m", NOW))
    assert traffic.holds((b"none", b"a", b"b"), NOW)
    assert not traffic.holds((b"none", b"a"), NOW)
    assert not traffic.holds((), NOW)


def test_nothing_cached_leaves_no_entry() -> None:
    assert served(Traffic(), sent(point()), Usage(input=5_000)).entries == {}


def test_a_read_keeps_an_entry_alive_as_it_was_written() -> None:
    traffic, later = Traffic(), NOW + 200
    served(traffic, sent(point(), risk=risk()), Usage(input=2_000, cache_write_5m=3_000))
    served(traffic, sent(point(), read=point()), Usage(input=2_000, cache_read=3_000), later)
    assert traffic.entries == {b"system": Entry("5m", later, tokens=3_000, stake=Stake("system_end", 750))}


def test_an_answer_that_comes_after_that_of_a_later_request_takes_nothing_back() -> None:
    traffic, what, usage = Traffic(), sent(point(), read=point()), Usage(input=2_000, cache_read=3_000)
    served(traffic, sent(point(), risk=risk()), Usage(input=2_000, cache_write_5m=3_000))
    traffic.sent(what, NOW + 100)
    served(traffic, what, usage, NOW + 200)
    traffic.settled(what, usage, NOW + 100)
    assert traffic.entries == {b"system": Entry("5m", NOW + 200, tokens=3_000, stake=Stake("system_end", 750))}


def test_an_entry_written_anew_has_its_own_ttl_and_time() -> None:
    traffic = Traffic()
    traffic.entries.put(b"system", Entry("1h", NOW - 4_000))
    served(traffic, sent(point()), Usage(cache_write_5m=3_000))
    assert traffic.entries == {b"system": Entry("5m", NOW, tokens=3_000)}


def test_a_read_that_did_not_come_ends_an_entry() -> None:
    traffic = Traffic()
    traffic.entries.put(b"system", Entry("5m", NOW - 10))
    served(traffic, sent(point(b"tail"), read=point()), Usage(input=1_000, cache_write_5m=4_000))
    assert b"system" not in traffic.entries
    traffic.entries.put(b"system", Entry("5m", NOW - 10))
    served(traffic, sent(read=point()), Usage(input=1_000, cache_read=2_250))  # three quarters of 3,000 did
    assert traffic.entries[b"system"].used_at == NOW


def test_an_answer_that_never_arrived_counts_as_a_write_that_was_lost() -> None:
    traffic = served(Traffic(), sent(point(), risk=risk()), None)
    assert traffic.pool.waste == Waste(750, baseline=5_000, largest=5_000)
    assert traffic.entries[b"system"].stake == Stake("system_end", 750)


def test_what_is_not_covered_is_not_sent() -> None:
    traffic = served(Traffic(), sent(point(), risk=risk(5_000)), Usage(cache_write_5m=5_000))
    spent = traffic.pool.waste
    assert spent.general == 1_250
    # 1.5% of 10,000 and .25 × 5,000, less 1,250, covers 150: .25 × 600
    assert traffic.sent(sent(point(b"other"), risk=risk(601, b"other")), NOW) == spent
    assert (traffic.pool.waste, b"other" in traffic.entries) == (spent, False)
    assert traffic.sent(sent(point(b"other"), risk=risk(600, b"other")), NOW) is None
    assert b"other" in traffic.entries


def test_a_read_repays_what_it_read_and_what_is_left_is_won() -> None:
    reaches = (Reach(b"system", 3_000.0, "inner"), Reach(b"tail", 4_000.0, "tail_turns"))
    traffic = served(Traffic(), sent(point(), risk=risk()), Usage(input=2_000, cache_write_5m=3_000))
    read = sent(point(b"tail", 4_000.0), read=point(), reaches=reaches, risk=risk(4_000, b"tail"))
    served(traffic, read, Usage(input=1_000, cache_read=3_000, cache_write_5m=1_000))
    # .9 × 3,000 saved, of which 750 are paid back; the tail costs .25 × 1,000, which its role has won by then
    assert traffic.entries[b"system"].stake == Stake("system_end", 0)
    assert (traffic.pool.waste.purse, traffic.pool.waste.general) == (1_700, 0)
    assert traffic.pool.waste.paid


def test_an_entry_that_is_forgotten_takes_what_it_owes_with_it() -> None:
    traffic = served(Traffic(), sent(point(), risk=risk()), Usage(input=2_000, cache_write_5m=3_000))
    traffic.keep(EMPTY, NOW)
    served(traffic, sent(reaches=(Reach(b"system", 3_000.0, "system_end"),)), Usage(input=2_000, cache_read=3_000))
    # nobody remembers that it owed 750: they stay owed, and all of .9 × 3,000 is won
    assert (traffic.pool.waste.general, traffic.pool.waste.purse) == (750, 2_700)


# -- learned of the model -------------------------------------------------------------------------


def test_three_requests_that_were_long_enough_and_cached_nothing_raise_the_minimum() -> None:
    traffic = Traffic()
    for _ in range(2):
        served(traffic, sent(point(tokens=2_000)), Usage(input=5_000))
    assert traffic.pool.learned_minimum == 0
    served(traffic, sent(point(tokens=2_000)), Usage(input=5_000))
    assert traffic.pool.learned_minimum == 2_500  # a quarter more
    served(traffic, sent(point(tokens=4_000)), Usage(input=10, cache_write_5m=2_500))
    assert traffic.pool.learned_minimum == 2_500
    served(traffic, sent(point(tokens=4_000)), Usage(input=10, cache_write_5m=2_499))
    assert traffic.pool.learned_minimum == 0


def test_points_that_may_be_too_short_or_a_success_between_teach_no_minimum() -> None:
    traffic = Traffic()
    for _ in range(5):
        served(traffic, sent(point(tokens=1_280)), Usage(input=5_000))  # a quarter above 1,024 at most
    for _ in range(2):
        served(traffic, sent(point(tokens=2_000)), Usage(input=5_000))
        served(traffic, sent(point(tokens=2_000)), Usage(input=5_000))
        served(traffic, sent(point(tokens=2_000)), Usage(input=5_000, cache_write_5m=2_000))
    assert traffic.pool.learned_minimum == 0


def test_three_splits_in_a_row_that_are_not_read_end_splitting() -> None:
    traffic, split = Traffic(), point(splits=(b"cut",))
    for usage in (Usage(input=9), Usage(input=9), Usage(cache_read=3_000), Usage(input=9), Usage(input=9)):
        traffic.settled(sent(read=split), usage, NOW)
    assert traffic.splits_trusted
    traffic.settled(sent(read=split), Usage(input=9), NOW)
    assert not traffic.splits_trusted


def test_three_splits_that_make_prompts_dearer_end_splitting() -> None:
    traffic, split = Traffic(), sent(point(splits=(b"cut",)))
    for _ in range(3):
        served(traffic, sent(point()), Usage(input=5_000))  # the estimate is right
    served(traffic, split, Usage(input=6_250))  # a quarter more is believed
    # ever dearer, since each is believed in part: estimates stray by up to 100%, of which three are allowed
    for total in (50_000, 100_000):
        served(traffic, split, Usage(input=total))
    assert traffic.splits_trusted
    served(traffic, split, Usage(input=300_000))
    assert not traffic.splits_trusted


def test_before_three_totals_came_in_no_split_is_found_dear() -> None:
    traffic, split = Traffic(), sent(point(splits=(b"cut",)))
    for total in (5_000, 50_000, 500_000):
        served(traffic, split, Usage(input=total))
    served(traffic, sent(point()), Usage(input=5_000_000))  # and none without a split
    assert traffic.splits_trusted
    assert traffic._splits_failed == 0


# -- other processes ------------------------------------------------------------------------------


def test_a_read_beyond_what_lives_is_a_return_elsewhere_of_the_nearest_boundary() -> None:
    cold = (Cold(b"system", 3_000, FIRST_SYSTEM, None), Cold(b"tail", 4_000, FIRST_TAIL, None))
    traffic = served(Traffic(), sent(cold=cold), Usage(input=9, cache_read=3_900))
    assert set(traffic.habits.curves) == {FIRST_TAIL}
    assert counts(traffic, FIRST_TAIL, traffic.latest)[EVENTS + 3] == pytest.approx(1)


def test_a_read_near_no_boundary_or_of_what_was_expected_tells_nothing() -> None:
    cold = (Cold(b"system", 3_000, FIRST_SYSTEM, None),)
    traffic = served(Traffic(), sent(cold=cold), Usage(input=9, cache_read=4_001))  # 3,000 is a quarter short of 4,000
    served(traffic, sent(read=point(tokens=3_000), cold=cold), Usage(input=9, cache_read=3_750))
    served(traffic, sent(), Usage(input=9, cache_read=3_750))
    assert not traffic.habits.curves


def test_a_prefix_kept_warm_by_others_came_back_sooner_than_seen() -> None:
    traffic = visited(SYSTEM, at=NOW - 1_000)
    visited(SYSTEM, traffic=traffic)
    cold = (Cold(b"system", 3_000, FIRST_SYSTEM, 1_000.0),)
    served(traffic, sent(cold=cold), Usage(input=9, cache_read=3_000))
    assert traffic.seen[b"system"].gaps == pytest.approx((0, 0, 0, 1, 0, 0, 0))
    assert as_they_came(counts(traffic, FIRST_SYSTEM))[EVENTS + 3] == pytest.approx(1, rel=0.02)


def test_a_turn_never_seen_came_back_elsewhere_and_no_missing_read_says_when() -> None:
    foreign = Cold(b"tail", 2_900, FIRST_TAIL, None)
    traffic = served(Traffic(), sent(point(), foreign=foreign), Usage(input=9))
    found = counts(traffic, FIRST_TAIL, traffic.latest)
    assert (found[EVENTS], found[EVENTS + 4], found[ELSEWHERE]) == pytest.approx((0.1875, 0, 1))  # .15 of .8


def test_a_turn_that_ends_as_one_of_ours_was_no_other_processs() -> None:
    foreign = Cold(b"tail", 2_900, FIRST_TAIL, None)
    traffic = served(Traffic(), sent(point(), ends_like=(1, 2)), Usage(input=9))
    traffic = served(traffic, sent(point(), foreign=foreign, before_ends_like=(1, 2)), Usage(input=9))
    assert FIRST_TAIL not in traffic.habits.curves
    traffic = served(traffic, sent(point(), foreign=foreign, before_ends_like=(1, 3)), Usage(input=9))
    assert counts(traffic, FIRST_TAIL, traffic.latest)[ELSEWHERE] == pytest.approx(1)


def test_a_turn_never_seen_that_is_read_was_kept_warm() -> None:
    foreign = Cold(b"tail", 3_000, FIRST_TAIL, None)
    traffic = served(Traffic(), sent(foreign=foreign), Usage(input=9, cache_read=3_000))
    assert counts(traffic, FIRST_TAIL, traffic.latest)[EVENTS + 3] == pytest.approx(1)


# -- recent requests ------------------------------------------------------------------------------


def shape(blocks: int, number: int = 0) -> Shape:
    return Shape((bytes([number]) * 16,) * blocks, (1,) * blocks, (0, 1), (), 0.0, "5m", 0.0)


def test_sixteen_recent_requests_are_remembered_if_they_cached_anything() -> None:
    traffic = Traffic()
    for number in range(20):
        served(traffic, sent(shape=shape(3, number)), Usage(input=9, cache_write_5m=100 * number), NOW + number)
    assert [found.cached for found in traffic.recent] == [100 * number for number in range(4, 20)]
    assert traffic.recent[0].used_at == NOW + 4
    assert traffic.kept().blocks == 48
    assert traffic.view([], NOW).recent == tuple(traffic.recent)
    served(traffic, sent(shape=shape(3)), Usage(input=9))
    assert traffic.recent[-1].cached == 1_900


def test_recent_requests_are_bounded_by_their_blocks() -> None:
    traffic = Traffic()
    for blocks in (10, 5, 5000):
        served(traffic, sent(shape=shape(blocks)), Usage(cache_read=9))
    assert traffic.kept().blocks == 10 + 5 + 4096
    traffic.keep(LOTS._replace(blocks=4_101), NOW)
    assert [len(found.sizes) for found in traffic.recent] == [5, 4_096]
    traffic.keep(LOTS._replace(blocks=100), NOW)
    assert [len(found.sizes) for found in traffic.recent] == [100]
    assert traffic.kept().blocks == 100
    traffic.keep(EMPTY, NOW)
    assert (len(traffic.recent), traffic.kept().blocks) == (0, 0)


# -- what is kept ---------------------------------------------------------------------------------


def test_what_was_put_in_longest_ago_goes_first() -> None:
    latest = Latest({b"a": 1, b"b": 2, b"c": 3})
    latest.put(b"a", 4)
    assert latest.take_oldest(-1) == []
    assert latest.take_oldest(2) == [(b"b", 2), (b"c", 3)]
    assert latest == {b"a": 4}


def test_boundaries_visited_longest_ago_are_forgotten_and_no_longer_awaited() -> None:
    traffic = visited(SYSTEM, TAIL, at=NOW - 60)
    visited(SYSTEM, traffic=traffic)
    traffic.keep(LOTS._replace(boundaries=1), NOW)
    assert set(traffic.seen) == {b"system"}
    # the tail's wait counts as far as it has come: past two buckets
    assert counts(traffic, FIRST_TAIL)[AT_RISK : AT_RISK + 4] == pytest.approx((1, 1, 0.5, 0), rel=1e-3)
    assert len(traffic.habits.curve(FIRST_TAIL).waits) == 0


def test_entries_used_longest_ago_are_forgotten() -> None:
    traffic = Traffic()
    for name in (b"a", b"b", b"c"):
        served(traffic, sent(point(name)), Usage(cache_write_5m=3_000))
    served(traffic, sent(read=point(b"a")), Usage(cache_read=3_000), NOW + 1)
    traffic.keep(LOTS._replace(entries=2), NOW + 1)
    assert list(traffic.entries) == [b"c", b"a"]
    assert traffic.kept() == Room(0, 2, 0)


def test_tails_are_forgotten_with_the_boundaries() -> None:
    traffic = Traffic()
    for number in range(100):
        name = number.to_bytes(2, "big")
        visited(Step(name, "tail_single"), traffic=traffic, history=b"history" + name)
    traffic.keep(LOTS, NOW)
    assert len(traffic.tails) == 100 // 10 + 64


def test_scopes_of_a_model_share_habits_and_sizes_but_no_boundary_and_no_entry() -> None:
    traffic = served(visited(SYSTEM, at=NOW - 20), sent(point(), risk=risk()), Usage(input=2_000, cache_write_5m=3_000))
    visited(SYSTEM, traffic=traffic)
    traffic.refuse(Outcome("refused", frozenset({"tools"}), NOW))
    other = Traffic(traffic.pool).view([SYSTEM], NOW)
    assert (other.seen, other.entries, other.left_out, other.recent) == ({}, {}, (), ())
    assert other.calibration.factor == pytest.approx(5_000 / 5_000)
    assert counts(Traffic(traffic.pool), FIRST_SYSTEM) == counts(traffic, FIRST_SYSTEM) != pytest.approx(NO_COUNTS)
    assert Traffic().view([SYSTEM], NOW).outlook(SYSTEM) != other.outlook(SYSTEM)


def test_a_boundary_that_a_profile_tells_of_is_known_in_every_scope() -> None:
    told = Seen(9.0, None, SYSTEM_AGAIN, FIRST_SYSTEM, (0, 9.0, 0, 0, 0, 0, 0))
    pool = Pool(told=Latest({SYSTEM.digest: told}))
    for traffic in (Traffic(pool), Traffic(pool)):
        assert traffic.view([SYSTEM], NOW).seen == {SYSTEM.digest: told}
        visited(SYSTEM, traffic=traffic)
        assert traffic.seen[SYSTEM.digest].visits == 10
    assert pool.told == {SYSTEM.digest: told}
