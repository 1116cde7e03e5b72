"""Every way to call the model tells what caching did: once a call, in plain JSON types, in LangChain's places."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_kit import LONG, MODEL, Json, MakeModel, connected, question, sent, told

import cachepoint
from cachepoint.emulator import BedrockEmulator, stream_error
from cachepoint.langchain import CacheAwareChatBedrockConverse

Model = CacheAwareChatBedrockConverse


def whole(chunks: list[Any]) -> AIMessage:
    total = chunks[0]
    for chunk in chunks[1:]:
        total = total + chunk
    assert isinstance(total, AIMessage)
    return total


async def by_stream(model: Model, messages: list[BaseMessage]) -> Any:
    return whole(list(model.stream(messages)))


async def by_astream(model: Model, messages: list[BaseMessage]) -> Any:
    return whole([chunk async for chunk in model.astream(messages)])


async def by_events_v2(model: Model, messages: list[BaseMessage]) -> Any:
    events = [event async for event in model.astream_events(messages, version="v2")]
    return events[-1]["data"]["output"]


async def by_events_v3(model: Model, messages: list[BaseMessage]) -> Any:
    stream = model.stream_events(messages, version="v3")
    for _ in stream:
        pass
    return stream.output


async def by_abatch(model: Model, messages: list[BaseMessage]) -> Any:
    return (await model.abatch([messages]))[0]


WAYS: dict[str, Callable[[Model, list[Any]], Any]] = {
    "invoke": lambda model, messages: model.invoke(messages),
    "ainvoke": lambda model, messages: model.ainvoke(messages),
    "stream": by_stream,
    "astream": by_astream,
    "batch": lambda model, messages: model.batch([messages])[0],
    "abatch": by_abatch,
    "events v2": by_events_v2,
    "events v3": by_events_v3,
}


@pytest.mark.parametrize("way", WAYS)
async def test_a_write_and_a_hit_are_told_and_recorded(way: str, model: Model, emulator: BedrockEmulator) -> None:
    async def ask(text: str) -> AIMessage:
        answer = WAYS[way](model, question(text))
        if inspect.isawaitable(answer):
            answer = await answer
        assert isinstance(answer, AIMessage)
        return answer

    first, second = await ask("What is read?"), await ask("What is written?")

    assert told(first)["status"] == "written"
    assert told(second)["status"] in ("hit", "extended")
    assert json.loads(json.dumps(told(second))) == told(second)
    assert "promptCache" not in second.response_metadata
    assert first.usage_metadata is not None
    assert second.usage_metadata is not None
    written: Any = first.usage_metadata["input_token_details"]
    read = second.usage_metadata["input_token_details"]
    assert written["ephemeral_5m_input_tokens"] == told(first)["usage"]["cache_write_5m"] > 1024
    assert written["cache_creation"] == 0
    assert read["cache_read"] == told(second)["usage"]["cache_read"] > 1024
    assert second.usage_metadata["input_tokens"] == sum(
        told(second)["usage"][kind] for kind in ("input", "cache_read", "cache_write_5m", "cache_write_1h")
    )
    totals = model.ledger.totals()
    assert totals.calls == 2
    assert totals.cost.usd == emulator.bill().total


def test_a_stream_tells_it_on_exactly_one_chunk(model: Model) -> None:
    chunks = list(model.stream(question()))

    telling = [chunk for chunk in chunks if "prompt_cache" in chunk.response_metadata]

    assert len(telling) == 1
    assert isinstance(telling[0], AIMessageChunk)
    assert telling[0].usage_metadata


def test_usage_metadata_holds_nothing_but_integers(model: Model) -> None:
    """langchain-core's `add_usage` fails on any other number."""
    usage = model.invoke(question()).usage_metadata

    assert usage is not None
    details = usage["input_token_details"]
    assert all(type(number) is int for number in (*details.values(), usage["input_tokens"], usage["total_tokens"]))


def test_usage_stays_unset_where_a_stream_broke_off_before_it(model: Model, emulator: BedrockEmulator) -> None:
    emulator.fail_next(stream_error("ThrottlingException"))

    with pytest.raises(Exception, match="throttlingException"):
        list(model.stream(question()))

    record = model.ledger.records[-1]
    assert record.usage is None
    assert record.error


class Uncounted:
    """A client whose service sends no usage."""

    def converse(self, **request: Any) -> Json:
        return {"output": {"message": {"role": "assistant", "content": [{"text": "Yes."}]}}, "stopReason": "end_turn"}

    def converse_stream(self, **request: Any) -> Json:
        text = {"contentBlockIndex": 0, "delta": {"text": "Yes."}}
        metadata = {"metrics": {"latencyMs": 1}}
        events = [{"contentBlockDelta": text}, {"messageStop": {"stopReason": "end_turn"}}, {"metadata": metadata}]
        return {"stream": (event for event in events)}


def test_usage_stays_unset_where_the_service_sent_none(emulator: BedrockEmulator) -> None:
    model = connected(emulator, client=Uncounted())

    answers = [model.invoke("Hello"), whole(list(model.stream("Hello")))]

    assert [answer.text for answer in answers] == ["Yes.", "Yes."]
    assert [answer.usage_metadata for answer in answers] == [None, None]
    assert [record.usage for record in model.ledger.records] == [None, None]


def test_an_abandoned_stream_is_recorded_as_such(model: Model) -> None:
    stream = model.stream(question())
    next(stream)
    del stream

    assert [record.error for record in model.ledger.records] == ["abandoned"]


def test_tags_reach_the_record_from_every_thread(model: Model) -> None:
    with cachepoint.tags(tenant="a"):
        model.batch(["one", "two", "three"])

    assert model.ledger.by("tenant")["a"].calls == 3


def test_the_prompt_is_in_nothing_that_is_told(model: Model) -> None:
    message = model.invoke(question("Why is the sky blue?"))

    assert LONG[:40] not in repr(told(message)) + repr(model.ledger.records) + repr(model)
    assert "sky" not in repr(told(message)) + repr(model.ledger.records)


@pytest.mark.parametrize("mode", ["observe", "off"])
def test_a_mode_that_does_not_act_sends_what_the_parent_sends(
    mode: str, make_model: MakeModel, emulator: BedrockEmulator
) -> None:
    from langchain_aws import ChatBedrockConverse
    from langchain_core.messages import HumanMessage, SystemMessage

    marked = HumanMessage([{"type": "text", "text": "Hello", "cache_control": {"type": "ephemeral"}}])
    messages = [SystemMessage(LONG), SystemMessage("And more."), marked]
    model = make_model(prompt_cache={"mode": mode})
    parent = ChatBedrockConverse(model=MODEL, client=model.client, bedrock_client=model.bedrock_client)

    for each in (model, parent):
        each.invoke(messages)
        each.bind_tools([{"name": "f", "description": "F", "input_schema": {"type": "object"}}]).invoke(
            messages, cache_control={"type": "ephemeral", "ttl": "1h"}
        )

    ours, theirs = sent(emulator)[:2], sent(emulator)[2:]
    assert ours == theirs


def test_the_environment_overrules_the_mode(
    model: Model, emulator: BedrockEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CACHEPOINT_MODE", "off")

    model.invoke(question())

    assert emulator.requests[-1].points == 0


def test_a_client_that_is_wrapped_already_records_a_call_once_and_where_it_did(emulator: BedrockEmulator) -> None:
    client = cachepoint.wrap(emulator.client())
    own = cachepoint.CacheLedger()

    connected(emulator, client=client).invoke(question())
    connected(emulator, client=client, ledger=own).invoke(question())

    assert len(emulator.requests) == 2
    assert client.ledger.totals().calls == 1
    assert own.totals().calls == 1


def test_a_client_that_is_wrapped_already_keeps_its_policy_unless_the_model_has_one(emulator: BedrockEmulator) -> None:
    client = cachepoint.wrap(emulator.client(), policy=cachepoint.CachePolicy(mode="off"))

    connected(emulator, client=client).invoke(question())
    connected(emulator, client=client, prompt_cache=cachepoint.CachePolicy()).invoke(question())

    assert [request.points > 0 for request in emulator.requests] == [False, True]
