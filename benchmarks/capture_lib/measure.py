"""One contender on one workload: requests at their times, and what they came to."""

from __future__ import annotations

import contextvars
import itertools
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple

from cachepoint.core.provider.prices import Rates
from cachepoint.core.provider.usage import Usage
from capture_lib.requests import Request
from capture_lib.stage import (
    Contender,
    Send,
    Stage,
    StageMaker,
    direct_stage,
    http_stage,
    minimum_of,
    output_rate,
    rates,
    rendered,
)
from capture_lib.traffic import Traffic


class Milliseconds(NamedTuple):
    median: float
    p95: float


@dataclass(frozen=True)
class Outcome:
    """What a contender's run came to.

    `bill` is the input side in input tokens; a request that ended in an error is sent again without caching,
    and `refused` counts what the service refused. `output` is the output side, in input tokens.
    """

    row: str
    contender: str
    usages: tuple[Usage, ...]
    bill: float
    baseline: float
    output: float
    bound: float
    capture: float | None
    refused: int
    planning: Milliseconds | None

    @property
    def ratio(self) -> float:
        return self.bill / self.baseline

    @property
    def ratio_with_output(self) -> float:
        return (self.bill + self.output) / (self.baseline + self.output)

    @property
    def usage(self) -> Usage:
        return sum(self.usages, Usage())


def run(contender: Contender, traffic: Traffic, *, fast: bool) -> Outcome:
    """Play a whole workload in one process."""
    make: StageMaker = direct_stage if fast and not contender.over_http else http_stage
    with minimum_of(traffic.workload.minimum), make(traffic.workload, slow=traffic.concurrent) as stage:
        failed = play(stage, contender, contender.open(stage), traffic.requests)
        return outcome(traffic, contender, stage, failed)


def play(stage: Stage, contender: Contender, send: Send, requests: Iterable[Request]) -> list[Request]:
    """Send requests at their times; returns those that ended in an error."""
    failed: list[Request] = []

    def attempt(request: Request) -> None:
        try:
            send(request)
        except Exception as error:  # noqa: BLE001 - a contender that fails loses the request, not the run
            failed.append(request)
            if len(failed) == 1:
                print(f"{contender.name} failed: {type(error).__name__}: {str(error)[:300]}", flush=True)

    for together in _together(requests):
        stage.wait_until(together[0].at)
        if len(together) == 1:
            attempt(together[0])
            continue
        with contender.concurrent(), ThreadPoolExecutor(len(together)) as pool:
            for request in together:
                pool.submit(contextvars.copy_context().run, attempt, request)
    return failed


def _together(requests: Iterable[Request]) -> Iterator[Sequence[Request]]:
    for group, found in itertools.groupby(requests, key=lambda request: request.group):
        members = list(found)
        yield from [members] if group else ([member] for member in members)


def outcome(traffic: Traffic, contender: Contender, stage: Stage, failed: Sequence[Request]) -> Outcome:
    calls = stage.served()
    usages = tuple(call.usage for call in calls if call.usage is not None)
    bill = sum(input_side(usage, rates()) for usage in usages) + sum(rendered(request).total for request in failed)
    planning = sorted(contender.planning)
    return Outcome(
        row=traffic.workload.name,
        contender=contender.name,
        usages=usages,
        bill=bill,
        baseline=traffic.baseline,
        output=sum(usage.output for usage in usages) * output_rate(),
        bound=traffic.bound,
        capture=traffic.capture(bill),
        refused=sum(call.status >= 400 for call in calls),
        planning=Milliseconds(median(planning) * 1000, planning[len(planning) * 95 // 100] * 1000)
        if planning
        else None,
    )


def input_side(usage: Usage, price: Rates) -> float:
    """What a call's prompt costs, in input tokens."""
    return (
        usage.input
        + usage.cache_read * price.read
        + usage.cache_write_5m * price.write_5m
        + usage.cache_write_1h * price.write_1h
    )
