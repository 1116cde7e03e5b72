"""A request in wire order, as the planner sees it: blocks, boundaries and keyed digests, no text.

Facts: the cache compares prefixes byte for byte in the order tools, system, messages (R3.1), so a
digest covers everything up to its boundary in wire order: JSON key order, tool order and block order
count. What invalidates a section without being a block (thinking, tool choice, images, API; R3.10)
is mixed in at that section's start.

A boundary is the end of a block, or a cut: a place inside a long text block where it may be split.
Cuts depend only on the text before them and a little after, so two prompts that share a beginning share its cuts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from cachepoint.core.provider.rules import TTL, Section, Tokenizer

Kind = Literal[
    "tool", "text", "image", "document", "video", "audio", "tool_use", "tool_result",
    "reasoning", "guard", "citations", "search_result", "other",
]  # fmt: skip

IMAGES = "messages"
"""The path of the setting that says whether the messages have images."""
DIGEST_BYTES = 16


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


Hint = Literal["context_end", "volatile"]
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
    """One block in wire order; `size` is in UTF-8 bytes, `tokens` the likely count.

    `content` is Python's hash of it alone, by which this process knows a block again behind another prefix; 0 outside
    of messages.
    """

    where: Where
    kind: Kind
    role: str | None
    size: int
    tokens: float
    blank: bool = False
    textual: bool = True
    context: bool = False
    volatile: bool = False
    content: int = 0


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
