"""What a store of learned traffic takes: memory and time a request, over a million requests that never repeat.

Run `python benchmarks/memory.py [--requests 1000000] [--scopes 1,16,128,1000] [--json FILE]`. Each request has
twelve boundaries: three that are shared by all, one by a tenant, eight of its own, of all sizes. Three of them are
written with a 1h TTL, and all requests come within the hour, so that every entry is alive to the end and no scope is
idle. One request in a thousand has 4,000 blocks. The store is driven alone: no planning, no request is made. A
million requests take about four minutes of CPU for each number of scopes; every number runs in a process of its own.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from hashlib import blake2b
from multiprocessing import get_context
from pathlib import Path

from cachepoint import MemoryStore, Usage
from cachepoint.core.traffic.entries import Sent, SentPoint, Shape
from cachepoint.core.traffic.kinds import Role
from cachepoint.core.traffic.pool import Scope
from cachepoint.core.traffic.view import Step

BOUND_MIB = 64.0
SLOWER = 1.5
"""Requests of the second half may take so many times as long as those of the first, on a busy machine."""
LONG_EVERY, LONG_BLOCKS = 997, 4000
_TAILS: tuple[Role, ...] = ("tail_single", "tail_turns", "tail_tools")
_REPORTS = 10
_PAGE = os.sysconf("SC_PAGE_SIZE")

Row = dict[str, float]


def digest(*names: object) -> bytes:
    return blake2b(repr(names).encode(), digest_size=16).digest()


def steps(number: int) -> list[Step]:
    """The boundaries of one request."""
    size = 2.0 ** (10 + number % 7)  # tokens: every class of size that is learned apart
    tail = _TAILS[number % len(_TAILS)]
    shared = [Step(digest("tools"), "tools_end", 1e3), Step(digest("system"), "system_end", 3e3)]
    tenant = [Step(digest("intro"), "inner", 3.5e3), Step(digest("tenant", number % 1000), "context_end", 3.5e3 + size)]
    own = [Step(digest(number, place), "cut", 4e3 + size * place) for place in range(1, 8)]
    return [*shared, *tenant, *own, Step(digest(number, "tail"), tail, 5e3 + size * 8)]


def shape(number: int, here: list[Step]) -> Shape:
    """The blocks of one request, for comparison with later ones."""
    digests = [step.digest for step in here]
    if number % LONG_EVERY == 0:
        digests += [digest(number, "block", place) for place in range(LONG_BLOCKS)]
    return Shape(tuple(digests), tuple(range(1000, 1000 + len(digests))), (0, 1), (), 0.0, "1h", 0.0)


def serve(store: MemoryStore, number: int, scopes: int, now: float) -> None:
    """One request from visit to answer."""
    scope = Scope(f"account|endpoint|us-east-1|tenant{number % scopes}|converse", "model")
    here = steps(number)
    store.visit(scope, here, None, now)
    points = tuple(SentPoint(here[place].digest, "1h", tokens) for place, tokens in ((1, 2e3), (3, 4e3), (11, 8e3)))
    sent = Sent(points=points, estimated=8e3, minimum=1024, shape=shape(number, here))
    store.sent(scope, sent, now)
    store.began(scope, sent)
    store.settled(scope, sent, Usage(input=5, cache_read=4000, cache_write_1h=4000, output=100), now)


def resident_mib() -> float:
    """Memory of this process that is in RAM."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE / 2**20


def measured(requests: int, scopes: int) -> Iterator[Row]:
    """Memory above the start and microseconds a request, after each tenth of the run."""
    store, now = MemoryStore(), 1_780_000_000.0
    gc.collect()
    start = resident_mib()
    for part in range(_REPORTS):
        began = time.process_time()
        for number in range(part * requests // _REPORTS, (part + 1) * requests // _REPORTS):
            serve(store, number, scopes, now)
            now += 3000.0 / requests
        seconds = time.process_time() - began
        yield {
            "scopes": scopes,
            "requests": (part + 1) * requests // _REPORTS,
            "mib": round(resident_mib() - start, 1),
            "microseconds": round(seconds / (requests / _REPORTS) * 1e6, 1),
        }


def run(requests: int, scopes: int) -> list[Row]:
    """One run in a process of its own."""
    rows = []
    for row in measured(requests, scopes):
        rows.append(row)
        print(f"{scopes:>7,} {row['requests']:>10,.0f} {row['mib']:>8.1f} {row['microseconds']:>11.1f}", flush=True)
    return rows


def slowed(rows: list[Row]) -> float:
    """How many times as long a request of the second half took as one of the first."""
    halves = rows[: _REPORTS // 2], rows[_REPORTS // 2 :]
    first, second = (statistics.median(row["microseconds"] for row in half) for half in halves)
    return second / first


def main() -> int:
    """Print the table; exit 1 where the bound is broken or requests become slower."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--scopes", default="1,16,128,1000", metavar="N,N")
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    print(f"{'scopes':>7} {'requests':>10} {'MiB':>8} {'us/request':>11}", flush=True)
    runs: list[list[Row]] = []
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        for scopes in map(int, chosen.scopes.split(",")):
            runs.append(pool.submit(run, chosen.requests, scopes).result())
            if chosen.json:
                found = {"bound_mib": BOUND_MIB, "rows": [row for rows in runs for row in rows]}
                chosen.json.write_text(json.dumps(found, indent=1))
    print(f"bound {BOUND_MIB:g} MiB; in the second half a request took longer by a factor of ", end="")
    print(", ".join(f"{slowed(rows):.2f}" for rows in runs))
    return int(
        any(row["mib"] > BOUND_MIB for rows in runs for row in rows) or any(slowed(rows) > SLOWER for rows in runs)
    )


if __name__ == "__main__":
    sys.exit(main())
