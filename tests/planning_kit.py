"""Prompts with sizes in tokens and views by hand, so that what the planner makes of them can be worked out on paper.

A text of the older Claude tokenizer is taken for 4.4 bytes a token, JSON for 3.2: sizes are multiples of five tokens.
A message costs four tokens more. Without cuts a boundary has the index of its block.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from cachepoint.core.planning import planner
from cachepoint.core.planning.plan import Checkpoint, Plan
from cachepoint.core.planning.policy import CachePolicy
from cachepoint.core.planning.reasons import Placed
from cachepoint.core.prompt.builder import PromptBuilder
from cachepoint.core.prompt.prompt import Hint, Kind, Prompt, Where
from cachepoint.core.prompt.tokens import Calibration
from cachepoint.core.provider.prices import Rates
from cachepoint.core.provider.rules import SECTIONS, TTL, ModelRule, Section
from cachepoint.core.traffic.entries import Entry
from cachepoint.core.traffic.kinds import CurveKey
from cachepoint.core.traffic.return_curves import Outlook
from cachepoint.core.traffic.view import Seen, Step, View
from cachepoint.core.traffic.waste import Waste

NOW = 1_000_000.0
CLAUDE = ModelRule("Claude", "claude", ttls=("5m", "1h"), minimum=1000, tokenizer="claude")
RATES = Rates(read=0.1, write_5m=1.25, write_1h=2.0)
STEADY = Calibration(factor=1.0, spread=0.0, samples=1.0)
"""Estimates are right; a band is ten per cent wide on each side."""

RICH = Waste(baseline=1e9)

NEVER = Outlook(0.0, 0.0, 0.0)
ONCE = Outlook(1.0, 1.0, 1.0)
OFTEN = Outlook(5.0, 1.0, 1.0)
LATE = Outlook(5.0, 0.0, 1.0)
"""Five more visits, each after five minutes and within an hour."""


class Part(NamedTuple):
    """A block of `tokens` likely tokens; `text` in place of made-up text."""

    tokens: int = 100
    kind: Kind = "text"
    textual: bool = True
    context: bool = False
    text: str | None = None


class Mark(NamedTuple):
    """A checkpoint the user wrote."""

    ttl: TTL | None = None
    leading: bool = False


Content = Sequence[int | Part | Mark]
VOLATILE = Part(1000, text="at 12:30:45 " + "x" * 4388)
BLANK = Part(0, text=" \n")


def two_parts(tokens: int) -> Part:
    """A text of a hundred tokens to a cut, and so many after it."""
    return Part(0, text="x" * 438 + "\n\n" + "y" * round(4.4 * tokens))


def prompt(*turns: Content, tools: Content = (), system: Content = (), attached: bool = False) -> Prompt:
    """A request; its turns alternate between user and assistant."""
    roles = ["user", "assistant"]
    lists: list[tuple[Section, int | None, Content]] = [("tools", None, tools), ("system", None, system)]
    lists += [("messages", number, turn) for number, turn in enumerate(turns)]
    hints: dict[Where, Hint] = {
        Where(section, message, item): "context_end"
        for section, message, content in lists
        for item, part in enumerate(content)
        if isinstance(part, Part) and part.context
    }
    builder = PromptBuilder(b"k", "claude", hints, attached=attached)
    for section in SECTIONS:
        builder.section(section, {})
        for of, message, content in lists:
            if of == section:
                if message is not None:
                    builder.message(roles[message % 2])
                _add(builder, section, message, content)
    built = builder.build()
    exact = tuple(boundary._replace(tokens=round(boundary.tokens)) for boundary in built.boundaries)
    return replace(built, boundaries=exact, tokens=round(built.tokens))


def _add(builder: PromptBuilder, section: Section, message: int | None, content: Content) -> None:
    for item, given in enumerate(content):
        where, part = Where(section, message, item), Part(given) if isinstance(given, int) else given
        if isinstance(part, Mark):
            builder.mark(where, part.ttl, None, leading=part.leading)
            continue
        if section == "tools" or part.kind not in ("text", "guard"):
            kind: Kind = "tool" if section == "tools" else part.kind
            builder.data(where, f"{item}".ljust(round(3.2 * part.tokens) - 2, "x"), kind, textual=part.textual)
            continue
        text = part.text if part.text is not None else f"{item}".ljust(round(4.4 * part.tokens), "x")
        builder.text(where, text, part.kind, splittable=part.text is not None)


@dataclass(frozen=True)
class Foretold(View):
    """A view with an outlook for each boundary by hand, in place of curves."""

    outlooks: Mapping[bytes, Outlook] = field(default_factory=dict)

    def outlook(self, step: Step, *, changed: bool = False) -> Outlook:
        """What was written down for the boundary, else that it never comes back."""
        return self.outlooks.get(step.digest, NEVER)


def view(
    of: Prompt,
    outlooks: Mapping[int, Outlook] | None = None,
    *,
    live: Mapping[int, Entry] | None = None,
    lapsed: Mapping[int, Entry] | None = None,
    visits: Mapping[int, int] | None = None,
    calibration: Calibration = STEADY,
    waste: Waste = RICH,
    **rest: Any,
) -> Foretold:
    """What is known of a prompt's boundaries, by their index; unless said, more than enough may be risked."""

    def by_digest(values: Mapping[int, Any] | None) -> dict[bytes, Any]:
        return {of.boundaries[index].digest: value for index, value in (values or {}).items()}

    inner: CurveKey = ("inner", True, 0)
    seen = {index: Seen(count, None, inner, inner) for index, count in (visits or {}).items()}
    return Foretold(
        seen=by_digest(seen), entries=by_digest(live), lapsed=by_digest(lapsed), calibration=calibration, now=NOW,
        outlooks=by_digest(outlooks), waste=waste, **rest,
    )  # fmt: skip


def entry(ttl: TTL = "5m", **rest: Any) -> Entry:
    """An entry written or read just now."""
    return Entry(ttl, NOW, **rest)


def planned(
    of: Prompt, by: View, rule: ModelRule | None = CLAUDE, policy: CachePolicy | None = None, rates: Rates = RATES
) -> Plan:
    """The plan of a prompt, given a view of its boundaries."""
    return planner.plan(of, rule, policy or CachePolicy(), by, rates, NOW)


def placed(plan: Plan) -> list[tuple[int, TTL, str]]:
    """The checkpoints of a plan: boundary, TTL and why."""
    return [(point.boundary, point.ttl, point.reason.code) for point in plan.checkpoints]


def reasons(plan: Plan) -> list[tuple[str, str]]:
    """Which places were not used, and why."""
    return [(place.path, place.reason) for place in plan.rejected]


def wanted(
    of: Prompt, boundary: int, ttl: TTL = "5m", *, marked: bool = False, fixed: bool = False, worth: float = 0.0
) -> Checkpoint:
    """A checkpoint at a boundary before anything was made legal."""
    here = of.boundaries[boundary]
    where = of.blocks[here.block].where
    reason = Placed("marked" if marked else "expected_again")
    return Checkpoint(boundary, where, here.offset, ttl, round(here.tokens), reason, marked, fixed, worth=worth)
