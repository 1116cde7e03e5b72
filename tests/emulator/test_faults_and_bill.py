"""Faults on demand, and a bill that also lists what no caller saw."""

from __future__ import annotations

import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError, EventStreamError, ReadTimeoutError
from botocore.exceptions import ResponseStreamingError as StreamBroken
from emulator.conftest import SONNET, ask, cached_system
from urllib3.exceptions import ProtocolError

from cachepoint.core.provider.usage import Usage
from cachepoint.emulator import (
    BedrockEmulator,
    Bill,
    Text,
    cut_stream,
    failed,
    reset_after_serving,
    reset_before_serving,
    slow,
    stream_error,
    throttled,
)
from cachepoint.errors import EmulatorError

GLOBAL_SONNET = "global.anthropic.claude-sonnet-4-5-20250929-v1:0"
NOVA = "us.amazon.nova-pro-v1:0"
HAIKU_5_5 = "global.anthropic.claude-haiku-5-5"
NO_RETRIES = Config(retries={"total_max_attempts": 1})


@pytest.fixture
def once(emulator: BedrockEmulator) -> Any:
    """A client that sends every call once."""
    return emulator.client(config=NO_RETRIES)


def eventually(condition: Callable[[], bool]) -> bool:
    """Whether a condition comes true in time: the server learns a moment later that a caller left."""
    deadline = time.monotonic() + 30
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def converse(client: Any, **request: Any) -> Any:
    return client.converse(modelId=SONNET, messages=ask(), **request)


@pytest.mark.parametrize(
    ("fault", "name", "status"),
    [
        (throttled(), "ThrottlingException", 429),
        (failed(), "InternalServerException", 500),
        (failed("ServiceUnavailableException"), "ServiceUnavailableException", 503),
        (failed("ModelTimeoutException"), "ModelTimeoutException", 408),
        (failed("ModelErrorException"), "ModelErrorException", 424),
    ],
    ids=lambda value: str(value) if isinstance(value, str) else "",
)
def test_a_planned_error_is_raised_once(
    emulator: BedrockEmulator, once: Any, fault: Any, name: str, status: int
) -> None:
    emulator.fail_next(fault)
    with pytest.raises(ClientError) as caught:
        converse(once)
    assert type(caught.value).__name__ == name
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == status
    assert converse(once)["stopReason"] == "end_turn"
    assert [request.status for request in emulator.requests] == [status, 200]
    assert len(emulator.bill().lines) == 1


def test_botocore_retries_past_throttling_and_a_reset(emulator: BedrockEmulator) -> None:
    client = emulator.client(config=Config(retries={"mode": "standard", "total_max_attempts": 4}))
    emulator.fail_next(throttled())
    emulator.fail_next(reset_before_serving())
    assert converse(client)["stopReason"] == "end_turn"
    assert [request.status for request in emulator.requests] == [429, 0, 200]
    assert not emulator.bill().unreported


def test_a_lost_answer_is_billed_and_unreported(emulator: BedrockEmulator, client: Any) -> None:
    emulator.fail_next(reset_after_serving())
    seen = converse(client, system=cached_system())["usage"]
    lost, answered = emulator.bill().lines
    assert emulator.bill().unreported == (lost,)
    assert lost.usage.cache_write_5m > 0
    assert answered.usage.cache_read == seen["cacheReadInputTokens"] == lost.usage.cache_write_5m


def test_a_lost_answer_without_retries_reaches_the_caller_as_a_closed_connection(
    emulator: BedrockEmulator, once: Any
) -> None:
    emulator.fail_next(reset_after_serving())
    with pytest.raises(ConnectionClosedError):
        converse(once)
    assert len(emulator.bill().unreported) == 1


def test_a_cut_stream_is_billed_and_unreported(emulator: BedrockEmulator, once: Any) -> None:
    emulator.fail_next(cut_stream(after_events=3))
    stream = once.converse_stream(modelId=SONNET, messages=ask())["stream"]
    with pytest.raises((StreamBroken, ProtocolError)):
        list(stream)
    stream.close()
    assert len(emulator.bill().unreported) == 1


def test_a_stream_may_end_without_its_usage(emulator: BedrockEmulator, once: Any) -> None:
    emulator.fail_next(cut_stream(after_events=3, quietly=True))
    events = list(once.converse_stream(modelId=SONNET, messages=ask())["stream"])
    assert len(events) == 3
    assert len(emulator.bill().unreported) == 1


def test_an_error_inside_a_stream_is_raised_while_reading(emulator: BedrockEmulator, once: Any) -> None:
    emulator.fail_next(stream_error("ThrottlingException", after_events=2))
    stream = once.converse_stream(modelId=SONNET, messages=ask())["stream"]
    with pytest.raises(EventStreamError, match="throttlingException"):
        list(stream)
    stream.close()
    assert len(emulator.bill().unreported) == 1


def test_an_abandoned_stream_is_unreported(emulator: BedrockEmulator, once: Any) -> None:
    emulator.fail_next(slow(0.05), times=2)
    stream = once.converse_stream(modelId=SONNET, messages=ask())["stream"]
    next(iter(stream))
    stream.close()
    list(once.converse_stream(modelId=SONNET, messages=ask())["stream"])  # as slow, so that the first is over by now
    assert len(emulator.bill().unreported) == 1


def test_a_stream_whose_rest_stays_unread_in_the_connection_is_unreported(emulator: BedrockEmulator, once: Any) -> None:
    emulator.script(Text("A word and another. " * 20_000))
    stream = once.converse_stream(modelId=SONNET, messages=ask())["stream"]
    next(iter(stream))
    stream.close()
    assert eventually(lambda: len(emulator.bill().unreported) == 1)


def test_a_call_that_times_out_is_unreported(emulator: BedrockEmulator, once: Any) -> None:
    impatient = emulator.client(config=NO_RETRIES.merge(Config(read_timeout=0.2)))
    emulator.fail_next(slow(1.5), times=2)
    with pytest.raises(ReadTimeoutError):
        converse(impatient)
    converse(once)  # as slow, so that the first is over by now
    assert len(emulator.bill().unreported) == 1


def test_a_fault_waits_for_its_operation_and_model(emulator: BedrockEmulator, once: Any) -> None:
    emulator.fail_next(throttled(), operation="ConverseStream")
    emulator.fail_next(throttled(), model_id=GLOBAL_SONNET, times=2)
    assert converse(once)
    for _ in range(2):
        with pytest.raises(once.exceptions.ThrottlingException):
            once.converse(modelId=GLOBAL_SONNET, messages=ask())
    with pytest.raises(once.exceptions.ThrottlingException):
        once.converse_stream(modelId=SONNET, messages=ask())


def test_checkpoints_can_be_refused_by_section(emulator: BedrockEmulator, client: Any) -> None:
    emulator.refuse_checkpoints("system")
    with pytest.raises(client.exceptions.ValidationException, match="#/system/1: extraneous key"):
        converse(client, system=cached_system())
    emulator.accept_checkpoints()
    assert converse(client, system=cached_system())["usage"]["cacheWriteInputTokens"] > 0


def test_an_unknown_error_names_the_known_ones() -> None:
    with pytest.raises(EmulatorError, match="no error named 'Teapot'; use one of ThrottlingException"):
        failed("Teapot")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda emulator: emulator.refuse_checkpoints("sytem"), "section is 'sytem'; use one of tools, system, mess"),
        (lambda emulator: emulator.refuse_checkpoints("system", message=3), "the message of a refusal is 3; give text"),
        (lambda emulator: emulator.fail_next("throttled"), r"the fault is 'throttled'; call .* throttled\(\)"),
        (lambda emulator: emulator.fail_next(throttled), "the fault is <function throttled"),
        (lambda emulator: emulator.fail_next(throttled(), "2"), "times is '2'; give 1 or more"),
        (lambda emulator: emulator.fail_next(throttled(), operation="converse"), "operation is 'converse'; use one"),
        (lambda emulator: emulator.fail_next(slow(-1)), "pause is -1; give seconds, 0 or more"),
        (lambda emulator: emulator.fail_next(cut_stream(-1)), "after_events is -1; give how many"),
        (lambda emulator: emulator.fail_next(throttled(b"No")), "message is b'No'; give text"),  # type: ignore[arg-type]
    ],
)  # fmt: skip
def test_a_fault_that_could_never_come_is_refused(
    emulator: BedrockEmulator, wrong: Callable[[BedrockEmulator], None], said: str
) -> None:
    with pytest.raises(EmulatorError, match=said):
        wrong(emulator)


class TestPrices:
    """Amounts worked out by hand from the prices per million tokens in the model table."""

    def bill(self, emulator: BedrockEmulator, model: str, **request: Any) -> tuple[Bill, Usage]:
        emulator.client().converse(modelId=model, messages=ask(), **request)
        bill = emulator.bill()
        return bill, bill.lines[-1].usage

    def test_every_class_has_its_price(self, emulator: BedrockEmulator) -> None:
        bill, used = self.bill(emulator, GLOBAL_SONNET, system=cached_system(ttl="1h"))
        written = Decimal(used.input * 3 + used.cache_write_1h * 6 + used.output * 15) / 1_000_000
        assert used.cache_write_1h > 1024
        assert bill.total == written
        bill, used = self.bill(emulator, GLOBAL_SONNET, system=cached_system(ttl="1h"))
        read = (used.input * 3 + used.cache_read * Decimal("0.3") + used.output * 15) / 1_000_000
        assert bill.total == written + read

    def test_a_regional_profile_costs_a_tenth_more(self, emulator: BedrockEmulator) -> None:
        bill, used = self.bill(emulator, SONNET)
        assert bill.total == (used.input * Decimal("3.3") + used.output * Decimal("16.5")) / 1_000_000

    def test_a_long_prompt_costs_five_times_on_haiku_5_5(self, emulator: BedrockEmulator) -> None:
        bill, used = self.bill(emulator, HAIKU_5_5, system=[{"text": "word " * 110_000}])
        assert used.prompt > 100_000
        assert bill.total == (used.input * Decimal("0.5") + used.output * Decimal("2.5")) / 1_000_000

    def test_a_service_tier_is_repeated_and_priced(self, emulator: BedrockEmulator) -> None:
        tier = {"type": "priority"}
        response = emulator.client().converse(modelId=NOVA, messages=ask(), serviceTier=tier)
        (line,) = emulator.bill().lines
        assert response["serviceTier"] == tier
        standard = (line.usage.input * Decimal("0.8") + line.usage.output * Decimal("3.2")) / 1_000_000
        assert line.usd == standard * Decimal("1.75")

    def test_a_service_tier_of_unknown_price_has_none(self, emulator: BedrockEmulator) -> None:
        bill, _ = self.bill(emulator, SONNET, serviceTier={"type": "flex"})
        assert bill.lines[0].usd is None

    def test_a_model_without_a_price_has_none(self, emulator: BedrockEmulator) -> None:
        bill, used = self.bill(emulator, "qwen.qwen3-32b-v1:0")
        assert (bill.lines[0].usd, bill.total) == (None, Decimal(0))
        assert used.input > 0

    def test_the_bill_adds_up_its_tokens(self, emulator: BedrockEmulator) -> None:
        _, first = self.bill(emulator, SONNET)
        bill, second = self.bill(emulator, GLOBAL_SONNET)
        assert bill.usage == first + second
