"""What a user says of requests to come, in LangChain's places for it: a run's config, and a mark on a message."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, SystemMessage

from cachepoint.bedrock.expectations import PARAMETER, said_by
from cachepoint.core.planning.expectation import Expectation


def said_in_config(config: Mapping[str, Any]) -> Expectation:
    """What `config["configurable"]["prompt_cache_expect"]` says."""
    return said_by([(config.get("configurable") or {}).get(PARAMETER)])


def said_on_messages(messages: Sequence[BaseMessage]) -> Expectation:
    """What marks say, which are `additional_kwargs["prompt_cache_expect"]`.

    Those of system messages and of this turn count; what was said with an earlier turn was said of that.
    """
    return said_by(message.additional_kwargs.get(PARAMETER) for message in _of_this_turn(messages))


def _of_this_turn(messages: Sequence[BaseMessage]) -> Iterator[BaseMessage]:
    answers = (i for i, each in enumerate(messages) if isinstance(each, AIMessage) and not each.tool_calls)
    begin = max(answers, default=-1)
    return (each for i, each in enumerate(messages) if i > begin or isinstance(each, SystemMessage))
