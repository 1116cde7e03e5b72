"""The league bills what it says, on traffic small enough to work by hand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from capture_lib.contenders import ByHand, history_end, prompt_end
from capture_lib.measure import run
from capture_lib.prose import prose
from capture_lib.report import put_tables
from capture_lib.requests import Knobs, Request, Workload, assistant, profile_arn, text, user
from league_lib import agents, chats, rag, report, told
from league_lib.picture import picture
from league_lib.standing import Match, Standing, standing
from league_lib.statics import NOTHING, PEERS

SMALL = Knobs(count=0.05)
SYNTHETIC = (*rag.ROWS, *chats.ROWS, *agents.ROWS)
SYSTEM = prose(2_000, "league system")


def match(*requests: Request) -> Match:
    def same(knobs: Knobs) -> Iterator[Request]:
        return iter(requests)

    return Match.of(Workload("row", "a row", same), Knobs())


def asked(at: float, question: str, **more: Any) -> Request:
    return Request(at, (user(question),), (text(SYSTEM),), **more)


def bills(found: Match) -> dict[str, float]:
    return {bill.plan: bill.ratio for bill in found.statics}


@pytest.mark.parametrize("workload", SYNTHETIC, ids=lambda workload: workload.name)
def test_a_row_is_the_same_for_the_same_seed_and_in_order_of_time(workload: Workload) -> None:
    requests = list(workload.requests(SMALL))

    assert requests == list(workload.requests(SMALL))
    assert requests != list(workload.requests(Knobs(seed=1, count=0.05)))
    assert [request.at for request in requests] == sorted(request.at for request in requests)


@pytest.mark.parametrize("workload", SYNTHETIC, ids=lambda workload: workload.name)
def test_no_static_plan_is_below_the_bound_and_nothing_costs_one(workload: Workload) -> None:
    found = Match.of(workload, SMALL)

    assert bills(found)[NOTHING] == 1
    # A cut inside a string adds a token at most, so bound and bills may differ by as much.
    assert found.best.ratio >= found.traffic.bound / found.traffic.baseline - 1e-3


def test_the_system_end_for_five_minutes_is_written_then_read_then_written_again() -> None:
    found = match(asked(0, "one"), asked(200, "two"), asked(600, "three"))
    system, total = found.prompts[0].whole.positions[0].tokens, sum(each.whole.total for each in found.prompts)

    usages = found.static("S 5m").usages

    assert [(usage.cache_write_5m, usage.cache_read) for usage in usages] == [(system, 0), (0, system), (system, 0)]
    # Two writes at 1.25 and one read at 0.1 in place of three times the price of input.
    assert found.static("S 5m").ratio == pytest.approx(1 + system * (2 * 0.25 - 0.9) / total)
    # One write at 2 and two reads.
    assert found.static("S 1h").ratio == pytest.approx(1 + system * (1 - 2 * 0.9) / total)


def test_the_common_prefix_ends_where_two_requests_part_inside_a_string() -> None:
    def changing(at: float, number: int) -> Request:
        return Request(at, (user("and?"),), (text(SYSTEM, prose(500, "changing", number)),))

    found = match(*(changing(at, at) for at in (0, 10, 20)))
    shared = found.prompts[0].pieces.positions[0].tokens

    usages = found.static("common prefix 5m").usages

    assert [(usage.cache_write_5m, usage.cache_read) for usage in usages] == [(0, 0), (shared, 0), (0, shared)]


def test_the_common_prefix_is_shared_by_a_first_and_a_second_turn() -> None:
    first = (user(prose(1_500, "first")),)
    second = (*first, assistant("yes"), user("more"))
    found = match(Request(0, first), Request(10, second), Request(20, second))

    written = [usage.cache_write_5m for usage in found.static("common prefix 5m").usages]

    assert written[:2] == [0, found.prompts[0].whole.positions[-1].tokens]


def test_requests_sent_at_once_do_not_read_what_the_others_write() -> None:
    found = match(*(asked(0, str(number), group="burst") for number in range(3)), asked(1, "later"))

    assert [usage.cache_read > 0 for usage in found.static("S 5m").usages] == [False, False, False, True]


def test_profiles_and_regions_share_no_entries() -> None:
    elsewhere = (asked(1, "b", model=profile_arn(0)), asked(2, "c", region="eu-west-1"), asked(3, "d"))
    found = match(asked(0, "a"), *elsewhere)

    assert [usage.cache_read > 0 for usage in found.static("S 5m").usages] == [False, False, False, True]


@pytest.mark.parametrize("name", ["chats-55s", "clear-20", "forks"])
def test_a_static_bill_is_what_the_emulator_bills_for_the_same_points(name: str) -> None:
    (workload,) = (each for each in SYNTHETIC if each.name == name)
    found = Match.of(workload, Knobs(count=0.1))

    for plan, place in (("E", prompt_end), ("H", history_end)):
        played = run(ByHand(plan, place, "1h"), found.traffic, fast=True)
        assert found.static(f"{plan} 1h").ratio == pytest.approx(played.bill / found.baseline)


@pytest.mark.parametrize("ttl", ["5m", "1h"])
def test_the_peer_plan_places_what_langchain_aws_places(ttl: str) -> None:
    pytest.importorskip("langchain_aws")
    from capture_lib.peers import peers

    (workload,) = (each for each in SYNTHETIC if each.name == "approvals")
    found = Match.of(workload, Knobs(count=0.1))
    (peer,) = (each for each in peers()[0] if each.name == f"ChatBedrockConverse {ttl}")

    played = run(peer, found.traffic, fast=False)

    # Its own notation of tool calls takes a token here and there.
    assert found.static(f"T+S+E+H {ttl}").ratio == pytest.approx(played.bill / found.baseline, rel=5e-3)


def test_a_standing_tells_ours_cold_and_with_a_profile() -> None:
    (workload,) = (each for each in SYNTHETIC if each.name == "classify-10s")

    found = standing(workload, Knobs(count=0.1), warm=True)

    assert found.requests == 30
    assert found.warm is not None
    assert found.bound - 1e-9 <= found.warm <= found.cold < 0.3
    assert found.refused == 0


def test_a_trace_tells_each_call_and_what_was_decided() -> None:
    (workload,) = (each for each in SYNTHETIC if each.name == "rag-string-6")

    lines = list(told.trace(Match.of(workload, Knobs()), "S 5m"))

    assert "S 5m" in lines[0]
    assert sum(line.strip().split(" ")[0].isdigit() for line in lines) == 6
    assert any("system[" in line for line in lines)


# -- verdicts and tables ---------------------------------------------------------------------------


def stands(row: str, cold: float, best: float, **more: Any) -> Standing:
    plans = {NOTHING: 1.0, "S 5m": best, **dict.fromkeys(PEERS.values(), 1.25)}
    given = {"warm": None, "hinted": None, "refused": 0, "withheld": 0, "largest": 0.1, **more}
    return Standing(row, "a row", 10, 1_000, bound=0.1, cold=cold, plans=plans, **given)


# The largest prompt is a tenth of no caching. 1.03 × 0.5 = 0.515; a quarter of the largest prompt on top is 0.54,
# a lost prefix 0.515 + 0.115 = 0.63.
FOUND: Sequence[Standing] = (
    stands("first", 0.5, 0.5),
    stands("second", 0.539, 0.5, warm=0.5),
    stands("third", 0.541, 0.5, refused=2),
    stands("fourth", 0.631, 0.5, withheld=3),
)


def test_a_verdict_tells_how_far_ours_is_above_the_best_static_plan() -> None:
    assert [each.verdict for each in FOUND] == ["ahead", "within", "listed", "over"]
    assert [each.distance for each in FOUND] == pytest.approx([-0.13, -0.091, -0.089, 0.001])


def test_the_worst_rows_stand_first() -> None:
    lines = report.rows_table(report.as_json(FOUND)).splitlines()[2:]

    assert [line.split(":")[0] for line in lines] == ["| fourth", "| third", "| second", "| first"]
    assert "over, 3 withheld" in lines[0]
    assert "listed, 2 refused" in lines[1]


def test_the_summary_counts_verdicts_and_names_the_median() -> None:
    told_of = report.summary_table(report.as_json(FOUND))

    assert "the median row is at 1.080 | 4 |" in told_of  # between 0.539 / 0.5 and 0.541 / 0.5


def test_variants_stand_beside_each_other() -> None:
    results = [*report.as_json(FOUND, "a seed"), *report.as_json(FOUND[:1], "another")]

    assert "| fourth | **1.262** |  |" in report.steady_table(results)
    assert "| first | 1.000 | 1.000 |" in report.steady_table(results)


def test_a_line_says_what_ours_was_before_where_it_moved() -> None:
    assert "cold was 0.600" in told.line(FOUND[0], 0.6)
    assert "cold was" not in told.line(FOUND[0], 0.5001)


def test_the_picture_has_every_row_and_both_edges() -> None:
    far = (*FOUND, stands("far", 0.1, 0.5), stands("dear", 1.5, 0.5))

    drawn = ET.fromstring(picture(report.as_json(far)))

    texts = [element.text for element in drawn.iter() if element.tag.endswith("text")]
    assert {each.row for each in far} <= set(texts)
    assert {"0.20", "3.00"} <= set(texts)


def test_tables_go_into_the_page_between_their_markers(tmp_path: Any) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- league -->\na table of before\n<!-- /league -->\nafter\n", "utf-8")

    put_tables(page, {"league": report.rows_table(report.as_json(FOUND))})

    content = page.read_text("utf-8")
    assert "a table of before" not in content
    assert content.startswith("before\n<!-- league -->\n| row |")
    assert content.endswith("<!-- /league -->\nafter\n")
