"""Short-lived and many workers: processes that share no store, each of them gone after a few calls."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from capture_lib.contenders import Cachepoint
from capture_lib.measure import outcome, play, run
from capture_lib.requests import Knobs, Request, Workload
from capture_lib.stage import DAY, START, Contender, Send, direct_stage
from capture_lib.traffic import Traffic

PROCESSES = (1, 8, 64)
CALLS: Sequence[int | None] = (1, 5, 20, None)
"""Calls after which a process is replaced by a fresh one; None: never."""
ROWS = ("A1", "A4", "A7", "A8", "H2")


@dataclass(frozen=True)
class Fleet:
    """Bills over no caching of so many processes; `calls` is None where a process lives on."""

    row: str
    processes: int
    calls: int | None
    fresh: float
    with_profile: float
    one_process: float
    langchain_5m: float | None


def fleets(workload: Workload, knobs: Knobs, langchain: Contender | None) -> Iterator[Fleet]:
    """Every combination on one workload; `langchain` is the peer that keeps no state, run once."""
    traffic = Traffic.of(workload, knobs)
    one = run(Cachepoint(), traffic, fast=True).ratio
    peer = run(langchain, traffic, fast=False).ratio if langchain else None
    with TemporaryDirectory() as folder:
        profile = str(Path(folder) / "profile")
        learn(workload, Knobs(knobs.seed, knobs.sizes, knobs.gaps, knobs.count, knobs.day + 1), profile)
        for processes in PROCESSES:
            for calls in CALLS:
                fresh, loaded = (_bill(traffic, Cachepoint(profile=each), processes, calls) for each in (None, profile))
                yield Fleet(workload.name, processes, calls, fresh, loaded, one, peer)


def learn(workload: Workload, knobs: Knobs, profile: str) -> None:
    """A profile saved by one process after the traffic of the day before."""
    contender = Cachepoint()
    with direct_stage(workload, start=START - DAY) as stage:
        play(stage, contender, contender.open(stage), workload.requests(knobs))
    contender.store.save(profile)


def _bill(traffic: Traffic, contender: Cachepoint, processes: int, calls: int | None) -> float:
    rng = random.Random(f"{processes}/{calls}")
    running: dict[int, tuple[Send, int]] = {}
    with direct_stage(traffic.workload) as stage:

        def send(request: Request) -> object:
            number = rng.randrange(processes)
            sender, made = running.get(number) or (contender.open(stage), 0)
            running[number] = sender, made + 1
            if made + 1 == calls:
                del running[number]
            return sender(request)

        failed = play(stage, contender, send, traffic.requests)
        return outcome(traffic, contender, stage, failed).ratio
