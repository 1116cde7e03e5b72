"""A workload made: its requests, their trie, and what they cost at most and at least."""

from __future__ import annotations

from dataclasses import dataclass

from capture_lib.clairvoyant import Trie
from capture_lib.requests import Knobs, Request, Workload
from capture_lib.stage import rates, rendered


@dataclass(frozen=True)
class Traffic:
    """`ends` are the digests of the edges that each request goes through."""

    workload: Workload
    requests: tuple[Request, ...]
    trie: Trie
    ends: tuple[tuple[bytes, ...], ...]
    bound: float

    @classmethod
    def of(cls, workload: Workload, knobs: Knobs) -> Traffic:
        requests = tuple(workload.requests(knobs))
        trie = Trie()
        ends = []
        for request in requests:
            prompt = rendered(request, in_pieces=True)
            trie.add(request.at, prompt)
            ends.append(tuple(position.digest for position in prompt.positions))
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
