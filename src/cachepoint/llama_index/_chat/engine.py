"""`CachedContextChatEngine`: a conversation over retrieved documents whose prefix grows and never changes.

A turn is sent as: the static system prompt, the history, then the documents and the question in the last message. What
changes with every turn, the documents, stands last; the history keeps questions and answers alone, as they were given.
LlamaIndex's own context engines put the documents before the system prompt, where they change everything behind them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from inspect import signature
from threading import Thread
from typing import Any, Self

from llama_index.core import Settings
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    MessageRole,
    TextBlock,
)
from llama_index.core.callbacks import CallbackManager, trace_method
from llama_index.core.chat_engine.types import AgentChatResponse, BaseChatEngine, StreamingAgentChatResponse
from llama_index.core.indices.base import BaseIndex
from llama_index.core.llms.llm import LLM
from llama_index.core.memory.types import BaseMemory
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.prompts import BasePromptTemplate
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle
from llama_index.core.tools.types import ToolOutput
from typing_extensions import override  # a dependency of llama-index-core

from cachepoint.llama_index._chat.memory import ChunkedChatMemory
from cachepoint.llama_index._documents.stable_order import StableOrderPostprocessor
from cachepoint.llama_index._documents.templates import VolatileBlock, document_blocks, fixed_messages, fixed_text

CONTEXT_LABEL = "Context for the question below:\n\n"


class CachedContextChatEngine(BaseChatEngine):
    """A chat engine over a retriever; made by `from_defaults`, or from an index by `from_index`."""

    def __init__(
        self,
        retriever: BaseRetriever,
        llm: LLM,
        memory: BaseMemory,
        prefix_messages: Sequence[ChatMessage] | BasePromptTemplate = (),
        node_postprocessors: Sequence[BaseNodePostprocessor] = (),
        callback_manager: CallbackManager | None = None,
    ) -> None:
        self._retriever = retriever
        self._llm = llm
        self._memory = memory
        self._prefix_messages = _prefix(prefix_messages)
        self._node_postprocessors = tuple(node_postprocessors)
        self.callback_manager = callback_manager or CallbackManager([])

    @classmethod
    def from_defaults(
        cls,
        retriever: BaseRetriever,
        *,
        llm: LLM | None = None,
        system_prompt: str | BasePromptTemplate | None = None,
        prefix_messages: Sequence[ChatMessage] | BasePromptTemplate = (),
        chat_history: list[ChatMessage] | None = None,
        memory: BaseMemory | None = None,
        node_postprocessors: Sequence[BaseNodePostprocessor] | None = None,
    ) -> Self:
        """An engine with LlamaIndex's defaults, a `ChunkedChatMemory` and documents in a stable order.

        `system_prompt` goes before `prefix_messages`; both may be templates whose variables are all filled.
        `chat_history` is what a new memory starts with.
        """
        model = llm or Settings.llm
        system = fixed_text("system_prompt", system_prompt or "")
        prefix = [ChatMessage(role=MessageRole.SYSTEM, content=system)] if system else []
        return cls(
            retriever,
            model,
            memory or ChunkedChatMemory.from_defaults(chat_history, model),
            [*prefix, *_prefix(prefix_messages)],
            [StableOrderPostprocessor()] if node_postprocessors is None else node_postprocessors,
            Settings.callback_manager,
        )

    @classmethod
    def from_index(cls, index: BaseIndex[Any], **kwargs: Any) -> Self:
        """What `index.as_chat_engine` is to other engines.

        `kwargs` are those of `from_defaults`; all others, such as `similarity_top_k`, go to `index.as_retriever`.
        """
        known = signature(cls.from_defaults).parameters
        own = {name: kwargs.pop(name) for name in known if name in kwargs}
        return cls.from_defaults(index.as_retriever(**kwargs), **own)

    @override
    @trace_method("chat")
    def chat(self, message: str, chat_history: list[ChatMessage] | None = None) -> AgentChatResponse:
        message = fixed_text("message", message)
        if chat_history is not None:
            self._memory.set(chat_history)
        nodes = self._nodes(message)
        response = self._llm.chat(self._turn(message, nodes, self._memory.get(input=message)))
        self._memory.put_messages([_asked(message), _answered(response.message)])
        return AgentChatResponse(response.message.content or "", [_source(message, nodes)], nodes)

    @override
    @trace_method("chat")
    async def achat(self, message: str, chat_history: list[ChatMessage] | None = None) -> AgentChatResponse:
        message = fixed_text("message", message)
        if chat_history is not None:
            await self._memory.aset(chat_history)
        nodes = await self._anodes(message)
        response = await self._llm.achat(self._turn(message, nodes, await self._memory.aget(input=message)))
        await self._memory.aput_messages([_asked(message), _answered(response.message)])
        return AgentChatResponse(response.message.content or "", [_source(message, nodes)], nodes)

    @override
    @trace_method("chat")
    def stream_chat(self, message: str, chat_history: list[ChatMessage] | None = None) -> StreamingAgentChatResponse:
        message = fixed_text("message", message)
        if chat_history is not None:
            self._memory.set(chat_history)
        nodes = self._nodes(message)
        stream = self._llm.stream_chat(self._turn(message, nodes, self._memory.get(input=message)))
        response = StreamingAgentChatResponse(
            chat_stream=self._remembering(message, stream), sources=[_source(message, nodes)], source_nodes=nodes
        )
        response.write_response_to_history_thread = Thread(
            target=response.write_response_to_history, args=(ChunkedChatMemory(),), daemon=True
        )
        response.write_response_to_history_thread.start()
        return response

    @override
    @trace_method("chat")
    async def astream_chat(
        self, message: str, chat_history: list[ChatMessage] | None = None
    ) -> StreamingAgentChatResponse:
        message = fixed_text("message", message)
        if chat_history is not None:
            await self._memory.aset(chat_history)
        nodes = await self._anodes(message)
        stream = await self._llm.astream_chat(self._turn(message, nodes, await self._memory.aget(input=message)))
        response = StreamingAgentChatResponse(
            achat_stream=self._aremembering(message, stream), sources=[_source(message, nodes)], source_nodes=nodes
        )
        response.awrite_response_to_history_task = asyncio.create_task(
            response.awrite_response_to_history(ChunkedChatMemory())
        )
        return response

    @override
    def reset(self) -> None:
        self._memory.reset()

    @property
    @override
    def chat_history(self) -> list[ChatMessage]:
        return self._memory.get_all()

    def _turn(self, message: str, nodes: Sequence[NodeWithScore], history: Sequence[ChatMessage]) -> list[ChatMessage]:
        documents = document_blocks([item.node.get_content(MetadataMode.LLM) for item in nodes])
        # The first turn of one conversation may well come back in another; what stands behind a history does not.
        label = (VolatileBlock if history else TextBlock)(text=CONTEXT_LABEL)
        context = [label, *documents] if documents else []
        asked = ChatMessage(role=MessageRole.USER, blocks=[*context, TextBlock(text=message)])
        return [*self._prefix_messages, *history, asked]

    # What LlamaIndex writes to a memory at the end of a stream is the text alone, and some of its releases raise where
    # there is more, such as thinking. So the stream itself remembers the turn, and LlamaIndex is given another memory.

    def _remembering(self, message: str, stream: ChatResponseGen) -> ChatResponseGen:
        answer: ChatMessage | None = None
        for chunk in stream:
            answer = chunk.message
            yield _text_alone(chunk)
        if answer is not None:
            self._memory.put_messages([_asked(message), _answered(answer)])

    async def _aremembering(self, message: str, stream: ChatResponseAsyncGen) -> ChatResponseAsyncGen:
        answer: ChatMessage | None = None
        async for chunk in stream:
            answer = chunk.message
            yield _text_alone(chunk)
        if answer is not None:
            await self._memory.aput_messages([_asked(message), _answered(answer)])

    def _nodes(self, message: str) -> list[NodeWithScore]:
        nodes = self._retriever.retrieve(message)
        for postprocessor in self._node_postprocessors:
            nodes = postprocessor.postprocess_nodes(nodes, query_bundle=QueryBundle(message))
        return nodes

    async def _anodes(self, message: str) -> list[NodeWithScore]:
        nodes = await self._retriever.aretrieve(message)
        for postprocessor in self._node_postprocessors:
            nodes = await postprocessor.apostprocess_nodes(nodes, query_bundle=QueryBundle(message))
        return nodes


def _prefix(given: Sequence[ChatMessage] | BasePromptTemplate) -> tuple[ChatMessage, ...]:
    return tuple(fixed_messages("prefix_messages", given) if isinstance(given, BasePromptTemplate) else given)


def _asked(message: str) -> ChatMessage:
    return ChatMessage(role=MessageRole.USER, content=message)


def _answered(message: ChatMessage) -> ChatMessage:
    """The answer as it came: a model that thinks is to find its thoughts again, with their signatures."""
    return ChatMessage(role=MessageRole.ASSISTANT, blocks=message.blocks or [TextBlock(text="")])


def _text_alone(chunk: ChatResponse) -> ChatResponse:
    message = ChatMessage(role=chunk.message.role, content=chunk.message.content or "")
    return chunk.model_copy(update={"message": message})


def _source(message: str, nodes: list[NodeWithScore]) -> ToolOutput:
    return ToolOutput(
        tool_name="retriever",
        content="\n\n".join(item.node.get_content(MetadataMode.LLM) for item in nodes),
        raw_input={"message": message},
        raw_output=nodes,
    )
