"""Where context stands in a prompt: a block a document, and a boundary between context and question.

A checkpoint can only stand behind a block. LlamaIndex's own templates put context and question into one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from llama_index.core.base.llms.types import ChatMessage, ContentBlock, MessageRole, TextBlock
from llama_index.core.prompts import ChatPromptTemplate
from llama_index.core.prompts.utils import format_string

CONTEXT_BLOCKS = "context_blocks"
"""Key of `ChatMessage.additional_kwargs`: how many of the message's first blocks are context."""

QA_SYSTEM = (
    "You answer questions from the context you are given and from nothing else. "
    "If the context does not have the answer, say so."
)
CITE = "Behind each statement, cite its source: the source's label in square brackets, as in [1a2b3c]."
CONTEXT_SLOT = "{context_str}"


def cached_qa_template(system: str = QA_SYSTEM, *, cite: bool = False) -> ChatPromptTemplate:
    """A question-and-answer template: static system text, then the context, then the question in a block of its own.

    For `text_qa_template` of any query engine or response synthesizer. With `cite`, the model is told to cite by
    labels, which `StableOrderPostprocessor(labels=True)` puts there; numbers by position would change with every query.
    """
    return ChatPromptTemplate(
        message_templates=[
            ChatMessage(role=MessageRole.SYSTEM, content=f"{system}\n{CITE}" if cite else system),
            ChatMessage(
                role=MessageRole.USER,
                blocks=[TextBlock(text=f"Context:\n{CONTEXT_SLOT}"), TextBlock(text="Question: {query_str}")],
                additional_kwargs={CONTEXT_BLOCKS: 1},
            ),
        ]
    )


def filled(template: ChatPromptTemplate, documents: Sequence[str], **values: str) -> list[ChatMessage]:
    """A template's messages with each document a block of its own where the template has its context.

    The values are put into the template alone: braces in a document or in a value stay as they are.
    """
    return [_filled(message, documents, values) for message in template.message_templates]


def document_blocks(documents: Sequence[str]) -> list[TextBlock]:
    """The documents, each a block that ends with a blank line."""
    return [TextBlock(text=f"{text.rstrip()}\n\n") for text in documents if text.strip()]


def _filled(message: ChatMessage, documents: Sequence[str], values: Mapping[str, str]) -> ChatMessage:
    blocks: list[ContentBlock] = []
    known = dict(message.additional_kwargs)
    for block in message.blocks:
        if not isinstance(block, TextBlock) or CONTEXT_SLOT not in block.text:
            blocks.append(block.format_vars(**values))  # type: ignore[arg-type]  # gives a block of the same class
            continue
        before, _, after = (format_string(part, **values) for part in block.text.partition(CONTEXT_SLOT))
        blocks += [*_text(before), *document_blocks(documents)]
        known[CONTEXT_BLOCKS] = len(blocks)
        blocks += _text(after)
    return ChatMessage(role=message.role, blocks=blocks, additional_kwargs=known)


def _text(text: str) -> list[TextBlock]:
    return [TextBlock(text=text)] if text else []
