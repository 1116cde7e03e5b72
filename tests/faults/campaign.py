"""The fault campaign: the same calls, with the same fault, by the plain client and by the wrapped one.

Each case is a few requests of one application, one way of calling, and one thing that goes wrong at one of the calls.
It is made twice, on an emulator each, and what is promised is what the plain client had: no call of the wrapped one
fails that the plain one got through, none is sent more than once more, and the ledger has the bill over all usage that
arrived.
"""

from __future__ import annotations

import asyncio
import logging
import time
import warnings
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from botocore.config import Config
from botocore.exceptions import ClientError
from faults.ways import TO_THE_END, AsyncLocal, Way

import cachepoint
from cachepoint.core.accounts.record import CallRecord
from cachepoint.core.provider.rules import Section
from cachepoint.emulator import BedrockEmulator, BillLine, Fault, Options
from cachepoint.store import MemoryStore

Json = dict[str, Any]
LONGEST_WAIT = 10.0
"""Seconds that a call may take on a busy machine: what is promised is that none waits for anything but the service."""
_ILLEGAL = {f"{name} {name}" for name in ("ValidationException", "AccessDeniedException")}
_MOST_SENT_AGAIN = 5
"""Times that a case may find out which of three sections and a TTL is refused."""


@dataclass(frozen=True)
class Trouble:
    """What goes wrong: in the service, at the caller's or in what the user gave cachepoint.

    `fault` is the service's, at the call `at`; so are `refused` checkpoints (section and words), from that call on.
    `events` is how many events of a stream are read; `await_` the await at which the call is cancelled. `options` are
    what the wrapped client is given that fails.
    """

    name: str
    at: int = 0
    fault: Fault | None = None
    times: int = 1
    refused: tuple[Section, str] | None = None
    evicted: bool = False
    events: int = TO_THE_END
    await_: int | None = None
    jump: float = 0.0
    options: Callable[[], Mapping[str, Any]] = dict


@dataclass(frozen=True, repr=False)
class Case:
    """One run of the campaign."""

    way: Way
    requests: Sequence[Json]
    trouble: Trouble

    def __repr__(self) -> str:
        """Without the requests' texts, which fill pages."""
        return f"{self.way.name} of {self.requests[0]['modelId']} x {len(self.requests)}: {self.trouble}"

    def _repr_pretty_(self, printer: Any, _: bool) -> None:
        printer.text(repr(self))


@dataclass(frozen=True)
class Ended:
    """How calls ended: the class and code of every error."""

    errors: tuple[str, ...]
    seconds: float


@dataclass
class Counts:
    """What a campaign did, by trouble."""

    cases: Counter[str] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)
    failed_plain: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    again: Counter[str] = field(default_factory=Counter)
    billed: Counter[str] = field(default_factory=Counter)

    def table(self) -> Iterator[str]:
        """The counts, a line for each trouble and the sum."""
        row = "{:32} {:>6} {:>6} {:>12} {:>8} {:>6} {:>7}".format
        columns = (self.cases, self.calls, self.failed_plain, self.failed, self.again, self.billed)
        yield row("trouble", "cases", "calls", "plain fails", "wrapped", "again", "billed")
        for name in sorted(self.cases):
            yield row(name, *(column[name] for column in columns))
        yield row("all", *(column.total() for column in columns))


COUNTS = Counts()


class Service:
    """An emulator of one client's own, in this process."""

    def __init__(self) -> None:
        self.now = 1_790_000_000.0
        self.emulator = BedrockEmulator(clock=lambda: self.now, options=Options(strict_blanks=False, serve_ended=True))
        self.client = self.emulator.local_client(config=Config(retries={"total_max_attempts": 1}))

    def prepare(self, trouble: Trouble) -> None:
        """Let the trouble come."""
        if trouble.fault is not None:
            self.emulator.fail_next(trouble.fault, trouble.times)
        if trouble.refused is not None:
            section, words = trouble.refused
            self.emulator.refuse_checkpoints(section, message=words)
        if trouble.evicted:
            self.emulator.evict()
        self.now += trouble.jump

    @property
    def arrived(self) -> list[BillLine]:
        """What was served and reached its caller."""
        return [line for line in self.emulator.bill().lines if line.call.delivered]


def play(case: Case) -> None:
    """Make a case's calls by both clients, and compare."""
    plain, ours = Service(), Service()
    name, trouble = case.trouble.name, case.trouble
    store, ledger = MemoryStore(), cachepoint.CacheLedger()
    options: dict[str, Any] = {"store": store, "ledger": ledger, "clock": lambda: ours.now, **trouble.options()}
    with quiet():
        if case.way.awaits and not case.way.framework:
            plain_client: Any = AsyncLocal(plain.client)
            wrapped: Any = cachepoint.wrap_async(AsyncLocal(ours.client), **options)
        else:
            plain_client, wrapped = plain.client, cachepoint.wrap(ours.client, **options)
        COUNTS.cases[name] += 1
        for number, request in enumerate(case.requests):
            expected = _made(case, number, plain, plain_client, request)
            found = _made(case, number, ours, wrapped, request)
            COUNTS.calls[name] += case.way.calls
            COUNTS.failed_plain[name] += len(expected.errors)
            COUNTS.failed[name] += len(found.errors)
            assert len(found.errors) <= len(expected.errors), f"call {number}: {found.errors} for {expected.errors}"
            # A mark of the user's where none may be is put right, and what goes wrong then is something else.
            if _ILLEGAL.isdisjoint(expected.errors):
                assert {*found.errors} <= {*expected.errors}, f"call {number}: {found.errors} for {expected.errors}"
            assert found.seconds < LONGEST_WAIT, f"call {number} took {found.seconds:.1f} s"
    sent, sent_plain = len(ours.emulator.requests), len(plain.emulator.requests)
    COUNTS.again[name] += max(sent - sent_plain, 0)
    assert sent <= sent_plain + _MOST_SENT_AGAIN * case.way.calls
    COUNTS.billed[name] += _compare_with_the_bill(ours, case, wrapped.ledger.records)


def _made(case: Case, number: int, service: Service, client: Any, request: Json) -> Ended:
    trouble = case.trouble
    if number == trouble.at:
        service.prepare(trouble)
    service.now += 7.0
    events = trouble.events if number == trouble.at else TO_THE_END
    await_ = trouble.await_ if number == trouble.at else None
    began, errors = time.monotonic(), []
    try:
        if not case.way.awaits:
            case.way.make(client, request, events)
        elif await_ is None or case.way.framework:
            asyncio.run(case.way.make(client, request, events))
        else:
            asyncio.run(_cancelled(case.way.make(client, request, events), await_))
    except BaseExceptionGroup as problems:
        errors = [_named(problem) for problem in problems.exceptions]
    except Exception as problem:  # noqa: BLE001 - any error is compared with the plain client's
        errors = [_named(problem)]
    return Ended(tuple(errors), time.monotonic() - began)


def _named(problem: BaseException) -> str:
    code = problem.response["Error"].get("Code") if isinstance(problem, ClientError) else ""
    return f"{type(problem).__name__} {code}".strip()


class _CancelledAt:
    """A coroutine that is run as far as its n-th await, and cancelled there."""

    def __init__(self, call: Any, await_: int) -> None:
        self._call, self._await = call, await_

    def __await__(self) -> Generator[Any, Any, None]:
        with suppress(StopIteration, asyncio.CancelledError):
            for _ in range(self._await):
                yield self._call.send(None)
            self._call.throw(asyncio.CancelledError())
        self._call.close()


async def _cancelled(call: Any, await_: int) -> None:
    await _CancelledAt(call, await_)


def _compare_with_the_bill(service: Service, case: Case, records: Sequence[CallRecord]) -> int:
    """Every call is recorded once, and as it is billed; how many were.

    What was cut, left or cancelled may be billed without its record telling so; everything else is in both.
    """
    assert len(records) == len(case.requests) * case.way.calls
    lines = service.arrived
    whole = [record for record in records if record.error is None and record.usage is not None and not record.at_least]
    for record in whole:
        billed = next((line for line in lines if line.usage == record.usage), None)
        assert billed is not None, f"{record.usage} was recorded and not billed"
        lines.remove(billed)
        assert None in (record.cost, billed.usd) or record.cost.usd == billed.usd  # type: ignore[union-attr]
    told = sum(record.at_least or record.error is not None for record in records)
    assert len(lines) <= told, f"{len(lines)} calls were billed, arrived and are not recorded"
    return len(whole)


@contextmanager
def quiet() -> Iterator[None]:
    """What cachepoint warns of here is meant, and what LangChain logs; other warnings are errors, as in every test."""
    langchain = logging.getLogger("langchain_core.callbacks.manager")
    langchain.disabled = True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", cachepoint.errors.CachepointWarning)
        yield
    langchain.disabled = False
