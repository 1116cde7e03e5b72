"""`wrap` and `wrap_async`: a client that plans, sends, records and diagnoses every call.

The sync and async clients are thin drivers of `call.Call`; every other attribute is the wrapped client's.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import suppress
from inspect import iscoroutinefunction
from typing import Any, Self, Unpack

from cachepoint.bedrock.call import Call
from cachepoint.bedrock.fan_out import Paused
from cachepoint.bedrock.settings import Options, Settings, settings, settings_of_a_call
from cachepoint.bedrock.wire import converse, invoke_model
from cachepoint.bedrock.wire.dialect import Dialect, told
from cachepoint.core.accounts.ledger import CacheLedger
from cachepoint.core.planning.policy import CachePolicy
from cachepoint.errors import ConfigurationError
from cachepoint.store._base import Store


class _Wrapped:
    """What both clients share: delegation, copying, settings."""

    def __init__(self, client: Any, made: Settings) -> None:
        self._client = client
        self._settings = made

    @property
    def policy(self) -> CachePolicy:
        """How this client's calls are cached: as it was made, in the mode that CACHEPOINT_MODE names now, if any."""
        return self._settings.in_force().policy

    @property
    def policy_given(self) -> CachePolicy:
        """The same, whatever CACHEPOINT_MODE says."""
        return self._settings.policy

    @property
    def clock(self) -> Callable[[], float]:
        """Where this client has wall time from."""
        return self._settings.clock

    @property
    def ledger(self) -> CacheLedger:
        """Where this client's calls are recorded."""
        return self._settings.ledger

    @property
    def store(self) -> Store:
        """Where this client's traffic is learned."""
        return self._settings.store

    @property
    def wrapped(self) -> Any:
        """The client underneath."""
        return self._client

    def __getattr__(self, name: str) -> Any:
        if name in ("_client", "_settings", "_paused") or (name.startswith("__") and name.endswith("__")):
            raise AttributeError(name)
        return getattr(self._client, name)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __repr__(self) -> str:
        return f"<{type(self).__name__} around {type(self._client).__name__}, mode {self.policy.mode}>"

    def _call(self, dialect: Dialect, request: Mapping[str, Any]) -> Call:
        return Call(self._settings.in_force(), self._client, dialect, request)


class CacheClient(_Wrapped):
    """A boto3 `bedrock-runtime` client whose calls are cached where it pays; made by `wrap`."""

    def converse(self, **request: Any) -> dict[str, Any]:
        """Converse with checkpoints placed; the response has `promptCache` beside its own keys."""
        call = self._call(converse, request)
        response = self._send(call, self._client.converse)
        return told(response, call.answered(response.get("usage")))

    def converse_stream(self, **request: Any) -> dict[str, Any]:
        """ConverseStream with checkpoints placed; the `metadata` event has `promptCache`.

        Events are passed on as they arrive. A stream not read to its end is recorded as abandoned.
        """
        call = self._call(converse, request)
        return self._stream(call, self._client.converse_stream, "stream")

    def invoke_model(self, **request: Any) -> dict[str, Any]:
        """InvokeModel with checkpoints placed in a body of Anthropic Messages; the response has `promptCache`.

        Such an answer has been received whole when the response comes, for its usage; `body` is read as ever.
        Bodies of other formats are passed on as they are.
        """
        call = self._call(invoke_model, request)
        response = self._send(call, self._client.invoke_model)
        if not invoke_model.has_messages(request):
            return told(response, call.answered(invoke_model.reported(response)))
        with call.reading():
            raw = response["body"].read()
        return told({**response, "body": invoke_model.again(raw)}, call.answered(invoke_model.reported(response, raw)))

    def invoke_model_with_response_stream(self, **request: Any) -> dict[str, Any]:
        """InvokeModel streamed; the event that ends the answer has `promptCache` beside its `chunk`.

        Events are passed on as they arrive. A stream not read to its end is recorded as abandoned.
        """
        call = self._call(invoke_model, request)
        return self._stream(call, self._client.invoke_model_with_response_stream, "body")

    def _stream(self, call: Call, operation: Callable[..., dict[str, Any]], key: str) -> dict[str, Any]:
        response = self._send(call, operation)
        call.began()

        def again() -> Any:
            with call.repeated():
                return call.received(operation(**call.request))[key]

        return {**response, key: RecordedStream(response[key], call, again)}

    def _send(self, call: Call, operation: Callable[..., dict[str, Any]]) -> dict[str, Any]:
        try:
            self._depart(call)
            while True:  # what was refused is repeated as the user wrote it, once
                try:
                    with call.under_way():
                        return call.received(operation(**call.request))
                except Exception as error:  # noqa: BLE001 - it is raised, or what came before it
                    if not call.refused(error):
                        raise call.failure(error)  # noqa: B904 - the error itself, or that of before
        except Paused:
            raise
        except BaseException as error:
            call.failed(error)
            raise

    def _depart(self, call: Call) -> None:
        needs, answer = call.departure(), None
        with suppress(StopIteration):
            while True:
                answer = needs.send(answer).wait()


class AsyncCacheClient(_Wrapped):
    """The same for an aiobotocore client; made by `wrap_async`."""

    _opening: Any = None
    """What opened the client, where that was left to this one."""

    async def converse(self, **request: Any) -> dict[str, Any]:
        """Converse with checkpoints placed; the response has `promptCache` beside its own keys."""
        call = self._call(converse, request)
        response = await self._send(call, self._client.converse)
        return told(response, call.answered(response.get("usage")))

    async def converse_stream(self, **request: Any) -> dict[str, Any]:
        """ConverseStream with checkpoints placed; the `metadata` event has `promptCache`."""
        call = self._call(converse, request)
        return await self._stream(call, self._client.converse_stream, "stream")

    async def invoke_model(self, **request: Any) -> dict[str, Any]:
        """InvokeModel with checkpoints placed in a body of Anthropic Messages; the response has `promptCache`."""
        call = self._call(invoke_model, request)
        response = await self._send(call, self._client.invoke_model)
        if not invoke_model.has_messages(request):
            return told(response, call.answered(invoke_model.reported(response)))
        with call.reading():
            raw = await response["body"].read()
        return told(
            {**response, "body": invoke_model.again_async(raw)}, call.answered(invoke_model.reported(response, raw))
        )

    async def invoke_model_with_response_stream(self, **request: Any) -> dict[str, Any]:
        """InvokeModel streamed; the event that ends the answer has `promptCache` beside its `chunk`."""
        call = self._call(invoke_model, request)
        return await self._stream(call, self._client.invoke_model_with_response_stream, "body")

    async def _stream(self, call: Call, operation: Callable[..., Any], key: str) -> dict[str, Any]:
        response = await self._send(call, operation)
        call.began()

        async def again() -> Any:
            with call.repeated():
                return call.received(dict(await operation(**call.request)))[key]

        return {**response, key: AsyncRecordedStream(response[key], call, again)}

    async def _send(self, call: Call, operation: Callable[..., Any]) -> dict[str, Any]:
        try:
            await self._depart(call)
            while True:  # what was refused is repeated as the user wrote it, once
                try:
                    with call.under_way():
                        return call.received(dict(await operation(**call.request)))
                except Exception as error:  # noqa: BLE001 - it is raised, or what came before it
                    if not call.refused(error):
                        raise call.failure(error)  # noqa: B904 - the error itself, or that of before
        except BaseException as error:
            call.failed(error)
            raise

    async def _depart(self, call: Call) -> None:
        needs, answer = call.departure(), None
        with suppress(StopIteration):
            while True:
                answer = await needs.send(answer).wait_async()

    async def __aenter__(self) -> Self:
        if not hasattr(self._client, "converse"):
            self._opening, self._client = self._client, await self._client.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> Any:
        # A client that came open stays so: whoever opened it closes it.
        return None if self._opening is None else await self._opening.__aexit__(*error)


class _Recorded:
    """What both streams share: the events in passing, and an end that is noticed."""

    def __init__(self, stream: Any, call: Call, again: Callable[[], Any]) -> None:
        self._stream = stream
        self._call = call
        self._again = again
        self._passed = call.reporter()

    def close(self) -> Any:
        """Close the stream; recorded as abandoned if its usage has not come."""
        self._call.abandoned()
        return self._close()

    def _close(self) -> Any:
        close = getattr(self._stream, "close", None)
        return close() if close is not None else None

    def __getattr__(self, name: str) -> Any:
        if name in ("_stream", "_call"):
            raise AttributeError(name)
        return getattr(self._stream, name)

    def __del__(self) -> None:
        call = self.__dict__.get("_call")
        if call is not None:
            call.abandoned()


class RecordedStream(_Recorded):
    """A stream of events passed on as they arrive."""

    def __iter__(self) -> Iterator[dict[str, Any]]:
        begun = False
        while True:
            try:
                for event in self._stream:
                    begun = True
                    yield self._passed(event)
                break
            except GeneratorExit:  # the loop ended, not the stream: another may go on where it stopped
                raise
            except Exception as error:  # noqa: BLE001 - it is raised, or what came before it
                if begun or not self._call.refused(error):
                    raise self._call.broke(error)  # noqa: B904 - the error itself, or that of before
            except BaseException as error:
                self._call.broke(error)
                raise
            with suppress(Exception):  # its end, which nobody waits for
                self._close()
            self._stream = self._again()
        self._call.answered(None)


class AsyncRecordedStream(_Recorded):
    """The same, asynchronously."""

    async def __aiter__(self) -> AsyncIterator[dict[str, Any]]:
        begun = False
        while True:
            try:
                async for event in self._stream:
                    begun = True
                    yield self._passed(event)
                break
            except GeneratorExit:
                raise
            except Exception as error:  # noqa: BLE001 - it is raised, or what came before it
                if begun or not self._call.refused(error):
                    raise self._call.broke(error)  # noqa: B904 - the error itself, or that of before
            except BaseException as error:
                self._call.broke(error)
                raise
            with suppress(Exception):  # its end, which nobody waits for
                self._close()
            self._stream = await self._again()
        self._call.answered(None)


def wrap(client: Any, policy: CachePolicy | None = None, **options: Unpack[Options]) -> CacheClient:
    """Wrap a boto3 `bedrock-runtime` client so that prompt caching works by itself.

    `policy` defaults to `CachePolicy()`; the options are described at `Options`. A wrapped client is
    never wrapped twice: what is given here replaces its settings, the others stay. Raises
    ConfigurationError when the client has no `converse` or a setting is wrong.
    """
    return CacheClient(check_client(client), _settings(client, policy, options))


def wrap_async(client: Any, policy: CachePolicy | None = None, **options: Unpack[Options]) -> AsyncCacheClient:
    """Wrap an aiobotocore `bedrock-runtime` client; the arguments are those of `wrap`.

    What `session.create_client("bedrock-runtime")` gives is wrapped too:
    `async with wrap_async(session.create_client(…)) as client`.
    """
    if hasattr(client, "__aenter__") and not hasattr(client, "converse"):
        return AsyncCacheClient(client, settings(policy, options))
    return AsyncCacheClient(check_async_client(client), _settings(client, policy, options))


def check_client(client: Any, function: str = "wrap") -> Any:
    """The client underneath; raises ConfigurationError where it is none that answers without being awaited."""
    bare = _bare(client, function)
    if iscoroutinefunction(getattr(bare, "_make_api_call", None)):
        raise ConfigurationError(f"{function}({type(bare).__name__}): an aiobotocore client; use {_OTHER[function]}")
    return bare


def check_async_client(client: Any, function: str = "wrap_async") -> Any:
    """The same for one that is awaited."""
    bare = _bare(client, function)
    if not iscoroutinefunction(getattr(bare, "_make_api_call", bare.converse)):
        raise ConfigurationError(
            f"{function}({type(bare).__name__}): a client that does not await; use {_OTHER[function]}"
        )
    return bare


_OTHER = {"wrap": "wrap_async", "wrap_async": "wrap", "client": "async_client", "async_client": "client"}
"""Where a client belongs that was given to a function, or as a setting of a model, for the other kind."""


def for_a_call(client: Any, policy: CachePolicy | None = None, **options: Unpack[Options]) -> CacheClient:
    """As `wrap`, for one call of a model whose settings were checked when it was made: none of them fails it now."""
    return CacheClient(_bare(client, "wrap"), _settings(client, policy, options, fill=settings_of_a_call))


def for_a_call_async(client: Any, policy: CachePolicy | None = None, **options: Unpack[Options]) -> AsyncCacheClient:
    """The same of `wrap_async`."""
    return AsyncCacheClient(_bare(client, "wrap_async"), _settings(client, policy, options, fill=settings_of_a_call))


def _settings(
    client: Any,
    policy: CachePolicy | None,
    options: Options,
    fill: Callable[[CachePolicy | None, Options], Settings] = settings,
) -> Settings:
    if not isinstance(client, _Wrapped):
        return fill(policy, options)
    before = client._settings
    kept: Options = {
        "ledger": before.ledger, "store": before.store, "clock": before.clock, "base_models": before.base_models,
        "control_client": before.control_client, "prices": before.prices, "rules": before.rules, "hints": before.hints,
    }  # fmt: skip
    return fill(policy or before.policy, {**kept, **options})


def _bare(client: Any, function: str) -> Any:
    bare = client.wrapped if isinstance(client, _Wrapped) else client
    if isinstance(bare, type) or not callable(getattr(bare, "converse", None)):
        raise ConfigurationError(
            f"{function}({type(client).__name__}): no `converse` method; pass a boto3 client for 'bedrock-runtime' "
            "of boto3 1.42.35 or later"
        )
    return bare
