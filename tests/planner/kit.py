"""A caller without a network: prompts are planned, served by the cache model, and what usage says is learned."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

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
from cachepoint.core.traffic.refusals import Refusals
from cachepoint.core.traffic.waste import Waste
from cachepoint.store._memory import MemoryStore

CLAUDE = ModelRule("Claude", "claude", ttls=("5m", "1h"), minimum=1024, tokenizer="claude")
SCOPE = Scope("account|endpoint|region|model|converse", "model")
RATES = Rates()
Request = dict[str, object]


@lru_cache(maxsize=512)
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

    `tokens_per_estimate` is how wrong the estimates are. `read_once` says that a read was paid for, `tried` that one
    was expected, or something written that had come before.
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
    scope: Scope = SCOPE
    read_once: bool = False
    tried: bool = False

    def call(self, request: Request, after: float = 10.0) -> tuple[Plan, Usage]:
        """Send a request so many seconds after the one before; its plan and usage."""
        self.now += after
        exchange = self.planned(request)
        self.send(exchange)
        return exchange.plan, self.answer(exchange)

    def planned(self, request: Request) -> Exchange:
        """Read and plan a request."""
        exchange = Exchange(converse, request, self.policy)
        target = Target("model", "model", scope=self.scope, rule=self.rule, rates=RATES)
        self.learn(exchange.read(target, self.store.key, self.now))
        question = exchange.question
        assert question is not None
        view = self.store.visit(self.scope, question.steps, question.history, self.now, question.habit)
        self.learn(exchange.known(view, self.now))
        return exchange

    def send(self, exchange: Exchange) -> None:
        """Hand a planned request over."""
        while (denied := self.learn(exchange.send())) is not None:
            self.learn(exchange.denied(denied))
        risk = exchange.plan.risk
        self.tried = self.tried or (risk.ours and (bool(risk.read) or risk.again))

    def answer(self, exchange: Exchange) -> Usage:
        """Serve a request that was sent."""
        usage = self.served(exchange.request)
        self.learn(exchange.began())
        self.learn(exchange.answered(as_reported(usage), 1.0, lambda _: None))
        self.read_once = self.read_once or usage.cache_read > 0
        return usage

    def learn(self, effects: Effects) -> Waste | Refusals | None:
        """Do what a step leaves to do; gives what the store answers where it does not cover what is sent."""
        assert not effects.faults
        answers = [lesson.teach(self.store) for lesson in effects.lessons]
        return next((answer for answer in answers if answer is not None), None)

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
            CacheRequest(self.scope.name, positions, points, total), self.followed or self.rule, self.now
        )
        self.cache.begin_response(served, self.now)
        usage = served.usage
        self.uncached += total
        self.bill += usage.input + 0.1 * usage.cache_read + 1.25 * usage.cache_write_5m + 2 * usage.cache_write_1h
        self.largest = max(self.largest, total)
        return usage

    def _exact(self, estimated: float) -> int:
        return round(estimated * self.tokens_per_estimate)


def over_the_bound(*callers: Caller, price: float = 0.25) -> float:
    """By how many input tokens the bill of callers that share a store is above bound A; negative below it.

    `price` is the surcharge of one write a token.
    """
    bill, uncached = sum(caller.bill for caller in callers), sum(caller.uncached for caller in callers)
    writes = 2 if any(caller.read_once or caller.tried for caller in callers) else 1
    return bill - uncached * 1.015 - writes * price * max(caller.largest for caller in callers)


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
