"""How much of what caching could save is saved, by cachepoint and by others; see docs/benchmark.md.

`rows` runs every workload with every contender that is installed, `workers` the short-lived and many
processes, `steady` cachepoint under other seeds, sizes and gaps, `report` puts what they wrote with --json
into the docs. `rows --fast` runs cachepoint alone, without HTTP; `--losses` says where it loses.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from capture_lib import report
from capture_lib.contenders import Cachepoint, cachepoints, references
from capture_lib.losses import told
from capture_lib.measure import run
from capture_lib.mooncake import R1, TRACE
from capture_lib.peers import peers
from capture_lib.picture import picture
from capture_lib.requests import Knobs, Workload
from capture_lib.stage import Contender
from capture_lib.traffic import Traffic
from capture_lib.workers import ROWS, fleets
from capture_lib.workloads import WORKLOADS

DOCS = Path(__file__).resolve().parents[1] / "docs"
VARIANTS = {
    "as it stands": Knobs(),
    "another seed": Knobs(seed=1),
    "a third seed": Knobs(seed=2),
    "sizes × 0.5": Knobs(sizes=0.5),
    "sizes × 1.5": Knobs(sizes=1.5),
    "gaps × 0.5": Knobs(gaps=0.5),
    "gaps × 1.5": Knobs(gaps=1.5),
}


def main(arguments: Sequence[str] | None = None) -> None:
    given = _parser().parse_args(arguments)
    results: list[report.Result] = []
    if given.what == "report":
        write_docs(report.load(given.json))
        return
    for result in {"rows": rows, "workers": workers, "steady": steady}[given.what](given):
        results.append(result)
        if given.json:
            report.merge(given.json, given.what, results)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", default="rows", choices=("rows", "workers", "steady", "report"))
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the results in a file, beside earlier ones")
    parser.add_argument("--rows", default="", metavar="A1,A8", help="these workloads only")
    parser.add_argument("--contenders", default="", metavar="TEXT,TEXT", help="those whose names begin so")
    parser.add_argument("--fast", action="store_true", help="no HTTP, and no frameworks")
    parser.add_argument("--losses", action="store_true", help="where cachepoint under boto3 loses against the bound")
    parser.add_argument("--seed", type=int, default=0)
    for name in ("sizes", "gaps", "count"):
        parser.add_argument(f"--{name}", type=float, default=1.0, metavar="FACTOR")
    return parser


def _knobs(given: argparse.Namespace) -> Knobs:
    return Knobs(given.seed, given.sizes, given.gaps, given.count)


def _workloads(given: argparse.Namespace, among: Sequence[Workload]) -> Iterator[Workload]:
    wanted = [row for row in given.rows.split(",") if row]
    for workload in among:
        if wanted and workload.name not in wanted:
            continue
        if workload is R1 and not TRACE.exists():
            print(f"{R1.name} is left out: the trace is not beside this project ({TRACE.name})")
            continue
        yield workload


def _contenders(given: argparse.Namespace, traffic: Traffic) -> list[Contender]:
    if given.fast:
        return [Cachepoint(), *references(traffic)]
    there, _ = peers()
    wanted = [part for part in given.contenders.split(",") if part]
    everyone = [*cachepoints(), *references(traffic), *there]
    return [each for each in everyone if not wanted or each.name.startswith(tuple(wanted))]


def rows(given: argparse.Namespace) -> Iterator[report.Result]:
    """The first table."""
    if not given.fast and (missing := peers()[1]):
        print(f"not installed, so left out: {', '.join(missing)}; pip install -r benchmarks/requirements.txt")
    print(report.LINE_HEADER)
    for workload in _workloads(given, (*WORKLOADS, R1)):
        traffic = Traffic.of(workload, _knobs(given))
        for contender in _contenders(given, traffic):
            outcome = run(contender, traffic, fast=given.fast)
            result = report.plain(outcome, workload)
            print(report.line(result), flush=True)
            if given.losses and isinstance(contender, Cachepoint):
                print(*told(traffic, outcome.usages), sep="\n", flush=True)
            yield result


def workers(given: argparse.Namespace) -> Iterator[report.Result]:
    """The second table."""
    langchain = next((peer for peer in peers()[0] if peer.name == "ChatBedrockConverse 5m"), None)
    for workload in _workloads(given, [each for each in WORKLOADS if each.name in ROWS]):
        for found in fleets(workload, _knobs(given), langchain):
            print(report.fleet_line(found), flush=True)
            yield asdict(found)


def steady(given: argparse.Namespace) -> Iterator[report.Result]:
    """The same figures elsewhere."""
    print(report.LINE_HEADER)
    for name, knobs in VARIANTS.items():
        print(name)
        for workload in _workloads(given, WORKLOADS):
            traffic = Traffic.of(workload, knobs)
            for contender in (Cachepoint(), *references(traffic)):
                result = report.plain(run(contender, traffic, fast=True), workload) | {"variant": name}
                print(report.line(result), flush=True)
                yield result


def write_docs(parts: dict[str, list[report.Result]]) -> None:
    """The tables and the picture, from the results of all runs."""
    results = parts["rows"]
    names = [name for name in _NAMES if any(result["contender"] == name for result in results)]
    tables = {
        "rows": report.rows_table(results),
        "contenders": report.contenders_table(results, names),
        "references": report.references_table(results, names),
        "workers": report.workers_table(parts.get("workers", [])),
        "steady": report.steady_table(parts.get("steady", [])),
    }
    report.put_tables(DOCS / "benchmark.md", tables)
    drawn = [workload.name for workload in (R1, *WORKLOADS)]
    (DOCS / "benchmark.svg").write_text(picture(results, drawn), "utf-8")


_NAMES = (
    "cachepoint (LangChain)", "cachepoint (LlamaIndex)", "cachepoint (boto3)", "ChatBedrockConverse",
    "ChatBedrockConverse 5m", "ChatBedrockConverse 1h", "LlamaIndex", "pydantic-ai", "Strands",
)  # fmt: skip


if __name__ == "__main__":
    main()
