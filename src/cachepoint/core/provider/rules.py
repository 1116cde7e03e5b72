"""What is known of each model: rows of data and how a model id finds its row.

The rows themselves are data (`catalogue/data/models.toml`), each with its source and the date it was
checked; this module only knows their shape and how ids are written.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal, get_args

from cachepoint._cached import cached_property
from cachepoint.errors import RulesError

TTL = Literal["5m", "1h"]
Section = Literal["tools", "system", "messages"]
Tokenizer = Literal["claude", "claude-new", "nova", "other"]
Api = Literal["converse", "invoke_model"]
ToolChoice = Literal["auto", "any", "tool"]
Thinking = Literal["none", "off", "on", "always"]
ThinkingType = Literal["adaptive", "enabled", "disabled"]
Replay = Literal["signed", "unsigned", "none"]

SECTIONS: tuple[Section, ...] = ("tools", "system", "messages")
APIS: tuple[Api, ...] = ("converse", "invoke_model")
TOOL_CHOICES: tuple[ToolChoice, ...] = ("auto", "any", "tool")
THINKING_TYPES: tuple[ThinkingType, ...] = ("adaptive", "enabled", "disabled")
TTL_SECONDS: Mapping[TTL, int] = {"5m": 300, "1h": 3600}

_GEO = re.compile(r"^(global|us-gov|us|eu|apac|au|jp|in|ca|sa|uk|me|af)\.(?=[a-z0-9-]+\.)")
_ARN = re.compile(r"^arn:(?P<partition>aws[\w-]*):bedrock:(?P<region>[\w-]*):\d*:(?P<kind>[\w-]+)/(?P<name>.+)$")
# Ids whose rows are kept at hand: more than an application calls, and few enough that odd ids cannot fill memory.
_REMEMBERED = 4096
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


@lru_cache(maxsize=_REMEMBERED)
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
class ModelFacts:
    """What else is known of a model: what reading its requests and calling it takes.

    `context_window` is in tokens, prompt and answer together, None where unknown. `temperature`: the service takes
    one. `tool_choices`: those it takes and follows, none where the model calls no tools; `forced_tool_with_thinking`:
    any and tool also in a request that asks for thinking. `thinking`: what a request gets that says nothing of it;
    "always" cannot be turned off, and with "none" there is no such setting. `thinking_types`: those that may be asked
    for. `replays_reasoning`: what a request may carry of the reasoning of earlier answers: with a signature only,
    without one too, or nothing. `effort` is the default.
    `leading_assistant`, `prefill`: the conversation may start, and end, with an assistant message. `keeps_thinking`:
    reasoning of earlier turns stays in the prompt when a new question comes. `top_level_cache_control`: InvokeModel
    takes one at the top of the body. `counts_tokens`: CountTokens takes the base id.
    `system_role`: the APIs that take `role: "system"` messages in mid-conversation, and
    `system_role_disputed` those of which sources disagree. `converse`: served through Converse at all.
    `end_of_life` is the day on which the service ends or ended the model (ISO), "" where none is known.
    """

    context_window: int | None = None
    temperature: bool = True
    tool_choices: tuple[ToolChoice, ...] = TOOL_CHOICES
    forced_tool_with_thinking: bool = True
    thinking: Thinking = "off"
    thinking_types: tuple[ThinkingType, ...] = THINKING_TYPES
    replays_reasoning: Replay = "signed"
    effort: str = "high"
    leading_assistant: bool = False
    prefill: bool = True
    keeps_thinking: bool = False
    top_level_cache_control: bool = False
    counts_tokens: bool = False
    system_role: tuple[Api, ...] = ()
    system_role_disputed: tuple[Api, ...] = ()
    converse: bool = True
    end_of_life: str = ""

    def __post_init__(self) -> None:
        if self.context_window is not None and self.context_window < 1:
            raise RulesError(f"context_window is {self.context_window}; give it in tokens, or leave it out")
        for what, given, allowed in (
            ("tool_choices", self.tool_choices, TOOL_CHOICES),
            ("thinking", (self.thinking,), get_args(Thinking)),
            ("thinking_types", self.thinking_types, THINKING_TYPES),
            ("replays_reasoning", (self.replays_reasoning,), get_args(Replay)),
            ("system_role", self.system_role, APIS),
            ("system_role_disputed", self.system_role_disputed, APIS),
        ):
            _check_values(what, given, allowed)

    @property
    def calls_tools(self) -> bool:
        """Whether the model calls tools at all."""
        return bool(self.tool_choices)

    def may_take_system_role(self, api: Api) -> bool:
        """Whether a system message in mid-conversation may be taken: it is, or sources disagree."""
        return api in self.system_role or api in self.system_role_disputed


def _check_values(what: str, values: Iterable[str], allowed: tuple[str, ...]) -> None:
    wrong = [value for value in values if value not in allowed]
    if wrong:
        raise RulesError(f"{what} has {wrong[0]!r}; use any of {', '.join(allowed)}")


@dataclass(frozen=True, slots=True)
class ModelRule:
    """One row: what caching rules a family of model ids follows.

    `minimum` is in tokens, cumulative over tools, system and messages (R3.1). `lookback` counts the
    block positions a checkpoint examines, its own included (R3.7): with 20, an entry 19 blocks
    before a checkpoint is found and one 20 blocks before is not. `max_cached_tokens` is None where
    no cap is known. `after_text_only`: inside messages a checkpoint may only follow text (Nova).
    `stand_in`: the row stands for ids that no other row knows, and may fit a model or none.
    `implicit`: through Converse and InvokeModel the provider caches on its own, best effort.
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
    implicit: bool = False
    stand_in: bool = False
    facts: ModelFacts = ModelFacts()
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
        _check_values(f"model rule {self.name!r}: ttls", self.ttls, tuple(TTL_SECONDS))
        _check_values(f"model rule {self.name!r}: sections", self.sections, SECTIONS)
        for what, number, least in (
            ("minimum", self.minimum, 0),
            ("max_checkpoints", self.max_checkpoints, 0),
            ("lookback", self.lookback, 1),
        ):
            if number < least:
                raise RulesError(f"model rule {self.name!r}: {what} is {number}; give {least} or more")


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
        try:
            return self._resolved[model_id]
        except KeyError:
            row = self._search(model_id)
        if len(self._resolved) >= _REMEMBERED:
            self._resolved.clear()
        # Another thread may clear in between, so what is returned is never read back.
        self._resolved[model_id] = row
        return row

    def _search(self, model_id: str) -> ModelRule | None:
        base = parse_model_id(model_id).base
        if base is None:
            return None
        return next((row for pattern, row in self._compiled if pattern.search(base)), None)

    def extended(self, rows: Iterable[ModelRule]) -> Rules:
        """A table with the user's rows before the present ones, so that theirs win."""
        return Rules((*rows, *self.rows))
