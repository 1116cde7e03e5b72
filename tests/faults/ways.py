"""The ways of making a call: each dialect whole and streamed, sync and async, and the two frameworks.

A way is given a client, plain or wrapped, and a request, and returns when the answer has been read as far as it is to
be read.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any

from langchain_aws import ChatBedrockConverse
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from llama_index.core.llms import ChatMessage

import cachepoint
from cachepoint.bedrock.client import CacheClient
from cachepoint.langchain import CacheAwareChatBedrockConverse
from cachepoint.llama_index import CacheAwareBedrockConverse

Json = dict[str, Any]

TO_THE_END = 10_000
"""More events than an answer has."""
BURST = 5
"""Calls at once, where there are several."""


class AsyncLocal:
    """A local client as aiobotocore's looks: every call and every event is awaited."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.meta = client.meta

    async def converse(self, **request: Any) -> Any:
        return await _soon(lambda: self._client.converse(**request))

    async def converse_stream(self, **request: Any) -> Any:
        response = await _soon(lambda: self._client.converse_stream(**request))
        return {**response, "stream": _AsyncEvents(response["stream"])}

    async def invoke_model(self, **request: Any) -> Any:
        response = await _soon(lambda: self._client.invoke_model(**request))
        return {**response, "body": _AsyncBody(response["body"])}

    async def invoke_model_with_response_stream(self, **request: Any) -> Any:
        response = await _soon(lambda: self._client.invoke_model_with_response_stream(**request))
        return {**response, "body": _AsyncEvents(response["body"])}


async def _soon(part: Callable[[], Any]) -> Any:
    await asyncio.sleep(0)
    made = part()
    await asyncio.sleep(0)
    return made


class _AsyncBody:
    def __init__(self, body: Any) -> None:
        self._body = body

    async def read(self) -> bytes:
        return bytes(await _soon(self._body.read))


class _AsyncEvents:
    def __init__(self, events: Iterable[Any]) -> None:
        self._events = events

    async def __aiter__(self) -> AsyncIterator[Any]:
        for event in self._events:
            await asyncio.sleep(0)
            yield event


@dataclass(frozen=True)
class Way:
    """How a call is made, or `calls` at once; `streams` has events to leave early, `awaits` has awaits to cancel at."""

    name: str
    make: Callable[[Any, Json, int], Any]
    streams: bool = False
    awaits: bool = False
    framework: str = ""
    calls: int = 1


def _arguments(request: Json) -> Json:
    given = dict(request)
    return {"modelId": given.pop("modelId"), "body": json.dumps(given)}


def _converse(client: Any, request: Json, _: int) -> None:
    client.converse(**request)


def _burst(client: Any, request: Json, _: int) -> None:
    """Five calls at once, of which one goes first."""
    with cachepoint.fan_out(), ThreadPoolExecutor(BURST) as threads:
        calls = [threads.submit(copy_context().run, lambda: client.converse(**request)) for _ in range(BURST)]
    if errors := [error for call in calls if (error := call.exception()) is not None]:
        raise BaseExceptionGroup("calls of a burst", errors)


def _converse_stream(client: Any, request: Json, events: int) -> None:
    _read(client.converse_stream(**request)["stream"], events)


def _invoke(client: Any, request: Json, _: int) -> None:
    client.invoke_model(**_arguments(request))["body"].read()


def _invoke_stream(client: Any, request: Json, events: int) -> None:
    _read(client.invoke_model_with_response_stream(**_arguments(request))["body"], events)


def _read(stream: Any, events: int) -> None:
    for count, _ in enumerate(stream, start=1):
        if count >= events:
            stream.close()
            return


async def _converse_async(client: Any, request: Json, _: int) -> None:
    await client.converse(**request)


async def _converse_stream_async(client: Any, request: Json, events: int) -> None:
    await _read_async((await client.converse_stream(**request))["stream"], events)


async def _invoke_async(client: Any, request: Json, _: int) -> None:
    await (await client.invoke_model(**_arguments(request)))["body"].read()


async def _invoke_stream_async(client: Any, request: Json, events: int) -> None:
    response = await client.invoke_model_with_response_stream(**_arguments(request))
    await _read_async(response["body"], events)


async def _read_async(stream: Any, events: int) -> None:
    count = 0
    passed = aiter(stream)
    async for _ in passed:
        count += 1
        if count >= events:
            await passed.aclose()
            return


# -- the frameworks, for requests of text alone ----------------------------------------------------


def _texts(blocks: list[Json]) -> str:
    return "".join(block["text"] for block in blocks)


def _said(request: Json) -> list[tuple[str, str]]:
    """A request of text alone as pairs of role and text."""
    system = [("system", _texts(request["system"]))] if "system" in request else []
    return system + [(message["role"], _texts(message["content"])) for message in request["messages"]]


def _langchain(client: Any, request: Json) -> tuple[Any, list[Any]]:
    """LangChain's model on a plain client and ours on a wrapped one, and what to ask it."""
    kinds: Mapping[str, Any] = {"system": SystemMessage, "user": HumanMessage, "assistant": AIMessage}
    messages = [kinds[role](words) for role, words in _said(request)]
    is_wrapped = isinstance(client, CacheClient)
    kind: type[ChatBedrockConverse] = CacheAwareChatBedrockConverse if is_wrapped else ChatBedrockConverse
    model = kind(model=request["modelId"], region_name="us-east-1", client=client, bedrock_client=client)
    return model, messages


class _Raising(BaseCallbackHandler):
    """A callback of the user's that is broken."""

    def on_chat_model_start(self, *_: Any, **__: Any) -> None:
        raise RuntimeError("start")

    def on_llm_new_token(self, *_: Any, **__: Any) -> None:
        raise RuntimeError("token")

    def on_llm_end(self, *_: Any, **__: Any) -> None:
        raise RuntimeError("end")

    def on_llm_error(self, *_: Any, **__: Any) -> None:
        raise RuntimeError("error")


def _langchain_broken(client: Any, request: Json, _: int) -> None:
    model, messages = _langchain(client, request)
    model.invoke(messages, config={"callbacks": [_Raising()]})


def _langchain_stream_broken(client: Any, request: Json, events: int) -> None:
    model, messages = _langchain(client, request)
    _read(model.stream(messages, config={"callbacks": [_Raising()]}), events)


def _langchain_invoke(client: Any, request: Json, _: int) -> None:
    model, messages = _langchain(client, request)
    model.invoke(messages)


def _langchain_stream(client: Any, request: Json, events: int) -> None:
    model, messages = _langchain(client, request)
    _read(model.stream(messages), events)


async def _langchain_invoke_async(client: Any, request: Json, _: int) -> None:
    model, messages = _langchain(client, request)
    await model.ainvoke(messages)


async def _langchain_stream_async(client: Any, request: Json, events: int) -> None:
    model, messages = _langchain(client, request)
    await _read_async(model.astream(messages), events)


def _llama_index(client: Any, request: Json) -> tuple[Any, list[ChatMessage]]:
    """Our LLM, which on a plain client places nothing, and what to ask it."""
    policy = client.policy if isinstance(client, CacheClient) else cachepoint.CachePolicy(mode="off")
    llm = CacheAwareBedrockConverse(
        model=request["modelId"], region_name="us-east-1", client=client, prompt_cache=policy
    )
    return llm, [ChatMessage(role=role, content=words) for role, words in _said(request)]


def _llama_chat(client: Any, request: Json, _: int) -> None:
    llm, messages = _llama_index(client, request)
    llm.chat(messages)


def _llama_stream(client: Any, request: Json, events: int) -> None:
    llm, messages = _llama_index(client, request)
    _read(llm.stream_chat(messages), events)


CONVERSE = (
    Way("converse", _converse),
    Way("converse_stream", _converse_stream, streams=True),
    Way("converse, five at once", _burst, calls=BURST),
    Way("converse, async", _converse_async, awaits=True),
    Way("converse_stream, async", _converse_stream_async, streams=True, awaits=True),
)
INVOKE = (
    Way("invoke_model", _invoke),
    Way("invoke_model streamed", _invoke_stream, streams=True),
    Way("invoke_model, async", _invoke_async, awaits=True),
    Way("invoke_model streamed, async", _invoke_stream_async, streams=True, awaits=True),
)
FRAMEWORKS = (
    Way("LangChain invoke", _langchain_invoke, framework="langchain"),
    Way("LangChain stream", _langchain_stream, streams=True, framework="langchain"),
    Way("LangChain ainvoke", _langchain_invoke_async, awaits=True, framework="langchain"),
    Way("LangChain astream", _langchain_stream_async, streams=True, awaits=True, framework="langchain"),
    Way("LangChain invoke, callback raises", _langchain_broken, framework="langchain"),
    Way("LangChain stream, callback raises", _langchain_stream_broken, streams=True, framework="langchain"),
    Way("LlamaIndex chat", _llama_chat, framework="llama_index"),
    Way("LlamaIndex stream_chat", _llama_stream, streams=True, framework="llama_index"),
)
