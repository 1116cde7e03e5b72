"""Standings as tables for docs/benchmark.md, the worst rows first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from statistics import median
from typing import Any, get_args

from capture_lib.report import Result, table

from league_lib.standing import Standing, Verdict, peers

VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
_MEANINGS: dict[Verdict, str] = {
    "over": "above what is allowed",
    "listed": "within it, but more than 1.03 × the best static plan and a quarter of the largest prompt",
    "within": "no more than that above the best static plan",
    "ahead": "no dearer than every static plan and every peer",
}


def plain(found: Standing, variant: str = "") -> Result:
    """What is kept of a standing."""
    kept = asdict(found) | ({"variant": variant} if variant else {})
    return {name: round(value, 5) if isinstance(value, float) else value for name, value in kept.items()} | {
        "plans": {plan: round(bill, 5) for plan, bill in found.plans.items()}
    }


def standings(results: Sequence[Result]) -> list[Standing]:
    """The standings again, the worst first: by verdict, then by ours over the best static plan."""
    found = [_standing(result) for result in results]
    return sorted(found, key=lambda each: (VERDICTS.index(each.verdict), -each.over_best))


def _standing(result: Result) -> Standing:
    return Standing(**{name: result[name] for name in Standing.__dataclass_fields__})


def rows_table(results: Sequence[Result]) -> str:
    """Every row with its bound, ours, the peer and the best static plan."""
    header = (
        "row", "calls", "largest prompt", "bound", "ours cold", "warm", "with hints", "LangChain 5m", "LangChain 1h",
        "best static plan", "ours / best", "lost prefixes", "verdict",
    )  # fmt: skip
    return table(header, map(_cells, standings(results)))


def _cells(found: Standing) -> Sequence[str]:
    five, hour = peers(found.plans)
    notes = [f"{found.refused} refused"] * bool(found.refused) + [f"{found.withheld} withheld"] * bool(found.withheld)
    return (
        f"{found.row}: {found.title}",
        f"{found.requests:,}",
        f"{found.largest_tokens:,}",
        _bill(found.bound),
        f"**{_bill(found.cold)}**",
        _bill(found.warm),
        _bill(found.hinted),
        _bill(five),
        _bill(hour),
        f"{_bill(found.best_bill)} {found.best}",
        f"{found.over_best:.3f}",
        f"{found.lost_prefixes:.2f}",
        ", ".join((found.verdict, *notes)),
    )


def _bill(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.3f}"


def summary_table(results: Sequence[Result]) -> str:
    """How many rows have each verdict, and the median row."""
    found = standings(results)
    counts = ((verdict, _MEANINGS[verdict], str(_count(found, verdict))) for verdict in VERDICTS)
    middle = f"{median(each.over_best for each in found):.3f}"
    return table(
        ("verdict", "what it means", "rows"), (*counts, ("all", f"the median row is at {middle}", str(len(found))))
    )


def _count(found: Sequence[Standing], verdict: Verdict) -> int:
    return sum(each.verdict == verdict for each in found)


def steady_table(results: Sequence[Result]) -> str:
    """Ours over the best static plan under other seeds, sizes and gaps; bold where it is above what is allowed."""
    variants = list(dict.fromkeys(result["variant"] for result in results))
    by_row: dict[str, dict[str, Standing]] = {}
    for result in results:
        by_row.setdefault(result["row"], {})[result["variant"]] = _standing(result)

    def worst(item: tuple[str, dict[str, Standing]]) -> tuple[float, float]:
        return -sum(each.verdict == "over" for each in item[1].values()), -max(
            each.over_best for each in item[1].values()
        )

    rows = (
        (row, *(_steady(found.get(variant)) for variant in variants))
        for row, found in sorted(by_row.items(), key=worst)
    )
    totals = [standings([each for each in results if each["variant"] == variant]) for variant in variants]
    over = ("rows above what is allowed", *(str(_count(found, "over")) for found in totals))
    middle = ("the median row", *(f"{median(each.over_best for each in found):.3f}" for found in totals))
    return table(("ours / best static plan", *variants), (over, middle, *rows))


def _steady(found: Standing | None) -> str:
    if found is None:
        return ""
    return f"**{found.over_best:.3f}**" if found.verdict == "over" else f"{found.over_best:.3f}"


def summary(found: Sequence[Standing]) -> str:
    """How many rows stand how, for the terminal."""
    counts = ", ".join(f"{_count(found, verdict)} {verdict}" for verdict in VERDICTS)
    middle = median(each.over_best for each in found)
    dear = [each.row for each in found if each.above_bound_a > 0]
    told = f"{len(found)} rows: {counts}; the median row is at {middle:.3f} of its best static plan"
    return told + (f"; above 1.015 × no caching and two lost writes: {', '.join(dear)}" if dear else "")


def as_json(results: Sequence[Standing], variant: str = "") -> list[dict[str, Any]]:
    """Standings for a file."""
    return [plain(each, variant) for each in results]
