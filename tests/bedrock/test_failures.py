"""Caching never makes a call fail: not by a refused checkpoint, nor by a fault of the service's or of its own."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders
from botocore.exceptions import ClientError, ConnectionClosedError, ParamValidationError
from converse_kit import (
    DOCUMENT,
    SONNET,
    SONNET_46,
    SYSTEM,
    Bedrock,
    Json,
    checkpoints,
    point,
    question,
    text,
    tool,
    user,
)

import cachepoint
from cachepoint import CacheLedger, CachePolicy, MemoryStore
from cachepoint.bedrock.wire.refusals import refusal_in
from cachepoint.emulator import failed, reset_after_serving, reset_before_serving, throttled
from cachepoint.errors import CachepointWarning, ConfigurationError

KEY = b"k" * 32
QUESTION = question()
BOTH: Json = {**QUESTION, "toolConfig": {"tools": [tool("search", DOCUMENT[:9000])]}}


def bytes_sent(client: Any) -> list[bytes]:
    """The bodies that botocore puts on the wire from now on, retries included."""
    sent: list[bytes] = []
    client.meta.events.register("before-send.bedrock-runtime", lambda request, **_: sent.append(bytes(request.body)))
    return sent


# -- the service's faults -------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [throttled(), failed("ServiceUnavailableException"), reset_before_serving()])
def test_botocores_retries_send_the_same_bytes(bedrock: Bedrock, fault: Any) -> None:
    client = bedrock.wrapped()
    sent = bytes_sent(client)
    bedrock.emulator.fail_next(fault)
    client.converse(**QUESTION)
    assert len(sent) == 2
    assert len(set(sent)) == 1
    assert b"cachePoint" in sent[0]
    assert client.ledger.totals().calls == 1


def test_an_answer_that_was_lost_is_paid_for_but_recorded_once(bedrock: Bedrock) -> None:
    client = bedrock.wrapped()
    bedrock.emulator.fail_next(reset_after_serving())
    client.converse(**QUESTION)
    assert client.ledger.totals().calls == 1
    assert [line.call.delivered for line in bedrock.bill] == [False, True]


def test_a_failed_call_is_raised_as_it_is_and_recorded(bedrock: Bedrock) -> None:
    client = bedrock.once()
    bedrock.emulator.fail_next(throttled("slow down"))
    with pytest.raises(client.exceptions.ThrottlingException, match="slow down"):
        client.converse(**QUESTION)
    (record,) = client.ledger.records
    assert (record.usage, record.cost, record.status, record.error) == (None, None, None, "ThrottlingException")
    totals = client.ledger.totals()
    assert (totals.calls, totals.unreported, totals.errors) == (1, 1, 1)


def test_a_call_that_failed_wrote_nothing(bedrock: Bedrock) -> None:
    client = bedrock.wrapped()
    bedrock.emulator.fail_next(failed("ModelErrorException"))
    with pytest.raises(ClientError):
        client.converse(**QUESTION)
    told = client.converse(**question(1))["promptCache"]
    assert (told["status"], told["miss"]) == ("written", None)


def test_a_request_that_boto3_refuses_is_recorded_too(bedrock: Bedrock) -> None:
    client = bedrock.wrapped()
    with pytest.raises(Exception, match="Unknown parameter"):
        client.converse(**QUESTION, colour="red")
    assert [record.error for record in client.ledger.records] == ["ParamValidationError"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"messages": 5}, {"messages": [5]}, {"messages": [{"role": "user", "content": [{"document": None}]}]},
        {"messages": [{"role": 5, "content": [{"text": "a"}]}]}, {"system": [None]}, {"toolConfig": 5},
        {"toolConfig": {"tools": [5]}}, {"outputConfig": 5},
        {"messages": [{"role": "user", "content": [{"toolResult": 5}]}]},
    ],
    ids=range(9),
)  # fmt: skip
def test_what_boto3_cannot_read_either_is_no_fault_of_ours(bedrock: Bedrock, wrong: dict[str, Any]) -> None:
    """The test fails where one is swallowed."""
    with pytest.raises(ParamValidationError):
        bedrock.wrapped().converse(**{**QUESTION, **wrong})
    assert bedrock.statuses == []


def test_a_lost_connection_is_recorded(bedrock: Bedrock) -> None:
    client = bedrock.once()
    bedrock.emulator.fail_next(reset_before_serving())
    with pytest.raises(ConnectionClosedError):
        client.converse(**QUESTION)
    assert [record.error for record in client.ledger.records] == ["ConnectionClosedError"]


# -- refused checkpoints --------------------------------------------------------------------------

WORDINGS = [
    "Malformed input request: extraneous key [cachePoint] is not permitted, please reformat your input and try again.",
    "Caching is not enabled for this account.",
    "1 validation error detected: Value at 'system.2.member' failed to satisfy constraint: Member must not be null",
    "Unexpected field type.",
    "Der Cachepunkt ist in diesem Abschnitt nicht erlaubt.",
    "Ce modèle ne prend pas en charge la mise en cache des invites.",
    "El modelo no admite puntos de caché.",
    "このモデルはキャッシュチェックポイントをサポートしていません。",
    "You don't have access to the model with the specified model ID.",
    "The throttled bottle is too little.",
]
"""Of a refused checkpoint, in five languages and about anything: nobody knows the service's next words."""


def places_sent(bedrock: Bedrock) -> list[list[str]]:
    """Where the checkpoints stood in each request that was served."""
    return [[path.partition("[")[0] for path, _ in checkpoints(body)] for body in bedrock.bodies]


def in_front(bedrock: Bedrock) -> list[list[str]]:
    """The same of tools and system, which every question has in front."""
    return [[place for place in places if place != "messages"] for places in places_sent(bedrock)]


def ask(client: Any, number: int = 0, **more: Any) -> Json:
    """Another question behind the same tools and system prompt; what the call tells."""
    told: Json = client.converse(**{**BOTH, "messages": [user(f"Question {number}: why?")], **more})["promptCache"]
    return told


@pytest.mark.parametrize("denied", [False, True], ids=["invalid", "denied"])
@pytest.mark.parametrize("message", WORDINGS)
def test_a_refusal_in_any_words_is_repeated_once_as_the_user_wrote_it(
    bedrock: Bedrock, message: str, denied: bool
) -> None:
    client = bedrock.wrapped()
    bedrock.emulator.refuse_checkpoints("tools", SONNET, message, denied=denied)
    with pytest.warns(CachepointWarning, match="refused a checkpoint in tools or a checkpoint in messages or"):
        told = client.converse(**BOTH)["promptCache"]
    assert bedrock.statuses == [403 if denied else 400, 200]
    assert bedrock.bodies == [{name: part for name, part in BOTH.items() if name != "modelId"}]
    assert (told["status"], told["checkpoints"]) == ("uncached", [])
    assert ("tools[0]", "refused") in [(place["path"], place["reason"]) for place in told["held"]]
    assert client.ledger.totals().calls == 1


@pytest.mark.parametrize("learn", [True, False])
def test_later_calls_leave_out_one_section_each_until_it_is_known(bedrock: Bedrock, learn: bool) -> None:
    """System is refused: tools are left out (refused again), then messages (again), and then it is known."""
    client = bedrock.wrapped(CachePolicy(learn=learn))
    bedrock.emulator.refuse_checkpoints("system", SONNET, "Unexpected field type.")
    with pytest.warns(CachepointWarning, match="refused"):
        for number in range(6):
            ask(client, number, messages=[user(DOCUMENT)])
    assert bedrock.statuses == [400, 200, 400, 200, 400, 200, 200, 200, 200]
    assert places_sent(bedrock) == [[], [], [], *[["tools", "messages"]] * 3]


def test_what_is_taken_without_a_section_leaves_only_that_one_out(bedrock: Bedrock) -> None:
    client = bedrock.wrapped()
    bedrock.emulator.refuse_checkpoints("tools", SONNET, "Unexpected field type.")
    with pytest.warns(CachepointWarning, match="one of these until it is known which"):
        for number in range(4):
            ask(client, number)
    assert bedrock.statuses == [400, 200, 200, 200, 200]
    assert in_front(bedrock)[1:] == [["system"]] * 3


def test_words_choose_what_is_left_out_first(bedrock: Bedrock) -> None:
    client = bedrock.wrapped()
    bedrock.emulator.refuse_checkpoints("system", SONNET, "system.1: not here")
    with pytest.warns(CachepointWarning, match="refused"):
        for number in range(3):
            ask(client, number)
    assert bedrock.statuses == [400, 200, 200, 200]
    assert in_front(bedrock)[1:] == [["tools"]] * 2


def test_a_refusal_holds_for_its_model_only(bedrock: Bedrock) -> None:
    client = bedrock.wrapped()
    bedrock.emulator.refuse_checkpoints("tools", SONNET)
    with pytest.warns(CachepointWarning):
        client.converse(**BOTH)
    told = client.converse(**{**BOTH, "modelId": SONNET_46})["promptCache"]
    assert told["checkpoints"][0]["path"] == "tools[1]"


def test_a_model_that_refuses_two_sections_is_found_out_too(bedrock: Bedrock) -> None:
    store = MemoryStore()
    client = bedrock.wrapped(store=store)
    bedrock.emulator.refuse_checkpoints("tools", SONNET, "Unexpected field type.")
    bedrock.emulator.refuse_checkpoints("system", SONNET, "Unexpected field type.")
    with pytest.warns(CachepointWarning):
        for number in range(9):
            ask(client, number)
    assert bedrock.statuses.count(400) == 4  # the working is at test_two_refused_sections_are_found_by_four_refusals
    (traffic,) = store._scopes.values()
    assert (set(map(str, traffic.refusals.refused)), traffic.refusals.suspects) == ({"tools", "system"}, ())
    assert client.ledger.totals().calls == 9


def test_after_a_day_it_is_tried_once_again(bedrock: Bedrock) -> None:
    client = bedrock.wrapped()
    bedrock.emulator.refuse_checkpoints("tools", SONNET, "Unexpected field type.")
    with pytest.warns(CachepointWarning):
        for number in range(3):
            ask(client, number)
        bedrock.clock.advance(24 * 3600)
        for number in range(3):
            ask(client, number)  # refused again, and not tried for another day
        assert bedrock.statuses == [400, 200, 200, 200, 400, 200, 200, 200]
        bedrock.emulator.accept_checkpoints()
        bedrock.clock.advance(24 * 3600)
        for number in range(2):
            ask(client, number)
    assert in_front(bedrock)[-2:] == [["tools", "system"]] * 2


def test_many_threads_refused_at_once_repeat_once_each(bedrock: Bedrock) -> None:
    store = MemoryStore()
    client = bedrock.wrapped(store=store)
    bedrock.emulator.refuse_checkpoints("tools", SONNET, "Unexpected field type.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CachepointWarning)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(partial(ask, client), range(24)))
        for number in range(3):
            ask(client, number)
    assert bedrock.statuses.count(200) == 27
    assert bedrock.statuses.count(400) <= 8
    (traffic,) = store._scopes.values()
    # Of the system prompt, which many wrote at once, the allowance may be spent; it is not taken for refused.
    assert traffic.refusals.refused.keys() <= {"tools"} <= traffic.refusals.open
    assert not traffic.pool.waste.committed


def test_who_waited_for_a_leader_that_was_refused_is_answered(bedrock: Bedrock) -> None:
    """The others plan anew once its repeat is answered, and go without what it was refused for."""
    client = bedrock.wrapped()
    bedrock.emulator.refuse_checkpoints("system", SONNET, "Unexpected field type.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CachepointWarning)
        with cachepoint.fan_out(), ThreadPoolExecutor(4) as pool:
            contexts = [copy_context() for _ in range(8)]
            told = list(pool.map(lambda at: contexts[at].run(client.converse, **question(at)), range(8)))
    assert len(told) == 8
    assert bedrock.statuses == [400, *[200] * 8]
    assert client.ledger.totals().calls == 8


# -- refused requests -----------------------------------------------------------------------------

POISON = [
    "The model returned the following errors: tools.0.custom.input_schema.properties.ttl: JSON schema is invalid",
    "The model returned the following errors: messages.0.content.0.type: Field required",
    "The value at toolConfig.tools.0.toolSpec.name 'set cachepoint' failed to satisfy constraint: [a-zA-Z0-9_-]+",
]
"""Refusals of a user's own mistake, whose words are about checkpoints."""


@pytest.mark.parametrize("message", POISON)
def test_a_request_that_is_wrong_itself_is_sent_twice_and_teaches_nothing(bedrock: Bedrock, message: str) -> None:
    client = bedrock.wrapped()
    before = ask(client)
    bedrock.emulator.fail_next(failed("ValidationException", message), times=2)
    with pytest.raises(client.exceptions.ValidationException, match=re.escape(message)):
        ask(client, 1)
    assert bedrock.statuses == [200, 400, 400]
    assert [place["path"] for place in ask(client, 2)["checkpoints"]] == [p["path"] for p in before["checkpoints"]]
    assert [record.error for record in client.ledger.records] == [None, "ValidationException", None]


def test_the_first_of_two_refusals_is_raised(bedrock: Bedrock) -> None:
    client = bedrock.wrapped()
    bedrock.emulator.fail_next(failed("AccessDeniedException", "the first"))
    bedrock.emulator.fail_next(failed("ValidationException", "the second"))
    with pytest.raises(ClientError, match="the first"):
        client.converse(**QUESTION)
    assert [record.error for record in client.ledger.records] == ["AccessDeniedException"]


def test_a_lasting_denial_costs_one_request_more_in_each_minute(bedrock: Bedrock) -> None:
    client = bedrock.wrapped()
    bedrock.emulator.fail_next(failed("AccessDeniedException"), times=13)
    for number in range(10):
        with pytest.raises(ClientError):
            ask(client, number)
    assert len(bedrock.calls) == 11
    bedrock.clock.advance(60)
    with pytest.raises(ClientError):
        ask(client)
    assert len(bedrock.calls) == 13
    assert ask(client)["status"] == "written"


def test_so_does_one_that_names_its_request(bedrock: Bedrock) -> None:
    client = bedrock.wrapped()
    for number in range(6):
        words = f"No access (request 7f{number}e41b{number}-4c9d, 2026-11-27T10:0{number}:00Z)"
        bedrock.emulator.fail_next(failed("AccessDeniedException", words), times=2 if number == 0 else 1)
        with pytest.raises(ClientError):
            ask(client, number)
    assert len(bedrock.calls) == 7


def test_of_a_refusal_without_a_name_nothing_is_learned(bedrock: Bedrock) -> None:
    """A proxy's 400 is repeated, for it may mean a checkpoint, but says nothing of the model."""
    plain, refused = bedrock.client(), list[bool]()

    def once(**_: Any) -> AWSResponse | None:
        if refused:
            return None
        refused.append(True)
        return AWSResponse("", 400, HTTPHeaders(), SimpleNamespace(stream=lambda **_: [b"upstream connection reset"]))

    plain.meta.events.register("before-send.bedrock-runtime.Converse", once)
    client = cachepoint.wrap(plain, clock=bedrock.clock)
    assert [ask(client, number)["status"] for number in range(3)] == ["uncached", "written", "extended"]
    assert (refused, bedrock.statuses) == ([True], [200] * 3)


def test_a_repeat_that_fails_otherwise_raises_what_the_plain_request_would_have(bedrock: Bedrock) -> None:
    client = bedrock.once()
    bedrock.emulator.fail_next(failed("ValidationException", "Unexpected field type."))
    bedrock.emulator.fail_next(throttled("slow down"))
    with pytest.raises(client.exceptions.ThrottlingException, match="slow down") as raised:
        client.converse(**QUESTION)
    assert isinstance(raised.value.__cause__, client.exceptions.ValidationException)
    assert [record.error for record in client.ledger.records] == ["ThrottlingException"]
    assert client.converse(**QUESTION)["promptCache"]["status"] == "written"  # nothing was learned of it


def test_what_the_user_wrote_is_not_sent_again(bedrock: Bedrock) -> None:
    """Marks of the user's alone: the repeat would be the request that was refused."""
    client = bedrock.wrapped(CachePolicy(mode="explicit"))
    bedrock.emulator.refuse_checkpoints("messages", SONNET)
    with pytest.raises(ClientError, match="extraneous key"):
        client.converse(**{**QUESTION, "messages": [user(DOCUMENT, point(), "Why?")]})
    assert bedrock.statuses == [400]


def test_what_the_user_marked_in_a_refused_section_is_left_out_of_later_calls(bedrock: Bedrock) -> None:
    client = bedrock.wrapped()
    bedrock.emulator.refuse_checkpoints("system", SONNET)
    with pytest.warns(CachepointWarning, match="refused a checkpoint in system"):
        client.converse(**QUESTION)
    marked = {**QUESTION, "system": [text(SYSTEM), point()], "messages": [user(DOCUMENT, "Why?")]}
    with pytest.warns(CachepointWarning, match="left out"):
        told = client.converse(**marked)["promptCache"]
    assert bedrock.statuses == [400, 200, 200]
    assert ("system[0]", "refused") in [(place["path"], place["reason"]) for place in told["held"]]


@pytest.mark.parametrize("error", ["ResourceNotFoundException", "ServiceQuotaExceededException", "ModelErrorException"])
def test_an_error_about_anything_but_the_request_is_not_repeated(bedrock: Bedrock, error: str) -> None:
    client = bedrock.once()
    bedrock.emulator.fail_next(failed(error))
    with pytest.raises(ClientError):
        client.converse(**QUESTION)
    assert len(bedrock.calls) == 1


def test_where_1h_is_refused_later_calls_go_with_5m(bedrock: Bedrock) -> None:
    """The words point at the TTL, so that is left out first; the sections then are taken, and it was the TTL."""
    client = bedrock.wrapped(CachePolicy(ttl="1h"))
    bedrock.emulator.fail_next(
        failed("ValidationException", "Extended TTL prompt caching is only supported for Anthropic models")
    )
    with pytest.warns(CachepointWarning, match="refused a TTL of 1h or a checkpoint in tools"):
        client.converse(**BOTH)
    for number in range(2):
        ask(client, number)
    assert bedrock.statuses == [400, 200, 200, 200]
    sent = [("tools[1]", "5m"), ("system[1]", "5m"), ("messages[0].content[1]", "5m")]
    assert [checkpoints(body) for body in bedrock.bodies] == [[], sent, sent]


def test_a_refusal_of_a_streamed_call_is_treated_alike(bedrock: Bedrock) -> None:
    client = bedrock.wrapped()
    bedrock.emulator.refuse_checkpoints("tools", SONNET)
    with pytest.warns(CachepointWarning, match="refused"):
        events = list(client.converse_stream(**BOTH)["stream"])
    assert events[-1]["metadata"]["promptCache"]["status"] == "uncached"


def test_an_older_botocore_that_knows_no_checkpoint_is_asked_without(bedrock: Bedrock) -> None:
    """It refuses the request itself, and sends nothing."""
    raw = bedrock.client()
    send = raw.converse

    def converse(**request: Any) -> Any:
        if checkpoints(request):
            raise ParamValidationError(report='Unknown parameter in toolConfig.tools[1]: "cachePoint"')
        return send(**request)

    raw.converse = converse
    client = cachepoint.wrap(raw, clock=bedrock.clock)
    with pytest.warns(CachepointWarning, match="refused"):
        assert ask(client)["status"] == "uncached"
    assert bedrock.statuses == [200]


def client_error(code: str, status: int) -> ClientError:
    answer: Any = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, "Converse")


@pytest.mark.parametrize(
    ("code", "status", "refused"),
    [
        ("ValidationException", 400, True),
        ("AccessDeniedException", 403, True),
        ("AccessDeniedException", 401, True),
        ("BadRequestException", 400, True),
        ("400", 400, True),
        ("InvalidRequestException", 422, True),
        ("SerializationException", 400, True),
        ("ThrottlingException", 400, False),
        ("ServiceQuotaExceededException", 400, False),
        ("ExpiredTokenException", 400, False),
        ("ExpiredTokenException", 403, False),
        ("UnrecognizedClientException", 403, False),
        ("InvalidSignatureException", 403, False),
        ("ResourceNotFoundException", 404, False),
        ("ModelTimeoutException", 408, False),
        ("ModelErrorException", 424, False),
        ("TooManyRequestsException", 429, False),
        ("InternalServerException", 500, False),
    ],
)
def test_which_errors_refuse_the_request(code: str, status: int, refused: bool) -> None:
    assert (refusal_in(client_error(code, status), KEY) is not None) is refused
    assert refusal_in(ConnectionError("Unexpected field type."), KEY) is None


# -- faults of its own ----------------------------------------------------------------------------


class Broken(RuntimeError):
    """What a broken part raises."""


@pytest.fixture
def broken(faults: list[Exception]) -> Iterator[None]:
    """For a test in which something is broken: that, and nothing else, was swallowed."""
    yield
    assert {type(fault) for fault in faults} == {Broken}
    faults.clear()


class BrokenStore(MemoryStore):
    """A store that fails in one place."""

    def __init__(self, where: str, error: type[Exception] = Broken) -> None:
        super().__init__()
        self._where, self._error = where, error

    def __getattribute__(self, name: str) -> Any:
        if name == object.__getattribute__(self, "__dict__").get("_where"):
            raise object.__getattribute__(self, "_error")(name)
        return super().__getattribute__(name)


class BrokenPrices:
    """Prices that cannot be told."""

    def price(self, *_: Any, **__: Any) -> None:
        raise Broken("price")


@pytest.mark.usefixtures("broken")
@pytest.mark.parametrize("where", ["key", "visit", "sent"])
def test_where_planning_fails_the_request_goes_out_as_written(bedrock: Bedrock, where: str) -> None:
    request = {**QUESTION, "messages": [user(DOCUMENT, point("1h"), "Why?")]}
    client = bedrock.wrapped(store=BrokenStore(where))
    with pytest.warns(CachepointWarning, match=r"failed inside \(Broken"):
        response = client.converse(**request)
    assert response["output"]
    assert checkpoints(bedrock.bodies[0]) == [("messages[0].content[1]", "1h")]
    assert client.ledger.totals().usage.cache_write > 2000


@pytest.mark.parametrize("where", ["key", "visit"])
def test_a_stores_own_configuration_error_is_no_mistake_in_the_request(
    bedrock: Bedrock, where: str, faults: list[Exception]
) -> None:
    with pytest.warns(CachepointWarning, match="failed inside"):
        assert bedrock.wrapped(store=BrokenStore(where, ConfigurationError)).converse(**QUESTION)["output"]
    assert [type(fault) for fault in faults] == [ConfigurationError]
    faults.clear()


class Forgetful(MemoryStore):
    """A store that fails once it has learned what goes out."""

    def sent(self, *given: Any) -> None:
        super().sent(*given)
        raise Broken("sent")


@pytest.mark.usefixtures("broken")
def test_a_store_that_fails_after_it_learned_is_told_that_nothing_was_sent(bedrock: Bedrock) -> None:
    store = Forgetful()
    with pytest.warns(CachepointWarning, match="failed inside"):
        bedrock.wrapped(store=store).converse(**QUESTION)
    (traffic,) = store._scopes.values()
    assert not traffic.pool.waste.committed
    assert not traffic.entries


@pytest.mark.usefixtures("broken")
@pytest.mark.parametrize("where", ["began", "settled"])
def test_where_learning_fails_the_call_is_recorded_all_the_same(bedrock: Bedrock, where: str) -> None:
    client = bedrock.wrapped(store=BrokenStore(where))
    with pytest.warns(CachepointWarning, match="failed inside"):
        told = client.converse(**QUESTION)["promptCache"]
    assert told["status"] == "written"
    assert client.ledger.totals().calls == 1


@pytest.mark.usefixtures("broken")
def test_where_a_failed_call_cannot_be_forgotten_it_is_still_raised(bedrock: Bedrock) -> None:
    client = bedrock.wrapped(store=BrokenStore("failed"))
    bedrock.emulator.fail_next(failed("ModelErrorException"))
    with pytest.warns(CachepointWarning, match="failed inside"), pytest.raises(ClientError):
        client.converse(**QUESTION)
    assert [record.error for record in client.ledger.records] == ["ModelErrorException"]


@pytest.mark.usefixtures("broken")
def test_where_a_refusal_cannot_be_remembered_the_call_is_repeated_all_the_same(bedrock: Bedrock) -> None:
    client = bedrock.wrapped(store=BrokenStore("refuse"))
    bedrock.emulator.refuse_checkpoints("tools", SONNET)
    with pytest.warns(CachepointWarning, match="refused|failed inside"):
        client.converse(**BOTH)
    assert bedrock.statuses == [400, 200]


def test_where_prices_fail_the_tokens_are_still_counted(bedrock: Bedrock) -> None:
    client = bedrock.wrapped(prices=BrokenPrices())
    # The prices are the user's: what they raise is no fault of ours to report.
    with pytest.warns(CachepointWarning, match=r"the prices \(BrokenPrices\) raised Broken; such calls are recorded"):
        told = client.converse(**QUESTION)["promptCache"]
    assert told["cost"] is None
    assert told["usage"]["cache_write_5m"] > 2000
    assert client.ledger.totals().unpriced == 1


def test_what_a_ledgers_listener_raises_reaches_nobody(bedrock: Bedrock) -> None:
    def listen(_: object) -> None:
        raise Broken("listener")

    ledger = CacheLedger(on_call=listen)
    assert bedrock.wrapped(ledger=ledger).converse(**QUESTION)["promptCache"]["status"] == "written"
    assert ledger.totals().calls == 1


@pytest.mark.usefixtures("broken")
def test_a_warning_made_an_error_does_not_fail_the_call(bedrock: Bedrock, caplog: pytest.LogCaptureFixture) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bedrock.wrapped(store=BrokenStore("visit")).converse(**QUESTION)
    assert "failed inside" in caplog.text


@pytest.mark.usefixtures("broken")
def test_a_failure_is_told_without_a_word_of_the_prompt(bedrock: Bedrock) -> None:
    with pytest.warns(CachepointWarning) as told:
        bedrock.wrapped(store=BrokenStore("visit")).converse(modelId=SONNET, messages=[user("SECRET " + SYSTEM)])
    assert "SECRET" not in str(told[0].message)


@pytest.mark.usefixtures("broken")
def test_a_failure_is_told_once(bedrock: Bedrock) -> None:
    client = bedrock.wrapped(store=BrokenStore("visit"))
    with pytest.warns(CachepointWarning) as told:
        for _ in range(3):
            client.converse(**QUESTION)
    assert len(told) == 1
    assert text(SYSTEM) in bedrock.bodies[0]["system"]


def test_words_are_the_same_whatever_request_they_name() -> None:
    def words(message: str) -> bytes:
        answer: Any = {"Error": {"Code": "AccessDeniedException", "Message": message}}
        refusal = refusal_in(ClientError(answer, "Converse"), KEY)
        assert refusal is not None
        return refusal.words

    named = "No access (request {}), {}"
    assert words(named.format("8f14e45f-ceea-4a5b-9c3d-1234567890ab", "2026-11-27T20:42:45.1Z")) == words(
        named.format("1679091c-5a88-4faf-afb5-e6087eb1b2dc", "2026-11-27T20:42:46.9Z")
    )
    assert words("messages.3.content.1: no") != words("messages.5.content.1: no")


def test_a_denial_with_an_id_in_its_words_does_not_double_the_traffic(bedrock: Bedrock) -> None:
    client = bedrock.wrapped()
    for number in range(5):
        denied = failed("AccessDeniedException", f"Denied, request {number}f14e45f-ceea-4a5b-9c3d-1234567890ab.")
        bedrock.emulator.fail_next(denied, times=2 if number == 0 else 1)
        with pytest.raises(ClientError, match="Denied"):
            client.converse(**question())
    assert bedrock.statuses == [403] * 6
