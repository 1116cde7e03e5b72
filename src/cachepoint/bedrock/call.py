"""One call of a wrapped client: asks the store, the clock and what is known of the model, for its `Exchange`.

The life of the call is `core/exchange.py`; what stands here is what that needs from outside. The sync and async clients
are thin: they answer what `departure` yields, send `request`, and say what happened. Nothing here may make the user's
call fail.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import copy_context
from functools import partial
from typing import Any, Protocol, TypeVar

from cachepoint._later import catch_up, later
from cachepoint.bedrock.counting import Count
from cachepoint.bedrock.expectations import current_expectation
from cachepoint.bedrock.fan_out import FanOut, Flight, Wait, current_fan_out, leading
from cachepoint.bedrock.keep_alive import current_keeping
from cachepoint.bedrock.listeners import take_listeners
from cachepoint.bedrock.opaque_models import base_model, learned
from cachepoint.bedrock.pricing import price_of
from cachepoint.bedrock.scopes import region_of, scope_of
from cachepoint.bedrock.settings import Settings
from cachepoint.bedrock.swallowed import deliver, swallow
from cachepoint.bedrock.tags import current_tags, with_request_metadata
from cachepoint.bedrock.warn import warn_once
from cachepoint.bedrock.wire.dialect import Dialect, Reporter, mapping
from cachepoint.bedrock.wire.failures import LOST, is_trouble
from cachepoint.bedrock.wire.refusals import refusal_in
from cachepoint.core.exchange import READING, Effects, Ending, Exchange, Fault, Question, Target
from cachepoint.core.provider.prices import Cost
from cachepoint.core.provider.usage import Usage, count
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


class _UsersMistakeError(Exception):
    """A mark of the user's that the service would refuse, told apart from what a store or a clock may raise."""

    def __init__(self, error: ConfigurationError) -> None:
        super().__init__()
        self.error = error


class Call:
    """One call; `departure` leads to `request`, which is what to send.

    Raises ConfigurationError for a request of which nothing but checkpoints is left where the service needs more.
    """

    def __init__(self, settings: Settings, client: Any, dialect: Dialect, request: Mapping[str, Any]) -> None:
        catch_up()  # what this one reads or writes may depend on how earlier ones ended
        self._settings = settings
        self._client = client
        self._dialect = dialect
        tags, policy = dict(current_tags()), settings.policy
        self._expected, self._keeping = current_expectation(), current_keeping()
        self._unread: list[Fault] = []
        if policy.mode in ("auto", "explicit"):
            request = self._sendable(request)
        tagged = self._safely("the tags", partial(with_request_metadata, request, policy.request_metadata, tags))
        self.exchange = Exchange(dialect, tagged or request, policy, tags)
        self._target = Target(str(request.get("modelId", "")), region=region_of(client))
        self._clock_started = time.monotonic()
        self._fan_out: FanOut | None = None
        self._flight: Flight | None = None
        self._denied: Waste | Refusals | None = None
        self._refused: BaseException | None = None
        self._retries = 0
        self._listeners = take_listeners()
        self._lock = threading.RLock()  # a stream may be read by one thread and left by another
        self._process = os.getpid()
        self._context = copy_context()
        self._is_left = False

    def _sendable(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """The request without checkpoints that stand for nothing, on which the service would refuse the rest.

        Raises ConfigurationError where nothing could be sent in their place.
        """
        try:
            mended, warnings = self._dialect.sendable(request)
        except ConfigurationError:
            raise
        except Exception as problem:  # noqa: BLE001 - what is in a form of its own is for the service to refuse
            self._unread.append(Fault(problem, "what is sendable"))
            return request
        for warning in warnings:
            warn_once(*warning)
        return mended

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
        exchange, now = self.exchange, self._settings.now()
        self._target = self._safely("looking the model up", self._look_up) or self._target
        key, hints = self._settings.store.key, self._settings.hints
        refusals = None
        if self._dialect.has_system_turns(exchange.original):
            known = self._target.rule is not None
            refusals = self._settings.store.peek(self._target.scope, (), now).refusals if known else NOTHING_REFUSED
        try:
            effects = exchange.read(self._target, key, now, hints, self._expected, refusals)
        except ConfigurationError as error:
            raise _UsersMistakeError(error) from None
        self._done(effects)
        if exchange.question is None:
            return
        self._plan(partial(self._ask, exchange.question, now), now)
        question = exchange.count_question()
        if question is not None and not (count := Count(self._client, question)).is_pointless:
            tokens = yield count
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
        off = settings.policy.mode == "off"
        base = base_model(model, settings.base_models, settings.control_client, may_ask=not off)
        rule = settings.rules.resolve(base) if base else None
        if off or rule is None:
            return Target(model, base, self._target.region)
        scope = scope_of(self._client, model, base, self._dialect.API)
        return Target(model, base, self._target.region, scope, rule, settings.table.rates_of(base or model))

    def _ask(self, question: Question, now: float) -> View:
        store, scope = self._settings.store, self._target.scope
        if question.remember:
            return store.visit(scope, question.steps, question.history, now, question.habit)
        return store.peek(scope, (), now)

    def _plan(self, ask: Callable[[], View], now: float) -> None:
        self._done(self.exchange.known(ask(), now))

    def _plan_anew(self) -> None:
        question, now = self.exchange.question, self._settings.now()
        steps = question.steps if question else ()
        self._plan(partial(self._settings.store.peek, self._target.scope, steps, now), now)

    def _waits(self) -> Iterator[Need]:
        """Leaders to wait for, one after the other, inside a `fan_out()` block; this call may become one."""
        self._fan_out, exchange = current_fan_out(), self.exchange
        if self._fan_out is None:
            return
        scope, outdated, until = self._target.scope.name, exchange.outdated, None
        while (joined := self._fan_out.join(scope, *exchange.shared_prefixes())) is not None:
            flight, leads = joined
            if leads:
                self._flight = flight
                return
            until = until or self._fan_out.deadline()  # of all its waits
            exchange.wait()
            yield Wait(flight, until)
            outdated = False
            self._plan_anew()
            if flight.in_vain:
                self._fan_out.pause(scope)  # a leader that has told nothing for so long is in trouble too
                return
            # The leader's entry is there, but not known of where nothing is learned.
            if not self._settings.policy.learn or time.monotonic() >= until:
                return
        if outdated:  # planned while a leader was under way that has landed since
            self._plan_anew()

    def under_way(self) -> AbstractContextManager[None]:
        """While `request` is sent: those who wait for this call go on at the first attempt that fails."""
        return nullcontext() if self._flight is None else leading(self._flight, self._client)

    # -- what happened ----------------------------------------------------------------------------

    def refused(self, error: BaseException) -> bool:
        """Whether the service refused the request and it is to be repeated: `request` is then as the user wrote it."""
        return bool(self._safely("healing a refusal", partial(self._heal, error)))

    def _heal(self, error: BaseException) -> bool:
        exchange = self.exchange
        if exchange.state not in ("sent", "began"):
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
        if type(error).__name__ == "ParamValidationError":
            self._unread.clear()  # boto3 cannot read the request either, and says why
        self._tell_unread()
        try:
            with self._own() as is_open:
                if is_open:
                    name = type(error).__name__
                    if isinstance(error, Exception):
                        retries = retries_of(getattr(error, "response", None))
                        end = partial(self.exchange.failed, lost=name in LOST, retries=retries)
                        self._take(partial(end, name, self._seconds))
                    else:
                        self._take(partial(self.exchange.cancelled, name, self._seconds))
        finally:
            self._fall(error)

    def received(self, response: _R) -> _R:
        """The response as it came, which says how often botocore tried."""
        self._retries = retries_of(response)
        return response

    def began(self) -> None:
        """The response began: what was written can be read, and those who wait for it go on after that."""
        self._tell_unread()
        try:
            with self._own() as is_open:
                if is_open and self.exchange.state == "sent":
                    self._refused = None
                    self._take(partial(self.exchange.began, self._retries))
        finally:
            self._land()

    def answered(self, reported: Mapping[str, Any] | None) -> dict[str, Any] | None:
        """The answer is complete; returns what the call tells (`promptCache`), None if nothing can be told."""
        self.began()
        with self._own() as is_open:
            if is_open:
                self._take(partial(self.exchange.answered, reported, self._seconds, self._price))
                if self._keeping is not None:
                    keep = partial(self._keeping.note, self.exchange, self._settings, self._client, self._dialect)
                    self._safely("keeping a prefix alive", keep)
            record = self.exchange.record
        return self._safely("the contract", record.contract) if record else None

    def heard(self, reported: Mapping[str, Any]) -> None:
        """A part of the usage came, in a stream that may never come to its end."""
        with self._own() as is_open:
            if is_open:
                self._take(partial(self.exchange.heard, reported))

    def ended(self, how: Ending, error: str, seconds: float | None = None) -> None:
        """The response did not come to its end; `seconds` is how long the call took, by default until now."""
        taken = self._seconds if seconds is None else seconds
        with self._own() as is_open:
            if is_open:
                self._take(partial(self.exchange.ended, how, error, taken, self._price))

    def broke(self, error: BaseException) -> BaseException:
        """Reading the response raised this; gives what to raise, as `failure` does."""
        if self.exchange.state == "refused":
            raised = self.failure(error) if isinstance(error, Exception) else error
            self.failed(raised)
            return raised
        self._refused = None
        self.ended("cut" if isinstance(error, Exception) else "cancelled", type(error).__name__)
        return error

    @contextmanager
    def repeated(self) -> Iterator[None]:
        """While a request is repeated that was refused by the first event of its stream."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - it is raised, or what came before it
            self.refused(error)  # which it can be, but is not repeated twice
            raised = self.failure(error)
            self.failed(raised)
            raise raised  # noqa: B904 - the error itself, or that of before
        except BaseException as error:
            self.failed(error)
            raise
        self.began()

    def abandoned(self) -> None:
        """The response was left before its end. A finaliser may say so, so this is settled later, in its context."""
        if not (self.exchange.over or self._is_left):
            self._is_left = True
            later(partial(self._context.run, self.ended, "abandoned", ABANDONED, self._seconds))

    def reporter(self) -> Reporter:
        """What the events of this call's stream pass through."""
        passed = self._dialect.reporter(self.answered, self.heard)
        return lambda event: self._safely("reading an event", partial(passed, event)) or event

    @contextmanager
    def reading(self) -> Iterator[None]:
        """While the body of a response is read; a failure in it is recorded."""
        self.began()
        try:
            yield
        except BaseException as error:
            self.broke(error)
            raise

    @contextmanager
    def _own(self) -> Iterator[bool]:
        """No other thread settles it meanwhile; gives whether there is anything to settle.

        In a process forked off meanwhile there is not: the call is its parent's, of which a thread may have the lock.
        """
        if os.getpid() != self._process:
            yield False
            return
        with self._lock:
            yield not self.exchange.over

    def _land(self) -> None:
        if self._flight is not None:
            self._flight.release()

    def _fall(self, error: BaseException) -> None:
        if not isinstance(error, Exception):  # nobody wants the answer any more, which says nothing of the service
            self._land()
        elif self._flight is not None:
            self._flight.fail()
        elif self._fan_out is not None and is_trouble(error):
            self._fan_out.pause(self._target.scope.name)

    # -- parts ------------------------------------------------------------------------------------

    @property
    def _seconds(self) -> float:
        return time.monotonic() - self._clock_started

    def _price(self, usage: Usage) -> Cost | None:
        tier = self._dialect.service_tier(self.exchange.original)
        target, at = self._target, self.exchange.started
        # The control plane may have answered while the call was under way.
        model = target.base_model or learned(target.model) or target.model
        return price_of(self._settings.prices, model, usage, at=at, service_tier=tier, region=target.region)

    def _take(self, step: Callable[[], Effects]) -> bool:
        """Take a step of the call and do what it leaves to do; whether the store learned all of it."""
        effects = self._safely("a step of the call", step)
        return effects is not None and self._done(effects)

    def _done(self, effects: Effects) -> bool:
        """Do what a step leaves to do; whether the store learned all of it."""
        for fault in effects.faults:
            if fault.where == READING:
                self._unread.append(fault)
            else:
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
            for listener in self._listeners:
                listener.tell(self.exchange.record)
        return learned

    def _tell_unread(self) -> None:
        """Tell of faults in reading the request, once it is known that they are not the request's."""
        while self._unread:
            swallow(*self._unread.pop())

    def _safely(self, name: str, part: Callable[[], _R]) -> _R | None:
        try:
            return part()
        except Exception as problem:  # noqa: BLE001 - caching must never make a call fail
            swallow(problem, name)
            return None


def retries_of(response: object) -> int:
    """How many attempts botocore made before the last, by an answer or an error's `response`; 0 if unsaid."""
    return count(mapping(mapping(response).get("ResponseMetadata")).get("RetryAttempts")) or 0
