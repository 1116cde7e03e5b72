"""LangChain's own ChatBedrock, which uses InvokeModel, with a wrapped client in place of its own."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_aws import ChatBedrock
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_kit import EPHEMERAL, LONG, MODEL, question, sent

import cachepoint
from cachepoint.bedrock.client import CacheClient
from cachepoint.emulator import BedrockEmulator, ToolCall


@tool
def search(query: str) -> str:
    """Look something up."""
    return f"about {query}"


@pytest.fixture
def client(emulator: BedrockEmulator) -> CacheClient:
    return cachepoint.wrap(emulator.client(), clock=emulator.clock)


@pytest.fixture
def model(client: CacheClient) -> ChatBedrock:
    return ChatBedrock(model=MODEL, client=client, region="us-east-1")


def statuses(client: CacheClient) -> list[str | None]:
    return [record.status for record in client.ledger.records]


def details(message: BaseMessage) -> dict[str, Any]:
    assert isinstance(message, AIMessage)
    assert message.usage_metadata is not None
    return dict(message.usage_metadata["input_token_details"])


def test_a_long_system_prompt_is_cached_without_a_mark(model: ChatBedrock, client: CacheClient) -> None:
    first, second = model.invoke(question()), model.invoke(question("And what not?"))
    assert statuses(client) == ["written", "hit"]
    assert details(first)["cache_creation"] == details(second)["cache_read"] > 1_000
    assert first.text


def test_a_stream_is_cached_and_accounted_once(model: ChatBedrock, client: CacheClient) -> None:
    whole = AIMessageChunk(content="")
    for chunk in model.stream(question()):
        whole += chunk
    list(model.stream(question("And what not?")))
    assert statuses(client) == ["written", "hit"]
    written = client.ledger.records[0].usage
    assert written is not None
    assert details(whole)["cache_creation"] == written.cache_write


async def test_the_async_methods_go_the_same_way(model: ChatBedrock, client: CacheClient) -> None:
    await model.ainvoke(question())
    assert [chunk async for chunk in model.astream(question("And what not?"))]
    assert statuses(client) == ["written", "hit"]


def test_a_mark_on_a_content_block_is_honoured(
    model: ChatBedrock, client: CacheClient, emulator: BedrockEmulator
) -> None:
    document = {"type": "text", "text": LONG, "cache_control": EPHEMERAL}
    for words in ("What does it say?", "And what not?"):
        model.invoke([HumanMessage([document, {"type": "text", "text": words}])])
    assert statuses(client) == ["written", "hit"]
    assert sent(emulator)[-1]["messages"][0]["content"][0]["cache_control"] == EPHEMERAL


def test_the_ttl_of_a_mark_which_langchain_drops_can_be_the_policys(emulator: BedrockEmulator) -> None:
    client = cachepoint.wrap(emulator.client(), cachepoint.CachePolicy(ttl="1h"), clock=emulator.clock)
    document = {"type": "text", "text": LONG, "cache_control": {"type": "ephemeral", "ttl": "1h"}}
    ChatBedrock(model=MODEL, client=client, region="us-east-1").invoke([HumanMessage([document])])
    assert client.ledger.totals().usage.cache_write_1h > 1_000


def test_the_cache_control_argument_still_works(model: ChatBedrock, client: CacheClient) -> None:
    model.invoke(question(), cache_control={"type": "ephemeral", "ttl": "1h"})
    (record,) = client.ledger.records
    assert record.usage is not None
    assert record.usage.cache_write_1h > 1_000


def test_an_agent_reads_what_it_wrote_the_turn_before(
    model: ChatBedrock, client: CacheClient, emulator: BedrockEmulator
) -> None:
    emulator.script(*(ToolCall("search", {"query": f"topic {number}"}) for number in range(3)))
    with_tools = model.bind_tools([search])
    messages: list[BaseMessage] = [SystemMessage(LONG), HumanMessage("Look it up.")]
    for _ in range(4):
        answer = with_tools.invoke(messages)
        assert isinstance(answer, AIMessage)
        messages.append(answer)
        messages += [ToolMessage(search.invoke(call["args"]), tool_call_id=call["id"]) for call in answer.tool_calls]
    assert statuses(client)[0] == "written"
    assert set(statuses(client)[1:]) <= {"hit", "extended"}
    assert not answer.tool_calls


def test_structured_output_is_cached_too(model: ChatBedrock, client: CacheClient) -> None:
    schema = {
        "title": "Answer",
        "description": "An answer.",
        "type": "object",
        "properties": {"words": {"type": "string"}},
        "required": ["words"],
    }
    structured = model.with_structured_output(schema)
    first, second = structured.invoke(question()), structured.invoke(question("And what not?"))
    assert isinstance(first, dict)
    assert isinstance(second, dict)
    assert {*first, *second} == {"words"}
    assert statuses(client) == ["written", "hit"]


def test_the_ledger_is_the_bill(model: ChatBedrock, client: CacheClient, emulator: BedrockEmulator) -> None:
    model.batch([question(f"Question {number}?") for number in range(6)])
    list(model.stream(question()))
    assert client.ledger.totals().cost.usd == emulator.bill().total
