"""How a request is read into a prompt: blocks in wire order, with digests of every prefix."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from cachepoint.core.prompt.prompt import (
    DIGEST_BYTES,
    Block,
    Boundary,
    Hints,
    Kind,
    ListKey,
    Mark,
    Media,
    Prompt,
    Setting,
    Where,
)
from cachepoint.core.prompt.tokens import IMAGE_TOKENS, MEDIA_BYTES_PER_TOKEN, PROFILES
from cachepoint.core.prompt.volatile import looks_volatile
from cachepoint.core.provider.rules import TTL, Section, Tokenizer

CUT_AFTER_BYTES = 1024
"""Text blocks of more than about 256 tokens have cuts."""

CUT_SPACING_BYTES = 256

CUT_RESOLUTION = 128
"""Cuts lie at least 1/128 of the prompt before them apart: a long prompt has a few hundred, not thousands."""


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
        while text[position].isspace():  # ends at `last` at the latest, which is none
            position += 1
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


@lru_cache(maxsize=256)
def _at_default(section: Section, path: str) -> Setting:
    """One for all requests, because most settings of most requests are at their default and shapes keep them."""
    return Setting(section, path, b"")


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
            self._settings.append(Setting(section, path, digest) if digest else _at_default(section, path))
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
        blank = not text or text.isspace()
        hint = self.hints.get(where)
        volatile = hint == "volatile" or (where.section == "system" and looks_volatile(text))
        tokens = size / self._profile.likely
        context = hint == "context_end"
        self._add(Block(where, kind, self._role, size, tokens, blank=blank, context=context, volatile=volatile))

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
