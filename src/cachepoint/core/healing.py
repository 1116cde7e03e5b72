"""What of ours goes out with a request that the service may refuse, and what is repeated where it does.

A refused request is sent once more as its user wrote it. Only what becomes of that tells whether it was something of
ours: `traffic/refusals.py` learns from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from cachepoint.core.planning.plan import Plan
from cachepoint.core.prompt.prompt import Prompt
from cachepoint.core.traffic.refusals import LEFT_OUT_FIRST, LONG_TTL, SPLIT, SYSTEM_TURNS, Feature, Outcome

_NAMES: Mapping[Feature, str] = {
    LONG_TTL: "a TTL of 1h", SPLIT: "a text in two blocks", SYSTEM_TURNS: "a system message in the conversation",
}  # fmt: skip


LASTING = "AccessDeniedException"
"""What Bedrock says for as long as a permission is missing."""


class Refusal(NamedTuple):
    """The service refused a request: a keyed digest of its words, and which feature they seem to be about, if any.

    `error` is the error's name, "" of one that is only an HTTP status, as a proxy answers: of that nothing is learned.
    """

    words: bytes
    first: Feature | None = None
    error: str = ""


def added(prompt: Prompt, plan: Plan) -> frozenset[Feature]:
    """What a plan adds to its request that the service may refuse; what the user asked for in the same place is not."""
    written = {(prompt.ends[mark.block], mark.ttl or "5m") for mark in plan.marks if mark.block is not None}
    ours = [point for point in plan.checkpoints if (point.boundary, point.ttl) not in written]
    found: set[Feature] = {point.where.section for point in ours}
    if any(point.ttl == "1h" for point in ours):
        found.add(LONG_TTL)
    if plan.splits:
        found.add(SPLIT)
    return frozenset(found)


@dataclass(frozen=True, slots=True)
class Written:
    """A request as its user wrote it, in the ways in which its late system messages can be placed.

    `plain` has them as user turns, and `base`, on which is planned, as the service is thought to take them: `by_row`
    says that this is as the model's row has it. A request that has none is the same thrice.
    """

    original: Mapping[str, Any]
    plain: Mapping[str, Any]
    base: Mapping[str, Any]
    by_row: bool = True

    @classmethod
    def of(cls, original: Mapping[str, Any]) -> Written:
        """A request that is planned upon as it is."""
        return cls(original, original, original)

    @property
    def placed(self) -> frozenset[Feature]:
        """What of ours is in `base`, before any plan, that the service may refuse."""
        return frozenset({SYSTEM_TURNS}) if self.by_row and self.plain is not self.original else frozenset()

    def without_ours(self, sent: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """The request with nothing of ours, None where that is what was sent.

        With late system messages as user turns if that is news, for so it is most likely to be taken.
        """
        return next((written for written in (self.plain, self.original) if written != sent), None)


@dataclass(frozen=True, slots=True)
class Repeat:
    """What follows from a refusal of a request that carried features of ours: the `request` to send in its place.

    That is None where it would be the same again, or is known to fail too. `turned` says that only in it the late
    system messages stand as the model's row has them.
    """

    refusal: Refusal
    carried: frozenset[Feature]
    request: Mapping[str, Any] | None = None
    turned: bool = False

    @classmethod
    def of(cls, refusal: Refusal, carried: frozenset[Feature], written: Written, sent: Mapping[str, Any]) -> Repeat:
        """What to send in place of what was sent and refused."""
        request = written.without_ours(sent)
        if request is written.base:  # system messages stand where they stood, so it was not they
            return cls(refusal, carried - {SYSTEM_TURNS}, request)
        return cls(refusal, carried, request, turned=request is not None and not written.by_row)

    def ended(self) -> Repeat:
        """It was refused too, so nothing more is sent."""
        return replace(self, request=None)

    @property
    def blamed(self) -> frozenset[Feature]:
        """What was refused, where the repeat is answered: as its user wrote it the request was taken."""
        return self.carried if self.refusal.error else frozenset()

    def answered(self, now: float) -> tuple[Outcome, ...]:
        """What is learned where the repeat is answered."""
        told = []
        if self.turned and self.refusal.error:
            told.append(Outcome("taken", frozenset({SYSTEM_TURNS}), now))
        if self.blamed:
            told.append(Outcome("refused", self.blamed, now, self.refusal.first, self.refusal.words))
        return tuple(told)

    def refused(self, now: float) -> tuple[Outcome, ...]:
        """What is learned where the repeat is refused too: that requests as their users wrote them fail.

        Only of a denial, which lasts. A request that is not valid says nothing of the next one, whatever its words.
        """
        if self.refusal.error != LASTING:
            return ()
        return (Outcome("failing", frozenset(), now, self.refusal.first, self.refusal.words),)


def refused_warning(model: str, repeat: Repeat) -> str:
    """What the user should know of what is blamed."""
    names = [_NAMES.get(each, f"a checkpoint in {each}") for each in LEFT_OUT_FIRST if each in repeat.blamed]
    later = "later calls go without it"
    if len(names) > 1:
        later = "each later call goes without one of these until it is known which"
    return (
        f"cachepoint: {model!r} refused {' or '.join(names)} ({repeat.refusal.error}); the call was repeated "
        f"as you wrote it, {later}, and after a day it is tried again"
    )
