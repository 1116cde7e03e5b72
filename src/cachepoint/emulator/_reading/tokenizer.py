"""The emulator's own token counter: an approximation of a subword tokenizer.

No tokenizer of Claude 3 and later or of Nova is public (docs/rules.md, T3), so this one is built from what recorded
totals show (C4 and C5) and is deliberately not the planner's estimate:

- A common word with the space before it is one token whatever its length up to about six letters;
  longer words add pieces, and what is no word at all (one letter repeated) costs a token per three letters.
- Capitals cost a token per 3.2 letters, digits one per three digits and one for the space before them.
- Punctuation costs one token a run, line breaks one for up to two of them.
- Each tokenizer family weighs these classes differently: the newer Claude tokenizer needs 1.2 to 1.5 times
  the tokens of the older one for the same text.

Counts add up: cutting a text in two changes the sum by a token or two at most.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b

from cachepoint.core.provider.rules import Tokenizer

_PIECE = re.compile(
    r"(?P<word>[A-Z]?[a-z]+)|(?P<capitals>[A-Z]+)|(?P<digits>[0-9]{1,3})"
    r"|(?P<marks>[!-/:-@\[-`{-~]+)|(?P<wide>[぀-ヿ㐀-鿿가-힯]+)|(?P<foreign>[^\W\d_]+)|(?P<rest>.)",
    re.DOTALL,
)
_COMMON_LETTERS = 6
_LONGEST_WORD = 20
_REMEMBERED_TEXTS = 4096


@dataclass(frozen=True, slots=True)
class Weights:
    """Tokens per piece of each class, relative to the older Claude tokenizer."""

    words: float = 1.0
    capitals: float = 1.0
    others: float = 1.0


# Fitted to recorded totals of identical texts (C4, C5): Opus 4.8 against Haiku 4.5 and Sonnet 4.6 for
# `claude-new`; Nova Micro's nine tokens a nine-word sentence and Nova Lite's capitals for `nova`.
WEIGHTS: Mapping[Tokenizer, Weights] = {
    "claude": Weights(),
    "claude-new": Weights(words=1.22, capitals=1.3, others=1.75),
    "nova": Weights(words=0.86, capitals=0.9),
    "other": Weights(words=0.98),
}


def count_tokens(text: str, family: Tokenizer) -> int:
    """Tokens of one text; 0 for the empty text."""
    if len(text) < 256:
        return _count_short(text, family)
    # Long texts are remembered by digest, so that a server that sees one document often keeps no copy of it.
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    counted = _long_counts.get((digest, family))
    if counted is None:
        counted = _count(text, WEIGHTS[family])
        if len(_long_counts) >= _REMEMBERED_TEXTS:
            _long_counts.clear()
        _long_counts[digest, family] = counted
    return counted


_long_counts: dict[tuple[bytes, Tokenizer], int] = {}


@lru_cache(maxsize=_REMEMBERED_TEXTS)
def _count_short(text: str, family: Tokenizer) -> int:
    return _count(text, WEIGHTS[family])


def _count(text: str, weights: Weights) -> int:
    words = capitals = others = 0.0
    for chunk, times in Counter(text.split()).items():
        w, c, o = _chunk_cost(chunk)
        words += times * w
        capitals += times * c
        others += times * o
    breaks = text.count("\n")
    others += breaks - text.count("\n\n") + text.count("    ") / 2
    total = words * weights.words + capitals * weights.capitals + others * weights.others
    return max(round(total), 1) if text else 0


@lru_cache(maxsize=65536)
def _chunk_cost(chunk: str) -> tuple[float, float, float]:
    """What one run of non-space costs: as words, as capitals, as anything else."""
    words = capitals = others = 0.0
    if chunk[0].isdigit():
        others += 1.0  # the space before a number is a token of its own
    for piece in _PIECE.finditer(chunk):
        kind, length = piece.lastgroup, piece.end() - piece.start()
        if kind == "word":
            words += _word_cost(length)
        elif kind == "capitals":
            capitals += max(length / 3.2, 1.0)
        elif kind == "digits":
            others += 1.0
        elif kind == "marks":
            others += 1 + (length - 1) // 3
        elif kind == "wide":
            others += 1.2 * length
        elif kind == "foreign":
            others += max(length / 2.2, 1.0)
        else:
            others += 2.0
    return words, capitals, others


def _word_cost(letters: int) -> float:
    cost = 1.0 + 0.12 * max(min(letters, _LONGEST_WORD) - _COMMON_LETTERS, 0)
    return cost + max(letters - _LONGEST_WORD, 0) / 3
