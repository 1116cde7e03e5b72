"""A request in wire order, as the planner sees it: blocks, boundaries and keyed digests, no text.

Facts: the cache compares prefixes byte for byte in the order tools, system, messages (R3.1), so a
digest covers everything up to its boundary in wire order: JSON key order, tool order and block order
count. What invalidates a section without being a block (thinking, tool choice, images, API; R3.10)
is mixed in at that section's start.

A boundary is the end of a block, or a cut: a place inside a long text block where it may be split.
Cuts depend only on the text before them and a little after, so two prompts that share a beginning share its cuts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from cachepoint.core.rules import TTL, Section, Tokenizer
from cachepoint.core.tokens import IMAGE_TOKENS, MEDIA_BYTES_PER_TOKEN, PROFILES
from cachepoint.core.volatile import looks_volatile

Kind = Literal[
    "tool", "text", "image", "document", "video", "audio", "tool_use", "tool_result",
    "reasoning", "guard", "citations", "search_result", "other",
]  # fmt: skip

IMAGES = "messages"
"""The path of the setting that says whether the messages have images."""
DIGEST_BYTES = 16
CUT_AFTER_BYTES = 1024
"""Text blocks of more than about 256 tokens have cuts."""
CUT_SPACING_BYTES = 256
CUT_RESOLUTION = 128
"""Cuts lie at least 1/128 of the prompt before them apart: a long prompt has a few hundred, not thousands."""


ListKey = tuple[Section, int | None]
"""Names a list of blocks: its section, and its message where it is a message's content."""


class Where(NamedTuple):
    """A place in the request as the user wrote it: a list and an index in it.

    `message` is None in tools and system; `nested` is the index inside a tool result's own list.
    """

    section: Section
    message: int | None
    item: int
    nested: int | None = None

    @property
    def list_key(self) -> ListKey:
        """The list this place is in."""
        return self.section, self.message

    @property
    def path(self) -> str:
        """The place as users read it, such as `system[1]` or `messages[3].content[0]`."""
        if self.section != "messages":
            return f"{self.section}[{self.item}]"
        if self.message is None:
            return self.section
        inner = "" if self.nested is None else f".toolResult.content[{self.nested}]"
        return f"messages[{self.message}].content[{self.item}]{inner}"


Hint = Literal["context_end", "fleeting"]
"""What is known of a block: context ends with it; or with it begins what only this request has."""
Hints = Mapping[Where, Hint]
NO_HINTS: Hints = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Mark:
    """A checkpoint the user wrote: where, after which block, and with which TTL (None: not said).

    `block` is the index of the block before it in wire order, None when nothing is before it.
    `raw` is the block as written, kept so that `undo` can give it back; it holds no prompt text.
    `leading` says that it stood first in its list, which the service refuses.
    """

    where: Where
    block: int | None
    ttl: TTL | None
    raw: Any = None
    leading: bool = False


class Block(NamedTuple):
    """One block in wire order; `size` is in UTF-8 bytes, `tokens` the likely count."""

    where: Where
    kind: Kind
    role: str | None
    size: int
    tokens: float
    blank: bool = False
    textual: bool = True
    context: bool = False
    volatile: bool = False


class Setting(NamedTuple):
    """What invalidates a section without being a block of it: its place in the request, and its value's digest.

    The digest is empty where the setting is at its default.
    """

    section: Section
    path: str
    digest: bytes


class Media(NamedTuple):
    """An image, a text or anything else inside a block that costs other tokens than its JSON would.

    `size` is in bytes of the content itself, `written` in bytes of what stands for it in the block's JSON.
    """

    kind: Literal["image", "text", "binary"]
    size: int
    written: int = 0


class Boundary(NamedTuple):
    """A place where a prefix may end: after block `block`, or inside it at character `offset`.

    `tokens` is the likely cumulative count, before calibration; `digest` is of the whole prefix.
    """

    block: int
    offset: int | None
    digest: bytes
    tokens: float


@dataclass(frozen=True)
class Prompt:
    """A request in wire order.

    `ends[i]` is the index in `boundaries` of the end of block i. `tools_end`, `system_end` and
    `history_end` are block indices and `last_user` a message index, each -1 where there is none.
    `history_end` is the block before the last user message, `previous_end` the block before the answer
    that this request continues: where the request before it ended. `tokens` is the likely total.
    `attached`: checkpoints are attributes of blocks (`cache_control`), not blocks of their own. `plain`
    names the lists in whose place the user wrote a string. `settings` are the same ones, in the same
    order, in every request of an API.
    """

    blocks: tuple[Block, ...]
    boundaries: tuple[Boundary, ...]
    ends: tuple[int, ...]
    marks: tuple[Mark, ...]
    tokens: float
    tokenizer: Tokenizer
    tools_end: int = -1
    system_end: int = -1
    history_end: int = -1
    last_user: int = -1
    previous_end: int = -1
    has_turns: bool = False
    attached: bool = False
    plain: frozenset[ListKey] = frozenset()
    settings: tuple[Setting, ...] = ()

    def end(self, block: int) -> Boundary:
        """The boundary at the end of a block."""
        return self.boundaries[self.ends[block]]


def cuts_of(text: str, before: int = 0) -> Iterator[int]:
    """Places where a text may be split, in characters: after a paragraph, else a line, else a sentence.

    `before` is the size of the prompt before the text.
    """
    last = len(text.rstrip()) - 1
    position = len(text) - len(text.lstrip())
    while True:
        spacing = max(CUT_SPACING_BYTES, (before + position) // CUT_RESOLUTION)
        start, stop = position + spacing, min(position + 3 * spacing, last)
        for separator in ("\n\n", "\n", ". "):
            found = text.find(separator, start, stop)
            if found >= 0:
                break
        else:
            if stop >= last:
                return
            position = stop
            continue
        position = found + len(separator)
        while text[position].isspace():
            position += 1
        if position > last:
            return
        yield position


def wire_bytes(value: Any) -> bytes:
    """A JSON value in wire order as bytes; media bytes are represented by their hash."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=_opaque).encode(
        "utf-8", "surrogatepass"
    )


def _opaque(value: Any) -> str:
    if isinstance(value, bytes | bytearray):
        return hashlib.blake2b(value, digest_size=DIGEST_BYTES).hexdigest()
    return f"{type(value).__name__} {id(value)}"  # such as an open file: never taken for another


@dataclass
class PromptBuilder:
    """Collects the blocks of a request in wire order; a dialect feeds it, `build` freezes it.

    `key` keys the digests (1 to 64 bytes). Call `section` at each section's start, `message` at each
    message's start, then `text`, `data` and `mark` in wire order.
    """

    key: bytes
    tokenizer: Tokenizer = "other"
    hints: Hints = field(default_factory=dict)
    cut_text: bool = True
    attached: bool = False
    _blocks: list[Block] = field(default_factory=list)
    _boundaries: list[Boundary] = field(default_factory=list)
    _ends: list[int] = field(default_factory=list)
    _marks: list[Mark] = field(default_factory=list)
    _tokens: float = 0.0
    _size: int = 0
    _role: str | None = None
    _roles: list[str] = field(default_factory=list)
    _section_starts: dict[Section, int] = field(default_factory=dict)
    _message_starts: list[int] = field(default_factory=list)
    _plain: set[ListKey] = field(default_factory=set)
    _settings: list[Setting] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._hash = hashlib.blake2b(key=self.key, digest_size=DIGEST_BYTES)
        self._profile = PROFILES[self.tokenizer]

    def section(self, section: Section, settings: Mapping[str, Any], fixed_tokens: float = 0.0) -> None:
        """Open a section; `settings` are what invalidates it without being a block, each by its path."""
        self._hash.update(b"\x02" + section.encode())
        for path, value in settings.items():
            digest = self._digest_of(wire_bytes(value)) if value else b""
            self._hash.update(len(digest).to_bytes() + digest)
            self._settings.append(Setting(section, path, digest))
        self._section_starts[section] = len(self._blocks)
        self._tokens += fixed_tokens
        self._role = None

    def message(self, role: str) -> None:
        """Open a message."""
        self._hash.update(b"\x03" + role.encode())
        self._role = role
        self._roles.append(role)
        self._message_starts.append(len(self._blocks))
        self._tokens += self._profile.per_message

    def text(
        self,
        where: Where,
        text: str,
        kind: Kind = "text",
        *,
        header: bytes = b"",
        splittable: bool = False,
        plain: bool = False,
    ) -> None:
        """Add a block whose content is text, or a `plain` string; only a splittable one gets cuts inside."""
        if plain:
            self._plain.add(where.list_key)
        self._hash.update(b"\x04" + kind.encode() + header)
        before, done, sent = self._tokens, 0, 0
        index = len(self._blocks)
        if self.cut_text and splittable and len(text) > CUT_AFTER_BYTES:
            for cut in cuts_of(text, self._size):
                piece = text[done:cut].encode("utf-8", "surrogatepass")
                self._hash.update(piece)
                done, sent = cut, sent + len(piece)
                digest = self._hash.digest()
                self._boundaries.append(Boundary(index, done, digest, before + sent / self._profile.likely))
        rest = (text[done:] if done else text).encode("utf-8", "surrogatepass")
        self._hash.update(rest)
        size = sent + len(rest)
        blank = not text.strip() if size < 256 else not (text[:64].strip() or text.strip())
        hint = self.hints.get(where)
        volatile = hint == "fleeting" or (where.section == "system" and looks_volatile(text))
        tokens = size / self._profile.likely
        self._add(Block(where, kind, self._role, size, tokens, blank, True, hint == "context_end", volatile))

    def data(self, where: Where, value: Any, kind: Kind, *, textual: bool = True, media: Sequence[Media] = ()) -> None:
        """Add a block that is not plain text, with the media in it."""
        content = wire_bytes(value)
        self._hash.update(b"\x05" + kind.encode() + content)
        shown = len(content) - sum(each.written for each in media)
        per_byte = {"text": 1 / self._profile.likely, "binary": 1 / MEDIA_BYTES_PER_TOKEN}
        tokens = shown / self._profile.json + sum(
            IMAGE_TOKENS if each.kind == "image" else each.size * per_byte[each.kind] for each in media
        )
        size = shown + sum(each.size for each in media)
        self._add(Block(where, kind, self._role, size, tokens, textual=textual))

    def mark(self, where: Where, ttl: TTL | None, raw: Any, *, leading: bool = False) -> None:
        """Add a checkpoint the user wrote; it belongs to the block before it."""
        block = len(self._blocks) - 1 if self._blocks else None
        self._marks.append(Mark(where, block, ttl, raw, leading))

    def build(self) -> Prompt:
        """Freeze what was collected."""
        last_user = max((i for i, role in enumerate(self._roles) if role == "user"), default=-1)
        # What the assistant says behind the last question is the beginning of the answer to it.
        before = self._roles[: max(last_user, 0)]
        last_answer = max((i for i, role in enumerate(before) if role == "assistant"), default=-1)
        return Prompt(
            blocks=tuple(self._blocks),
            boundaries=tuple(self._boundaries),
            ends=tuple(self._ends),
            marks=tuple(self._marks),
            tokens=self._tokens,
            tokenizer=self.tokenizer,
            tools_end=self._end_before("tools", self._section_starts.get("system")),
            system_end=self._end_before("system", self._section_starts.get("messages")),
            history_end=self._end_before("messages", self._message_starts[last_user] if last_user >= 0 else 0),
            last_user=last_user,
            previous_end=self._end_before("messages", self._message_starts[last_answer] if last_answer >= 0 else 0),
            has_turns=last_answer >= 0,
            attached=self.attached,
            plain=frozenset(self._plain),
            settings=tuple(self._settings),
        )

    def _digest_of(self, content: bytes) -> bytes:
        return hashlib.blake2b(content, key=self.key, digest_size=DIGEST_BYTES).digest()

    def _add(self, block: Block) -> None:
        self._hash.update(b"\x06" + block.size.to_bytes(6, "big"))
        self._tokens += block.tokens
        self._size += block.size
        self._blocks.append(block)
        self._ends.append(len(self._boundaries))
        self._boundaries.append(Boundary(len(self._blocks) - 1, None, self._hash.digest(), self._tokens))

    def _end_before(self, section: Section, end: int | None) -> int:
        """The last block of a section before block `end`, -1 where there is none."""
        end = len(self._blocks) if end is None else end
        return end - 1 if end > self._section_starts.get(section, 0) else -1
