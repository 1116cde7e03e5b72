"""Checkpoints with nothing beside them: alone among the tools, in the system prompt or in a turn.

There is nothing to cache there, and what is left without them botocore or the service refuses: an empty list of tools,
a turn without content. Where the rest of the request says the same without them, it is sent without them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cachepoint.bedrock.wire.cache_point import is_cache_point
from cachepoint.bedrock.wire.dialect import mapping
from cachepoint.bedrock.wire.history import without_turns
from cachepoint.core.exchange import Warn
from cachepoint.errors import ConfigurationError

_LEFT_OUT = "{0} had nothing but checkpoints, with nothing to cache; {1}. Put them behind what they are to close"


def without_lone_points(request: Mapping[str, Any]) -> tuple[Mapping[str, Any], tuple[Warn, ...]]:
    """The request without lists of checkpoints alone, itself where it has none; and what to warn of.

    Raises ConfigurationError where nothing could be sent in their place: the turn that is to be answered, tools that
    the tool choice forces or that the conversation has called.
    """
    sent = dict(request)
    warnings: list[Warn] = []
    config, messages = mapping(request.get("toolConfig")), _list(request.get("messages"))
    if _only_points(config.get("tools")):
        _check_needless(config, messages)
        del sent["toolConfig"]
        warnings.append(_warning("toolConfig.tools", "the request was sent without toolConfig"))
    if _only_points(request.get("system")):
        del sent["system"]
        warnings.append(_warning("system", "the request was sent without it"))
    if any(map(_only_points, [message.get("content") for message in messages])):
        sent["messages"] = _without_empty_turns(messages)
        warnings.append(_warning("a turn of messages", "it was left out"))
    return (sent, tuple(warnings)) if warnings else (request, ())


def _list(value: Any) -> Sequence[Mapping[str, Any]]:
    return value if isinstance(value, list) and all(isinstance(each, dict) for each in value) else ()


def _only_points(blocks: Any) -> bool:
    # The first block says it of nearly all.
    return isinstance(blocks, list) and bool(blocks) and is_cache_point(blocks[0]) and all(map(is_cache_point, blocks))


def _check_needless(config: Mapping[str, Any], messages: Sequence[Mapping[str, Any]]) -> None:
    forced = mapping(config.get("toolChoice")).keys() & {"any", "tool"}
    called = any("toolUse" in block for message in messages for block in _list(message.get("content")))
    if forced or called:
        raise ConfigurationError(
            "toolConfig.tools has nothing but checkpoints, and "
            f"{'toolChoice forces a tool' if forced else 'the conversation has tool calls'}; "
            "put the tools in, or take out what needs them"
        )


def _without_empty_turns(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    last = len(messages) - 1
    if _only_points(messages[last].get("content")) and messages[last].get("role") == "user":
        raise ConfigurationError(
            f"messages[{last}] has nothing but checkpoints, so there is nothing to answer; give it content, or put the "
            "checkpoint at the end of the turn before"
        )
    kept = without_turns(list(map(dict, messages)), lambda message: _only_points(message.get("content")))
    if not kept:
        raise ConfigurationError("messages have nothing but checkpoints; give them content")
    return kept


def _warning(place: str, done: str) -> Warn:
    return Warn(f"lone point:{place}", _LEFT_OUT.format(place, done))
