"""The Mooncake traces, their prompts made anew from the hashes of their blocks; R1 is an hour of a chat service.

A trace (Mooncake, FAST '25) has for each request its time, its lengths, and one hash for every 512 tokens
of prompt; equal hashes stand for equal prefixes. Each hash becomes a text, the same for the same hash; to keep
the run short it has an eighth of the tokens, and the model's minimum is an eighth too.

In the conversation trace the first block, which all requests share, is the system prompt; in the synthetic one,
which mixes public data sets, nothing is shared by all. Turns are those the trace shows: a request that begins with
all whole blocks of an earlier one goes on with that conversation, and what came since is an answer of the recorded
length and the next user message.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from capture_lib.prose import prose
from capture_lib.requests import Knobs, Message, Request, Text, Workload, text

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "data" / "mooncake"
TRACE = FOLDER / "conversation_trace.jsonl.gz"
BLOCK = 512
SCALE = 8
_POOL_BLOCKS = 256


class Stretch(NamedTuple):
    """A part of a block, from one token of it to another."""

    block: int
    start: int
    end: int


class Conversation(NamedTuple):
    """What was said so far: the stretches of each message, user first; and where the answer to it will end."""

    length: int
    answered: int
    messages: tuple[tuple[Stretch, ...], ...]


@dataclass(frozen=True)
class Trace:
    """A trace in order; `count` takes its first part.

    `system` is how many blocks at its beginning all requests share. Only one conversation in `one_in` is played, by
    the block it begins with. `hints`: each request says whether its conversation goes on, as its user may know.
    """

    path: Path
    system: int
    one_in: int = 1
    hints: bool = False

    def __call__(self, knobs: Knobs) -> Iterator[Request]:
        begun: dict[tuple[int, ...], Conversation] = {}
        rows = [row for row in self.rows() if row["input_length"] > self.system * BLOCK]
        rows = rows[: knobs.many(len(rows))]
        going_on = _going_on(rows) if self.hints else {}
        system = tuple(_texts([Stretch(block, 0, BLOCK) for block in range(self.system)], knobs))
        for number, row in enumerate(rows):
            hashes, length = tuple(row["hash_ids"]), row["input_length"]
            said = self._conversation(hashes, length, length + row["output_length"], begun)
            begun[hashes] = begun[hashes[: length // BLOCK]] = said
            messages = tuple(
                Message("assistant" if turn % 2 else "user", tuple(_texts(stretches, knobs)))
                for turn, stretches in enumerate(said.messages)
            )
            expect = {"ends": not going_on[number]} if self.hints else None
            yield Request(row["timestamp"] / 1000 * knobs.gaps, messages, system, expect=expect)

    def rows(self) -> Iterator[dict[str, Any]]:
        with gzip.open(self.path, "rt", encoding="utf-8") as lines:
            for row in map(json.loads, lines):
                if len(row["hash_ids"]) > self.system and row["hash_ids"][self.system] % self.one_in == 0:
                    yield row

    def _conversation(
        self, hashes: tuple[int, ...], length: int, answered: int, begun: Mapping[tuple[int, ...], Conversation]
    ) -> Conversation:
        if hashes in begun and begun[hashes].length == length:
            return begun[hashes]  # asked again
        for blocks in range(len(hashes) - 1, self.system, -1):
            before = begun.get(hashes[:blocks])
            if before is not None and before.length < length - 1:
                turn = max(min(before.answered, length - 1), before.length + 1)
                since = (_stretches(hashes, start, end) for start, end in pairwise((before.length, turn, length)))
                return Conversation(length, answered, (*before.messages, *map(tuple, since)))
        return Conversation(length, answered, (tuple(_stretches(hashes, self.system * BLOCK, length)),))


def _going_on(rows: Sequence[Mapping[str, Any]]) -> Mapping[int, bool]:
    """Whether a later request begins with all whole blocks of each, by its number; hashes cover the whole prefix."""
    later: set[int] = set()
    found: dict[int, bool] = {}
    for number in reversed(range(len(rows))):
        hashes, whole = rows[number]["hash_ids"], rows[number]["input_length"] // BLOCK
        found[number] = whole > 0 and hashes[whole - 1] in later
        later.update(hashes)
    return found


def _stretches(hashes: tuple[int, ...], start: int, end: int) -> Iterator[Stretch]:
    while start < end:
        number, within = divmod(start, BLOCK)
        until = min(BLOCK, within + end - start)
        yield Stretch(hashes[number], within, until)
        start += until - within


def _texts(stretches: Sequence[Stretch], knobs: Knobs) -> Iterator[Text]:
    for block, start, end in stretches:
        words = _words(block, knobs)
        first = start * len(words) // BLOCK
        yield text(" ".join(words[first : max(end * len(words) // BLOCK, first + 1)]) + "\n\n")


@lru_cache(maxsize=200_000)
def _words(block: int, knobs: Knobs) -> tuple[str, ...]:
    """The text of one hash: its number, which makes it one of a kind, then prose out of a pool."""
    return (f"Block{block}", *_pool(knobs)[block % _POOL_BLOCKS])


@lru_cache(maxsize=4)
def _pool(knobs: Knobs) -> tuple[tuple[str, ...], ...]:
    tokens = knobs.tokens(BLOCK / SCALE) - 3
    return tuple(tuple(prose(tokens, knobs.seed, "pool", number).split()) for number in range(_POOL_BLOCKS))


R1 = Workload(
    "R1",
    "production trace (Mooncake): 12,031 requests of one hour",
    Trace(TRACE, system=1),
    340 // SCALE,
    1024 // SCALE,
)
