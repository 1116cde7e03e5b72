"""What the programs read: a handbook, a library of passages, documents, and questions that name words of passages."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from functools import cache, lru_cache
from hashlib import blake2b
from itertools import count

from capture_lib.prose import prose

HANDBOOK = prose(13_000, "handbook")
GUIDE = prose(3_500, "guide")
PASSAGES = 120
PASSAGE_TOKENS = 300
DOCUMENTS = 50
DOCUMENT_TOKENS = 4_000
_ASKED_WORDS = 3
_DIMENSIONS = 256
_QUOTED = re.compile(r'"(\w+)"')
_WORD = re.compile(r"\w+")

Session = Sequence[str]


@cache
def passages() -> tuple[str, ...]:
    """The library, in passages of about the length that text splitters make."""
    return tuple(prose(PASSAGE_TOKENS, "passage", number) for number in range(PASSAGES))


@cache
def documents() -> tuple[str, ...]:
    """Documents that are read whole."""
    return tuple(prose(DOCUMENT_TOKENS, "document", number) for number in range(DOCUMENTS))


def asked(text: str) -> tuple[str, ...]:
    """The words that the last question in a text asks about: a question quotes them, and so does a rephrased one."""
    return tuple(_QUOTED.findall(text)[-_ASKED_WORDS:])


def question(key: object) -> str:
    """A question about words of one passage, another one for each key."""
    rng = random.Random(repr(key))
    words = sorted(set(_WORD.findall(rng.choice(passages()).lower())))
    first, second, third = rng.sample(words, _ASKED_WORDS)
    return f'What do we know about "{first}", "{second}" and "{third}"?'


def sessions(seed: int, number: int, turns: int) -> list[Session]:
    """So many sessions of so many questions; no question comes twice."""
    keys = count()
    return [[question((seed, next(keys))) for _ in range(turns)] for _ in range(number)]


@lru_cache(maxsize=4096)
def embedding(text: str) -> tuple[float, ...]:
    """Words hashed into a vector, of a question those that it asks about: close texts share words."""
    vector = [0.0] * _DIMENSIONS
    for word in asked(text) or sorted(set(_WORD.findall(text.lower()))):
        first, second, signs = blake2b(word.encode(), digest_size=3).digest()
        vector[first] += 1.0 if signs & 1 else -1.0
        vector[second] += 1.0 if signs & 2 else -1.0
    return tuple(vector)
