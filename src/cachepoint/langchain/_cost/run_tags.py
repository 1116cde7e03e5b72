"""What LangChain knows of a run, as tags of a call's record."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

SESSION = "session"
_SESSIONS = (SESSION, "session_id", "thread_id", "conversation_id")
"""The metadata keys by which LangSmith and LangGraph tell conversations apart, the plainest first."""
_INTERNAL_METADATA = ("ls_", "lc_", "checkpoint_", "__")
_INTERNAL_TAGS = ("seq:step:", "map:key:", "graph:step:", "branch:", "condition:", "langsmith:")
_NODE = "langgraph_node"
_GRAPH = "langgraph_"


def run_tags(metadata: Mapping[Any, Any] | None, tags: Iterable[Any] | None) -> dict[str, str]:
    """The user's metadata by key, and the user's tags each with the value "".

    What frameworks add for themselves is left out, but for LangGraph's node. A session or thread id
    becomes the tag `session`.
    """
    # LangChain checks neither tags nor keys, and one that is no string must not make the call fail.
    found = {tag: "" for tag in tags or () if isinstance(tag, str) and not tag.startswith(_INTERNAL_TAGS)}
    for key, value in (metadata or {}).items():
        if isinstance(key, str) and isinstance(value, str | int | float) and _is_users(key):
            with suppress(ValueError):  # a whole number of thousands of digits, which Python makes no string of
                found[key] = str(value)
    session = next((found[key] for key in _SESSIONS if found.get(key)), None)
    return found if session is None else {**found, SESSION: session}


def _is_users(key: str) -> bool:
    return key == _NODE or not key.startswith((*_INTERNAL_METADATA, _GRAPH))
