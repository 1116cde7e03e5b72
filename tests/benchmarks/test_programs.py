"""Programs run the same in every variant, and static plans put checkpoints where their names say."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import programs
import pytest
from programs_lib import texts
from programs_lib.measure import measure, play
from programs_lib.plans import NOTHING, Plan, replay
from programs_lib.program import Form, Program
from programs_lib.stage import START, Stage
from programs_lib.targets import QUICK, TARGETS, told

from cachepoint.emulator import ServedCall

# What LlamaIndex leaves open in whatever LLM it runs; the suites of tests/llama_index let the same pass.
pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed event loop:ResourceWarning"),
    pytest.mark.filterwarnings(r"ignore:unclosed <socket.socket fd=\d+, family=1,:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:.*aiosqlite.*:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:.*aiosqlite.*:pytest.PytestUnraisableExceptionWarning"),
]
WITH_STATIC_TEXT = [program for program in programs.PROGRAMS.values() if program.static]
TINY = Form("tiny", 1, 2)
POINT = {"cachePoint": {"type": "default"}}
STATIC = "The rules of the house."


@pytest.fixture(autouse=True, scope="module")
def garbage_is_collected_here() -> Iterator[None]:
    yield
    gc.collect()


def sent(stage: Stage) -> list[tuple[str, ...]]:
    """What a program sent: tools, system and turns as texts, without checkpoints and however cut into blocks.

    In order of the texts: some of an ingestion's calls are under way at once.
    """
    return sorted(_texts(NOTHING.applied(call.body or {}, ())) for call in stage.served)


def _texts(body: dict[str, Any]) -> tuple[str, ...]:
    tools = body.get("toolConfig", {}).get("tools", [])
    return tuple(map(_joined, (tools, body.get("system") or [], *(turn["content"] for turn in body["messages"]))))


def _joined(blocks: list[dict[str, Any]]) -> str:
    return "".join(block.get("text") or json.dumps(block, sort_keys=True) for block in blocks)


@pytest.mark.parametrize("program", programs.PROGRAMS.values(), ids=programs.PROGRAMS)
def test_a_program_sends_the_same_texts_with_and_without_caching(program: Program) -> None:
    assert sent(play(program, TINY, "ours")) == sent(play(program, TINY, "off"))


@pytest.mark.parametrize(
    ("places", "system", "last"),
    [
        ((), [{"text": f"{STATIC} News."}], [{"text": "Why?"}]),
        (("static",), [{"text": STATIC}, POINT, {"text": " News."}], [{"text": "Why?"}]),
        (("system",), [{"text": f"{STATIC} News."}, POINT], [{"text": "Why?"}]),
        (("static", "end"), [{"text": STATIC}, POINT, {"text": " News."}], [{"text": "Why?"}, POINT]),
    ],
)
def test_a_plan_puts_its_checkpoints_and_no_others(places: Any, system: object, last: object) -> None:
    asked = {"role": "user", "content": [{"text": "Why?"}, POINT]}
    body = {"system": [{"text": f"{STATIC} News."}], "messages": [asked]}

    applied = Plan("a plan", places).applied(body, (STATIC,))

    assert applied == {"system": system, "messages": [{"role": "user", "content": last}]}
    assert body["messages"] == [{"role": "user", "content": [{"text": "Why?"}, POINT]}]


def test_by_hand_without_a_static_text_means_behind_the_tools() -> None:
    tool = {"toolSpec": {"name": "look", "inputSchema": {"json": {"type": "object"}}}}
    body = {"toolConfig": {"tools": [tool]}, "messages": [{"role": "user", "content": [{"text": "Why?"}]}]}

    assert Plan("by hand", ("static",)).applied(body, (STATIC,))["toolConfig"]["tools"] == [tool, POINT]


@pytest.mark.parametrize(
    "program", [each for each in programs.PROGRAMS.values() if each.static], ids=lambda each: each.name
)
def test_the_static_text_of_a_program_is_in_its_requests(program: Program) -> None:
    *_, last = play(program, TINY, "off").served

    assert any(json.dumps(static)[1:-1] in json.dumps(last.body) for static in program.static)


@pytest.mark.parametrize(
    ("seconds", "ttl", "written", "read"),
    [(100, "5m", 1, 1), (400, "5m", 2, 0), (400, "1h", 1, 1), (4000, "1h", 2, 0)],
)
def test_a_replay_keeps_the_times_of_the_requests(seconds: float, ttl: Any, written: int, read: int) -> None:
    static = texts.GUIDE
    body = {"system": [{"text": f"{static} News."}], "messages": [{"role": "user", "content": [{"text": "Why?"}]}]}
    calls = [
        ServedCall(
            START + at, "Converse", "anthropic.claude-sonnet-4-5-20250929-v1:0", "us-east-1", "a", 200, body=body
        )
        for at in (0, seconds)
    ]

    usage = replay(calls, Plan("by hand", ("static",), ttl), (static,), lambda _: "So.").usage

    # Each request has the static text once, either written or read, so both come to twice its tokens.
    tokens = (usage.cache_write + usage.cache_read) / 2
    assert tokens > 3_000
    assert (usage.cache_write / tokens, usage.cache_read / tokens) == (written, read)


def test_no_question_comes_twice_and_a_rephrased_one_finds_the_same() -> None:
    asked = [question for session in texts.sessions(0, 10, 8) for question in session]

    assert len(set(asked)) == len(asked) == 80
    assert asked == [question for session in texts.sessions(0, 10, 8) for question in session]
    assert asked != [question for session in texts.sessions(1, 10, 8) for question in session]
    rephrased = "Earlier: " + asked[1] + " Now " + " and ".join(f'"{word}"' for word in texts.asked(asked[0])) + "."
    assert texts.embedding(rephrased) == texts.embedding(asked[0])


def test_a_row_is_no_cheaper_than_its_best_plan_where_nothing_can_be_cached() -> None:
    row = measure(programs.PROGRAMS["query_engine"], TINY)

    # Two prompts of some 1,600 tokens that share a few words: below every minimum that could be shared.
    assert row["requests"] == 2
    assert row["best_plan"] == "nothing"
    assert row["best"] == row["no_caching"] == min(row["plans"].values()) <= row["ours"]
    assert row["dearest_from_fifth_turn"] is None


def test_targets_name_programs_and_tell_of_measured_rows_alone() -> None:
    names = {row.rpartition(" ")[0] for target in TARGETS for row in target.rows}
    assert names <= set(QUICK) <= set(programs.PROGRAMS)

    lines = told([{"row": "rag_system short", "ours": 0.3}, {"row": "memory_agent short", "ours": 1, "no_caching": 2}])
    assert [line.split()[0] for line in lines] == ["MISSED", "met"]


def test_rows_are_written_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = tmp_path / "rows.json"
    programs.main(["--programs", "query_engine", "--forms", "short", "--json", str(kept)])

    (row,) = json.loads(kept.read_text("utf-8"))
    assert row["row"] == "query_engine short"
    assert "query_engine short" in capsys.readouterr().out


def test_an_unknown_program_is_named_with_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        programs.main(["--programs", "nowhere"])
    assert "no program is called nowhere; there are rag_system" in capsys.readouterr().err
