"""A league of traffic: on every row cachepoint beside the bound, the peers and every static plan; docs/benchmark.md.

`rows` plays them all (or those whose names begin as --rows says); `--trace ROW` shows call by call what ours and the
best static plan did. Bills are input sides over no caching. The distance is ours less what is allowed: 1.03 times the
best static plan and one lost prefix (1.15 times the largest prompt).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from capture_lib.mooncake import TRACE
from capture_lib.requests import Knobs, Workload
from league_lib import told
from league_lib.real import LEFT_OUT
from league_lib.rows import ROWS
from league_lib.standing import Match, Standing, standing

QUICK = (
    "rag-string-6", "rag-string-15", "rag-blocks-20", "rag-nothing-8", "chats-20s", "chats-55s", "chats-120s",
    "chats-200s", "approvals", "clear-20", "clear-each", "forks", "docs-grouped-block", "eval-samples", "canary",
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    given = _parser().parse_args(arguments)
    knobs = Knobs(given.seed, given.sizes, given.gaps, given.count)
    if given.trace:
        for workload in _named(given.trace):
            print(*told.trace(Match.of(workload, knobs)), sep="\n")
        return
    print(*LEFT_OUT, sep="\n", end="\n" * bool(LEFT_OUT))
    found: list[Standing] = []
    print(told.HEADER)
    for workload in _named(",".join(QUICK)) if given.quick else _named(given.rows):
        found.append(standing(workload, knobs, warm=given.warm))
        print(told.line(found[-1]), flush=True)
    print(told.summary(found))
    if given.json:
        given.json.write_text(json.dumps([asdict(each) for each in found], indent=1) + "\n", "utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the figures in a file")
    parser.add_argument("--rows", default="", metavar="A,B", help="rows whose names begin so")
    parser.add_argument("--trace", default="", metavar="ROW", help="one row, call by call")
    parser.add_argument("--warm", action="store_true", help="also with a profile that another day left")
    parser.add_argument("--quick", action="store_true", help="the rows that say most")
    parser.add_argument("--seed", type=int, default=0)
    for name in ("sizes", "gaps", "count"):
        parser.add_argument(f"--{name}", type=float, default=1.0, metavar="FACTOR")
    return parser


def _named(names: str) -> list[Workload]:
    begins = tuple(name for name in names.split(",") if name)
    there = [workload for workload in ROWS if workload.name != "R1" or TRACE.exists()]
    return [workload for workload in there if not begins or workload.name.startswith(begins)]


if __name__ == "__main__":
    main()
