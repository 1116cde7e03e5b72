"""Why tokens that could have been read were not: each reason as it comes about."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from converse_kit import (
    DOCUMENT,
    SONNET,
    SONNET_46,
    SYSTEM,
    Bedrock,
    Json,
    assistant,
    point,
    question,
    text,
    tool,
    tool_result,
    tool_use,
    user,
)

from cachepoint import CachePolicy, MemoryStore
from cachepoint.emulator import slow

TOOLS: Json = {"tools": [tool("search", "Searches."), tool("fetch", "Fetches.")]}
EXPLICIT = CachePolicy(mode="explicit")


def miss(client: Any, request: Json) -> Json | None:
    """The miss of one call."""
    told: Json | None = client.converse(**request)["promptCache"]["miss"]
    return told


def reason(client: Any, request: Json) -> str | None:
    found = miss(client, request)
    return found["reason"] if found else None


def test_a_first_call_misses_nothing(bedrock: Bedrock) -> None:
    assert miss(bedrock.wrapped(), question()) is None


def test_a_hit_misses_nothing(bedrock: Bedrock) -> None:
    client = bedrock.wrapped()
    assert [miss(client, question(number)) for number in range(3)] == [None, None, None]


def test_a_miss_says_what_it_lost_and_what_to_do(bedrock: Bedrock) -> None:
    client = bedrock.wrapped()
    client.converse(**question(1))
    written = client.ledger.totals().usage.cache_write
    bedrock.clock.advance(400)
    found = miss(client, question(2))
    assert found is not None
    assert (found["reason"], found["path"]) == ("expired", "system[0]")
    assert found["lost_tokens"] == pytest.approx(written, rel=0.02)
    assert float(found["lost_usd"]) == pytest.approx(found["lost_tokens"] * 3.3e-6 * 0.9)
    assert "1h" in found["hint"]


def test_expired(bedrock: Bedrock) -> None:
    client = bedrock.wrapped()
    client.converse(**question(1))
    bedrock.clock.advance(301)
    assert reason(client, question(2)) == "expired"


def test_a_1h_entry_has_not_expired_after_five_minutes(bedrock: Bedrock) -> None:
    client = bedrock.wrapped(CachePolicy(ttl="1h"))
    client.converse(**question(1))
    bedrock.clock.advance(1800)
    assert miss(client, question(2)) is None
    bedrock.clock.advance(3601)
    assert reason(client, question(3)) == "expired"


def test_evicted_or_rerouted(bedrock: Bedrock) -> None:
    client = bedrock.wrapped()
    client.converse(**question(1))
    bedrock.emulator.evict()
    found = miss(client, question(2))
    assert found is not None
    assert (found["reason"], found["path"]) == ("evicted_or_rerouted", "system[0]")
    assert "did not change" in found["hint"]


def test_system_changed(bedrock: Bedrock) -> None:
    client = bedrock.wrapped()
    client.converse(**question(1))
    changed = {**question(2), "system": [text(SYSTEM + " It is Tuesday.")]}
    found = miss(client, changed)
    assert found is not None
    assert (found["reason"], found["path"]) == ("system_changed", "system[0]")


@pytest.mark.parametrize(
    "tools",
    [
        {"tools": [tool("search", "Searches well."), tool("fetch", "Fetches.")]},
        {"tools": list(reversed(TOOLS["tools"]))},
    ],
    ids=["edited", "in another order"],
)
def test_tools_changed(bedrock: Bedrock, tools: Json) -> None:
    client = bedrock.wrapped()
    client.converse(**question(1), toolConfig=TOOLS)
    found = miss(client, {**question(2), "toolConfig": tools})
    assert found is not None
    assert (found["reason"], found["path"]) == ("tools_changed", "tools[0]")


def test_another_order_of_json_keys_is_another_tool(bedrock: Bedrock) -> None:
    spec = TOOLS["tools"][0]["toolSpec"]
    reordered = {"toolSpec": {**spec, "inputSchema": {"json": dict(reversed(spec["inputSchema"]["json"].items()))}}}
    client = bedrock.wrapped()
    client.converse(**question(1), toolConfig=TOOLS)
    assert reason(client, {**question(2), "toolConfig": {"tools": [reordered, TOOLS["tools"][1]]}}) == "tools_changed"


def test_messages_changed(bedrock: Bedrock) -> None:
    client = bedrock.wrapped()
    history = [user(DOCUMENT), assistant("An answer of some length."), user("Why?")]
    client.converse(modelId=SONNET, messages=history)
    history = [user(DOCUMENT), assistant("An answer of same length."), user("Why?"), assistant("So."), user("And?")]
    found = miss(client, {"modelId": SONNET, "messages": history})
    assert found is not None
    assert (found["reason"], found["path"]) == ("messages_changed", "messages[1].content[0]")


def test_another_conversation_is_not_a_changed_one(bedrock: Bedrock) -> None:
    client = bedrock.wrapped()
    client.converse(modelId=SONNET, messages=[user(DOCUMENT[:9000], point()), assistant("Noted."), user("Why?")])
    assert (
        miss(client, {"modelId": SONNET, "messages": [user(DOCUMENT[9000:18000]), assistant("So."), user("?")]}) is None
    )


def test_model_changed(bedrock: Bedrock) -> None:
    client = bedrock.wrapped()
    client.converse(**question(1))
    assert reason(client, question(2, SONNET_46)) == "model_changed"


def test_lookback(bedrock: Bedrock) -> None:
    """Twelve tool calls and their results stand between the old entry and the only checkpoint."""
    client = bedrock.wrapped(EXPLICIT)
    tools: Json = {"tools": [tool("search")]}
    first = user(DOCUMENT)
    client.converse(modelId=SONNET, toolConfig=tools, messages=[{**first, "content": [*first["content"], point()]}])
    uses = assistant(*(tool_use(number) for number in range(12)))
    results = user(*(tool_result(number) for number in range(12)), point())
    found = miss(client, {"modelId": SONNET, "toolConfig": tools, "messages": [first, uses, results]})
    assert found is not None
    assert (found["reason"], found["path"]) == ("lookback", "messages[0].content[0]")


def test_the_planner_bridges_what_lookback_does_not_reach(bedrock: Bedrock) -> None:
    client = bedrock.wrapped()
    tools: Json = {"tools": [tool("search")]}
    messages = [user(DOCUMENT), assistant("Noted."), user("Search.")]
    client.converse(modelId=SONNET, toolConfig=tools, messages=messages)
    uses = assistant(*(tool_use(number) for number in range(20)))
    results = user(*(tool_result(number) for number in range(20)))
    told = client.converse(modelId=SONNET, toolConfig=tools, messages=[*messages, uses, results])["promptCache"]
    assert (told["status"], told["miss"]) == ("extended", None)


def test_not_marked(bedrock: Bedrock) -> None:
    store = MemoryStore()
    bedrock.wrapped(store=store).converse(**question(1))
    assert reason(bedrock.wrapped(EXPLICIT, store=store), question(2)) == "not_marked"


def test_below_minimum(bedrock: Bedrock) -> None:
    request = {"modelId": SONNET, "messages": [user("A short text.", point(), "Why?")]}
    found = miss(bedrock.wrapped(EXPLICIT), request)
    assert found is not None
    assert (found["reason"], found["path"]) == ("below_minimum", "messages[0].content[1]")


def test_concurrent_write(bedrock: Bedrock) -> None:
    client = bedrock.wrapped()
    bedrock.emulator.fail_next(slow(0.3))
    first = threading.Thread(target=lambda: client.converse(**question(1)))
    first.start()
    while not bedrock.calls:
        pass
    found = reason(client, question(2))
    first.join()
    assert found == "concurrent_write"


def test_misses_are_counted_by_reason(bedrock: Bedrock) -> None:
    client = bedrock.wrapped()
    for number in range(3):
        client.converse(**question(number))
        bedrock.emulator.evict()
    client.converse(**question(3))
    assert client.ledger.totals().misses == {"evicted_or_rerouted": 3}


def test_a_model_that_takes_no_checkpoints_misses_nothing(bedrock: Bedrock) -> None:
    client = bedrock.wrapped()
    request = question(1, "us.meta.llama3-3-70b-instruct-v1:0")
    assert [miss(client, request) for _ in range(2)] == [None, None]


def test_messages_changed_behind_a_system_prompt_that_is_read(bedrock: Bedrock) -> None:
    client = bedrock.wrapped()
    client.converse(**remembering(1, "An answer"))
    client.converse(**remembering(2, "An answer"))
    found = miss(client, remembering(3, "The answer"))
    assert found is not None
    assert found["reason"] == "messages_changed"
    assert found["path"] == "messages[1].content[0]"
    assert found["lost_tokens"] > 2000


def remembering(number: int, begins: str) -> Json:
    """A question after a turn whose long answer begins so."""
    history = [
        {"role": "user", "content": [{"text": "What is it?"}]},
        {"role": "assistant", "content": [{"text": f"{begins} that goes on for a while. " + "And on it goes. " * 900}]},
    ]
    asked = question(number)
    return {**asked, "messages": [*history, *asked["messages"]]}
