"""Clients made when first needed, from sessions that LLMs share.

A boto3 session of its own costs an LLM about 45 ms of CPU, for it reads the service's model anew; a client of a session
that has read it costs 2 ms (boto3 1.42, measured 2026-11-27).
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
from collections.abc import AsyncGenerator, Callable, Hashable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from cachepoint._forks import Lock
from cachepoint.bedrock.bounded import Bounded


@cache
def has_async_client() -> bool:
    """Whether aiobotocore is installed (extra `async`)."""
    return importlib.util.find_spec("aiobotocore") is not None


@cache
def get_ready(*, asynchronous: bool) -> None:
    """Import and read, when an LLM is made, what its first call would else on an event loop: 0.5 s, once a process.

    `asynchronous`: it may have to make a client of aiobotocore's.
    """
    import boto3.session  # noqa: F401

    if asynchronous and has_async_client():
        import aiobotocore.session  # type: ignore[import-untyped]  # noqa: F401

        _service_data()


@cache
def _service_data() -> Any:
    """The loader of botocore with all it reads from disk for a client of Bedrock; None where it cannot make one now."""
    from botocore.session import Session

    session = Session()
    try:
        session.create_client(
            "bedrock-runtime", region_name="us-east-1", aws_access_key_id="none", aws_secret_access_key="none"
        )
        return session.get_component("data_loader")
    except Exception:  # noqa: BLE001 - settings that botocore refuses are an error of the call that needs them
        return None


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
        from botocore.config import Config

        config = Config(**self._config())
        if self.botocore_config is not None:
            config = config.merge(self.botocore_config)

        def make(session: Any) -> Any:
            return session.client("bedrock-runtime", config=config, **self._client_options())

        return make(self._session()) if self.botocore_session is not None else _SESSIONS.use(self, make)

    def _session(self) -> Any:
        import boto3

        return boto3.Session(
            region_name=self.region_name,
            profile_name=self.profile_name,
            botocore_session=self.botocore_session,
            **self._credentials(),
        )

    async def async_clients(self) -> AsyncGenerator[Any, None]:
        """One aiobotocore client, open for as long as the generator is."""
        from aiobotocore.config import AioConfig  # type: ignore[import-untyped]
        from aiobotocore.session import AioSession

        session = AioSession(profile=self.profile_name)
        if (loader := _service_data()) is not None:
            session.register_component("data_loader", loader)
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


class _Sessions:
    """The boto3 sessions made lately, each for LLMs that would make the same one."""

    KEPT = 8
    """A program has one or two, and each keeps what it has read of the service's model."""

    def __init__(self) -> None:
        # A session is for one thread at a time, but its clients are not (boto3 guide, "Multithreading").
        self._lock = Lock(self.forget, waited_for=False)
        self.forget()

    def forget(self) -> None:
        """Make every session anew from now on, as in a child process: a thread of its parent's may be using one."""
        self._made: Bounded[Hashable, Any] = Bounded(self.KEPT)

    def use(self, connection: Connection, make: Callable[[Any], Any]) -> Any:
        """What `make` makes of a session for this connection, while no other thread uses it."""
        key = (connection.region_name, connection.profile_name, *connection._credentials().values(), *_surroundings())
        with self._lock.held:
            if key not in self._made:
                self._made[key] = connection._session()
            return make(self._made[key])


def _surroundings() -> Iterator[Hashable]:
    """What else a session takes its settings and credentials from: a change of it is for the LLMs made after it."""
    yield tuple(sorted((name, value) for name, value in os.environ.items() if name.startswith(("AWS_", "BOTO_"))))
    usual = {"AWS_CONFIG_FILE": "~/.aws/config", "AWS_SHARED_CREDENTIALS_FILE": "~/.aws/credentials"}
    for variable, path in usual.items():
        try:
            yield Path(os.environ.get(variable, path)).expanduser().stat().st_mtime_ns
        except OSError:  # there is no such file
            yield None


_SESSIONS = _Sessions()


class Clients:
    """The clients made so far: a synchronous one per connection, an asynchronous one per connection and event loop."""

    def __init__(self) -> None:
        self._lock = Lock(self._begin, waited_for=False)
        self._begin()

    def _begin(self) -> None:
        # None in a child process, too: its parent's have connections, and what is sent on one by two cannot be read.
        self._made: dict[Connection, Any] = {}
        self._opened: dict[tuple[asyncio.AbstractEventLoop, Connection], _Opened] = {}

    def client(self, connection: Connection) -> Any:
        """The boto3 client for a connection."""
        with self._lock.held:
            if connection not in self._made:
                self._made[connection] = connection.client()
            return self._made[connection]

    async def async_client(self, connection: Connection) -> Any:
        """The aiobotocore client for a connection in the running loop; it is closed when the loop shuts down."""
        key = (asyncio.get_running_loop(), connection)
        with self._lock.held:
            for other in [each for each in self._opened if each[0].is_closed()]:
                del self._opened[other]
            if key not in self._opened:
                self._opened[key] = _Opened(connection)
            opened = self._opened[key]
        try:
            return await asyncio.shield(opened.client)
        except Exception:
            with self._lock.held:
                self._opened.pop(key, None)
            raise


class _Opened:
    """A client being opened, or open.

    An event loop closes the asynchronous generators it has seen when it shuts down, and with this one the client.
    """

    def __init__(self, connection: Connection) -> None:
        self._generator = connection.async_clients()
        self.client: asyncio.Future[Any] = asyncio.ensure_future(anext(self._generator))
