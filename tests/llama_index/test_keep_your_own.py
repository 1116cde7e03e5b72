"""The route that keeps LlamaIndex's own LLM: `BedrockConverse` on a wrapped client."""

from __future__ import annotations

from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatMessage, MessageRole
from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
from llama_index.core.tools import FunctionTool
from llama_index_kit import CONNECTION, LONG, MODEL, cache_point, sent

import cachepoint
from cachepoint.bedrock.client import CacheClient
from cachepoint.emulator import BedrockEmulator, ToolCall

bedrock_converse = pytest.importorskip(
    "llama_index.llms.bedrock_converse", reason="the dependency group `conformance` is not installed"
)
STATIC = ChatMessage(role=MessageRole.SYSTEM, content=LONG)


def add(a: int, b: int) -> str:
    """Add two numbers."""
    return f"{a + b}"


@pytest.fixture
def client(emulator: BedrockEmulator) -> CacheClient:
    return cachepoint.wrap(emulator.client(), clock=emulator.clock)


@pytest.fixture
def own(client: CacheClient) -> Any:
    return bedrock_converse.BedrockConverse(model=MODEL, client=client, **CONNECTION)


def chat(question: str) -> list[ChatMessage]:
    return [STATIC, ChatMessage(content=question)]


def statuses(client: CacheClient) -> list[str | None]:
    return [record.status for record in client.ledger.records]


def agrees(client: CacheClient, emulator: BedrockEmulator) -> bool:
    totals, bill = client.ledger.totals(), emulator.bill()
    return totals.cost.usd == bill.total and totals.usage == bill.usage


def test_chats_and_streams_read_one_prefix(own: Any, client: CacheClient, emulator: BedrockEmulator) -> None:
    own.chat(chat("What does it say?"))
    list(own.stream_chat(chat("And then?")))
    own.chat(chat("And at last?"))
    assert statuses(client) == ["written", "hit", "hit"]
    assert agrees(client, emulator)


def test_completions_are_calls_too(own: Any, client: CacheClient, emulator: BedrockEmulator) -> None:
    own.complete("Hello")
    list(own.stream_complete("Hello"))
    assert client.ledger.totals().calls == 2
    assert agrees(client, emulator)


def test_a_loop_of_tool_calls_reads_what_it_wrote(own: Any, client: CacheClient, emulator: BedrockEmulator) -> None:
    tools = [FunctionTool.from_defaults(add)]
    emulator.script(*[ToolCall("add", {"a": step, "b": 1}, id=f"call_{step}") for step in range(6)], "Done.")
    history = chat("Count to six.")
    for _ in range(6):
        response = own.chat_with_tools(tools, chat_history=history)
        [call] = own.get_tool_calls_from_response(response)
        answer = tools[0](**call.tool_kwargs)
        told = ChatMessage(role="tool", content=answer.content, additional_kwargs={"tool_call_id": call.tool_id})
        history += [response.message, told]
    *_, last = own.stream_chat_with_tools(tools, chat_history=history)
    assert last.message.content == "Done."
    assert client.ledger.totals().calls == 7
    assert client.ledger.totals().hit_rate > 0.8
    assert agrees(client, emulator)


async def test_an_asynchronous_call_goes_through_the_wrapped_client_in_a_thread(
    own: Any, client: CacheClient, emulator: BedrockEmulator
) -> None:
    for question in ("What does it say?", "And then?"):
        await own.achat(chat(question))
    assert statuses(client) == ["written", "hit"]
    assert agrees(client, emulator)


def test_a_point_that_the_service_would_refuse_is_mended(
    own: Any, client: CacheClient, emulator: BedrockEmulator
) -> None:
    own.chat([ChatMessage(blocks=[cache_point(), *ChatMessage(content="Hello").blocks])])
    assert "cachePoint" not in str(sent(emulator)[-1])


def test_what_happens_before_the_client_stays_as_it_is(
    own: Any, client: CacheClient, emulator: BedrockEmulator
) -> None:
    """As the docs say: volatile system text is joined to the static one, and LlamaIndex's own counting estimates."""
    counted = TokenCountingHandler(tokenizer=lambda text: [0] * (7_000_000 + len(text)))
    own.callback_manager = CallbackManager([counted])
    for minute in range(2):
        now = ChatMessage(role=MessageRole.SYSTEM, content=f"It is 14:{minute:02}.")
        own.chat([STATIC, now, ChatMessage(content="Hello")])
    first = sent(emulator)[0]["system"]
    assert [block["text"].endswith("It is 14:00.") for block in first if "text" in block] == [True]
    assert counted.prompt_llm_token_count > emulator.bill().usage.prompt
