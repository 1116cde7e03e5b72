"""What a model takes, by the table, in the requests the LlamaIndex class sends: tools, thinking, context windows."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import pytest
from llama_index.core.bridge.pydantic import BaseModel
from llama_index.core.tools import FunctionTool
from llama_index_kit import CONNECTION, MODEL, sent

from cachepoint.emulator import BedrockEmulator
from cachepoint.errors import CachepointWarning
from cachepoint.llama_index import CacheAwareBedrockConverse

upstream = pytest.importorskip(
    "llama_index.llms.bedrock_converse.utils", reason="the dependency group `conformance` is not installed"
)

FABLE_5_1, OPUS_4_8 = "us.anthropic.claude-fable-5-1", "us.anthropic.claude-opus-4-8"
LLAMA, LLAMA_4 = "us.meta.llama3-3-70b-instruct-v1:0", "us.meta.llama4-scout-17b-instruct-v1:0"
MISTRAL, NOVA = "mistral.mistral-large-2402-v1:0", "us.amazon.nova-pro-v1:0"
CALL_NO_TOOLS = (
    "us.deepseek.r1-v1:0",
    "amazon.titan-text-express-v1",
    "mistral.mistral-7b-instruct-v0:2",
    "meta.llama3-8b-instruct-v1:0",
    "cohere.command-text-v14",
    "anthropic.claude-v2:1",
)
# langchain-aws 1.9.1 has 1,050,000 for these, as OpenAI's model cards do.
LONGER_THAN_UPSTREAM = {"openai.gpt-6-sol", "openai.gpt-6-luna", "openai.gpt-6-astra"}
BUDGET = {"type": "enabled", "budget_tokens": 1024}


class Song(BaseModel):
    """A song."""

    title: str


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def multiply(a: int, b: int) -> int:
    """Multiply two numbers."""
    return a * b


ADD, MULTIPLY = FunctionTool.from_defaults(add), FunctionTool.from_defaults(multiply)


def on(emulator: BedrockEmulator | None, model: str, **settings: Any) -> CacheAwareBedrockConverse:
    url = {} if emulator is None else {"endpoint_url": emulator.url}
    return CacheAwareBedrockConverse(**{**CONNECTION, **url, "model": model, **settings})


@pytest.mark.parametrize("model", sorted(upstream.BEDROCK_MODELS))
def test_metadata_is_as_upstream_has_it(model: str) -> None:
    metadata = on(None, model).metadata
    window = 1_050_000 if model in LONGER_THAN_UPSTREAM else upstream.BEDROCK_MODELS[model]
    calls_tools = model in upstream.BEDROCK_FUNCTION_CALLING_MODELS
    assert (metadata.context_window, metadata.is_function_calling_model) == (window, calls_tools)


def test_a_model_nobody_knows_calls_tools_and_has_a_usual_window() -> None:
    metadata = on(None, "vendor.new-model-v1:0").metadata
    assert (metadata.context_window, metadata.is_function_calling_model) == (128_000, True)
    assert not on(None, MODEL, is_function_calling_model=False).metadata.is_function_calling_model


@pytest.mark.parametrize(
    ("model", "settings", "tools", "options", "choice"),
    [
        (MODEL, {}, [ADD], {"tool_required": True}, {"any": {}}),
        (FABLE_5_1, {}, [ADD], {"tool_required": True}, {"auto": {}}),
        (FABLE_5_1, {}, [ADD], {"tool_choice": "add"}, {"auto": {}}),
        (LLAMA, {}, [ADD], {"tool_required": True}, {"auto": {}}),
        (LLAMA_4, {}, [ADD], {"tool_required": True}, {"auto": {}}),
        (MISTRAL, {}, [ADD], {"tool_required": True}, {"any": {}}),
        # Mistral Large takes no name; with one tool any is the same, with two it is not.
        (MISTRAL, {}, [ADD], {"tool_choice": "add"}, {"any": {}}),
        (MISTRAL, {}, [ADD, MULTIPLY], {"tool_choice": "add"}, {"auto": {}}),
        (NOVA, {}, [ADD, MULTIPLY], {"tool_choice": "add"}, {"tool": {"name": "add"}}),
        (MODEL, {"thinking": BUDGET, "max_tokens": 2048}, [ADD], {"tool_required": True}, {"auto": {}}),
        (OPUS_4_8, {"thinking": {"type": "adaptive"}}, [ADD], {"tool_required": True}, {"any": {}}),
        (LLAMA, {"supports_forced_tool_calls": False}, [ADD], {"tool_required": True}, {"auto": {}}),
    ],
)
def test_a_tool_is_forced_where_the_model_takes_it(
    emulator: BedrockEmulator,
    model: str,
    settings: dict[str, Any],
    tools: Sequence[FunctionTool],
    options: dict[str, Any],
    choice: dict[str, Any],
) -> None:
    on(emulator, model, **settings).chat_with_tools(tools, user_msg="add 2 and 3", **options)
    assert sent(emulator)[0]["toolConfig"]["toolChoice"] == choice


@pytest.mark.parametrize("model", [FABLE_5_1, LLAMA, LLAMA_4, MISTRAL, NOVA, MODEL])
def test_an_object_is_asked_for_as_the_model_takes_it(emulator: BedrockEmulator, model: str) -> None:
    structured = on(emulator, model).as_structured_llm(Song)
    assert isinstance(structured.complete("Make a Song titled 'Blue'.").raw, Song)


@pytest.mark.parametrize("model", CALL_NO_TOOLS)
def test_a_model_that_calls_no_tools_is_asked_for_an_object_in_words(emulator: BedrockEmulator, model: str) -> None:
    emulator.script('{"title": "Blue"}')
    assert on(emulator, model).as_structured_llm(Song).complete("A song, please.").raw == Song(title="Blue")
    assert "toolConfig" not in sent(emulator)[0]


@pytest.mark.parametrize(
    ("model", "thinking", "why"),
    [
        (NOVA, BUDGET, "the model has no thinking"),
        ("us.anthropic.claude-3-5-sonnet-20241022-v2:0", BUDGET, "the model has no thinking"),
        (LLAMA, {"type": "adaptive"}, "the model has no thinking"),
        (MODEL, {"type": "adaptive"}, "the model has no adaptive thinking"),
    ],
)
def test_thinking_that_a_model_does_not_have_is_ignored_with_a_warning(
    model: str, thinking: dict[str, Any], why: str
) -> None:
    with pytest.warns(CachepointWarning, match=f"`thinking` is ignored, because {why}; leave it out"):
        assert on(None, model, thinking=thinking).thinking is None


def test_thinking_of_one_call_is_ignored_too(emulator: BedrockEmulator) -> None:
    llm = on(emulator, NOVA)
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        llm.complete("Why?", thinking=BUDGET)
    assert "additionalModelRequestFields" not in sent(emulator)[0]
    assert len([each for each in given if "`thinking` is ignored" in str(each.message)]) <= 1


@pytest.mark.parametrize(
    "model", sorted(set(upstream.BEDROCK_REASONING_MODELS) | {"anthropic.claude-fable-5-1", "vendor.new-model-v1:0"})
)
def test_thinking_that_a_model_has_is_asked_for(model: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert on(None, model, thinking=BUDGET).thinking == BUDGET
