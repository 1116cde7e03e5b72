"""Retrieved documents in a prompt: a block each, under labels that do not depend on the question."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, get_args
from xml.sax.saxutils import quoteattr

from langchain_core.documents import Document
from langchain_core.messages import BaseMessage, HumanMessage, SystemMessage, convert_to_messages
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.prompts.message import BaseMessagePromptTemplate
from typing_extensions import override  # a dependency of langchain-core

from cachepoint.bedrock.warn import warn
from cachepoint.core.provider.rules import TTL
from cachepoint.core.retrieval.ordering import content_digest
from cachepoint.errors import ConfigurationError
from cachepoint.langchain._documents.retriever import PLACE
from cachepoint.langchain._request.cache_control import blocks_of, marked
from cachepoint.langchain._request.carried import hinted

CONTEXT_SYSTEM = (
    "You answer questions from the documents you are given and from nothing else. "
    "If they do not have the answer, say so. Name the ids of the documents an answer comes from."
)

Layout = Literal["last", "first"]
Block = dict[str, Any]

_LABEL_DIGITS = 6
_SOURCE = "source"
_LOOKED_AT = 200
_SCORE = re.compile(r"(?:relevance|similarity|distance|score)\W{1,4}\d*\.\d+", re.IGNORECASE)


def label_of(document: Document) -> str:
    """A short label made of the document's content, so that it does not depend on its place among others."""
    return content_digest(document.page_content)[:_LABEL_DIGITS]


def context_blocks(
    documents: Iterable[Document],
    *,
    recurring: bool = True,
    ttl: TTL | None = None,
    render: Callable[[Document], str] | None = None,
) -> list[Block]:
    """The documents as content blocks of a message, one each, in the order given.

    The last block is marked as the end of the context, and the planner decides whether a checkpoint there pays; `ttl`
    asks for one with that lifetime. With `recurring=False`, where each question brings other documents, nothing is
    marked, and the planner waits until it sees the same ones again. `render` makes a document's text; by default its
    label, its source and its content. Warns when a step after `StableOrderRetriever` changed the order, or put scores
    into the text.
    """
    asked: Any = ttl
    if asked not in (None, *get_args(TTL)):
        raise ConfigurationError(f"context_blocks(ttl={asked!r:.80}): use one of {get_args(TTL)}, or leave it out")
    documents = list(documents)
    _check(documents)
    blocks = [_text((render or _rendered)(document)) for document in documents]
    return _ended(blocks, ttl) if recurring or ttl else blocks


def cached_context_prompt(
    system: str = CONTEXT_SYSTEM,
    *,
    documents: Layout = "last",
    context: str = "context",
    question: str = "input",
    history: str = "chat_history",
) -> ChatPromptTemplate:
    """A chat prompt whose beginning stays the same: static system text, then what changes least.

    - `documents="last"`: the history, then documents and question; for retrieval, which finds others each turn.
    - `documents="first"`: the documents, then history and question; for questions about the same documents.

    `context`, `question` and `history` are the names of its variables. The context may be documents, content blocks or
    one string; the history may be left out. `system` is taken as it is, braces and all.
    """
    turns = ContextTurns(context=context, question=question, history=history, documents=documents)
    return ChatPromptTemplate(
        [SystemMessage(system), turns], optional_variables=[history], partial_variables={history: []}
    )


class ContextTurns(BaseMessagePromptTemplate):
    """History, documents and question as turns of a conversation; made by `cached_context_prompt`."""

    context: str
    question: str
    history: str
    documents: Layout

    @property
    def input_variables(self) -> list[str]:
        """The variables that must be given."""
        return [self.context, self.question]

    @classmethod
    def get_lc_namespace(cls) -> list[str]:
        """Where `langchain_core.load` finds the class."""
        return ["cachepoint", "langchain"]

    @override
    def format_messages(self, **kwargs: Any) -> list[BaseMessage]:
        asked = HumanMessage(blocks_of(kwargs[self.question]))
        turns = [*convert_to_messages(kwargs.get(self.history) or []), asked]
        place = 0 if self.documents == "first" and isinstance(turns[0], HumanMessage) else -1
        # A turn that has the documents now is sent without them when it is history, so it stays the same otherwise.
        context = _context(kwargs[self.context], recurring=self.documents == "first")
        # The first turn of one conversation may well come back in another; what stands behind a history does not.
        if self.documents == "last" and len(turns) > 1 and context:
            context[0] = hinted(context[0], "volatile")
        content = [*context, *blocks_of(turns[place].content)]
        turns[place] = turns[place].model_copy(update={"content": content})
        return turns

    @override
    def pretty_repr(self, html: bool = False) -> str:
        shown = (self.history, f"{self.context} + {self.question}")
        return "\n\n".join(f"{{{name}}}" for name in (shown if self.documents == "last" else (self.context, *shown)))


def _context(given: Any, *, recurring: bool) -> list[Block]:
    if isinstance(given, str):
        blocks = [_text(given)] if given.strip() else []
        return _ended(blocks, None) if recurring else blocks
    if all(isinstance(each, Document) for each in given):
        return context_blocks(given, recurring=recurring)
    return blocks_of(given)


def _text(text: str) -> Block:
    return {"type": "text", "text": text}


def _ended(blocks: list[Block], ttl: TTL | None) -> list[Block]:
    if not blocks:
        return []
    *before, last = blocks
    return [*before, hinted(marked(last, ttl) if ttl else last, "context_end")]


def _rendered(document: Document) -> str:
    source = document.metadata.get(_SOURCE)
    named = f" source={quoteattr(str(source))}" if source else ""
    return f'<document id="{label_of(document)}"{named}>\n{document.page_content.strip()}\n</document>\n'


def _check(documents: Sequence[Document]) -> None:
    """Warn when something came between the stable order and the prompt."""
    placed = [document for document in documents if isinstance(document.metadata.get(PLACE), Mapping)]
    if _reordered(document.metadata[PLACE] for document in placed):
        _warn("the documents were reordered after they were put into a stable order, as LongContextReorder does")
    changed = [each for each in placed if each.metadata[PLACE]["digest"] != content_digest(each.page_content)]
    if any(_SCORE.search(text[:_LOOKED_AT]) or _SCORE.search(text[-_LOOKED_AT:]) for text in map(_content, changed)):
        _warn("scores were written into the documents' text")


def _reordered(places: Iterable[Mapping[str, Any]]) -> bool:
    """Whether one comes after another that it preceded; documents of several orders may stand side by side."""
    last: dict[str, int] = {}
    for place in places:
        if place["position"] < last.get(place["order"], 0):
            return True
        last[place["order"]] = place["position"]
    return False


def _content(document: Document) -> str:
    return document.page_content


def _warn(what: str) -> None:
    warn(
        f"{what}: they come out differently for every question, and no prefix that has documents is read again. "
        "Leave that step out, or let it come before StableOrderRetriever."
    )
