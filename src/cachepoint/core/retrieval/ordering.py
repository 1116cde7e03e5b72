"""Orders for retrieved documents under which equal sets are equal bytes, so that a prompt's prefix can be read again.

Facts: retrievers order by score, and scores move with every query, so the same documents come in another order and the
prefix parts at the first of them. Order alone is worth 0 to 1% at ten documents (O1 of docs/rules.md): a checkpoint
behind documents is read only for the same set. It is worth more with few documents, with repeated questions and with
checkpoints planned inside the documents.
"""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, TypeVar

from cachepoint._forks import Lock

T = TypeVar("T")
Order = Literal["sorted", "session"]

SESSIONS_KEPT = 1_000
DOCUMENTS_KEPT = 500

_RANDOM_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
"""A random UUID: what documents are named by default, anew each time they are ingested."""
_NUMBER = re.compile(r"[0-9]{1,18}")

# Metadata as the loaders of LangChain and the readers of LlamaIndex write it. Some readers put a page's number into
# "source" beside the file's path, so that comes after.
_SOURCES = ("file_path", "url", "source", "file_name")
_PARTS = ("page", "page_label", "row", "seq_num")
_OFFSET = "start_index"
_NO_METADATA: Mapping[str, Any] = MappingProxyType({})


class DocumentKey(NamedTuple):
    """What a document is sorted by; `kind` keeps keys of different sorts apart.

    Made by `document_key`. It survives re-ingestion where the document's id or its source does. `part` is a page or
    row of the document, `offset` a place in that; -1 where there is none.
    """

    kind: int
    name: str
    part: int
    offset: int
    digest: str


def content_digest(text: str) -> str:
    """A digest of a document's text; documents with the same one are duplicates."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def document_key(
    text: str,
    *,
    document_id: str | None = None,
    metadata: Mapping[str, Any] = _NO_METADATA,
    offset: int | None = None,
) -> DocumentKey:
    """The default key: by document id unless it is random, else by source, each then by part and offset; else content.

    The source is the metadata `file_path`, else `url`, `source` or `file_name`; the part `page`, else `page_label`,
    `row` or `seq_num`; the offset, if it is not given, `start_index`.
    """
    digest = content_digest(text)
    source = next((str(metadata[name]) for name in _SOURCES if metadata.get(name)), None)
    part = next((number for name in _PARTS if (number := _number(metadata.get(name))) >= 0), -1)
    place = _number(metadata.get(_OFFSET) if offset is None else offset)
    if document_id and not _RANDOM_ID.fullmatch(document_id):
        return DocumentKey(0, document_id, part, place, digest)
    if source:
        return DocumentKey(1, source, part, place, digest)
    return DocumentKey(2, "", -1, -1, digest)


def _number(value: object) -> int:
    """A number that may be written out, as page labels are; -1 for anything else."""
    if isinstance(value, int):
        return value
    return int(value) if isinstance(value, str) and _NUMBER.fullmatch(value) else -1


def most_relevant(items: Iterable[T], *, text: Callable[[T], str], at_most: int | None = None) -> list[tuple[int, T]]:
    """Items in the order of relevance, each with its rank from 1 on, of which `at_most` so many.

    Those with the same text share a rank, and all of them stay: which of them is shown is for the order to say.
    """
    ranks: dict[str, int] = {}
    ranked = [(ranks.setdefault(content_digest(text(item)), len(ranks) + 1), item) for item in items]
    return [(rank, item) for rank, item in ranked if at_most is None or rank <= at_most]


def stable_order(
    items: Iterable[T],
    *,
    text: Callable[[T], str],
    key: Callable[[T], Any],
    order: Order = "sorted",
    shown: Sequence[Hashable] = (),
) -> list[T]:
    """The items in a stable order, of those with the same text only the first in that order.

    - "sorted": by `key`, whose ties are broken by content.
    - "session": those whose key is in `shown` first, in the order of `shown`; then the rest, sorted.
    """
    ordered = sorted(items, key=lambda item: (key(item), content_digest(text(item))))
    if order == "session":
        turn = {each: index for index, each in enumerate(shown)}
        ordered.sort(key=lambda item: turn.get(key(item), len(turn)))
    first: dict[str, T] = {}
    for item in ordered:
        first.setdefault(content_digest(text(item)), item)
    return list(first.values())


def shown_after(shown: Sequence[Hashable], now: Iterable[Hashable], at_most: int) -> tuple[Hashable, ...]:
    """The keys shown in a session, in the order first shown, once those of `now` have been shown as well.

    Beyond `at_most`, those that are not shown now are forgotten, the oldest first.
    """
    latest = dict.fromkeys(now)
    known = dict.fromkeys((*shown, *latest))
    surplus = max(len(known) - at_most, 0)
    forgotten = set([each for each in known if each not in latest][:surplus])
    return tuple(each for each in known if each not in forgotten)


class SessionOrders:
    """The order in which each session was first shown its documents; threads may share one.

    It remembers `documents_kept` documents of each of the `sessions_kept` sessions used last, as keys without text. A
    deep copy is the same memory; a pickle starts afresh.
    """

    def __init__(self, sessions_kept: int = SESSIONS_KEPT, documents_kept: int = DOCUMENTS_KEPT) -> None:
        self._kept = (sessions_kept, documents_kept)
        self._lock = Lock()
        self._shown: OrderedDict[str, tuple[Hashable, ...]] = OrderedDict()

    def ordered(
        self, session: str, items: Iterable[T], *, text: Callable[[T], str], key: Callable[[T], Any]
    ) -> list[T]:
        """The items in the session's order, to which they then belong."""
        sessions_kept, documents_kept = self._kept
        with self._lock.held:
            shown = self._shown.get(session, ())
            ordered = stable_order(items, text=text, key=key, order="session", shown=shown)
            self._shown[session] = shown_after(shown, map(key, ordered), documents_kept)
            self._shown.move_to_end(session)
            if len(self._shown) > sessions_kept:
                self._shown.popitem(last=False)
        return ordered

    def __deepcopy__(self, memo: dict[int, Any]) -> SessionOrders:
        return self

    def __reduce__(self) -> tuple[type[SessionOrders], tuple[int, int]]:
        return SessionOrders, self._kept
