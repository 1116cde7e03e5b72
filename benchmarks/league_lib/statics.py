"""The static plans: what anyone can write down once, without looking at the traffic, and their bills.

A plan is a set of places and one TTL. The places: T the end of the tools, S1 the first system block, S the end of the
system prompt, F the first block of the first message, U the end of the first message, H the end of the history (the
message before the last), E the end of the prompt; and the common prefix with the last request of the same habit.
langchain-aws's `cache_control` is T+S+E+H (1.9.1, `ChatBedrockConverse._apply_cache_points`).

Each plan is billed with the cache model alone, on one rendering of each request, with the minimum and the lookback of
the model. Requests of one group are under way together: none reads what another writes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from capture_lib.measure import input_side
from capture_lib.requests import Request
from capture_lib.stage import rendered

from cachepoint.core.provider.cache_model import CacheModel, CacheRequest, Point, Position
from cachepoint.core.provider.prices import Rates
from cachepoint.core.provider.rules import TTL, ModelRule
from cachepoint.core.provider.usage import Usage
from cachepoint.emulator._reading.positions import RenderedPrompt

NOTHING = "nothing"
SETS = (
    "S", "S1", "T+S", "H", "S+H", "E", "S+E", "T+S+E+H", "F", "S+F", "S1+S+H", "S1+S+E", "U", "S+U", "S+U+E",
)  # fmt: skip
COMMON = "common prefix"
TTLS: tuple[TTL, ...] = ("5m", "1h")
PEERS: Mapping[TTL, str] = {"5m": "T+S+E+H 5m", "1h": "T+S+E+H 1h"}

Habit = tuple[str, bool, bool]


@dataclass(frozen=True, slots=True)
class Rendered:
    """A request and its prompt, as it is sent and cut where requests may part; one rendering where that is the same."""

    request: Request
    whole: RenderedPrompt
    pieces: RenderedPrompt

    @classmethod
    def of(cls, request: Request) -> Rendered:
        whole = rendered(request)
        return cls(request, whole, rendered(request, in_pieces=True) if request.parts_inside_texts else whole)

    def places(self) -> Mapping[str, int]:
        """The block, in wire order, after which each place lies; a place that the request lacks is left out."""
        request = self.request
        tools, system = len(request.tools), len(request.system)
        first = tools + system
        found: dict[str, int] = {}
        if tools:
            found["T"] = tools - 1
        if system:
            found |= {"S1": tools, "S": first - 1}
        sizes = [len(message.content) for message in request.messages]
        found |= {"F": first, "U": first + sizes[0] - 1, "E": first + sum(sizes) - 1}
        if len(sizes) > 1:
            found["H"] = first + sum(sizes[:-1]) - 1
        return found

    @property
    def habit(self) -> Habit:
        """What requests of one kind share, by form alone: the second turn of a chat has the first for its last one."""
        return self.request.scope, bool(self.request.tools), bool(self.request.system)


@dataclass(frozen=True, slots=True)
class StaticBill:
    """What a static plan comes to, call by call."""

    plan: str
    usages: tuple[Usage, ...]
    ratio: float


def static_bills(prompts: Sequence[Rendered], rule: ModelRule, rates: Rates) -> Iterator[StaticBill]:
    """Every static plan; plans with the same points on all of these requests are billed once."""
    baseline = sum(prompt.whole.total for prompt in prompts)
    yield StaticBill(NOTHING, tuple(Usage(input=prompt.whole.total) for prompt in prompts), 1.0)
    found: dict[tuple[tuple[int, ...], ...], str] = {}
    places = [prompt.places() for prompt in prompts]
    wholes = [prompt.whole for prompt in prompts]
    for name in SETS:
        wanted = name.split("+")
        points = tuple(tuple(sorted({at[place] for place in wanted if place in at})) for at in places)
        # langchain-aws's set is kept by its name.
        if found.setdefault(points, name) != name and name != "T+S+E+H":
            continue
        yield from _both(name, prompts, wholes, points, rule, rates, baseline)
    pieces = [prompt.pieces for prompt in prompts]
    yield from _both(COMMON, prompts, pieces, _common(prompts), rule, rates, sum(each.total for each in pieces))


def _both(
    name: str,
    prompts: Sequence[Rendered],
    rendering: Sequence[RenderedPrompt],
    points: Sequence[Sequence[int]],
    rule: ModelRule,
    rates: Rates,
    baseline: int,
) -> Iterator[StaticBill]:
    for ttl in TTLS:
        usages = tuple(_serve(prompts, rendering, points, ttl, rule))
        yield StaticBill(f"{name} {ttl}", usages, sum(input_side(usage, rates) for usage in usages) / baseline)


def _serve(
    prompts: Sequence[Rendered],
    rendering: Sequence[RenderedPrompt],
    points: Sequence[Sequence[int]],
    ttl: TTL,
    rule: ModelRule,
) -> Iterator[Usage]:
    model = CacheModel()
    sent = list(zip(prompts, rendering, points, strict=True))
    for together in _together(sent):
        now = together[0][0].request.at
        served = [
            model.serve(
                CacheRequest(each.request.scope, prompt.positions, [Point(place, ttl) for place in at], prompt.total),
                rule,
                now,
            )
            for each, prompt, at in together
        ]
        for each in served:
            model.begin_response(each, now)
            yield each.usage


_Sent = tuple[Rendered, RenderedPrompt, Sequence[int]]


def _together(sent: Sequence[_Sent]) -> Iterator[Sequence[_Sent]]:
    """Neighbours of one group at once, all others alone."""
    for group, found in itertools.groupby(sent, key=lambda each: each[0].request.group):
        members = list(found)
        yield from [members] if group else ([member] for member in members)


def _common(prompts: Sequence[Rendered]) -> Sequence[tuple[int, ...]]:
    last: dict[Habit, Sequence[Position]] = {}
    found: list[tuple[int, ...]] = []
    for prompt in prompts:
        here, before = prompt.pieces.positions, last.get(prompt.habit, ())
        pairs = zip(here, before, strict=False)
        shared = sum(1 for _ in itertools.takewhile(lambda pair: pair[0].digest == pair[1].digest, pairs))
        found.append((shared - 1,) if shared else ())
        last[prompt.habit] = here
    return found
