"""`CachedContextSynthesizer`: an answer from documents that stand in the prompt a block each, before the question."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llama_index.core.base.llms.types import ChatMessage, TextBlock
from llama_index.core.callbacks import CallbackManager
from llama_index.core.llms.llm import LLM, astream_chat_response_to_tokens, stream_chat_response_to_tokens
from llama_index.core.prompts import BasePromptTemplate
from llama_index.core.prompts.mixin import PromptDictType
from llama_index.core.response_synthesizers.base import BaseSynthesizer
from llama_index.core.types import RESPONSE_TEXT_TYPE
from typing_extensions import override  # a dependency of llama-index-core

from cachepoint.core.prompt.tokens import PROFILES
from cachepoint.errors import ConfigurationError
from cachepoint.llama_index._documents.templates import cached_qa_template, filled

_QUESTION_TOKENS = 4_000
"""Set aside for system text and question, whatever they are: rounds must not depend on the question's length."""


class CachedContextSynthesizer(BaseSynthesizer):
    """Puts all documents into one prompt, each in a block of its own, and the question behind them.

    For `response_synthesizer` of a query engine. Documents that exceed the context window are taken in rounds of whole
    documents, each round improving on the answer so far; where rounds part does not depend on the question.
    `text_qa_template` may be any of LlamaIndex's templates that has `context_str`; where that stands, a block ends.
    """

    def __init__(
        self,
        llm: LLM | None = None,
        text_qa_template: BasePromptTemplate | None = None,
        streaming: bool = False,  # noqa: FBT001, FBT002 - as in llama-index's own synthesizers
        callback_manager: CallbackManager | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(llm=llm, callback_manager=callback_manager, streaming=streaming, **kwargs)
        self._template = cached_qa_template() if text_qa_template is None else _template(text_qa_template)

    @override
    def get_response(self, query_str: str, text_chunks: Sequence[str], **response_kwargs: Any) -> RESPONSE_TEXT_TYPE:
        *earlier, last = self._rounds(text_chunks)
        answer: str | None = None
        for documents in earlier:
            answer = self._llm.chat(self._messages(documents, query_str, answer), **response_kwargs).message.content
        messages = self._messages(last, query_str, answer)
        if self._streaming:
            return stream_chat_response_to_tokens(self._llm.stream_chat(messages, **response_kwargs))
        return self._llm.chat(messages, **response_kwargs).message.content or ""

    @override
    async def aget_response(
        self, query_str: str, text_chunks: Sequence[str], **response_kwargs: Any
    ) -> RESPONSE_TEXT_TYPE:
        *earlier, last = self._rounds(text_chunks)
        answer: str | None = None
        for documents in earlier:
            response = await self._llm.achat(self._messages(documents, query_str, answer), **response_kwargs)
            answer = response.message.content
        messages = self._messages(last, query_str, answer)
        if self._streaming:
            stream = await self._llm.astream_chat(messages, **response_kwargs)
            return await astream_chat_response_to_tokens(stream)
        return (await self._llm.achat(messages, **response_kwargs)).message.content or ""

    def _messages(self, documents: Sequence[str], question: str, answer: str | None) -> list[ChatMessage]:
        messages = filled(self._template, documents, llm=self._llm, query_str=question)
        if answer:
            so_far = "An answer from other documents is below. Improve it where these documents say more.\n"
            messages[-1].blocks.append(TextBlock(text=f"{so_far}{answer}"))
        return messages

    def _rounds(self, documents: Sequence[str]) -> list[list[str]]:
        """The documents in rounds that fit the context window, always at least one round."""
        room = self._llm.metadata.context_window - self._llm.metadata.num_output - _QUESTION_TOKENS
        rounds: list[list[str]] = [[]]
        left = room
        for text in documents:
            tokens = int(len(text.encode()) / PROFILES["claude-new"].likely)
            if rounds[-1] and tokens > left:
                rounds.append([])
                left = room
            rounds[-1].append(text)
            left -= tokens
        return rounds

    @override
    def _get_prompts(self) -> PromptDictType:
        return {"text_qa_template": self._template}

    @override
    def _update_prompts(self, prompts: PromptDictType) -> None:
        if "text_qa_template" in prompts:
            self._template = _template(prompts["text_qa_template"])


def _template(given: BasePromptTemplate) -> BasePromptTemplate:
    if not isinstance(given, BasePromptTemplate):
        raise ConfigurationError(
            f"text_qa_template is a {type(given).__name__}: give a template, such as PromptTemplate(…) or "
            "cached_qa_template(), with context_str and query_str in it"
        )
    return given
