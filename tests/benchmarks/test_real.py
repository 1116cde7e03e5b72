"""The league's real traffic: prompts share what the data says, and are sent when it says."""

from __future__ import annotations

from collections import Counter
from itertools import islice, pairwise, takewhile
from pathlib import Path
from typing import Any

import pytest
from capture_lib.contenders import Cachepoint
from capture_lib.measure import run
from capture_lib.mooncake import BLOCK, FOLDER, SCALE, TRACE, Trace
from capture_lib.requests import Knobs, Request, ToolResult, ToolUse, Workload
from capture_lib.stage import rendered
from capture_lib.traffic import Traffic
from league_lib import claude_code, places, real, tau_bench
from league_lib.claude_code import Agent, Sessions
from league_lib.tau_bench import Runs

EDITED, WITH_AGENTS = 4, 17
"""A session whose system prompt changes on the way and that is compacted, and one that starts three agents."""


def shared_tokens(one: Request, other: Request) -> int:
    """How many tokens two prompts have in common, cut where requests may part."""
    positions = [rendered(each, in_pieces=True).positions for each in (one, other)]
    same = list(takewhile(lambda pair: pair[0].digest == pair[1].digest, zip(*positions, strict=False)))
    return same[-1][0].tokens if same else 0


def agent(session: int, number: int = 0) -> tuple[Agent, list[Request], list[dict[str, Any]]]:
    given = list(claude_code.agents(claude_code.recorded()[session]))[number][0]
    made = Agent(session, given, Knobs())
    return made, list(made.requests(0.0)), given["requests"]


def test_rows_whose_data_is_absent_are_named() -> None:
    assert len(real.ROWS) + len(real.LEFT_OUT) == 7
    assert all("is left out" in line for line in real.LEFT_OUT)


@pytest.mark.parametrize("session", [0, EDITED, 6])
def test_coding_prompts_share_what_the_recorded_ones_share(shared_data: Path, session: int) -> None:
    made, requests, rows = agent(session)
    tools, system = 64 * (made.tools_end // 64), made.system_end

    for row, request, prompt in zip(rows, requests, made.prompts(), strict=True):
        like, shared = row["like"][0], row["like"][1] * 64
        if like < 0:
            continue
        other = requests[like]
        assert (request.tools == other.tools) == (shared >= tools)
        assert (request.tools + request.system == other.tools + other.system) == (shared >= system)
        ends = (prompt.first, *(end for each in prompt.rounds for end in (each.answered, each.end)))
        pairs = zip(request.messages, other.messages, strict=False)
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        # A message that is shared but for its last words may have lost just these to the service's own tokens.
        assert 0 <= same - sum(end <= shared for end in ends[: len(other.messages)]) <= 1


def test_coding_prompts_have_an_eighth_of_the_recorded_tokens(shared_data: Path) -> None:
    _, requests, rows = agent(6)

    sent = sum(rendered(request).total for request in requests)
    assert sent == pytest.approx(sum(row["in"] for row in rows) / claude_code.SCALE, rel=0.06)


def test_sessions_with_equally_long_tools_share_them_and_not_what_is_said(shared_data: Path) -> None:
    (_, first, _), (_, second, _) = agent(1), agent(2)  # both 12,597 and 2,208 tokens
    _, other, _ = agent(0)

    assert first[0].tools == second[0].tools
    assert first[0].system[0].whole == second[0].system[0].whole
    assert first[0].messages != second[0].messages
    assert first[0].tools[0] != other[0].tools[0]


def test_agents_of_one_session_share_their_first_message_as_far_as_recorded(shared_data: Path) -> None:
    (_, one, _), (_, two, _) = agent(WITH_AGENTS, 1), agent(WITH_AGENTS, 2)

    # 138 blocks of 64 tokens in both; what follows them differs.
    assert shared_tokens(one[0], two[0]) == pytest.approx(138 * 64 / 8, rel=0.05)
    assert one[0].at == two[0].at == 0.0


def test_a_coding_conversation_alternates_and_answers_every_call(shared_data: Path) -> None:
    _, requests, rows = agent(EDITED)

    for number, (request, row) in enumerate(zip(requests, rows, strict=True)):
        roles = [message.role for message in request.messages]
        assert roles == ["user", "assistant"] * (len(roles) // 2) + ["user"]
        for before, after in pairwise(request.messages):
            called = [part.id for part in before.content if isinstance(part, ToolUse)]
            assert called == [part.id for part in after.content if isinstance(part, ToolResult)]
        if row["like"][0] == number - 1 and len(request.messages) > len(requests[number - 1].messages):
            assert isinstance(request.messages[-1].content[0], ToolResult) == row["tool"]


def test_another_draw_starts_the_same_sessions_at_other_times(shared_data: Path) -> None:
    first, again = (list(Sessions(hours=2, sessions=3, draw=draw)(Knobs())) for draw in (0, 1))

    assert sorted(repr(request.messages) for request in first) == sorted(repr(request.messages) for request in again)
    assert [request.at for request in first] != [request.at for request in again]


def test_every_recorded_answer_of_an_airline_agent_is_a_request(shared_data: Path) -> None:
    requests = list(Runs(people=False)(Knobs(count=0.05)))
    runs = tau_bench.recorded()[:10]

    assert len(requests) == sum(message["role"] == "assistant" for run in runs for message in run)
    assert all(request.messages[-1].role == "user" for request in requests)
    assert {len(request.messages) for request in requests} >= {1, 3, 5}
    names = {tool.name for tool in requests[0].tools}
    uses = [part for r in requests for message in r.messages for part in message.content if isinstance(part, ToolUse)]
    assert uses
    assert {use.name for use in uses} <= names


def test_people_take_their_time_where_an_evaluation_does_not(shared_data: Path) -> None:
    def longest(people: bool) -> float:
        """Seconds between the first ten runs' successive requests, the mean."""
        by_run: dict[object, list[float]] = {}
        for request in Runs(people)(Knobs(count=0.05)):
            by_run.setdefault(request.messages[0], []).append(request.at)
        gaps = [after - before for times in by_run.values() for before, after in pairwise(times)]
        return sum(gaps) / len(gaps)

    # A step takes 5 s on average. Half of the steps wait for a person: 60 s × e^(0.8²/2) = 83 s on average.
    assert longest(people=False) == pytest.approx(5, rel=0.2)
    assert 5 + 0.3 * 83 < longest(people=True) < 5 + 0.8 * 83


@pytest.mark.parametrize("system", [0, 1])
def test_trace_prompts_share_as_many_blocks_as_their_hashes(shared_data: Path, system: int) -> None:
    trace = Trace(TRACE if system else FOLDER / "synthetic_trace.jsonl.gz", system=system, one_in=40)
    rows = [row for row in trace.rows() if row["input_length"] > system * BLOCK][:40]
    requests = list(islice(trace(Knobs()), 40))
    count = 0

    for row, request in zip(rows, requests, strict=True):
        for other_row, other in zip(rows, requests, strict=True):
            pairs = zip(row["hash_ids"], other_row["hash_ids"], strict=False)
            blocks = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
            if blocks * BLOCK > min(row["input_length"], other_row["input_length"]) or row is other_row:
                continue
            count += blocks > system
            # A block is 64 tokens in 62 words or so, and each of its messages is framed by three.
            assert shared_tokens(request, other) == pytest.approx(blocks * BLOCK / SCALE, rel=0.12, abs=64)
    assert count


def test_callers_of_the_trace_know_whether_they_go_on(shared_data: Path) -> None:
    requests = list(Trace(TRACE, system=1, one_in=16, hints=True)(Knobs(count=0.2)))

    ends = Counter(request.expect["ends"] for request in requests if request.expect is not None)
    assert ends[True]
    assert ends[False]
    for number, request in enumerate(requests):
        later = (other.messages[: len(request.messages) - 1] for other in requests[number + 1 :])
        if len(request.messages) > 1 and request.messages[:-1] not in later:
            assert request.expect == {"ends": True}


@pytest.mark.parametrize("workload", [*real.ROWS, *places.ROWS], ids=lambda workload: workload.name)
def test_a_row_is_in_order_of_time_and_refused_nowhere(workload: Workload) -> None:
    traffic = Traffic.of(workload, Knobs(count=0.02))
    times = [request.at for request in traffic.requests]

    assert times == sorted(times)
    assert traffic.requests == tuple(workload.requests(Knobs(count=0.02)))
    assert run(Cachepoint(), traffic, fast=True).refused == 0


def test_a_tenants_entries_are_its_own() -> None:
    together = Traffic.of(places.ROWS[0], Knobs(count=0.05))
    models = {request.model for request in together.requests}

    assert 1 < len(models) <= 20
    # The system prompt is one edge for each tenant that calls, since none reads what another wrote.
    system = rendered(together.requests[0]).positions[0].digest
    assert sum(digest == system for _, digest in together.trie.edges) == len(models)


def test_a_region_that_fails_hands_everything_on_for_half_an_hour() -> None:
    requests = list(places.Regions("failover", places.failed_over)(Knobs()))

    away = [request.at for request in requests if request.region == places.SECOND_REGION]
    assert away
    assert away == [request.at for request in requests if 3600 <= request.at < 5400]


def test_a_twentieth_of_the_calls_spills_and_every_other_is_handed_round() -> None:
    spilled = [request.region for request in places.Regions("spill", places.spilled)(Knobs())]
    round_robin = [request.region for request in places.Regions("round-robin", places.round_robin)(Knobs())]

    assert spilled.count(places.SECOND_REGION) / len(spilled) == pytest.approx(0.05, abs=0.025)
    assert round_robin.count(places.SECOND_REGION) == len(round_robin) // 2
