"""A workload made: its requests, their trie, and what they cost at most and at least."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cachepoint.emulator._reading.positions import RenderedPrompt
from capture_lib.clairvoyant import Key, Trie
from capture_lib.requests import Knobs, Request, Workload
from capture_lib.stage import rates, rendered


@dataclass(frozen=True)
class Traffic:
    """`ends` are the keys of the edges that each request goes through."""

    workload: Workload
    requests: tuple[Request, ...]
    trie: Trie
    ends: tuple[tuple[Key, ...], ...]
    bound: float

    @classmethod
    def of(cls, workload: Workload, knobs: Knobs) -> Traffic:
        requests = tuple(workload.requests(knobs))
        return cls.rendered(workload, requests, (rendered(request, in_pieces=True) for request in requests))

    @classmethod
    def rendered(cls, workload: Workload, requests: tuple[Request, ...], prompts: Iterable[RenderedPrompt]) -> Traffic:
        """The same from the prompts of its requests, in pieces."""
        trie = Trie()
        ends = []
        for request, prompt in zip(requests, prompts, strict=True):
            trie.add(request.at, prompt, request.scope)
            ends.append(tuple((request.scope, position.digest) for position in prompt.positions))
        return cls(workload, requests, trie, tuple(ends), trie.bound(rates()))

    @property
    def concurrent(self) -> bool:
        return any(request.group for request in self.requests)

    @property
    def baseline(self) -> int:
        """All prompt tokens: the bill without caching, in input tokens."""
        return self.trie.baseline

    def capture(self, bill: float) -> float | None:
        """The share of what could be saved that was saved; None where next to nothing could be."""
        possible = self.baseline - self.bound
        return (self.baseline - bill) / possible if possible > 0.1 * self.baseline else None
