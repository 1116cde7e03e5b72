"""What the planner decides for one request: frozen values, each with its reason."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from cachepoint.core.planning.reasons import Placed, Rejected, Repair
from cachepoint.core.prompt.prompt import ListKey, Mark, Prompt, Where
from cachepoint.core.provider.rules import TTL
from cachepoint.core.traffic.waste import Risk


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One checkpoint to send: after the block at `where`, or inside it at character `offset`.

    `tokens` is the likely size of the prefix it ends; `worth` the expected saving in input tokens.
    `boundary` is its index in the prompt's boundaries; `path` the place of the block sent; `marked`
    that the user asked for it, `fixed` also with this TTL.
    """

    boundary: int
    where: Where
    offset: int | None
    ttl: TTL
    tokens: int
    reason: Placed
    marked: bool = False
    fixed: bool = False
    path: str = ""
    worth: float = 0.0

    @property
    def why(self) -> str:
        """The reason as a sentence."""
        return str(self.reason)


@dataclass(frozen=True, slots=True)
class Split:
    """A text block to send in two at character `offset`; `boundary` is the index of that cut in the prompt's."""

    boundary: int
    where: Where
    offset: int


@dataclass(frozen=True, slots=True)
class Expected:
    """What the planner expects a request to read and to write, in likely tokens.

    `read_boundary` is the index of the boundary believed live, None when nothing is; `read_exact` says
    that usage told the size of its entry before.
    """

    read: float = 0.0
    read_exact: bool = False
    read_boundary: int | None = None
    read_ttl: TTL | None = None
    written: float = 0.0


@dataclass(frozen=True, slots=True)
class Plan:
    """Checkpoints for one request; `marks` are the user's own, which they replace, `plain` as in Prompt.

    A dialect's `apply` needs nothing else, and its `undo` gives the request back. `rejected` are the places
    not used; without a checkpoint there is at least one. `risk` is what it can cost beyond no caching. `own` are the
    boundaries and TTLs of the checkpoints that the planner would have sent unguarded, `charge` what following a static
    plan costs now beyond its shadow, in input tokens.
    """

    checkpoints: tuple[Checkpoint, ...] = ()
    rejected: tuple[Rejected, ...] = ()
    warnings: tuple[Repair, ...] = ()
    marks: tuple[Mark, ...] = ()
    splits: tuple[Split, ...] = ()
    plain: frozenset[ListKey] = frozenset()
    expected: Expected = Expected()
    own: tuple[tuple[int, TTL], ...] = ()
    charge: float = 0.0
    risk: Risk = Risk()

    @property
    def changes_nothing(self) -> bool:
        """Whether the request goes out as the user wrote it."""
        return not self.checkpoints and not self.splits and not self.marks

    @property
    def held(self) -> tuple[Rejected, ...]:
        """Why nothing, or no more, was placed: each place once for each reason, as a record tells it."""
        return tuple({(place.path, place.reason): place for place in self.rejected}.values())


def with_paths(prompt: Prompt, points: Sequence[Checkpoint], cuts: Iterable[int]) -> list[Checkpoint]:
    """The points with the place each takes in the lists as sent: user marks gone, cuts and points added."""
    cut_places = [(prompt.blocks[prompt.boundaries[c].block].where, prompt.boundaries[c].offset or 0) for c in cuts]
    placed: list[Checkpoint] = []
    for point in points:
        here = point.where
        marked = [mark.where for mark in prompt.marks if mark.where.list_key == here.list_key]
        gone = sum(1 for where in marked if where.nested is None and where.item < here.item)
        end = float("inf") if point.offset is None else point.offset
        split = sum(
            where.list_key == here.list_key and (where.item, offset) < (here.item, end) for where, offset in cut_places
        )
        added = 1 + sum(1 for earlier in placed if earlier.where.list_key == here.list_key)
        shift = split if prompt.attached else split - gone + added
        placed.append(replace(point, path=here._replace(item=here.item + shift).path))
    return placed
