"""What `as_structured_llm` gives: answers as objects, each one call to whoever counts.

LlamaIndex's StructuredLLM is an LLM around the LLM. It announces a call of its own around each call, one without usage,
so that token counters estimate it on top of the real one; and an engine gives its callbacks to the outer of the two
alone. This one announces nothing, hands its callbacks on, and tells what the call cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
    MessageRole,
)
from llama_index.core.bridge.pydantic import BaseModel, SerializeAsAny
from llama_index.core.llms.structured_llm import StructuredLLM
from llama_index.core.prompts import ChatPromptTemplate
from typing_extensions import override  # a dependency of llama-index-core

from cachepoint.core.accounts.ledger import CacheLedger
from cachepoint.core.accounts.record import CallRecord
from cachepoint.llama_index._request.messages import as_chat
from cachepoint.llama_index._request.responses import amapped, completion_response, mapped
from cachepoint.llama_index._settings import BedrockSettings


class StructuredBedrockConverse(StructuredLLM):
    """Answers with objects of `output_cls`, in `raw`; `additional_kwargs["prompt_cache"]` tells of the call."""

    llm: SerializeAsAny[BedrockSettings]

    @override
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Answer a chat with an object; raises ValueError where the model gave none."""
        records: list[CallRecord] = []
        output = self._inner(records).structured_predict(self.output_cls, _prompt(messages), llm_kwargs=kwargs)
        return _response(output, records)

    @override
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        """Answer a chat with an object that grows."""
        records: list[CallRecord] = []
        outputs = self._inner(records).stream_structured_predict(self.output_cls, _prompt(messages), llm_kwargs=kwargs)
        return mapped(lambda output: _response(output, records), outputs)

    @override
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """`chat`, without blocking the event loop."""
        records: list[CallRecord] = []
        inner = self._inner(records)
        output = await inner.astructured_predict(self.output_cls, _prompt(messages), llm_kwargs=kwargs)
        return _response(output, records)

    @override
    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseAsyncGen:
        """`stream_chat`, without blocking the event loop."""
        records: list[CallRecord] = []
        inner = self._inner(records)
        outputs = await inner.astream_structured_predict(self.output_cls, _prompt(messages), llm_kwargs=kwargs)
        return amapped(lambda output: _response(output, records), outputs)

    @override
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Answer a prompt with an object."""
        return completion_response(self.chat(as_chat(prompt), **kwargs))

    @override
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        """Answer a prompt with an object that grows."""
        return mapped(completion_response, self.stream_chat(as_chat(prompt), **kwargs))

    @override
    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """`complete`, without blocking the event loop."""
        return completion_response(await self.achat(as_chat(prompt), **kwargs))

    @override
    async def astream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseAsyncGen:
        """`stream_complete`, without blocking the event loop."""
        return amapped(completion_response, await self.astream_chat(as_chat(prompt), **kwargs))

    def _inner(self, records: list[CallRecord]) -> BedrockSettings:
        """The LLM for one call: with this one's callbacks, and the call's record put into `records`."""
        ledger = CacheLedger(keep=0, on_call=[self.llm.ledger.add, records.append])
        return self.llm.model_copy(update={"callback_manager": self.callback_manager, "ledger": ledger})


def _prompt(messages: Sequence[ChatMessage]) -> ChatPromptTemplate:
    return ChatPromptTemplate(message_templates=messages)


def _response(output: BaseModel, records: Sequence[CallRecord]) -> ChatResponse:
    return ChatResponse(
        message=ChatMessage(role=MessageRole.ASSISTANT, content=output.model_dump_json()),
        raw=output,
        additional_kwargs={"prompt_cache": records[-1].contract()} if records else {},
    )
