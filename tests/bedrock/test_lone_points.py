"""Checkpoints with nothing beside them never leave an empty list behind: they go, or what is empty is named."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ParamValidationError
from converse_kit import Bedrock

from cachepoint import CachePolicy
from cachepoint.errors import CachepointWarning, ConfigurationError

CLAUDE, NOVA = "us.anthropic.claude-sonnet-4-5-20250929-v1:0", "us.amazon.nova-pro-v1:0"
POINT: dict[str, Any] = {"cachePoint": {"type": "default"}}
HI = {"role": "user", "content": [{"text": "hi"}]}
YES = {"role": "assistant", "content": [{"text": "yes?"}]}
LAMP = {"toolSpec": {"name": "lamp", "inputSchema": {"json": {"type": "object"}}}}
USE = {"role": "assistant", "content": [{"toolUse": {"toolUseId": "t1", "name": "lamp", "input": {}}}]}
RESULT = {"role": "user", "content": [{"toolResult": {"toolUseId": "t1", "content": [{"text": "on"}]}}]}


def alone(role: str) -> dict[str, Any]:
    return {"role": role, "content": [POINT]}


SENDABLE: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "tools": ({"messages": [HI], "toolConfig": {"tools": [POINT]}}, {"messages": [HI]}),
    "tools, twice": ({"messages": [HI], "toolConfig": {"tools": [POINT, POINT]}}, {"messages": [HI]}),
    "tools and a free choice": (
        {"messages": [HI], "toolConfig": {"tools": [POINT], "toolChoice": {"auto": {}}}},
        {"messages": [HI]},
    ),
    "system": ({"messages": [HI], "system": [POINT]}, {"messages": [HI]}),
    "an answer": (
        {"messages": [HI, alone("assistant"), HI]},
        {"messages": [{"role": "user", "content": [{"text": "hi"}, {"text": "hi"}]}]},
    ),
    "an earlier question": (
        {"messages": [HI, YES, alone("user"), YES, HI]},
        {"messages": [HI, {"role": "assistant", "content": [{"text": "yes?"}, {"text": "yes?"}]}, HI]},
    ),
}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "the question": ({"messages": [HI, YES, alone("user")]}, r"messages\[2\] has nothing but checkpoints"),
    "the only message": ({"messages": [alone("user")]}, r"messages\[0\] has nothing but checkpoints"),
    "tools that are forced": (
        {"messages": [HI], "toolConfig": {"tools": [POINT], "toolChoice": {"any": {}}}},
        "toolChoice forces a tool",
    ),
    "tools that were called": ({"messages": [HI, USE, RESULT], "toolConfig": {"tools": [POINT]}}, "has tool calls"),
}


@pytest.mark.parametrize("operation", ["converse", "converse_stream"])
@pytest.mark.parametrize("model", [CLAUDE, NOVA])
@pytest.mark.parametrize("case", SENDABLE)
def test_lone_checkpoints_are_left_out_with_a_warning(case: str, model: str, operation: str, bedrock: Bedrock) -> None:
    request, expected = SENDABLE[case]
    with pytest.warns(CachepointWarning, match="nothing but checkpoints, with nothing to cache"):
        response = getattr(bedrock.wrapped(), operation)(modelId=model, **request)
    if "stream" in response:
        list(response["stream"])
    body = bedrock.bodies[-1]
    assert {name: body[name] for name in ("messages", "system", "toolConfig") if name in body} == expected


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_sent_without_them_is_named(case: str, bedrock: Bedrock) -> None:
    request, named = REFUSED[case]
    with pytest.raises(ConfigurationError, match=named):
        bedrock.wrapped().converse(modelId=CLAUDE, **request)


@pytest.mark.parametrize("mode", ["off", "observe"])
def test_a_client_that_changes_nothing_leaves_them(mode: Any, bedrock: Bedrock) -> None:
    with pytest.raises(Exception, match="nothing available to cache"):
        bedrock.wrapped(CachePolicy(mode=mode)).converse(modelId=CLAUDE, messages=[HI], toolConfig={"tools": [POINT]})


BOTH = {"text": "Be brief.", **POINT}


@pytest.mark.parametrize("mode", ["auto", "explicit"])
@pytest.mark.parametrize(
    "request_",
    [
        {"messages": [HI], "system": [BOTH]},
        {"messages": [HI], "toolConfig": {"tools": [{**LAMP, **POINT}]}},
        {"messages": [HI, {"role": "assistant", "content": [BOTH]}, HI]},
        {"messages": [{"role": "user", "content": [BOTH]}]},
        {"messages": [HI, USE, {"role": "user", "content": [{"toolResult": {"toolUseId": "t1", "content": [BOTH]}}]}]},
    ],
)
def test_content_beside_a_checkpoint_in_one_block_is_never_left_out(
    request_: dict[str, Any], mode: Any, bedrock: Bedrock
) -> None:
    """botocore refuses a block of two members; the prompt went out without its system text or its tools."""
    with pytest.raises(ParamValidationError, match="cachePoint"):
        bedrock.wrapped(CachePolicy(mode=mode)).converse(modelId=CLAUDE, **request_)
