"""Where context stands in a prompt: a block a document, and a boundary between context and question.

A checkpoint can only stand behind a block. LlamaIndex's own templates put context and question into one.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import uuid4

from llama_index.core.base.llms.base import BaseLLM
from llama_index.core.base.llms.types import ChatMessage, ContentBlock, MessageRole, TextBlock
from llama_index.core.prompts import BasePromptTemplate, ChatPromptTemplate

from cachepoint.errors import ConfigurationError
from cachepoint.llama_index._documents.stable_order import LABEL

# To LlamaIndex and all its LLMs these are blocks of text. What is known of a text must not stand in a message's
# `additional_kwargs`: LlamaIndex prints those into the prompts of completion models.


class ContextBlock(TextBlock):
    """Context that questions are asked about; the planner is told where the last such block of a message ends."""


class VolatileBlock(TextBlock):
    """Text with which begins what the history will not keep, such as the documents of one turn.

    The planner is told, and writes nothing that ends behind it.
    """


QA_SYSTEM = (
    "You answer questions from the context you are given and from nothing else. "
    "If the context does not have the answer, say so."
)
CITE = f"Behind each statement, cite its source: the source's {LABEL} in square brackets, as in [1a2b3c]."


def cached_qa_template(system: str | BasePromptTemplate = QA_SYSTEM, *, cite: bool = False) -> ChatPromptTemplate:
    """A question-and-answer template: static system text, then the context, then the question in a block of its own.

    For `text_qa_template` of any query engine or response synthesizer. With `cite`, the model is told to cite by
    labels, which `StableOrderPostprocessor(labels=True)` puts there; numbers by position would change with every query.
    """
    text = fixed_text("system", system)
    return ChatPromptTemplate(
        message_templates=[
            ChatMessage(role=MessageRole.SYSTEM, content=f"{text}\n{CITE}" if cite else text),
            ChatMessage(
                role=MessageRole.USER,
                blocks=[ContextBlock(text="Context:\n{context_str}"), TextBlock(text="Question: {query_str}")],
            ),
        ]
    )


def filled(
    template: BasePromptTemplate, documents: Sequence[str], *, llm: BaseLLM | None = None, **values: str
) -> list[ChatMessage]:
    """A template's messages with each document a block of its own where the template has its `context_str`.

    Any of LlamaIndex's templates will do; `llm` is for those that differ by model. The values are put into the template
    alone: braces in a document or in a value stay as they are.
    """
    slot = uuid4().hex
    messages = template.format_messages(llm=llm, context_str=slot, **values)
    if not any(slot in block.text for message in messages for block in message.blocks if isinstance(block, TextBlock)):
        raise ConfigurationError(
            f"the template's variables are {template.template_vars}: it needs context_str, where the documents go; "
            "a variable of another name is named by template_var_mappings"
        )
    return [_with_documents(message, slot, documents) for message in messages]


def fixed_text(setting: str, given: str | BasePromptTemplate) -> str:
    """A text that is the same at every turn, which may be given as a template whose variables are all filled."""
    if isinstance(given, str):
        return given
    if not isinstance(given, BasePromptTemplate):
        raise ConfigurationError(f"{setting} is a {type(given).__name__}: give a string or a prompt template")
    messages = fixed_messages(setting, given)
    if len(messages) != 1:
        raise ConfigurationError(f"{setting} is a template of {len(messages)} messages: give one of a single message")
    return messages[0].content or ""


def fixed_messages(setting: str, template: BasePromptTemplate) -> list[ChatMessage]:
    """A template's messages; raises where a variable is not filled."""
    mappings = template.template_var_mappings or {}
    known = {mappings.get(name, name) for name in (*template.kwargs, *(template.function_mappings or ()))}
    if missing := sorted(set(template.template_vars) - known):
        raise ConfigurationError(
            f"{setting} is a template whose variables {missing} have no value: give template.partial_format(…)"
        )
    return template.format_messages()


def document_blocks(documents: Sequence[str], kind: type[TextBlock] = TextBlock) -> list[TextBlock]:
    """The documents, each a block that ends with a blank line."""
    return [kind(text=f"{text.rstrip()}\n\n") for text in documents if text.strip()]


def _with_documents(message: ChatMessage, slot: str, documents: Sequence[str]) -> ChatMessage:
    blocks: list[ContentBlock] = []
    for block in message.blocks:
        if not isinstance(block, TextBlock) or slot not in block.text:
            blocks.append(block)
            continue
        before, *others = block.text.split(slot)
        blocks += _text(before)
        for after in others:
            blocks += document_blocks(documents, ContextBlock)
            blocks += _text(after)
    return ChatMessage(role=message.role, blocks=blocks, additional_kwargs=message.additional_kwargs)


def _text(text: str) -> list[TextBlock]:
    # The service refuses a block of white space alone.
    return [TextBlock(text=text)] if text.strip() else []
