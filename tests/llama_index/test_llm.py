"""What our LLM does beyond what any LLM does: caches by itself, tells of each call, and lives in any thread or loop."""

from __future__ import annotations

import asyncio
import copy
import pickle
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import boto3
import pytest
from clairvoyant_kit import clairvoyant_reads
from gate_kit import gate
from llama_index.core.agent.workflow import AgentStream, FunctionAgent
from llama_index.core.base.llms.types import (
    AudioBlock,
    ChatMessage,
    CitationBlock,
    DocumentBlock,
    MessageRole,
    TextBlock,
    ThinkingBlock,
)
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from llama_index_kit import CONNECTION, LONG, METHODS, MODEL, answer, ask, recorded, sent
from pydantic import BaseModel

import cachepoint
from cachepoint import CacheLedger, CachePolicy
from cachepoint.emulator import BedrockEmulator, ToolCall, throttled
from cachepoint.errors import CachepointWarning, ConfigurationError
from cachepoint.llama_index import CacheAwareBedrockConverse
from cachepoint.llama_index._request.responses import StreamedResponse, chat_response

Make = Callable[..., CacheAwareBedrockConverse]
ARN = "arn:aws:bedrock:us-east-1:111122223333:application-inference-profile/abc123"
OPUS = "us.anthropic.claude-opus-4-8"
STATIC = ChatMessage(role=MessageRole.SYSTEM, content=LONG)
QUESTION = ChatMessage(content="What does it say?")
STREAMS = [method for method in METHODS if "stream" in method]


class City(BaseModel):
    """A city."""

    name: str


@pytest.fixture
def make_llm(emulator: BedrockEmulator) -> Make:
    def make(**settings: Any) -> CacheAwareBedrockConverse:
        usual = {"model": MODEL, "endpoint_url": emulator.url, "clock": emulator.clock, "max_retries": 1, **CONNECTION}
        return CacheAwareBedrockConverse(**{**usual, **settings})

    return make


@pytest.fixture(params=["aiobotocore", "worker thread"])
def any_way_async(request: pytest.FixtureRequest, make_llm: Make, emulator: BedrockEmulator) -> Make:
    """Makes LLMs whose asynchronous methods are native, or run a synchronous client in threads."""
    if request.param == "aiobotocore":
        return make_llm
    return lambda **settings: make_llm(**{"client": emulator.client(), **settings})


def contract(response: Any) -> dict[str, Any]:
    told: dict[str, Any] = response.additional_kwargs["prompt_cache"]
    return told


# -- what each call tells --------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
async def test_the_second_call_reads_what_the_first_wrote(
    method: str, any_way_async: Make, emulator: BedrockEmulator
) -> None:
    llm = any_way_async(system_prompt=LONG)
    first, second = [contract(await answer(llm, method, f"What does {it} say?")) for it in ("it", "he")]
    assert (first["status"], second["status"]) == ("written", "hit")
    assert second["usage"]["cache_read"] > 1_500
    assert Decimal(first["cost"]["usd"]) + Decimal(second["cost"]["usd"]) == emulator.bill().total
    assert llm.ledger.totals().cost.usd == emulator.bill().total


@pytest.mark.parametrize("method", STREAMS)
async def test_a_stream_tells_on_its_last_chunk_only(method: str, make_llm: Make) -> None:
    *chunks, last = await ask(make_llm(), method, "Hello")
    assert "prompt_cache" in last.additional_kwargs
    assert not any("prompt_cache" in chunk.additional_kwargs for chunk in chunks)


def test_writes_are_told_apart_by_lifetime(make_llm: Make) -> None:
    response = make_llm(prompt_cache=CachePolicy(ttl="1h")).chat([STATIC, QUESTION])
    assert contract(response)["usage"]["cache_write_1h"] > 1_500
    assert contract(response)["usage"]["cache_write_5m"] == 0
    assert response.raw["usage"]["cacheDetails"]


def test_a_volatile_system_part_stays_behind_the_checkpoint(make_llm: Make, emulator: BedrockEmulator) -> None:
    llm = make_llm()
    for minute in range(3):
        now = ChatMessage(role=MessageRole.SYSTEM, content=f"It is 2026-11-22 14:{minute:02}:07.")
        response = llm.chat([STATIC, now, QUESTION])
    assert contract(response)["status"] == "hit"
    assert "cachePoint" in sent(emulator)[-1]["system"][1]


def test_a_conversation_grows_on_what_is_cached(make_llm: Make) -> None:
    llm = make_llm()
    chat = [STATIC, QUESTION]
    for _ in range(5):
        response = llm.chat(chat)
        chat += [response.message, ChatMessage(content=f"Go on. {LONG[:2000]}")]
    assert contract(response)["usage"]["cache_read"] > 2_500


async def test_a_streaming_agent_reads_what_the_clairvoyant_reads(make_llm: Make, emulator: BedrockEmulator) -> None:
    def add(a: int, b: int) -> str:
        """Add two numbers."""
        return f"{a + b}. {LONG[:400]}"

    emulator.script(*[ToolCall("add", {"a": step, "b": step}) for step in range(19)], "I have added twenty times.")
    llm = make_llm()
    agent = FunctionAgent(tools=[FunctionTool.from_defaults(add)], llm=llm, system_prompt=LONG)
    running = agent.run("Add twenty times.", max_iterations=30)
    deltas = [event.delta async for event in running.stream_events() if isinstance(event, AgentStream)]
    assert str(await running) == "".join(deltas) == "I have added twenty times."
    assert [call.operation for call in emulator.requests] == ["ConverseStream"] * 20
    assert llm.ledger.totals().usage.cache_read >= 0.9 * clairvoyant_reads(emulator.requests, MODEL)


async def test_both_ways_of_structured_prediction_read_one_entry(make_llm: Make, emulator: BedrockEmulator) -> None:
    llm = make_llm(system_prompt=LONG)
    llm.structured_predict(City, PromptTemplate("Describe {city}."), city="Paris")
    await llm.astructured_predict(City, PromptTemplate("Describe {city}."), city="Rome")
    assert [record.status for record in llm.ledger.records] == ["written", "hit"]


def test_a_developers_message_is_a_system_message(make_llm: Make, emulator: BedrockEmulator) -> None:
    make_llm().chat([ChatMessage(role=MessageRole.DEVELOPER, content="Be brief."), QUESTION])
    assert sent(emulator)[-1]["system"] == [{"text": "Be brief."}]


# -- modes, models, clients ------------------------------------------------------------------------


def test_mode_off_sends_what_was_written(make_llm: Make, emulator: BedrockEmulator) -> None:
    llm = make_llm(prompt_cache={"mode": "off"}, system_prompt=LONG)
    assert contract(llm.chat([QUESTION]))["mode"] == "off"
    assert emulator.requests[-1].points == 0


@pytest.mark.parametrize(("mode", "points"), [("explicit", 1), ("auto", 1), ("off", 1)])
def test_the_flags_of_bedrock_converse_are_honoured_in_every_mode(
    mode: str, points: int, make_llm: Make, emulator: BedrockEmulator
) -> None:
    make_llm(prompt_cache={"mode": mode}, system_prompt=LONG, system_prompt_caching=True).chat([QUESTION])
    assert emulator.requests[-1].points == points


def test_a_profile_is_cached_and_priced_as_the_model_behind_it() -> None:
    with BedrockEmulator(profiles={ARN: MODEL}) as emulator:
        llm = CacheAwareBedrockConverse(
            model=MODEL, application_inference_profile_arn=ARN, client=emulator.client(), system_prompt=LONG
        )
        told = contract(llm.chat([QUESTION]))
        assert emulator.requests[-1].model_id == ARN
        assert told["status"] == "written"
        assert told["cost"] is not None


@pytest.mark.parametrize(
    "model", ["us.anthropic.claude-fable-5", "us.anthropic.claude-opus-4-8", "global.anthropic.claude-sonnet-4-6"]
)
def test_models_that_other_classes_do_not_list_are_cached(model: str, make_llm: Make) -> None:
    llm = make_llm(model=model, system_prompt=LONG * 3)
    assert [contract(llm.chat([ChatMessage(content=who)]))["status"] for who in ("I?", "You?")] == ["written", "hit"]


def test_calls_go_to_the_ledger_of_a_client_already_wrapped(emulator: BedrockEmulator) -> None:
    ledger = CacheLedger()
    client = cachepoint.wrap(emulator.client(), ledger=ledger)
    CacheAwareBedrockConverse(model=MODEL, client=client).chat([QUESTION])
    assert ledger.totals().calls == 1


def test_tags_reach_the_record_of_every_call(make_llm: Make) -> None:
    llm = make_llm()
    with cachepoint.tags(tenant="a"):
        llm.chat([QUESTION])
        asyncio.run(llm.acomplete("Hello"))
    assert llm.ledger.by("tenant")["a"].calls == 2


def test_a_context_window_can_be_given(make_llm: Make) -> None:
    assert make_llm(model="acme.model-v1:0").metadata.context_window == 128_000
    assert make_llm(model="acme.model-v1:0", context_window=9_000).metadata.context_window == 9_000


def test_botocore_repeats_what_was_throttled_and_the_call_counts_once(
    make_llm: Make, emulator: BedrockEmulator
) -> None:
    emulator.fail_next(throttled(), times=2)
    llm = make_llm(max_retries=4)
    llm.chat([QUESTION])
    assert [call.status for call in emulator.requests] == [429, 429, 200]
    assert llm.ledger.totals().calls == 1


# -- copies ----------------------------------------------------------------------------------------


def test_copies_share_what_lives_and_pickles_start_afresh(make_llm: Make, emulator: BedrockEmulator) -> None:
    llm = make_llm(client=emulator.client(), prompt_cache=CachePolicy(ttl="1h"))
    for twin in (copy.copy(llm), copy.deepcopy(llm), llm.model_copy()):
        assert twin.ledger is llm.ledger
        assert twin.store is llm.store
        assert twin.client is llm.client
    loaded = pickle.loads(pickle.dumps(llm))
    assert loaded.prompt_cache == CachePolicy(ttl="1h")
    assert loaded.ledger.totals().calls == 0
    assert loaded.client is None
    assert llm.client is not None


def test_json_has_the_policy_as_plain_values(make_llm: Make) -> None:
    llm = make_llm(prompt_cache=CachePolicy(mode="observe"))
    assert llm.to_dict()["prompt_cache"]["mode"] == "observe"
    assert CacheAwareBedrockConverse.from_json(llm.to_json()).prompt_cache == CachePolicy(mode="observe")


def test_neither_secrets_nor_prompts_are_in_the_repr(make_llm: Make) -> None:
    shown = repr(make_llm(system_prompt="You are a librarian.", aws_secret_access_key="top-secret"))
    assert "librarian" not in shown
    assert "top-secret" not in shown


# -- threads and loops -----------------------------------------------------------------------------


@pytest.mark.parametrize("native", [True, False], ids=["aiobotocore", "worker thread"])
@pytest.mark.parametrize("method", ["achat", "astream_chat"])
async def test_the_event_loop_is_never_blocked(
    method: str, *, native: bool, make_llm: Make, emulator: BedrockEmulator
) -> None:
    # By default a loop has five threads on one core, six on two: too few for eight calls of a synchronous client.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(8))
    with gate(emulator.url, calls=8) as url:
        client = None if native else boto3.client("bedrock-runtime", endpoint_url=url, **CONNECTION)
        llm = make_llm(endpoint_url=url, client=client)
        answers = await asyncio.gather(*(answer(llm, method, [QUESTION]) for _ in range(8)))
    assert all(given.message.content for given in answers)
    assert llm.ledger.totals().calls == 8


def test_one_llm_serves_one_loop_after_another(make_llm: Make) -> None:
    llm = make_llm()
    for _ in range(2):
        assert asyncio.run(llm.acomplete("Hello")).text


async def test_the_calls_of_a_loop_share_one_client(make_llm: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    session = pytest.importorskip("aiobotocore.session", reason="the extra `async` is not installed").AioSession
    made, create = [], session.create_client

    def counted(session: Any, *args: Any, **kwargs: Any) -> Any:
        made.append(session)
        return create(session, *args, **kwargs)

    monkeypatch.setattr(session, "create_client", counted)
    llm = make_llm()
    await asyncio.gather(*(llm.achat([QUESTION]) for _ in range(3)))
    await llm.acomplete("Hello")
    assert len(made) == 1


@pytest.mark.parametrize("method", ["stream_chat", "stream_complete"])
def test_an_abandoned_stream_is_one_call_without_usage(method: str, make_llm: Make) -> None:
    llm = make_llm()
    stream = getattr(llm, method)([QUESTION] if method == "stream_chat" else "Hello")
    next(stream)
    stream.close()
    assert [(record.usage, record.error) for record in llm.ledger.records] == [(None, "abandoned")]


@pytest.mark.parametrize("method", ["astream_chat", "astream_complete"])
async def test_an_abandoned_asynchronous_stream_is_one_call_without_usage(method: str, any_way_async: Make) -> None:
    llm = any_way_async()
    stream: AsyncIterator[Any] = await getattr(llm, method)([QUESTION] if method == "astream_chat" else "Hello")
    async for _ in stream:
        break
    del stream
    await recorded(llm, 1)
    assert [(record.usage, record.error) for record in llm.ledger.records] == [(None, "abandoned")]


async def test_a_cancelled_call_does_not_wait_for_the_service(any_way_async: Make, emulator: BedrockEmulator) -> None:
    llm = any_way_async()
    await llm.acomplete("Hello")
    let_go, gone = threading.Event(), list[bool]()

    def reply(_: object) -> str:
        gone.append(let_go.wait(30))
        return ""

    emulator.script(reply)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(llm.achat([QUESTION]), 0.2)
    let_go.set()
    await recorded(llm, 2)
    assert gone in ([], [True])  # where the call was cancelled before the service had it, nobody waited for anybody


LATE = [
    QUESTION, ChatMessage(role=MessageRole.ASSISTANT, content="Much."), QUESTION,
    ChatMessage(role=MessageRole.SYSTEM, blocks=[TextBlock(text="Stop now.")]),
]  # fmt: skip
SPOKEN = {"text": "<system>\nStop now.\n</system>"}


@pytest.fixture
def known(emulator: BedrockEmulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BedrockEmulator:
    """A row of the user's says that Converse takes system messages; the service was begun without it."""
    own = tmp_path / "rules.toml"
    own.write_text('[[model]]\nname = "Claude Opus 4.8"\nsystem_role = ["converse"]\n')
    monkeypatch.setenv("CACHEPOINT_RULES", str(own))
    return emulator


@pytest.mark.parametrize("mode", ["auto", "explicit", "observe", "off"])
def test_a_late_system_message_is_said_by_the_user(mode: str, make_llm: Make, emulator: BedrockEmulator) -> None:
    make_llm(model=OPUS, prompt_cache=mode).chat(LATE)
    (request,) = sent(emulator)
    assert [message["role"] for message in request["messages"]] == ["user", "assistant", "user"]
    assert SPOKEN in request["messages"][-1]["content"]


def test_a_client_that_leaves_requests_alone_is_given_no_system_message(
    make_llm: Make, emulator: BedrockEmulator
) -> None:
    given = cachepoint.wrap(emulator.client(), CachePolicy(mode="off"))
    make_llm(model=OPUS, client=given).chat(LATE)
    assert sent(emulator)[-1]["messages"][-1]["content"][-1] == SPOKEN


def test_a_refused_system_message_is_said_by_the_user_from_then_on(make_llm: Make, known: BedrockEmulator) -> None:
    llm = make_llm(model=OPUS)
    with pytest.warns(CachepointWarning, match="refused a system message in the conversation"):
        for _ in range(3):
            llm.chat(LATE)
    assert [call.status for call in known.requests] == [400, 200, 200, 200]
    assert all(SPOKEN in request["messages"][-1]["content"] for request in sent(known))


@pytest.mark.parametrize("model", [OPUS, "us.anthropic.claude-opus-5", "us.anthropic.claude-sonnet-5"])
async def test_an_agent_that_stops_early_is_answered(model: str, make_llm: Make, emulator: BedrockEmulator) -> None:
    """Its closing request ends with a system message, which Converse refuses."""

    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    agent = FunctionAgent(
        tools=[FunctionTool.from_defaults(add)], llm=make_llm(model=model), early_stopping_method="generate"
    )
    emulator.script(ToolCall("add", {"a": 1, "b": 1}), "I stopped.")
    result = await agent.run("What is 1 + 1?", max_iterations=1)
    assert str(result) == "I stopped."
    assert {call.status for call in emulator.requests} == {200}


def test_what_converse_has_no_word_for_is_left_out_with_a_warning(make_llm: Make, emulator: BedrockEmulator) -> None:
    with pytest.warns(CachepointWarning, match="takes no AudioBlock"):
        make_llm().chat([ChatMessage(blocks=[AudioBlock(audio=b"RIFF"), TextBlock(text="What is this?")])])
    assert sent(emulator)[-1]["messages"] == [{"role": "user", "content": [{"text": "What is this?"}]}]


def test_a_tools_result_without_its_calls_id_is_named(make_llm: Make) -> None:
    with pytest.raises(ConfigurationError, match=r"additional_kwargs\[\"tool_call_id\"\]"):
        make_llm().chat([QUESTION, ChatMessage(role=MessageRole.TOOL, content="5")])


@pytest.mark.parametrize("beside", [[], [TextBlock(text=" \n")]], ids=["nothing", "white space"])
def test_a_document_without_text_beside_it_is_named(
    beside: list[TextBlock], make_llm: Make, emulator: BedrockEmulator
) -> None:
    llm = make_llm()
    document = DocumentBlock(data=b"Tea is a drink.", title="tea", document_mimetype="text/plain")
    with pytest.raises(ConfigurationError, match=r"messages\[0\] has a document"):
        llm.chat([ChatMessage(blocks=[document, *beside])])
    assert (llm.ledger.totals().calls, list(emulator.requests)) == (0, [])
    assert llm.chat([ChatMessage(blocks=[document]), QUESTION]).message.content


def test_a_call_that_names_no_model_goes_to_the_llms_own(make_llm: Make, emulator: BedrockEmulator) -> None:
    make_llm().chat([QUESTION], model=None)
    assert [call.model_id for call in emulator.requests] == [MODEL]


def test_a_turn_of_white_space_is_left_out(make_llm: Make, emulator: BedrockEmulator) -> None:
    make_llm().chat([QUESTION, ChatMessage(role=MessageRole.ASSISTANT, content=" "), QUESTION])
    assert [message["role"] for message in sent(emulator)[-1]["messages"]] == ["user"]


def test_an_answer_with_citations_is_one_text_and_its_sources() -> None:
    location = {"documentChar": {"documentIndex": 0, "start": 3, "end": 9}}
    cited = {"title": "Tea", "source": "tea.txt", "sourceContent": [{"text": "a drink"}], "location": location}
    content = [
        {"text": "Tea is "},
        {"citationsContent": {"content": [{"text": "a drink"}], "citations": [cited]}},
        {"text": ", it says."},
    ]
    message = chat_response({"output": {"message": {"content": content}}}).message
    text, citation = message.blocks
    assert message.content == "Tea is a drink, it says."
    assert isinstance(text, TextBlock)
    assert isinstance(citation, CitationBlock)
    assert (citation.title, citation.source) == ("Tea", "tea.txt")
    assert citation.additional_location_info == {"documentIndex": 0, "start": 3, "end": 9}


def test_a_streamed_answer_is_the_whole_one() -> None:
    events: list[dict[str, Any]] = [
        {"messageStart": {"role": "assistant"}},
        *({"contentBlockDelta": {"contentBlockIndex": 0, "delta": {"reasoningContent": {"redactedContent": part}}}}
          for part in (b"\x01", b"\x02")),
        {"contentBlockStop": {"contentBlockIndex": 0}},
        {"contentBlockDelta": {"contentBlockIndex": 1, "delta": {"text": "It is "}}},
        {"contentBlockDelta": {"contentBlockIndex": 1, "delta": {"text": "tea."}}},
        {"contentBlockDelta": {"contentBlockIndex": 1, "delta": {"citation": {"title": "Tea", "source": "t"}}}},
        {"contentBlockStop": {"contentBlockIndex": 1}},
        {"messageStop": {"stopReason": "end_turn"}},
        {"metadata": {"usage": {"inputTokens": 3, "outputTokens": 2, "totalTokens": 5}}},
    ]  # fmt: skip
    gathered = StreamedResponse()
    chunks = [chunk for event in events if (chunk := gathered.add(event))]
    thinking, text, citation = chunks[-1].message.blocks
    assert isinstance(thinking, ThinkingBlock)
    assert thinking.additional_information == {"redacted_content": "AQI="}
    assert isinstance(text, TextBlock)
    assert text.text == "It is tea."
    assert isinstance(citation, CitationBlock)
    whole = chunks[-1].raw
    assert whole is not None
    assert chat_response(whole).message.blocks == chunks[-1].message.blocks
