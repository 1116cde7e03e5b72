"""The eight methods answer, stream, and send the system prompt; an LLM is an object like any other."""

from __future__ import annotations

import pickle

import pytest
from llama_index.core.base.llms.types import ChatMessage, MessageRole
from llama_index.core.prompts import PromptTemplate
from llama_index_kit import CHAT_METHODS, METHODS, MODEL, MakeLLM, answer, ask, sent, text_of

from cachepoint.emulator import BedrockEmulator

STREAMS = [method for method in METHODS if "stream" in method]


@pytest.mark.parametrize("method", METHODS)
async def test_each_method_gives_the_models_answer(method: str, make_llm: MakeLLM, emulator: BedrockEmulator) -> None:
    emulator.script("Paris is the capital of France.")
    assert text_of(await answer(make_llm(), method, "What is the capital?")) == "Paris is the capital of France."


@pytest.mark.parametrize("method", STREAMS)
async def test_a_streams_deltas_join_to_its_whole_text(
    method: str, make_llm: MakeLLM, emulator: BedrockEmulator
) -> None:
    emulator.script("one two three four five six seven eight nine ten eleven twelve")
    chunks = await ask(make_llm(), method, "Count.")
    assert len(chunks) > 2
    assert "".join(chunk.delta or "" for chunk in chunks) == text_of(chunks[-1])


@pytest.mark.parametrize("method", METHODS)
async def test_the_system_prompt_reaches_the_model(method: str, make_llm: MakeLLM, emulator: BedrockEmulator) -> None:
    await answer(make_llm(system_prompt="Answer in French."), method, "Hello")
    assert sent(emulator)[-1]["system"][0] == {"text": "Answer in French."}


async def test_every_path_to_the_model_has_the_same_prefix(make_llm: MakeLLM, emulator: BedrockEmulator) -> None:
    llm = make_llm(system_prompt="Answer in French.")
    prompt = PromptTemplate("Translate {word}.")
    llm.predict(prompt, word="cheese")
    await llm.apredict(prompt, word="cheese")
    "".join(llm.stream(prompt, word="cheese"))
    llm.chat([ChatMessage(content="Translate cheese.")])
    await llm.acomplete("Translate cheese.")
    requests = sent(emulator)
    assert [request["system"] for request in requests] == [requests[0]["system"]] * 5
    assert [request["messages"] for request in requests] == [requests[0]["messages"]] * 5


def test_a_system_prompt_given_as_a_message_is_sent_once(make_llm: MakeLLM, emulator: BedrockEmulator) -> None:
    llm = make_llm(system_prompt="Answer in French.")
    llm.chat([ChatMessage(role=MessageRole.SYSTEM, content="Answer in French."), ChatMessage(content="Hello")])
    texts = [block["text"] for block in sent(emulator)[-1]["system"] if "text" in block]
    assert texts == ["Answer in French."]


@pytest.mark.parametrize("method", CHAT_METHODS)
async def test_options_of_one_call_are_sent_with_it(method: str, make_llm: MakeLLM, emulator: BedrockEmulator) -> None:
    await answer(make_llm(max_tokens=300), method, "Hello", max_tokens=77)
    assert sent(emulator)[-1]["inferenceConfig"]["maxTokens"] == 77


def test_a_model_nobody_has_heard_of_is_served(make_llm: MakeLLM) -> None:
    llm = make_llm(model="us.acme.brand-new-model-v9:0")
    assert llm.metadata.context_window > 0
    assert llm.metadata.model_name == "us.acme.brand-new-model-v9:0"


def test_no_region_is_needed_until_the_first_call(make_llm: MakeLLM) -> None:
    assert make_llm(region_name=None, endpoint_url=None).metadata.is_chat_model


def test_it_pickles(make_llm: MakeLLM, emulator: BedrockEmulator) -> None:
    llm = pickle.loads(pickle.dumps(make_llm(system_prompt="Answer in French.")))
    emulator.script("Bonjour")
    assert text_of(llm.complete("Hello")) == "Bonjour"
    assert sent(emulator)[-1]["system"][0] == {"text": "Answer in French."}


def test_pickling_leaves_it_as_it_was(make_llm: MakeLLM) -> None:
    llm = make_llm()
    llm.complete("Hello")
    pickle.dumps(llm)
    assert text_of(llm.complete("Hello"))


def test_json_brings_back_where_it_calls_and_keeps_no_secret(make_llm: MakeLLM, emulator: BedrockEmulator) -> None:
    llm = make_llm(temperature=0.7, aws_secret_access_key="top-secret")
    written = llm.to_json()
    assert "top-secret" not in written
    loaded = type(llm).from_json(written)
    assert loaded.model == MODEL  # type: ignore[attr-defined]
    assert loaded.temperature == 0.7  # type: ignore[attr-defined]
    assert loaded.endpoint_url == emulator.url  # type: ignore[attr-defined]


@pytest.mark.parametrize("method", CHAT_METHODS)
async def test_the_callers_messages_are_left_alone(method: str, make_llm: MakeLLM) -> None:
    messages = [
        ChatMessage(role=MessageRole.SYSTEM, content="Be brief."),
        ChatMessage(content="Hello"),
        ChatMessage(role=MessageRole.ASSISTANT, content="Hello. What can I do?"),
        ChatMessage(content="Nothing."),
    ]
    before = [message.model_dump() for message in messages]
    await answer(make_llm(), method, messages)
    assert [message.model_dump() for message in messages] == before
