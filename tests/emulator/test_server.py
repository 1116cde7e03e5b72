"""The emulator as a server: where it listens, how it starts and stops, its time, and its pytest plugin."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tracemalloc
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from emulator.conftest import SONNET, ask, cached_system

from cachepoint.core.provider.usage import Usage
from cachepoint.emulator import BedrockEmulator, Clock, Latency
from cachepoint.errors import EmulatorError


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.1", "example.com", "::"])
def test_it_listens_on_loopback_only(host: str) -> None:
    with pytest.raises(EmulatorError, match=r"loopback only, use 127\.0\.0\.1"):
        BedrockEmulator(host=host)


def test_a_port_in_use_is_named_with_the_remedy(emulator: BedrockEmulator) -> None:
    port = int(emulator.url.rpartition(":")[2])
    with pytest.raises(EmulatorError, match=rf"port {port} on 127\.0\.0\.1 cannot be bound .* use port=0"):
        BedrockEmulator(port).start()


def test_what_was_served_stays_readable_after_the_end() -> None:
    with BedrockEmulator() as emulator:
        emulator.client().converse(modelId=SONNET, messages=ask())
    assert emulator.bill().total > 0
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(emulator.url, timeout=1)


def test_it_can_be_started_again_on_its_port() -> None:
    emulator = BedrockEmulator().start()
    url = emulator.url
    with pytest.raises(EmulatorError, match="runs already"):
        emulator.start()
    emulator.stop()
    emulator.start()
    assert emulator.url == url
    emulator.stop()


def test_unsigned_and_unknown_requests_are_refused(emulator: BedrockEmulator) -> None:
    for path, status in ((f"/model/{SONNET}/converse", 403), ("/model/x/guess", 404)):
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(emulator.url + path, data=b"{}")
        assert caught.value.code == status
        caught.value.close()


def test_concurrent_calls_are_each_served_and_billed_once(emulator: BedrockEmulator, client: Any) -> None:
    def call(number: int) -> Any:
        return client.converse(modelId=SONNET, messages=ask(f"Question {number}?"))["usage"]

    with ThreadPoolExecutor(8) as pool:
        seen = list(pool.map(call, range(80)))
    bill = emulator.bill()
    assert len(bill.lines) == 80
    assert sum(usage["inputTokens"] for usage in seen) == bill.usage.input
    assert not bill.unreported


def test_requests_tell_who_asked_what_and_keep_no_text(emulator: BedrockEmulator) -> None:
    secret = "the code is 4711"
    emulator.client(account="ALICE", region="eu-west-1").converse(modelId=SONNET, messages=ask(secret))
    (request,) = emulator.requests
    assert (request.operation, request.model_id, request.account, request.region, request.time) == (
        "Converse",
        SONNET,
        "ALICE",
        "eu-west-1",
        1_750_000_000.0,
    )
    assert request.body is None
    assert secret not in repr(emulator.requests) + repr(emulator.bill())
    with BedrockEmulator(keep_text=True) as keeping:
        keeping.client().converse(modelId=SONNET, messages=ask(secret))
        assert keeping.requests[0].body == {"messages": ask(secret)}
        assert secret not in repr(keeping.requests)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"hosts": "tunnel"}, "hosts is 'tunnel'; give several names"),
        ({"hosts": [""]}, "'' is no host; give its name"),
        ({"hosts": ["https://tunnel.example"]}, "is no host; give its name, without scheme and port"),
        ({"hosts": ["tunnel.example:80"]}, "is no host"),
        ({"port": "80"}, "port is '80'; give 0 to 65535"),
        ({"replies": "One."}, r"replies is 'One\.'; give a function"),
        ({"profiles": ["arn"]}, "give a mapping from ARN to model id"),
        ({"keep_calls": "all"}, "keep_calls is 'all'; give 1 or more"),
    ],
)
def test_a_setting_of_another_type_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(EmulatorError, match=said):
        BedrockEmulator(**settings)


class TestTime:
    def test_the_clock_runs_on_its_base_and_is_moved_forward(self) -> None:
        clock = Clock(lambda: 100.0)
        assert clock.advance(2.5) == clock() == 102.5
        with pytest.raises(EmulatorError, match="only goes forward"):
            clock.advance(-1)

    def test_a_plain_callable_is_a_clock_that_can_be_moved(self) -> None:
        emulator = BedrockEmulator(clock=lambda: 7.0)
        emulator.clock.advance(1)
        assert emulator.clock() == 8.0

    @pytest.mark.parametrize("base", [1.7e9, 0, "now"])
    def test_what_is_no_function_is_refused_as_a_clock(self, base: Any) -> None:
        remedy = re.escape(f"the clock is {base!r}; use a function that gives the time in seconds")
        with pytest.raises(EmulatorError, match=remedy):
            Clock(base)
        with pytest.raises(EmulatorError, match=remedy):
            BedrockEmulator(clock=base)

    def test_latency_meets_the_pair_it_was_fitted_to(self) -> None:
        latency = Latency()
        uncached, cached = Usage(input=7800, output=300), Usage(cache_read=7800, output=300)
        seconds = [latency.before_first_token(usage) + latency.of_output(usage) for usage in (uncached, cached)]
        assert seconds == pytest.approx([7.61, 3.12], abs=0.01)

    def test_latency_is_reported_and_not_slept(self, client: Any) -> None:
        calls = [client.converse(modelId=SONNET, system=cached_system(), messages=ask()) for _ in range(2)]
        first, second = (call["metrics"]["latencyMs"] for call in calls)
        assert first > second > 200


def test_the_fixture_serves_boto3(bedrock_emulator: BedrockEmulator) -> None:
    assert bedrock_emulator.client().converse(modelId=SONNET, messages=ask())["stopReason"] == "end_turn"


def test_loading_the_pytest_plugin_loads_neither_the_emulator_nor_boto3() -> None:
    code = (
        "import sys, cachepoint.emulator._pytest_plugin;"
        "print(sorted({'boto3', 'botocore', 'uvicorn', 'starlette', 'cachepoint.emulator._server'} & set(sys.modules)))"
    )
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert printed.strip() == "[]"


def test_serve_prints_the_line_that_connects_boto3() -> None:
    code = "import cachepoint.emulator as e; e.serve(port=0)"
    with subprocess.Popen([sys.executable, "-u", "-c", code], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        line = server.stdout.readline()
        assert eval(line, {"boto3": __import__("boto3")}).converse(modelId=SONNET, messages=ask())
        server.terminate()


class Served:
    """An emulator to which calls come a second apart, each with a prefix of its own, every tenth one refused."""

    def __init__(self, keep_calls: int | None) -> None:
        # One reply and few words, so that the bounded memory of token counts is full from the start.
        self.emulator = BedrockEmulator(clock=Clock(lambda: 0.0), replies=lambda _: "Yes.", keep_calls=keep_calls)
        self.came = 0

    def call(self, times: int) -> None:
        headers = {"authorization": "AWS4-HMAC-SHA256 Credential=ME/20261001/us-east-1/bedrock/aws4_request"}
        for _ in range(times):
            self.emulator.clock.advance(1)
            self.came += 1
            number = [{"text": f"digit {digit}"} for digit in str(self.came)]
            messages = [{"role": "user", "content": [*number, {"cachePoint": {"type": "default"}}]}]
            body = {"system": cached_system(), "messages": messages if self.came % 10 else []}
            delivery = self.emulator._service.respond(f"/model/{SONNET}/converse", headers, json.dumps(body).encode())
            delivery.begin()
            delivery.arrived()


class TestCallsKept:
    def test_a_bill_counts_the_calls_it_no_longer_lists(self) -> None:
        all_kept, last_kept = Served(None), Served(3)
        for served in (all_kept, last_kept):
            served.call(25)
        everything, bounded = all_kept.emulator.bill(), last_kept.emulator.bill()
        assert (bounded.total, bounded.usage) == (everything.total, everything.usage)
        assert bounded.lines == everything.lines[-3:]
        assert last_kept.emulator.requests == all_kept.emulator.requests[-3:]
        assert bounded.earlier.calls == 25 - 2 - 3  # two were refused

    def test_an_answer_that_arrives_when_its_call_is_gone_is_no_matter(self) -> None:
        emulator = BedrockEmulator(keep_calls=1)
        streams = [emulator.local_client().converse_stream(modelId=SONNET, messages=ask())["stream"] for _ in range(3)]
        for stream in streams:
            list(stream)
        assert [line.call.delivered for line in emulator.bill().lines] == [True]
        assert emulator.bill().earlier.calls == 2

    def test_a_server_that_keeps_the_last_calls_does_not_grow(self) -> None:
        """With every call kept, and every entry of the cache, this grows by 0.9 kB and more a call."""
        served = Served(100)
        tracemalloc.start()
        try:
            served.call(2049)  # dead entries are dropped with every 1,024th call
            before, _ = tracemalloc.get_traced_memory()
            served.call(1024)
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert after - before < 100 * 1024

    @pytest.mark.parametrize("keep", [0, -1])
    def test_nothing_kept_is_refused_with_the_remedy(self, keep: int) -> None:
        with pytest.raises(EmulatorError, match=f"keep_calls is {keep}; give 1 or more, or None"):
            BedrockEmulator(keep_calls=keep)
