"""Prompt caching on Amazon Bedrock for LlamaIndex (extra `llama-index`)."""

from __future__ import annotations

from cachepoint.errors import MissingDependencyError

try:
    import llama_index.core  # noqa: F401
except ImportError as problem:
    raise MissingDependencyError(
        "cachepoint.llama_index needs llama-index-core: pip install 'cachepoint[llama-index]'"
    ) from problem

from cachepoint.llama_index._chat.engine import CachedContextChatEngine
from cachepoint.llama_index._chat.memory import ChunkedChatMemory
from cachepoint.llama_index._cost import PromptCacheCallbackHandler, PromptCacheCallEvent, PromptCacheEventHandler
from cachepoint.llama_index._documents.stable_order import StableOrderPostprocessor
from cachepoint.llama_index._documents.synthesizer import CachedContextSynthesizer
from cachepoint.llama_index._documents.templates import cached_qa_template
from cachepoint.llama_index._llm import CacheAwareBedrockConverse

__all__ = [
    "CacheAwareBedrockConverse",
    "CachedContextChatEngine",
    "CachedContextSynthesizer",
    "ChunkedChatMemory",
    "PromptCacheCallEvent",
    "PromptCacheCallbackHandler",
    "PromptCacheEventHandler",
    "StableOrderPostprocessor",
    "cached_qa_template",
]
