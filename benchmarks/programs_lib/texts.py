"""What the programs read: a handbook, a library of passages, and questions that name words of it."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from functools import cache, lru_cache
from hashlib import blake2b
from itertools import count

from capture_lib.prose import prose

from cachepoint.emulator import Question, Text

HANDBOOK = prose(13_000, "handbook")
GUIDE = prose(3_500, "guide")
ANSWER_TOKENS = 40
PASSAGES = 120
PASSAGE_TOKENS = 375
ASKED_WORDS = 3
DIMENSIONS = 256
_QUOTED = re.compile(r'"(\w+)"')
_WORD = re.compile(r"\w+")

Session = Sequence[str]


@cache
def passages() -> tuple[str, ...]:
    """The library, in passages of the length that text splitters make by default or so."""
    return tuple(prose(PASSAGE_TOKENS, "passage", number) for number in range(PASSAGES))


def asked(text: str) -> tuple[str, ...]:
    """The words that the last question in a text asks about: a question quotes them, and so does a rephrased one."""
    return tuple(_QUOTED.findall(text)[-ASKED_WORDS:])


def question(key: object) -> str:
    """A question about words of one passage, another one for each key."""
    rng = random.Random(repr(key))
    words = sorted(set(_WORD.findall(rng.choice(passages()).lower())))
    first, second, third = rng.sample(words, ASKED_WORDS)
    return f'What do we know about "{first}", "{second}" and "{third}"?'


def sessions(seed: int, number: int, turns: int) -> list[Session]:
    """So many sessions of so many questions; no question comes twice."""
    keys = count()
    return [[question((seed, next(keys))) for _ in range(turns)] for _ in range(number)]


@lru_cache(maxsize=4096)
def embedding(text: str) -> tuple[float, ...]:
    """Words hashed into a vector, of a question those that it asks about: close texts share words."""
    vector = [0.0] * DIMENSIONS
    for word in asked(text) or sorted(set(_WORD.findall(text.lower()))):
        digest = blake2b(word.encode(), digest_size=3).digest()
        vector[digest[0]] += 1.0 if digest[1] % 2 else -1.0
        vector[digest[2]] += 1.0 if digest[1] // 2 % 2 else -1.0
    return tuple(vector)


def answer(asked_of: Question) -> Text:
    """Some words on what the last question asks about; for whoever asks to rephrase it, the same question again."""
    words = asked(asked_of.text)
    named = " and ".join(f'"{word}"' for word in words)
    return Text(f"On {named}: " + prose(ANSWER_TOKENS, "answer", asked_of.digest))


def tool_results(asked_of: Question) -> int:
    """How many messages of tool results came since the user's last words."""
    found = 0
    for message in reversed(asked_of.messages):
        if message["role"] != "user":
            continue
        if not any("toolResult" in block for block in message["content"]):
            break
        found += 1
    return found
