"""Which model takes which checkpoints: rows of data and how a model id finds its row.

The rows themselves are data (`catalogue/data/models.toml`), each with its source and the date it was
checked; this module only knows their shape and how ids are written.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from cachepoint.errors import RulesError

TTL = Literal["5m", "1h"]
Section = Literal["tools", "system", "messages"]
Tokenizer = Literal["claude", "claude-new", "nova", "other"]

SECTIONS: tuple[Section, ...] = ("tools", "system", "messages")
TTL_SECONDS: Mapping[TTL, int] = {"5m": 300, "1h": 3600}

_GEO = re.compile(r"^(global|us-gov|us|eu|apac|au|jp|in|ca|sa|uk|me|af)\.(?=[a-z0-9-]+\.)")
_ARN = re.compile(r"^arn:(?P<partition>aws[\w-]*):bedrock:(?P<region>[\w-]*):\d*:(?P<kind>[\w-]+)/(?P<name>.+)$")
_TRANSPARENT_ARNS = frozenset({"foundation-model", "inference-profile"})


@dataclass(frozen=True, slots=True)
class ModelRef:
    """A model id taken apart.

    `base` is the id without ARN and geo prefix (`anthropic.claude-…-v1:0`), None when the ARN is
    opaque (application inference profile, provisioned or imported model, prompt). `geo` is the
    prefix that routes and prices the call (`global`, `us`, `us-gov`, …), None for an in-Region id.
    """

    given: str
    base: str | None
    geo: str | None
    region: str | None = None


def parse_model_id(model_id: str) -> ModelRef:
    """Take a Bedrock model id, inference-profile id or ARN apart."""
    name, region = model_id, None
    arn = _ARN.match(model_id)
    if arn:
        region = arn["region"] or None
        if arn["kind"] not in _TRANSPARENT_ARNS:
            return ModelRef(model_id, None, None, region)
        name = arn["name"]
    elif model_id.startswith("arn:"):
        return ModelRef(model_id, None, None, None)
    geo = _GEO.match(name)
    if geo:
        return ModelRef(model_id, name[geo.end() :], geo[1], region)
    in_gov = region is not None and region.startswith("us-gov-")
    return ModelRef(model_id, name, "us-gov" if in_gov else None, region)


@dataclass(frozen=True, slots=True)
class ModelRule:
    """One row: what caching rules a family of model ids follows.

    `minimum` is in tokens, cumulative over tools, system and messages (R3.1). `lookback` counts the
    block positions a checkpoint examines, its own included (R3.7): with 20, an entry 19 blocks
    before a checkpoint is found and one 20 blocks before is not. `max_cached_tokens` is None where
    no cap is known. `after_text_only`: inside messages a checkpoint may only follow text (Nova).
    `system_role`: the model takes `role: "system"` messages in mid-conversation.
    """

    name: str
    pattern: str
    explicit: bool = True
    minimum: int = 1024
    max_checkpoints: int = 4
    ttls: tuple[TTL, ...] = ("5m",)
    sections: tuple[Section, ...] = SECTIONS
    lookback: int = 20
    max_cached_tokens: int | None = None
    tokenizer: Tokenizer = "other"
    after_text_only: bool = False
    system_role: bool = False
    implicit: bool = False
    provider: str = ""
    source: str = ""
    checked: str = ""
    confidence: str = ""
    disagreement: str = ""

    def __post_init__(self) -> None:
        try:
            re.compile(self.pattern)
        except re.error as problem:
            raise RulesError(
                f"model rule {self.name!r}: pattern {self.pattern!r} is no regular expression "
                f"({problem}); write one that `re.search` takes"
            ) from None
        for what, values, allowed in (
            ("ttls", self.ttls, tuple(TTL_SECONDS)),
            ("sections", self.sections, SECTIONS),
        ):
            wrong = [value for value in values if value not in allowed]
            if wrong:
                raise RulesError(f"model rule {self.name!r}: {what} has {wrong[0]!r}; use any of {allowed}")
        for what, number, least in (
            ("minimum", self.minimum, 0),
            ("max_checkpoints", self.max_checkpoints, 0),
            ("lookback", self.lookback, 1),
        ):
            if number < least:
                raise RulesError(f"model rule {self.name!r}: {what} is {number}, below {least}")


@dataclass(frozen=True)
class Rules:
    """The model table: the first row whose pattern is found in the base id wins."""

    rows: tuple[ModelRule, ...] = field(default=())

    @cached_property
    def _compiled(self) -> tuple[tuple[re.Pattern[str], ModelRule], ...]:
        return tuple((re.compile(row.pattern), row) for row in self.rows)

    @cached_property
    def _resolved(self) -> dict[str, ModelRule | None]:
        return {}

    def resolve(self, model_id: str) -> ModelRule | None:
        """The row for a model id, profile id or ARN; None when the ARN is opaque or no row fits."""
        if model_id not in self._resolved:
            if len(self._resolved) > 4096:
                self._resolved.clear()
            self._resolved[model_id] = self._search(model_id)
        return self._resolved[model_id]

    def _search(self, model_id: str) -> ModelRule | None:
        base = parse_model_id(model_id).base
        if base is None:
            return None
        return next((row for pattern, row in self._compiled if pattern.search(base)), None)

    def extended(self, rows: Iterable[ModelRule]) -> Rules:
        """A table with the user's rows before the present ones, so that theirs win."""
        return Rules((*rows, *self.rows))
