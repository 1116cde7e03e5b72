"""deepagents takes the middleware the way it takes all, and adds its own caching middleware behind it."""

from __future__ import annotations

from typing import Any

import pytest
from agent_kit import look_up
from langchain_kit import MakeModel, sent

from cachepoint.emulator import BedrockEmulator, ToolCall
from cachepoint.langchain import PromptCacheMiddleware

deepagents = pytest.importorskip("deepagents", reason="deepagents is not installed: pip install deepagents")

LOOK = ToolCall("look_up", {"item": 4, "where": "shelf"})
MOST_POINTS = 4


def test_a_deep_agent_reads_its_prefix_at_every_step(make_model: MakeModel, emulator: BedrockEmulator) -> None:
    emulator.script([LOOK] * 20, [LOOK] * 20, "On the shelf.")
    model = make_model()
    agent: Any = deepagents.create_deep_agent(model, [look_up], middleware=[PromptCacheMiddleware(clear_at=50_000)])
    state = agent.invoke({"messages": [("human", "Where is the map?")]})
    assert [record.status for record in model.ledger.records] == ["written", "extended", "extended"]
    assert state["prompt_cache"]["calls"] == 3
    assert all(str(body).count("cachePoint") <= MOST_POINTS for body in sent(emulator))
    names = [tool["toolSpec"]["name"] for tool in sent(emulator)[0]["toolConfig"]["tools"] if "toolSpec" in tool]
    assert names == sorted(names)
