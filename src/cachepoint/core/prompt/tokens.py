"""How many tokens a text may be, offline, with an honest band, and how exact totals narrow it.

No official offline tokenizer exists for today's models (docs/rules.md, T3 and T4). Sizes are UTF-8 bytes,
because bytes a token vary less between scripts than characters a token. Ratios are from recorded traffic
(C4 to C6): varied English 4.3 to 4.6 bytes a token on the older Claude tokenizer, 3.0 to
4.3 on the newer one, 5.4 to 6.1 on Nova for repetitive text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from cachepoint.core.provider.rules import Tokenizer


class Band(NamedTuple):
    """An estimate in tokens: surely not below `low`, likely `mid`, surely not above `high`."""

    low: float
    mid: float
    high: float


@dataclass(frozen=True, slots=True)
class TokenizerProfile:
    """Bytes a token and fixed costs in tokens of one tokenizer, each as low, likely, high tokens."""

    dense: float
    likely: float
    sparse: float
    json: float
    tools: float
    forced_tool: float
    output_schema: float
    per_message: float


PROFILES: Mapping[Tokenizer, TokenizerProfile] = {
    "claude": TokenizerProfile(2.8, 4.4, 6.2, 3.2, 450, 90, 250, 4),
    "claude-new": TokenizerProfile(1.9, 3.4, 4.4, 2.5, 295, 90, 250, 4),
    "nova": TokenizerProfile(2.8, 4.6, 6.2, 3.4, 340, 0, 250, 4),
    "other": TokenizerProfile(2.0, 4.2, 6.2, 3.2, 300, 0, 250, 4),
}

IMAGE_TOKENS = 1500.0
"""A full-size image on Claude; smaller ones cost width x height / 750."""

MEDIA_BYTES_PER_TOKEN = 30.0
"""PDF and video bytes a token: only an order of magnitude, exact totals correct it."""


FULL_SAMPLE_TOKENS = 1000
"""A prompt of this size or more counts in full towards a calibration."""
RECENT_SAMPLE_WEIGHT = 0.1
"""The least a full sample counts: a change of traffic is followed within some ten requests."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """What exact totals taught about one model: the ratio of real to estimated tokens.

    `factor` multiplies the likely estimate; `spread` is how far single requests strayed from it, as
    a share; both move by an exponential average, so that a change of traffic is followed. `samples`
    counts totals, small prompts as a part of one: fixed costs are most of what they show.
    """

    factor: float = 1.0
    spread: float = 0.0
    samples: float = 0.0

    def updated(self, estimated: float, actual: int) -> Calibration:
        """The calibration after one more exact total; estimates of no size teach nothing."""
        if estimated < 1 or actual < 1:
            return self
        ratio = actual / estimated
        size = min(actual / FULL_SAMPLE_TOKENS, 1.0)
        weight = max(size / (self.samples + size), RECENT_SAMPLE_WEIGHT * size)
        factor = self.factor + (ratio - self.factor) * weight
        stray = size * abs(ratio - self.factor) / self.factor if self.samples else 0.0
        spread = max(stray, self.spread + (stray - self.spread) * weight)
        return Calibration(factor, min(spread, 1.0), self.samples + size)

    def band(self, mid: float, profile: TokenizerProfile) -> Band:
        """The band around a likely estimate, as wide as the tokenizer's own until totals came in."""
        if not self.samples:
            return Band(mid * profile.likely / profile.sparse, mid, mid * profile.likely / profile.dense)
        likely = mid * self.factor
        stray = max(self.spread, 0.1)
        return Band(likely * (1 - min(stray, 0.9)), likely, likely * (1 + stray))


NOT_CALIBRATED = Calibration()
