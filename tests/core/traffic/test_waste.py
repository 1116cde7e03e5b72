"""The accounts of bound A in figures: 1.5% of all prompts so far, and one or two writes of the largest, at 0.25."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cachepoint.core.prompt.tokens import Band
from cachepoint.core.traffic.waste import Readers, Risk, Saving, Segment, Stake, Surcharge, Waste

AMOUNTS = st.integers(0, 10**6).map(float)


def risk(*parts: tuple[str, float, float], size: float = 4_000.0, wide: float = 0.0, **more: object) -> Risk:
    """Parts by role, tokens and surcharge a token, of a prompt of a size that may be off by so much."""
    segments = tuple(Segment(bytes([i]), *part) for i, part in enumerate(parts))  # type: ignore[arg-type]
    return Risk(segments, Band(size - wide, size, size + wide), **more)  # type: ignore[arg-type]


def write(tokens: float, own: float = 0.25) -> tuple[str, float, float]:
    return ("system_end", tokens, own)


def test_a_first_write_of_a_whole_prompt_is_covered_and_a_second_is_not() -> None:
    # .015 × 4,000 + 1 × .25 × 4,000 = 1,060 covers .25 × 4,000
    assert Waste().covers(risk(write(4_000)))
    # .015 × 8,000 + 1,000 = 1,120, less the 1,000 that are owed, covers 120: .25 × 480
    owing = Waste(general=1_000, baseline=4_000, largest=4_000)
    assert owing.covers(risk(write(480)))
    assert not owing.covers(risk(write(481)))


def test_an_hour_of_a_prompt_is_covered_up_to_a_quarter_of_it() -> None:
    # 1 a token of 1,060
    assert Waste().covers(risk(write(1_060, own=1.0)))
    assert not Waste().covers(risk(write(1_061, own=1.0)))


@pytest.mark.parametrize("paid", [True, False])
def test_a_second_write_is_covered_after_the_first_read_and_for_it(*, paid: bool) -> None:
    owing = Waste(general=1_000, baseline=4_000, largest=4_000, paid=paid)
    # 120 + 2 × 1,000 - 1,000 covers 1,120: .25 × 4,480
    assert owing.covers(risk(write(4_480), read=b"" if paid else b"entry"))
    assert not owing.covers(risk(write(4_481), read=b"" if paid else b"entry"))


def test_what_was_won_pays_for_writes_of_proven_roles_alone() -> None:
    spent = Waste(general=10**6, purse=500.0, proven=frozenset({"system_end"}), largest=4_000)
    assert not spent.covers(risk(write(1)))  # the general account is far beyond its room
    full = Waste(general=1_060, purse=500.0, proven=frozenset({"system_end"}), largest=4_000)
    assert full.covers(risk(write(2_000)))
    assert not full.covers(risk(write(2_001)))
    assert not full.covers(risk(("tail_turns", 1.0, 0.25)))


def test_calls_under_way_count_as_lost_until_they_are_over() -> None:
    first = risk(write(3_000))
    under_way = Waste().reserved(first)
    assert under_way.committed == {"system_end": 750}
    # 1,060 - 750 covers .25 × 1,240
    assert under_way.covers(risk(write(1_240)))
    assert not under_way.covers(risk(write(1_241)))
    assert under_way.released(first) == Waste()


def test_calls_that_read_the_same_entry_at_once_share_what_it_costs_if_it_is_gone() -> None:
    owing = Waste(general=1_000, baseline=4_000, largest=4_000)
    first = risk(write(4_000), read=b"entry", kept=3_600)
    # .25 × 400 are its own to write, and .25 × 3,600 are at risk in all of them at once: 100 each and 900 of 1,120
    under_way = owing.reserved(first)
    assert (under_way.committed, under_way.readers) == (
        {"system_end": 100},
        {b"entry": Readers(1, {"system_end": 900})},
    )
    assert under_way.covers(first)
    both = under_way.reserved(first)
    assert not both.covers(first)  # 300 and 900
    assert not under_way.covers(risk(write(4_000), read=b"another", kept=3_600))
    assert both.released(first) == under_way
    assert under_way.released(first) == owing


def test_an_estimate_is_taken_for_what_risks_most_within_its_band() -> None:
    # Half of a prompt of 3,000 to 5,000, where 4,000 is the largest so far. At 4,000: .25 × 2,000 of 60 + 1,000 - 560.
    at_the_largest = Waste(general=560, largest=4_000)
    assert at_the_largest.covers(risk(write(2_000), wide=1_000))
    assert not Waste(general=561, largest=4_000).covers(risk(write(2_000), wide=1_000))
    # All of it, where the largest is 10,000: at 5,000, .25 × 5,000 of 75 + 2,500 - 1,325.
    assert Waste(general=1_325, largest=10_000).covers(risk(write(4_000), wide=1_000))
    assert not Waste(general=1_326, largest=10_000).covers(risk(write(4_000), wide=1_000))
    assert Waste().reserved(risk(write(4_000), wide=1_000)).committed == {"system_end": 1_250}


def test_what_could_not_be_read_the_next_time_is_not_sustained() -> None:
    # After .25 × 4,000 are written, 120 + 2 × 1,000 - 1,000 = 1,120 are left for the read, which may cost 1,000.
    assert Waste().sustains(risk(write(4_000)))
    # Of 2,120 an hour of 1,034, and a twentieth more, leaves 1,034.3 for the read of as much; 1,035 leaves 1,033.25.
    assert Waste().sustains(risk(write(1_034, own=1.0)))
    assert not Waste().sustains(risk(write(1_035, own=1.0)))
    # 1,000 are read, at 1 a token, and 500 are new: 525 and 1,500 of 2,120
    extended = risk(("system_end", 1_000.0, 1.0), ("system_end", 500.0, 1.0), read=b"entry", kept=1_000)
    assert Waste(general=95).sustains(extended)
    assert not Waste(general=96).sustains(extended)


def test_what_the_user_asked_for_is_covered_and_what_he_authorised_taken_off() -> None:
    spent = Waste().spent()
    assert spent.covers(Risk((Segment(b"m", "system_end", 4_000, 0.0, 0.25),), Band(4_000, 4_000, 4_000)))
    assert not spent.covers(risk(write(1)))
    # 1,060 and 440 authorised: .25 × 6,000
    assert Waste(largest=4_000).covers(risk(write(6_000), authorised=440))
    assert not Waste(largest=4_000).covers(risk(write(6_001), authorised=440))


def test_a_write_of_a_proven_role_is_charged_to_the_purse_as_far_as_that_goes() -> None:
    waste = Waste(purse=300.0, proven=frozenset({"system_end"}))
    after, _, stakes = waste.settled(5_000, [], [Surcharge("system_end", 750), Surcharge("tail_turns", 200, asked=50)])
    assert stakes == [Stake("system_end", general=450), Stake("tail_turns", 200, 50)]
    assert (after.general, after.asked, after.purse) == (650, 50, 0)
    assert (after.baseline, after.largest, after.paid) == (5_000, 5_000, False)


def test_a_read_repays_what_its_entry_owes_and_its_role_wins_the_rest() -> None:
    owing = Waste(general=650, asked=50)
    stake = Stake("tail_turns", general=200, asked=50)
    after, (left,), _ = owing.settled(5_000, [Saving("history_end", 230, stake)], [])
    assert (left, after.general, after.asked, after.paid) == (Stake("tail_turns", 0, 20), 450, 20, True)
    after, (left,), _ = after.settled(5_000, [Saving("history_end", 100, left)], [])
    assert (left, after.general, after.asked) == (Stake("tail_turns"), 450, 0)
    assert after.purse == 80
    assert after.proven == frozenset({"tail_turns"})


def test_a_read_of_what_others_wrote_is_won_by_what_it_is_now() -> None:
    after, stakes, _ = Waste(general=650).settled(5_000, [Saving("system_end", 100)], [])
    assert (after.general, after.purse, stakes) == (650, 100, [None])
    assert after.proven == frozenset({"system_end"})


def test_a_profile_carries_the_surcharge_of_an_hour_of_the_largest_prompt_twice() -> None:
    assert Waste(purse=9_000, largest=4_000).carried() == 8_000
    assert Waste(purse=70, largest=4_000).carried() == 70


ROLES = st.sampled_from(["system_end", "tail_turns", "inner"])
CALLS = st.lists(
    st.tuples(
        st.lists(st.tuples(ROLES, AMOUNTS), max_size=3), st.lists(st.tuples(ROLES, AMOUNTS, AMOUNTS), max_size=3)
    ),
    max_size=12,
)


@settings(deadline=None)
@given(CALLS)
def test_the_books_balance_and_the_purse_is_never_overdrawn(
    calls: list[tuple[list[tuple[str, float]], list[tuple[str, float, float]]]],
) -> None:
    """What was paid less what was saved is what is owed less what is in the purse, whatever is read how often."""
    waste, paid, saved = Waste(), 0.0, 0.0
    stakes: list[Stake | None] = [None]
    for savings, surcharges in calls:
        won = [Saving(role, amount, stakes.pop()) for role, amount in savings if stakes]  # type: ignore[arg-type]
        lost = [Surcharge(*surcharge) for surcharge in surcharges]  # type: ignore[arg-type]
        waste, read, written = waste.settled(1_000, won, lost)
        stakes += [*read, *written]
        paid += sum(own + asked for _, own, asked in surcharges)
        saved += sum(saving.amount for saving in won)
        assert waste.general + waste.asked - waste.purse == pytest.approx(paid - saved, abs=1e-3)
        assert waste.purse >= 0
