"""Caching never makes a call fail: not by a refused checkpoint, nor by a fault of the service's or of its own."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError, ConnectionClosedError
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

from cachepoint import CacheLedger, CachePolicy, MemoryStore
from cachepoint.emulator import failed, reset_after_serving, reset_before_serving, throttled
from cachepoint.errors import CachepointWarning, ConfigurationError

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


def test_a_lost_connection_is_recorded(bedrock: Bedrock) -> None:
    client = bedrock.once()
    bedrock.emulator.fail_next(reset_before_serving())
    with pytest.raises(ConnectionClosedError):
        client.converse(**QUESTION)
    assert [record.error for record in client.ledger.records] == ["ConnectionClosedError"]


# -- refused checkpoints --------------------------------------------------------------------------


def test_a_refused_checkpoint_is_removed_and_the_call_repeated(bedrock: Bedrock) -> None:
    client = bedrock.wrapped()
    bedrock.emulator.refuse_checkpoints("tools", SONNET)
    with pytest.warns(CachepointWarning, match="refused a checkpoint in tools"):
        told = client.converse(**BOTH)["promptCache"]
    assert bedrock.statuses == [400, 200]
    assert told["status"] == "written"
    assert [place["path"] for place in told["checkpoints"]] == ["system[1]", "messages[0].content[1]"]
    assert ("tools[0]", "refused") in [(place["path"], place["reason"]) for place in told["held"]]
    assert checkpoints(bedrock.bodies[0]) == [("system[1]", "5m"), ("messages[0].content[1]", "5m")]
    assert client.ledger.totals().calls == 1


@pytest.mark.parametrize("learn", [True, False])
def test_a_refusal_is_remembered(bedrock: Bedrock, learn: bool) -> None:
    client = bedrock.wrapped(CachePolicy(learn=learn))
    bedrock.emulator.refuse_checkpoints("tools", SONNET)
    with pytest.warns(CachepointWarning):
        client.converse(**BOTH)
    client.converse(**{**BOTH, "messages": [user("And now?")]})
    assert bedrock.statuses == [400, 200, 200]


def test_a_refusal_holds_for_its_model_only(bedrock: Bedrock) -> None:
    client = bedrock.wrapped()
    bedrock.emulator.refuse_checkpoints("tools", SONNET)
    with pytest.warns(CachepointWarning):
        client.converse(**BOTH)
    told = client.converse(**{**BOTH, "modelId": SONNET_46})["promptCache"]
    assert told["checkpoints"][0]["path"] == "tools[1]"


def test_a_model_that_refuses_two_sections_is_still_answered(bedrock: Bedrock) -> None:
    client = bedrock.wrapped()
    bedrock.emulator.refuse_checkpoints("tools", SONNET)
    bedrock.emulator.refuse_checkpoints("system", SONNET)
    with pytest.warns(CachepointWarning):
        client.converse(**BOTH)
    assert bedrock.statuses == [400, 400, 200]
    assert client.ledger.totals().calls == 1


def test_a_model_that_denies_caching_altogether_gets_no_checkpoint(bedrock: Bedrock) -> None:
    client = bedrock.wrapped()
    denied = "You invoked an unsupported model or your request did not allow prompt caching. See the documentation."
    bedrock.emulator.fail_next(failed("AccessDeniedException", denied))
    with pytest.warns(CachepointWarning, match="refused a checkpoint in the request"):
        client.converse(**BOTH)
    client.converse(**BOTH)
    assert bedrock.statuses == [403, 200, 200]
    assert [checkpoints(body) for body in bedrock.bodies] == [[], []]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ("ValidationException", "The throttled bottle is too little."),
        ("ValidationException", "messages.0.content.0.text: too long"),
        ("AccessDeniedException", "You don't have access to the model with the specified model ID."),
    ],
)
def test_an_error_about_anything_else_is_the_users(bedrock: Bedrock, error: str, message: str) -> None:
    client = bedrock.wrapped()
    bedrock.emulator.fail_next(failed(error, message))
    with pytest.raises(ClientError, match=message[:20]):
        client.converse(**QUESTION)
    assert len(bedrock.calls) == 1


def test_what_the_user_marked_in_a_refused_section_is_removed_as_well(bedrock: Bedrock) -> None:
    client = bedrock.wrapped(CachePolicy(mode="explicit"))
    bedrock.emulator.refuse_checkpoints("messages", SONNET)
    request = {**QUESTION, "messages": [user(DOCUMENT, point(), "Why?")]}
    with pytest.warns(CachepointWarning, match="refused"):
        client.converse(**request)
    assert bedrock.statuses == [400, 200]


NO_LONG_TTL = [
    "Extended TTL prompt caching is only supported for Anthropic models",
    "The model returned the following errors: system.1.cache_control.ephemeral.ttl: Extra inputs are not permitted",
]


@pytest.mark.parametrize("message", NO_LONG_TTL)
@pytest.mark.parametrize("learn", [True, False])
def test_where_1h_is_refused_this_call_and_all_later_ones_go_with_5m(
    bedrock: Bedrock, message: str, learn: bool
) -> None:
    client = bedrock.wrapped(CachePolicy(ttl="1h", learn=learn))
    bedrock.emulator.fail_next(failed("ValidationException", message))
    with pytest.warns(CachepointWarning, match="refused a TTL of 1h; the call was repeated with 5m"):
        told = client.converse(**BOTH)["promptCache"]
    assert told["status"] == "written"
    client.converse(**{**BOTH, "messages": [user("And now?")]})
    assert bedrock.statuses == [400, 200, 200]
    sent = [("tools[1]", "5m"), ("system[1]", "5m"), ("messages[0].content[1]", "5m")]
    assert [checkpoints(body) for body in bedrock.bodies] == [sent] * 2
    assert {place["ttl"] for place in told["checkpoints"]} == {"5m"}


def test_what_the_user_marked_1h_is_sent_with_5m_where_the_service_has_no_1h(bedrock: Bedrock) -> None:
    client = bedrock.wrapped(CachePolicy(mode="explicit"))
    request = {**QUESTION, "messages": [user(DOCUMENT, point("1h"), "Why?")]}
    bedrock.emulator.fail_next(failed("ValidationException", NO_LONG_TTL[1]))
    with pytest.warns(CachepointWarning) as warned:
        statuses = [client.converse(**request)["promptCache"]["status"] for _ in range(2)]
    assert statuses == ["written", "hit"]
    assert [checkpoints(body) for body in bedrock.bodies] == [[("messages[0].content[1]", "5m")]] * 2
    assert "lowered to 5m" in str(warned[-1].message)


def test_a_1h_refused_for_one_model_is_asked_of_another(bedrock: Bedrock) -> None:
    client = bedrock.wrapped(CachePolicy(ttl="1h"))
    bedrock.emulator.fail_next(failed("ValidationException", NO_LONG_TTL[0]))
    with pytest.warns(CachepointWarning, match="1h"):
        client.converse(**QUESTION)
    client.converse(**question(0, SONNET_46))
    assert [checkpoints(body) for body in bedrock.bodies] == [[("system[1]", "5m")], [("system[1]", "1h")]]


def test_a_1h_in_the_wrong_place_is_no_missing_1h(bedrock: Bedrock) -> None:
    client = bedrock.wrapped(CachePolicy(ttl="1h"))
    order = (
        "system.1.cache_control.ttl: a ttl='1h' cache_control block must not come after a ttl='5m' cache_control block."
    )
    bedrock.emulator.fail_next(failed("ValidationException", order))
    with pytest.warns(CachepointWarning, match="refused a checkpoint in system"):
        client.converse(**BOTH)
    assert {ttl for _, ttl in checkpoints(bedrock.bodies[0])} == {"1h"}


def test_a_refusal_of_a_streamed_call_is_treated_alike(bedrock: Bedrock) -> None:
    client = bedrock.wrapped()
    bedrock.emulator.refuse_checkpoints("tools", SONNET)
    with pytest.warns(CachepointWarning, match="refused"):
        events = list(client.converse_stream(**BOTH)["stream"])
    assert events[-1]["metadata"]["promptCache"]["status"] == "written"


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
