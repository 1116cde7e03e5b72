"""Keeping prefixes alive by small requests, in a block that says so.

What decides is `core/planning/keeping.py`; what stands here is the driver: it holds the requests of the block in
memory, waits in a thread of its own until one is due, sends it and records it. A call of the user's hands in what it
was and goes on. A client of an event loop is asked in a task on that loop.
"""

from __future__ import annotations

import asyncio
import atexit
import threading
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import partial
from inspect import iscoroutinefunction
from math import inf
from typing import Any

from cachepoint._forks import Lock
from cachepoint.bedrock.blocks import in_block
from cachepoint.bedrock.environment import mode_in_force
from cachepoint.bedrock.pricing import price_of
from cachepoint.bedrock.settings import Settings
from cachepoint.bedrock.swallowed import deliver, forgive, swallow
from cachepoint.bedrock.wire import invoke_model
from cachepoint.bedrock.wire.dialect import Dialect
from cachepoint.bedrock.wire.refusals import refusal_in
from cachepoint.bedrock.wire.renewal import Renewal, renewal
from cachepoint.core.accounts.record import CallRecord, status_of
from cachepoint.core.exchange import Exchange
from cachepoint.core.planning.expectation import Said
from cachepoint.core.planning.keeping import Standing, due, verdict
from cachepoint.core.prompt.prompt import Prompt
from cachepoint.core.provider.prices import Cost
from cachepoint.core.provider.rules import TTL
from cachepoint.core.provider.usage import Usage
from cachepoint.core.traffic.boundaries import roles, step
from cachepoint.core.traffic.pool import Scope
from cachepoint.errors import ConfigurationError

TAG = "keep_alive"
"""The tag that a renewal's record has, with the value "1"."""
PREFIXES_KEPT = 2048
"""Of more prefixes than this, each with its request in memory, those used longest ago are let go: as many as a service
with seven calls a second has by the time that the first is due."""
_FILLER_TOKENS = 10
"""What a request has beyond the prefix that it renews, at most."""
_ARRIVED = 0.5
"""A renewal that reads less than this share of the prefix found another cache, or none."""
_SHORTEST_WAIT = 0.05
_FAILED = (
    "cachepoint: a request that was to keep a prefix alive failed with {}; nothing more is kept alive in this block"
)

_Key = tuple[Scope, bytes]
_Answer = tuple[Mapping[str, Any], bytes]


@dataclass(frozen=True)
class _Kept:
    """A prefix that may be kept: the call that used it last, and since when it waits for the next."""

    exchange: Exchange
    prompt: Prompt
    settings: Settings
    client: Any
    dialect: Dialect
    usage: Usage
    ttl: TTL
    visited: float
    used: float
    loop: asyncio.AbstractEventLoop | None = None
    renewed: int = 0

    @property
    def key(self) -> _Key:
        """The scope and the digest of the prefix."""
        return self.exchange.target.scope, self.exchange.sent.points[-1].digest

    @property
    def tokens(self) -> int:
        """How large the prefix is."""
        return self.usage.cache_read + self.usage.cache_write

    @property
    def due(self) -> float:
        """When it is to be renewed, in wall seconds."""
        return due(self.ttl, self.used)

    @property
    def standing(self) -> Standing:
        """What the core decides by."""
        prompt, view, named = self.prompt, self.exchange.view, roles(self.prompt)
        boundary = self.exchange.plan.checkpoints[-1].boundary
        said = Said(self.exchange.expected, prompt, named)
        seen = view.seen.get(prompt.boundaries[boundary].digest)
        over = said.decides(boundary, seen.visits if seen else 0) and boundary not in said.subjects
        returns = view.returns(step(named, prompt, boundary))
        told = self.exchange.expected
        return Standing(
            self.ttl, self.visited, self.used, tuple(0.0 for _ in returns) if over else returns,
            sure=told.goes_on, back_in=told.back_in if told.goes_on else None, renewed=self.renewed,
        )  # fmt: skip


class Keeping:
    """What is kept alive in a block; made by `keep_alive`.

    `sent` are the renewals so far and `spent_usd` what they cost.
    """

    def __init__(self, budget_usd: Decimal, at_most: int) -> None:
        self.sent = 0
        self.spent_usd = Decimal(0)
        self._budget = budget_usd
        self._at_most = at_most
        self._kept: dict[_Key, _Kept] = {}
        self._under_way: dict[_Key, Decimal] = {}
        self._tasks: set[Any] = set()
        self._output_needed = False
        self._closed = False
        self._lock = Lock(self._in_child)
        self._changed = threading.Event()
        self._thread: threading.Thread | None = None
        self._wakes_at = inf

    @property
    def next_due(self) -> float | None:
        """When the next renewal is to be considered, in wall seconds; None while there is nothing to keep."""
        with self._lock.held:
            return min((kept.due for kept in self._waiting()), default=None)

    def step(self, now: float | None = None) -> int:
        """Send the renewals that are due and pay; returns how many.

        The block's own thread does this by itself; a program on a clock of its own calls it. `now` is in wall seconds,
        by default those of the client's clock. Renewals of asynchronous clients are under way when this returns.
        """
        count = 0
        for kept in self._due(now):
            try:
                count += self._renew_if_it_pays(kept, kept.settings.now() if now is None else now)
            except Exception as problem:  # noqa: BLE001 - nobody asked for this request, so it must harm nobody
                swallow(problem, "keeping a prefix alive")
                self.close()
        return count

    def close(self) -> None:
        """Send nothing more, and let all requests go."""
        self._closed = True
        with self._lock.held:
            self._kept.clear()
        self._changed.set()
        atexit.unregister(self.close)

    def note(self, exchange: Exchange, settings: Settings, client: Any, dialect: Dialect) -> None:
        """A call was answered: its prefix may be kept from now on, in place of those that it goes on with."""
        record, prompt = exchange.record, exchange.prompt
        if (
            self._closed
            or record is None
            or record.usage is None
            or prompt is None
            or exchange.policy.mode == "observe"
        ):
            return
        kept = None
        cached = record.usage.cache_read + record.usage.cache_write
        if exchange.sent.points and cached and not exchange.expected.ends:
            awaits = iscoroutinefunction(getattr(client, "_make_api_call", client.converse))
            kept = _Kept(
                exchange, prompt, settings, client, dialect, record.usage, exchange.sent.points[-1].ttl,
                exchange.started, exchange.started, asyncio.get_running_loop() if awaits else None,
            )  # fmt: skip
        passed = {(exchange.target.scope, boundary.digest) for boundary in prompt.boundaries}
        with self._lock.held:
            for key in passed & self._kept.keys():
                del self._kept[key]
            if kept is not None:
                self._kept[kept.key] = kept
                if len(self._kept) > PREFIXES_KEPT:
                    del self._kept[next(iter(self._kept))]
                self._start()
                if kept.due < self._wakes_at:
                    self._changed.set()

    # -- waiting ----------------------------------------------------------------------------------

    def _in_child(self) -> None:
        """The keeping is the parent's, as its thread is."""
        self._closed = True
        self._kept.clear()
        self._under_way.clear()
        self._tasks.clear()
        self._changed, self._thread = threading.Event(), None
        atexit.unregister(self.close)

    def _start(self) -> None:
        if self._thread is None:
            # A daemon: it must not keep a program from ending, and is told when one does.
            self._thread = threading.Thread(target=self._run, name="cachepoint-keep-alive", daemon=True)
            atexit.register(self.close)
            self._thread.start()

    def _run(self) -> None:
        while not self._closed:
            self._changed.clear()
            with self._lock.held:
                first = min(self._waiting(), key=lambda kept: kept.due, default=None)
                self._wakes_at = first.due if first else inf
            self._changed.wait(max(first.due - first.settings.now(), _SHORTEST_WAIT) if first else None)
            self.step()

    def _waiting(self) -> list[_Kept]:
        return [kept for key, kept in self._kept.items() if key not in self._under_way]

    def _due(self, now: float | None) -> Iterator[_Kept]:
        """What is due, the most urgent first, each given to one who asks."""
        while not self._closed:
            with self._lock.held:
                found = [kept for kept in self._waiting() if kept.due <= (kept.settings.now() if now is None else now)]
                if not found:
                    return
                kept = min(found, key=lambda each: each.due)
                self._under_way[kept.key] = Decimal(0)
            yield kept

    # -- one renewal ------------------------------------------------------------------------------

    def _renew_if_it_pays(self, given: _Kept, now: float) -> bool:
        policy = given.exchange.policy
        if mode_in_force(policy).mode != policy.mode:  # CACHEPOINT_MODE was set since, as to stop what is not asked for
            return self._done(given, None)
        kept, found = _as_known(given, now), renewal(given.dialect.API, given.exchange.request)
        if kept is None or found is None:
            return self._done(given, None)
        amounts = _amounts(kept, found, now)
        if amounts is None:  # without a price there is no keeping to a budget
            return self._done(given, None)
        costs, saves = amounts
        decided = verdict(kept.standing, now, costs=float(costs), saves=float(saves), at_most=self._at_most)
        if decided != "renew" or not self._reserves(kept, costs):
            return self._done(given, kept if decided == "wait" else None)
        flow = self._renewal(kept, found, now)
        if kept.loop is None:
            self._done(given, _sent(kept.client, found, flow))
            return True
        return self._begins_in(kept.loop, given, found, flow)

    def _reserves(self, kept: _Kept, costs: Decimal) -> bool:
        """Whether the budget has room for a renewal, which is then kept for it."""
        with self._lock.held:
            if self._closed or self.spent_usd + sum(self._under_way.values()) + costs > self._budget:
                return False
            self._under_way[kept.key] = costs
            return True

    def _done(self, given: _Kept, kept: _Kept | None) -> bool:
        """A prefix was seen to: it is kept on as it is now, or let go, unless a call used it meanwhile."""
        with self._lock.held:
            self._under_way.pop(given.key, None)
            if self._kept.get(given.key) is given:
                del self._kept[given.key]
                if kept is not None and not self._closed:
                    self._kept[kept.key] = kept
        self._changed.set()
        return False

    def _begins_in(
        self, loop: asyncio.AbstractEventLoop, given: _Kept, found: Renewal, flow: Generator[Any, _Answer, _Kept | None]
    ) -> bool:
        async def renew() -> None:
            kept = None
            try:
                kept = await _sent_async(given.client, found, flow)
            except Exception as problem:  # noqa: BLE001 - nobody waits for this task
                swallow(problem, "keeping a prefix alive")
            finally:
                self._done(given, kept)

        task = renew()
        try:
            running = asyncio.run_coroutine_threadsafe(task, loop)
        except RuntimeError:  # the loop is closed, and its client with it
            task.close()
            return self._done(given, None)
        self._tasks.add(running)
        running.add_done_callback(self._tasks.discard)
        return True

    def _renewal(self, kept: _Kept, found: Renewal, now: float) -> Generator[Any, _Answer, _Kept | None]:
        """One renewal: yields requests, the cheapest first, and is sent the answer or thrown the error of each.

        Returns the prefix as it is then, None where it is not to be kept on.
        """
        began = time.monotonic()
        requests = [found.request] if found.cheaper is None or self._output_needed else [found.cheaper, found.request]
        for request in requests:
            try:
                response, raw = yield request
            except Exception as error:  # noqa: BLE001 - the service's, or the connection's
                if request is found.cheaper and refusal_in(error, kept.settings.store.key) is not None:
                    self._output_needed = True
                    continue
                self._record(kept, None, now, time.monotonic() - began, type(error).__name__)
                forgive(error, TAG, _FAILED.format(type(error).__name__))
                self.close()
                return None
            reported = response.get("usage") if found.operation == "converse" else invoke_model.reported(response, raw)
            usage = kept.dialect.usage(reported, kept.ttl)
            self._record(kept, usage, now, time.monotonic() - began)
            if usage is None:
                return None
            kept.settings.store.renewed(kept.exchange.target.scope, kept.exchange.sent, usage, now)
            if usage.cache_read < _ARRIVED * kept.tokens:
                return None
            return replace(kept, used=now, renewed=kept.renewed + 1)
        return None

    def _record(self, kept: _Kept, usage: Usage | None, now: float, seconds: float, error: str | None = None) -> None:
        target, exchange = kept.exchange.target, kept.exchange
        priced = None if usage is None else _priced(kept, usage, now)
        # Without caching there would have been no such call.
        cost = None if priced is None else replace(priced, uncached_usd=Decimal(0), saved_usd=-priced.usd)
        with self._lock.held:
            self.sent += 1
            # An answer that tells no usage was billed all the same: what was kept for it counts.
            untold = self._under_way.get(kept.key, Decimal(0)) if error is None else Decimal(0)
            self.spent_usd += cost.usd if cost else untold
        record = CallRecord(
            started=now, seconds=seconds, model=target.model, base_model=target.base_model, region=target.region,
            api=kept.dialect.API, mode=exchange.policy.mode, status=status_of(usage) if usage else None, usage=usage,
            cost=cost, checkpoints=exchange.plan.checkpoints, tags={**exchange.tags, TAG: "1"},
            session=exchange.tags.get("session"), error=error,
        )  # fmt: skip
        deliver(kept.settings.ledger, record)


_KEEPING: ContextVar[Keeping | None] = ContextVar("cachepoint_keeping", default=None)


@contextmanager
def keep_alive(*, budget_usd: float | Decimal | str, at_most: int = 1) -> Iterator[Keeping]:
    """Renew prefixes of the calls in the block by small requests, where that is expected to save more than it costs.

    A renewal reads a prefix shortly before its life ends. None is sent where other calls keep it alive, beyond
    `budget_usd`, or after the block; between two calls on one prefix there are `at_most`. Each is in the ledger with
    the tag `keep_alive`. The requests that may be renewed are held in memory for the block. An error of a renewal ends
    the keeping, and harms no call of yours. Raises ConfigurationError for a wrong value.
    """
    try:
        budget = Decimal(str(budget_usd))
    except ArithmeticError:
        budget = Decimal("nan")
    if not budget.is_finite() or budget <= 0:
        raise ConfigurationError(f"keep_alive(budget_usd={budget_usd!r}): give an amount in USD, more than 0")
    if type(at_most) is not int or at_most < 1:
        raise ConfigurationError(f"keep_alive(at_most={at_most!r}): give renewals between two calls, 1 or more")
    keeping = Keeping(budget, at_most)
    try:
        with in_block(_KEEPING, keeping):
            yield keeping
    finally:
        keeping.close()


def current_keeping() -> Keeping | None:
    """The block in force here."""
    return _KEEPING.get()


# -- sending, either way --------------------------------------------------------------------------


def _sent(client: Any, found: Renewal, flow: Generator[Any, _Answer, _Kept | None]) -> _Kept | None:
    take: Any = partial(next, flow)
    while True:
        try:
            request = take()
        except StopIteration as done:
            kept: _Kept | None = done.value
            return kept
        try:
            response = getattr(client, found.operation)(**request)
            take = partial(flow.send, (response, response["body"].read() if "body" in response else b""))
        except Exception as error:  # noqa: BLE001 - what it means is said where it was asked for
            take = partial(flow.throw, error)


async def _sent_async(client: Any, found: Renewal, flow: Generator[Any, _Answer, _Kept | None]) -> _Kept | None:
    take: Any = partial(next, flow)
    while True:
        try:
            request = take()
        except StopIteration as done:
            kept: _Kept | None = done.value
            return kept
        try:
            response = await getattr(client, found.operation)(**request)
            take = partial(flow.send, (response, await response["body"].read() if "body" in response else b""))
        except Exception as error:  # noqa: BLE001 - what it means is said where it was asked for
            take = partial(flow.throw, error)


# -- what is known and what it costs --------------------------------------------------------------


def _as_known(kept: _Kept, now: float) -> _Kept | None:
    """A prefix as the store knows it by now; None where it is not believed alive any more."""
    entry = _entries(kept, now).get(kept.key[1])
    if not kept.exchange.policy.learn:
        return kept
    if entry is None:
        return None
    if entry.used_at <= kept.used:
        return kept
    return replace(kept, visited=entry.used_at, used=entry.used_at, renewed=0)  # by a call that is not in this block


def _entries(kept: _Kept, now: float) -> Mapping[bytes, Any]:
    question = kept.exchange.question
    if question is None or not kept.exchange.policy.learn:
        return {}
    return kept.settings.store.peek(kept.exchange.target.scope, question.steps, now).entries


def _amounts(kept: _Kept, found: Renewal, now: float) -> tuple[Decimal, Decimal] | None:
    """What a renewal costs, and what a call saves that finds the prefix alive, in USD; None where no price is known.

    What other calls keep alive longer would be read in any case.
    """
    boundaries, entries = kept.prompt.boundaries, _entries(kept, now)
    longer = [each.tokens for each in boundaries if (e := entries.get(each.digest)) and e.used_at > kept.used]
    size = next(each.tokens for each in boundaries if each.digest == kept.key[1])
    warm = round(min(max(longer, default=0.0) / size, 1.0) * kept.tokens)
    beyond = kept.usage.input if found.whole else _FILLER_TOKENS
    cold = {f"cache_write_{kept.ttl}": kept.tokens - warm}
    renewed = _priced(kept, Usage(beyond, kept.tokens, output=1), now)
    anew, read = _priced(kept, Usage(cache_read=warm, **cold), now), _priced(kept, Usage(cache_read=kept.tokens), now)
    if renewed is None or anew is None or read is None:
        return None
    return renewed.usd, anew.usd - read.usd


def _priced(kept: _Kept, usage: Usage, now: float) -> Cost | None:
    target, tier = kept.exchange.target, kept.dialect.service_tier(kept.exchange.original)
    model = target.base_model or target.model
    return price_of(kept.settings.prices, model, usage, at=now, service_tier=tier, region=target.region)
