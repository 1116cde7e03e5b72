"""One program in one form: its bill in every variant and under every static plan."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from itertools import accumulate
from typing import Any

from cachepoint.catalogue.table import model_prices
from programs_lib import texts
from programs_lib.plans import PLANS, replay, total
from programs_lib.program import Form, Program
from programs_lib.stage import MODEL, VARIANTS, Stage, Variant

_FROM_TURN = 5
"""The turn from which caching must have stopped to cost more than none."""


@dataclass(frozen=True)
class Played:
    """A run: its stage when all is over, and the bill so far in USD at the end of each turn."""

    stage: Stage
    usd: Decimal
    by_turn: tuple[Decimal, ...]


def play(program: Program, form: Form, variant: Variant, seed: int = 0) -> Played:
    """Run a program; raises AssertionError where a request of it was refused."""
    stage = Stage(variant, program.answers, program.seconds_a_call)
    with warnings.catch_warnings():
        # Frameworks warn of what they will change; what is measured is today's.
        warnings.simplefilter("ignore")
        program.run(stage, texts.sessions(seed, form.sessions, form.turns))
    stage.close()
    refused = [call.error for call in stage.served if call.status != 200]
    assert not refused, f"{program.name}: {refused[0]}"
    bill = stage.emulator.bill()
    so_far = [Decimal(0), *accumulate(line.usd or Decimal(0) for line in bill.lines)]
    return Played(stage, total(bill), tuple(so_far[ended] for ended in stage.turn_ends))


def measure(program: Program, form: Form, seed: int = 0) -> dict[str, Any]:
    """A row of the table, all amounts in USD; without caching, by hand and best are the whole bill too."""
    played = {
        variant: play(program, form, variant, seed) for variant in VARIANTS if program.has_peer or variant != "peer"
    }
    plain, ours = played["no caching"], played["ours"]
    served = plain.stage.served
    assert len(ours.stage.served) == len(served), f"{program.name}: caching changed the course of the program"
    plans = {plan: total(replay(served, plan, program.static, program.answers)) for plan in PLANS}
    by_hand = _cheapest({plan.name: usd for plan, usd in plans.items() if plan.is_by_hand and plan.ttl == "5m"})
    peer = played["peer"].usd if program.has_peer else None
    others = {"nothing": plain.usd} | ({} if peer is None else {"peer": peer})
    best = _cheapest({**others, **{plan.name: usd for plan, usd in plans.items()}})
    return {
        "row": f"{program.name} {form.name}",
        "title": program.title,
        "requests": len(served),
        "largest": float(_largest(plain)),
        "by_hand": float(by_hand[1]),
        "by_hand_plan": by_hand[0],
        "ours": float(ours.usd),
        "ours_5m": float(played["ours 5m"].usd),
        "peer": None if peer is None else float(peer),
        "no_caching": float(plain.usd),
        "best": float(best[1]),
        "best_plan": best[0],
        "dearest_from_fifth_turn": _dearest(ours, plain),
    }


def _cheapest(bills: Mapping[str, Decimal]) -> tuple[str, Decimal]:
    """The cheapest and its bill; of equal ones the first."""
    return min(bills.items(), key=lambda bill: bill[1])


def _largest(plain: Played) -> Decimal:
    """The largest prompt at the price of uncached input."""
    prices = model_prices(MODEL)
    assert prices is not None
    usages = [call.usage for call in plain.stage.served if call.usage is not None]
    return max(usage.prompt for usage in usages) * prices.standard.input / 1_000_000


def _dearest(ours: Played, plain: Played) -> float | None:
    """Ours over no caching, each up to a turn: the highest ratio at the end of the fifth turn or a later one."""
    turns = list(zip(ours.by_turn, plain.by_turn, strict=True))[_FROM_TURN - 1 :]
    return float(max(cached / uncached for cached, uncached in turns)) if turns else None
