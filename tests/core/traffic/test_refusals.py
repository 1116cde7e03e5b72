"""What is known of what the service refuses: groups that become smaller, a day, a minute, and one test at a time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachepoint.core.traffic.refusals import (
    BELIEVED,
    FAILING,
    LEFT_OUT_FIRST,
    LONG_TTL,
    NOTHING_REFUSED,
    TESTING,
    Feature,
    Outcome,
    Refusals,
)

NOW = 1_000_000.0
ALL = frozenset(LEFT_OUT_FIRST)
EVERYWHERE: frozenset[Feature] = frozenset({"tools", "system", "messages"})


def of(*features: Feature) -> frozenset[Feature]:
    return frozenset(features)


def refused(*features: Feature, at: float = NOW, first: Feature | None = None) -> Outcome:
    return Outcome("refused", of(*features), at, first)


def taken(*features: Feature, at: float = NOW) -> Outcome:
    return Outcome("taken", of(*features), at)


def after(*outcomes: Outcome, known: Refusals = NOTHING_REFUSED) -> Refusals:
    for outcome in outcomes:
        known = known.after(outcome)
    return known


def carries(known: Refusals, wanted: Iterable[Feature], now: float = NOW) -> frozenset[Feature]:
    """What a request carries that would carry the wanted features, planned as an exchange plans."""
    wanted = frozenset(wanted) - known.left_out(now)
    return wanted - known.left_out_as_well(wanted, now)


# -- one feature ----------------------------------------------------------------------------------


def test_a_feature_that_was_refused_alone_is_left_out_for_a_day() -> None:
    known = after(refused("system"))
    assert dict(known.refused) == {"system": NOW + BELIEVED}
    assert [known.left_out(NOW + seconds) for seconds in (0, BELIEVED - 1, BELIEVED)] == [of("system")] * 2 + [of()]


def test_what_is_taken_without_one_suspect_convicts_it() -> None:
    known = after(refused("tools", "system", "messages"))
    assert known.suspects == ("tools", "messages", "system")
    assert carries(known, EVERYWHERE) == of("messages", "system")
    known = after(taken("messages", "system"), known=known)
    assert (known.suspects, set(known.refused)) == ((), {"tools"})
    assert carries(known, EVERYWHERE) == of("messages", "system")


def test_a_refusal_makes_the_group_smaller_and_keeps_the_rest_aside() -> None:
    """System alone is refused: without tools refused (messages, system), without messages refused (system)."""
    known = after(refused("tools", "system", "messages"), refused("messages", "system"))
    assert (known.suspects, known.aside) == (("messages", "system"), of("tools"))
    assert carries(known, EVERYWHERE) == of("system")  # tools may be refused as well, and would tell nothing
    known = after(refused("system"), known=known)
    assert (set(known.refused), known.suspects, known.aside) == ({"system"}, (), of())
    assert carries(known, EVERYWHERE) == of("tools", "messages")


def test_what_the_words_point_at_is_left_out_first() -> None:
    known = after(refused("tools", "system", "messages", LONG_TTL, first="system"))
    assert carries(known, EVERYWHERE | {LONG_TTL}) == of("tools", "messages", LONG_TTL)
    assert after(refused("tools", "system", first="messages")).suspects == ("tools", "system")  # which nobody sent


def test_a_request_that_wants_one_suspect_only_carries_it() -> None:
    """Left out it would tell nothing, and all requests of an application may be like it."""
    known = after(refused("tools", "system"))
    assert carries(known, ["tools"]) == of("tools")
    assert set(after(taken("tools"), known=known).refused) == {"system"}
    assert set(after(refused("tools"), known=known).refused) == {"tools"}


def test_a_service_that_takes_all_of_it_after_all_clears_it() -> None:
    assert after(refused("tools", "system"), taken("tools", "system")) == NOTHING_REFUSED
    assert after(refused("tools"), taken("tools", at=NOW + BELIEVED)) == NOTHING_REFUSED


# -- several --------------------------------------------------------------------------------------


def test_two_refused_sections_are_found_by_four_refusals() -> None:
    """Tools and system of three: ABC; without tools (messages, system); without messages (system): found.

    Then tools with messages, and without tools they are taken: found.
    """
    known, refusals = learn(of("tools", "system"), [EVERYWHERE] * 9)
    assert set(known.refused) == {"tools", "system"}
    assert refusals == 4


def test_a_model_that_takes_no_checkpoint_at_all_is_found_by_six_refusals() -> None:
    """3 + 2 + 1: one of the group of three, one of the two left, and the last alone, each by halving nothing."""
    known, refusals = learn(EVERYWHERE, [EVERYWHERE] * 9)
    assert (frozenset(known.refused), refusals) == (EVERYWHERE, 6)


def learn(bad: frozenset[Feature], wishes: Iterable[frozenset[Feature]]) -> tuple[Refusals, int]:
    """Requests one after the other against a service that refuses some features; how often it refused one."""
    known, refusals = NOTHING_REFUSED, 0
    for wanted in wishes:
        carried = carries(known, wanted)
        refusals += bool(carried & bad)
        if carried & bad:
            known = known.after(Outcome("refused", carried, NOW))
        elif known.is_test(carried):
            known = known.after(Outcome("taken", carried, NOW))
    return known, refusals


SOME = st.frozensets(st.sampled_from(LEFT_OUT_FIRST))


@given(SOME, st.lists(SOME.filter(bool), max_size=12), st.randoms(use_true_random=False))
def test_whatever_is_refused_is_found_by_few_refusals(bad: frozenset[Feature], wishes: list[Any], random: Any) -> None:
    known, refusals = learn(bad, [*wishes, *[ALL] * 40])
    assert set(known.refused) == bad
    assert known.suspects == ()
    # Of n features n - 1 at most are left out one after the other until one is found: 6 + 5 + 4 + 3 + 2 + 1 in all.
    assert refusals <= 21
    assert learn(bad, [*wishes, *[ALL] * 60])[1] == refusals  # and none once they are known


@given(st.lists(st.tuples(SOME, st.booleans()), max_size=12))
def test_late_and_repeated_outcomes_never_silence_what_nobody_refused(outcomes: list[tuple[Any, bool]]) -> None:
    known, mentioned = NOTHING_REFUSED, set[Feature]()
    for features, was_refused in outcomes:
        mentioned |= features if was_refused else set()
        for _ in range(2):  # told twice
            known = known.after(Outcome("refused" if was_refused else "taken", features, NOW))
        assert known.open <= mentioned
        assert not set(known.suspects) & (known.aside | set(known.refused))


def test_a_burst_that_was_refused_all_at_once_is_one_refusal() -> None:
    once = after(refused("tools", "system", "messages"))
    assert after(*[refused("tools", "system", "messages")] * 200) == once
    narrowed = after(refused("messages", "system"), known=once)
    assert after(refused("tools", "system", "messages"), known=narrowed) == narrowed  # one of the burst, late
    found = after(taken("system"), known=narrowed)
    assert set(after(refused("tools", "system", "messages"), known=found).refused) == {"messages"}


# -- time -----------------------------------------------------------------------------------------


def test_after_a_day_one_call_tests_it_while_others_leave_it_out() -> None:
    day = NOW + BELIEVED
    known = after(refused("system"))
    assert carries(known, EVERYWHERE, day) == EVERYWHERE
    testing = known.tested(day)
    assert testing is not None
    assert testing.tested(day + 1) is None  # another may not
    assert carries(testing, EVERYWHERE, day + 1) == of("tools", "messages")
    assert carries(testing, EVERYWHERE, day + TESTING) == EVERYWHERE  # the one that tested was lost
    again = after(refused("tools", "system", "messages", at=day), known=testing)
    assert dict(again.refused) == {"system": day + BELIEVED}
    assert (again.suspects, again.testing) == ((), 0.0)


def test_of_two_whose_day_is_over_one_is_tested_at_a_time() -> None:
    known = Refusals(refused={"tools": NOW, "system": NOW})
    assert known.left_out(NOW) == of("system")


def test_while_one_call_tests_the_others_leave_out_every_suspect() -> None:
    known = after(refused("tools", "system", "messages")).tested(NOW)
    assert known is not None
    assert carries(known, [*EVERYWHERE, LONG_TTL]) == of(LONG_TTL)


def test_a_clock_set_back_believes_nothing_longer() -> None:
    known = after(refused("system"))
    assert [known.left_out(NOW - back) for back in (1, BELIEVED + 1)] == [of("system"), of()]
    testing = after(refused("tools", "system")).tested(NOW)
    assert testing is not None
    assert testing.tested(NOW - 1000) is not None


def test_plain_requests_that_fail_are_known_for_a_minute() -> None:
    known = after(Outcome("failing", of(), NOW, words=b"denied"))
    assert [known.fail_plainly(b"denied", NOW + seconds) for seconds in (0, FAILING - 1, FAILING, -99)] == [
        True, True, False, False,
    ]  # fmt: skip
    assert not known.fail_plainly(b"another", NOW)
    assert known.left_out(NOW) == of()


def test_of_failing_words_the_last_sixteen_are_kept() -> None:
    known = after(*(Outcome("failing", of(), NOW, words=bytes([n])) for n in range(40)))
    assert sorted(known.failing) == [bytes([n]) for n in range(24, 40)]
    later = after(Outcome("failing", of(), NOW + FAILING, words=b"new"), known=known)
    assert sorted(later.failing) == [b"new"]


# -- where there is no room to tell scopes apart --------------------------------------------------


def test_merged_is_what_leaves_out_more() -> None:
    """A suspect may be refused and so may what stands aside, of either: for a day from now."""
    one = after(refused("tools", "system", "messages"), refused("messages", "system"))
    other = after(refused("system", at=NOW - 100), Outcome("failing", of(), NOW, words=b"denied"))
    both = one.merged(other, NOW)
    assert dict(both.refused) == dict.fromkeys(EVERYWHERE, NOW + BELIEVED)
    assert both == other.merged(one, NOW)


@pytest.mark.parametrize("features", [of(), of("tools")])
def test_what_tells_nothing_changes_nothing(features: frozenset[Feature]) -> None:
    assert NOTHING_REFUSED.after(Outcome("taken", features, NOW)) is NOTHING_REFUSED
    assert NOTHING_REFUSED.after(Outcome("refused", of(), NOW)) is NOTHING_REFUSED
    assert not NOTHING_REFUSED.is_test(features)
