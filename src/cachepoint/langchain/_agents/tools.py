"""Tools in an order and with schemas that do not depend on who listed them.

MCP servers list their tools in any order, and JSON objects and lists of required names come in any order too; tools
are the first thing in a prompt, so any change in them rewrites all of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.tools import BaseTool

from cachepoint.langchain._request.cache_control import carries_mark

Tool = BaseTool | dict[str, Any]

_UNORDERED = ("required",)


def in_stable_order(tools: Sequence[Tool]) -> list[Tool]:
    """The tools by name, with canonical schemas where they were given as JSON.

    Tools among which the user put a checkpoint stay in the user's order.
    """
    canonical_tools = [_canonical_tool(tool) for tool in tools]
    return canonical_tools if any(map(_is_marked, tools)) else sorted(canonical_tools, key=_name)


def canonical(schema: Any) -> Any:
    """A JSON schema with its keys, and its lists that have no order, sorted."""
    if isinstance(schema, dict):
        return {
            name: sorted(value) if name in _UNORDERED and _is_names(value) else canonical(value)
            for name, value in sorted(schema.items())
        }
    return [canonical(each) for each in schema] if isinstance(schema, list) else schema


def _canonical_tool(tool: Tool) -> Tool:
    if isinstance(tool, dict):
        return canonical(tool)  # type: ignore[no-any-return]
    # A class's fields have an order of their own; only a schema given as JSON comes in any.
    if isinstance(tool.args_schema, dict):
        return tool.model_copy(update={"args_schema": canonical(tool.args_schema)})
    return tool


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _is_marked(tool: Tool) -> bool:
    return carries_mark(tool if isinstance(tool, dict) else tool.extras or {})


def _name(tool: Tool) -> str:
    if isinstance(tool, BaseTool):
        return tool.name
    inner = next((tool[key] for key in ("function", "toolSpec") if isinstance(tool.get(key), dict)), tool)
    return str(inner.get("name") or inner.get("title") or inner.get("type") or "")
