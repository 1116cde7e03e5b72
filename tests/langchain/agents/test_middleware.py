"""`PromptCacheMiddleware` in `create_agent`: what it sends, what it tells, and who it gets along with."""

from __future__ import annotations

import itertools
import json
from decimal import Decimal
from typing import Any

import pytest
from agent_kit import Agent, look_up, remember
from langchain.agents import create_agent
from langchain.agents.middleware import TodoListMiddleware, dynamic_prompt
from langchain.agents.middleware.types import ModelRequest
from langchain_aws import ChatBedrockConverse
from langchain_aws.middleware import BedrockPromptCachingMiddleware
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_core.tools import BaseTool, StructuredTool
from langchain_kit import CONNECTION, LONG, MODEL, POINT, MakeModel, control_client, sent
from langgraph.checkpoint.memory import InMemorySaver
from pydantic import BaseModel

from cachepoint.core.planning.policy import CachePolicy
from cachepoint.emulator import BedrockEmulator, ToolCall
from cachepoint.errors import ConfigurationError
from cachepoint.langchain import PromptCacheMiddleware
from cachepoint.langchain._agents.middleware import SUMMARISE

Json = dict[str, Any]
ASKED: Any = {"messages": [HumanMessage("Where is the map?")]}
LOOK = ToolCall("look_up", {"item": 4, "where": "shelf"})


def without_points(blocks: list[Json]) -> list[Json]:
    return [block for block in blocks if "cachePoint" not in block]


def mcp_tool(schema: Json) -> BaseTool:
    """A tool as MCP adapters make it: with the JSON schema that the server sent."""
    return StructuredTool(name="find", description="Find it.", args_schema=schema, func=lambda **_: "found")


class TestTools:
    def sent_tools(self, make_model: MakeModel, emulator: BedrockEmulator, tools: list[Any]) -> str:
        create_agent(make_model(), tools, middleware=[PromptCacheMiddleware()]).invoke(ASKED)
        return json.dumps(without_points(sent(emulator)[-1]["toolConfig"]["tools"]))

    def test_any_order_of_the_tools_is_sent_the_same(self, make_model: MakeModel, emulator: BedrockEmulator) -> None:
        tools = [look_up, remember, mcp_tool({"type": "object", "properties": {}})]
        assert len({self.sent_tools(make_model, emulator, list(order)) for order in itertools.permutations(tools)}) == 1

    def test_a_schema_is_sent_the_same_in_any_order_of_its_keys(
        self, make_model: MakeModel, emulator: BedrockEmulator
    ) -> None:
        item, where = {"type": "integer", "title": "Item"}, {"title": "Where", "type": "string"}
        one = {"type": "object", "properties": {"item": item, "where": where}, "required": ["item", "where"]}
        other = {"required": ["where", "item"], "properties": {"where": where, "item": item}, "type": "object"}
        assert len({self.sent_tools(make_model, emulator, [mcp_tool(schema)]) for schema in (one, other)}) == 1

    def test_a_users_checkpoint_keeps_the_users_order(self, make_model: MakeModel, emulator: BedrockEmulator) -> None:
        marked = remember.model_copy(update={"extras": {"cache_control": {"type": "ephemeral"}}})
        names = json.loads(self.sent_tools(make_model, emulator, [marked, look_up]))
        assert [tool["toolSpec"]["name"] for tool in names] == ["remember", "look_up"]

    def test_the_tools_still_run(self, make_model: MakeModel, emulator: BedrockEmulator) -> None:
        emulator.script(ToolCall("find", {}), "It is there.")
        found = mcp_tool({"type": "object", "properties": {}})
        agent = create_agent(make_model(), [remember, found], middleware=[PromptCacheMiddleware()])
        assert [message.text for message in agent.invoke(ASKED)["messages"]][2:] == ["found", "It is there."]


class TestSystemPrompt:
    def test_blocks_that_change_go_behind_those_that_do_not(
        self, make_model: MakeModel, emulator: BedrockEmulator
    ) -> None:
        times = iter(["10:15:00", "10:16:30"])

        @dynamic_prompt
        def prompt(_: ModelRequest[Any]) -> SystemMessage:
            return SystemMessage(
                [{"type": "text", "text": f"The time is {next(times)}."}, {"type": "text", "text": LONG}]
            )

        model = make_model()
        middleware: list[Any] = [prompt, PromptCacheMiddleware()]
        agent = create_agent(model, [], middleware=middleware)
        for _ in range(2):
            agent.invoke(ASKED)
        first, second = (body["system"] for body in sent(emulator))
        assert without_points(first)[0]["text"].strip() == LONG.strip()
        assert without_points(first)[1] == {"text": "The time is 10:15:00."}
        assert [record.status for record in model.ledger.records] == ["written", "hit"]
        assert first[:2] == second[:2] == [{"text": LONG}, POINT]

    def test_what_changes_from_call_to_call_is_sent_last(
        self, make_model: MakeModel, emulator: BedrockEmulator
    ) -> None:
        times = iter(range(100))
        emulator.script(LOOK, LOOK, "On the shelf.")
        middleware = PromptCacheMiddleware(volatile=lambda _: f"It is {next(times)} seconds past noon.")
        model = make_model()
        state = create_agent(model, [look_up], system_prompt=LONG, middleware=[middleware]).invoke(ASKED)
        assert [without_points(body["messages"][-1]["content"])[-1] for body in sent(emulator)] == [
            {"text": f"It is {second} seconds past noon."} for second in range(3)
        ]
        assert "past noon" not in str(state["messages"])
        _, second, third = model.ledger.records
        assert second.usage
        assert third.usage
        assert third.usage.cache_read > second.usage.cache_read

    @pytest.mark.parametrize("nothing", ["", []])
    def test_it_stands_behind_a_tool_that_found_nothing(
        self, make_model: MakeModel, emulator: BedrockEmulator, nothing: Any
    ) -> None:
        find = StructuredTool(name="look_up", description="Find it.", args_schema={}, func=lambda **_: nothing)
        emulator.script(ToolCall("look_up", {}), "Nowhere.")
        middleware = PromptCacheMiddleware(volatile=lambda _: "It is noon.")
        state = create_agent(make_model(), [find], middleware=[middleware]).invoke(ASKED)
        assert state["messages"][-1].text == "Nowhere."


def test_a_model_that_calls_a_tool_when_asked_to_sum_up_loses_no_history(
    make_model: MakeModel, emulator: BedrockEmulator
) -> None:
    emulator.script(LOOK, LOOK, LOOK, LOOK, "On the shelf.")  # the last look answers the request for a summary
    middleware = PromptCacheMiddleware(summarise_at=200, count=lambda _: 30)
    create_agent(make_model(), [look_up], middleware=[middleware]).invoke(ASKED)
    asked, after = (body["messages"] for body in sent(emulator)[3:])
    assert SUMMARISE in str(asked)
    assert "Summary of the conversation" not in str(after)
    assert [message["role"] for message in after] == ["user", *["assistant", "user"] * 3]


class TestCost:
    def test_a_runs_state_says_what_it_cost_as_the_bill_does(self) -> None:
        run = Agent([3, 5, 2], [PromptCacheMiddleware(summarise_at=1500)]).run()
        spent = run.state["prompt_cache"]
        assert spent["calls"] == len(run.calls)
        assert spent["usage"] == run.usage.to_dict()
        assert Decimal(spent["cost"]["usd"]) == run.billed
        assert json.loads(json.dumps(spent)) == spent

    def test_each_run_of_a_thread_counts_from_nothing(self, make_model: MakeModel) -> None:
        agent = create_agent(make_model(), [], middleware=[PromptCacheMiddleware()], checkpointer=InMemorySaver())
        for _ in range(2):
            state = agent.invoke(ASKED, {"configurable": {"thread_id": "a"}})
            assert state["prompt_cache"]["calls"] == 1

    def test_a_model_that_tells_no_cost_is_priced_by_its_usage(self, emulator: BedrockEmulator) -> None:
        model = ChatBedrockConverse(model=MODEL, base_url=emulator.url, bedrock_client=control_client(), **CONNECTION)
        middleware: list[Any] = [PromptCacheMiddleware(), BedrockPromptCachingMiddleware()]
        state = create_agent(model, [], system_prompt=LONG, middleware=middleware).invoke(ASKED)
        assert state["prompt_cache"]["usage"]["cache_write_5m"] > 1000
        assert Decimal(state["prompt_cache"]["cost"]["usd"]) == emulator.bill().total


async def test_an_asynchronous_run_sends_and_costs_the_same(make_model: MakeModel, emulator: BedrockEmulator) -> None:
    states = []
    for asynchronous in (False, True):
        emulator.script([LOOK, LOOK], LOOK, "On the shelf.")
        middleware = PromptCacheMiddleware(clear_at=200, summarise_at=2000, volatile=lambda _: "It is noon.")
        agent: Any = create_agent(make_model(), [look_up], system_prompt=LONG, middleware=[middleware])
        states.append(await agent.ainvoke(ASKED) if asynchronous else agent.invoke(ASKED))
        emulator.evict()
    first, second = sent(emulator)[:3], sent(emulator)[3:]
    assert first == second
    assert states[0]["prompt_cache"] == states[1]["prompt_cache"]


@pytest.mark.parametrize("ours_first", [True, False])
def test_beside_langchain_awss_own_middleware_no_point_is_doubled(
    make_model: MakeModel, emulator: BedrockEmulator, *, ours_first: bool
) -> None:
    def points(*more: Any) -> list[str]:
        emulator.script([LOOK] * 3, "On the shelf.")
        before = len(emulator.requests)
        middleware = [PromptCacheMiddleware(), TodoListMiddleware(), *more]
        agent = create_agent(
            make_model(prompt_cache=CachePolicy(ttl="5m")),
            [look_up],
            system_prompt=LONG,
            middleware=middleware if ours_first else middleware[::-1],
        )
        agent.invoke(ASKED)
        emulator.evict()
        return [json.dumps(body) for body in sent(emulator)[before:]]

    assert points(BedrockPromptCachingMiddleware()) == points()


def test_structured_answers_still_come(make_model: MakeModel) -> None:
    class Place(BaseModel):
        shelf: int

    middleware = PromptCacheMiddleware(summarise_at=1)
    agent = create_agent(make_model(), [look_up], middleware=[middleware], response_format=Place)
    assert isinstance(agent.invoke(ASKED)["structured_response"], Place)


@pytest.mark.parametrize("wrong", [{"clear_at": 0}, {"trim_at": -1}, {"summarise_at": 0}, {"keep": 1.0}])
def test_a_wrong_setting_is_named(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        PromptCacheMiddleware(**wrong)
