"""Made-up prose of a wanted length, the same for the same key on every machine."""

from __future__ import annotations

import random
from functools import lru_cache
from hashlib import shake_128

from cachepoint.emulator._reading.tokenizer import count_tokens

_SYLLABLES = [*(first + second for first in "bcdfghlmnprstv" for second in "aeio"), "an", "en", "in", "on", "er", "st"]
_SENTENCE = (6, 16)
_SENTENCES_A_PARAGRAPH = 6


@lru_cache(maxsize=1)
def _vocabulary() -> tuple[str, ...]:
    rng = random.Random("vocabulary")
    words = {"".join(rng.choices(_SYLLABLES, k=rng.choice((1, 2, 2, 3, 3, 4)))) for _ in range(4000)}
    return tuple(sorted(words))


@lru_cache(maxsize=4096)
def prose(tokens: int, *key: object) -> str:
    """Paragraphs of about this many tokens, as the emulator counts Claude's; other keys give other text."""
    rng = random.Random(repr(key))
    words, sentences, counted = _vocabulary(), [], 0
    while counted < tokens:
        length = min(rng.randint(*_SENTENCE), max(tokens - counted, 1))
        sentence = " ".join(rng.choices(words, k=length)).capitalize() + "."
        counted += count_tokens(sentence, "claude")
        sentences.append(sentence)
    paragraphs = (
        " ".join(sentences[start : start + _SENTENCES_A_PARAGRAPH])
        for start in range(0, len(sentences), _SENTENCES_A_PARAGRAPH)
    )
    return "\n\n".join(paragraphs)


def words(count: int, *key: object) -> list[str]:
    """So many words, each a token to the emulator: other keys give other words. Cheaper than prose."""
    known = _short_words()
    drawn = memoryview(shake_128(repr(key).encode()).digest(4 * count)).cast("I")
    return [known[number % len(known)] for number in drawn]


@lru_cache(maxsize=1)
def _short_words() -> list[str]:
    """Words of up to six letters: to the emulator a longer one is more than a token."""
    return [word for word in _vocabulary() if len(word) <= 6]
