"""The benchmark measures what it says, on workloads small enough for a test."""

from __future__ import annotations

import pytest
from capture_lib.contenders import ByHand, Cachepoint, clairvoyant_ends, history_end, nowhere, prompt_end
from capture_lib.losses import losses
from capture_lib.measure import run
from capture_lib.requests import Knobs, Workload, converse
from capture_lib.stage import rates
from capture_lib.traffic import Traffic
from capture_lib.workers import fleets
from capture_lib.workloads import WORKLOADS

SMALL = Knobs(count=0.05)
BY_NAME = {workload.name: workload for workload in WORKLOADS}


def small(name: str) -> Traffic:
    return Traffic.of(BY_NAME[name], SMALL)


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload.name)
def test_the_same_seed_makes_the_same_requests_in_order_of_time(workload: Workload) -> None:
    requests = list(workload.requests(SMALL))

    assert requests == list(workload.requests(SMALL))
    assert requests != list(workload.requests(Knobs(seed=1, count=0.05)))
    assert [request.at for request in requests] == sorted(request.at for request in requests)


def test_another_day_keeps_what_stands_and_changes_what_is_asked() -> None:
    today, yesterday = (list(BY_NAME["A2"].requests(Knobs(count=0.05, day=day))) for day in (0, 1))

    assert [request.system for request in today] == [request.system for request in yesterday]
    assert all(a.messages != b.messages for a, b in zip(today, yesterday, strict=True))


def test_pieces_say_where_requests_part_and_change_no_text() -> None:
    request = next(iter(BY_NAME["A1"].requests(SMALL)))
    whole, pieces = converse(request), converse(request, in_pieces=True)

    (sent,) = whole["messages"][0]["content"]
    assert "".join(part["text"] for part in pieces["messages"][0]["content"]) == sent["text"]


def test_without_caching_the_bill_is_the_baseline() -> None:
    traffic = small("A4")
    outcome = run(ByHand("nowhere", nowhere), traffic, fast=True)

    assert outcome.bill == pytest.approx(traffic.baseline, rel=1e-3)
    assert outcome.capture == pytest.approx(0, abs=2e-3)


@pytest.mark.parametrize("row", ["A1", "A3", "A5", "A10"])
def test_no_bill_is_below_the_bound(row: str) -> None:
    traffic = small(row)

    for contender in (Cachepoint(), ByHand("end", prompt_end), ByHand("end, 1h", prompt_end, "1h")):
        assert run(contender, traffic, fast=True).bill >= traffic.bound


def test_http_and_the_fast_path_give_the_same_figures() -> None:
    traffic = small("A10")
    contender = ByHand("history", history_end)

    fast, slow = (run(contender, traffic, fast=each) for each in (True, False))

    assert fast.usages == slow.usages
    assert fast.bill < traffic.baseline


def test_cachepoint_over_http_plans_as_it_does_without() -> None:
    traffic = small("A8")

    fast, slow = (run(Cachepoint(), traffic, fast=each) for each in (True, False))

    assert fast.usages == slow.usages


def test_requests_of_a_group_are_under_way_together() -> None:
    traffic = Traffic.of(BY_NAME["A9"], Knobs(count=0.1))
    outcome = run(ByHand("end of the prompt", prompt_end), traffic, fast=True)

    assert outcome.usage.cache_read == 0, "each was sent before the first response began"
    assert outcome.ratio == pytest.approx(1.25, abs=0.01)


def test_losses_add_up_to_the_distance_from_the_bound() -> None:
    traffic = small("A4")
    outcome = run(Cachepoint(), traffic, fast=True)

    lost = sum(loss.lost(rates()) for loss in losses(traffic, outcome.usages))

    assert lost == pytest.approx(outcome.bill - traffic.bound, rel=0.01, abs=50)


def test_a_clairvoyant_end_point_writes_only_what_comes_back() -> None:
    traffic = small("A4")
    knowing = run(ByHand("clairvoyant", clairvoyant_ends(traffic)), traffic, fast=True)
    always = run(ByHand("always", prompt_end), traffic, fast=True)

    assert knowing.usage.cache_read == always.usage.cache_read
    assert knowing.usage.cache_write < always.usage.cache_write


def test_processes_that_load_a_profile_do_as_well_as_one_that_lives_on() -> None:
    found = {(fleet.processes, fleet.calls): fleet for fleet in fleets(BY_NAME["A2"], SMALL, None)}

    shortest = found[64, 1]
    assert shortest.with_profile <= shortest.one_process + 0.05
