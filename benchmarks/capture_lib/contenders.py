"""Who competes: each turns neutral requests into the public calls of its framework."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import cachepoint
from cachepoint.core.provider.rules import TTL, TTL_SECONDS
from cachepoint.store._memory import MemoryStore
from capture_lib.clairvoyant import Key
from capture_lib.requests import Request, converse
from capture_lib.stage import MODEL, REGION, Contender, Send, Stage, Stopwatch
from capture_lib.traffic import Traffic

KEY = b"the same handicaps in every run."
"""A store's key draws the handicaps of the guard, and a figure is to be the same each time."""


@dataclass
class Cachepoint:
    """`cachepoint.wrap` around a boto3 client, as it stands. Every process loads `profile` if it is given.

    `told` fills with what each call told of itself, by the request's `id`; `hints` says what requests expect.
    """

    name: str = "cachepoint (boto3)"
    over_http: bool = False
    profile: str | None = None
    planning: list[float] = field(default_factory=list)
    store: MemoryStore = field(default_factory=MemoryStore)
    told: dict[int, dict[str, Any]] = field(default_factory=dict, repr=False)
    hints: bool = False

    def open(self, stage: Stage) -> Send:
        self.store = MemoryStore.load(self.profile) if self.profile else MemoryStore(key=KEY)
        profiles = dict.fromkeys(stage.arns, MODEL)

        @cache
        def client(region: str) -> tuple[Stopwatch, Any]:
            inner = Stopwatch(stage.client(region))
            return inner, cachepoint.wrap(inner, store=self.store, clock=stage.clock, base_models=profiles)

        def send(request: Request) -> object:
            inner, wrapped = client(request.region or REGION)
            sent = {"modelId": request.model or MODEL, **converse(request)}
            started, before = time.thread_time(), inner.seconds
            with _expecting(request) if self.hints else nullcontext():
                answer = wrapped.converse(**sent)
            if not request.group:
                self.planning.append(time.thread_time() - started - (inner.seconds - before))
            self.told[id(request)] = answer["promptCache"]
            return answer

        return send

    def concurrent(self) -> AbstractContextManager[object]:
        return cachepoint.fan_out()


def _expecting(request: Request) -> AbstractContextManager[object]:
    expect: Any = getattr(cachepoint, "expect", None)
    return expect(**request.expect) if expect and request.expect else nullcontext()


@dataclass(frozen=True)
class Adapter:
    """One of cachepoint's chat models; `start` makes it."""

    name: str
    start: Callable[[Stage], Send]
    over_http: bool = True
    planning: list[float] = field(default_factory=list)

    def open(self, stage: Stage) -> Send:
        return self.start(stage)

    def concurrent(self) -> AbstractContextManager[object]:
        return cachepoint.fan_out()


Place = Callable[[Request], Sequence[int]]
"""The messages after whose last block a checkpoint goes."""


@dataclass(frozen=True)
class ByHand:
    """A boto3 client with checkpoints where `place` says."""

    name: str
    place: Place
    ttl: TTL = "5m"
    over_http: bool = False
    planning: list[float] = field(default_factory=list)

    def open(self, stage: Stage) -> Send:
        client: Any = stage.client()

        def send(request: Request) -> object:
            sent = converse(request)
            for message in self.place(request):
                sent["messages"][message]["content"].append({"cachePoint": {"type": "default", "ttl": self.ttl}})
            return client.converse(modelId=MODEL, **sent)

        return send

    def concurrent(self) -> AbstractContextManager[object]:
        return nullcontext()


def nowhere(request: Request) -> Sequence[int]:  # noqa: ARG001 - a place like any other
    return ()


def prompt_end(request: Request) -> Sequence[int]:
    return (len(request.messages) - 1,)


def history_end(request: Request) -> Sequence[int]:
    return (len(request.messages) - 2,) if len(request.messages) > 1 else ()


def clairvoyant_ends(traffic: Traffic, ttl: TTL = "5m") -> Place:
    """A prompt's end where a request that begins with the whole prompt comes while it lives, and a live one to read."""
    ends = dict(zip(map(id, traffic.requests), traffic.ends, strict=True))
    used: dict[Key, float] = {}

    def returns(digest: Key, at: float) -> bool:
        visits = traffic.trie.edges[digest].visits
        later = bisect_right(visits, at)
        return later < len(visits) and visits[later] - at < TTL_SECONDS[ttl]

    def place(request: Request) -> Iterator[int]:
        digests, last = ends[id(request)], len(request.messages) - 1
        since = sum(message.blocks for message in request.messages[-2:])
        if last >= 2:
            before = digests[-since - 1]
            if before in used and request.at - used[before] < TTL_SECONDS[ttl]:
                used[before] = request.at
                yield last - 2
        if returns(digests[-1], request.at):
            used[digests[-1]] = request.at
            yield last

    return lambda request: tuple(place(request))


def cachepoints() -> list[Contender]:
    """Our own: under boto3, and under the frameworks it serves."""
    return [
        Cachepoint(),
        Adapter("cachepoint (LangChain)", _langchain),
        Adapter("cachepoint (LlamaIndex)", _llama_index),
    ]


def references(traffic: Traffic) -> list[Contender]:
    """What a row is measured against besides its bound."""
    if traffic.workload.name == "A10":
        place = "a point at the end of the history"
        return [ByHand(f"{place}, 5m", history_end), ByHand(f"{place}, 1h", history_end, "1h")]
    if traffic.workload.name == "R1":
        return [
            ByHand("a point at every prompt's end", prompt_end),
            ByHand("clairvoyant end points", clairvoyant_ends(traffic)),
        ]
    return []


def _langchain(stage: Stage) -> Send:
    from cachepoint.langchain import CacheAwareChatBedrockConverse
    from capture_lib.peers import MAX_TOKENS, langchain_send

    return langchain_send(
        CacheAwareChatBedrockConverse(
            model=MODEL, client=stage.client(), region_name=REGION, max_tokens=MAX_TOKENS, clock=stage.clock
        )
    )


def _llama_index(stage: Stage) -> Send:
    from cachepoint.llama_index import CacheAwareBedrockConverse
    from capture_lib.peers import MAX_TOKENS, llama_index_send

    return llama_index_send(
        CacheAwareBedrockConverse(model=MODEL, client=stage.client(), max_tokens=MAX_TOKENS, clock=stage.clock)
    )
