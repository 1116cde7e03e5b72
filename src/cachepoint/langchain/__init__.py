"""Prompt caching for LangChain; needs the `langchain` extra, imported when a name here is first used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cachepoint.lazy import lazy_names

if TYPE_CHECKING:
    from cachepoint.langchain.chat import CacheAwareChatBedrockConverse
    from cachepoint.langchain.context import cached_context_prompt, context_blocks
    from cachepoint.langchain.history import clear_in_chunks, trim_in_chunks
    from cachepoint.langchain.langsmith_cost import with_exact_cost
    from cachepoint.langchain.middleware import PromptCacheMiddleware
    from cachepoint.langchain.retriever import StableOrderRetriever, StableOrderTransformer, stable_order
    from cachepoint.langchain.tracking import PromptCacheCallbackHandler, get_prompt_cache_callback

_HOMES = {
    "CacheAwareChatBedrockConverse": "cachepoint.langchain.chat",
    "PromptCacheCallbackHandler": "cachepoint.langchain.tracking",
    "PromptCacheMiddleware": "cachepoint.langchain.middleware",
    "StableOrderRetriever": "cachepoint.langchain.retriever",
    "StableOrderTransformer": "cachepoint.langchain.retriever",
    "cached_context_prompt": "cachepoint.langchain.context",
    "clear_in_chunks": "cachepoint.langchain.history",
    "context_blocks": "cachepoint.langchain.context",
    "get_prompt_cache_callback": "cachepoint.langchain.tracking",
    "stable_order": "cachepoint.langchain.retriever",
    "trim_in_chunks": "cachepoint.langchain.history",
    "with_exact_cost": "cachepoint.langchain.langsmith_cost",
}

__all__ = [
    "CacheAwareChatBedrockConverse",
    "PromptCacheCallbackHandler",
    "PromptCacheMiddleware",
    "StableOrderRetriever",
    "StableOrderTransformer",
    "cached_context_prompt",
    "clear_in_chunks",
    "context_blocks",
    "get_prompt_cache_callback",
    "stable_order",
    "trim_in_chunks",
    "with_exact_cost",
]

__getattr__, __dir__ = lazy_names(__name__, _HOMES, extra="langchain")
