"""Prompt caching on Amazon Bedrock that works by itself.

The names here are imported when first used, so that `import cachepoint` costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cachepoint.lazy import lazy_names

if TYPE_CHECKING:
    from cachepoint.bedrock.client import wrap, wrap_async
    from cachepoint.bedrock.context import tags
    from cachepoint.bedrock.fan_out import fan_out
    from cachepoint.core.ledger import CacheLedger
    from cachepoint.core.policy import CachePolicy
    from cachepoint.core.record import CallRecord
    from cachepoint.core.usage import Usage
    from cachepoint.errors import CachepointError
    from cachepoint.store.memory import MemoryStore

__version__ = "0.1.0"

_HOMES = {
    "CacheLedger": "cachepoint.core.ledger",
    "CachePolicy": "cachepoint.core.policy",
    "CachepointError": "cachepoint.errors",
    "CallRecord": "cachepoint.core.record",
    "MemoryStore": "cachepoint.store.memory",
    "Usage": "cachepoint.core.usage",
    "fan_out": "cachepoint.bedrock.fan_out",
    "tags": "cachepoint.bedrock.context",
    "wrap": "cachepoint.bedrock.client",
    "wrap_async": "cachepoint.bedrock.client",
}

__all__ = [
    "CacheLedger",
    "CachePolicy",
    "CachepointError",
    "CallRecord",
    "MemoryStore",
    "Usage",
    "fan_out",
    "tags",
    "wrap",
    "wrap_async",
]


__getattr__, __dir__ = lazy_names(__name__, _HOMES)
