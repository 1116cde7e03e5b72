"""The HTTP shell: a bare ASGI application over the service, and connections that can be reset.

One route and no middleware: benchmarks make hundreds of thousands of calls.
"""

from __future__ import annotations

import asyncio
from asyncio import BaseTransport, Transport
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, cast

from cachepoint.emulator._answering.wire import Written
from cachepoint.emulator._service import Delivery, Service

_Scope = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
_Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
_Peer = tuple[str, int]


class Connections:
    """Open connections by the caller's address, and the last delivery on each."""

    def __init__(self) -> None:
        self._transports: dict[_Peer, Transport] = {}
        self._last: dict[_Peer, Delivery] = {}

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

    def carries(self, peer: _Peer, delivery: Delivery) -> None:
        """Remember what goes out on a connection."""
        self._last[peer] = delivery

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
        delivery = self._service.respond(_path(scope), _headers(scope), raw)
        if delivery.first_byte_after:
            await asyncio.sleep(delivery.first_byte_after)
        delivery.begin()
        if delivery.is_reset:
            await self._connections.reset(peer)
            return
        self._connections.carries(peer, delivery)
        if delivery.written.frames:
            await self._stream(delivery, peer, send)
        elif self._connections.is_open(peer):
            delivery.arrived()
            await _send_whole(send, delivery.written)

    async def _stream(self, delivery: Delivery, peer: _Peer, send: _Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": _raw_headers(delivery.written.headers)})
        pause = delivery.each_frame_after
        pieces = delivery.pieces(whole=not pause)
        while self._connections.is_open(peer):
            piece = next(pieces, None)
            if piece is None:
                break
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            if pause:
                await asyncio.sleep(pause)
        if delivery.fault.reset == "after":
            await self._connections.reset(peer)
        else:
            await send({"type": "http.response.body", "body": b"", "more_body": False})


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


async def _send_whole(send: _Send, written: Written) -> None:
    raw = [*_raw_headers(written.headers), (b"content-length", str(len(written.body)).encode())]
    await send({"type": "http.response.start", "status": written.status, "headers": raw})
    await send({"type": "http.response.body", "body": written.body, "more_body": False})
