"""Retrieval: documents in the system prompt in the forms that programs use, in the user's message, and reranking."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from capture_lib.requests import Knobs, Message, Request, Text, Workload, assistant, in_order, text, user

from league_lib.talk import dialogue, human_gap, kept, new, rng_of

STATIC, RETRIEVED = 3_500, 2_000
Put = Callable[[str, str], tuple[tuple[Text, ...], Message]]
"""Where a document and a question go: the system prompt and the message."""
SystemOf = Callable[[str, str], tuple[Text, ...]]
"""The system prompt from its static text and this turn's documents."""


def one_string(static: str, documents: str) -> tuple[Text, ...]:
    return (text(static, "\n\nContext:\n", documents),)


def two_blocks(static: str, documents: str) -> tuple[Text, ...]:
    return (text(static), text(documents))


def documents_first(static: str, documents: str) -> tuple[Text, ...]:
    return (text(documents, "\n\n", static),)


def documents_only(static: str, documents: str) -> tuple[Text, ...]:  # noqa: ARG001 - a form like the others
    return (text("Answer from this context.\n\n", documents),)


def _session(
    knobs: Knobs, row: str, session: int, turns: int, system_of: SystemOf, start: float, every: int, pace: float
) -> Iterator[Request]:
    rng, at = rng_of(knobs, f"{row} {session}"), start
    static = kept(knobs, STATIC, "handbook")
    for turn, messages in dialogue(knobs, (row, session), turns, asked=30, answered=150):
        documents = new(knobs, RETRIEVED, "retrieved", row, session, turn // every)
        yield Request(at, messages, system_of(static, documents))
        at += human_gap(knobs, rng, pace)


def sessions(
    row: str, count: int, turns: int, system_of: SystemOf, every: int, pace: float, knobs: Knobs
) -> Iterator[Request]:
    """So many chats, one begun every ten minutes or so; the documents change every so many turns."""
    rng = rng_of(knobs, row)
    starts = [0.0]
    while len(starts) < knobs.many(count):
        starts.append(starts[-1] + rng.expovariate(1 / 600) * knobs.gaps)
    return in_order(
        [
            request
            for number, start in enumerate(starts)
            for request in _session(knobs, row, number, turns, system_of, start, every, pace)
        ]
    )


def in_user_message(knobs: Knobs) -> Iterator[Request]:
    """Static system prompt; the documents stand before the question and are gone from the history."""
    rng = rng_of(knobs, "rag-user")
    found: list[Request] = []
    system = (text(kept(knobs, STATIC, "handbook")),)
    for chat in range(knobs.many(12)):
        at = rng.uniform(0, 3600) * knobs.gaps
        history: tuple[Message, ...] = ()
        for turn in range(15):
            question = new(knobs, 40, "asked", chat, turn)
            documents = new(knobs, RETRIEVED, "retrieved for", chat, turn)
            found.append(Request(at, (*history, user(f"{documents}\n\nQuestion: {question}")), system))
            history = (*history, user(question), assistant(new(knobs, 200, "rag answer", chat, turn)))
            at += human_gap(knobs, rng, 60)
    return in_order(found)


def rerank(knobs: Knobs) -> Iterator[Request]:
    """Passages handed in as turns of a conversation, to be ranked; then the answer from those ranked first."""
    rng, at = rng_of(knobs, "rerank"), 0.0
    instructions = kept(knobs, 60, "ranking instructions")
    for query in range(knobs.many(80)):
        asked = new(knobs, 30, "query", query)
        messages = [user(f"{instructions} Query: {asked}"), assistant("Okay, please provide the passages.")]
        passages = [new(knobs, 150, "passage", query, number) for number in range(15)]
        for number, passage in enumerate(passages):
            messages += [user(f"[{number}] {passage}"), assistant(f"Received passage [{number}].")]
        messages.append(user(f"Rank the passages for the query: {asked}"))
        yield Request(at, tuple(messages), (text(kept(knobs, 40, "ranker")),))
        at += rng.uniform(2, 6) * knobs.gaps
        best = "\n\n".join(rng.sample(passages, 5))
        yield Request(at, (user(f"{best}\n\nQuestion: {asked}"),), (text(kept(knobs, 80, "answerer")),))
        at += rng.expovariate(1 / 30) * knobs.gaps


def _document(knobs: Knobs, number: int) -> str:
    return new(knobs, 3_000, "document", number)


def _system_block(document: str, question: str) -> tuple[tuple[Text, ...], Message]:
    return (text(document),), user(question)


def _user_block(document: str, question: str) -> tuple[tuple[Text, ...], Message]:
    return (), user(document, question)


def _user_string(document: str, question: str) -> tuple[tuple[Text, ...], Message]:
    return (), user(text(document, "\n\nQuestion: ", question))


def documents(row: str, put: Put, knobs: Knobs, *, in_passes: bool) -> Iterator[Request]:
    """Five questions on each of many documents: document by document, or question by question.

    Whoever makes passes knows how many; document by document that is left to be learned.
    """
    rng, at = rng_of(knobs, row), 0.0
    count, questions = knobs.many(120), 5
    order = [(number, question) for number in range(count) for question in range(questions)]
    if in_passes:
        order.sort(key=lambda each: each[1])
    for number, question in order:
        # The questions are the same for every document, and come after it.
        system, message = put(_document(knobs, number), kept(knobs, 30, "fixed question", question))
        yield Request(at, (message,), system, expect={"times": questions} if in_passes else None)
        at += rng.uniform(2, 4) * knobs.gaps * (2 if in_passes else 1)


def _sessions(
    name: str, title: str, count: int, turns: int, system_of: SystemOf, every: int = 1, pace: float = 30
) -> Workload:
    return Workload(name, title, partial(sessions, name, count, turns, system_of, every, pace), 150)


def _documents(name: str, title: str, put: Put) -> Sequence[Workload]:
    return (
        Workload(
            f"docs-grouped-{name}",
            f"120 documents × 5 questions, {title}",
            partial(documents, f"docs-grouped-{name}", put, in_passes=False),
        ),
        Workload(
            f"docs-passes-{name}",
            f"5 questions × 120 documents, {title}",
            partial(documents, f"docs-passes-{name}", put, in_passes=True),
        ),
    )


ROWS: tuple[Workload, ...] = (
    _sessions("rag-string-6", "static and retrieved text in one system string, 6 turns", 1, 6, one_string),
    _sessions("rag-string-15", "static and retrieved text in one system string, 15 turns", 1, 15, one_string),
    _sessions("rag-string-30", "static and retrieved text in one system string, 30 turns", 1, 30, one_string),
    _sessions(
        "rag-string-10x8", "static and retrieved text in one system string, ten sessions of 8 turns", 10, 8, one_string
    ),
    _sessions("rag-blocks-20", "static and retrieved text as two system blocks, 20 turns", 1, 20, two_blocks),
    _sessions(
        "rag-blocks-10x8", "static and retrieved text as two system blocks, ten sessions of 8 turns", 10, 8, two_blocks
    ),
    _sessions("rag-first-12", "retrieved text before the static text, 12 turns", 1, 12, documents_first),
    _sessions("rag-nothing-8", "retrieved text alone in the system prompt, 8 turns", 1, 8, documents_only),
    _sessions(
        "rag-nothing-10x8", "retrieved text alone in the system prompt, ten sessions of 8 turns", 10, 8, documents_only
    ),
    _sessions(
        "rag-slow-20", "retrieved text in one system string, changed every 4th turn, 20 turns", 1, 20, one_string, 4
    ),
    _sessions("rag-pauses-15", "one system string, a median of 3 minutes between turns", 1, 15, one_string, 1, 180),
    Workload("rag-user", "documents in the last message behind a static system prompt", in_user_message, 200),
    Workload("rerank", "a rerank prompt shaped like a conversation, then an answer", rerank),
    *_documents("system", "document as the system prompt", _system_block),
    *_documents("block", "document as a block of the message", _user_block),
    *_documents("string", "document and question in one string", _user_string),
)
