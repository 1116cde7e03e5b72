"""Clients made when first needed, and a synchronous client called without blocking the event loop."""

from __future__ import annotations

import asyncio
import importlib.util
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_END = object()


def has_async_client() -> bool:
    """Whether aiobotocore is installed (extra `async`)."""
    return importlib.util.find_spec("aiobotocore") is not None


@dataclass(frozen=True)
class Connection:
    """Where a client is made for and how; `timeout` in seconds, for connecting and for reading."""

    region_name: str | None
    profile_name: str | None
    aws_access_key_id: str | None = field(repr=False)
    aws_secret_access_key: str | None = field(repr=False)
    aws_session_token: str | None = field(repr=False)
    endpoint_url: str | None
    api_version: str | None
    use_ssl: bool
    verify: bool | str | None
    timeout: float
    max_retries: int
    botocore_session: Any
    botocore_config: Any

    def client(self) -> Any:
        """A boto3 client."""
        import boto3
        from botocore.config import Config

        session = boto3.Session(
            region_name=self.region_name,
            profile_name=self.profile_name,
            botocore_session=self.botocore_session,
            **self._credentials(),
        )
        config = Config(**self._config())
        if self.botocore_config is not None:
            config = config.merge(self.botocore_config)
        return session.client("bedrock-runtime", config=config, **self._client_options())

    async def async_clients(self) -> AsyncGenerator[Any, None]:
        """One aiobotocore client, open for as long as the generator is."""
        from aiobotocore.config import AioConfig  # type: ignore[import-untyped]
        from aiobotocore.session import AioSession  # type: ignore[import-untyped]

        session = AioSession(profile=self.profile_name)
        config = AioConfig(**self._config())
        if self.botocore_config is not None:
            config = config.merge(self.botocore_config)
        opening = session.create_client(
            "bedrock-runtime",
            region_name=self.region_name,
            config=config,
            **self._credentials(),
            **self._client_options(),
        )
        async with opening as client:
            yield client

    def _credentials(self) -> dict[str, str | None]:
        names = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
        return {name: getattr(self, name) for name in names}

    def _client_options(self) -> dict[str, Any]:
        names = ("endpoint_url", "api_version", "use_ssl", "verify")
        return {name: getattr(self, name) for name in names}

    def _config(self) -> dict[str, Any]:
        return {
            "retries": {"max_attempts": self.max_retries, "mode": "standard"},
            "connect_timeout": self.timeout,
            "read_timeout": self.timeout,
            "user_agent_extra": "x-client-framework:llama_index",
        }


class Clients:
    """The clients made so far: a synchronous one per connection, an asynchronous one per connection and event loop."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: dict[Connection, Any] = {}
        self._opened: dict[tuple[asyncio.AbstractEventLoop, Connection], _Opened] = {}

    def client(self, connection: Connection) -> Any:
        """The boto3 client for a connection."""
        with self._lock:
            if connection not in self._made:
                self._made[connection] = connection.client()
            return self._made[connection]

    async def async_client(self, connection: Connection) -> Any:
        """The aiobotocore client for a connection in the running loop; it is closed when the loop shuts down."""
        key = (asyncio.get_running_loop(), connection)
        with self._lock:
            for other in [each for each in self._opened if each[0].is_closed()]:
                del self._opened[other]
            if key not in self._opened:
                self._opened[key] = _Opened(connection)
            opened = self._opened[key]
        try:
            return await asyncio.shield(opened.client)
        except Exception:
            with self._lock:
                self._opened.pop(key, None)
            raise


class _Opened:
    """A client being opened, or open.

    An event loop closes the asynchronous generators it has seen when it shuts down, and with this one the client.
    """

    def __init__(self, connection: Connection) -> None:
        self._generator = connection.async_clients()
        self.client: asyncio.Future[Any] = asyncio.ensure_future(anext(self._generator))


class InThreads:
    """A synchronous client with the face of an asynchronous one; each call has a worker thread of its own.

    Threads of a shared pool would not do: calls that wait for another's prefix could hold all of them.
    """

    def __init__(self, client: Any) -> None:
        self._client = client

    async def converse(self, **request: Any) -> Any:
        """`converse`, in a worker thread."""
        worker = _Worker()
        try:
            return await worker.run(self._client.converse, **request)
        finally:
            worker.leave()

    async def converse_stream(self, **request: Any) -> Any:
        """`converse_stream`, whose `stream` is iterated asynchronously, in the same worker thread."""
        worker = _Worker()
        try:
            response = await worker.run(self._client.converse_stream, **request)
        except BaseException:
            worker.leave()
            raise
        return {**response, "stream": _ThreadedStream(worker, response["stream"])}


class _ThreadedStream:
    """A stream of events iterated asynchronously, each event fetched in the call's worker thread."""

    def __init__(self, worker: _Worker, stream: Any) -> None:
        self._worker = worker
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[Any]:
        events = iter(self._stream)
        while (event := await self._worker.run(next, events, _END)) is not _END:
            yield event

    def close(self) -> None:
        # The thread may still be waiting for an event, and whoever closes should not wait with it.
        self._worker.submit(self._stream.close)
        self._worker.leave()


class _Worker:
    """One thread for one call, which runs what it is given in the caller's context and in order."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="cachepoint")
        self._context = copy_context()

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        step = partial(self._context.run, function, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._pool, step)

    def submit(self, function: Callable[[], object]) -> None:
        self._pool.submit(self._context.run, function)

    def leave(self) -> None:
        self._pool.shutdown(wait=False)
