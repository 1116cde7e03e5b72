"""The least that any placement could cost, with the future known.

The requests form a trie of prefixes; an edge is a stretch of prompt after which requests may part. The
tokens of one edge are, at each visit, sent uncached, written for 5 minutes, written for 1 hour, or read,
which is possible while they live and starts their time again. A dynamic program over the visit times
finds the cheapest schedule of each edge by itself; slots, minimum, lookback and TTL order are ignored,
and what one request writes the next can read at once. All four only make caching dearer, so the sum over
the edges is a lower bound. Tokens are the emulator's: bound and bills are in one currency.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from cachepoint.core.provider.prices import Rates
from cachepoint.core.provider.rules import TTL, TTL_SECONDS
from cachepoint.emulator._reading.positions import RenderedPrompt

Action = Literal["uncached", "write 5m", "write 1h", "read"]
"""What a request does with the tokens of an edge."""
Key = tuple[str, bytes]
"""An edge's scope and the digest of the prefix it ends."""
_WRITES: dict[TTL, Action] = {"5m": "write 5m", "1h": "write 1h"}


@dataclass(slots=True)
class Edge:
    """A stretch of prompt of so many tokens, and when requests came through it, in seconds."""

    tokens: int
    visits: list[float] = field(default_factory=list)


@dataclass(slots=True)
class Trie:
    """The prefix trie of a workload, its edges by their keys.

    `baseline` is all its prompt tokens, `uncachable` those no prefix ends after.
    """

    edges: dict[Key, Edge] = field(default_factory=dict)
    baseline: int = 0
    uncachable: int = 0

    def add(self, at: float, prompt: RenderedPrompt, scope: str = "") -> None:
        before = 0
        for position in prompt.positions:
            edge = self.edges.setdefault((scope, position.digest), Edge(position.tokens - before))
            edge.visits.append(at)
            before = position.tokens
        self.baseline += prompt.total
        self.uncachable += prompt.total - before

    def bound(self, rates: Rates) -> float:
        """The lower bound on the input side of the bill, in input tokens."""
        return self.uncachable + sum(edge.tokens * cheapest(edge.visits, rates) for edge in self.edges.values())


def price(action: Action, rates: Rates) -> float:
    """What an action costs a token, in input prices."""
    return {"uncached": 1.0, "write 5m": rates.write_5m, "write 1h": rates.write_1h, "read": rates.read}[action]


def schedule(visits: Sequence[float], rates: Rates) -> list[Action]:
    """The cheapest actions of one edge, one for each of its visits."""
    # After a visit the edge is cached with a TTL or not at all (None): the least cost so far, and the way there.
    cost: dict[TTL | None, float] = {None: 0.0}
    ways: list[dict[TTL | None, tuple[Action, TTL | None]]] = []
    before = 0.0
    for at in visits:
        cheapest = min(cost, key=cost.__getitem__)
        after: dict[TTL | None, float] = {None: cost[cheapest] + 1.0}
        way: dict[TTL | None, tuple[Action, TTL | None]] = {None: ("uncached", cheapest)}
        for ttl, write in _WRITES.items():
            after[ttl], way[ttl] = cost[cheapest] + price(write, rates), (write, cheapest)
            alive = ttl in cost and at - before < TTL_SECONDS[ttl]
            if alive and cost[ttl] + rates.read < after[ttl]:
                after[ttl], way[ttl] = cost[ttl] + rates.read, ("read", ttl)
        cost, before = after, at
        ways.append(way)
    actions: list[Action] = []
    state = min(cost, key=cost.__getitem__)
    for way in reversed(ways):
        action, state = way[state]
        actions.append(action)
    return actions[::-1]


def cheapest(visits: Sequence[float], rates: Rates) -> float:
    """The least one token of an edge costs over all its visits, in input prices."""
    return sum(price(action, rates) for action in schedule(visits, rates))
