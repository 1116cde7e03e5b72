"""Tools and tool choice for Converse, and the tool calls of a response."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llama_index.core.base.llms.types import ChatResponse, ToolCallBlock
from llama_index.core.llms.llm import ToolSelection
from llama_index.core.tools.types import BaseTool

from cachepoint.bedrock.wire.cache_point import cache_point
from cachepoint.errors import ConfigurationError, InvalidToolCall
from cachepoint.llama_index._request.blocks import ConversePart, parse_arguments

_CHOICES: Mapping[str, ConversePart] = {"auto": {"auto": {}}, "any": {"any": {}}, "required": {"any": {}}}

STREAMED_CALLS = "tool_calls"
"""Key of a streamed message's `additional_kwargs`; without it LlamaIndex streams no structured output from calls."""

INVALID_CALLS = "invalid_tool_calls"
"""Key of a message's `additional_kwargs` for tool calls that are not whole, as LangChain has them on its messages."""

ToolChoice = str | dict[str, Any] | None


def tool_config(
    tools: Sequence[BaseTool], choice: ToolChoice, *, required: bool, choices: Sequence[str], mark_end: bool
) -> ConversePart | None:
    """The `toolConfig` of a request, None without tools.

    The tools stand in the caller's order, which is part of the prefix. A choice that is none of the model's `choices`
    becomes `auto`, or `any` where it names the only tool. `mark_end` puts a checkpoint behind the tools.
    """
    if not tools or choice == "none":
        return None
    specs: list[ConversePart] = [_tool_spec(tool) for tool in tools]
    if mark_end:
        specs.append(cache_point())
    wanted = _tool_choice(choice, required=required)
    if "tool" in wanted and "tool" not in choices and len(tools) == 1:
        wanted = _CHOICES["any"]
    return {"tools": specs, "toolChoice": wanted if wanted.keys() <= {*choices} else _CHOICES["auto"]}


def stand_ins(names: Sequence[str]) -> ConversePart | None:
    """A `toolConfig` for a request without tools whose history has tool calls, which Converse refuses otherwise.

    FunctionAgent sends such a request when it stops early.
    """
    anything = {"json": {"type": "object"}}
    return {"tools": [{"toolSpec": {"name": name, "inputSchema": anything}} for name in names]} if names else None


def tool_selections(response: ChatResponse) -> list[ToolSelection]:
    """The tool calls of a response; arguments still streaming in are read as far as they go."""
    return [
        ToolSelection(
            tool_id=block.tool_call_id or "",
            tool_name=block.tool_name,
            tool_kwargs=parse_arguments(block.tool_kwargs),
        )
        for block in response.message.blocks
        if isinstance(block, ToolCallBlock)
    ]


def with_whole_calls(response: ChatResponse) -> ChatResponse:
    """The response as it is; raises InvalidToolCall where one of its tool calls is not whole."""
    if invalid := response.message.additional_kwargs.get(INVALID_CALLS):
        raise InvalidToolCall("; ".join(call["error"] for call in invalid))
    return response


def first_call_only(response: ChatResponse) -> ChatResponse:
    """The response with its first tool call alone, for a caller who asked for no parallel calls."""
    message = response.message
    calls = [block for block in message.blocks if isinstance(block, ToolCallBlock)]
    if not calls or len(calls) + len(message.additional_kwargs.get(INVALID_CALLS, ())) < 2:
        return response
    kept = [block for block in message.blocks if not isinstance(block, ToolCallBlock) or block is calls[0]]
    extras = {name: value for name, value in message.additional_kwargs.items() if name != INVALID_CALLS}
    if STREAMED_CALLS in extras:
        extras[STREAMED_CALLS] = [calls[0].tool_call_id]
    first = message.model_copy(update={"blocks": kept, "additional_kwargs": extras})
    return response.model_copy(update={"message": first})


def _tool_spec(tool: BaseTool) -> ConversePart:
    name = tool.metadata.name
    if not name:
        raise ConfigurationError(f"a tool of type {type(tool).__name__} has the name {name!r}; give it one")
    spec: ConversePart = {"name": name, "inputSchema": {"json": tool.metadata.get_parameters_dict()}}
    # Converse refuses an empty description.
    return {"toolSpec": {**spec, **({"description": text} if (text := tool.metadata.description) else {})}}


def _tool_choice(choice: ToolChoice, *, required: bool) -> ConversePart:
    if not choice:
        return _CHOICES["any" if required else "auto"]
    if isinstance(choice, str):
        return _CHOICES.get(choice) or {"tool": {"name": choice}}
    function = choice.get("function")
    return {"tool": {"name": function["name"]}} if isinstance(function, Mapping) else choice
