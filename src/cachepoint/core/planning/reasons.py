"""Why a checkpoint was placed, why a place was not used, what became of a mark: codes with figures, and their prose.

The planner and whoever reads its plans decide by codes alone. A sentence is made here, when somebody reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from cachepoint.core.provider.rules import TTL
from cachepoint.core.traffic.boundaries import ROLE_NAMES
from cachepoint.core.traffic.kinds import Role

PlacedCode = Literal["marked", "expected", "expected_again", "keeps_read", "bridge", "shared", "static_plan", "quoted"]

Obstacle = Literal[
    "model_without_checkpoints", "section_without_checkpoints", "nothing_before", "after_reasoning",
    "after_document", "after_video", "after_blank_text", "after_guard", "only_after_text", "after_citations",
]  # fmt: skip
"""What the service refuses of a place."""

HeldCode = Literal[
    Obstacle, "first_in_list", "mode_off", "unknown_model", "empty_prompt", "none_allowed", "not_marked", "refused",
    "below_minimum", "above_maximum", "writing_under_way", "no_return_expected", "not_expected", "allowance_spent",
    "over_cap", "shorter_live", "static_plan", "left_as_written",
]  # fmt: skip
"""Why a place was not used, or, where it names no place, why nothing was placed at all."""

RepairCode = Literal["left_out", "moved", "lowered", "raised"]
Cause = Literal[HeldCode, "ttl_order", "ttl_unknown"]
"""Why a checkpoint of the user's was changed."""


class Placed(NamedTuple):
    """Why a checkpoint was placed.

    `role` is what its boundary is, `seen` how often it was seen before, `visits` how many more visits are expected
    and `within_5m` the chance that the next comes within five minutes. `tokens` and `ttl` are of the entry it keeps
    within reach, `blocks` how far it stands before the last checkpoint. `text` is the sentence where nothing else is
    known.
    """

    code: PlacedCode
    role: Role = "inner"
    seen: int = 0
    visits: float = 0.0
    within_5m: float = 0.0
    tokens: float = 0.0
    ttl: TTL = "5m"
    blocks: int = 0
    text: str = ""

    @property
    def key(self) -> tuple[object, ...]:
        """The same for reasons that differ only in their figures."""
        named = self.code in ("expected", "expected_again", "shared")
        return self.code, self.role if named else None, self.seen > 0, self.text

    def __str__(self) -> str:
        return _PLACED[self.code].format(
            self, role=ROLE_NAMES[self.role], seen=f"seen {self.seen} times before" if self.seen else "not seen before"
        )


class Rejected(NamedTuple):
    """A place considered and not used; no `path` where nothing was considered at all.

    `tokens` is the likely size of the prefix that ends there, `limit` what it or the number of checkpoints was
    measured against, `visits` how many more are expected. `text` is the sentence where nothing else is known.
    """

    path: str
    reason: HeldCode
    tokens: float = 0.0
    limit: int = 0
    visits: float = 0.0
    text: str = ""

    @property
    def why(self) -> str:
        """The reason as a sentence."""
        return self.text or _CAUSES[self.reason].format(self)

    def to_dict(self) -> dict[str, str]:
        """The place and its reason as the call contract prints them."""
        return {"path": self.path, "reason": self.reason, "why": self.why}


class Repair(NamedTuple):
    """What became of a checkpoint that the user wrote and the service would refuse; `str` is the warning.

    `path` is the block it follows or, where it stands first in its list, its own place; `to` the block it follows
    now. `limit` is the number of checkpoints, `ttl` the lifetime it had.
    """

    code: RepairCode
    path: str
    reason: Cause
    to: str = ""
    limit: int = 0
    ttl: TTL = "5m"

    @property
    def key(self) -> str:
        """The same for every message of a growing conversation: to warn of a kind of repair once."""
        return f"{self.code}:{self.reason}:{self.path.partition('[')[0]}"

    def __str__(self) -> str:
        place = f"the checkpoint {'at' if self.reason == 'first_in_list' else 'after'} {self.path}"
        return f"{place} {_REPAIRED[self.code].format(self)}: {_CAUSES[self.reason].format(self)}"


_PLACED: Mapping[PlacedCode, str] = {
    "marked": "you marked it",
    "expected": "{role}: you said that it comes back, about {0.visits:.1f} more visits, {0.within_5m:.0%} within 5m",
    "expected_again": "{role}: {seen}, about {0.visits:.1f} more visits expected, {0.within_5m:.0%} within 5m",
    "keeps_read": "keeps a live {0.ttl} entry of {0.tokens:.0f} tokens within reach",
    "bridge": "bridge: the request before this one ended here, {0.blocks} blocks before the last checkpoint",
    "shared": "{role}: others part here, and inside the prefix cached anyway it costs nothing",
    "static_plan": '{role}: the plan "{0.text}" has been cheaper for requests like this one',
    "quoted": "{0.text}",
}

_REPAIRED: Mapping[RepairCode, str] = {
    "left_out": "was left out",
    "moved": "was moved to after {0.to}",
    "lowered": "was lowered to 5m",
    "raised": "was raised from 5m to 1h",
}

_CAUSES: Mapping[Cause, str] = {
    "model_without_checkpoints": "the model takes no checkpoints",
    "section_without_checkpoints": "the model takes no checkpoints in this section",
    "nothing_before": "nothing but documents stands before it in its list, and the service finds nothing to cache",
    "after_reasoning": "a checkpoint may not follow a reasoning block",
    "after_document": "a checkpoint may not follow a document that is not a PDF",
    "after_video": "a checkpoint may not follow a video",
    "after_blank_text": "a checkpoint may not follow blank text",
    "after_guard": "a checkpoint may not follow guarded content of the last turn",
    "only_after_text": "this model takes checkpoints in messages only after text",
    "after_citations": "a checkpoint may not follow citations",
    "first_in_list": "nothing stands before it in its list",
    "mode_off": "caching is switched off",
    "left_as_written": "the request was left as it was written",
    "unknown_model": "the model behind this id is not known",
    "empty_prompt": "the request has nothing to cache",
    "none_allowed": "no checkpoints are allowed",
    "not_marked": "nothing was marked, and mode 'explicit' places nothing of its own",
    "refused": "the service refused a checkpoint in this section before",
    "below_minimum": "about {0.tokens:.0f} tokens, below the minimum of {0.limit}",
    "above_maximum": "about {0.tokens:.0f} tokens, above the {0.limit} the model caches",
    "writing_under_way": "a request under way is writing this prefix",
    "no_return_expected": "about {0.visits:.1f} more visits expected, too few or too late to pay for the write",
    "not_expected": "by what you said it does not come back often or soon enough to pay for the write",
    "allowance_spent": (
        "what may be risked on writes does not cover it: a profile, `expect(back_in=…)` or a TTL of your own would"
    ),
    "over_cap": "only {0.limit} checkpoints may be sent and this one is worth least",
    "shorter_live": "its live 5m entry may not stand before a 1h checkpoint",
    "static_plan": "a plan without a checkpoint here has been cheaper for requests like this one",
    "ttl_order": "a 1h checkpoint may not come after a 5m one",
    "ttl_unknown": "the model has no {0.ttl}",
}
