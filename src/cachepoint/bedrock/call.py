"""One call of a wrapped client: asks the store, the clock and what is known of the model, for its `Exchange`.

The life of the call is `core/exchange.py`; what stands here is what that needs from outside. The sync and async clients
are thin: they answer what `departure` yields, send `request`, and say what happened. Nothing here may make the user's
call fail.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol, TypeVar

from cachepoint.bedrock.expectations import current_expectation
from cachepoint.bedrock.fan_out import Flight, current_fan_out
from cachepoint.bedrock.keep_alive import current_keeping
from cachepoint.bedrock.opaque_models import base_model, learned
from cachepoint.bedrock.settings import Settings, scope_of
from cachepoint.bedrock.swallowed import deliver, forgive, swallow
from cachepoint.bedrock.tags import current_tags, with_request_metadata
from cachepoint.bedrock.warn import warn_once
from cachepoint.bedrock.wire.dialect import Dialect, Reporter
from cachepoint.bedrock.wire.refusals import refusal_in
from cachepoint.catalogue.table import rates_of
from cachepoint.core.exchange import Effects, Ending, Exchange, Question, Target
from cachepoint.core.provider.prices import Cost
from cachepoint.core.provider.usage import Usage
from cachepoint.core.traffic.refusals import NOTHING_REFUSED, Refusals
from cachepoint.core.traffic.view import View
from cachepoint.core.traffic.waste import Waste
from cachepoint.errors import ConfigurationError

ABANDONED = "abandoned"
_R = TypeVar("_R")


class Need(Protocol):
    """Something a call has to have before it goes out; either way of waiting gives the same answer."""

    def wait(self) -> Any:
        """Block this thread until it is there."""

    async def wait_async(self) -> Any:
        """The same on the event loop."""


class _Count:
    """How many tokens the service counts; None where it does not, for it is a help and no need."""

    def __init__(self, client: Any, question: Mapping[str, Any]) -> None:
        self._client, self._question = client, question

    def wait(self) -> int | None:
        try:
            return _counted(self._client.count_tokens(**self._question))
        except Exception as error:  # noqa: BLE001 - some models and policies do not have CountTokens
            forgive(error, "CountTokens")
            return None

    async def wait_async(self) -> int | None:
        try:
            return _counted(await self._client.count_tokens(**self._question))
        except Exception as error:  # noqa: BLE001 - some models and policies do not have CountTokens
            forgive(error, "CountTokens")
            return None


class _UsersMistakeError(Exception):
    """A mark of the user's that the service would refuse, told apart from what a store or a clock may raise."""

    def __init__(self, error: ConfigurationError) -> None:
        super().__init__()
        self.error = error


def _counted(answer: Mapping[str, Any]) -> int:
    tokens: int = answer["inputTokens"]
    return tokens


LOST = frozenset(("ReadTimeoutError", "ConnectionClosedError", "HTTPClientError", "ServerDisconnectedError"))
"""Errors of botocore and aiohttp after which nobody knows whether the service served the request, and billed it."""


class Call:
    """One call; `departure` leads to `request`, which is what to send."""

    def __init__(self, settings: Settings, client: Any, dialect: Dialect, request: Mapping[str, Any]) -> None:
        self._settings = settings
        self._client = client
        self._dialect = dialect
        tags, policy = dict(current_tags()), settings.policy
        self._expected, self._keeping = current_expectation(), current_keeping()
        self.exchange = Exchange(dialect, with_request_metadata(request, policy.request_metadata, tags), policy, tags)
        self._target = Target(str(request.get("modelId", "")), region=_region_of(client))
        self._clock_started = time.monotonic()
        self._flight: Flight | None = None
        self._denied: Waste | Refusals | None = None
        self._refused: BaseException | None = None
        # A stream may be read and closed by two threads, and closed again when it is collected.
        self._lock = threading.RLock()

    @property
    def request(self) -> dict[str, Any]:
        """What to send."""
        return self.exchange.request

    # -- before sending ---------------------------------------------------------------------------

    def departure(self) -> Generator[Need, Any, None]:
        """Read, plan and hand over the request; yields what to wait for, and is sent what came of it.

        Raises ConfigurationError for a mark of the user's that the service would refuse.
        """
        try:
            yield from self._departure()
        except _UsersMistakeError as mistake:
            raise mistake.error from None
        except Exception as problem:  # noqa: BLE001 - caching must never make a call fail
            swallow(problem, "departure")
            self._take(self.exchange.leave_as_written)
        self._send()

    def _departure(self) -> Generator[Need, Any, None]:
        exchange, now = self.exchange, self._settings.clock()
        self._target = self._safely("looking the model up", self._look_up) or self._target
        key, hints = self._settings.store.key, self._settings.hints
        refusals = NOTHING_REFUSED
        if self._target.rule is not None and self._dialect.has_system_turns(exchange.original):
            refusals = self._settings.store.peek(self._target.scope, (), now).refusals
        try:
            effects = exchange.read(self._target, key, now, hints, self._expected, refusals)
        except ConfigurationError as error:
            raise _UsersMistakeError(error) from None
        self._done(effects)
        if exchange.question is None:
            return
        self._plan(partial(self._ask, exchange.question, now), now)
        question = exchange.count_question()
        if question is not None:
            tokens = yield _Count(self._client, question)
            if tokens is not None:
                self._done(exchange.counted(tokens))
        yield from self._waits()

    def _send(self) -> None:
        """Hand the planned request over, planned anew as long as the store does not cover what it may cost."""
        while not self._take(self.exchange.send):
            denied, self._denied = self._denied, None
            if denied is None:  # what the store was not taught it would not expect
                self._take(self.exchange.leave_as_written)
                self._take(self.exchange.send)
                return
            self._take(partial(self.exchange.denied, denied))

    def _look_up(self) -> Target:
        settings, model = self._settings, self._target.model
        base = base_model(model, settings.base_models, settings.control_client)
        rule = settings.rules.resolve(base) if base else None
        if settings.policy.mode == "off" or rule is None:
            return Target(model, base, self._target.region)
        scope = scope_of(self._client, model, base, self._dialect.API)
        return Target(model, base, self._target.region, scope, rule, rates_of(base or model))

    def _ask(self, question: Question, now: float) -> View:
        store, scope = self._settings.store, self._target.scope
        if question.remember:
            return store.visit(scope, question.steps, question.history, now, question.habit)
        return store.peek(scope, (), now)

    def _plan(self, ask: Callable[[], View], now: float) -> None:
        self._done(self.exchange.known(ask(), now))

    def _plan_anew(self) -> None:
        question, now = self.exchange.question, self._settings.clock()
        steps = question.steps if question else ()
        self._plan(partial(self._settings.store.peek, self._target.scope, steps, now), now)

    def _waits(self) -> Iterator[Need]:
        """Leaders to wait for, one after the other, inside a `fan_out()` block; this call may become one."""
        fan_out, exchange = current_fan_out(), self.exchange
        outdated = exchange.outdated
        while fan_out is not None:
            joined = fan_out.join(self._target.scope.name, *exchange.shared_prefixes())
            if joined is None:
                if outdated:  # planned while a leader was under way that has landed since
                    self._plan_anew()
                return
            flight, leads = joined
            if leads:
                self._flight = flight
                return
            exchange.wait()
            yield flight
            outdated = False
            self._plan_anew()
            if not self._settings.policy.learn:  # the leader's entry is not known of, but it is there
                return

    # -- what happened ----------------------------------------------------------------------------

    def refused(self, error: BaseException) -> bool:
        """Whether the service refused the request and it is to be repeated: `request` is then as the user wrote it."""
        return bool(self._safely("healing a refusal", partial(self._heal, error)))

    def _heal(self, error: BaseException) -> bool:
        exchange = self.exchange
        if exchange.state != "sent":
            return False
        refusal = refusal_in(error, self._settings.store.key)
        if refusal is None:
            return False
        self._done(exchange.refused(refusal))
        if not exchange.can_repeat:
            return False
        self._done(exchange.repeat())
        self._refused = error
        return True

    def failure(self, error: Exception) -> Exception:
        """What to raise for an error: where the repeat was refused too the refusal before it, which is the user's own.

        What else a repeat fails with is what the request as the user wrote it would have failed with.
        """
        refused, self._refused = self._refused, None
        if refused is None or error is refused:
            return error
        if self.exchange.state == "refused" and isinstance(refused, Exception):
            return refused
        error.__cause__ = refused
        return error

    def failed(self, error: BaseException) -> None:
        """The call failed before its response began."""
        self._refused = None
        try:
            with self._lock:
                if not self.exchange.over:
                    name = type(error).__name__
                    if isinstance(error, Exception):
                        end = partial(self.exchange.failed, lost=name in LOST)
                        self._take(partial(end, name, self._seconds))
                    else:
                        self._take(partial(self.exchange.cancelled, name, self._seconds))
        finally:
            self._land()

    def began(self) -> None:
        """The response began: what was written can be read, and those who wait for it go on after that."""
        try:
            with self._lock:
                if self.exchange.state == "sent":
                    self._refused = None
                    self._take(self.exchange.began)
        finally:
            self._land()

    def answered(self, reported: Mapping[str, Any] | None) -> dict[str, Any] | None:
        """The answer is complete; returns what the call tells (`promptCache`), None if nothing can be told."""
        self.began()
        with self._lock:
            if not self.exchange.over:
                self._take(partial(self.exchange.answered, reported, self._seconds, self._price))
                if self._keeping is not None:
                    keep = partial(self._keeping.note, self.exchange, self._settings, self._client, self._dialect)
                    self._safely("keeping a prefix alive", keep)
            record = self.exchange.record
        return self._safely("the contract", record.contract) if record else None

    def heard(self, reported: Mapping[str, Any]) -> None:
        """A part of the usage came, in a stream that may never come to its end."""
        with self._lock:
            if not self.exchange.over:
                self._take(partial(self.exchange.heard, reported))

    def ended(self, how: Ending, error: str) -> None:
        """The response did not come to its end."""
        with self._lock:
            if not self.exchange.over:
                self._take(partial(self.exchange.ended, how, error, self._seconds))

    def broke(self, error: BaseException) -> None:
        """Reading the response raised this."""
        self.ended("cut" if isinstance(error, Exception) else "cancelled", type(error).__name__)

    def abandoned(self) -> None:
        """The response was left before its end."""
        self.ended("abandoned", ABANDONED)

    def reporter(self) -> Reporter:
        """What the events of this call's stream pass through."""
        return self._dialect.reporter(self.answered, self.heard)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """While the body of a response is read; a failure in it is recorded."""
        self.began()
        try:
            yield
        except BaseException as error:
            self.broke(error)
            raise

    def _land(self) -> None:
        if self._flight is not None:
            self._flight.release()

    # -- parts ------------------------------------------------------------------------------------

    @property
    def _seconds(self) -> float:
        return time.monotonic() - self._clock_started

    def _price(self, usage: Usage) -> Cost | None:
        tier = self._dialect.service_tier(self.exchange.original)
        target, at = self._target, self.exchange.started
        # The control plane may have answered while the call was under way.
        model = target.base_model or learned(target.model) or target.model
        return self._settings.prices.price(model, usage, at=at, service_tier=tier, region=target.region)

    def _take(self, step: Callable[[], Effects]) -> bool:
        """Take a step of the call and do what it leaves to do; whether the store learned all of it."""
        effects = self._safely("a step of the call", step)
        return effects is not None and self._done(effects)

    def _done(self, effects: Effects) -> bool:
        """Do what a step leaves to do; whether the store learned all of it."""
        for fault in effects.faults:
            swallow(fault.problem, fault.where)
        for warning in effects.warnings:
            warn_once(*warning)
        learned = True
        for lesson in effects.lessons:
            try:
                if (denied := lesson.teach(self._settings.store)) is not None:
                    self._denied, learned = denied, False
                    break  # what else was to be learned of a request that does not go out
            except Exception as problem:  # noqa: BLE001 - a store that fails must not make the call fail
                swallow(problem, f"the store's {lesson.what}")
                learned = False
        if self.exchange.over and self.exchange.record is not None:
            deliver(self._settings.ledger, self.exchange.record)
        return learned

    def _safely(self, name: str, part: Callable[[], _R]) -> _R | None:
        try:
            return part()
        except Exception as problem:  # noqa: BLE001 - caching must never make a call fail
            swallow(problem, name)
            return None


def _region_of(client: Any) -> str | None:
    return getattr(getattr(client, "meta", None), "region_name", None)
