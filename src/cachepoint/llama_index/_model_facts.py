"""What LlamaIndex wants to know about a model before it calls it, by patterns over the model id.

Facts about models age, so each can be overridden by a field of the LLM, and an unknown id is a model like any other.
Source: the model tables of llama-index-llms-bedrock-converse 0.15.5, checked 2026-11-22.
"""

from __future__ import annotations

import re

DEFAULT_CONTEXT_WINDOW = 128_000
"""Tokens assumed for a model no pattern knows."""

_MILLION = 1_000_000
_CONTEXT_WINDOWS: tuple[tuple[re.Pattern[str], int], ...] = tuple(
    (re.compile(pattern), tokens)
    for pattern, tokens in (
        (r"claude-(fable|mythos|opus-4-[6-9]|opus-[5-9]|sonnet-4-[6-9]|sonnet-[5-9]|haiku-[5-9])", _MILLION),
        (r"anthropic\.claude", 200_000),
        (r"nova-(premier|2)", _MILLION),
        (r"nova-micro", 128_000),
        (r"amazon\.nova", 300_000),
        (r"llama4-maverick", _MILLION),
        (r"llama4-scout", 3_500_000),
        (r"llama3-[78]0?b", 8_192),
    )
)
_NO_TEMPERATURE = re.compile(r"claude-(fable|mythos|opus-4-[78]|opus-[5-9]|sonnet-[5-9]|haiku-[5-9])|openai\.gpt-6")
_NO_FORCED_TOOL = re.compile(r"claude-(opus|sonnet)-5-5")


def context_window(model_id: str) -> int:
    """Tokens of prompt and answer together."""
    return next((tokens for known, tokens in _CONTEXT_WINDOWS if known.search(model_id)), DEFAULT_CONTEXT_WINDOW)


def takes_temperature(model_id: str) -> bool:
    """Whether the service accepts `temperature` for this model."""
    return _NO_TEMPERATURE.search(model_id) is None


def takes_forced_tool(model_id: str) -> bool:
    """Whether the service accepts a tool choice other than `auto` for this model."""
    return _NO_FORCED_TOOL.search(model_id) is None
