"""A wrapped client caches by itself, tells what it did, and is in all else the client it wraps."""

from __future__ import annotations

import copy
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import boto3
import messages_kit
import pytest
from converse_kit import (
    DOCUMENT,
    LLAMA,
    SONNET,
    SYSTEM,
    Bedrock,
    Json,
    assistant,
    checkpoints,
    point,
    question,
    text,
    tool,
    user,
)

import cachepoint
from cachepoint import CacheLedger, CachePolicy, MemoryStore
from cachepoint.core.planning.policy import Mode
from cachepoint.errors import ConfigurationError

QUESTION = question()


def test_the_second_call_reads_what_the_first_wrote(bedrock: Bedrock) -> None:
    client = bedrock.wrapped()
    first, second = client.converse(**question(1)), client.converse(**question(2))
    assert first["promptCache"]["status"] == "written"
    assert second["promptCache"]["status"] == "hit"
    assert second["usage"]["cacheReadInputTokens"] == first["usage"]["cacheWriteInputTokens"] > 2000


def test_a_response_tells_what_caching_did_in_plain_json(bedrock: Bedrock) -> None:
    client = bedrock.wrapped()
    client.converse(**question(1))
    told = client.converse(**question(2))["promptCache"]
    assert json.loads(json.dumps(told)) == told
    assert told["v"] == 1
    assert told["mode"] == "auto"
    assert [(place["path"], place["ttl"]) for place in told["checkpoints"]] == [("system[1]", "5m")]
    usage = told["usage"]
    assert usage["cache_write_5m"] == usage["cache_write_1h"] == 0 < usage["cache_read"]
    cost = {name: float(amount) for name, amount in told["cost"].items() if name != "prices_as_of"}
    assert cost["saved_usd"] == pytest.approx(cost["uncached_usd"] - cost["usd"])
    assert told["miss"] is None


@pytest.mark.parametrize(
    ("request_", "policy", "held"),
    [
        ({**QUESTION, "system": [text("Be brief.")]}, CachePolicy(), ("system[0]", "below_minimum")),
        (question(model=LLAMA), CachePolicy(), ("", "model_without_checkpoints")),
        (QUESTION, CachePolicy(mode="explicit"), ("", "not_marked")),
        (QUESTION, CachePolicy(mode="off"), ("", "mode_off")),
        (QUESTION, CachePolicy(max_checkpoints=0), ("", "none_allowed")),
    ],
)
def test_an_uncached_call_says_why(
    bedrock: Bedrock, request_: Json, policy: CachePolicy, held: tuple[str, str]
) -> None:
    client = bedrock.wrapped(policy)
    told = client.converse(**request_)["promptCache"]
    assert told["status"] == "uncached"
    assert (told["held"][0]["path"], told["held"][0]["reason"]) == held
    assert all(set(place) == {"path", "reason", "why"} and place["why"] for place in told["held"])
    assert client.ledger.records[0].contract()["held"] == told["held"]


def test_a_cached_call_says_why_no_more_was_placed(bedrock: Bedrock) -> None:
    told = bedrock.wrapped().converse(**QUESTION)["promptCache"]
    assert [(place["path"], place["reason"]) for place in told["held"]] == [
        ("messages[0].content[0]", "no_return_expected"),
    ]  # fmt: skip


def test_its_checkpoints_are_where_it_says(bedrock: Bedrock) -> None:
    client = bedrock.wrapped()
    messages = [user(DOCUMENT), assistant("Noted."), user("Why?")]
    told = client.converse(modelId=SONNET, system=[text(SYSTEM)], messages=messages)["promptCache"]
    assert [(place["path"], place["ttl"]) for place in told["checkpoints"]] == checkpoints(bedrock.bodies[0])


def test_the_rest_of_the_response_is_the_services(bedrock: Bedrock) -> None:
    plain, cached = bedrock.client().converse(**QUESTION), bedrock.wrapped(CachePolicy(mode="off")).converse(**QUESTION)
    assert plain["output"] == cached["output"]
    assert plain["usage"] == cached["usage"]
    assert set(cached) - set(plain) == {"promptCache"}


def test_every_other_attribute_is_the_wrapped_clients(bedrock: Bedrock) -> None:
    raw = bedrock.client()
    client = cachepoint.wrap(raw)
    assert client.meta is raw.meta
    assert client.exceptions is raw.exceptions
    assert client.wrapped is raw
    counted = client.count_tokens(modelId=SONNET.removeprefix("us."), input={"converse": {"messages": [user("Why?")]}})
    assert counted["inputTokens"] > 0


def test_what_is_no_bedrock_client_is_refused_with_the_remedy() -> None:
    with pytest.raises(ConfigurationError, match="bedrock-runtime"):
        cachepoint.wrap(object())


@pytest.mark.parametrize("wrong", [{"policy": {"mode": "auto"}}, {"policy": None, "stor": MemoryStore()}])
def test_a_wrong_setting_is_named(bedrock: Bedrock, wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"mode|stor"):
        cachepoint.wrap(bedrock.client(), **wrong)


def test_wrapping_twice_is_wrapping_once(bedrock: Bedrock) -> None:
    ledger = CacheLedger()
    client = cachepoint.wrap(bedrock.wrapped(), ledger=ledger)
    assert not isinstance(client.wrapped, type(client))
    client.converse(**QUESTION)
    assert len(bedrock.calls) == ledger.totals().calls == 1


def test_copies_share_what_was_learned(bedrock: Bedrock) -> None:
    client = bedrock.wrapped()
    client.converse(**QUESTION)
    copies = (copy.copy(client), copy.deepcopy(client), copy.deepcopy({"client": client})["client"])
    for number, same in enumerate(copies, 1):
        assert same.converse(**question(number))["promptCache"]["status"] == "hit"
    assert client.ledger.totals().calls == 4


def test_clients_may_share_a_store_and_a_ledger(bedrock: Bedrock) -> None:
    store, ledger = MemoryStore(), CacheLedger()
    bedrock.wrapped(store=store, ledger=ledger).converse(**QUESTION)
    told = bedrock.wrapped(store=store, ledger=ledger).converse(**question(1))["promptCache"]
    assert told["checkpoints"][0]["why"].startswith("keeps a live 5m entry")
    assert ledger.totals().calls == 2


def test_threads_may_share_a_client(bedrock: Bedrock) -> None:
    client = bedrock.wrapped()

    def ask(thread: int) -> None:
        for number in range(8):
            messages = [user(f"{DOCUMENT[:9000]} Thread {thread}, question {number % 3}?")]
            client.converse(modelId=SONNET, system=[text(SYSTEM)], messages=messages)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(ask, range(6)))
    assert bedrock.statuses == [200] * 48
    totals = client.ledger.totals()
    assert totals.calls == 48
    assert totals.usage.prompt == sum(line.usage.prompt for line in bedrock.bill)


def test_the_request_given_is_never_changed(bedrock: Bedrock) -> None:
    request = {**QUESTION, "messages": [user(DOCUMENT, point("1h"), "Why?")]}
    as_written = copy.deepcopy(request)
    bedrock.wrapped().converse(**request)
    assert request == as_written


# -- modes ----------------------------------------------------------------------------------------


def test_auto_places_checkpoints(bedrock: Bedrock) -> None:
    bedrock.wrapped(CachePolicy(mode="auto")).converse(**QUESTION)
    assert checkpoints(bedrock.bodies[0]) == [("system[1]", "5m")]


def test_explicit_sends_only_the_users_own(bedrock: Bedrock) -> None:
    client = bedrock.wrapped(CachePolicy(mode="explicit"))
    client.converse(**QUESTION)
    client.converse(**{**QUESTION, "messages": [user(DOCUMENT, point(), "Why?")]})
    assert [checkpoints(body) for body in bedrock.bodies] == [[], [("messages[0].content[1]", "5m")]]


def test_observe_sends_the_request_as_written_and_says_what_it_would_do(bedrock: Bedrock) -> None:
    client = bedrock.wrapped(CachePolicy(mode="observe"))
    told = client.converse(**QUESTION)["promptCache"]
    assert checkpoints(bedrock.bodies[0]) == []
    assert told["status"] == "uncached"
    assert [place["path"] for place in told["checkpoints"]] == ["system[1]"]


def test_observe_follows_the_checkpoints_the_user_wrote(bedrock: Bedrock) -> None:
    told = {}
    modes: list[Mode] = ["explicit", "observe"]
    for mode in modes:
        client = bedrock.wrapped(CachePolicy(mode=mode))
        request = {"modelId": SONNET, "messages": [user(DOCUMENT + mode, point("1h"), "Why?")]}
        calls = [client.converse(**request)["promptCache"] for _ in range(2)]
        bedrock.emulator.evict()
        calls.append(client.converse(**request)["promptCache"])
        bedrock.clock.advance(3601)
        calls.append(client.converse(**request)["promptCache"])
        told[mode] = [(call["status"], call["miss"] and call["miss"]["reason"]) for call in calls]
    assert told["observe"] == told["explicit"]
    assert [reason for _, reason in told["observe"]] == [None, None, "evicted_or_rerouted", "expired"]


def test_observe_takes_what_was_written_for_the_ttl_the_user_wrote(bedrock: Bedrock) -> None:
    """Nova never says what a write's TTL was, nor do the headers of an answer (R3.13, R1.12)."""
    client = bedrock.wrapped(CachePolicy(mode="observe"))
    marked = messages_kit.body(messages_kit.user(messages_kit.text(DOCUMENT, messages_kit.ONE_HOUR), "Why?"))
    response = client.invoke_model_with_response_stream(**messages_kit.request(marked))
    for _ in response["body"]:
        pass
    (record,) = client.ledger.records
    assert record.usage is not None
    assert (record.usage.cache_write_5m, record.usage.cache_write_1h > 2000) == (0, True)


def test_off_sends_the_request_as_written_and_records_it(bedrock: Bedrock) -> None:
    client = bedrock.wrapped(CachePolicy(mode="off"))
    told = client.converse(**{**QUESTION, "messages": [user(DOCUMENT, point(), "Why?")]})["promptCache"]
    assert checkpoints(bedrock.bodies[0]) == [("messages[0].content[1]", "5m")]
    assert (told["mode"], told["status"], told["checkpoints"]) == ("off", "written", [])
    assert client.ledger.totals().usage.cache_write > 2000


@pytest.mark.parametrize(("mode", "placed"), [("off", 0), ("observe", 0), ("explicit", 0), ("auto", 1), (" AUTO ", 1)])
def test_the_environment_overrules_the_mode(
    bedrock: Bedrock, monkeypatch: pytest.MonkeyPatch, mode: str, placed: int
) -> None:
    monkeypatch.setenv("CACHEPOINT_MODE", mode)
    told = bedrock.wrapped(CachePolicy(mode="auto" if placed == 0 else "off")).converse(**QUESTION)["promptCache"]
    assert told["mode"] == mode.strip().lower()
    assert len(checkpoints(bedrock.bodies[0])) == placed


def test_a_mode_that_does_not_exist_is_named(bedrock: Bedrock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CACHEPOINT_MODE", "on")
    with pytest.raises(ConfigurationError, match="CACHEPOINT_MODE='on'"):
        bedrock.wrapped()


# -- what passes through --------------------------------------------------------------------------


def test_everything_that_is_not_about_caching_passes_through(bedrock: Bedrock) -> None:
    rest: Json = {
        "guardrailConfig": {"guardrailIdentifier": "guard", "guardrailVersion": "1", "trace": "enabled"},
        "requestMetadata": {"team": "search"},
        "promptVariables": {"name": {"text": "Ada"}},
        "serviceTier": {"type": "priority"},
        "performanceConfig": {"latency": "standard"},
        "inferenceConfig": {"maxTokens": 40, "temperature": 0.5, "stopSequences": ["END"]},
        "additionalModelRequestFields": {"top_k": 5},
        "additionalModelResponseFieldPaths": ["/stop_sequence"],
        "toolConfig": {"tools": [tool("search")], "toolChoice": {"auto": {}}},
    }
    bedrock.client().converse(**QUESTION, **rest)
    bedrock.wrapped().converse(**QUESTION, **rest)
    plain, cached = bedrock.bodies
    assert checkpoints(cached)
    for blocks in (cached["system"], *(message["content"] for message in cached["messages"])):
        blocks[:] = [block for block in blocks if "cachePoint" not in block]
    assert cached == plain


def test_a_service_tier_is_priced_as_such(bedrock: Bedrock) -> None:
    client = bedrock.wrapped(CachePolicy(mode="off"))
    nova = "us.amazon.nova-pro-v1:0"
    standard, priority = (
        client.converse(modelId=nova, messages=[user("Why?")], **tier)["promptCache"]["cost"]
        for tier in ({}, {"serviceTier": {"type": "priority"}})
    )
    assert float(priority["usd"]) == pytest.approx(1.75 * float(standard["usd"]))


def test_bedrock_api_keys_work_as_without(bedrock: Bedrock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "bedrock-api-key-of-nobody")
    raw = boto3.Session().client("bedrock-runtime", region_name="us-east-1", endpoint_url=bedrock.emulator.url)
    client = cachepoint.wrap(raw, clock=bedrock.clock)
    told = [client.converse(**question(number))["promptCache"]["status"] for number in range(2)]
    assert told == ["written", "hit"]
    assert not bedrock.calls  # another account: the key's own


def test_a_response_without_cache_counters_is_read_as_no_caching(bedrock: Bedrock) -> None:
    client = bedrock.wrapped()
    response = client.converse(modelId="us.meta.llama3-3-70b-instruct-v1:0", messages=[user("Why?")])
    assert "cacheReadInputTokens" not in response["usage"]
    assert response["promptCache"]["status"] == "uncached"
    assert response["promptCache"]["usage"]["cache_read"] == 0


def test_tags_and_session_are_kept_with_the_call(bedrock: Bedrock) -> None:
    client = bedrock.wrapped()
    with cachepoint.tags(tenant="a", session="s1"):
        client.converse(**QUESTION)
        with cachepoint.tags(tenant="b", step=2):
            client.converse(**QUESTION)
    client.converse(**QUESTION)
    first, second, third = client.ledger.records
    assert (dict(first.tags), first.session) == ({"tenant": "a", "session": "s1"}, "s1")
    assert (dict(second.tags), second.session) == ({"tenant": "b", "session": "s1", "step": "2"}, "s1")
    assert (dict(third.tags), third.session) == ({}, None)
    assert {tenant: sums.calls for tenant, sums in client.ledger.by("tenant").items()} == {"a": 1, "b": 1}
