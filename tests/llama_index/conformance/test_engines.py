"""Agents, workflows, query engines and chat engines run on it."""

from __future__ import annotations

from typing import Any

import pytest
from llama_index.core import Document, MockEmbedding, VectorStoreIndex
from llama_index.core.agent.workflow import AgentStream, AgentWorkflow, FunctionAgent, ReActAgent
from llama_index.core.chat_engine.types import ChatMode
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.tools import FunctionTool
from llama_index_kit import LONG, MakeLLM, sent

from cachepoint.emulator import BedrockEmulator, ToolCall


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def agent(llm: Any, **settings: Any) -> FunctionAgent:
    return FunctionAgent(tools=[FunctionTool.from_defaults(add)], llm=llm, system_prompt="You calculate.", **settings)


def index(llm: Any) -> VectorStoreIndex:
    documents = [Document(text=f"Document {n}. {LONG[:400]}", doc_id=f"doc-{n}") for n in range(3)]
    return VectorStoreIndex.from_documents(documents, embed_model=MockEmbedding(embed_dim=8), llm=llm)


@pytest.mark.parametrize("streaming", [True, False], ids=["streaming", "whole"])
async def test_an_agent_calls_tools_and_answers(streaming: bool, make_llm: MakeLLM, emulator: BedrockEmulator) -> None:
    emulator.script(ToolCall("add", {"a": 2, "b": 3}), "It is 5.")
    result = await agent(make_llm(), streaming=streaming).run("What is 2 + 3?")
    assert str(result) == "It is 5."
    assert sent(emulator)[-1]["messages"][2]["content"][0]["toolResult"]["content"][0] == {"text": "5"}


async def test_an_agent_makes_parallel_calls(make_llm: MakeLLM, emulator: BedrockEmulator) -> None:
    emulator.script([ToolCall("add", {"a": n, "b": 1}, id=f"call_{n}") for n in range(4)], "Done.")
    result = await agent(make_llm()).run("Add one to each.")
    assert str(result) == "Done."
    results = [block for block in sent(emulator)[-1]["messages"][2]["content"] if "toolResult" in block]
    # In the order in which the tools were done.
    assert sorted(each["toolResult"]["toolUseId"] for each in results) == [f"call_{n}" for n in range(4)]


async def test_an_agents_text_streams(make_llm: MakeLLM, emulator: BedrockEmulator) -> None:
    emulator.script("one two three four five six seven eight nine ten")
    running = agent(make_llm()).run("Count.")
    deltas = [event.delta async for event in running.stream_events() if isinstance(event, AgentStream)]
    await running
    assert "".join(deltas) == "one two three four five six seven eight nine ten"


async def test_agents_hand_over_to_each_other(make_llm: MakeLLM, emulator: BedrockEmulator) -> None:
    llm = make_llm()
    writer = FunctionAgent(name="writer", description="Writes.", llm=llm, tools=[], system_prompt="You write.")
    reckoner = agent(llm, name="reckoner", description="Calculates.")
    emulator.script(
        ToolCall("handoff", {"to_agent": "reckoner", "reason": "A sum."}), ToolCall("add", {"a": 2, "b": 3}), "It is 5."
    )
    workflow = AgentWorkflow(agents=[writer, reckoner], root_agent="writer")
    assert str(await workflow.run("What is 2 + 3?")) == "It is 5."
    assert [request["system"][0]["text"] for request in sent(emulator)] == ["You write.", *["You calculate."] * 2]


@pytest.mark.parametrize("streaming", [True, False], ids=["streaming", "whole"])
async def test_a_react_agent_calls_tools_and_answers(
    streaming: bool, make_llm: MakeLLM, emulator: BedrockEmulator
) -> None:
    emulator.script(
        'Thought: I should add.\nAction: add\nAction Input: {"a": 2, "b": 3}',
        "Thought: I can answer.\nAnswer: It is 5.",
    )
    reasoner = ReActAgent(tools=[FunctionTool.from_defaults(add)], llm=make_llm(), streaming=streaming)
    assert str(await reasoner.run("What is 2 + 3?")) == "It is 5."
    assert sent(emulator)[-1]["messages"][-1]["content"][0]["text"] == "Observation: 5"


async def test_an_agents_output_has_the_usage(make_llm: MakeLLM, emulator: BedrockEmulator) -> None:
    emulator.script("Nothing to add.")
    result: Any = await agent(make_llm()).run("Hello")
    assert result.raw["usage"]["prompt_tokens"] == emulator.bill().usage.prompt


async def test_an_agent_that_stops_early_says_so(make_llm: MakeLLM, emulator: BedrockEmulator) -> None:
    # The conversation so far has tool calls, and the closing request comes without tools.
    memory = ChatMemoryBuffer.from_defaults(token_limit=100_000)
    emulator.script(ToolCall("add", {"a": 2, "b": 3}), "It is 5.")
    calculating = agent(make_llm(), early_stopping_method="generate")
    await calculating.run("What is 2 + 3?", memory=memory)
    emulator.script(ToolCall("add", {"a": 1, "b": 1}), "I stopped.")
    result = await calculating.run("And again?", memory=memory, max_iterations=1)
    assert str(result) == "I stopped."


@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "streaming"])
def test_a_query_engine_answers(streaming: bool, make_llm: MakeLLM, emulator: BedrockEmulator) -> None:
    llm = make_llm()
    emulator.script("It is in document 1.")
    assert str(index(llm).as_query_engine(llm=llm, streaming=streaming).query("Where?")) == "It is in document 1."


async def test_a_query_engine_answers_asynchronously(make_llm: MakeLLM, emulator: BedrockEmulator) -> None:
    llm = make_llm()
    emulator.script("It is in document 1.")
    assert str(await index(llm).as_query_engine(llm=llm).aquery("Where?")) == "It is in document 1."


@pytest.mark.parametrize(
    "mode", [ChatMode.CONTEXT, ChatMode.CONDENSE_PLUS_CONTEXT, ChatMode.CONDENSE_QUESTION, ChatMode.SIMPLE]
)
def test_a_chat_engine_answers(mode: ChatMode, make_llm: MakeLLM, emulator: BedrockEmulator) -> None:
    llm = make_llm()
    engine = index(llm).as_chat_engine(chat_mode=mode, llm=llm)
    emulator.script("Hello.")
    assert str(engine.chat("Hello")) == "Hello."
    assert "".join(engine.stream_chat("And now?").response_gen)
