"""A prompt as the cache sees it: block ends in wire order with their tokens, and the checkpoints among them.

The digest of a block end covers everything before it, block boundaries included: the same text cut in two
blocks is another prefix.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

from cachepoint.core.provider.cache_model import CacheRequest, Point, Position
from cachepoint.core.provider.rules import TTL

_DIGEST_BYTES = 16


@dataclass(frozen=True, slots=True)
class RenderedPrompt:
    """What a request's prompt costs and where it can be cached. `total` is in tokens, the answer's opening included."""

    positions: tuple[Position, ...]
    points: tuple[Point, ...]
    total: int

    def for_cache(self, scope: str) -> CacheRequest:
        """What the cache model takes."""
        return CacheRequest(scope, self.positions, self.points, self.total)


class PromptWriter:
    """Writes a prompt block by block.

    `root` stands for what every section depends on without being a block of it.
    """

    def __init__(self, root: str) -> None:
        self._digest = blake2b(_bytes(root), digest_size=_DIGEST_BYTES).digest()
        self._tokens = 0
        self._positions: list[Position] = []
        self._points: list[Point] = []

    def unseen(self, tokens: int, meaning: str = "") -> None:
        """Add tokens that are no block, and what the following sections depend on."""
        self._tokens += tokens
        self._digest = blake2b(_bytes(meaning), key=self._digest, digest_size=_DIGEST_BYTES).digest()

    def block(self, label: str, content: bytes, tokens: int) -> None:
        """Add a block; `label` names its section, role and kind."""
        self._tokens += tokens
        chained = blake2b(_bytes(label), key=self._digest, digest_size=_DIGEST_BYTES)
        chained.update(b"\0")
        chained.update(content)
        self._digest = chained.digest()
        self._positions.append(Position(self._digest, self._tokens))

    def point(self, ttl: TTL) -> None:
        """Put a checkpoint after the last block; one with no block before it marks nothing."""
        if self._positions:
            self._points.append(Point(len(self._positions) - 1, ttl))

    def finish(self, opening: int) -> RenderedPrompt:
        """The prompt, followed by `opening` tokens that no checkpoint can reach."""
        return RenderedPrompt(tuple(self._positions), tuple(self._points), self._tokens + opening)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
