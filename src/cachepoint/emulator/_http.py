"""The HTTP shell: a bare ASGI application over the service, and connections that can be reset.

One route and no middleware: benchmarks make hundreds of thousands of calls.
"""

from __future__ import annotations

import asyncio
import ipaddress
from asyncio import BaseTransport, Transport
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, cast
from urllib.parse import urlsplit

from cachepoint.emulator._answering.wire import Written
from cachepoint.emulator._checks.service_errors import ServiceError, denied
from cachepoint.emulator._service import Delivery, Service

_Scope = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
_Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
_Peer = tuple[str, int]

LARGEST_BODY = 25_000_000
"""Bytes that a body may have: what Bedrock's API model says of InvokeModel's, and assumed of the others."""
_READ_SECONDS = 60.0
"""How long a request may take to arrive, its head and its body each: on loopback even the largest takes a second."""


@lru_cache(maxsize=256)
def is_loopback(name: str) -> bool:
    """Whether a host's name or address is this machine's own without asking a resolver."""
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def is_host(name: object) -> bool:
    """Whether this is the name or address of a host, without scheme and port."""
    if not isinstance(name, str) or name.split() != [name]:
        return False
    try:
        return urlsplit(f"//[{name}]" if name.count(":") > 1 else f"//{name}").hostname == name.lower()
    except ValueError:
        return False


_FOREIGN_HOST = (
    "The emulator answers to localhost and loopback addresses only; name other hosts in `hosts` or --allow-host."
)


class Connections:
    """Open connections by the caller's address, and the last delivery on each.

    One on which a request does not come in time is closed; between requests it may stay open.
    """

    def __init__(self) -> None:
        self._transports: dict[_Peer, Transport] = {}
        self._last: dict[_Peer, Delivery] = {}
        self._late: dict[_Peer, asyncio.TimerHandle] = {}
        self._serving: set[_Peer] = set()

    def opened(self, transport: BaseTransport) -> None:
        """Remember a connection."""
        peer = transport.get_extra_info("peername")
        if peer:
            self._transports[peer[0], peer[1]] = cast(Transport, transport)
            self.heard(transport)

    def heard(self, transport: BaseTransport) -> None:
        """A request began to come in on a connection, or went on to."""
        peer = transport.get_extra_info("peername")
        if peer and (key := (peer[0], peer[1])) not in self._late and key not in self._serving:
            self._late[key] = asyncio.get_running_loop().call_later(_READ_SECONDS, cast(Transport, transport).abort)

    @contextmanager
    def serving(self, peer: _Peer) -> Iterator[None]:
        """While a request whose head has come is served."""
        self._in_time(peer)
        self._serving.add(peer)
        try:
            yield
        finally:
            self._serving.discard(peer)

    def _in_time(self, peer: _Peer) -> None:
        late = self._late.pop(peer, None)
        if late is not None:
            late.cancel()

    def closed(self, transport: BaseTransport, error: Exception | None) -> None:
        """Forget a connection; one that broke with the answer unread in it lost that answer."""
        peer = transport.get_extra_info("peername")
        if not peer:
            return
        key = (peer[0], peer[1])
        self._transports.pop(key, None)
        self._in_time(key)
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

    def __init__(self, service: Service, connections: Connections, hosts: Collection[str] = ()) -> None:
        self._service = service
        self._connections = connections
        self._hosts = hosts

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        """Serve one HTTP request."""
        if scope["type"] != "http":
            return
        peer: _Peer = (scope["client"][0], scope["client"][1])
        with self._connections.serving(peer):
            try:
                async with asyncio.timeout(_READ_SECONDS):
                    raw = await _read_body(receive)
                await self._play(self._answer(scope, raw), peer, send)
            except (TimeoutError, asyncio.CancelledError):  # too slow a caller, or the server stops
                await self._connections.reset(peer)
            except ConnectionError:  # the caller has gone
                pass

    def _answer(self, scope: _Scope, raw: bytes | None) -> Delivery:
        headers = _headers(scope)
        if not self._is_called(headers.get("host", "localhost")):
            return self._service.refuse(denied(_FOREIGN_HOST))
        if raw is None:
            return self._service.refuse(
                ServiceError("RequestEntityTooLargeException", 413, f"A body has {LARGEST_BODY} bytes at most.")
            )
        return self._service.respond(_path(scope), headers, raw)

    def _is_called(self, host: str) -> bool:
        """Whether a request is meant for this server: a web page of a foreign name may lead here (DNS rebinding)."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        return is_loopback(name) or name in self._hosts

    async def _play(self, delivery: Delivery, peer: _Peer, send: _Send) -> None:
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


async def _read_body(receive: _Receive) -> bytes | None:
    """The body of a request; None where it is too large, all of which is read then too, for callers read after writing.

    Raises ConnectionError when the caller leaves before its end.
    """
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError
        part = message.get("body", b"")
        size += len(part)
        if size <= LARGEST_BODY:
            parts.append(part)
        else:
            parts.clear()
        if not message.get("more_body"):
            return b"".join(parts) if size <= LARGEST_BODY else None


def _raw_headers(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in headers.items()]


async def _send_whole(send: _Send, written: Written) -> None:
    raw = [*_raw_headers(written.headers), (b"content-length", str(len(written.body)).encode())]
    await send({"type": "http.response.start", "status": written.status, "headers": raw})
    await send({"type": "http.response.body", "body": written.body, "more_body": False})
