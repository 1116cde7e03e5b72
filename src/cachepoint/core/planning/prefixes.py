"""The prefixes of one prompt as the traffic knows them: how large, which of them live, how far apart.

Whatever is asked of many prefixes is worked out once for a prompt and when first asked for.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from dataclasses import KW_ONLY, dataclass
from typing import NamedTuple

from cachepoint._cached import cached_property
from cachepoint.core.planning.expectation import NOTHING_SAID, Expectation, Said
from cachepoint.core.prompt.prompt import Prompt, Where
from cachepoint.core.prompt.tokens import PROFILES, Band
from cachepoint.core.traffic.boundaries import role, roles, step
from cachepoint.core.traffic.entries import Entry
from cachepoint.core.traffic.kinds import Role
from cachepoint.core.traffic.return_curves import Outlook
from cachepoint.core.traffic.view import Seen, View


class Live(NamedTuple):
    """An entry believed alive: the boundary it ends at, and its likely tokens."""

    boundary: int
    tokens: float
    entry: Entry


@dataclass(frozen=True)
class Prefixes:
    """The prefixes of one prompt at `now`, by the boundary each ends at.

    `splits` says that text may be sent in two; `expected` is what the user said of requests to come.
    """

    prompt: Prompt
    view: View
    now: float
    _: KW_ONLY
    splits: bool
    expected: Expectation = NOTHING_SAID

    def size(self, boundary: int) -> Band:
        """An estimate of a prefix in tokens: exact up to the last entry of known size, likely from there."""
        raw, rates = self.prompt.boundaries[boundary].tokens, self._per_token
        anchors = bisect_right(self._exact, (raw, math.inf))
        estimated, known = self._exact[anchors - 1] if anchors else (0.0, 0)
        rest = raw - estimated
        return Band(known + rest * rates.low, known + rest * rates.mid, known + rest * rates.high)

    @cached_property
    def live(self) -> tuple[Live, ...]:
        """The entries believed alive that this prompt can be sent to read, in wire order."""
        found = [
            Live(self.index[digest], self.size(self.index[digest]).mid, entry)
            for digest, entry in self.view.entries.items()
            if entry.lives(self.now) and self._can_split_at(entry.splits)
        ]
        return tuple(sorted(found, key=lambda live: live.boundary))

    @cached_property
    def index(self) -> dict[bytes, int]:
        """The boundaries by their digests."""
        return {boundary.digest: i for i, boundary in enumerate(self.prompt.boundaries)}

    @cached_property
    def named(self) -> dict[int, Role]:
        """The boundaries that the prompt's structure names, with what they are."""
        return roles(self.prompt)

    def role(self, boundary: int) -> Role:
        """What a boundary is."""
        return role(self.named, self.prompt, boundary)

    def where(self, boundary: int) -> Where:
        """The block that a boundary is the end of, or inside of."""
        return self.prompt.blocks[self.prompt.boundaries[boundary].block].where

    def is_cut(self, boundary: int) -> bool:
        """Whether a boundary is inside a text."""
        return self.prompt.boundaries[boundary].offset is not None

    def seen(self, boundary: int) -> Seen | None:
        """The visits of a boundary before this one."""
        return self.view.seen.get(self.prompt.boundaries[boundary].digest)

    def outlook(self, boundary: int) -> Outlook:
        """What to expect of a boundary: by the traffic, and by what the user said, which goes before it."""
        learned = self._learned(boundary)
        return (
            learned if self.expected == NOTHING_SAID else self.said.outlook(boundary, learned, self._visits(boundary))
        )

    def _learned(self, boundary: int) -> Outlook:
        """What the traffic says; nothing behind a text that changed comes back unless that does."""
        changed = self.view.changed
        behind = changed is not None and boundary >= changed
        found = self.view.outlook(step(self.named, self.prompt, boundary), changed=behind)
        return found._replace(visits=min(found.visits, self._of_the_change.visits)) if behind else found

    @cached_property
    def _of_the_change(self) -> Outlook:
        return self.view.outlook(step(self.named, self.prompt, self.view.changed or 0), changed=True)

    def told(self, boundary: int) -> bool:
        """Whether that outlook is what the user said."""
        return self.expected != NOTHING_SAID and self.said.decides(boundary, self._visits(boundary))

    def _visits(self, boundary: int) -> int:
        seen = self.seen(boundary)
        return seen.visits if seen else 0

    @cached_property
    def said(self) -> Said:
        """What the user said of this prompt's boundaries."""
        return Said(self.expected, self.prompt, self.named)

    def proven(self, boundary: int) -> bool:
        """Whether more is expected of a boundary than was assumed of its kind to begin with."""
        kind = self.view.kind(step(self.named, self.prompt, boundary))
        return self.view.proven(kind)

    def looks_volatile(self, boundary: int) -> bool:
        """Whether something in the prefix looks as if it changed with every request."""
        return self.prompt.boundaries[boundary].block >= self._first_volatile

    def distance(self, earlier: int, later: int) -> int:
        """How many blocks as sent a boundary stands before another; a text that an entry split is two."""
        cuts = bisect_left(self._live_cuts, later) - bisect_left(self._live_cuts, earlier)
        return self.prompt.boundaries[later].block - self.prompt.boundaries[earlier].block + cuts

    @cached_property
    def parting(self) -> tuple[int, ...]:
        """Boundaries past which fewer requests went, those first where most tokens of most requests end."""
        return tuple(index for index in self.parted if index not in self.named)

    @cached_property
    def parted(self) -> tuple[int, ...]:
        """The same with the boundaries that the prompt's structure names."""
        boundaries, remembered = self.prompt.boundaries, self.view.seen.get
        seen = [remembered(boundary[2]) for boundary in boundaries]
        found = []
        after, visits_after = None, 0
        for index in range(len(seen) - 1, -1, -1):
            here = seen[index]
            if here is after:  # what always came together is the same value, and most of it did
                continue
            visits = here.visits if here is not None else 0
            if visits > visits_after:
                found.append(((visits - visits_after) * boundaries[index].tokens, index))
            after, visits_after = here, visits
        return tuple(index for _, index in sorted(found, reverse=True))

    def _can_split_at(self, cuts: tuple[bytes, ...]) -> bool:
        return not cuts or (self.splits and all(cut in self.index for cut in cuts))

    @cached_property
    def _per_token(self) -> Band:
        """The band around one estimated token: bands are linear."""
        return self.view.calibration.band(1.0, PROFILES[self.prompt.tokenizer])

    @cached_property
    def _exact(self) -> list[tuple[float, int]]:
        """The estimated and the exact size of each prefix of known size, in wire order."""
        return sorted(
            (self.prompt.boundaries[self.index[digest]].tokens, entry.tokens)
            for digest, entry in {**self.view.lapsed, **self.view.entries}.items()
            if entry.tokens is not None
        )

    @cached_property
    def _live_cuts(self) -> list[int]:
        return sorted(index for digest in self.view.entries if self.is_cut(index := self.index[digest]))

    @cached_property
    def _first_volatile(self) -> int:
        """The first block that changes with every request.

        What a hint says is of one turn alone comes back within it wherever the model may call tools.
        """
        blocks = self.prompt.blocks
        tools = self.prompt.tools_end >= 0 or (bool(blocks) and blocks[-1].kind == "tool_result")
        found = (
            i for i, each in enumerate(blocks) if each.volatile and not (tools and each.where.section == "messages")
        )
        return next(found, len(blocks))
