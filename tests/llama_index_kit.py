"""How the LlamaIndex suites call an LLM and read what it sent."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llama_index.core.base.llms.types import CacheControl, CachePoint, ChatMessage, ChatResponse, CompletionResponse
from llama_index.core.llms.function_calling import FunctionCallingLLM

from cachepoint.emulator import BedrockEmulator
from cachepoint.llama_index import CacheAwareBedrockConverse

Json = dict[str, Any]
Answer = ChatResponse | CompletionResponse
MakeLLM = Callable[..., FunctionCallingLLM]
"""Makes the LLM under test, connected to the test's emulator; settings given go before the usual ones."""

CHAT_METHODS = ("chat", "stream_chat", "achat", "astream_chat")
COMPLETE_METHODS = ("complete", "stream_complete", "acomplete", "astream_complete")
METHODS = (*CHAT_METHODS, *COMPLETE_METHODS)

MODEL = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
CONNECTION: Mapping[str, Any] = {
    "region_name": "us-east-1",
    "aws_access_key_id": "EMULATOR",
    "aws_secret_access_key": "emulator",
}
LONG = "Prefix caching reads what an earlier request wrote, as long as not a byte before the checkpoint differs. " * 80
"""About 1,600 tokens: above the minimum of the model the suites use."""


async def ask(llm: Any, method: str, question: str | Sequence[Any], **options: Any) -> list[Any]:
    """Call one of the eight methods, or one with tools; all responses it gave, one where it does not stream.

    `question` is the method's first argument; a text becomes a chat where the method wants one.
    """
    if "chat" in method and isinstance(question, str):
        question = [ChatMessage(content=question)]
    result = getattr(llm, method)(question, **options)
    if inspect.isawaitable(result):
        result = await result
    if inspect.isasyncgen(result):
        return [response async for response in result]
    return list(result) if inspect.isgenerator(result) else [result]


async def answer(llm: Any, method: str, question: str | Sequence[Any], **options: Any) -> Any:
    """The last response, which has the whole answer."""
    return (await ask(llm, method, question, **options))[-1]


async def recorded(llm: CacheAwareBedrockConverse, calls: int) -> None:
    """Wait until so many calls are in the ledger: what was left in mid-air is recorded a little later."""
    for _ in range(3_000):
        if llm.ledger.totals().calls >= calls:
            return
        await asyncio.sleep(0.01)


def text_of(response: Answer) -> str:
    """The text of a response of either kind."""
    return (response.message.content if isinstance(response, ChatResponse) else response.text) or ""


def cache_point(ttl: str | None = None, kind: str = "default") -> CachePoint:
    """A CachePoint, with a TTL only if one is given."""
    return CachePoint(cache_control=CacheControl(type=kind, **({"ttl": ttl} if ttl else {})))


def sent(emulator: BedrockEmulator) -> list[Json]:
    """The bodies of the requests the emulator served, which must have been told to keep text."""
    return [call.body for call in emulator.requests if call.body is not None]


def without_points(request: Json) -> Json:
    """A request as it is without checkpoints."""

    def stripped(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: stripped(inner) for name, inner in value.items()}
        if isinstance(value, list):
            return [stripped(inner) for inner in value if not (isinstance(inner, dict) and "cachePoint" in inner)]
        return value

    result: Json = stripped(request)
    return result
