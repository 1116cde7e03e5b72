"""How a request is read into a prompt: blocks in wire order, with digests of every prefix."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from cachepoint.core.prompt import repeats
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
from cachepoint.core.prompt.repeats import POINTS_APART, Point, Reading, Trace
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
        spacing = (before + position) // CUT_RESOLUTION
        if spacing < CUT_SPACING_BYTES:
            spacing = CUT_SPACING_BYTES
        start, stop = position + spacing, position + 3 * spacing
        if stop > last:
            stop = last
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


def _settings(key: bytes, section: Section, values: tuple[tuple[str, Any], ...]) -> tuple[bytes, tuple[Setting, ...]]:
    """What opens a section in the digest, and its settings."""
    digests = [_digest_of(key, wire_bytes(value)) if value else b"" for _, value in values]
    content = b"\x02" + section.encode() + b"".join([len(digest).to_bytes() + digest for digest in digests])
    return content, tuple(
        Setting(section, path, digest) if digest else _at_default(section, path)
        for (path, _), digest in zip(values, digests, strict=True)
    )


_USUAL = frozenset({str, bool, type(None)})
"""Values of settings such as most requests have and that none changes in place: worked out once for all of them."""
_usual_settings = lru_cache(maxsize=256)(_settings)


def _digest_of(key: bytes, content: bytes) -> bytes:
    return hashlib.blake2b(content, key=key, digest_size=DIGEST_BYTES).digest()


@dataclass
class _Run:
    """Blocks that are read in a row: where they began, their traces, and the points among them that are kept.

    `stops` are the numbers of blocks at which there is to be one.
    """

    origin: Trace
    traces: Sequence[Trace]
    start: Point
    points: dict[int, Point]
    stops: Container[int]


def _last(values: Sequence[str], value: str) -> int:
    """Where a value stands last, -1 where it does not."""
    for index in range(len(values) - 1, -1, -1):
        if values[index] == value:
            return index
    return -1


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
    _run: _Run | None = None

    def __post_init__(self) -> None:
        self._hash = hashlib.blake2b(key=self.key, digest_size=DIGEST_BYTES)
        self._profile = PROFILES[self.tokenizer]

    def section(self, section: Section, settings: Mapping[str, Any], fixed_tokens: float = 0.0) -> None:
        """Open a section; `settings` are what invalidates it without being a block, each by its path."""
        self._keep()
        values = tuple([(path, value or None) for path, value in settings.items()])
        usual = _USUAL.issuperset([type(value) for _, value in values])
        content, found = (_usual_settings if usual else _settings)(self.key, section, values)
        self._hash.update(content)
        self._settings += found
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
        head = b"\x04" + kind.encode() + header
        if self.cut_text and splittable and len(text) > CUT_AFTER_BYTES:
            self._hash.update(head)
            size = self._cut(text)
        else:
            content = text.encode("utf-8", "surrogatepass")
            self._hash.update(head + content)
            size = len(content)
        hint = self.hints.get(where) if self.hints else None
        volatile = hint == "volatile" or (where.section == "system" and looks_volatile(text))
        blank = not text or text.isspace()
        tokens = size / self._profile.likely
        context = hint == "context_end"
        known = hash(text) if self._role else 0
        self._add(Block(where, kind, self._role, size, tokens, blank, True, context, volatile, known))  # noqa: FBT003

    def _cut(self, text: str) -> int:
        """Digest a text with a boundary at each of its cuts; how many bytes it has."""
        index, before, likely = len(self._blocks), self._tokens, self._profile.likely
        update, digest, add = self._hash.update, self._hash.digest, self._boundaries.append
        new = tuple.__new__  # a named tuple's own makes this twice as slow, and a long text has hundreds
        plain = text.encode("ascii") if text.isascii() else b""  # one byte a character: encoded once
        done = sent = 0
        for cut in cuts_of(text, self._size):
            piece = plain[done:cut] if plain else text[done:cut].encode("utf-8", "surrogatepass")
            update(piece)
            done, sent = cut, sent + len(piece)
            add(new(Boundary, (index, done, digest(), before + sent / likely)))
        rest = text[done:].encode("utf-8", "surrogatepass")
        update(rest)
        return sent + len(rest)

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
        self._add(
            Block(where, kind, self._role, size, tokens, textual=textual, content=hash(content) if self._role else 0)
        )

    def mark(self, where: Where, ttl: TTL | None, raw: Any, *, leading: bool = False) -> None:
        """Add a checkpoint the user wrote; it belongs to the block before it."""
        block = len(self._blocks) - 1 if self._blocks else None
        self._marks.append(Mark(where, block, ttl, raw, leading))

    def build(self) -> Prompt:
        """Freeze what was collected."""
        self._keep()
        last_user = _last(self._roles, "user")
        # What the assistant says behind the last question is the beginning of the answer to it.
        last_answer = _last(self._roles[: max(last_user, 0)], "assistant")
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

    def _add(self, block: Block) -> None:
        self._hash.update(b"\x06" + block.size.to_bytes(6, "big"))
        self._tokens += block.tokens
        self._size += block.size
        blocks = self._blocks
        blocks.append(block)
        self._ends.append(len(self._boundaries))
        self._boundaries.append(Boundary(len(blocks) - 1, None, self._hash.digest(), self._tokens))
        if self._run is not None and len(blocks) - self._run.start.blocks in self._run.stops:
            self._run.points[len(blocks) - self._run.start.blocks] = self._point()

    # -- what was read before ---------------------------------------------------------------------

    def resume(self, traces: Sequence[Trace], *, cut: bool = True) -> tuple[int, int]:
        """Take over what was read before of the blocks to come, of which these are the traces, from the first on.

        A message's first trace begins with its role. `cut` says whether text is splittable. Returns how many messages
        were taken over, and how many blocks of the last of them or of the section: the next block is the one after
        these. What is read from here on is kept in its turn.
        """
        alone = len(traces) < 2 and "messages" in self._section_starts  # such a question seldom comes again
        if not traces or alone or not repeats.KEYED:
            return 0, 0
        first = next((i for i in range(len(traces) - 1, -1, -1) if isinstance(traces[i][0], str)), 0)
        start = self._point()
        origin: Trace = (
            self.key, self.tokenizer, self.cut_text and cut, self.attached, self._hash.digest(), *start[1:], traces[0],
        )  # fmt: skip
        before = repeats.READINGS.get(origin)
        done = before.point(traces) if before is not None else 0
        points = dict[int, Point]()
        if before is not None and done:
            points = {count: point for count, point in before.points.items() if count <= done}
            self._take_over(before, points[done], start)
        near = {first, len(traces) - 1, len(traces)} - {0}
        self._run = _Run(origin, traces, start, points, near | {*range(POINTS_APART, len(traces), POINTS_APART)})
        return (points[done].messages, points[done].items) if done else (0, 0)

    def _point(self) -> Point:
        start = self._message_starts[-1] if self._message_starts else next(reversed(self._section_starts.values()), 0)
        blocks = len(self._blocks)
        counts = (blocks, len(self._boundaries), self._tokens, self._size, len(self._message_starts), blocks - start)
        return Point(self._hash.copy(), *counts)

    def _take_over(self, before: Reading, point: Point, start: Point) -> None:
        self._hash = point.state.copy()
        self._tokens, self._size = point.tokens, point.size
        self._blocks += before.blocks[: point.blocks - start.blocks]
        self._ends += before.ends[: point.blocks - start.blocks]
        self._boundaries += before.boundaries[: point.boundaries - start.boundaries]
        self._roles += before.roles[: point.messages]
        self._message_starts += before.starts[: point.messages]
        self._role = self._roles[-1] if self._roles else None
        self._plain |= {key for key in before.plain if key[1] is None or key[1] < point.messages}

    def _keep(self) -> None:
        """Keep what was read since `resume`, as far as it has points."""
        run, self._run = self._run, None
        if run is None or not run.points:
            return
        count = max(run.points)
        end, section = run.points[count], next(reversed(self._section_starts))
        blocks, boundaries = slice(run.start.blocks, end.blocks), slice(run.start.boundaries, end.boundaries)
        reading = Reading(
            run.traces[:count], run.points, self._blocks[blocks], self._boundaries[boundaries], self._ends[blocks],
            self._roles[: end.messages], self._message_starts[: end.messages],
            {key for key in self._plain if key[0] == section},
        )  # fmt: skip
        repeats.READINGS.put(run.origin, reading)

    def _end_before(self, section: Section, end: int | None) -> int:
        """The last block of a section before block `end`, -1 where there is none."""
        end = len(self._blocks) if end is None else end
        return end - 1 if end > self._section_starts.get(section, 0) else -1
