"""Orders for retrieved documents under which equal sets are equal bytes, so that a prompt's prefix can be read again.

Facts: retrievers order by score, and scores move with every query, so the same documents come in another order and the
prefix parts at the first of them. Order alone is worth 0 to 1% at ten documents (ordering.md, section 0): a checkpoint
behind documents is read only for the same set. It is worth more with few documents, with repeated questions and with
checkpoints planned inside the documents.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, Literal, NamedTuple, TypeVar

T = TypeVar("T")
Order = Literal["sorted", "session"]

_RANDOM_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
"""A random UUID: what documents are named by default, anew each time they are ingested."""


class DocumentKey(NamedTuple):
    """What a document is sorted by; `kind` keeps keys of different sorts apart.

    Made by `document_key`. It survives re-ingestion where the document's id or its source does.
    """

    kind: int
    name: str
    position: int
    digest: str


def content_digest(text: str) -> str:
    """A digest of a document's text; documents with the same one are duplicates."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def document_key(
    text: str, *, document_id: str | None = None, source: str | None = None, position: int | None = None
) -> DocumentKey:
    """The default key: by document id unless it is random, else by source, each then by position; else by content."""
    place = -1 if position is None else position
    if document_id and not _RANDOM_ID.fullmatch(document_id):
        return DocumentKey(0, document_id, place, content_digest(text))
    if source:
        return DocumentKey(1, source, place, content_digest(text))
    return DocumentKey(2, "", -1, content_digest(text))


def without_duplicates(items: Iterable[T], text: Callable[[T], str]) -> list[T]:
    """The items in the order given, of those with the same text only the first."""
    first: dict[str, T] = {}
    for item in items:
        first.setdefault(content_digest(text(item)), item)
    return list(first.values())


def stable_order(
    items: Iterable[T],
    *,
    text: Callable[[T], str],
    key: Callable[[T], Any],
    order: Order = "sorted",
    shown: Sequence[Hashable] = (),
) -> list[T]:
    """The items without duplicates, in a stable order.

    - "sorted": by `key`, whose ties are broken by content.
    - "session": those whose key is in `shown` first, in the order of `shown`; then the rest, sorted.
    """
    unique = without_duplicates(items, text)
    ordered = sorted(unique, key=lambda item: (key(item), content_digest(text(item))))
    if order == "sorted":
        return ordered
    turn = {each: index for index, each in enumerate(shown)}
    return sorted(ordered, key=lambda item: turn.get(key(item), len(turn)))


def shown_after(shown: Sequence[Hashable], items: Iterable[T], key: Callable[[T], Hashable]) -> tuple[Hashable, ...]:
    """The keys shown in a session, in the order first shown, once these items have been shown as well."""
    return tuple(dict.fromkeys((*shown, *(key(item) for item in items))))
