"""Which boundaries of a request may be worth a checkpoint: a short list, and what to expect of each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from cachepoint.core.planning.placement import Candidate, nested
from cachepoint.core.planning.prefixes import Prefixes
from cachepoint.core.planning.reasons import Placed, PlacedCode, Rejected
from cachepoint.core.provider.rules import ModelRule

CANDIDATES = 10
"""Boundaries weighed in one request: the named ones, and of the rest those where most visits part."""
CONTEXTS = 5
"""Of a request with many ends of context so many of the first and of the last: a long conversation has one a turn."""
NEW = 4
"""Of the blocks never seen before so many of the first and of the last: documents stand at an end of what is new."""
VOLATILE_DISCOUNT = 0.1
"""A prefix with a time of day, a UUID or a request id in it seldom comes back unchanged …"""
VOLATILE_PROOF = 3
"""… unless it came this often: two requests may fall into the same second."""


@dataclass(frozen=True, slots=True)
class Shortlist:
    """The candidates in wire order, none expected back less often than a deeper one, and the places ruled out."""

    candidates: tuple[Candidate, ...]
    rejected: tuple[Rejected, ...]


def shortlist(prefixes: Prefixes, rule: ModelRule, minimum: int, *, may_cut: bool) -> Shortlist:
    """Weigh the boundaries of a request; `may_cut` says that a text may be split where it was not before.

    `minimum` is the fewest tokens the model caches, by its rule and by what the traffic showed.
    """
    under_way = max((live.boundary for live in prefixes.live if not live.entry.readable), default=-1)
    candidates: list[Candidate] = []
    rejected: list[Rejected] = []
    named = {i for i in _named(prefixes) if may_cut or not prefixes.is_cut(i)}
    room = max(CANDIDATES - len(named), CANDIDATES // 2)
    new = _new(prefixes, may_cut=may_cut)
    for boundary in sorted({*named, *new, *_parting(prefixes, minimum, room, may_cut=may_cut)}):
        if boundary <= under_way:
            rejected.append(Rejected(prefixes.where(boundary).path, "writing_under_way"))
            continue
        found = _weigh(prefixes, rule, minimum, boundary)
        if isinstance(found, Candidate):
            candidates.append(found)
        else:
            rejected.append(found)
    return Shortlist(tuple(nested(candidates)), tuple(rejected))


def _named(prefixes: Prefixes) -> set[int]:
    contexts = sorted(boundary for boundary, role in prefixes.named.items() if role == "context_end")
    return (set(prefixes.named) - set(contexts[CONTEXTS:-CONTEXTS])) | set(prefixes.said.subjects)


def _new(prefixes: Prefixes, *, may_cut: bool) -> set[int]:
    """Ends of blocks never seen before, and last paragraph breaks: places that count by what their kind has shown."""
    fresh = [end for end in prefixes.prompt.ends if end not in prefixes.named and prefixes.seen(end) is None]
    found = {*fresh[:NEW], *fresh[-NEW:]}
    if may_cut:
        found |= {end - 1 for end in prefixes.named if end and prefixes.is_cut(end - 1) and not prefixes.seen(end - 1)}
    return {boundary for boundary in found if prefixes.proven(boundary)}


def _parting(prefixes: Prefixes, minimum: int, room: int, *, may_cut: bool) -> Iterator[int]:
    """At most `room` boundaries where requests parted; a cut only where a prefix may end."""
    usable = (
        boundary for boundary in prefixes.parting
        if not prefixes.is_cut(boundary) or (may_cut and prefixes.size(boundary).mid >= minimum)
    )  # fmt: skip
    return islice(usable, room)


def _weigh(prefixes: Prefixes, rule: ModelRule, minimum: int, boundary: int) -> Candidate | Rejected:
    where = prefixes.where(boundary)
    if where.section in prefixes.view.left_out:
        return Rejected(where.path, "refused")
    if where.section not in rule.sections:
        return Rejected(where.path, "section_without_checkpoints")
    size = prefixes.size(boundary)
    if size.high < minimum:
        return Rejected(where.path, "below_minimum", size.mid, minimum)
    cap = rule.max_cached_tokens
    if cap is not None and size.low > cap:
        return Rejected(where.path, "above_maximum", size.mid, cap)
    outlook, seen = prefixes.outlook(boundary), prefixes.seen(boundary)
    visits = seen.visits if seen else 0
    said = prefixes.told(boundary)
    if visits < VOLATILE_PROOF and prefixes.looks_volatile(boundary) and not said:
        outlook = outlook._replace(visits=outlook.visits * VOLATILE_DISCOUNT)
    code: PlacedCode = "expected" if said else "expected_again"
    reason = Placed(code, prefixes.role(boundary), visits, outlook.visits, outlook.within_5m)
    return Candidate(boundary, size.mid, outlook, reason)
