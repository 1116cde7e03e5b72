"""`ChunkedChatMemory`: a chat history trimmed in chunks, so that its beginning stands still."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from llama_index.core.base.llms.types import (
    CachePoint,
    ChatMessage,
    CitationBlock,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)
from llama_index.core.bridge.pydantic import Field
from llama_index.core.llms.llm import LLM
from llama_index.core.memory.types import BaseChatStoreMemory
from typing_extensions import override  # a dependency of llama-index-core

from cachepoint.bedrock.settings import check_own_names
from cachepoint.core.prompt.tokens import IMAGE_TOKENS, PROFILES
from cachepoint.core.retrieval.trimming import start_in_chunks

_TOKEN_LIMIT = 32_000
_SHARE_OF_WINDOW = 0.5
_PROFILE = PROFILES["claude-new"]


class ChunkedChatMemory(BaseChatStoreMemory):
    """Keeps whole turns up to `token_limit` and, once that is passed, drops the oldest down to a share of it.

    LlamaIndex's buffers drop a turn at every turn once they are full, which gives every request another prefix.
    """

    token_limit: int = Field(default=_TOKEN_LIMIT, gt=0, description="Estimated tokens of history at most.")
    keep: float = Field(default=0.5, gt=0, lt=1, description="The share of the limit that is kept when it is passed.")

    if not TYPE_CHECKING:  # a checker makes the signature of the fields

        def __init__(self, **data: Any) -> None:
            check_own_names(self, data, {*type(self).model_fields, "class_name"})
            super().__init__(**data)

    @classmethod
    def class_name(cls) -> str:
        """The name under which LlamaIndex serialises the class."""
        return "ChunkedChatMemory"

    @classmethod
    @override
    def from_defaults(
        cls, chat_history: list[ChatMessage] | None = None, llm: LLM | None = None, **kwargs: Any
    ) -> Self:
        """A memory with this history; without `token_limit`, half the LLM's context window."""
        if llm is not None:
            kwargs.setdefault("token_limit", int(llm.metadata.context_window * _SHARE_OF_WINDOW))
        memory = cls(**kwargs)
        if chat_history:
            memory.set(chat_history)
        return memory

    @override
    def get(self, input: str | None = None, **kwargs: Any) -> list[ChatMessage]:
        return self._trimmed(self.get_all())

    @override
    async def aget(self, input: str | None = None, **kwargs: Any) -> list[ChatMessage]:
        return self._trimmed(await self.aget_all())

    def _trimmed(self, messages: list[ChatMessage]) -> list[ChatMessage]:
        # A turn begins with the user; cut anywhere else, a tool's result would lose its call.
        turns: list[list[ChatMessage]] = []
        for message in messages:
            if not turns or message.role == MessageRole.USER:
                turns.append([])
            turns[-1].append(message)
        sizes = [sum(map(_tokens, turn)) for turn in turns]
        start = start_in_chunks(sizes, self.token_limit, int(self.token_limit * self.keep))
        return [message for turn in turns[start:] for message in turn]


def _tokens(message: ChatMessage) -> int:
    text = 0
    other = 0.0
    for block in message.blocks:
        if isinstance(block, TextBlock):
            text += len(block.text.encode())
        elif isinstance(block, ThinkingBlock):
            text += len((block.content or "").encode())
        elif isinstance(block, ToolCallBlock):
            text += len(str(block.tool_kwargs).encode()) + len(block.tool_name)
        elif not isinstance(block, CitationBlock | CachePoint):  # which are no part of the prompt
            other += IMAGE_TOKENS
    return int(text / _PROFILE.likely + other + _PROFILE.per_message)
