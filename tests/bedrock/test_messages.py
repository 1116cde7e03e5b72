"""InvokeModel with Anthropic Messages: planned, repaired, accounted and answered like Converse."""

from __future__ import annotations

import io
import json
from decimal import Decimal
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from converse_kit import DOCUMENT, SONNET, SONNET_37, SONNET_46, SYSTEM, Bedrock
from messages_kit import (
    EPHEMERAL,
    ONE_HOUR,
    Json,
    answer,
    assistant,
    body,
    checkpoints,
    marked,
    request,
    text,
    thinking,
    tool,
    tool_result,
    tool_use,
    user,
)

import cachepoint
from cachepoint import CachePolicy
from cachepoint.emulator import cut_stream, stream_error, throttled
from cachepoint.errors import CachepointWarning, ConfigurationError

EXPLICIT = CachePolicy(mode="explicit")
OPUS_5 = "global.anthropic.claude-opus-5"


def article_request(question: str) -> Json:
    """A document in a block of its own, marked, and a question about it."""
    return body(user(text(DOCUMENT, EPHEMERAL), question), temperature=0.0)


def sent(bedrock: Bedrock, given: Json, policy: CachePolicy = EXPLICIT, model: str = SONNET) -> list[tuple[str, str]]:
    """Send a body; the checkpoints that went out, which the service took at the first try."""
    before = len(bedrock.calls)
    bedrock.wrapped(policy).invoke_model(**request(given, model))
    assert bedrock.statuses[before:] == [200]
    return checkpoints(bedrock.bodies[-1])


def billed(bedrock: Bedrock) -> Decimal:
    """What the service asks for all it served."""
    return sum((line.usd for line in bedrock.bill if line.usd is not None), Decimal())


def wire_bodies(client: Any) -> list[bytes]:
    """A list that fills with the request bodies a boto3 client puts on the wire."""
    seen: list[bytes] = []
    client.meta.events.register("before-send.bedrock-runtime", lambda request, **_: seen.append(request.body))
    return seen


# -- the article's two requests ---------------------------------------------------------------------


def test_the_articles_two_requests_go_out_as_they_are_and_the_second_is_a_hit(bedrock: Bedrock) -> None:
    client = bedrock.client()
    on_the_wire = wire_bodies(client)
    wrapped = cachepoint.wrap(client, clock=bedrock.clock)
    asked = [request(article_request(question), SONNET_37) for question in ("What is a field?", "And a conversion?")]
    told = [wrapped.invoke_model(**each)["promptCache"] for each in asked]
    assert on_the_wire == [each["body"].encode() for each in asked]
    assert [each["status"] for each in told] == ["written", "hit"]
    assert told[1]["usage"]["cache_read"] == told[0]["usage"]["cache_write_5m"]
    assert wrapped.ledger.totals().cost.usd == billed(bedrock)


def test_and_they_need_no_mark_once_a_document_came_back(bedrock: Bedrock) -> None:
    wrapped = bedrock.wrapped()
    unmarked = [body(user(DOCUMENT, question)) for question in ("What is a field?", "A conversion?", "A flag?")]
    told = [wrapped.invoke_model(**request(each))["promptCache"]["status"] for each in unmarked]
    assert told == ["uncached", "written", "hit"]
    assert checkpoints(bedrock.bodies[-1]) == [("messages[0].content[0]", "5m")]


def test_nor_a_block_of_the_documents_own(bedrock: Bedrock) -> None:
    wrapped = bedrock.wrapped()
    questions = [
        f"{DOCUMENT}\n\nQuestion: {words}" for words in ("What is a field?", "A conversion?", "A flag?", "A sign?")
    ]
    for words in questions:
        told = wrapped.invoke_model(**request(body({"role": "user", "content": words})))["promptCache"]
    assert told["status"] == "hit"
    blocks = bedrock.bodies[-1]["messages"][0]["content"]
    assert "".join(block["text"] for block in blocks) == questions[-1]
    assert [block.get("cache_control") for block in blocks] == [EPHEMERAL, None]


# -- what goes out ------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["off", "observe"])
def test_a_body_is_not_touched_where_nothing_is_planned_or_nothing_may_be(bedrock: Bedrock, mode: Any) -> None:
    client = bedrock.client()
    on_the_wire = wire_bodies(client)
    odd = '{ "max_tokens": 30,"anthropic_version":"bedrock-2023-05-31", "system":"\\u00e9t\\u00e9", "messages"  :[%s]}'
    long = odd % json.dumps(user(text(DOCUMENT, EPHEMERAL), "Why?"))
    cachepoint.wrap(client, CachePolicy(mode=mode), clock=bedrock.clock).invoke_model(modelId=SONNET, body=long)
    short = odd % '{"role": "user",  "content":"Hi"}'
    cachepoint.wrap(client, clock=bedrock.clock).invoke_model(modelId=SONNET, body=short.encode())
    assert on_the_wire == [long.encode(), short.encode()]


def test_a_planned_body_keeps_the_order_of_its_keys(bedrock: Bedrock) -> None:
    given = {"top_k": 5, **body(user("Why?"), system=SYSTEM, tools=[tool()])}
    bedrock.wrapped().invoke_model(**request(given))
    assert list(bedrock.bodies[-1]) == list(given)
    assert bedrock.bodies[-1]["system"] == [text(SYSTEM, EPHEMERAL)]


def test_tools_system_and_history_get_checkpoints_as_attributes(bedrock: Bedrock) -> None:
    given = body(
        {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}, user("And then?"),
        system=SYSTEM, tools=[tool(), tool("fetch", DOCUMENT)],
    )  # fmt: skip
    told = bedrock.wrapped().invoke_model(**request(given))["promptCache"]
    paths = [path for path, _ in checkpoints(bedrock.bodies[-1])]
    assert paths == [point["path"] for point in told["checkpoints"]]
    assert {"tools[1]", "system[0]", "messages[2].content[0]"} <= set(paths)


def test_a_string_without_a_checkpoint_stays_a_string(bedrock: Bedrock) -> None:
    bedrock.wrapped().invoke_model(**request(body({"role": "user", "content": "Why?"}, system=SYSTEM)))
    assert bedrock.bodies[-1]["messages"] == [{"role": "user", "content": "Why?"}]


def test_a_guarded_text_is_never_cut(bedrock: Bedrock) -> None:
    wrapped = bedrock.wrapped()
    for words in ("What?", "How?", "When?", "Where?"):
        given = body({"role": "user", "content": f"{DOCUMENT}\n\n{words}"})
        wrapped.invoke_model(**request(given, guardrailIdentifier="guard", guardrailVersion="1"))
    assert bedrock.bodies[-1]["messages"] == given["messages"]


# -- marks and what the service refuses of them -------------------------------------------------------


def test_a_legal_mark_stays_where_it_was_put(bedrock: Bedrock) -> None:
    assert sent(bedrock, body(user(text(DOCUMENT, ONE_HOUR), "Why?"))) == [("messages[0].content[0]", "1h")]


def test_a_mark_for_all_goes_to_the_last_block_where_every_model_takes_it(bedrock: Bedrock) -> None:
    given = body(user(DOCUMENT, "Why?"), cache_control=EPHEMERAL)
    with pytest.raises(ClientError, match="Extra inputs are not permitted"):
        bedrock.client().invoke_model(**request(given))
    for model in (SONNET, SONNET_46, OPUS_5):
        assert sent(bedrock, given, model=model) == [("messages[0].content[1]", "5m")]


def test_a_five_minute_ttl_is_left_out_where_the_model_knows_no_ttl(bedrock: Bedrock) -> None:
    given = body(user(text(DOCUMENT, {"type": "ephemeral", "ttl": "5m"}), "Why?"))
    with pytest.raises(ClientError, match="Extra inputs are not permitted"):
        bedrock.client().invoke_model(**request(given, SONNET_37))
    assert sent(bedrock, given, model=SONNET_37) == [("messages[0].content[0]", "5m")]


def test_a_mark_inside_a_tool_result_moves_to_the_result(bedrock: Bedrock) -> None:
    result = tool_result(0, text(DOCUMENT, EPHEMERAL), text("More."))
    given = body(user("Look it up."), assistant(tool_use()), user(result), tools=[tool()])
    assert sent(bedrock, given) == [("messages[2].content[0]", "5m")]


def test_a_mark_on_thinking_moves_to_the_block_before(bedrock: Bedrock) -> None:
    given = body(user(DOCUMENT), assistant(marked(thinking()), tool_use()), user(tool_result()), tools=[tool()])
    with pytest.raises(ClientError, match="Extra inputs are not permitted"):
        bedrock.client().invoke_model(**request(given))
    with pytest.warns(CachepointWarning, match="may not follow a reasoning block"):
        assert sent(bedrock, given) == [("messages[0].content[0]", "5m")]


def test_a_mark_on_a_document_stays_whatever_the_documents_kind(bedrock: Bedrock) -> None:
    source = {"type": "text", "media_type": "text/plain", "data": DOCUMENT}
    given = body(user(marked({"type": "document", "source": source}), "Why?"))
    assert sent(bedrock, given) == [("messages[0].content[0]", "5m")]


def test_a_deferred_tool_carries_no_checkpoint(bedrock: Bedrock) -> None:
    deferred = {**tool("fetch"), "defer_loading": True}
    given = body(user("Why?"), tools=[tool(description=DOCUMENT), marked(deferred)])
    assert sent(bedrock, given) == [("tools[0]", "5m")]


def test_of_five_marks_four_are_sent(bedrock: Bedrock) -> None:
    given = body(user(*(text(f"{number} {SYSTEM}", EPHEMERAL) for number in range(5)), "Why?"))
    with pytest.raises(ClientError, match="Found 5"):
        bedrock.client().invoke_model(**request(given))
    with pytest.warns(CachepointWarning, match="only 4 checkpoints"):
        assert len(sent(bedrock, given)) == 4


def test_a_ttl_that_does_not_exist_is_an_error_before_anything_is_sent(bedrock: Bedrock) -> None:
    wrong = body(user(text(DOCUMENT, {"type": "ephemeral", "ttl": "1hour"}), "Why?"))
    with pytest.raises(ConfigurationError, match=r"messages\[0\]\.content\[0\] has ttl='1hour'"):
        bedrock.wrapped().invoke_model(**request(wrong))
    assert bedrock.calls == []


def test_a_long_ttl_after_a_short_one_makes_both_long(bedrock: Bedrock) -> None:
    given = body(user(text(DOCUMENT, ONE_HOUR), "Why?"), system=[text(SYSTEM, EPHEMERAL)])
    with pytest.warns(CachepointWarning, match="raised from 5m to 1h"):
        assert sent(bedrock, given) == [("system[0]", "1h"), ("messages[0].content[0]", "1h")]


def test_a_refused_request_is_repeated_as_the_user_wrote_it(bedrock: Bedrock) -> None:
    bedrock.emulator.refuse_checkpoints("system", SONNET)
    wrapped = bedrock.wrapped()
    with pytest.warns(CachepointWarning, match="refused a checkpoint in system"):
        response = wrapped.invoke_model(**request(body(user("Why?"), system=SYSTEM)))
    assert response["promptCache"]["status"] == "uncached"
    assert bedrock.statuses == [400, 200]
    assert bedrock.bodies[-1]["system"] == SYSTEM


# -- what comes back ----------------------------------------------------------------------------------


def test_the_body_is_read_as_boto3_gives_it(bedrock: Bedrock) -> None:
    given = request(body(user("Why?"), system=SYSTEM))
    ways = (
        lambda stream: stream.read(),
        lambda stream: b"".join(stream.iter_chunks(7)),
        lambda stream: b"".join(iter(lambda: stream.read(10), b"")),
        lambda stream: json.dumps(json.load(stream)).encode(),
        lambda stream: b"\n".join(io.BufferedReader(stream)),
    )
    wrapped = bedrock.wrapped()
    answers = [json.loads(way(wrapped.invoke_model(**given)["body"]))["content"] for way in ways]
    assert answers == [answer(bedrock.client().invoke_model(**given))["content"]] * len(ways)


def test_writes_of_both_ttls_are_told_apart(bedrock: Bedrock) -> None:
    given = body(user(text(DOCUMENT, EPHEMERAL), "Why?"), system=[text(SYSTEM, ONE_HOUR)])
    wrapped = bedrock.wrapped(EXPLICIT)
    usage = wrapped.invoke_model(**request(given))["promptCache"]["usage"]
    assert usage["cache_write_1h"] > 1_000
    assert usage["cache_write_5m"] > 5_000
    assert wrapped.ledger.totals().cost.usd == billed(bedrock)


def test_both_apis_have_entries_of_their_own(bedrock: Bedrock) -> None:
    wrapped = bedrock.wrapped()
    converse = {
        "modelId": SONNET,
        "system": [{"text": SYSTEM}],
        "messages": [{"role": "user", "content": [{"text": "Why?"}]}],
    }
    first, read = (wrapped.converse(**converse)["promptCache"] for _ in range(2))
    second = wrapped.invoke_model(**request(body(user("Why?"), system=SYSTEM)))["promptCache"]
    assert (first["status"], read["status"]) == ("written", "extended")
    assert (second["status"], second["miss"]) == ("written", None)
    assert [record.api for record in wrapped.ledger.records] == ["converse", "converse", "invoke_model"]


def test_a_failed_call_is_recorded_and_raised(bedrock: Bedrock) -> None:
    wrapped = cachepoint.wrap(bedrock.client(config=Config(retries={"total_max_attempts": 1})), clock=bedrock.clock)
    bedrock.emulator.fail_next(throttled(), operation="InvokeModel")
    with pytest.raises(ClientError, match="Throttling"):
        wrapped.invoke_model(**request(body(user("Why?"), system=SYSTEM)))
    (record,) = wrapped.ledger.records
    assert (record.error, record.usage, record.api) == ("ThrottlingException", None, "invoke_model")


def test_the_service_counts_a_body_near_the_minimum(bedrock: Bedrock) -> None:
    model = "anthropic.claude-sonnet-4-5-20250929-v1:0"
    wrapped = bedrock.wrapped(CachePolicy(count_tokens=True))
    wrapped.invoke_model(**request(body(user("Why?"), system=SYSTEM[:4_500]), model))
    assert [call.operation for call in bedrock.calls] == ["CountTokens", "InvokeModel"]


def test_a_body_that_is_no_message_is_the_services_business(bedrock: Bedrock) -> None:
    wrapped = bedrock.wrapped()
    for given in (b"not json", b'["anthropic_version"]', b'{"anthropic_version": "x", "prompt": "Hi"}'):
        with pytest.raises(ClientError):
            wrapped.invoke_model(modelId=SONNET, body=given)
    assert len(wrapped.ledger.records) == 3


# -- streams ------------------------------------------------------------------------------------------


def events(response: Json) -> list[Json]:
    return list(response["body"])


def chunks(passed: list[Json]) -> list[Json]:
    return [json.loads(event["chunk"]["bytes"]) for event in passed]


def test_one_event_tells_and_the_others_pass_as_they_came(bedrock: Bedrock) -> None:
    given = request(body(user("Why?"), system=SYSTEM))
    passed = events(bedrock.wrapped().invoke_model_with_response_stream(**given))
    plain = events(bedrock.client().invoke_model_with_response_stream(**given))
    assert [sorted(event) for event in passed[:-1]] == [["chunk"]] * (len(plain) - 1)
    assert [chunk["type"] for chunk in chunks(passed)] == [chunk["type"] for chunk in chunks(plain)]
    assert passed[-1]["promptCache"]["status"] == "written"


def test_usage_that_is_said_three_times_counts_once(bedrock: Bedrock) -> None:
    wrapped = bedrock.wrapped()
    given = request(body(user(text(DOCUMENT, EPHEMERAL), "Why?"), system=[text(SYSTEM, ONE_HOUR)]))
    passed = events(wrapped.invoke_model_with_response_stream(**given))
    assert sum(b"input_tokens" in event["chunk"]["bytes"] for event in passed) > 1
    (served,) = bedrock.calls
    assert served.usage is not None
    assert passed[-1]["promptCache"]["usage"] == served.usage.to_dict()
    assert wrapped.ledger.totals().usage == served.usage


def test_events_pass_before_the_answer_is_whole(bedrock: Bedrock) -> None:
    wrapped = bedrock.wrapped()
    stream = wrapped.invoke_model_with_response_stream(**request(body(user("Why?"), system=SYSTEM)))["body"]
    passing = iter(stream)
    assert json.loads(next(passing)["chunk"]["bytes"])["type"] == "message_start"
    assert not wrapped.ledger.records
    stream.close()


def test_a_refusal_in_the_first_event_of_a_stream_is_repeated(bedrock: Bedrock) -> None:
    given, wrapped = request(body(user("Why?"), system=SYSTEM)), bedrock.wrapped()
    bedrock.emulator.fail_next(stream_error("ValidationException", 0, "Nein."))
    with pytest.warns(CachepointWarning, match="refused a checkpoint in system"):
        passed = events(wrapped.invoke_model_with_response_stream(**given))
    assert chunks(passed)[0]["type"] == "message_start"
    assert [(record.error, record.status) for record in wrapped.ledger.records] == [(None, "uncached")]


def test_an_abandoned_stream_is_recorded_as_such(bedrock: Bedrock) -> None:
    wrapped = bedrock.wrapped()
    stream = wrapped.invoke_model_with_response_stream(**request(body(user("Why?"), system=SYSTEM)))["body"]
    assert next(iter(stream))
    stream.close()
    (record,) = wrapped.ledger.records
    assert record.error == "abandoned"
    assert record.usage is not None  # the first event told what the prompt took, which is billed all the same
    assert record.usage.cache_write > 2000
    assert record.cost is not None  # of what was told: the bill is at least that
    assert record.cost.usd == record.cost.uncached_usd - record.cost.saved_usd > Decimal("0.0075")
    assert record.at_least


def test_a_cut_stream_has_the_usage_that_its_first_event_told(bedrock: Bedrock) -> None:
    wrapped = bedrock.wrapped()
    bedrock.emulator.fail_next(cut_stream(3, quietly=True), operation="InvokeModelWithResponseStream")
    events(wrapped.invoke_model_with_response_stream(**request(body(user("Why?"), system=SYSTEM))))
    (record,) = wrapped.ledger.records
    assert record.usage is not None
    assert record.usage.cache_write > 2000
    assert record.cost is not None
    assert record.at_least
    assert wrapped.ledger.totals().cost == record.cost
