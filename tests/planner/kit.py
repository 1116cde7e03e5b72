"""A caller without a network: prompts are planned, served by the cache model, and what usage says is learned."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from cachepoint.bedrock.wire import converse
from cachepoint.core.exchange import Effects, Exchange, Target
from cachepoint.core.planning.plan import Plan
from cachepoint.core.planning.policy import CachePolicy
from cachepoint.core.prompt.prompt import Prompt
from cachepoint.core.provider.cache_model import CacheModel, CacheRequest, Point, Position
from cachepoint.core.provider.prices import Rates
from cachepoint.core.provider.rules import ModelRule
from cachepoint.core.provider.usage import Usage
from cachepoint.core.traffic.pool import Scope
from cachepoint.store._memory import MemoryStore

CLAUDE = ModelRule("Claude", "claude", ttls=("5m", "1h"), minimum=1024, tokenizer="claude")
SCOPE = Scope("account|endpoint|region|model|converse", "model")
RATES = Rates()
Request = dict[str, object]


def prose(tokens: int, seed: object) -> str:
    """Text of about so many tokens in paragraphs, the same for the same seed."""
    words = random.Random(str(seed))
    paragraphs = [" ".join(f"{words.randrange(10**7):07d}" for _ in range(30)) for _ in range(max(tokens // 54, 1))]
    return "\n\n".join(paragraphs)


def asks(*texts: str, system: Sequence[str] = (), history: Sequence[str] = ()) -> Request:
    """A Converse request: `history` alternates between user and assistant."""
    turns = [
        {"role": "user" if number % 2 == 0 else "assistant", "content": [{"text": text}]}
        for number, text in enumerate(history)
    ]
    return {
        "system": [{"text": text} for text in system],
        "messages": [*turns, {"role": "user", "content": [{"text": text} for text in texts]}],
    }


@dataclass
class Caller:
    """Plans by `rule`, sends to a cache that follows `followed` (default the same rule), and learns.

    `tokens_per_estimate` is how wrong the estimates are.
    """

    policy: CachePolicy = field(default_factory=CachePolicy)
    rule: ModelRule = CLAUDE
    followed: ModelRule | None = None
    store: MemoryStore = field(default_factory=lambda: MemoryStore(key=b"k" * 32))
    cache: CacheModel = field(default_factory=CacheModel)
    tokens_per_estimate: float = 1.0
    now: float = 1_000_000.0
    bill: float = 0.0
    uncached: float = 0.0
    largest: int = 0

    def call(self, request: Request, after: float = 10.0) -> tuple[Plan, Usage]:
        """Send a request so many seconds after the one before; its plan and usage."""
        self.now += after
        exchange = Exchange(converse, request, self.policy)
        target = Target("model", "model", scope=SCOPE, rule=self.rule, rates=RATES)
        self._learn(exchange.read(target, self.store.key, self.now))
        question = exchange.question
        assert question is not None
        view = self.store.visit(SCOPE, question.steps, question.history, self.now, question.habit)
        self._learn(exchange.known(view, self.now))
        self._learn(exchange.send())
        usage = self.served(exchange.request)
        self._learn(exchange.began())
        self._learn(exchange.answered(as_reported(usage), 1.0, lambda _: None))
        return exchange.plan, usage

    def _learn(self, effects: Effects) -> None:
        """Do what a step leaves to do."""
        assert not effects.faults
        for lesson in effects.lessons:
            lesson.teach(self.store)

    def calls(self, requests: Iterable[Request], after: float = 10.0) -> list[Usage]:
        """Send many; their usages."""
        return [self.call(request, after)[1] for request in requests]

    def read(self, request: Request) -> Prompt:
        """The request as the planner sees it."""
        return converse.read(request, self.store.key, self.rule)

    def served(self, request: Request) -> Usage:
        """What the provider's cache makes of a request as sent."""
        prompt = converse.read(request, b"provider", self.rule)
        ends = [prompt.end(block) for block in range(len(prompt.blocks))]
        positions = [Position(end.digest, self._exact(end.tokens)) for end in ends]
        points = [Point(mark.block, mark.ttl or "5m") for mark in prompt.marks if mark.block is not None]
        total = self._exact(prompt.tokens)
        served = self.cache.serve(
            CacheRequest(SCOPE.name, positions, points, total), self.followed or self.rule, self.now
        )
        self.cache.begin_response(served, self.now)
        usage = served.usage
        self.uncached += total
        self.bill += usage.input + 0.1 * usage.cache_read + 1.25 * usage.cache_write_5m + 2 * usage.cache_write_1h
        self.largest = max(self.largest, total)
        return usage

    def _exact(self, estimated: float) -> int:
        return round(estimated * self.tokens_per_estimate)


def as_reported(usage: Usage) -> dict[str, object]:
    """A usage as Converse reports it."""
    return {
        "inputTokens": usage.input,
        "outputTokens": usage.output,
        "cacheReadInputTokens": usage.cache_read,
        "cacheWriteInputTokens": usage.cache_write,
        "cacheDetails": [
            {"ttl": "1h", "inputTokens": usage.cache_write_1h},
            {"ttl": "5m", "inputTokens": usage.cache_write_5m},
        ],
    }


def history_of(prompt: Prompt) -> bytes | None:
    """The digest at the end of the history of a prompt that has turns."""
    return prompt.end(prompt.history_end).digest if prompt.has_turns and prompt.history_end >= 0 else None
