"""Standings and single calls as lines for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from capture_lib.contenders import Cachepoint
from capture_lib.measure import input_side
from capture_lib.stage import rates

from cachepoint.core.provider.usage import Usage
from league_lib.standing import Match, Standing, peers, usage_of

_SEEN = 0.0005
"""What shows in three digits."""
HEADER = (
    f"{'row':24}{'calls':>6}{'largest':>9}{'bound':>7}{'cold':>7}{'warm':>7}{'hints':>7}{'peer5m':>8}{'peer1h':>8}"
    f"{'best':>7} {'static plan':18}{'ours/best':>10}{'distance':>10}  verdict"
)


def line(found: Standing, before: float | None = None) -> str:
    """One row; `before` is what ours cold was in an earlier run."""
    five, hour = peers(found.plans)
    extra = [f"{found.refused} refused"] * bool(found.refused) + [f"{found.withheld} withheld"] * bool(found.withheld)
    if before is not None and abs(found.cold - before) >= _SEEN:
        extra.append(f"cold was {before:.3f}")
    return (
        f"{found.row:24}{found.requests:6}{found.largest_tokens:9,}{found.bound:7.3f}{found.cold:7.3f}"
        f"{_bill(found.warm):>7}{_bill(found.hinted):>7}{five:8.3f}{hour:8.3f}{found.best_bill:7.3f} {found.best:18}"
        f"{found.over_best:10.3f}{found.distance:+10.3f}  {found.verdict}{'; ' * bool(extra)}{', '.join(extra)}"
    )


def _bill(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.3f}"


def trace(match: Match, against: str = "") -> Iterator[str]:
    """Call by call, what ours and a static plan did (by default the best), and how far ours is behind so far."""
    ours = Cachepoint()
    outcome = match.play(ours)
    best, price, behind = match.static(against) if against else match.best, rates(), 0.0
    yield f"{match.workload.name}: ours {outcome.bill / match.baseline:.4f}, {best.plan} {best.ratio:.4f}"
    yield f"{'':>5}{'time':>9}{'tokens':>8}  {'read/5m/1h/input':30}{best.plan + ': read/5m/1h/input':36}{'behind':>10}"
    for number, (prompt, static) in enumerate(zip(match.prompts, best.usages, strict=True)):
        told = ours.told.get(id(prompt.request))
        usage = usage_of(told) if told else Usage(input=prompt.whole.total)
        behind += input_side(usage, price) - input_side(static, price)
        yield (
            f"{number:5}{prompt.request.at:9.0f}{prompt.whole.total:8}  {_usage(usage):30}{_usage(static):36}"
            f"{behind:+10.0f}"
        )
        yield from _decisions(told) if told else ["      failed"]


def _usage(usage: Usage) -> str:
    return f"{usage.cache_read}/{usage.cache_write_5m}/{usage.cache_write_1h}/{usage.input}"


def _decisions(told: Mapping[str, Any]) -> Iterator[str]:
    for point in told["checkpoints"]:
        yield f"      + {point['path']} {point['ttl']} at {point['tokens']}: {point['why']}"
    for place in told["held"]:
        yield f"      - {place['path']} {place['reason']}: {place['why']}"
    if told["miss"]:
        yield f"      ! {told['miss']['reason']} at {told['miss']['path']}: {told['miss']['lost_tokens']} tokens"
