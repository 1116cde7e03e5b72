"""What the wire formats share: what a call asks of one, a plan's edits of a list, and how an answer carries the report.

A checkpoint is a block of its own in one format and an attribute of a block in the other; which list a plan
touches, where it splits a text and what invalidates a section are the same in both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from cachepoint.core.exchange import Warn, Wire
from cachepoint.core.prompt.prompt import IMAGES, Where
from cachepoint.core.provider.rules import TTL, ModelFacts
from cachepoint.core.provider.usage import Usage, count
from cachepoint.errors import ConfigurationError

CONTRACT = "promptCache"
"""The key under which a response, or a stream's last event with usage, says what caching did."""

Answered = Callable[[Mapping[str, Any] | None], Mapping[str, Any] | None]
"""Takes the usage as it was reported; gives the call's report, None if there is none."""
NOTHING: Mapping[str, Any] = MappingProxyType({})
Heard = Callable[[Mapping[str, Any]], None]
"""Takes the usage of a stream that has not ended, as far as it was reported."""
Reporter = Callable[[dict[str, Any]], dict[str, Any]]
"""Passes the events of one stream on; the one that completes the usage with the call's report."""


class Dialect(Wire, Protocol):
    """What a client asks of a wire format besides; the modules `converse` and `invoke_model` are the two."""

    def sendable(self, request: Mapping[str, Any]) -> tuple[Mapping[str, Any], Sequence[Warn]]:
        """The request without checkpoints that nothing stands beside, and what to warn of.

        Raises ConfigurationError where nothing could be sent in their place.
        """

    def has_system_turns(self, request: Mapping[str, Any]) -> bool:
        """Whether a request has system messages in its conversation."""

    def service_tier(self, request: Mapping[str, Any]) -> str | None:
        """The service tier a request names."""

    def reporter(self, answered: Answered, heard: Heard) -> Reporter:
        """What the events of one stream pass through."""


def told(response: dict[str, Any], contract: Mapping[str, Any] | None) -> dict[str, Any]:
    """A response, or a part of one, with the call's report in it."""
    return response if contract is None else {**response, CONTRACT: contract}


# -- reading --------------------------------------------------------------------------------------


_THINKING = ("thinking", "reasoning_config", "reasoningConfig")
_MORE_PROMPT = ("anthropic_beta", "mcp_servers")
"""Fields of a body that bring tools and text into the prompt which do not stand in the request.

What a beta or an MCP server changes there is not documented, so they count as changing everything.
"""


def mapping(value: Any) -> Mapping[str, Any]:
    """A JSON object; an empty one for anything else, which is left to the service to refuse."""
    return value if isinstance(value, Mapping) else {}


def whole_settings(api: str, fields: Mapping[str, Any], facts: ModelFacts, under: str = "") -> dict[str, Any]:
    """What changes the whole prompt, by its path (R3.10): the API, thinking, betas and what else brings in tools.

    What a request sets to the model's default is the same as leaving it out. `under` is the path of `fields`.
    """
    path, thinking = _given({f"{under}{name}": fields.get(name) for name in _THINKING})
    by_default = {"type": "disabled" if facts.thinking == "off" else "adaptive"}
    return {
        "api": api,
        path: None if thinking == by_default else thinking,
        **{f"{under}{name}": fields.get(name) for name in _MORE_PROMPT},
    }


def output_settings(
    fields: Mapping[str, Any], facts: ModelFacts, under: str = "", output: Mapping[str, Any] = NOTHING
) -> tuple[dict[str, Any], bool]:
    """What changes the whole prompt of what a request says of its answer, effort and format; whether it has a format.

    `output` is Converse's own `outputConfig`, which goes before the one in the fields.
    """
    config = mapping(fields.get("output_config"))
    effort_path, effort = _given(
        {"outputConfig.effort": output.get("effort"), f"{under}output_config.effort": config.get("effort")}
    )
    format_path, schema = _given(
        {
            "outputConfig.textFormat": output.get("textFormat"),
            f"{under}output_config.format": config.get("format"),
            f"{under}output_format": fields.get("output_format"),
        }
    )
    return {effort_path: None if effort == facts.effort else effort, format_path: schema}, bool(schema)


def system_settings(fields: Mapping[str, Any], under: str = "") -> dict[str, Any]:
    """What changes system and messages and leaves the tools: fast mode (Anthropic prompt caching page, Nov 2026)."""
    speed = fields.get("speed")
    return {f"{under}speed": None if speed == "standard" else speed}


def messages_settings(
    choice: str, fields: Mapping[str, Any], under: str = "", *, forced: bool, images: bool
) -> dict[str, Any]:
    """What changes the messages only (R3.10): a forced tool choice, whose path is `choice`, images, context management.

    Clearing and compaction work on the conversation, and Anthropic's page on compaction has the system prompt read
    on; so all of the messages is the most that a change of their settings can lose.
    """
    return {choice: forced, IMAGES: images, f"{under}context_management": fields.get("context_management")}


def _given(values: Mapping[str, Any]) -> tuple[str, Any]:
    """The first of these values that a request gives, with its path; None at the first path where it gives none."""
    return next(((path, value) for path, value in values.items() if value), (next(iter(values)), None))


def marked_ttl(where: Where, control: Any) -> TTL | None:
    """The TTL that a user's mark names, None where it names none.

    Raises ConfigurationError for one that does not exist, which the service would refuse.
    """
    ttl = control.get("ttl") if isinstance(control, Mapping) else None
    if ttl is None or ttl == "5m" or ttl == "1h":
        return ttl
    raise ConfigurationError(
        f"the checkpoint at {where.path} has ttl={ttl!r}: write '5m' or '1h', or leave it out, which means 5m"
    )


class Counters(NamedTuple):
    """What a wire format calls the counts of a usage."""

    input: str
    read: str
    written: str
    output: str


def usage_of(
    reported: object, names: Counters, by_ttl: Iterable[tuple[object, object]], unreported_ttl: TTL
) -> Usage | None:
    """Tokens by class; None where one of them is told and is no count, which would leave all of it wrong.

    `by_ttl` splits what was written and is not added to it. Missing cache counters are normal and count as 0 (C1). A
    write of which no TTL is reported, or by parts that cannot be its own, counts as `unreported_ttl`.
    """
    given = mapping(reported)
    told = {name: count(given[name]) for name in names if given.get(name) is not None}
    if names.input not in told or None in told.values():
        return None
    written, split = told.get(names.written), _split(by_ttl)
    if split is None or (written is not None and sum(split.values()) > written):
        if written is None:
            return None
        split = {"5m": 0, "1h": 0}
    if written is not None:
        split[unreported_ttl] += written - sum(split.values())
    return Usage(
        told[names.input] or 0, told.get(names.read) or 0, split["5m"], split["1h"], told.get(names.output) or 0
    )


def _split(by_ttl: Iterable[tuple[object, object]]) -> dict[TTL, int] | None:
    """What was written by TTL; None where a part is no count. TTLs that do not exist are left out."""
    split: dict[TTL, int] = {"5m": 0, "1h": 0}
    for ttl, reported in by_ttl:
        tokens = count(0 if reported is None else reported)
        if tokens is None:
            return None
        if ttl == "5m" or ttl == "1h":
            split[ttl] += tokens
    return split


# -- writing --------------------------------------------------------------------------------------
