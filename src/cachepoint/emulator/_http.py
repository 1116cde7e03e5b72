"""The HTTP shell: a bare ASGI application over the service, and connections that can be reset.

One route and no middleware: benchmarks make hundreds of thousands of calls.
"""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from asyncio import BaseTransport, Transport
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, cast

from cachepoint.emulator._answering.eventstream import exception_frame
from cachepoint.emulator._checks.refusals import Refusal
from cachepoint.emulator._reading.request import Target, read_target
from cachepoint.emulator._service import Exchange, Service
from cachepoint.emulator.faults import Fault

logger = logging.getLogger(__name__)

_Scope = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
_Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
_Peer = tuple[str, int]


class Connections:
    """Open connections by the caller's address, and the last exchange on each."""

    def __init__(self) -> None:
        self._transports: dict[_Peer, Transport] = {}
        self._last: dict[_Peer, Exchange] = {}

    def opened(self, transport: BaseTransport) -> None:
        """Remember a connection."""
        peer = transport.get_extra_info("peername")
        if peer:
            self._transports[peer[0], peer[1]] = cast(Transport, transport)

    def closed(self, transport: BaseTransport, error: Exception | None) -> None:
        """Forget a connection; one that broke with the answer unread in it lost that answer."""
        peer = transport.get_extra_info("peername")
        if not peer:
            return
        key = (peer[0], peer[1])
        self._transports.pop(key, None)
        last = self._last.pop(key, None)
        if last is not None and error is not None:
            last.lost()

    def carries(self, peer: _Peer, exchange: Exchange) -> None:
        """Remember the exchange whose answer goes out on a connection."""
        self._last[peer] = exchange

    def is_open(self, peer: _Peer) -> bool:
        """Whether the caller is still there."""
        transport = self._transports.get(peer)
        return transport is not None and not transport.is_closing()

    async def reset(self, peer: _Peer) -> None:
        """Break a connection; when this returns the server knows that it is gone."""
        self._last.pop(peer, None)
        transport = self._transports.get(peer)
        if transport is not None:
            transport.abort()
            await asyncio.sleep(0)


class Application:
    """The ASGI application."""

    def __init__(self, service: Service, connections: Connections) -> None:
        self._service = service
        self._connections = connections

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        """Serve one HTTP request."""
        if scope["type"] != "http":
            return
        raw = await _read_body(receive)
        peer: _Peer = (scope["client"][0], scope["client"][1])
        target: Target | None = None
        try:
            target = read_target(_path(scope), _headers(scope), self._service.options.default_region)
            fault = self._service.fault_for(target)
            await self._play(fault, target, raw, peer, send)
        except Refusal as refusal:
            self._service.note_failed(target, refusal.code, refusal.status)
            await _send_error(send, refusal)
        except Exception as problem:
            # A mistake in a script or in the emulator itself: the caller gets it as a server error, by its kind.
            logger.exception("the emulator failed on a call")
            self._service.note_failed(target, type(problem).__name__, 500)
            await _send_error(send, Refusal("InternalServerException", 500, f"emulator: {type(problem).__name__}"))

    async def _play(self, fault: Fault, target: Target, raw: bytes, peer: _Peer, send: _Send) -> None:
        if fault.reset == "before":
            self._service.note_failed(target, "ConnectionReset", 0)
            await self._connections.reset(peer)
            return
        if fault.error is not None and fault.after_events is None:
            raise Refusal(fault.error, fault.status, fault.text)
        exchange = self._service.serve(target, raw)
        pause = fault.pause + exchange.first_byte_after
        if pause:
            await asyncio.sleep(pause)
        exchange.begin()
        if fault.reset == "after" and fault.after_events is None:
            await self._connections.reset(peer)
            return
        self._connections.carries(peer, exchange)
        if exchange.written.frames:
            await self._stream(fault, exchange, peer, send)
        elif self._connections.is_open(peer):
            exchange.arrived()
            await _send_whole(send, 200, exchange.written.headers, exchange.written.body)

    async def _stream(self, fault: Fault, exchange: Exchange, peer: _Peer, send: _Send) -> None:
        frames = exchange.written.frames
        await send({"type": "http.response.start", "status": 200, "headers": _raw_headers(exchange.written.headers)})
        pause = fault.pause + exchange.each_frame_after
        chunks = _chunks(frames[: fault.after_events], whole=not pause)
        for number, chunk in enumerate(chunks, 1):
            if not self._connections.is_open(peer):
                return
            if number == len(chunks) and fault.after_events is None:
                exchange.arrived()  # the usage is in the last frame
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
            if pause:
                await asyncio.sleep(pause)
        if fault.reset == "after":
            await self._connections.reset(peer)
            return
        end = b""
        if fault.error is not None:
            end = exception_frame(fault.error[0].lower() + fault.error[1:], fault.text)
        await send({"type": "http.response.body", "body": end, "more_body": False})


def _chunks(frames: tuple[bytes, ...], whole: bool) -> tuple[bytes, ...]:
    """The frames one by one where time passes between them, else all in one write."""
    return (b"".join(frames),) if whole else frames


def _path(scope: _Scope) -> str:
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    return raw.partition(b"?")[0].decode("ascii", "replace")


def _headers(scope: _Scope) -> dict[str, str]:
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}


async def _read_body(receive: _Receive) -> bytes:
    parts: list[bytes] = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


def _raw_headers(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in headers.items()]


async def _send_error(send: _Send, refusal: Refusal) -> None:
    headers = {
        "content-type": "application/json",
        "x-amzn-requestid": str(uuid.uuid4()),
        "x-amzn-errortype": refusal.code,
    }
    await _send_whole(send, refusal.status, headers, json.dumps({"message": refusal.message}).encode())


async def _send_whole(send: _Send, status: int, headers: Mapping[str, str], body: bytes) -> None:
    raw = [*_raw_headers(headers), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body, "more_body": False})
