"""Clients made when first needed."""

from __future__ import annotations

import asyncio
import importlib.util
import threading
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any


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
