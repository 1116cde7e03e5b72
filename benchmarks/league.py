"""A league of traffic: on every row cachepoint beside the bound, the peers and every static plan; docs/benchmark.md.

`rows` plays them all (or those whose names begin as --rows says), `steady` the same under other seeds, sizes and gaps,
`report` puts what they wrote with --json into the docs. `--trace ROW` shows call by call what ours and a static plan
did. Bills are input sides over no caching. The distance is ours less what is allowed: 1.03 times the best static plan
and one lost prefix (1.15 times the largest prompt).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from capture_lib.mooncake import TRACE
from capture_lib.report import Result, load, merge, put_tables
from capture_lib.requests import Knobs, Workload
from league_lib import report, told
from league_lib.picture import picture
from league_lib.real import LEFT_OUT
from league_lib.rows import ROWS, SYNTHETIC
from league_lib.standing import Match, Standing, standing

DOCS = Path(__file__).resolve().parents[1] / "docs"
QUICK = (
    "rag-string-6", "rag-string-15", "rag-blocks-20", "rag-nothing-8", "chats-20s", "chats-55s", "chats-120s",
    "chats-200s", "approvals", "clear-20", "clear-each", "forks", "docs-grouped-block", "eval-samples", "canary",
)  # fmt: skip
VARIANTS = {
    "as it stands": Knobs(),
    "another seed": Knobs(seed=1),
    "a third seed": Knobs(seed=2),
    "sizes × 0.5": Knobs(sizes=0.5),
    "sizes × 2": Knobs(sizes=2),
    "gaps × 0.5": Knobs(gaps=0.5),
    "gaps × 2": Knobs(gaps=2),
}


def main(arguments: Sequence[str] | None = None) -> None:
    given = _parser().parse_args(arguments)
    knobs = Knobs(given.seed, given.sizes, given.gaps, given.count)
    if given.what == "report":
        write_docs(load(given.json))
    elif given.trace:
        for workload in named(given.trace, ROWS):
            print(*told.trace(Match.of(workload, knobs), given.against), sep="\n")
    else:
        print(*LEFT_OUT, sep="\n", end="\n" * bool(LEFT_OUT))
        workloads = named(",".join(QUICK) if given.quick else given.rows, SYNTHETIC if given.synthetic else ROWS)
        for variant, turned in ({"": knobs} if given.what == "rows" else VARIANTS).items():
            _play(workloads, turned, variant, given)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", default="rows", choices=("rows", "steady", "report"))
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the figures in a file, beside earlier ones")
    parser.add_argument("--before", type=Path, metavar="FILE", help="say which rows moved since that file was written")
    parser.add_argument("--rows", default="", metavar="A,B", help="rows whose names begin so")
    parser.add_argument("--trace", default="", metavar="ROW", help="one row, call by call")
    parser.add_argument("--against", default="", metavar="PLAN", help="trace beside this plan, such as 'S+E 1h'")
    parser.add_argument("--warm", action="store_true", help="also with a profile that another day left")
    parser.add_argument("--quick", action="store_true", help="the rows that say most")
    parser.add_argument("--synthetic", action="store_true", help="only made-up traffic in one place, some two minutes")
    parser.add_argument("--jobs", type=int, default=1, help="rows played at once")
    parser.add_argument("--seed", type=int, default=0)
    for name in ("sizes", "gaps", "count"):
        parser.add_argument(f"--{name}", type=float, default=1.0, metavar="FACTOR")
    return parser


def named(names: str, among: Sequence[Workload]) -> list[Workload]:
    """The rows whose names begin with one of these, all where there are none; R1 only where its trace is."""
    begins = tuple(name for name in names.split(",") if name)
    there = [workload for workload in among if workload.name != "R1" or TRACE.exists()]
    return [workload for workload in there if not begins or workload.name.startswith(begins)]


def _play(workloads: Sequence[Workload], knobs: Knobs, variant: str, given: argparse.Namespace) -> None:
    found = []
    earlier = load(given.before)[given.what] if given.before else []
    before = {result["row"]: result["cold"] for result in earlier if result.get("variant", "") == variant}
    print(told.HEADER if not variant else f"{variant}\n{told.HEADER}")
    for each in _standings(workloads, partial(standing, knobs=knobs, warm=given.warm), given.jobs):
        found.append(each)
        print(told.line(each, before.get(each.row)), flush=True)
        if given.json:
            merge(given.json, given.what, [report.plain(each, variant)])
    print(report.summary(found))


def _standings(workloads: Sequence[Workload], play: partial[Standing], jobs: int) -> Iterator[Standing]:
    if jobs == 1:
        yield from map(play, workloads)
        return
    with ProcessPoolExecutor(jobs) as pool:
        yield from pool.map(play, workloads)


def write_docs(parts: dict[str, list[Result]]) -> None:
    """The tables and the picture, from the results of all runs."""
    results = parts["rows"]
    tables = {"league": report.rows_table(results), "league-summary": report.summary_table(results)}
    if "steady" in parts:
        tables["league-steady"] = report.steady_table(parts["steady"])
    put_tables(DOCS / "benchmark.md", tables)
    (DOCS / "league.svg").write_text(picture(results), "utf-8")


if __name__ == "__main__":
    main()
