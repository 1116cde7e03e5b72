"""Claude Code: 100 recorded sessions, their prompts made anew from the numbers of their blocks.

The data (derived from kv-cache-tester) has for each request its time, its prompt as numbered blocks of 64 tokens, how
many of them an earlier request of the session begins with too, the length of the answer, and whether a tool's result
is sent. Each block becomes a text, the same for the same number; to keep the run short it has an eighth of the tokens,
and the model's minimum is an eighth too. The tokens past the last whole block have no number and are left out, and all
requests go to one model (a tenth of the sessions changes it on the way).

Tools and system prompt stand first. Sessions whose tools (or system prompts) are equally long share them: so they do
where one session shows both. What came since the request before is its answer, then the tool's result or what the user
said. A prompt that became shorter (a conversation compacted or taken back) keeps the messages it shares whole.
"""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise, takewhile
from pathlib import Path
from typing import Any, NamedTuple

from capture_lib.prose import words
from capture_lib.requests import Knobs, Message, Request, Text, Tool, ToolResult, ToolUse, in_order

SESSIONS = Path(__file__).resolve().parents[3] / "shared" / "data" / "claude-code" / "sessions.jsonl.gz"
BLOCK = 64
SCALE = 8
HOUR = 3600.0
_TOOL_BLOCKS = 12
"""Blocks that describe one tool: 12,600 tokens, the commonest length here, are then 16 tools."""
_PARAGRAPH = 16
"""Blocks to a paragraph."""
_TOOLS, _TOOL, _ROUND = 500, 43, 63
"""Tokens that the service adds to all tools together, to each one, and to a tool's call and result; they are not
scaled, so the texts have fewer, as far as there are any: short rounds come out too long, sessions by 4% on average."""

Blocks = tuple[int, ...]
Key = tuple[str, int, int]


class Round(NamedTuple):
    """An answer and what the user's side sent back: where each ends, in tokens, and whether a tool was called."""

    answered: int
    end: int
    called: bool


@dataclass(frozen=True, slots=True)
class Prompt:
    """One recorded request: its blocks, where its first message ends, the rounds since, and its answer's tokens."""

    blocks: Blocks
    first: int
    rounds: tuple[Round, ...]
    answer: int
    messages: tuple[Message, ...] = field(repr=False)

    @property
    def length(self) -> int:
        return len(self.blocks) * BLOCK


@dataclass(frozen=True)
class Sessions:
    """The sessions, started at seeded times within `hours`; `count` takes the first ones, `draw` other times."""

    hours: float
    sessions: int = 100
    draw: int = 0

    def __call__(self, knobs: Knobs) -> Iterator[Request]:
        rng = random.Random(f"Claude Code/{self.draw}/{knobs.today}")
        found: list[Request] = []
        for session in recorded()[: min(knobs.many(self.sessions), len(recorded()))]:
            start = rng.uniform(0, self.hours * HOUR)
            for agent, begun in agents(session):
                found.extend(Agent(session["session"], agent, knobs).requests(start + begun))
        return in_order(found)


@lru_cache(maxsize=1)
def recorded() -> tuple[dict[str, Any], ...]:
    with gzip.open(SESSIONS, "rt", encoding="utf-8") as lines:
        return tuple(map(json.loads, lines))


def agents(session: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], float]]:
    """The session's own requests, then those of each agent that it started, with the seconds until then."""
    own = [each for each in session["requests"] if "subagent" not in each]
    yield {**session, "requests": own}, 0.0
    for each in session["requests"]:
        if "subagent" in each:
            yield each["subagent"], each["t"]


class Agent:
    """One conversation of a session, its own or that of an agent it started."""

    def __init__(self, session: int, given: Mapping[str, Any], knobs: Knobs) -> None:
        self._session, self._given, self._knobs = session, given, knobs
        self.tools_end = given["tool_tokens"] // BLOCK * BLOCK
        self.system_end = (given["tool_tokens"] + given["system_tokens"]) // BLOCK * BLOCK
        self._chains = list(_chains(given["requests"]))
        self._parted = set(_parted(given["requests"], self._chains))
        self._standing = dict(self._shared_blocks(self._chains[0]))

    def requests(self, start: float) -> Iterator[Request]:
        tools, system = lru_cache(self._tools), lru_cache(self._system)
        for row, prompt in zip(self._given["requests"], self.prompts(), strict=True):
            head = prompt.blocks[: self.system_end // BLOCK]
            at = (start + row["t"]) * self._knobs.gaps
            yield Request(at, prompt.messages, system(head), tools(head[: self.tools_end // BLOCK]))

    def prompts(self) -> Iterator[Prompt]:
        """The prompt of each request."""
        found: list[Prompt] = []
        for row, blocks in zip(self._given["requests"], self._chains, strict=True):
            like, shared = row["like"]
            found.append(self._prompt(row, blocks, found[like] if like >= 0 else None, shared * BLOCK))
            yield found[-1]

    def _prompt(self, row: Mapping[str, Any], blocks: Blocks, like: Prompt | None, shared: int) -> Prompt:
        """`like` is an earlier request whose first `shared` tokens are the same."""
        length, called = len(blocks) * BLOCK, row["tool"]
        first, rounds = length, tuple[Round, ...]()
        if like is not None and length > like.length:  # whatever changed before, the conversation went on
            answered = max(min(like.length + like.answer, length - SCALE), like.length + SCALE)
            first, rounds = like.first, (*like.rounds, Round(answered, length, called))
        elif like is not None and like.first <= shared:
            first, rounds = like.first, _shortened(like, shared, length, called=called)
        kept = _kept(like, first, rounds, shared) if like is not None else ()
        messages = (*kept, *self._messages(blocks, first, rounds, len(kept)))
        return Prompt(blocks, first, rounds, row["out"], messages)

    def _messages(self, blocks: Blocks, first: int, rounds: Sequence[Round], kept: int) -> Iterator[Message]:
        if not kept:
            yield Message("user", (self._text(blocks, self.system_end, first),))
        ends = [first, *(each.end for each in rounds)]
        for number in range(max(kept - 1, 0) // 2, len(rounds)):
            yield from self._round(blocks, ends[number], rounds[number])

    def _round(self, blocks: Blocks, start: int, given: Round) -> Iterator[Message]:
        if not given.called:
            yield Message("assistant", (self._text(blocks, start, given.answered),))
            yield Message("user", (self._text(blocks, given.answered, given.end),))
            return
        said = list(self._words(blocks, start, given.answered))
        result = list(self._words(blocks, given.answered, given.end))
        number = blocks[start // BLOCK]
        call, tool = f"call_{number}", f"tool_{number % 8}"
        fewer = min(_ROUND, len(said) - 1)
        thought = Text((" ".join(said[: len(said) - fewer]),))
        yield Message("assistant", (thought, ToolUse(call, tool, {"query": said[-1]})))
        sent = " ".join(result[: max(len(result) - (_ROUND - fewer), 1)])
        yield Message("user", (ToolResult(call, tool, sent),))

    def _tools(self, blocks: Blocks) -> tuple[Tool, ...]:
        schema = {"type": "object", "properties": {"query": {"type": "string", "description": "what"}}}
        ends = [*range(0, len(blocks) * BLOCK, _TOOL_BLOCKS * BLOCK), len(blocks) * BLOCK]
        added = _TOOL + _TOOLS // (len(ends) - 1)
        described = (list(self._words(blocks, start, end)) for start, end in pairwise(ends))
        return tuple(
            Tool(f"tool_{number}", " ".join(words[: max(len(words) - added, 1)]), schema)
            for number, words in enumerate(described)
        )

    def _system(self, blocks: Blocks) -> tuple[Text, ...]:
        return (self._text(blocks, self.tools_end, self.system_end),)

    def _text(self, blocks: Blocks, start: int, end: int) -> Text:
        """The text between two places, in pieces where requests of this agent part."""
        within = range(start // BLOCK, -(-end // BLOCK))
        cuts = [(n + 1) * BLOCK for n in within if blocks[n] in self._parted and (n + 1) * BLOCK < end]
        pieces = [" ".join(self._words(blocks, *ends)) for ends in pairwise((start, *cuts, end))]
        return Text((*(f"{piece} " for piece in pieces[:-1]), pieces[-1]))

    def _words(self, blocks: Blocks, start: int, end: int) -> Iterator[str]:
        """The words between two places; at least one."""
        count = self._knobs.tokens(BLOCK / SCALE)
        for number in range(start // BLOCK, -(-end // BLOCK)):
            given = self._block(blocks[number], count)
            a, b = (min(max(place - number * BLOCK, 0), BLOCK) * count // BLOCK for place in (start, end))
            yield from given[a : b if b > a or end - start > BLOCK else a + 1]

    def _block(self, block: int, count: int) -> list[str]:
        standing = self._standing.get(block)
        key = (self._knobs.seed, *standing) if standing else (self._knobs.today, self._session, block)
        found = words(count, "Claude Code", *key)
        if key[-1] % _PARAGRAPH == 0:
            found[-1] += "\n\n"
        return found

    def _shared_blocks(self, blocks: Blocks) -> Iterator[tuple[int, Key]]:
        """What stands for the blocks of tools and system prompt, which other sessions share."""
        tools, system = self.tools_end // BLOCK, self.system_end // BLOCK
        for number, block in enumerate(blocks[:system]):
            if number < tools:
                yield block, ("tools", self._given["tool_tokens"], number)
            else:
                yield block, ("system", self._given["system_tokens"], number - tools)


def _chains(rows: Sequence[Mapping[str, Any]]) -> Iterator[Blocks]:
    """The blocks of each request."""
    found: list[Blocks] = []
    for row in rows:
        like, shared = row["like"]
        new = (number for first, count in row["ids"] for number in range(first, first + count))
        found.append((*(found[like][:shared] if like >= 0 else ()), *new))
        yield found[-1]


def _parted(rows: Sequence[Mapping[str, Any]], chains: Sequence[Blocks]) -> Iterator[int]:
    """The blocks after which requests part: of one agent, and where the numbers jump, of several of a session."""
    for row in rows:
        like, shared = row["like"]
        if 0 < shared < len(chains[like]):
            yield chains[like][shared - 1]
        yield from (first + count - 1 for first, count in row["ids"][:-1])


def _shortened(like: Prompt, shared: int, length: int, *, called: bool) -> tuple[Round, ...]:
    """The rounds of a prompt no longer than an earlier one: those it shares whole, and one with what is left."""
    rounds = [each for each in like.rounds if each.end <= shared]
    before = rounds[-1].end if rounds else like.first
    if before < length:
        cut = like.rounds[len(rounds)]
        answered = max(min(cut.answered, length - SCALE), before + SCALE)
        rounds.append(Round(answered, length, cut.called if answered <= shared else called))
    return tuple(rounds)


def _kept(like: Prompt, first: int, rounds: Sequence[Round], shared: int) -> tuple[Message, ...]:
    """The messages of an earlier request that stand in what is shared with it."""
    if not (first == like.first <= shared):
        return ()
    same = (mine == theirs and mine.end <= shared for mine, theirs in zip(rounds, like.rounds, strict=False))
    return like.messages[: 1 + 2 * len(list(takewhile(bool, same)))]
