"""The emulator against whatever comes in by its port: odd, late, large, malformed and foreign requests, and many."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from emulator.conftest import SONNET, ask, cached_system

import cachepoint
from cachepoint.emulator import BedrockEmulator, _http, _uvicorn_server

SIGNED = {"authorization": "AWS4-HMAC-SHA256 Credential=ME/20261001/us-east-1/bedrock/aws4_request"}
PATH = f"/model/{SONNET}/converse"
QUESTION = json.dumps({"messages": ask()}).encode()


def address(emulator: BedrockEmulator) -> tuple[str, int]:
    return "127.0.0.1", int(emulator.url.rpartition(":")[2])


@contextmanager
def connected(emulator: BedrockEmulator) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection(*address(emulator), timeout=20)
    try:
        yield connection
    finally:
        connection.close()


def asked(emulator: BedrockEmulator, path: str = PATH, body: Any = QUESTION, **headers: str) -> tuple[int, Any]:
    """Status and body of one answer."""
    with connected(emulator) as connection:
        connection.request("POST", path, body, {**SIGNED, **headers})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


def sent(emulator: BedrockEmulator, raw: bytes) -> bytes:
    """All that comes back for these bytes until the connection is closed, which whoever sends them does first."""
    with socket.create_connection(address(emulator), timeout=20) as connection:
        try:
            connection.sendall(raw)
            with suppress(OSError):  # the server may have closed it by now, which is no ConnectionError here
                connection.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: connection.recv(65536), b""))
        except ConnectionError:
            return b""


def is_closed(connection: socket.socket) -> bool:
    """Whether the other side ends a connection, in whichever way."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


# -- who asks, and where from -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "region", ["..", ".", "x", "us-east-1%2f..", "US-EAST-1", "us-east-1\\..", "us-east-123", "a" * 300]
)
def test_a_region_that_is_none_is_refused_and_names_no_folder(tmp_path: Path, region: str) -> None:
    folder = tmp_path / "logs"
    with BedrockEmulator(log_folder=folder) as emulator:
        authorization = SIGNED["authorization"].replace("us-east-1", region)
        status, answer = asked(emulator, authorization=authorization)
        assert (status, answer["message"]) == (403, "Credential should be scoped to a valid region.")
        assert not [*folder.rglob("*")]
        assert [*tmp_path.iterdir()] == [folder]


@pytest.mark.parametrize(
    "region", ["us-east-1", "us-gov-west-1", "ap-southeast-12", "eusc-de-east-1", "us-isob-east-1"]
)
def test_every_partitions_regions_are_served(emulator: BedrockEmulator, region: str) -> None:
    assert asked(emulator, authorization=SIGNED["authorization"].replace("us-east-1", region))[0] == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "10.0.0.1", "[", "", "::1"]
)
def test_another_hosts_name_is_refused(emulator: BedrockEmulator, host: str) -> None:
    """A web page whose name leads to 127.0.0.1 is of the same origin as what answers there."""
    status, answer = asked(emulator, host=host)
    assert status == 403
    assert "localhost and loopback addresses only; name other hosts in `hosts` or --allow-host" in answer["message"]


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:9", "127.3.2.1", "[::1]:8765"])
def test_loopbacks_own_names_are_served(emulator: BedrockEmulator, host: str) -> None:
    assert asked(emulator, host=host)[0] == 200


def test_and_so_are_hosts_that_are_named() -> None:
    with BedrockEmulator(hosts=["Bedrock.test"]) as emulator:
        assert asked(emulator, host="bedrock.test:443")[0] == 200
        assert asked(emulator, host="other.test")[0] == 403


# -- limits -------------------------------------------------------------------------------------------


def test_a_body_beyond_bedrocks_limit_is_refused_and_not_kept(
    emulator: BedrockEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _http.LARGEST_BODY == 25_000_000
    monkeypatch.setattr(_http, "LARGEST_BODY", len(QUESTION))
    assert asked(emulator)[0] == 200
    assert asked(emulator, body=QUESTION + b" ")[0] == 413
    status, answer = asked(emulator, body=iter([QUESTION] * 100))  # in chunks, of which nobody says the sum
    assert (status, answer["message"]) == (413, f"A body has {len(QUESTION)} bytes at most.")
    assert [call.status for call in emulator.requests] == [200, 413, 413]


@pytest.mark.parametrize(
    "begun",
    [b"", b"POST /mod", b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\n{"],
    ids=["silent", "head", "body"],
)
def test_a_request_that_does_not_come_to_its_end_is_given_up(
    emulator: BedrockEmulator, monkeypatch: pytest.MonkeyPatch, begun: bytes
) -> None:
    monkeypatch.setattr(_http, "_READ_SECONDS", 0.1)
    with socket.create_connection(address(emulator), timeout=20) as connection:
        connection.sendall(begun)
        assert is_closed(connection)
    assert asked(emulator)[0] == 200


def test_a_connection_may_rest_between_requests_but_not_in_one(
    emulator: BedrockEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_http, "_READ_SECONDS", 0.1)
    with connected(emulator) as connection:
        for _ in range(2):
            connection.request("POST", PATH, QUESTION, SIGNED)
            assert connection.getresponse().read()
            assert connection.sock is not None
            connection.sock.settimeout(0.3)
            with pytest.raises(TimeoutError):
                connection.sock.recv(1)
            connection.sock.settimeout(20)
        connection.sock.sendall(b"POST /mod")
        assert is_closed(connection.sock)


def test_whoever_comes_when_too_many_are_there_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_uvicorn_server, "_most_connections", lambda: 2)
    with BedrockEmulator() as emulator:
        with connected(emulator) as first, connected(emulator) as second:
            for each, expected in ((first, 200), (second, 503)):
                each.request("POST", PATH, QUESTION, SIGNED)
                answer = each.getresponse()
                answer.read()
                assert answer.status == expected
        assert len(emulator.requests) == 1


# -- what is no request -------------------------------------------------------------------------------

HEAD = b"POST " + PATH.encode() + b" HTTP/1.1\r\nhost: localhost\r\nauthorization: " + SIGNED["authorization"].encode()


@pytest.mark.parametrize(
    "raw",
    [
        b"\x00\x01\x02\xff" * 100,
        b"GET\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/9.9\r\nhost: localhost\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"GET http://localhost/ HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"POST /model/\xff\xfe/converse HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"POST /model/%ff%00%2f..%2f/converse HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: localhost\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: localhost\r\n" + b"x-y: z\r\n" * 20_000 + b"\r\n",
        HEAD + b"\r\ncontent-length: -1\r\n\r\n{}",
        HEAD + b"\r\ncontent-length: x\r\n\r\n{}",
        HEAD + b"\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}",
        HEAD + b"\r\ncontent-length: 1000\r\n\r\n{}",
        HEAD + b"\r\ncontent-length: 99999999999999999999\r\n\r\n{}",
        HEAD + b"\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n{}",
        HEAD + b"\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffffffff\r\n{}",
        HEAD + b"\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}",
        HEAD + b"\r\ntransfer-encoding: gzip\r\n\r\n{}",
        HEAD + b"\r\nx-\xff: \xff\r\n\r\n{}",
        HEAD + b"\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n{}",
        (HEAD + b"\r\ncontent-length: 2\r\n\r\n{}") * 20,
    ],
    ids=range(22),
)
def test_malformed_http_ends_its_connection_and_nothing_else(
    emulator: BedrockEmulator, raw: bytes, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    sent(emulator, raw)
    assert asked(emulator)[0] == 200
    assert not [record for record in caplog.records if record.exc_info]
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize(
    "body",
    [
        b"", b"null", b"[]", b"{", b"\xff\xfe", b"NaN", b"[" * 200_000, b'{"messages":NaN}', b'{"messages":[null]}',
        b'{"messages":[{"role":[],"content":{}}]}', b'{"messages":{"a":1}}', b'{"messages":1e999}', b"1" * 5000,
        b'{"messages":[{"role":"user","content":[{"text":"\\ud800"}]}],"system":5}', b'{"input":[]}',
        b'{"input":{"invokeModel":{"body":5}}}', b'{"input":{"invokeModel":{"body":"bnVsbA=="}}}',
        b'{"serviceTier":{"type":[]},"messages":[{"role":"user","content":[{"text":"a"}]}]}',
        b'{"serviceTier":5,"messages":[{"role":"user","content":[{"text":"a"}]}]}',
        b'{"anthropic_version":"bedrock-2023-05-31","max_tokens":1e400,"messages":[{"role":"user","content":"a"}]}',
    ],
    ids=range(20),
)  # fmt: skip
@pytest.mark.parametrize("operation", ["converse", "converse-stream", "invoke", "count-tokens", "no-such"])
def test_a_body_that_is_no_request_is_refused_and_no_error_of_the_emulators(
    body: bytes, operation: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = SONNET.removeprefix("us.") if operation == "count-tokens" else SONNET
    delivery = BedrockEmulator()._service.respond(f"/model/{model}/{operation}", SIGNED, body)
    assert delivery.written.status != 500, delivery.written.body
    assert not [record for record in caplog.records if record.exc_info]


def test_a_caller_who_leaves_within_its_body_has_asked_nothing(emulator: BedrockEmulator) -> None:
    sent(emulator, HEAD + b"\r\ncontent-length: 1000\r\n\r\n{}")
    assert asked(emulator)[0] == 200
    assert [call.status for call in emulator.requests] == [200]


def test_a_log_that_can_no_longer_be_written_costs_no_answer(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with BedrockEmulator(log_folder=tmp_path) as emulator:
        (tmp_path / "AWSLogs").write_text("a file where a folder is wanted")
        assert asked(emulator)[0] == 200
    assert "a call is missing in the invocation log" in caplog.text


# -- many at once -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "clients",
    [10, pytest.param(200, marks=pytest.mark.long("200 clients with a connection each"))],
)
def test_as_many_clients_as_come_are_all_answered_and_billed_once(clients: int) -> None:
    """Each asks four times; what their ledger has is the bill, of which only the last calls are kept one by one."""
    ledger, store = cachepoint.CacheLedger(), cachepoint.MemoryStore()

    def client(number: int) -> None:
        with closing(emulator.client()) as plain:
            wrapped = cachepoint.wrap(plain, ledger=ledger, store=store)
            for time in range(4):
                wrapped.converse(
                    modelId=SONNET, system=cached_system()[:1], messages=ask(f"Question {number}, {time}?")
                )

    with BedrockEmulator(keep_calls=20) as emulator:
        with ThreadPoolExecutor(clients) as pool:
            assert len([*pool.map(client, range(clients))]) == clients
        bill, totals = emulator.bill(), ledger.totals()
        assert len(emulator.requests) == 20
    assert totals.calls == len(bill.lines) + bill.earlier.calls == 4 * clients
    assert (totals.usage, totals.cost.usd) == (bill.usage, bill.total)


def test_a_server_that_stops_says_nothing_of_what_it_drops(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """uvicorn logs whatever its application raises, the end of a cancelled task too."""
    monkeypatch.setattr(_uvicorn_server, "_GRACE_SECONDS", 0.05)
    head = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{{".encode()
    with BedrockEmulator() as emulator, socket.create_connection(address(emulator)) as caller:
        caller.sendall(head)
        assert asked(emulator)[0] == 200  # the server has seen the half one by now
        emulator.stop()
        assert is_closed(caller)
    assert caplog.messages == []
