"""InvokeModel with bodies of other formats: passed on as they are, accounted by what headers and metrics say."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import boto3
import pytest
from botocore.exceptions import ResponseStreamingError
from converse_kit import LLAMA, NOVA

import cachepoint
from cachepoint.bedrock.client import CacheClient
from cachepoint.emulator._answering.eventstream import event_frame

Json = dict[str, Any]

COUNTS = {"X-Amzn-Bedrock-Input-Token-Count": "12", "X-Amzn-Bedrock-Output-Token-Count": "34"}
NOVA_COUNTS = {**COUNTS, "X-Amzn-Bedrock-Cache-Read-Input-Token-Count": "1500"}
HAIKU = "anthropic.claude-3-haiku-20240307-v1:0"
QUESTION = (
    b'{"anthropic_version": "bedrock-2023-05-31", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}'
)
NOVA_BODY = {
    "schemaVersion": "messages-v1",
    "system": [{"text": "Be brief. " * 900, "cachePoint": {"type": "default"}}],
    "messages": [{"role": "user", "content": [{"text": "Why?"}]}],
}
METRICS = {"inputTokenCount": 12, "outputTokenCount": 34, "invocationLatency": 5, "firstByteLatency": 2}


class Service:
    """A service that answers every call with the same bytes, and keeps what it was sent."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.headers: dict[str, str] = {}
        self.answer = b'{"generation": "Because.", "stop_reason": "stop"}'
        self.received: list[bytes] = []

    def wrapped(self) -> CacheClient:
        client = boto3.client(
            "bedrock-runtime", region_name="us-east-1", endpoint_url=self.url,
            aws_access_key_id="TEST", aws_secret_access_key="test",
        )  # fmt: skip
        return cachepoint.wrap(client)

    def streams(self, *events: Json | str) -> None:
        """Answer with these as the events of a stream."""
        raw = [(event if isinstance(event, str) else json.dumps(event)).encode() for event in events]
        self.headers["Content-Type"] = "application/vnd.amazon.eventstream"
        self.answer = b"".join(event_frame("chunk", {"bytes": base64.b64encode(each).decode()}) for each in raw)


@pytest.fixture
def service() -> Iterator[Service]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            made.received.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            for name, value in {"Content-Length": str(len(made.answer)), **made.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(made.answer)

        def log_message(self, *args: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made = Service(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield made
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_nova_body_goes_out_as_it_is_and_its_headers_are_accounted(service: Service) -> None:
    service.headers = NOVA_COUNTS
    wrapped = service.wrapped()
    body = json.dumps(NOVA_BODY, indent=1)
    told = wrapped.invoke_model(modelId=NOVA, body=body)["promptCache"]
    assert service.received == [body.encode()]
    assert (told["status"], told["usage"]["input"], told["usage"]["cache_read"]) == ("hit", 12, 1500)
    assert wrapped.ledger.totals().cost.usd > 0


def test_the_answer_is_left_for_the_caller_to_read(service: Service) -> None:
    response = service.wrapped().invoke_model(modelId=LLAMA, body=b'{"prompt": "Why?"}')
    assert response["body"].tell() == 0
    assert response["body"].read() == service.answer


def test_without_counts_a_call_is_recorded_without_usage(service: Service) -> None:
    wrapped = service.wrapped()
    told = wrapped.invoke_model(modelId=LLAMA, body=b'{"prompt": "Why?"}')["promptCache"]
    assert (told["usage"], told["cost"], told["status"]) == (None, None, None)
    assert [record.error for record in wrapped.ledger.records] == [None]


def test_a_stream_is_accounted_by_its_metrics(service: Service) -> None:
    last = {"generation": "", "stop_reason": "stop", "amazon-bedrock-invocationMetrics": METRICS}
    service.streams({"generation": "Be"}, {"generation": "cause."}, last)
    wrapped = service.wrapped()
    events = list(wrapped.invoke_model_with_response_stream(modelId=LLAMA, body=b'{"prompt": "Why?"}')["body"])
    assert [sorted(event) for event in events] == [["chunk"], ["chunk"], ["chunk", "promptCache"]]
    assert events[-1]["promptCache"]["usage"] == {**_no_tokens(), "input": 12, "output": 34}


@pytest.mark.parametrize("odd", ["[DONE]", '{"usage": 3, "message": "hi"}', '["usage"]', '{"usage": {"tokens": 4}}'])
def test_a_stream_that_says_it_otherwise_passes_all_the_same(service: Service, odd: str) -> None:
    service.streams({"text": "hi"}, odd)
    wrapped = service.wrapped()
    events = list(wrapped.invoke_model_with_response_stream(modelId=LLAMA, body=b'{"prompt": "Why?"}')["body"])
    assert events[-1] == {"chunk": {"bytes": odd.encode()}}
    assert [record.usage for record in wrapped.ledger.records] == [None]


def test_an_answer_that_is_no_json_is_read_from_its_headers(service: Service) -> None:
    service.headers, service.answer = COUNTS, b"<not json>"
    response = service.wrapped().invoke_model(modelId=HAIKU, body=QUESTION)
    assert response["body"].read() == b"<not json>"
    assert response["promptCache"]["usage"] == {**_no_tokens(), "input": 12, "output": 34}


def test_an_answer_cut_short_is_recorded_and_raised(service: Service) -> None:
    service.headers = {"Content-Length": "5000"}
    wrapped = service.wrapped()
    with pytest.raises(ResponseStreamingError):
        wrapped.invoke_model(modelId=HAIKU, body=QUESTION)
    assert [(record.error, record.usage) for record in wrapped.ledger.records] == [("ResponseStreamingError", None)]


def _no_tokens() -> dict[str, int]:
    return cachepoint.Usage().to_dict()
