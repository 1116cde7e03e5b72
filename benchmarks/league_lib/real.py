"""Rows from real traffic; where its data is not beside this project, a row is left out, with a line that says so.

Claude Code and Mooncake have an eighth of the tokens, and the minimum with them; of Mooncake's conversations one in
four is played, over the whole hour; their hints say which go on. tau-bench is as it was.
"""

from __future__ import annotations

from pathlib import Path

from capture_lib.mooncake import FOLDER, SCALE, TRACE, Trace
from capture_lib.requests import Workload

from league_lib import claude_code, tau_bench
from league_lib.claude_code import Sessions
from league_lib.tau_bench import Runs

SYNTHETIC = FOLDER / "synthetic_trace.jsonl.gz"
_MINIMUM = 1024
_CONVERSATIONS = Trace(TRACE, system=1, one_in=4, hints=True)


def _sessions(name: str, title: str, requests: Sessions) -> Workload:
    return Workload(name, f"Claude Code: {title}", requests, 400 // SCALE, _MINIMUM // claude_code.SCALE)


def _mooncake(name: str, title: str, requests: Trace) -> Workload:
    return Workload(name, f"Mooncake: {title}", requests, 340 // SCALE, _MINIMUM // SCALE)


_ROWS: tuple[tuple[Path, Workload], ...] = (
    (
        claude_code.SESSIONS,
        _sessions("claude-code-15", "15 recorded sessions within 2 hours", Sessions(hours=2, sessions=15)),
    ),
    (
        claude_code.SESSIONS,
        _sessions("claude-code-100", "100 recorded sessions within 8 hours", Sessions(hours=8)),
    ),
    (
        claude_code.SESSIONS,
        _sessions("claude-code-again", "the same sessions, begun at other times", Sessions(hours=8, draw=1)),
    ),
    (
        tau_bench.RUNS,
        Workload("tau-bench", "tau-bench: 200 airline dialogues as an evaluation, ten at a time", Runs(people=False)),
    ),
    (
        tau_bench.RUNS,
        Workload("tau-bench-people", "tau-bench: the same with people, a minute a turn", Runs(people=True)),
    ),
    (TRACE, _mooncake("mooncake-chat", "an hour of a chat service, one conversation in four", _CONVERSATIONS)),
    (
        SYNTHETIC,
        _mooncake("mooncake-synthetic", "17 minutes of documents, chats and tools", Trace(SYNTHETIC, system=0)),
    ),
)

ROWS: tuple[Workload, ...] = tuple(workload for path, workload in _ROWS if path.exists())
LEFT_OUT: tuple[str, ...] = tuple(
    f"{workload.name} is left out: its data is not beside this project ({path.name})"
    for path, workload in _ROWS
    if not path.exists()
)
