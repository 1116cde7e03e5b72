"""A boto3 client whose requests are answered in this process instead of going out.

botocore hands every request to `before-send` once it is made up and signed, and takes what a handler returns for the
answer (botocore 1.43 endpoint.py, `_do_get_response`). So what a program sees is botocore's own: how it checks,
writes, signs, retries, parses and raises. The handler belongs to the one client it is registered on.
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.exceptions import ConnectionClosedError
from urllib3.exceptions import ProtocolError

from cachepoint.emulator._service import Delivery, Service


def answer_locally(client: Any, service: Service) -> Any:
    """The client, with its requests answered by the service."""

    def answer(request: AWSPreparedRequest, **_: Any) -> AWSResponse:
        return _answer(request, service)

    client.meta.events.register("before-send.bedrock-runtime.*", answer)
    return client


def _answer(request: AWSPreparedRequest, service: Service) -> AWSResponse:
    headers = {name.lower(): _text(value) for name, value in request.headers.items()}
    delivery = service.respond(urlsplit(request.url).path, headers, _bytes(request.body))
    if delivery.first_byte_after:
        time.sleep(delivery.first_byte_after)
    delivery.begin()
    if delivery.is_reset:
        raise ConnectionClosedError(endpoint_url=request.url)
    written = delivery.written
    answered: Any = dict(written.headers)  # botocore takes any mapping, its stubs only an HTTPMessage
    if written.frames:
        return AWSResponse(request.url, written.status, answered, _Stream(delivery))
    delivery.arrived()
    answered["content-length"] = str(len(written.body))
    return AWSResponse(request.url, written.status, answered, _Body(written.body))


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value


def _bytes(body: Any) -> bytes:
    if body is None:
        return b""
    if isinstance(body, str):
        return body.encode()
    return bytes(body) if isinstance(body, bytes | bytearray) else bytes(body.read())


class _Body(io.BytesIO):
    """A whole answer, read as urllib3's response is."""

    def stream(self) -> Iterator[bytes]:
        yield self.read()


class _Stream:
    """An answer in frames, each sent when it is asked for."""

    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery
        self._closed = False

    def stream(self) -> Iterator[bytes]:
        """The body in pieces, as far as it is read."""
        pieces = self._delivery.pieces()
        while not self._closed and (piece := next(pieces, None)) is not None:
            yield piece
            if self._delivery.each_frame_after:
                time.sleep(self._delivery.each_frame_after)
        if self._delivery.fault.reset == "after" and not self._closed:
            reset = ConnectionResetError(104, "Connection reset by peer")
            raise ProtocolError(f"Connection broken: {reset!r}", reset)

    def close(self) -> None:
        self._closed = True
