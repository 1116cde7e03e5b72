"""Who used which cached prefix, so that what writing it cost can be spread over those who used it.

A call's prompt is read up to one prefix end and written up to others behind it. The stretch between two
ends is one thing with one price, whoever paid it: the call that wrote it used it, and so did every call
that read it or anything written on top of it, until it was written again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Context, Decimal, localcontext
from hashlib import blake2b
from typing import NamedTuple

from cachepoint.core.provider.usage import Usage

_SHARES = Context(prec=60)
_FINEST = Decimal("1e-15")
"""Shares are rounded to this many USD, and who paid keeps the rest: the sum stays exact."""
_NEAR = 0.15
"""A read this much off the likely size of a prefix is still a read of it."""


class Written(NamedTuple):
    """A stretch a call wrote: the name of the prefix it ends, and its tokens."""

    end: str
    tokens: int


@dataclass(frozen=True, slots=True)
class PrefixUse:
    """What a call read and wrote, by names that say nothing of the text.

    `read` names the prefix that was read, None when none was or nobody here wrote it, and `read_tokens` is
    its size. `wrote` is in wire order and starts where `read` ends; the sum of its sizes is exact, each one
    an estimate.
    """

    read: str | None = None
    wrote: tuple[Written, ...] = ()
    read_tokens: int = 0


def prefix_use(scope: str, ends: Mapping[bytes, float], sent: Iterable[bytes], usage: Usage, total: float) -> PrefixUse:
    """What a call used, by its usage.

    `ends` maps the digests of prefixes that may be cached to their likely tokens, of `total` for the whole
    prompt; `sent` are those a checkpoint was sent for.
    """
    factor = usage.prompt / total if total else 1.0
    sizes = {digest: tokens * factor for digest, tokens in ends.items()}
    read = None
    if usage.cache_read and sizes:
        nearest = min(sizes, key=lambda digest: abs(sizes[digest] - usage.cache_read))
        if abs(sizes[nearest] - usage.cache_read) <= _NEAR * usage.cache_read:
            read = nearest
    begin = sizes[read] if read is not None else float(usage.cache_read)
    written = sorted({digest for digest in sent if digest != read and sizes[digest] > begin}, key=sizes.__getitem__)
    return PrefixUse(
        None if read is None else _name(scope, read),
        tuple(_stretches(scope, [(digest, sizes[digest] - begin) for digest in written], usage.cache_write)),
        usage.cache_read,
    )


def _stretches(scope: str, ends: list[tuple[bytes, float]], tokens: int) -> Iterator[Written]:
    if not tokens or not ends:
        return
    whole, before = ends[-1][1], 0
    for digest, size in ends:
        upto = round(tokens * size / whole)
        yield Written(_name(scope, digest), upto - before)
        before = upto


def _name(scope: str, digest: bytes) -> str:
    return blake2b(digest, key=blake2b(scope.encode(), digest_size=32).digest(), digest_size=12).hexdigest()


@dataclass(slots=True)
class _Stretch:
    """One write of a stretch: who paid how much, who used it how often, and what it stands on."""

    usd: Decimal
    payer: str | None
    before: str | None
    uses: Counter[str | None] = field(default_factory=Counter)

    def shifts(self) -> Iterator[tuple[str | None, Decimal]]:
        """What spreading it evenly over its uses adds to whom; the sum is zero."""
        paid = Decimal(0)
        for user, uses in self.uses.items():
            part = (self.usd * uses / self.uses.total()).quantize(_FINEST)
            paid += part
            yield user, part
        yield self.payer, -paid


def spread(calls: Sequence[tuple[str | None, PrefixUse, Decimal]]) -> dict[str | None, Decimal]:
    """What spreading writes over their uses adds to each user's cost, in USD; the amounts add up to zero.

    `calls` are (user, what was used, what its writes cost), in the order in which they started.
    """
    shifts: dict[str | None, Decimal] = {}
    stretches: dict[str, _Stretch] = {}
    # A read tells the exact size of a prefix that its writer could only estimate.
    sizes = {use.read: use.read_tokens for _, use, _ in calls if use.read is not None}
    with localcontext(_SHARES):
        for user, use, usd in calls:
            _read(stretches, use.read, user)
            for replaced in _write(stretches, use, user, usd, sizes):
                _add(shifts, replaced)
        for stretch in stretches.values():
            _add(shifts, stretch)
    return shifts


def _read(stretches: Mapping[str, _Stretch], end: str | None, user: str | None) -> None:
    passed: set[str] = set()
    while end is not None and end in stretches and end not in passed:
        passed.add(end)
        stretches[end].uses[user] += 1
        end = stretches[end].before


def _write(
    stretches: dict[str, _Stretch], use: PrefixUse, user: str | None, usd: Decimal, sizes: Mapping[str, int]
) -> Iterator[_Stretch]:
    before = use.read
    for (end, _), part in zip(use.wrote, _parts(use, usd, sizes), strict=True):
        if end in stretches:
            yield stretches[end]
        stretches[end] = _Stretch(part, user, before, Counter({user: 1}))
        before = end


def _parts(use: PrefixUse, usd: Decimal, sizes: Mapping[str, int]) -> Iterator[Decimal]:
    """The cost of a call's writes, by stretch."""
    whole = sum(written.tokens for written in use.wrote)
    done, estimated = 0, 0
    for end, tokens in use.wrote:
        estimated += tokens
        upto = sizes.get(end, use.read_tokens + estimated) - use.read_tokens
        upto = whole if estimated == whole else min(max(upto, done), whole)
        yield (usd * (upto - done) / whole).quantize(_FINEST) if whole else Decimal(0)
        done = upto


def _add(shifts: dict[str | None, Decimal], stretch: _Stretch) -> None:
    for user, usd in stretch.shifts():
        shifts[user] = shifts.get(user, Decimal(0)) + usd
