"""Converse's checkpoint, a block of its own behind what it closes: the one place that makes it and knows it again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cachepoint.core.provider.rules import TTL

CACHE_POINT = "cachePoint"


def cache_point(ttl: TTL | None = None) -> dict[str, Any]:
    """The checkpoint with this lifetime; without one, the service's own, which is 5m."""
    return {CACHE_POINT: {"type": "default", "ttl": ttl} if ttl else {"type": "default"}}


def cache_point_for(control: Any) -> dict[str, Any]:
    """The checkpoint that a `cache_control` asks for.

    A TTL is passed on only where the user gave one, so that the policy may choose otherwise; one that does not exist
    is the user's mistake, which is raised where the request is read.
    """
    return cache_point(control.get("ttl") if isinstance(control, Mapping) else None)


def is_cache_point(block: Any) -> bool:
    """Whether a block is a checkpoint and nothing else: one with content beside it is the service's to refuse."""
    # Botocore takes no other mapping, and asking for a dict is six times as fast: every call asks of all its blocks.
    return isinstance(block, dict) and CACHE_POINT in block and len(block) == 1
