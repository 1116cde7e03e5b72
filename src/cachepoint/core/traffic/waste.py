"""The bound on waste: what caching has cost a base model so far, and what one more request may risk.

Every surcharge of a write is charged once: to the *purse* of its role as far as that goes, else to the
*general* account. Every saving of a read first repays what the entry read still owes to the general account, and what
is left goes to the purse of the role that the entry had when it was written. So at any time

    bill - bill without caching ≤ general + asked + what a profile brought,

since purses are never overdrawn, and the general account is kept below its room: a share of the bill without caching
and one write of the largest prompt, two once a read was paid for. An entry that ends unread needs no entry in these
books: what it owes stays owed, what a purse paid for it stays paid. docs/planner.md has the argument in full.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from types import MappingProxyType
from typing import NamedTuple

from cachepoint.core.prompt.tokens import Band
from cachepoint.core.traffic.kinds import Role

WASTE_SHARE = 0.015
"""What is not yet repaid is at most this share of the bill without caching …"""
WRITES_UNPROVEN = 1
"""… and so many writes of the largest prompt until the first read was paid for …"""
WRITES_PROVEN = 2
"""… or so many from then on, and for a request that is to make this first read: one write to be read, and one more
where the read does not come."""
CARRIED = 2.0
"""What a profile carries of a purse, at most, in input prices of the largest prompt: the surcharge of one write for an
hour, and of one more where the first read of it does not come."""

_NO_AMOUNTS: Mapping[Role, float] = MappingProxyType({})
_ROUNDING = 1e-6
"""Sums of tokens are not exact."""


class Segment(NamedTuple):
    """What a checkpoint adds to the prefix before: the role of its boundary, and what writing it costs.

    `tokens` are likely ones. `own` is the surcharge a token at the planner's risk, `asked` the one of what the user
    wants written, both in input prices.
    """

    digest: bytes
    role: Role
    tokens: float
    own: float
    asked: float = 0.0


@dataclass(frozen=True, slots=True)
class Risk:
    """What a request can cost beyond no caching: everything it sends is written in full, each part at its own TTL.

    `prompt` is the size of the whole, `price` the surcharge a token of one write of it, `due` says that it reads what
    usage told to be there, and `authorised` is how much of its surcharge the user took over, in input tokens.
    """

    segments: tuple[Segment, ...] = ()
    prompt: Band = Band(0.0, 0.0, 0.0)
    price: float = 0.25
    due: bool = False
    authorised: float = 0.0

    @property
    def ours(self) -> bool:
        """Whether any of it is the planner's."""
        return any(segment.own for segment in self.segments)

    def at(self, size: float) -> dict[Role, float]:
        """The surcharge by role where the whole prompt has this size: what is wrong of an estimate is wrong of all."""
        scale, authorised = size / self.prompt.mid if self.prompt.mid else 1.0, self.authorised
        amounts: dict[Role, float] = {}
        for segment in self.segments:
            amount = segment.tokens * segment.own * scale
            taken = min(amount, authorised)
            authorised -= taken
            if amount > taken:
                amounts[segment.role] = amounts.get(segment.role, 0.0) + amount - taken
        return amounts


class Stake(NamedTuple):
    """What a write of ours has cost, as its entry remembers it: what it owes still, and to which account."""

    role: Role
    general: float = 0.0
    asked: float = 0.0


class Saving(NamedTuple):
    """A part of what a read saved, in input tokens, and the stake of the entry it read; None where others wrote it."""

    role: Role
    amount: float
    stake: Stake | None = None


class Surcharge(NamedTuple):
    """What a write cost beyond no caching, in input tokens: at the planner's risk, and as the user asked.

    `role` is None where nobody can say what was written.
    """

    role: Role | None
    own: float
    asked: float = 0.0


@dataclass(frozen=True, slots=True)
class Waste:
    """The accounts of one base model, in input tokens.

    `general` and `asked` are surcharges not yet repaid, at the planner's risk and at the user's; `purses` what
    boundaries of a role have won by reads and not staked; `committed` what calls under way may cost, by role;
    `baseline` all prompt tokens, `largest` the largest prompt; `paid` says that a read was paid for.
    """

    general: float = 0.0
    asked: float = 0.0
    purses: Mapping[Role, float] = field(default_factory=lambda: _NO_AMOUNTS)
    committed: Mapping[Role, float] = field(default_factory=lambda: _NO_AMOUNTS)
    baseline: float = 0.0
    largest: float = 0.0
    paid: bool = False

    def covers(self, risk: Risk) -> bool:
        """Whether a request may be sent: the bound holds whatever comes of it and of all that are under way.

        What the prompt's size may be is a band, over which the least room left is at an end or at the largest so far.
        """
        if not risk.ours:
            return True
        low, _, high = risk.prompt
        return all(self._room(risk, size) >= -_ROUNDING for size in {low, min(max(self.largest, low), high), high})

    def _room(self, risk: Risk, size: float) -> float:
        """What is left in the general account at a size of the prompt, with this and all that is under way lost."""
        new = risk.at(size)
        beyond = 0.0
        for role in {**self.committed, **new}:
            amount = self.committed.get(role, 0.0) + new.get(role, 0.0)
            beyond += max(amount - self.purses.get(role, 0.0), 0.0)
        writes = WRITES_PROVEN if self.paid or risk.due else WRITES_UNPROVEN
        room = WASTE_SHARE * (self.baseline + size) + writes * risk.price * max(self.largest, size)
        return room - self.general - beyond

    def reserved(self, risk: Risk) -> Waste:
        """The same with one more call under way."""
        return self._committed(risk, 1)

    def released(self, risk: Risk) -> Waste:
        """The same with one call fewer under way."""
        return self._committed(risk, -1)

    def _committed(self, risk: Risk, sign: int) -> Waste:
        amounts = risk.at(risk.prompt.high) if risk.ours else {}
        if not amounts:
            return self
        committed = dict(self.committed)
        for role, amount in amounts.items():
            committed[role] = committed.get(role, 0.0) + sign * amount
            if committed[role] <= _ROUNDING:
                del committed[role]
        return replace(self, committed=committed)

    def settled(
        self, prompt: float, savings: Sequence[Saving], surcharges: Sequence[Surcharge]
    ) -> tuple[Waste, list[Stake | None], list[Stake | None]]:
        """The same after a call of so many prompt tokens, with the stakes of what it read and of what it wrote."""
        general, asked, purses = self.general, self.asked, dict(self.purses)
        read: list[Stake | None] = []
        for role, amount, stake in savings:
            left = stake or Stake(role)
            ours, theirs = min(left.general, amount), min(left.asked, max(amount - left.general, 0.0))
            general, asked = general - ours, asked - theirs
            purses[left.role] = purses.get(left.role, 0.0) + amount - ours - theirs
            read.append(stake and Stake(left.role, left.general - ours, left.asked - theirs))
        written: list[Stake | None] = []
        for known, own, theirs in surcharges:
            from_purse = min(purses.get(known, 0.0), own) if known else 0.0
            if known and from_purse:
                purses[known] -= from_purse
            general, asked = general + own - from_purse, asked + theirs
            written.append(Stake(known, own - from_purse, theirs) if known else None)
        after = Waste(
            max(general, 0.0), max(asked, 0.0), purses, self.committed, self.baseline + prompt,
            max(self.largest, prompt), self.paid or any(saving.amount > 0 for saving in savings),
        )  # fmt: skip
        return after, read, written

    def spent(self) -> Waste:
        """The same where nothing more may be risked."""
        return replace(self, general=inf)

    def carried(self) -> dict[Role, float]:
        """What a profile takes of the purses."""
        most = CARRIED * self.largest
        return {role: min(amount, most) for role, amount in self.purses.items() if amount > 0}

    def with_purses(self, told: Mapping[Role, float]) -> Waste:
        """The same with what a profile brings."""
        purses = dict(self.purses)
        for role, amount in told.items():
            purses[role] = max(purses.get(role, 0.0), amount)
        return replace(self, purses=purses)
