"""The bound on waste: what caching has cost a base model so far, and what one more request may risk.

Every surcharge of a write is charged once: if boundaries of its role have proven to come back, to the *purse* as far
as that goes, else to the *general* account. Every saving of a read first repays what the entry read still owes to the
general account, and what is left goes into the purse. So at any time

    bill - bill without caching ≤ general + asked + what a profile brought,

since the purse is never overdrawn, and the general account is kept below its room: a share of the bill without caching
and one write of the largest prompt, two from the first read on that was tried, or the first write of what had come
before. An entry that ends unread needs no entry in these books: what it owes stays owed, what the purse paid for it
stays paid. docs/planner.md has the argument in full.
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
"""… or so many from then on, and for a request that is to make this first read, or writes what has come back before:
one write on trust, and one more where that was wrong."""
CARRIED = 2.0
"""What a profile carries of the purse at most, in input prices of the largest prompt: the surcharge of one write for an
hour, and of one more where its first read does not come."""

NEXT_READ = 1.05
"""What the next read is to leave over: usage differs from estimates by a few per cent, and a read that is not covered
by so little has its write lost."""

Amounts = Mapping[Role, float]
"""Input tokens by role."""
_NO_AMOUNTS: Amounts = MappingProxyType({})
_NO_READERS: Mapping[bytes, Readers] = MappingProxyType({})
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

    `prompt` is the size of the whole, `price` the surcharge a token of one write of it for five minutes. `read` is the
    digest of the entry it is to read and `kept` the likely tokens of that; of these the parts up to entries that are
    `excused` are on the account of the user, who had them written. `again` says that all it writes came before, and
    `authorised` is how much of its surcharge the user took over, in input tokens.
    """

    segments: tuple[Segment, ...] = ()
    prompt: Band = Band(0.0, 0.0, 0.0)
    price: float = 0.25
    read: bytes = b""
    kept: float = 0.0
    excused: frozenset[bytes] = frozenset()
    again: bool = False
    authorised: float = 0.0

    @property
    def ours(self) -> bool:
        """Whether any of it is the planner's."""
        return any(segment.own for segment in self.segments)

    def at(self, size: float) -> tuple[Amounts, Amounts]:
        """The surcharge by role where the whole prompt has this size: of what is new, and of what is to be read.

        What is wrong of an estimate is wrong of all of it.
        """
        scale, start = size / self.prompt.mid if self.prompt.mid else 1.0, 0.0
        authorised = self.authorised * scale
        new: dict[Role, float] = {}
        again: dict[Role, float] = {}
        for segment in self.segments:
            inside = min(max(self.kept - start, 0.0), segment.tokens)
            amount = (segment.tokens - inside) * segment.own * scale
            taken = min(amount, authorised)
            authorised -= taken
            _add(new, segment.role, amount - taken)
            if segment.digest not in self.excused:
                _add(again, segment.role, inside * segment.own * scale)
            start += segment.tokens
        return new, again


def _add(amounts: dict[Role, float], role: Role, amount: float) -> None:
    if amount > 0:
        amounts[role] = amounts.get(role, 0.0) + amount


class Readers(NamedTuple):
    """The calls under way that are to read one entry: how many, and what one of them costs where it is gone."""

    calls: int
    amounts: Amounts


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

    `general` and `asked` are surcharges not yet repaid, at the planner's risk and at the user's; `purse` is what reads
    have won and is not staked, for boundaries of the `proven` roles; `committed` what calls under way may write, by
    role, and `readers` what they may write where the entry is gone that they are to read; `baseline` all prompt tokens,
    `largest` the largest prompt; `paid` says that a read was paid for.
    """

    general: float = 0.0
    asked: float = 0.0
    purse: float = 0.0
    proven: frozenset[Role] = frozenset()
    committed: Amounts = field(default_factory=lambda: _NO_AMOUNTS)
    readers: Mapping[bytes, Readers] = field(default_factory=lambda: _NO_READERS)
    baseline: float = 0.0
    largest: float = 0.0
    paid: bool = False

    def covers(self, risk: Risk) -> bool:
        """Whether a request may be sent: the bound holds whatever comes of it and of all that are under way.

        What the prompt's size may be is a band, over which the least room left is at an end or at the largest so far.
        """
        low, _, high = risk.prompt
        if not any(risk.at(high)):
            return True
        return all(self._room(risk, size) >= -_ROUNDING for size in {low, min(max(self.largest, low), high), high})

    def sustains(self, risk: Risk) -> bool:
        """Whether what is new in a request could be read the next time, too: else it is written for nothing."""
        new, _ = risk.at(risk.prompt.mid)
        if not new:  # what the user has written is read on his account, too
            return True
        more = [Surcharge(role, NEXT_READ * amount) for role, amount in new.items()]
        after, _, _ = self.settled(risk.prompt.mid, [], more)
        return after.covers(replace(risk, read=risk.read or risk.segments[-1].digest, kept=inf, authorised=0.0))

    def _room(self, risk: Risk, size: float) -> float:
        """What is left in the general account at a size of the prompt, with this and all that is under way lost."""
        # What is under way was reserved at the high end of the same estimates: it is as much smaller as this is.
        new, again = risk.at(size)
        scale = size / risk.prompt.high if risk.prompt.high else 1.0
        lost = {role: amount * scale for role, amount in self.committed.items()}
        for digest, readers in self.readers.items():
            if digest != risk.read:  # it is one and the same entry, of which this knows the size by now
                for role, amount in readers.amounts.items():
                    _add(lost, role, amount * scale)
        for amounts in (new, again):
            for role, amount in amounts.items():
                _add(lost, role, amount)
        proven = sum(amount for role, amount in lost.items() if role in self.proven)
        beyond = sum(lost.values()) - min(proven, self.purse)
        writes = WRITES_PROVEN if self.paid or risk.read or risk.again else WRITES_UNPROVEN
        room = WASTE_SHARE * (self.baseline + size) + writes * risk.price * max(self.largest, size)
        return room - self.general - beyond

    def reserved(self, risk: Risk) -> Waste:
        """The same with one more call under way.

        Calls that read the same entry at the same time share one reservation for it: where it is gone it is gone for
        all of them, and to let one after the other try it would make many calls at once slow, or dear.
        """
        if not risk.ours:
            return self
        new, again = risk.at(risk.prompt.high)
        readers = dict(self.readers)
        if risk.read:
            before = readers.get(risk.read)
            readers[risk.read] = Readers(before.calls + 1 if before else 1, again)
        return replace(self, committed=_moved(self.committed, new, 1), readers=readers)

    def released(self, risk: Risk) -> Waste:
        """The same with one call fewer under way."""
        if not risk.ours:
            return self
        readers, before = dict(self.readers), self.readers.get(risk.read)
        if before is not None:
            del readers[risk.read]
            if before.calls > 1:
                readers[risk.read] = before._replace(calls=before.calls - 1)
        committed = _moved(self.committed, risk.at(risk.prompt.high)[0], -1)
        return replace(self, committed=committed, readers=readers)

    def settled(
        self, prompt: float, savings: Sequence[Saving], surcharges: Sequence[Surcharge]
    ) -> tuple[Waste, list[Stake | None], list[Stake | None]]:
        """The same after a call of so many prompt tokens, with the stakes of what it read and of what it wrote."""
        general, asked, purse = self.general, self.asked, self.purse
        proven = self.proven
        read: list[Stake | None] = []
        for role, amount, stake in savings:
            left = stake or Stake(role)
            ours, theirs = min(left.general, amount), min(left.asked, max(amount - left.general, 0.0))
            general, asked = general - ours, asked - theirs
            purse += amount - ours - theirs
            proven |= {left.role} if amount > 0 else set()
            read.append(stake and Stake(left.role, left.general - ours, left.asked - theirs))
        written: list[Stake | None] = []
        for known, own, theirs in surcharges:
            from_purse = min(purse, own) if known in proven else 0.0
            purse -= from_purse
            general, asked = general + own - from_purse, asked + theirs
            written.append(Stake(known, own - from_purse, theirs) if known else None)
        after = Waste(
            max(general, 0.0), max(asked, 0.0), purse, proven, self.committed, self.readers, self.baseline + prompt,
            max(self.largest, prompt), self.paid or any(saving.amount > 0 for saving in savings),
        )  # fmt: skip
        return after, read, written

    def spent(self) -> Waste:
        """The same where nothing more may be risked."""
        return replace(self, general=inf)

    def at_rest(self) -> Waste:
        """The same where nothing is under way, with as much of the purse as is carried."""
        return replace(self, purse=self.carried(), committed=_NO_AMOUNTS, readers=_NO_READERS)

    def carried(self) -> float:
        """What another process takes of the purse, by a profile or a fork."""
        return min(self.purse, CARRIED * self.largest)


def _moved(amounts: Amounts, by: Amounts, sign: int) -> Amounts:
    moved = {role: amounts.get(role, 0.0) + sign * by.get(role, 0.0) for role in {**amounts, **by}}
    return {role: amount for role, amount in moved.items() if amount > _ROUNDING}
