"""One program in one form: its bill in every variant and under every static plan."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from decimal import Decimal
from itertools import accumulate
from typing import Any

from cachepoint.catalogue.table import model_prices
from cachepoint.emulator import Bill
from programs_lib import texts
from programs_lib.plans import NOTHING, PLANS, replay
from programs_lib.program import Form, Program
from programs_lib.stage import MODEL, Stage, Variant, total

_FROM_TURN = 5
"""The turn from which caching must have stopped to cost more than none."""
SLACK = 0.03
LOST_PREFIX = 1.15
"""In largest prompts: what a 5-minute write that nobody reads costs over reading it."""


def play(program: Program, form: Form, variant: Variant, seed: int = 0) -> Stage:
    """Run a program; raises AssertionError where a request of it was refused."""
    stage = Stage(variant, program.answers, program.seconds_a_call)
    with warnings.catch_warnings():
        # Frameworks warn of what they will change; what is measured is today's.
        warnings.simplefilter("ignore")
        program.run(stage, texts.sessions(seed, form.sessions, form.turns))
    stage.close()
    refused = [call.error for call in stage.served if call.status != 200]
    assert not refused, f"{program.name}: {refused[0]}"
    return stage


def measure(program: Program, form: Form, seed: int = 0) -> dict[str, Any]:
    """A row of the table; amounts are in USD and of the whole bill, `largest` is the price of one uncached prompt.

    `distance` is ours less what issue 10 allows on every row of the league: 1.03 times the best static plan and one
    lost prefix; above 0 is too dear.
    """
    off = play(program, form, "off", seed)
    ours = play(program, form, "ours", seed)
    bills = {plan: replay(off.served, plan, program.static, program.answers) for plan in PLANS}
    if program.marks_itself:
        peer, nothing = off, bills[NOTHING]
    else:
        # LlamaIndex's own class leaves the LLM's system prompt out of some calls, ours of none: docs/llama-index.md.
        peer, nothing = play(program, form, "peer", seed), play(program, form, "no caching", seed).emulator.bill()
    requests = len(nothing.lines)
    assert len(ours.served) == len(off.served) == requests, f"{program.name}: caching changed the course of the program"
    usd = {plan.name: total(bill) for plan, bill in bills.items()} | {NOTHING.name: total(nothing)}
    by_hand = _cheapest({plan.name: usd[plan.name] for plan in PLANS if plan.is_by_hand and plan.ttl == "5m"})
    best = _cheapest({**usd, "peer": peer.usd})
    largest = _largest(nothing)
    return {
        "row": f"{program.name} {form.name}",
        "title": program.title,
        "requests": requests,
        "largest_tokens": max(line.usage.prompt for line in nothing.lines),
        "largest": largest,
        "by_hand": float(by_hand[1]),
        "by_hand_plan": by_hand[0],
        "ours": float(ours.usd),
        "ours_5m": float(play(program, form, "ours 5m", seed).usd),
        "peer": float(peer.usd),
        "no_caching": float(usd[NOTHING.name]),
        "best": float(best[1]),
        "best_plan": best[0],
        "distance": float(ours.usd) - (1 + SLACK) * float(best[1]) - LOST_PREFIX * largest,
        "plans": {name: float(amount) for name, amount in usd.items()},
        "dearest_from_fifth_turn": _dearest(ours, nothing),
    }


def _cheapest(bills: Mapping[str, Decimal]) -> tuple[str, Decimal]:
    """The cheapest and its bill; of equal ones the first."""
    return min(bills.items(), key=lambda bill: bill[1])


def _largest(nothing: Bill) -> float:
    """The largest prompt at the price of uncached input."""
    prices = model_prices(MODEL)
    assert prices is not None
    return float(max(line.usage.prompt for line in nothing.lines) * prices.standard.input / 1_000_000)


def _dearest(ours: Stage, nothing: Bill) -> float | None:
    """Ours over no caching, each up to a turn: the highest ratio at the end of the fifth turn or a later one."""
    ended = ours.turn_ends[_FROM_TURN - 1 :]
    cached, uncached = _so_far(ours.emulator.bill()), _so_far(nothing)
    return float(max(cached[requests] / uncached[requests] for requests in ended)) if ended else None


def _so_far(bill: Bill) -> list[Decimal]:
    """What the first so many requests came to."""
    return [Decimal(0), *accumulate(line.usd or Decimal(0) for line in bill.lines)]
