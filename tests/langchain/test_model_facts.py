"""Tool choices by the model table in the LangChain class: no model is forced that refuses it, and no other is not."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import pytest
from langchain_aws import ChatBedrockConverse
from langchain_kit import CONNECTION, MODEL, MakeModel, control_client, sent
from pydantic import BaseModel

from cachepoint.catalogue.table import load_rules
from cachepoint.emulator import BedrockEmulator
from cachepoint.langchain import CacheAwareChatBedrockConverse

FABLE_5_1, MYTHOS_5_1 = "us.anthropic.claude-fable-5-1", "us.anthropic.claude-mythos-5-1"
SONNET_5_5, OPUS_5_5 = "us.anthropic.claude-sonnet-5-5", "us.anthropic.claude-opus-5-5"
LLAMA_3_3, LLAMA_4 = "us.meta.llama3-3-70b-instruct-v1:0", "us.meta.llama4-scout-17b-instruct-v1:0"
MISTRAL, NOVA = "mistral.mistral-large-2402-v1:0", "us.amazon.nova-pro-v1:0"
# One of each family that the parent tells apart.
FAMILIES = (
    *(MODEL, FABLE_5_1, SONNET_5_5, LLAMA_3_3, LLAMA_4, MISTRAL, NOVA, "us.deepseek.r1-v1:0", "deepseek.v3.2"),
    *("amazon.titan-text-express-v1", "mistral.mistral-7b-instruct-v0:2", "cohere.command-r-v1:0"),
    *("meta.llama3-8b-instruct-v1:0", "openai.gpt-oss-120b-1:0", "global.openai.gpt-6-sol", "zai.glm-4.7"),
    *("global.zai.glm-5.3", "xai.grok-4.3", "qwen.qwen3-32b-v1:0"),
)


class Song(BaseModel):
    """A song."""

    title: str


def choices(cls: type[ChatBedrockConverse], model: str, **settings: Any) -> Any:
    made = cls(model=model, bedrock_client=control_client(), **CONNECTION, **settings)
    return tuple(made.supports_tool_choice_values or ())


@pytest.mark.parametrize("model", FAMILIES)
def test_the_choices_are_the_parents(model: str) -> None:
    rule = load_rules().resolve(model)
    assert rule is not None
    parents = choices(ChatBedrockConverse, model)
    # Of the newest models older parents do not know yet what they refuse.
    taken = tuple(each for each in parents if each in rule.facts.tool_choices)
    assert choices(CacheAwareChatBedrockConverse, model) == taken
    if version("langchain-aws") >= "1.9.1":
        assert taken == parents


@pytest.mark.parametrize(
    ("model", "taken"),
    [(MYTHOS_5_1, ("auto",)), ("us.anthropic.claude-fable-5-2", ("auto",)), ("anthropic.claude-v2", ())],
)
def test_models_of_which_the_parent_does_not_know_it_are_not_forced(model: str, taken: tuple[str, ...]) -> None:
    assert choices(CacheAwareChatBedrockConverse, model) == taken


@pytest.mark.parametrize("model", [MODEL, FABLE_5_1, MYTHOS_5_1, OPUS_5_5, LLAMA_4, MISTRAL, "deepseek.v3.2"])
def test_a_structured_answer_is_asked_for_as_the_model_takes_it(make_model: MakeModel, model: str) -> None:
    song = make_model(model=model).with_structured_output(Song).invoke("Make a Song titled 'Blue'.")
    assert isinstance(song, Song)


@pytest.mark.parametrize("model", [FABLE_5_1, MYTHOS_5_1, LLAMA_3_3])
def test_a_forced_tool_that_a_model_refuses_is_an_error_before_the_call(
    make_model: MakeModel, emulator: BedrockEmulator, model: str
) -> None:
    with pytest.raises(ValueError, match="does not currently support tool_choice of type any"):
        make_model(model=model).bind_tools([Song], tool_choice="any")
    assert sent(emulator) == []
