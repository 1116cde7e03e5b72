"""Where learned traffic lives: in memory by default."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cachepoint._lazy import lazy_names

if TYPE_CHECKING:
    from cachepoint.store._base import Store
    from cachepoint.store._memory import MemoryStore

_HOMES = {"MemoryStore": "cachepoint.store._memory", "Store": "cachepoint.store._base"}

__all__ = ["MemoryStore", "Store"]

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
