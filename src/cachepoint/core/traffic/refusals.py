"""What the service refuses of what cachepoint adds to requests, and how it is found out what of it.

A request that was refused, and taken as its user wrote it, carried at least one *feature* that the service refuses: a
checkpoint in some section, a TTL of 1h, a text in two blocks, a late system message as the model's row has it. Which
one is found by testing groups. The *suspects* are a group known to hold a refused one; each call leaves out one more
of them, and what it carries is taken or refused:

- taken: what it carried is cleared, and a suspect left alone is the one;
- refused: what it carried is the smaller group. Those left out may be refused as well, and stay out until this one is
  found, so that every refusal makes the group smaller and two refused features are found one after the other.

What was found is believed for a day, then one call tries it again. Words never decide: they are the service's to
change, and a user's text may stand in them. At most they choose which suspect is left out first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal, NamedTuple

Feature = Literal["ttl:1h", "split", "system_turns", "tools", "messages", "system"]
LONG_TTL: Feature = "ttl:1h"
"""Left out, points have a TTL of 5m."""
SPLIT: Feature = "split"
"""A text sent in two blocks."""
SYSTEM_TURNS: Feature = "system_turns"
"""A late system message where the model's row has it; left out, it goes the other way."""
LEFT_OUT_FIRST: tuple[Feature, ...] = (SYSTEM_TURNS, LONG_TTL, "tools", "messages", SPLIT, "system")
"""Where the service names none: first the placement that sources disagree on, last what is worth most."""

BELIEVED = 24 * 3600.0
"""Seconds that a refusal is believed: a model gains a TTL or a section by an update of the service, of which there are
a few a year, and one refused request a day costs nothing."""
TESTING = 60.0
"""Seconds that others leave out what one call is testing; it is told much sooner unless that call is lost."""
FAILING = 60.0
"""Seconds for which plain requests that failed in the same words are taken to fail still."""
_FAILURES_KEPT = 16
"""Wordings remembered of plain requests that failed; one that is forgotten costs one more request."""


class Outcome(NamedTuple):
    """What became of a request that carried these features; `at` is wall time in seconds.

    "refused": it was refused, and taken as its user wrote it; `first` is what the service's words point at. "taken":
    it was answered. "failing": as its user wrote it, it was refused too, in `words`, which are a keyed digest.
    """

    what: Literal["refused", "taken", "failing"]
    features: frozenset[Feature]
    at: float
    first: Feature | None = None
    words: bytes = b""


@dataclass(frozen=True, slots=True)
class Refusals:
    """What is known in one scope; `refused` has the time until which each is believed, `failing` words likewise.

    `suspects` are in the order in which they are left out. `aside` may be refused as well, and stay out while there
    are suspects. Until `testing` one call tests them, or one that was believed for a day.
    """

    suspects: tuple[Feature, ...] = ()
    aside: frozenset[Feature] = frozenset()
    refused: Mapping[Feature, float] = field(default_factory=lambda: MappingProxyType({}))
    failing: Mapping[bytes, float] = field(default_factory=lambda: MappingProxyType({}))
    testing: float = 0.0

    @property
    def open(self) -> frozenset[Feature]:
        """The features that a request which carries one of them tells something about."""
        return frozenset((*self.suspects, *self.refused)) | self.aside

    def left_out(self, now: float) -> frozenset[Feature]:
        """What every request leaves out; one feature that was believed for a day is tried again."""
        return self.aside | (self.refused.keys() - {self._due(now)})

    def left_out_as_well(self, wanted: Iterable[Feature], now: float) -> frozenset[Feature]:
        """What a request that would carry the wanted features leaves out of the suspects, to test the others."""
        wanted = frozenset(wanted)
        suspects = [feature for feature in self.suspects if feature in wanted]
        if self._is_tested(now):
            return frozenset(suspects)
        return frozenset(suspects[:1] if len(suspects) > 1 else ())

    def is_test(self, features: frozenset[Feature]) -> bool:
        """Whether a request with these tests what is open, so that only one may be under way."""
        return not features.isdisjoint(self.open)

    def tested(self, now: float) -> Refusals | None:
        """As it is while a request tests it; None while another does."""
        return None if self._is_tested(now) else replace(self, testing=now + TESTING)

    def fail_plainly(self, words: bytes, now: float) -> bool:
        """Whether requests as their users wrote them fail in these words."""
        return _lasts(self.failing.get(words, 0.0), now, FAILING)

    def after(self, outcome: Outcome) -> Refusals:
        """What is known with one outcome more; a late one changes nothing that is known better."""
        if outcome.what == "failing":
            lasting = {words: end for words, end in self.failing.items() if _lasts(end, outcome.at, FAILING)}
            lasting[outcome.words] = outcome.at + FAILING
            return replace(self, failing=dict(list(lasting.items())[-_FAILURES_KEPT:]))
        return self._taken(outcome) if outcome.what == "taken" else self._refused(outcome)

    def merged(self, other: Refusals, now: float) -> Refusals:
        """Both, where there is no room to tell scopes apart: whatever may be refused in one of them is left out."""
        refused: dict[Feature, float] = {}
        for each in (self, other):
            ends = dict.fromkeys((*each.suspects, *each.aside), now + BELIEVED) | dict(each.refused)
            refused.update({feature: max(end, refused.get(feature, end)) for feature, end in ends.items()})
        return Refusals(refused=refused)

    # -- parts ------------------------------------------------------------------------------------

    def _refused(self, outcome: Outcome) -> Refusals:
        carried, suspects = outcome.features, frozenset(self.suspects)
        known = carried & self.refused.keys()
        if known:  # it was tried again, or planned before it was known
            until = {feature: max(self.refused[feature], outcome.at + BELIEVED) for feature in known}
            return replace(self, refused={**self.refused, **until}, testing=0.0)
        if not carried or (suspects and suspects <= carried):
            return self
        first = sorted(carried, key=lambda each: (each != outcome.first, LEFT_OUT_FIRST.index(each)))
        return self._narrowed(first, self.aside | (suspects - carried), self.refused, outcome.at)

    def _taken(self, outcome: Outcome) -> Refusals:
        carried = outcome.features
        if not self.is_test(carried):
            return self
        refused = {feature: until for feature, until in self.refused.items() if feature not in carried}
        left = [feature for feature in self.suspects if feature not in carried]
        return self._narrowed(left, self.aside - carried, refused, outcome.at)

    def _narrowed(
        self, suspects: list[Feature], aside: frozenset[Feature], refused: Mapping[Feature, float], at: float
    ) -> Refusals:
        if len(suspects) == 1:
            refused, suspects = {**refused, suspects[0]: at + BELIEVED}, []
        return Refusals(tuple(suspects), aside - set(suspects) if suspects else frozenset(), refused, self.failing)

    def _due(self, now: float) -> Feature | None:
        if self.suspects or self._is_tested(now):
            return None
        return next((feature for feature, until in self.refused.items() if not _lasts(until, now, BELIEVED)), None)

    def _is_tested(self, now: float) -> bool:
        return _lasts(self.testing, now, TESTING)


NOTHING_REFUSED = Refusals()


def _lasts(until: float, now: float, seconds: float) -> bool:
    # What is to last twice as long as it ever does was said by a clock that has been set back since.
    return now < until <= now + 2 * seconds
