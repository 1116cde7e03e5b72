"""The client without a socket: the answers, errors, faults and bills of boto3 over the wire."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionClosedError,
    EventStreamError,
    ResponseStreamingError,
)
from emulator.conftest import LONG_TEXT, SONNET, ask, cached_system
from urllib3.exceptions import ProtocolError

from cachepoint.emulator import (
    BedrockEmulator,
    Clock,
    Latency,
    Reasoning,
    Text,
    ToolCall,
    cut_stream,
    reset_after_serving,
    reset_before_serving,
    stream_error,
    throttled,
)

HAIKU = "anthropic.claude-haiku-4-5-20251001-v1:0"
NOVA = "us.amazon.nova-pro-v1:0"
ONCE = Config(retries={"total_max_attempts": 1})
MESSAGES: dict[str, Any] = {
    "anthropic_version": "bedrock-2023-05-31",
    "max_tokens": 64,
    "system": [{"type": "text", "text": LONG_TEXT, "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
    "messages": [{"role": "user", "content": "Is it?"}],
}
CONVERSE: dict[str, Any] = {"modelId": SONNET, "system": cached_system(), "messages": ask()}
INVOKE: dict[str, Any] = {"modelId": SONNET, "body": json.dumps(MESSAGES)}
COUNT = {"modelId": HAIKU, "input": {"converse": {"messages": ask()}}}

Call = tuple[str, dict[str, Any]]
# In this order, so that later calls read what earlier ones wrote; the last ones are refused.
CALLS: list[Call] = [
    ("converse", CONVERSE),
    ("converse", CONVERSE),
    ("converse_stream", CONVERSE),
    ("invoke_model", INVOKE),
    ("invoke_model", {**INVOKE, "body": INVOKE["body"].encode(), "serviceTier": "default"}),
    ("invoke_model_with_response_stream", INVOKE),
    ("count_tokens", COUNT),
    ("converse", {"modelId": NOVA, "messages": ask("Grüße, 世界"), "serviceTier": {"type": "priority"}}),
    ("converse", {"modelId": f"arn:aws:bedrock:us-east-1:1:inference-profile/{NOVA}", "messages": ask()}),
    ("converse", {"modelId": SONNET, "messages": ask(" ")}),
    ("converse_stream", {"modelId": "nonsense", "messages": ask()}),
    ("invoke_model", {"modelId": NOVA, "body": "{}"}),
    ("count_tokens", {**COUNT, "modelId": NOVA}),
    ("converse", {"modelId": SONNET, "messages": "not a list"}),
]
SCRIPT = [Reasoning("Well."), Text("It is a sunny day at sea, as it was before."), ToolCall("lamp", {"on": [True]})]


@pytest.fixture
def emulator() -> BedrockEmulator:
    """One that is never started."""
    return BedrockEmulator(clock=Clock(lambda: 1_790_000_000.0))


@pytest.fixture(params=["local", "socket"])
def either(request: pytest.FixtureRequest, emulator: BedrockEmulator) -> Iterator[Any]:
    """A client that sends every call once, of either kind."""
    if request.param == "local":
        yield emulator.local_client(config=ONCE)
    else:
        with emulator:
            yield emulator.client(config=ONCE)


def outcome(client: Any, operation: str, request: dict[str, Any]) -> Any:
    """All a program can see of a call, but for ids and the HTTP layer's own headers."""
    try:
        answer = getattr(client, operation)(**request)
    except (BotoCoreError, ClientError) as error:
        seen = getattr(error, "response", None) or str(error)
        return type(error).__name__, plain(seen)
    return plain(answer)


def plain(value: Any) -> Any:
    if isinstance(value, dict):
        headers = ("date", "transfer-encoding", "RequestId", "x-amzn-requestid")
        return {key: plain(each) for key, each in value.items() if key not in headers}
    if isinstance(value, list):
        return [plain(each) for each in value]
    if hasattr(value, "read"):
        value = value.read()
    elif hasattr(value, "__iter__") and not isinstance(value, str | bytes):
        return [plain(event) for event in value]
    return re.sub(r"msg_bdrk_[0-9a-f-]+", "ID", value.decode() if isinstance(value, bytes) else str(value))


def test_every_call_answers_and_costs_as_over_the_socket() -> None:
    clock, replies = Clock(lambda: 1_790_000_000.0), lambda _: SCRIPT
    local = BedrockEmulator(clock=clock, replies=replies)
    with BedrockEmulator(clock=clock, replies=replies) as served:
        here, there = local.local_client(), served.client()
        for operation, request in CALLS:
            assert outcome(here, operation, request) == outcome(there, operation, request)
    assert local.requests == served.requests
    assert local.bill() == served.bill()
    assert local.bill().total > 0
    assert {call.status for call in local.requests} == {200, 400}


def test_it_names_its_region_and_an_endpoint_that_is_none(emulator: BedrockEmulator) -> None:
    client = emulator.local_client(region="eu-west-1", account="ALICE")
    client.converse(modelId=SONNET, messages=ask())
    (call,) = emulator.requests
    assert (call.region, call.account) == ("eu-west-1", "ALICE")
    assert (client.meta.region_name, client.meta.endpoint_url) == ("eu-west-1", "http://emulator.invalid")


def test_streams_are_botocores_and_raise_its_errors(either: Any, emulator: BedrockEmulator) -> None:
    emulator.fail_next(stream_error("ThrottlingException", after_events=2))
    emulator.fail_next(cut_stream(after_events=3))
    emulator.fail_next(cut_stream(after_events=3, quietly=True))
    failing = either.converse_stream(modelId=SONNET, messages=ask())["stream"]
    with pytest.raises(EventStreamError, match="throttlingException"):
        list(failing)
    failing.close()
    broken = either.converse_stream(modelId=SONNET, messages=ask())["stream"]
    with pytest.raises((ProtocolError, ResponseStreamingError)):
        list(broken)
    broken.close()
    assert len(list(either.converse_stream(modelId=SONNET, messages=ask())["stream"])) == 3
    assert len(emulator.bill().unreported) == 3


def test_a_reset_is_a_closed_connection_and_only_a_served_one_is_billed(either: Any, emulator: BedrockEmulator) -> None:
    for fault in (reset_before_serving(), reset_after_serving()):
        emulator.fail_next(fault)
        with pytest.raises(ConnectionClosedError):
            either.converse(**CONVERSE)
    assert [call.status for call in emulator.requests] == [0, 200]
    assert len(emulator.bill().unreported) == len(emulator.bill().lines) == 1


def test_botocore_asks_again_after_throttling_and_lost_answers(emulator: BedrockEmulator) -> None:
    client = emulator.local_client(config=Config(retries={"mode": "standard", "total_max_attempts": 4}))
    emulator.fail_next(throttled())
    emulator.fail_next(reset_after_serving())
    assert client.converse(**CONVERSE)["usage"]["cacheReadInputTokens"] > 1024
    assert [call.status for call in emulator.requests] == [429, 200, 200]
    emulator.fail_next(throttled(), times=4)
    with pytest.raises(client.exceptions.ThrottlingException):
        client.converse(**CONVERSE)


def test_a_stream_nobody_reads_to_its_end_is_unreported(emulator: BedrockEmulator) -> None:
    client = emulator.local_client()
    stream = client.converse_stream(modelId=SONNET, messages=ask())["stream"]
    next(iter(stream))
    stream.close()
    assert list(stream) == []
    assert len(emulator.bill().unreported) == 1


def test_what_a_call_wrote_is_read_only_once_its_response_began() -> None:
    emulator = BedrockEmulator(latency=Latency(0.3, 0, 0, 0, sleep=True))
    clients = [emulator.local_client() for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        usages = list(pool.map(lambda client: client.converse(**CONVERSE)["usage"], clients))
    assert [usage["cacheReadInputTokens"] for usage in usages] == [0, 0, 0]
    assert clients[0].converse(**CONVERSE)["usage"]["cacheReadInputTokens"] > 1024


def test_many_threads_share_a_client(emulator: BedrockEmulator) -> None:
    client = emulator.local_client()

    def call(number: int) -> Any:
        return client.converse(modelId=SONNET, messages=ask(f"Question {number}?"))

    with ThreadPoolExecutor(8) as pool:
        seen = list(pool.map(call, range(80)))
    assert sum(answer["usage"]["inputTokens"] for answer in seen) == emulator.bill().usage.input
    assert not emulator.bill().unreported


def test_a_mistake_in_a_script_is_a_server_error(emulator: BedrockEmulator) -> None:
    emulator.script(lambda question: question.nothing)  # type: ignore[attr-defined]
    with pytest.raises(ClientError, match="emulator: AttributeError"):
        emulator.local_client(config=ONCE).converse(modelId=SONNET, messages=ask())


def test_it_needs_no_server() -> None:
    code = (
        "import sys; sys.modules['uvicorn'] = None\n"
        "from cachepoint.emulator import BedrockEmulator\n"
        f"answer = BedrockEmulator().local_client().converse(modelId={SONNET!r}, messages={ask()!r})\n"
        "print(answer['stopReason'])"
    )
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert printed.strip() == "end_turn"
