"""uvicorn's server, stopped at once rather than at its next look, and a protocol that tells of its connections."""

from __future__ import annotations

import asyncio
import socket
from asyncio import BaseTransport
from collections.abc import Collection
from contextlib import suppress
from typing import Any

import uvicorn
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from cachepoint.emulator._http import Application, Connections
from cachepoint.emulator._service import Service

_KEEP_ALIVE_SECONDS = 3600
_MOST_CONNECTIONS = 4096
"""Whoever comes when so many are open is answered 503, which botocore tries again."""
_TICK_SECONDS = 1.0
"""How often the date header is renewed, which counts seconds."""
_GRACE_SECONDS = 1.0
"""How long calls under way may take to end when the server stops."""


class PromptServer(uvicorn.Server):
    """uvicorn's server without its pauses.

    uvicorn 0.54 looks for `should_exit` every 0.1 seconds and then sleeps at least 0.1 more (`Server.main_loop` and
    `Server.shutdown`): 0.15 seconds for each test that has an emulator of its own.
    """

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._leaving = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def leave(self) -> None:
        """Stop serving; may be called from any thread, also before the server has started or after it ended."""
        self.should_exit = True
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed: the server has ended
                self._loop.call_soon_threadsafe(self._leaving.set)

    async def main_loop(self) -> None:
        """Renew the date header until told to leave."""
        self._loop = asyncio.get_running_loop()
        while not await self.on_tick(0):
            with suppress(TimeoutError):
                await asyncio.wait_for(self._leaving.wait(), _TICK_SECONDS)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the port, let calls under way end, and close the connections."""
        for server in self.servers:
            server.close()
        for listening in sockets or []:
            listening.close()
        connections = self.server_state.connections
        for connection in list(connections):
            connection.shutdown()  # at once where it is idle, else after its answer
        if self.server_state.tasks:
            _, late = await asyncio.wait(set(self.server_state.tasks), timeout=_GRACE_SECONDS)
            for task in late:
                task.cancel()
        with suppress(TimeoutError):
            async with asyncio.timeout(_GRACE_SECONDS):
                while connections:  # noqa: ASYNC110  # uvicorn tells nobody when the last one has gone
                    await asyncio.sleep(0.001)


def _most_connections() -> int:
    """Half of the files this process may have open: the rest is for files, and for the clients if they are here too."""
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return _MOST_CONNECTIONS
    return min(max(resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2, 1), _MOST_CONNECTIONS)


def uvicorn_server(service: Service, hosts: Collection[str]) -> PromptServer:
    """A server of one emulator's service, not yet started; `hosts` are names it has besides those of loopback."""
    connections = Connections()
    config = uvicorn.Config(
        Application(service, connections, hosts),
        http=_observed_protocol(connections),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        limit_concurrency=_most_connections(),
    )
    return PromptServer(config)


def _observed_protocol(connections: Connections) -> type[Any]:
    """The HTTP protocol of uvicorn, which also tells `connections` of every connection."""
    base: Any = AutoHTTPProtocol

    class ObservedProtocol(base):  # type: ignore[misc]  # which protocol it is depends on what is installed
        def connection_made(self, transport: BaseTransport) -> None:
            connections.opened(transport)
            super().connection_made(transport)

        def data_received(self, data: bytes) -> None:
            connections.heard(self.transport)
            super().data_received(data)

        def connection_lost(self, exc: Exception | None) -> None:
            connections.closed(self.transport, exc)
            super().connection_lost(exc)

    return ObservedProtocol
