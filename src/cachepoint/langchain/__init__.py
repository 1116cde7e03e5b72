"""Prompt caching for LangChain; needs the `langchain` extra, imported when a name here is first used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cachepoint._lazy import lazy_names

if TYPE_CHECKING:
    from cachepoint.langchain._agents.history import clear_in_chunks, trim_in_chunks
    from cachepoint.langchain._agents.middleware import PromptCacheMiddleware
    from cachepoint.langchain._chat import CacheAwareChatBedrockConverse
    from cachepoint.langchain._cost.callback import PromptCacheCallbackHandler, get_prompt_cache_callback
    from cachepoint.langchain._cost.langsmith import with_exact_cost
    from cachepoint.langchain._documents.prompt import cached_context_prompt, context_blocks
    from cachepoint.langchain._documents.retriever import StableOrderRetriever, StableOrderTransformer, stable_order

_HOMES = {
    "CacheAwareChatBedrockConverse": "cachepoint.langchain._chat",
    "PromptCacheCallbackHandler": "cachepoint.langchain._cost.callback",
    "PromptCacheMiddleware": "cachepoint.langchain._agents.middleware",
    "StableOrderRetriever": "cachepoint.langchain._documents.retriever",
    "StableOrderTransformer": "cachepoint.langchain._documents.retriever",
    "cached_context_prompt": "cachepoint.langchain._documents.prompt",
    "clear_in_chunks": "cachepoint.langchain._agents.history",
    "context_blocks": "cachepoint.langchain._documents.prompt",
    "get_prompt_cache_callback": "cachepoint.langchain._cost.callback",
    "stable_order": "cachepoint.langchain._documents.retriever",
    "trim_in_chunks": "cachepoint.langchain._agents.history",
    "with_exact_cost": "cachepoint.langchain._cost.langsmith",
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
