"""Where a run loses against the clairvoyant: its usage laid over the trie, edge by edge."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

from cachepoint.core.provider.prices import Rates
from cachepoint.core.provider.usage import Usage
from capture_lib.clairvoyant import Action, Key, price, schedule
from capture_lib.stage import rates, rendered
from capture_lib.traffic import Traffic

_K = TypeVar("_K")


class Loss(NamedTuple):
    """Tokens that one request had in one edge; what the clairvoyant did with them, and what the run did."""

    request: int
    start: int
    end: int
    visit: int
    visits: int
    best: Action
    cost: float
    done: Action

    def lost(self, price_of: Rates) -> float:
        return self.cost - (self.end - self.start) * price(self.best, price_of)


def losses(traffic: Traffic, usages: Sequence[Usage]) -> Iterator[Loss]:
    """For each request and edge; `done` is what most of its tokens met with."""
    price_of = rates()
    best = {key: schedule(edge.visits, price_of) for key, edge in traffic.trie.edges.items()}
    seen: Counter[Key] = Counter()
    for number, (request, usage) in enumerate(zip(traffic.requests, usages, strict=True)):
        start = 0
        for position in rendered(request, in_pieces=True).positions:
            key = (request.scope, position.digest)
            visit = seen[key]
            seen[key] += 1
            parts = _parts(usage, start, position.tokens)
            cost = sum(tokens * price(action, price_of) for action, tokens in parts.items())
            done = max(parts, key=lambda action: parts[action])
            actions = best[key]
            yield Loss(number, start, position.tokens, visit, len(actions), actions[visit], cost, done)
            start = position.tokens


def _parts(usage: Usage, start: int, end: int) -> dict[Action, int]:
    """How many tokens from start to end were read, written and sent: in this order from the prompt's start (R3.3)."""
    lengths: tuple[tuple[Action, int], ...] = (
        ("read", usage.cache_read),
        ("write 1h", usage.cache_write_1h),
        ("write 5m", usage.cache_write_5m),
        ("uncached", max(end, usage.prompt) - usage.prompt + usage.input),
    )
    found: dict[Action, int] = {}
    begin = 0
    for action, length in lengths:
        found[action] = max(min(end, begin + length) - max(start, begin), 0)
        begin += length
    return found


def told(traffic: Traffic, usages: Sequence[Usage]) -> Iterator[str]:
    """The losses in words, the largest first, in per cent of what could be saved."""
    price_of = rates()
    possible = max(traffic.baseline - traffic.bound, 1.0)
    found = list(losses(traffic, usages))
    moves: defaultdict[tuple[str, str], float] = defaultdict(float)
    times: Counter[tuple[str, str]] = Counter()
    places: defaultdict[str, float] = defaultdict(float)
    by_request: defaultdict[int, float] = defaultdict(float)
    for loss in found:
        moves[loss.best, loss.done] += loss.lost(price_of)
        times[loss.best, loss.done] += 1
        places[_place(loss)] += loss.lost(price_of)
        by_request[loss.request] += loss.lost(price_of)
    lost = sum(moves.values()) / possible
    yield f"{traffic.workload.name}: lost {lost:.2%} of the {possible:,.0f} tokens that could be saved"
    for (best, done), tokens in _largest(moves, len(moves)):
        if abs(tokens) > 0.0005 * possible:
            yield f"  {tokens / possible:+7.2%}  best {best:9s} done {done:9s} {times[best, done]:6d} times"
    for place, tokens in _largest(places, 5):
        yield f"  {tokens / possible:+7.2%}  {place}"
    for number, tokens in _largest(by_request, 6):
        usage, at = usages[number], traffic.requests[number].at
        yield f"  {tokens / possible:+7.2%}  request {number} at {at:.0f} s: {usage}"


def _largest(amounts: Mapping[_K, float], count: int) -> Sequence[tuple[_K, float]]:
    return sorted(amounts.items(), key=lambda item: -abs(item[1]))[:count]


def _place(loss: Loss) -> str:
    many = "once" if loss.visits == 1 else "2-5 times" if loss.visits < 6 else "often"
    which = "first visit" if loss.visit == 0 else "second visit" if loss.visit == 1 else "later visit"
    return f"{which} of an edge visited {many}"
