"""Every call exactly once: bounded records, and running sums that survive their eviction."""

from __future__ import annotations

import sys
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from inspect import iscoroutinefunction
from typing import Any, Literal

from cachepoint._forks import Lock
from cachepoint._later import catch_up
from cachepoint.core.accounts.record import CallRecord
from cachepoint.core.accounts.sharing_out import spread
from cachepoint.core.accounts.totals import Totals, table
from cachepoint.errors import ConfigurationError

RECORDS_KEPT = 10_000
KEYS_KEPT = 1_000
VALUES_KEPT = 10_000
"""Values told apart of one key …"""
SUMS_KEPT = 20_000
"""… and of all keys but the model together, each a kilobyte."""
OTHER = "(other)"
"""Where the sums of further values go, and under any further key those of all calls that have one."""

Sink = Callable[[CallRecord], None]


class CacheLedger:
    """Collects the record of every call; safe to share between threads.

    Keeps the newest `keep` records; `totals()` and `by(key)` sum over all calls ever recorded. A child process that
    is forked starts with none: those before are its parent's.
    `on_call` is a function, or several, called with each record outside the lock, such as
    `cachepoint.sinks.JsonLines`; what one raises spoils neither the call nor the others. It is called
    at the end of a call, on the event loop if that is where the call runs: a slow one belongs into
    `cachepoint.sinks.InBackground`.
    Raises ConfigurationError where `keep` is no whole number from 0 up, or a sink cannot be called.
    """

    def __init__(self, keep: int = RECORDS_KEPT, on_call: Sink | Sequence[Sink] | None = None) -> None:
        given: Any = keep
        if not isinstance(given, int) or isinstance(given, bool) or not 0 <= given <= sys.maxsize:
            raise ConfigurationError(f"CacheLedger(keep={given!r:.80}): use a whole number, 0 or more")
        self._lock = Lock(self._in_child)
        self._keep = keep
        self._sinks = _sinks(on_call)
        self._spent_before = Decimal(0)
        self._begin()

    def _in_child(self) -> None:
        self._spent_before += self._totals.cost.usd
        self._begin()

    def _begin(self) -> None:
        self._adding = False
        self._waiting: deque[CallRecord] = deque()
        self._records: deque[CallRecord] = deque(maxlen=self._keep)
        self._totals = Totals()
        self._by: dict[str, OrderedDict[str, Totals]] = {}
        self._sums = 0
        self._further = Totals()
        self._merged = 0

    @property
    def records(self) -> tuple[CallRecord, ...]:
        """The newest records, oldest first."""
        catch_up()
        with self._lock.held:
            return tuple(self._records)

    def add(self, record: CallRecord) -> None:
        """Record a call; what a sink raises is raised once every sink has had the call."""
        with self._lock.held:
            self._waiting.append(record)
            # A signal handler may make a call in the middle of this.
            if not self._adding:
                self._adding = True
                try:
                    while self._waiting:
                        self._sum(self._waiting.popleft())
                finally:
                    self._adding = False
        failures = []
        for sink in self._sinks:
            try:
                sink(record)
            except Exception as failure:  # noqa: BLE001 - raised below, after the other sinks
                failures.append(failure)
        if failures:
            raise failures[0]

    def _sum(self, record: CallRecord) -> None:
        self._records.append(record)
        self._totals = self._totals.plus(record)
        further = merged = False
        for key, value in _keys(record):
            if key not in self._by and len(self._by) >= KEYS_KEPT:
                further = True
                continue
            sums = self._by.setdefault(key, OrderedDict())
            name = value if value in sums or not self._is_full(key, sums) else OTHER
            merged |= name != value
            self._sums += key != "model" and name not in sums
            sums[name] = sums.get(name, Totals()).plus(record)
        if further:
            self._further = self._further.plus(record)
        self._merged += further or merged

    def _is_full(self, key: str, sums: Mapping[str, Totals]) -> bool:
        return len(sums) >= VALUES_KEPT or (key != "model" and self._sums >= SUMS_KEPT)

    def totals(self) -> Totals:
        """Sums over all calls."""
        catch_up()
        with self._lock.held:
            return self._totals

    @property
    def spent(self) -> Decimal:
        """What all calls cost, in USD, for who keeps to a budget: with what its parent's had cost by the fork."""
        return self._spent_before + self.totals().cost.usd

    def summary(self) -> str:
        """A table to print: a line for each model and the sum, then the misses, and what was not told apart."""
        shown = table(self.totals(), self.by("model"))
        beyond = f"\n{self._merged} with more tags than are told apart, summed as {OTHER}"
        return shown + beyond if self._merged else shown

    def by(self, key: str, shared: Literal["pro_rata"] | None = None) -> dict[str, Totals]:
        """Sums by the values of `model`, `session` or a tag; empty for a key never seen.

        Of too many values to tell apart, further ones are summed as "(other)"; by a key that is one too many, all
        calls that have any such key.

        `tag` sums by the tags that have no value; a call counts under each of its own, so that these
        sums cannot be shared out.

        As billed, the call that writes a prefix pays for all who read it. `shared="pro_rata"` spreads
        the cost of each write evenly over the call that wrote and those that read. Usage stays where it
        arose, and the sum over all values and the calls without one stays the bill. Only writes among
        the `records` kept are spread.
        """
        if shared not in (None, "pro_rata") or (shared and key == "tag"):
            raise ConfigurationError(f'by({key!r}, shared={shared!r}): use "pro_rata" with a key that has values')
        catch_up()
        with self._lock.held:
            further = {OTHER: self._further} if self._further.calls else {}
            sums = dict(self._by.get(key, further))
            records = tuple(self._records) if shared else ()
        shifts = spread(
            [
                (_value(record, key, sums), record.prefix, record.cost.write_usd if record.cost else Decimal(0))
                for record in sorted(records, key=lambda record: record.started)
            ]
        )
        for value, usd in shifts.items():
            if value is not None:
                sums[value] = replace(sums[value], cost=sums[value].cost.moved(usd))
        return sums


def _sinks(given: Any) -> tuple[Sink, ...]:
    several = isinstance(given, Iterable) and not callable(given) and not isinstance(given, str | bytes | Mapping)
    sinks = () if given is None else tuple(given) if several else (given,)
    # A class would make something of each record, and a coroutine would never run.
    if not all(callable(sink) and not isinstance(sink, type) and not iscoroutinefunction(sink) for sink in sinks):
        raise ConfigurationError(f"on_call={given!r:.80}: pass a function that takes a record, or a list of such")
    return sinks


def _keys(record: CallRecord) -> Iterator[tuple[str, str]]:
    yield "model", record.base_model or record.model
    if record.session is not None:
        yield "session", record.session
    for name, value in record.tags.items():
        if not value:
            yield "tag", name
        elif name not in ("model", "session"):
            yield name, value


def _value(record: CallRecord, key: str, sums: Mapping[str, Totals]) -> str | None:
    value = next((value for name, value in _keys(record) if name == key), None)
    return value if value in sums else OTHER if value is not None and OTHER in sums else None
