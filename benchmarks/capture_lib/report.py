"""Results as JSON, as Markdown tables for docs/benchmark.md, and as lines while a run goes on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from capture_lib.measure import Outcome
from capture_lib.requests import Workload
from capture_lib.workers import Fleet

Result = dict[str, Any]
MAIN = "cachepoint (LangChain)"
FAST = "cachepoint (boto3)"


def plain(outcome: Outcome, workload: Workload) -> Result:
    """What is kept of an outcome."""
    usage = outcome.usage
    return {
        "row": outcome.row,
        "title": workload.title,
        "contender": outcome.contender,
        "requests": len(outcome.usages),
        "ratio": round(outcome.ratio, 5),
        "ratio_with_output": round(outcome.ratio_with_output, 5),
        "bound": round(outcome.bound / outcome.baseline, 5),
        "capture": None if outcome.capture is None else round(outcome.capture, 5),
        "refused": outcome.refused,
        "planning_ms": [round(each, 3) for each in outcome.planning] if outcome.planning else None,
        "usage": asdict(usage),
    }


def line(result: Result) -> str:
    """One result for the terminal."""
    capture = "      -" if result["capture"] is None else f"{result['capture']:7.4f}"
    planning = " / ".join(f"{each:.2f}" for each in result["planning_ms"]) + " ms" if result["planning_ms"] else ""
    return (
        f"{result['row']:4}{result['contender']:42}{result['ratio']:8.4f}{result['ratio_with_output']:8.4f}"
        f"{result['bound']:8.4f}{capture}{result['refused']:6}  {planning}"
    )


LINE_HEADER = f"{'':4}{'':42}{'bill':>8}{'w/ out':>8}{'bound':>8}{'capture':>7}{'refused':>8} planning p50 / p95"


def merge(path: Path, part: str, results: Sequence[Result]) -> None:
    """Put results into a JSON file beside its other parts, in place of those of the same rows and contenders."""
    kept = load(path) if path.exists() else {}
    fresh = {_key(result) for result in results}
    kept[part] = [result for result in kept.get(part, []) if _key(result) not in fresh] + list(results)
    path.write_text(json.dumps(kept, indent=1) + "\n", "utf-8")


def load(path: Path) -> dict[str, list[Result]]:
    """The parts of a JSON file: results of `rows`, `workers` and `steady`."""
    kept: dict[str, list[Result]] = json.loads(path.read_text("utf-8"))
    return kept


def _key(result: Result) -> tuple[Any, ...]:
    return tuple(result.get(name) for name in ("row", "contender", "processes", "calls", "variant"))


# -- tables ----------------------------------------------------------------------------------------


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---", *("--:" for _ in header[1:])], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _bill(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.3f}"


def _by_row(results: Sequence[Result]) -> Mapping[str, Mapping[str, Result]]:
    found: dict[str, dict[str, Result]] = {}
    for result in results:
        found.setdefault(result["row"], {})[result["contender"]] = result
    return dict(sorted(found.items(), key=lambda item: (item[0][0], int(item[0][1:]))))


def rows_table(results: Sequence[Result]) -> str:
    """What cachepoint makes of each row."""

    def cells(row: str, found: Mapping[str, Result]) -> Sequence[str]:
        main, timed = found.get(MAIN) or found[FAST], found[FAST]
        planning = " / ".join(f"{each:.1f}" for each in timed["planning_ms"]) if timed["planning_ms"] else "–"
        capture = "–" if main["capture"] is None else f"{main['capture']:.3f}"
        return (
            f"{row} {main['title']}",
            str(main["requests"]),
            _bill(main["bound"]),
            f"**{_bill(main['ratio'])}**",
            capture,
            _bill(main["ratio_with_output"]),
            str(main["refused"]),
            planning,
        )

    header = ("workload", "calls", "bound", "bill", "capture", "bill with output", "refused", "planning ms, p50 / p95")
    return table(header, (cells(row, found) for row, found in _by_row(results).items() if FAST in found))


def contenders_table(results: Sequence[Result], contenders: Sequence[str]) -> str:
    """Everyone's bill over no caching."""

    def cells(row: str, found: Mapping[str, Result]) -> Sequence[str]:
        bills = (found.get(name) for name in contenders)
        bound = next(iter(found.values()))["bound"]
        return (row, _bill(bound), *(_with_refusals(bill) for bill in bills))

    return table(("", "bound", *contenders), (cells(*item) for item in _by_row(results).items()))


def _with_refusals(result: Result | None) -> str:
    if result is None:
        return ""
    refused = f" ({result['refused']} refused)" if result["refused"] else ""
    return _bill(result["ratio"]) + refused


def references_table(results: Sequence[Result], names: Sequence[str]) -> str:
    """The rows with a reference of their own."""
    rows = [
        (row, name, _bill(result["ratio"]))
        for row, found in _by_row(results).items()
        for name, result in found.items()
        if name not in names
    ]
    return table(("row", "reference", "bill"), rows)


def workers_table(results: Sequence[Result]) -> str:
    """Bills of fleets: fresh, and with a loaded profile."""
    calls: list[int | None] = list(dict.fromkeys(result["calls"] for result in results))
    header = (
        "row", "processes", *(f"{count or 'all'} calls each" for count in calls), "in one process",
        "`cache_control` (5m)",
    )  # fmt: skip
    groups: dict[tuple[str, int], dict[int | None, Result]] = {}
    for result in results:
        groups.setdefault((result["row"], result["processes"]), {})[result["calls"]] = result
    rows = (
        (
            row, str(processes),
            *(f"{_bill(found[count]['fresh'])} · {_bill(found[count]['with_profile'])}" for count in calls),
            _bill(found[calls[0]]["one_process"]), _bill(found[calls[0]]["langchain_5m"]),
        )
        for (row, processes), found in groups.items()
    )  # fmt: skip
    return table(header, rows)


def steady_table(results: Sequence[Result]) -> str:
    """Captures under other seeds, sizes and gaps, beside the best by hand; bills where there is nothing to capture."""
    variants = list(dict.fromkeys(result["variant"] for result in results))
    found: dict[str, dict[str, dict[str, Result]]] = {}
    for result in results:
        found.setdefault(result["row"], {}).setdefault(result["variant"], {})[result["contender"]] = result

    def cell(by_contender: dict[str, Result]) -> str:
        ours = by_contender[FAST]
        if ours["capture"] is None:
            return f"bill {_bill(ours['ratio'])}"
        by_hand = [each["capture"] for name, each in by_contender.items() if name != FAST]
        return f"{ours['capture']:.3f}" + (f" (by hand {max(by_hand):.3f})" if by_hand else "")

    return table(("", *variants), ((row, *(cell(by[name]) for name in variants)) for row, by in found.items()))


def fleet_line(found: Fleet) -> str:
    """One fleet for the terminal."""
    peer = "" if found.langchain_5m is None else f", cache_control {found.langchain_5m:.4f}"
    return (
        f"{found.row:4}{found.processes:3} processes, {found.calls or 'all':>3} calls each: {found.fresh:.4f}, "
        f"with a profile {found.with_profile:.4f}, one process {found.one_process:.4f}{peer}"
    )


def put_tables(page: Path, tables: Mapping[str, str]) -> None:
    """Replace what stands between `<!-- name -->` and `<!-- /name -->` in a page."""
    content = page.read_text("utf-8")
    for name, made in tables.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        before, _, rest = content.partition(begin)
        content = f"{before}{begin}{made}\n{end}{rest.partition(end)[2]}"
    page.write_text(content, "utf-8")
