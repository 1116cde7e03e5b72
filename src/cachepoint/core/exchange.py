"""From a plan to what goes out: the places checkpoints take in the lists sent, and what a store keeps of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from cachepoint.core.planning.plan import Checkpoint, Expected, Plan, _cut_index, with_paths
from cachepoint.core.prompt.prompt import Prompt
from cachepoint.core.prompt.tokens import PROFILES
from cachepoint.core.provider.prices import Rates
from cachepoint.core.provider.rules import TTL, ModelRule
from cachepoint.core.traffic.boundaries import turn_before
from cachepoint.core.traffic.view import Sent, SentPoint, Shape, Step, View


def with_points(prompt: Prompt, plan: Plan, points: Sequence[Checkpoint]) -> Plan:
    """The plan with only these of its checkpoints; what it split stays split."""
    cuts = [_cut_index(prompt, split) for split in plan.splits]
    deepest = max((point.tokens for point in points), default=0)
    expected = plan.expected
    if expected.read_boundary is not None and all(point.boundary < expected.read_boundary for point in points):
        expected = Expected()
    return replace(
        plan,
        checkpoints=tuple(with_paths(prompt, points, cuts)),
        expected=replace(expected, written=max(deepest - expected.read, 0.0)),
    )


def sent_record(
    prompt: Prompt, plan: Plan, rule: ModelRule | None, rates: Rates, view: View, steps: Sequence[Step]
) -> Sent:
    """What the traffic keeps of a planned request until its answer."""
    splits = sorted(_cut_index(prompt, split) for split in plan.splits)

    def record(boundary: int, ttl: TTL, tokens: float, *, exact: bool = False) -> SentPoint:
        before = tuple(prompt.boundaries[cut].digest for cut in splits if cut <= boundary)
        return SentPoint(prompt.boundaries[boundary].digest, ttl, tokens, before, exact)

    expected = plan.expected
    return Sent(
        points=tuple(record(point.boundary, point.ttl, point.tokens) for point in plan.checkpoints),
        read=None
        if expected.read_boundary is None
        else record(expected.read_boundary, expected.read_ttl or "5m", expected.read, exact=expected.read_exact),
        written=expected.written,
        estimated=prompt.tokens,
        minimum=rule.minimum if rule else 0,
        rates=rates,
        shape=Shape(
            tuple(prompt.boundaries[end].digest for end in prompt.ends), tuple(block.size for block in prompt.blocks),
            (prompt.tools_end, prompt.system_end), prompt.settings, 0.0,
            plan.checkpoints[-1].ttl if plan.checkpoints else "5m", 0.0,
        ),
        cold=view.cold(steps),
        foreign=view.foreign(turn_before(prompt)),
    )  # fmt: skip


def fan_out_digests(
    prompt: Prompt, plan: Plan, rule: ModelRule, view: View
) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """The prefixes a call could wait for, deepest first, and those it is about to write.

    Nothing is waited for up to what is read already, nor below the minimum.
    """
    read = plan.expected.read_boundary if plan.expected.read_boundary is not None else -1
    minimum = max(rule.minimum, view.learned_minimum)
    band = partial(view.calibration.band, profile=PROFILES[prompt.tokenizer])
    cold = [b for i, b in enumerate(prompt.boundaries) if i > read and band(b.tokens).mid >= minimum]
    writes = [prompt.boundaries[point.boundary].digest for point in plan.checkpoints if point.boundary > read]
    return tuple(b.digest for b in reversed(cold)), tuple(writes)
