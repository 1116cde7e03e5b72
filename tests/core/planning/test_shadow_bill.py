"""What every static plan pays in the shadow is what the provider's cache would bill for its checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planning_kit import CLAUDE, NOW, RATES, Mark, prompt, two_parts

from cachepoint.core.planning.shadow_bill import ShadowBill, places_of
from cachepoint.core.prompt.prompt import Prompt
from cachepoint.core.provider.cache_model import CacheModel, CacheRequest, Point, Position
from cachepoint.core.provider.rules import TTL, ModelRule
from cachepoint.core.provider.usage import Usage
from cachepoint.core.traffic.shadows import Shadowed, Shadows
from cachepoint.core.traffic.static_plans import AT, FAMILY, NOTHING, OURS, OURS_1H, Habit, StaticPlan

HABIT = Habit("auto", tools=False, system=True, size=1000)
SYSTEM = FAMILY.index(StaticPlan(("system",)))
HOUR = FAMILY.index(StaticPlan(("system",), "1h"))
END = FAMILY.index(StaticPlan(("end",)))


def bill_of(of: Prompt, alive: Mapping[int, int] | None = None, rule: ModelRule = CLAUDE, **rest: object) -> ShadowBill:
    """The bill of a prompt; `alive` by boundary."""
    by_digest = {of.boundaries[boundary].digest: plans for boundary, plans in (alive or {}).items()}
    given = {"common": -1, "minimum": rule.minimum, "factor": 1.0} | rest
    return ShadowBill(of, rule, RATES, by_digest, **given)  # type: ignore[arg-type]


def shadowed(of: Prompt, alive: Mapping[int, int] | None = None, *own: tuple[int, TTL], **rest: object) -> Shadowed:
    return bill_of(of, alive, **rest).bill(HABIT, own, NOW, 0.0)  # type: ignore[arg-type]


# -- against the provider's cache ----------------------------------------------------------------


@dataclass
class Service:
    """A cache for each plan, and the shadows that are to tell what is in it."""

    rule: ModelRule
    cache: CacheModel = field(default_factory=CacheModel)
    shadows: Shadows = field(default_factory=Shadows)
    before: set[bytes] = field(default_factory=set)

    def asks(self, of: Prompt, own: Sequence[tuple[int, TTL]], now: float) -> None:
        """Send a request by every plan, and compare."""
        common = max((i for i, boundary in enumerate(of.boundaries) if boundary.digest in self.before), default=-1)
        self.before = {boundary.digest for boundary in of.boundaries}
        alive = {digest: self.shadows.alive(digest, now) for digest in self.before}
        bill = ShadowBill(of, self.rule, RATES, alive, common, self.rule.minimum, 1.0)
        found = bill.bill(HABIT, own, now, 0.0)
        for plan in range(OURS + 1):
            points = own if plan == OURS else places_of(plan, bill.places())
            usage = self._served(str(plan), of, points, now)
            paid = usage.input + 0.1 * usage.cache_read + 1.25 * usage.cache_write_5m + 2 * usage.cache_write_1h
            assert found.costs[plan] == pytest.approx(paid), (plan, points, usage)
            assert found.longer[plan] == pytest.approx(0.75 * usage.cache_write_1h)
            if plan < OURS:
                assert bill.read_by(plan) == usage.cache_read
        self.shadows.began(found)

    def _served(self, scope: str, of: Prompt, points: Sequence[tuple[int, TTL]], now: float) -> Usage:
        positions = [Position(boundary.digest, int(boundary.tokens)) for boundary in of.boundaries]
        request = CacheRequest(scope, positions, [Point(*point) for point in points], int(of.tokens))
        served = self.cache.serve(request, self.rule, now)
        self.cache.begin_response(served, now)
        return served.usage


TOOLS = st.sampled_from([(), (400,), (1200, 300)])
SYSTEMS = st.sampled_from([(), (300,), (1500,), (800, 600), (800, 700), (800, 600, 100)])
TURN = st.lists(st.sampled_from([50, 300, 900]), min_size=1, max_size=4)


@st.composite
def sessions(draw: st.DrawFn) -> list[tuple[Prompt, float]]:
    """Conversations that go on, are edited or begin anew, with tools and system texts that may change."""
    tools, system, turns = draw(TOOLS), draw(SYSTEMS), [draw(TURN)]
    result: list[tuple[Prompt, float]] = []
    for _ in range(draw(st.integers(1, 7))):
        happens = draw(st.sampled_from(["goes on", "goes on", "again", "other system", "other tools", "edited", "new"]))
        if happens == "goes on" and result:
            turns = [*turns, draw(TURN), draw(TURN)]
        elif happens == "other system":
            system = draw(SYSTEMS)
        elif happens == "other tools":
            tools = draw(TOOLS)
        elif happens == "edited":
            turns = [*turns[:-1], draw(TURN)]
        elif happens == "new":
            turns = [draw(TURN)]
        result.append(
            (prompt(*turns, tools=tools, system=system), draw(st.sampled_from([0, 20, 299, 300, 2000, 3600])))
        )
    return result


RULES = st.sampled_from([CLAUDE, replace(CLAUDE, lookback=3), replace(CLAUDE, minimum=400, lookback=6)])


@settings(max_examples=60, deadline=None)
@given(sessions(), RULES)
def test_every_static_plan_pays_in_the_shadow_what_the_service_would_bill(
    session: list[tuple[Prompt, float]], rule: ModelRule
) -> None:
    service, now = Service(rule), NOW
    for of, gap in session:
        now += gap
        service.asks(of, [], now)


@settings(max_examples=100, deadline=None)
@given(sessions(), RULES, st.data())
def test_checkpoints_of_both_lifetimes_pay_what_the_service_would_bill(
    session: list[tuple[Prompt, float]], rule: ModelRule, data: st.DataObject
) -> None:
    service, now = Service(rule), NOW
    for of, gap in session:
        now += gap
        large = [i for i, boundary in enumerate(of.boundaries) if boundary.tokens >= rule.minimum]
        chosen = sorted(data.draw(st.sets(st.sampled_from(large), max_size=4))) if large else []
        hours = data.draw(st.integers(0, len(chosen)))  # never behind five minutes
        own: list[tuple[int, TTL]] = [(boundary, "1h" if i < hours else "5m") for i, boundary in enumerate(chosen)]
        service.asks(of, own, now)


@pytest.mark.parametrize(("first", "then"), [("5m", "1h"), ("1h", "5m")])
def test_what_lives_keeps_its_lifetime_whatever_reads_it(first: TTL, then: TTL) -> None:
    of, service = prompt([1000], system=[2000]), Service(CLAUDE)
    service.asks(of, [(0, first), (1, "5m")], NOW)
    service.asks(of, [(0, then), (1, "5m")], NOW + 200)
    service.asks(of, [(0, then)], NOW + 3500)
    service.asks(of, [(0, "5m")], NOW + 3700)


@pytest.mark.parametrize(("ttl", "lives"), [("5m", 300), ("1h", 3600)])
def test_only_the_deepest_entry_that_is_read_lives_longer_for_it(ttl: TTL, lives: int) -> None:
    service, turns = Service(CLAUDE), ([900], [100], [200], [100], [300])
    first, second, third = (prompt(*turns[:length], system=[1000]) for length in (1, 3, 5))
    edited = prompt(turns[0], [150], [200], system=[1000])
    service.asks(first, [(1, ttl)], NOW)
    service.asks(second, [(3, "5m")], NOW + 200)  # reads what the first wrote
    service.asks(third, [(5, "5m")], NOW + 400)  # reads what the second wrote
    service.asks(edited, [(3, "5m")], NOW + 200 + lives)  # and so what the first wrote is gone


# -- one request by hand -------------------------------------------------------------------------


def test_what_a_first_request_and_the_next_cost_by_hand() -> None:
    of = prompt([1000], system=[2000])  # 3,004 tokens
    first = shadowed(of)
    assert (first.habit, first.at, first.charge, first.largest) == (HABIT, NOW, 0.0, 3004)
    assert first.costs[NOTHING] == 3004
    assert first.costs[SYSTEM] == pytest.approx(2000 * 1.25 + 1004)
    assert first.costs[HOUR] == pytest.approx(2000 * 2 + 1004)
    assert first.longer[SYSTEM] == 0
    assert first.longer[HOUR] == pytest.approx(2000 * 0.75)
    assert first.costs[END] == pytest.approx(3004 * 1.25)
    assert len(first.costs) == len(first.longer) == OURS + 1
    alive = 1 << SYSTEM | 1 << HOUR
    second = shadowed(of, {0: alive, 1: 1 << END})
    assert second.costs[SYSTEM] == second.costs[HOUR] == pytest.approx(2000 * 0.1 + 1004)
    assert second.longer[HOUR] == 0
    assert second.costs[END] == pytest.approx(3004 * 0.1)


def test_what_the_planner_would_have_sent_is_one_more_plan() -> None:
    of = prompt([1000], tools=[1000], system=[2000])  # 1,000, 3,000 and 4,004 tokens
    cold = shadowed(of, None, (0, "1h"), (1, "1h"), (2, "5m"))
    assert cold.costs[OURS] == pytest.approx(3000 * 2 + 1004 * 1.25)
    assert cold.longer[OURS] == pytest.approx(3000 * 0.75)
    # it reads what it has, for an hour or for five minutes, with a checkpoint for either
    for alive in (OURS, OURS_1H):
        read = shadowed(of, {1: 1 << alive}, (2, "5m"))
        assert read.costs[OURS] == pytest.approx(3000 * 0.1 + 1004 * 1.25)
        assert read.longer[OURS] == 0
    behind = shadowed(of, {0: 1 << OURS}, (1, "1h"), (2, "5m"))
    assert behind.costs[OURS] == pytest.approx(1000 * 0.1 + 2000 * 2 + 1004 * 1.25)
    assert behind.longer[OURS] == pytest.approx(2000 * 0.75)
    assert shadowed(of).costs[OURS] == 4004


def test_sizes_are_as_calibrated() -> None:
    of = prompt([1000], system=[2000])
    half = shadowed(of, {0: 1 << HOUR}, factor=0.6)
    assert half.largest == pytest.approx(0.6 * 3004)
    assert half.costs[SYSTEM] == pytest.approx(0.6 * (2000 * 1.25 + 1004))
    assert half.costs[HOUR] == pytest.approx(0.6 * (2000 * 0.1 + 1004))
    # 0.49 x 2,000 tokens are fewer than 1,000
    assert shadowed(of, factor=0.49).costs[SYSTEM] == pytest.approx(0.49 * 3004)


def test_below_the_minimum_no_plan_has_a_checkpoint() -> None:
    of = prompt([995], system=[999])
    assert shadowed(of).costs[SYSTEM] == 1998
    assert shadowed(prompt([995], system=[1000])).costs[SYSTEM] == pytest.approx(1250 + 999)
    assert 0 not in bill_of(of).places()
    assert bill_of(of).places()[1] & AT["end"]


def test_a_section_refused_or_unknown_to_the_model_has_no_checkpoints() -> None:
    of = prompt([2000], tools=[1000], system=[1000])
    assert set(bill_of(of, left_out=("system",)).places()) == {0, 2}
    assert set(bill_of(of, rule=replace(CLAUDE, sections=("system", "messages"))).places()) == {1, 2}


def test_the_users_checkpoints_are_every_plans() -> None:
    of = prompt([1000, Mark()], system=[2000])
    paid = shadowed(of)
    assert paid.costs[NOTHING] == paid.costs[SYSTEM] == pytest.approx(3004 * 1.25)
    assert paid.costs[OURS] == 3004  # the planner's own says where it has its marks
    assert shadowed(of, {1: 1 << NOTHING}).costs[NOTHING] == pytest.approx(3004 * 0.1)
    far = prompt([2000, *[100] * 20, Mark()])
    assert shadowed(far, {0: 1 << NOTHING}).costs[NOTHING] == pytest.approx(4004 * 1.25)
    leading = prompt([1000], system=[Mark(leading=True), 2000])
    assert shadowed(leading).costs[NOTHING] == 3004


def test_what_is_common_with_the_last_request_is_written_and_read() -> None:
    common = FAMILY.index(StaticPlan(("common",)))
    of = prompt([two_parts(400)], system=[1000])  # the system prompt 0, a cut 1 at 1,104, the end 2
    cut, end = of.boundaries[1], of.boundaries[2]
    assert shadowed(of).costs[common] == end.tokens
    assert shadowed(of, common=1).costs[common] == pytest.approx(1.25 * cut.tokens + end.tokens - cut.tokens)
    # from the request after it on the cut is read, by the next place in common that is not before it
    for deeper, read in ((0, 0), (1, cut.tokens), (2, cut.tokens)):
        assert bill_of(of, {1: 1 << common}, common=deeper).read_by(common) == read
    assert bill_of(of, {2: 1 << common}, common=1).read_by(common) == 0  # in the same text, but behind the cut


def test_the_places_of_one_plan_are_told_with_its_lifetime() -> None:
    of = prompt([1000], tools=[1000], system=[1000])
    everywhere = FAMILY.index(StaticPlan(("tools", "system", "history", "end"), "1h"))
    assert places_of(everywhere, bill_of(of).places()) == [(0, "1h"), (1, "1h"), (2, "1h")]
    assert places_of(SYSTEM, bill_of(of).places()) == [(1, "5m")]
    assert places_of(NOTHING, bill_of(of).places()) == []


@pytest.mark.parametrize(("blocks", "read"), [(19, 2004), (20, 0)])
def test_an_entry_is_found_within_lookback(blocks: int, read: int) -> None:
    of = prompt([2000, *[100] * blocks])
    assert bill_of(of, {0: 1 << END}).read_by(END) == read
    stamps = shadowed(of, {0: 1 << END}).stamps
    assert (of.boundaries[0].digest in {stamp.digest for stamp in stamps if stamp.bits == 1 << END}) is bool(read)


def test_what_following_a_plan_costs_beyond_its_shadow_is_told() -> None:
    of = prompt([1000], system=[2000])
    assert bill_of(of).bill(HABIT, [], NOW, 700.0).charge == 700
