"""The bound on waste: what caching has cost so far, and what one more request may risk."""

from __future__ import annotations

from dataclasses import dataclass, replace

from cachepoint.core.provider.prices import Rates
from cachepoint.core.provider.usage import Usage

WASTE_SHARE = 0.015
"""The surcharge over no caching is at most this share of the bill without caching …"""

WASTE_WRITES = 2
"""… plus this many writes of the largest prefix (K of the design)."""


@dataclass(frozen=True, slots=True)
class Waste:
    """What caching has cost so far, in input tokens: the bound on waste is kept from it.

    `net` is surcharges paid less savings (a saving does not licence later waste beyond a few
    prefixes), `committed` the surcharges of calls under way, `baseline` all prompt tokens, `largest`
    the largest prompt.
    """

    net: float = 0.0
    committed: float = 0.0
    baseline: float = 0.0
    largest: float = 0.0

    def allowance(self, prompt_tokens: float, rates: Rates) -> float:
        """The surcharge, in input tokens, that one more request may risk."""
        return self._ceiling(prompt_tokens, rates) - self.net - self.committed

    def overdrawn(self, prompt_tokens: float, rates: Rates) -> bool:
        """Whether not even a read may be tried: one that does not come is a write."""
        return self.net > self._ceiling(prompt_tokens, rates)

    def _ceiling(self, prompt_tokens: float, rates: Rates) -> float:
        largest = max(self.largest, prompt_tokens)
        return WASTE_SHARE * (self.baseline + prompt_tokens) + WASTE_WRITES * rates.write_5m * largest

    @property
    def lost(self) -> float:
        """What may be lost for good: no saving is counted, and calls under way as if they came to nothing."""
        return max(self.net, 0.0) + self.committed

    def merged(self, other: Waste) -> Waste:
        """What both lost together, in any order and grouping; the prompts of neither license waste of the other."""
        return Waste(self.lost + other.lost)

    def beside(self, lost: Waste) -> Waste:
        """The same where others' losses, which may be its own of earlier, count too."""
        return replace(self, net=self.net + lost.lost)

    def with_commitment(self, surcharge: float) -> Waste:
        """The same with one more call under way (or, negative, one fewer)."""
        return replace(self, committed=max(self.committed + surcharge, 0.0))

    def settled(self, usage: Usage, rates: Rates, authorised: float = 0.0) -> Waste:
        """The same after a call's usage came in; what the user authorised of its surcharge is no waste."""
        surcharge = (rates.write_5m - 1) * usage.cache_write_5m + (rates.write_1h - 1) * usage.cache_write_1h
        surcharge, largest = max(surcharge - authorised, 0.0), max(self.largest, usage.prompt)
        net = max(self.net + surcharge - (1 - rates.read) * usage.cache_read, -WASTE_WRITES * largest)
        return Waste(net, self.committed, self.baseline + usage.prompt, largest)


@dataclass(frozen=True, slots=True)
class Guards:
    """What guards money in a scope: its waste, and the sections and TTLs in which checkpoints were refused.

    Never dropped: where there is no room to keep scopes apart, theirs are merged. The `lumped` ones bind a scope
    that may be one of these: it began after the first were, and not with guards of its own.
    """

    waste: Waste = Waste()
    refused: frozenset[str] = frozenset()
    lumped: bool = False

    def merged(self, other: Guards) -> Guards:
        """Both together, in any order and grouping."""
        return Guards(self.waste.merged(other.waste), self.refused | other.refused, self.lumped or other.lumped)

    def beside(self, others: Guards) -> Guards:
        """The same where others hold too: never a greater allowance, never fewer refusals."""
        return Guards(self.waste.beside(others.waste), self.refused | others.refused, self.lumped)


NO_GUARDS = Guards()
