"""A plan's edits of the lists of a request, the same in both wire formats."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from cachepoint.core.planning.plan import Plan
from cachepoint.core.prompt.prompt import ListKey, Mark
from cachepoint.core.provider.rules import TTL, Section


@dataclass
class ListEdits:
    """What a plan does to one list, by index in it: marks to take out, checkpoints and splits to put in.

    A checkpoint stands at the end of an item (offset None) or at a split in it. `plain` says that the
    user wrote a string in the list's place.
    """

    marks: dict[int, list[Mark]] = field(default_factory=dict)
    ttls: dict[int, dict[int | None, TTL]] = field(default_factory=dict)
    cuts: dict[int, list[int]] = field(default_factory=dict)
    plain: bool = False

    @property
    def items(self) -> list[int]:
        """The items that have edits, in order."""
        return sorted(self.marks.keys() | self.ttls.keys() | self.cuts.keys())

    def pieces(self, item: int, block: Any) -> Iterator[tuple[Any, TTL | None]]:
        """The blocks that a block is sent as, each with the TTL of the checkpoint after it, if any."""
        cuts, ttls = sorted(self.cuts.get(item, ())), self.ttls.get(item, {})
        for start, end in pairwise([0, *cuts, None]):
            yield {**block, "text": block["text"][start:end]} if cuts else block, ttls.get(end)

    def joined(self, item: int, sent: Sequence[Any], position: int) -> tuple[Any, int]:
        """The block that was sent as the pieces from `position` on, and the position after them."""
        end = position + len(self.cuts.get(item, ())) + 1
        first = sent[position]
        if end == position + 1:
            return first, end
        return {**first, "text": "".join(piece["text"] for piece in sent[position:end])}, end


Rewrite = Callable[[Any, ListEdits], Any]

_AT_THE_TOP: tuple[Section, ...] = ("tools", "system")


def edits_of(plan: Plan) -> dict[ListKey, ListEdits]:
    """A plan's edits, list by list; lists that are not named stay as they are."""
    edits: dict[ListKey, ListEdits] = {}
    for mark in plan.marks:
        edits.setdefault(mark.where.list_key, ListEdits()).marks.setdefault(mark.where.item, []).append(mark)
    for point in plan.checkpoints:
        here = edits.setdefault(point.where.list_key, ListEdits())
        here.ttls.setdefault(point.where.item, {})[point.offset] = point.ttl
    for split in plan.splits:
        edits.setdefault(split.where.list_key, ListEdits()).cuts.setdefault(split.where.item, []).append(split.offset)
    for key in plan.plain & edits.keys():
        edits[key].plain = True
    return edits


def rewritten(body: Mapping[str, Any], edits: Mapping[ListKey, ListEdits], rewrite: Rewrite) -> dict[str, Any]:
    """A body with every list at its top or in its messages that has edits passed through `rewrite`."""
    result = dict(body)
    for section in _AT_THE_TOP:
        here = edits.get((section, None))
        if here is not None and section in body:
            result[section] = rewrite(body[section], here)
    if any(message is not None for _, message in edits):
        result["messages"] = [
            {**message, "content": rewrite(message["content"], edits["messages", number])}
            if ("messages", number) in edits else message
            for number, message in enumerate(body["messages"])
        ]  # fmt: skip
    return result
