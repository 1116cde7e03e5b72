"""What a store of learned traffic takes: memory and time a request, over a million requests that never repeat.

Run `python benchmarks/memory.py [--requests 1000000] [--scopes 1] [--json FILE]`. Each request has twelve
boundaries: three that are shared by all, one by a tenant, eight of its own, of all sizes. Three of them are written
with a 1h TTL, and a million requests come within the hour, so that every entry is alive to the end.
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
from hashlib import blake2b
from pathlib import Path

from cachepoint import MemoryStore, Usage
from cachepoint.core.traffic.return_curves import Role
from cachepoint.core.traffic.view import Sent, SentPoint, Step

BOUND_MIB = 64.0
_TAILS: tuple[Role, ...] = ("tail_single", "tail_turns", "tail_tools")
_REPORTS = 10
_PAGE = os.sysconf("SC_PAGE_SIZE")


def steps(number: int) -> list[Step]:
    """The boundaries of one request."""

    def digest(*names: object) -> bytes:
        return blake2b(repr(names).encode(), digest_size=16).digest()

    size = 2.0 ** (10 + number % 7)  # tokens: every class of size that is learned apart
    tail = _TAILS[number % len(_TAILS)]
    shared = [Step(digest("tools"), "tools_end", 1e3), Step(digest("system"), "system_end", 3e3)]
    tenant = [Step(digest("intro"), "inner", 3.5e3), Step(digest("tenant", number % 1000), "context_end", 3.5e3 + size)]
    own = [Step(digest(number, place), "cut", 4e3 + size * place) for place in range(1, 8)]
    return [*shared, *tenant, *own, Step(digest(number, "tail"), tail, 5e3 + size * 8)]


def serve(store: MemoryStore, number: int, scopes: int, now: float) -> None:
    """One request from visit to answer."""
    scope, here = f"account|endpoint|us-east-1|model{number % scopes}|converse", steps(number)
    store.visit(scope, here, None, now)
    points = tuple(SentPoint(here[place].digest, "1h", tokens) for place, tokens in ((1, 2e3), (3, 4e3), (11, 8e3)))
    sent = Sent(points=points, written=4e3, estimated=8e3, minimum=1024)
    store.sent(scope, sent, now)
    store.began(scope, sent)
    store.settled(scope, sent, Usage(input=5, cache_read=4000, cache_write_1h=4000, output=100), now)


def resident_mib() -> float:
    """Memory of this process that is in RAM."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE / 2**20


def measured(requests: int, scopes: int) -> Iterator[dict[str, float]]:
    """Memory above the start and microseconds a request, after each tenth of the run."""
    store, now = MemoryStore(), 1_000.0
    gc.collect()
    start = resident_mib()
    for part in range(_REPORTS):
        began = time.process_time()
        for number in range(part * requests // _REPORTS, (part + 1) * requests // _REPORTS):
            serve(store, number, scopes, now)
            now += 3000.0 / requests
        seconds = time.process_time() - began
        yield {
            "requests": (part + 1) * requests // _REPORTS,
            "mib": resident_mib() - start,
            "microseconds": seconds / (requests / _REPORTS) * 1e6,
        }


def main() -> int:
    """Print the table; exit 1 where the bound is broken or requests become slower."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--scopes", type=int, default=1)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    print(f"{'requests':>10} {'MiB':>8} {'us/request':>11}")
    rows = []
    for row in measured(chosen.requests, chosen.scopes):
        rows.append(row)
        print(f"{row['requests']:>10,.0f} {row['mib']:>8.1f} {row['microseconds']:>11.1f}", flush=True)
    if chosen.json:
        chosen.json.write_text(json.dumps({"scopes": chosen.scopes, "bound_mib": BOUND_MIB, "rows": rows}, indent=1))
    first, second = (
        statistics.median(row["microseconds"] for row in half)
        for half in (rows[: _REPORTS // 2], rows[_REPORTS // 2 :])
    )
    slower = second / first
    print(f"bound {BOUND_MIB:g} MiB; in the second half a request took {slower:.2f} times as long as in the first")
    return int(max(row["mib"] for row in rows) > BOUND_MIB or slower > 1.5)


if __name__ == "__main__":
    sys.exit(main())
