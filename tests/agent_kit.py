"""What the agent suites share: a scripted agent on the emulator, and what the clairvoyant would have read."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from clairvoyant_kit import clairvoyant_reads
from langchain.agents import create_agent
from langchain.agents.middleware.types import AgentMiddleware
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from langchain_kit import MODEL, connected

from cachepoint.core.planning.policy import CachePolicy
from cachepoint.core.provider.usage import Usage
from cachepoint.emulator import BedrockEmulator, Question, ServedCall, Text, ToolCall
from cachepoint.langchain._agents.middleware import SUMMARISE

SYSTEM = "You look things up in the archive, many at a time, until you know enough to answer. " * 90
"""About 1,500 tokens."""
WORDS = [
    "archive",
    "shelf",
    "folder",
    "letter",
    "ledger",
    "receipt",
    "map",
    "index",
    "margin",
    "note",
    "copy",
    "seal",
    "ink",
    "page",
    "binding",
    "spine",
]


@tool
def look_up(item: int, where: str) -> str:
    """Look an item up in the archive."""
    rng = random.Random(f"{item} {where}")
    return f"Item {item} on the {where}: " + " ".join(rng.choices(WORDS, k=rng.randint(20, 160)))


@tool
def remember(note: str) -> str:
    """Write a note for later."""
    return f"Noted: {note}"


@dataclass
class Agent:
    """An agent whose model makes `calls[i]` tool calls at step i, each step so many seconds after the last."""

    calls: Sequence[int]
    middleware: Sequence[AgentMiddleware[Any, Any, Any]]
    policy: CachePolicy = field(default_factory=CachePolicy)
    seconds_a_step: float = 12.0
    settings: dict[str, Any] = field(default_factory=dict)

    def run(self, question: str = "What became of the map?") -> Run:
        started = 1_780_000_000.0
        with BedrockEmulator(replies=self._reply, clock=lambda: started, keep_text=True) as emulator:
            self._clock, self._step = emulator.clock, 0
            model = connected(emulator, prompt_cache=self.policy, clock=emulator.clock, **self.settings)
            agent = create_agent(model, [remember, look_up], system_prompt=SYSTEM, middleware=self.middleware)
            state = agent.invoke({"messages": [HumanMessage(question)]}, {"recursion_limit": 1000})
            return Run(state, emulator.requests, emulator.bill().total)

    def _reply(self, question: Question) -> Any:
        self._clock.advance(self.seconds_a_step)
        if question.text.endswith(SUMMARISE):
            return Text(f"The map was looked for on {self._step} shelves. " * 20)
        if self._step >= len(self.calls):
            return Text("It was bound into the ledger.")
        self._step += 1
        return [
            ToolCall("look_up", {"item": 100 * self._step + number, "where": WORDS[number % len(WORDS)]})
            for number in range(self.calls[self._step - 1])
        ]


@dataclass(frozen=True)
class Run:
    state: dict[str, Any]
    calls: Sequence[ServedCall]
    billed: Decimal

    @property
    def usage(self) -> Usage:
        return sum((call.usage for call in self.calls if call.usage), Usage())

    def clairvoyant_reads(self) -> int:
        """Tokens that the cheapest schedule reads, with the future known and slots, lookback and minimum ignored."""
        return clairvoyant_reads(self.calls, MODEL)
