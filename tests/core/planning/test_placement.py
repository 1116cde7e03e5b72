"""What writing a prefix is worth, and the cheapest set of prefixes to write: figures worked by hand.

With input at 1, a read at 0.1, a 5m write at 1.25 and a 1h write at 2, a token that comes back N times, the next time
within the TTL with chance F, saves N(0.9F - (1 - F)(w - 1)) - (w - 1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations, product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from planning_kit import LATE, NEVER, OFTEN, ONCE, RATES

from cachepoint.core.planning.placement import NOTHING, Candidate, Pick, choose, nested, saving, shared_out
from cachepoint.core.planning.reasons import Placed
from cachepoint.core.provider.prices import Rates
from cachepoint.core.provider.rules import TTL
from cachepoint.core.traffic.return_curves import Outlook

BOTH: tuple[TTL, ...] = ("5m", "1h")


def candidate(tokens: float, outlook: Outlook, boundary: int = 0) -> Candidate:
    return Candidate(boundary, tokens, outlook, Placed("expected_again"))


def picked(choice: tuple[float, tuple[Pick, ...]]) -> list[tuple[float, TTL]]:
    return [(pick.candidate.tokens, pick.ttl) for pick in choice[1]]


@pytest.mark.parametrize(
    ("outlook", "ttl", "written", "saved"),
    [
        # 2 (0.9 x 0.8 - 0.2 x 0.25) = 2 x 0.67 = 1.34, and 0.25 for the write
        (Outlook(2, 0.8, 0.9), "5m", False, 1.34),
        (Outlook(2, 0.8, 0.9), "5m", True, 1.09),
        # 2 (0.9 x 0.9 - 0.1 x 1) = 2 x 0.71 = 1.42, then 1 for the write
        (Outlook(2, 0.8, 0.9), "1h", False, 1.42),
        (Outlook(2, 0.8, 0.9), "1h", True, 0.42),
        # never again: the write is lost
        (NEVER, "5m", True, -0.25),
        (NEVER, "1h", True, -1.0),
        (NEVER, "5m", False, 0.0),
        # always too late: each of five visits writes anew
        (LATE, "5m", True, -1.5),
        (LATE, "1h", True, 5 * 0.9 - 1),
    ],
)
def test_what_a_token_of_prefix_saves(outlook: Outlook, ttl: TTL, written: bool, saved: float) -> None:
    assert saving(outlook, RATES, ttl, written=written) == pytest.approx(saved)


def test_other_prices_move_the_saving() -> None:
    # 1 x (1 - 0.25) - 0.5, and the longer: 0.75 - 2
    rates = Rates(read=0.25, write_5m=1.5, write_1h=3.0)
    assert saving(ONCE, rates, "5m") == pytest.approx(0.25)
    assert saving(ONCE, rates, "1h") == pytest.approx(-1.25)


@pytest.mark.parametrize(
    ("ttl", "visits"),
    [("5m", 0.25 / 0.9), ("1h", 1 / 0.9)],  # 0.28 hits pay for a 5m write, 1.11 for a 1h one
)
def test_from_how_many_returns_on_a_write_pays(ttl: TTL, visits: float) -> None:
    assert saving(Outlook(visits - 0.01, 1, 1), RATES, ttl) < 0 < saving(Outlook(visits + 0.01, 1, 1), RATES, ttl)


@pytest.mark.parametrize(("ttl", "chance"), [("5m", 0.25 / 1.15), ("1h", 1 / 1.9)])  # 0.22 and 0.53
def test_from_which_chance_on_a_standing_prefix_pays(ttl: TTL, chance: float) -> None:
    below, above = (Outlook(9, share, share) for share in (chance - 0.01, chance + 0.01))
    assert saving(below, RATES, ttl, written=False) < 0 < saving(above, RATES, ttl, written=False)


def test_a_prefix_comes_back_at_least_as_often_as_a_deeper_one() -> None:
    few, many = Outlook(1, 0.9, 0.9), Outlook(2, 0.5, 0.6)
    found = nested([candidate(10, OFTEN), candidate(20, few), candidate(30, many), candidate(40, NEVER)])
    assert [(each.tokens, each.outlook) for each in found] == [(10, OFTEN), (20, many), (30, many), (40, NEVER)]


def test_of_two_that_come_back_as_often_each_keeps_its_own_gaps() -> None:
    soon, late = Outlook(2, 0.9, 0.9), Outlook(2, 0.1, 0.6)
    assert [each.outlook for each in nested([candidate(1, soon), candidate(2, late)])] == [soon, late]
    assert nested([]) == []


def test_where_nothing_pays_nothing_is_chosen() -> None:
    assert choose([candidate(5000, NEVER)], 0, RATES, BOTH, 4) == NOTHING
    assert choose([], 0, RATES, BOTH, 4) == NOTHING
    assert choose([candidate(5000, OFTEN)], 0, RATES, BOTH, 0) == NOTHING


def test_where_fewer_save_as_much_fewer_are_chosen() -> None:
    # 2,000 x 4.25 + 4,000 x 4.25 = 6,000 x 4.25
    assert picked(choose([candidate(2000, OFTEN), candidate(6000, OFTEN)], 0, RATES, BOTH, 4)) == [(6000, "5m")]


def test_each_segment_comes_back_as_often_as_the_boundary_that_ends_it() -> None:
    # 2,000 tokens at 5 x 0.9 - 0.25 = 4.25 and 4,000 more at 0.9 - 0.25 = 0.65
    choice = choose([candidate(2000, OFTEN), candidate(6000, ONCE)], 0, RATES, BOTH, 2)
    assert picked(choice) == [(2000, "5m"), (6000, "5m")]
    assert [pick.worth for pick in choice.picks] == pytest.approx([8500, 2600])
    assert choice.value == pytest.approx(11_100)


def test_what_is_live_already_is_not_written_again() -> None:
    # 500 of the first 2,000 tokens are read
    choice = choose([candidate(2000, OFTEN), candidate(6000, ONCE)], 500, RATES, BOTH, 2)
    assert [pick.worth for pick in choice.picks] == pytest.approx([1500 * 4.25, 4000 * 0.65])


def test_with_one_slot_the_better_boundary_is_taken() -> None:
    # 2,000 x 4.25 = 8,500 against 6,000 x 0.65 = 3,900; against 14,000 x 0.65 = 9,100
    assert picked(choose([candidate(2000, OFTEN), candidate(6000, ONCE)], 0, RATES, BOTH, 1)) == [(2000, "5m")]
    assert picked(choose([candidate(2000, OFTEN), candidate(14000, ONCE)], 0, RATES, BOTH, 1)) == [(14000, "5m")]


def test_the_lifetime_is_the_one_that_saves_more() -> None:
    # 5m: 4 (0.9 x 0.5 - 0.5 x 0.25) - 0.25 = 1.05; 1h: 4 (0.9 x 0.9 - 0.1) - 1 = 1.84
    longer = choose([candidate(1000, Outlook(4, 0.5, 0.9))], 0, RATES, BOTH, 4)
    assert picked(longer) == [(1000, "1h")]
    assert longer.value == pytest.approx(1840)
    # 1h: 4 (0.9 x 0.7 - 0.3) - 1 = 0.32
    assert picked(choose([candidate(1000, Outlook(4, 0.5, 0.7))], 0, RATES, BOTH, 4)) == [(1000, "5m")]
    assert picked(choose([candidate(1000, LATE)], 0, RATES, ("5m",), 4)) == []


def test_a_longer_lifetime_never_follows_a_shorter_one() -> None:
    # first: 5 x 0.9 - 0.25 = 4.25 at 5m, 4.5 - 1 = 3.5 at 1h; second: 3.6 - 1 = 2.6 at 1h only.
    # Best would be 2,000 x 4.25 + 4,000 x 2.6; allowed is 2,000 x 3.5 + 4,000 x 2.6 = 17,400. One more reader
    # of the first shares what an hour of it costs, 2,000 x 0.75: half is his, 750.
    choice = choose([candidate(2000, OFTEN), candidate(6000, Outlook(4, 0, 1))], 0, RATES, BOTH, 4)
    assert picked(choice) == [(2000, "1h"), (6000, "1h")]
    assert choice.value == pytest.approx(17_400 + 750)


def test_a_shorter_lifetime_may_follow_a_longer_one() -> None:
    # 2,000 x (4.5 - 1) + 4,000 x 0.65 = 9,600
    choice = choose([candidate(2000, LATE), candidate(6000, ONCE)], 0, RATES, BOTH, 4)
    assert picked(choice) == [(2000, "1h"), (6000, "5m")]
    assert choice.value == pytest.approx(9600)


OUTLOOKS = st.builds(Outlook, st.floats(0, 6), st.floats(0, 1), st.floats(0, 1))
LADDERS = st.lists(st.tuples(st.integers(1, 4000), OUTLOOKS), max_size=5)


@given(LADDERS, st.integers(0, 500), st.integers(0, 3))
def test_no_other_set_saves_more(ladder: list[tuple[int, Outlook]], start: int, slots: int) -> None:
    """Against every set of boundaries and lifetimes in legal order: by itself, and with what others pay of an hour."""
    tokens, candidates = float(start), []
    for index, (more, outlook) in enumerate(ladder):
        tokens += more
        candidates.append(candidate(tokens, outlook, index))
    alone = together = 0.0
    for size in range(1, min(slots, len(candidates)) + 1):
        for chosen in combinations(candidates, size):
            for ttls in product(BOTH, repeat=size):
                if list(ttls) == sorted(ttls):  # "1h" sorts before "5m"
                    own, others = saved(start, chosen, ttls)
                    alone, together = max(alone, own), max(together, own + others)
    choice = choose(candidates, start, RATES, BOTH, slots)
    picks = [pick.candidate for pick in choice.picks]
    assert choice.value == pytest.approx(sum(saved(start, picks, [pick.ttl for pick in choice.picks])))
    assert alone <= choice.value * (1 + 1e-9) + 1e-9
    assert choice.value <= together * (1 + 1e-9) + 1e-9


def saved(start: float, chosen: Sequence[Candidate], ttls: Sequence[TTL]) -> tuple[float, float]:
    """What a set saves by itself, and what others pay of the hour of each part but the last."""
    ends = [float(start), *(each.tokens for each in chosen)]
    own = sum(
        (ends[i + 1] - ends[i]) * saving(each.outlook, RATES, ttl)
        for i, (each, ttl) in enumerate(zip(chosen, ttls, strict=True))
    )
    others = 0.0
    for i in range(1, len(chosen)):
        if ttls[i] == "1h":
            gain = saving(chosen[i].outlook, RATES, "1h") - max(saving(chosen[i].outlook, RATES, "5m"), 0.0)
            more = chosen[i - 1].outlook.visits - chosen[i].outlook.visits
            others += shared_out((ends[i] - ends[i - 1]) * 0.75, (ends[i + 1] - ends[i]) * gain, more)
    return own, others


def test_others_pay_their_part_of_a_price_and_no_more_than_they_gain() -> None:
    assert shared_out(1000, 500, 3) == 750  # one of four readers pays a quarter
    assert shared_out(1000, 100, 3) == 300  # three that gain a hundred each
    assert shared_out(1000, 500, math.inf) == 1000
    assert shared_out(1000, 0, 3) == shared_out(1000, 500, 0) == shared_out(1000, -5, 3) == 0
