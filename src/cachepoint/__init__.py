"""Prompt caching on Amazon Bedrock that works by itself.

The names here are imported when first used, so that `import cachepoint` costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cachepoint._lazy import lazy_names

if TYPE_CHECKING:
    from cachepoint.bedrock.client import wrap, wrap_async
    from cachepoint.bedrock.expectations import expect
    from cachepoint.bedrock.fan_out import fan_out
    from cachepoint.bedrock.keep_alive import keep_alive
    from cachepoint.bedrock.tags import tags
    from cachepoint.core.accounts.ledger import CacheLedger
    from cachepoint.core.accounts.record import CallRecord
    from cachepoint.core.planning.policy import CachePolicy
    from cachepoint.core.provider.usage import Usage
    from cachepoint.errors import CachepointError
    from cachepoint.store._memory import MemoryStore

__version__ = "0.1.0"

_HOMES = {
    "CacheLedger": "cachepoint.core.accounts.ledger",
    "CachePolicy": "cachepoint.core.planning.policy",
    "CachepointError": "cachepoint.errors",
    "CallRecord": "cachepoint.core.accounts.record",
    "MemoryStore": "cachepoint.store._memory",
    "Usage": "cachepoint.core.provider.usage",
    "expect": "cachepoint.bedrock.expectations",
    "fan_out": "cachepoint.bedrock.fan_out",
    "keep_alive": "cachepoint.bedrock.keep_alive",
    "tags": "cachepoint.bedrock.tags",
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
    "expect",
    "fan_out",
    "keep_alive",
    "tags",
    "wrap",
    "wrap_async",
]


__getattr__, __dir__ = lazy_names(__name__, _HOMES)
