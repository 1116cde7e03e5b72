"""What the wire formats share: what a call asks of one, a plan's edits of a list, and how answers are told.

A checkpoint is a block of its own in one format and an attribute of a block in the other; which list a plan
touches, where it splits a text and what invalidates a section are the same in both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from cachepoint.core.exchange import Wire
from cachepoint.core.prompt.prompt import IMAGES, Where
from cachepoint.core.provider.rules import TTL
from cachepoint.core.provider.usage import Usage
from cachepoint.errors import ConfigurationError

CONTRACT = "promptCache"
"""The key under which a response, or a stream's last event with usage, says what caching did."""

Answered = Callable[[Mapping[str, Any] | None], Mapping[str, Any] | None]
"""Takes the usage as it was reported; gives what the call tells, None if nothing can be told."""
Reporter = Callable[[dict[str, Any]], dict[str, Any]]
"""Passes the events of one stream on; the one that completes the usage with what the call tells."""


class Dialect(Wire, Protocol):
    """What a client asks of a wire format besides; the modules `converse` and `invoke_model` are the two."""

    def service_tier(self, request: Mapping[str, Any]) -> str | None:
        """The service tier a request names."""

    def reporter(self, answered: Answered) -> Reporter:
        """What the events of one stream pass through."""


def told(response: dict[str, Any], contract: Mapping[str, Any] | None) -> dict[str, Any]:
    """A response, or a part of one, with what the call tells."""
    return response if contract is None else {**response, CONTRACT: contract}


# -- reading --------------------------------------------------------------------------------------


_THINKING = ("thinking", "reasoning_config", "reasoningConfig")


def whole_settings(api: str, fields: Mapping[str, Any], under: str = "", effort: Any = None) -> dict[str, Any]:
    """What changes the whole prompt, by its path: the API, thinking and effort at their defaults when absent (R3.10).

    `under` is the path of `fields`; `effort` is Converse's own, which goes before the one in them.
    """
    name = next((name for name in _THINKING if fields.get(name)), _THINKING[0])
    thinking, output = fields.get(name) or None, fields.get("output_config")
    if isinstance(thinking, Mapping) and thinking.get("type") == "disabled":
        thinking = None
    effort_path = "outputConfig.effort" if effort else f"{under}output_config.effort"
    effort = effort or (output.get("effort") if isinstance(output, Mapping) else None)
    return {"api": api, f"{under}{name}": thinking, effort_path: None if effort == "high" else effort}


def messages_settings(choice: str, *, forced: bool, images: bool) -> dict[str, Any]:
    """What changes the messages only: a tool choice that forces, whose path is `choice`, and having images (R3.10)."""
    return {choice: forced, IMAGES: images}


def said_ttl(where: Where, control: Any) -> TTL | None:
    """The TTL that a user's mark names, None where it names none.

    Raises ConfigurationError for one that does not exist, which the service would refuse.
    """
    ttl = control.get("ttl") if isinstance(control, Mapping) else None
    if ttl is None or ttl == "5m" or ttl == "1h":
        return ttl
    raise ConfigurationError(
        f"the checkpoint at {where.path} has ttl={ttl!r}: write '5m' or '1h', or leave it out, which means 5m"
    )


def usage_of(
    tokens: int, read: int | None, written: int | None, by_ttl: Mapping[TTL, int], output: int | None, unsaid_ttl: TTL
) -> Usage:
    """Tokens by class; `by_ttl` splits what was written and is not added to it.

    Missing cache counters are normal and count as 0 (recorded C1). A write whose TTL is not said counts
    as `unsaid_ttl`.
    """
    split = {"5m": 0, "1h": 0, **by_ttl}
    said = sum(split.values())
    split[unsaid_ttl] += max((said if written is None else written) - said, 0)
    return Usage(tokens, read or 0, split["5m"], split["1h"], output or 0)


# -- writing --------------------------------------------------------------------------------------
