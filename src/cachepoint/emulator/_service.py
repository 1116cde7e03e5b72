"""Bedrock Runtime without a transport: a request comes in as path, headers and body, and is answered or refused.

The order of a call: a fault planned for it, its body, its model, what the service refuses, then the cache, the
reply and the bill. What it wrote can be read from `Delivery.begin` on, when its response begins (docs/rules.md, R3.9).
"""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

from cachepoint._forks import Lock
from cachepoint.core.provider.cache_model import CacheModel, CacheRequest, Served
from cachepoint.core.provider.rules import ModelRule, Rules, Section, parse_model_id
from cachepoint.core.provider.usage import Usage
from cachepoint.emulator._answering.eventstream import exception_frame
from cachepoint.emulator._answering.wire import (
    Metrics,
    Written,
    logged_answer,
    write_answer,
    write_count,
    write_error,
)
from cachepoint.emulator._bill import Bill, ServedCall, bill_of
from cachepoint.emulator._calls import Calls
from cachepoint.emulator._checks.anthropic_messages import check_messages
from cachepoint.emulator._checks.checkpoints import FoundPoint, extraneous, find_points
from cachepoint.emulator._checks.converse import check_converse
from cachepoint.emulator._checks.model_limits import check_length, check_lifecycle, check_model_limits
from cachepoint.emulator._checks.service_errors import MODEL_ERRORS, ServiceError, denied, invalid
from cachepoint.emulator._checks.shapes import check_messages_types, check_types
from cachepoint.emulator._clock import Clock, Latency
from cachepoint.emulator._invocation_log import InvocationLog, LogEntry, ServedBodies
from cachepoint.emulator._reading.anthropic_messages import as_converse
from cachepoint.emulator._reading.converse import render
from cachepoint.emulator._reading.request import Call, Json, Options, Target, read_target
from cachepoint.emulator._reading.traits import traits_of
from cachepoint.emulator.faults import NO_FAULT, Fault, FaultPlan
from cachepoint.emulator.replies import Question, Script, finish, read_question

logger = logging.getLogger(__name__)

INVALID_MODEL = "The provided model identifier is invalid."
NESTED_TOO_DEEPLY = "Malformed input request: the body is nested too deeply, please reformat your input and try again."
NO_COUNTING = "The provided model doesn't support counting tokens."
# Dead entries are dropped once in so many calls, so that a server does not keep what nobody will read again.
_CALLS_A_SWEEP = 1024
# Beyond these the oldest are dropped at that sweep, as the service may at any time: some 30 MB, and what four
# checkpoints a call at 7 calls a second write in an hour.
_MOST_ENTRIES = 100_000


def _tier_in(body: Mapping[str, Any]) -> str | None:
    """The service tier that a Converse body names; what is of another type is refused with the rest of the body."""
    given = body.get("serviceTier")
    tier = given.get("type") if isinstance(given, Mapping) else None
    return tier if isinstance(tier, str) else None


@dataclass(slots=True)
class Delivery:
    """An answer or a refusal on its way out; a transport plays it. The pauses are in seconds.

    `number` is that of the call that waits to hear whether its answer arrived; None where nothing was served.
    """

    written: Written
    service: Service
    fault: Fault = NO_FAULT
    number: int | None = None
    served: Served | None = None
    first_byte_after: float = 0.0
    each_frame_after: float = 0.0

    @property
    def is_reset(self) -> bool:
        """The connection breaks before the response begins."""
        return self.fault.reset is not None and self.fault.after_events is None

    def begin(self) -> None:
        """The response begins: what the call wrote can be read from now on."""
        if self.served is not None:
            self.service.begin(self.served)

    def pieces(self, *, whole: bool = False) -> Iterator[bytes]:
        """What a stream sends, frame by frame or `whole`; its usage is in the last frame."""
        frames = self.written.frames[: self.fault.after_events]
        sent = (b"".join(frames),) if whole else frames
        for number, piece in enumerate(sent, 1):
            if number == len(sent) and len(frames) == len(self.written.frames):  # a later fault takes nothing back
                self.arrived()
            yield piece
        if self.fault.error is not None:
            yield exception_frame(self.fault.error[0].lower() + self.fault.error[1:], self.fault.text)

    def arrived(self) -> None:
        """The answer goes out with its usage."""
        self._mark(delivered=True)

    def lost(self) -> None:
        """The answer did not reach the caller."""
        self._mark(delivered=False)

    def _mark(self, *, delivered: bool) -> None:
        if self.number is not None:
            self.service.mark(self.number, delivered=delivered)


@dataclass
class Service:
    """The state behind the emulator; every method may be called from any thread."""

    rules: Rules
    cache: CacheModel
    clock: Clock
    latency: Latency
    options: Options
    script: Script
    profiles: Mapping[str, str]
    keep_text: bool = False
    log: InvocationLog | None = None
    faults: FaultPlan = field(default_factory=FaultPlan)
    refused: dict[tuple[Section, str | None], tuple[str | None, bool]] = field(default_factory=dict)
    calls: Calls = field(default_factory=Calls)
    _lock: Lock = field(default_factory=Lock, repr=False)

    @property
    def lock(self) -> AbstractContextManager[Any]:
        """Whoever has it is alone with the emulator's state."""
        return self._lock.held

    def respond(self, path: str, headers: Mapping[str, str], raw: bytes) -> Delivery:
        """What goes back for a request; `headers` are in small letters."""
        target: Target | None = None
        try:
            target = read_target(path, headers, self.options.default_region)
            return self._play(target, raw)
        except ServiceError as error:
            return self._refuse(target, error, error.code)
        except RecursionError:
            return self._refuse(target, invalid(NESTED_TOO_DEEPLY), "ValidationException")
        except Exception as problem:
            # A mistake in a script or in the emulator itself: the caller gets it as a server error, by its kind.
            logger.exception("the emulator failed on a call")
            kind = type(problem).__name__
            return self._refuse(target, ServiceError("InternalServerException", 500, f"emulator: {kind}"), kind)

    def refuse(self, error: ServiceError) -> Delivery:
        """The answer to a request that is refused before it is read."""
        return self._refuse(None, error, error.code)

    def serve(self, target: Target, raw: bytes) -> Delivery:
        """Answer a request; raises ServiceError as the service would."""
        with self.lock:
            call = self._read(target, raw)
            if target.operation == "CountTokens":
                return self._count(call)
            shaped, points = self._checked(call)
            prompt, question = render(shaped), read_question(call, shaped.body)
            check_length(call, prompt.total)
            return self._answer(call, prompt.for_cache(target.scope), question, points)

    def begin(self, served: Served) -> None:
        """Make what a call wrote readable."""
        with self.lock:
            self.cache.begin_response(served, self.clock())

    def mark(self, number: int, *, delivered: bool) -> None:
        """Note whether the answer of a call reached its caller."""
        with self.lock:
            self.calls.mark(number, delivered=delivered)

    def kept_calls(self) -> list[ServedCall]:
        """What came in so far, in order, as far as it is kept."""
        with self.lock:
            return self.calls.kept()

    def bill(self) -> Bill:
        """What all served calls cost."""
        with self.lock:
            calls, earlier = self.calls.kept(), self.calls.earlier
        return bill_of(calls, earlier)

    # -- the parts ---------------------------------------------------------------------------------

    def _play(self, target: Target, raw: bytes) -> Delivery:
        """Answer a request with the fault that was planned for it, if any."""
        with self.lock:
            fault = self.faults.take(target)
        if fault.reset == "before":
            self._note_failed(target, "ConnectionReset", 0)
            return Delivery(Written({}), self, fault)
        if fault.error is not None and fault.after_events is None:
            raise ServiceError(fault.error, fault.status, fault.text)
        delivery = self.serve(target, raw)
        delivery.fault = fault
        delivery.first_byte_after += fault.pause
        delivery.each_frame_after += fault.pause
        return delivery

    def _refuse(self, target: Target | None, error: ServiceError, noted_as: str) -> Delivery:
        written = write_error(error)
        self._note_failed(target, noted_as, error.status)
        if target is not None:
            self._log(LogEntry(target, written.request_id, self.clock(), error=error.code))
        return Delivery(written, self)

    def _log(self, entry: LogEntry) -> None:
        """Write to the log, if there is one; a disk that is full is no matter of the caller's."""
        try:
            if self.log is not None:
                self.log.write(entry)
        except OSError as problem:
            logger.warning(
                "a call is missing in the invocation log (%s); make room for it, or name another folder",
                problem.strerror,
            )

    def _note_failed(self, target: Target | None, error: str, status: int) -> None:
        """Keep a request that was not served; status 0 says that not even the error was answered."""
        with self.lock:
            self._keep(
                ServedCall(
                    time=self.clock(),
                    operation=target.operation if target else None,
                    model_id=target.model_id if target else "",
                    region=target.region if target else "",
                    account=target.account if target else "",
                    status=status,
                    error=error,
                    delivered=status != 0,
                )
            )

    def _keep(self, call: ServedCall) -> int:
        if self.calls.came % _CALLS_A_SWEEP == 0:
            self.cache.drop_dead(self.clock())
            self.cache.drop_oldest(_MOST_ENTRIES)
        return self.calls.add(call)

    def _read(self, target: Target, raw: bytes) -> Call:
        try:
            body: Any = json.loads(raw or b"{}")
        except (ValueError, RecursionError):
            body = None
        if not isinstance(body, dict):
            raise ServiceError("SerializationException", 400, "The request body is not a JSON object.")
        if target.service_tier is None:
            target = replace(target, service_tier=_tier_in(body))
        known_as = self._known_as(target.model_id)
        rule = self._rule(known_as)
        if not self.options.serve_ended:
            check_lifecycle(rule, self.clock())
        return Call(target, body, rule, traits_of(known_as, rule), self.options)

    def _checked(self, call: Call) -> tuple[Call, int]:
        """The call in Converse's terms, and how many checkpoints it has; raises ServiceError for what is refused."""
        if call.target.api == "converse":
            check_types(call.target.operation, call.body)
            check_converse(call)
            shaped = call
        else:
            check_messages(call)
            shaped = replace(call, body=as_converse(call.body))
        check_model_limits(shaped)
        points = list(find_points(shaped.body))
        self._check_refused(call.target, points)
        return shaped, len(points)

    def _known_as(self, model_id: str) -> str:
        return self.profiles.get(model_id, model_id)

    def _rule(self, known_as: str) -> ModelRule:
        base = parse_model_id(known_as).base
        rule = self.rules.resolve(known_as)
        # An opaque ARN without a profile, no provider's name, or an id that no row knows.
        if base is None or "." not in base or rule is None or rule.stand_in:
            raise invalid(INVALID_MODEL)
        return rule

    def _check_refused(self, target: Target, points: list[FoundPoint]) -> None:
        for point in points:
            for model_id in (target.model_id, None):
                if (point.section, model_id) in self.refused:
                    message, is_denied = self.refused[point.section, model_id]
                    refusal = invalid(message) if message else extraneous(point.pointer, MODEL_ERRORS)
                    raise denied(refusal.message) if is_denied else refusal

    def _count(self, call: Call) -> Delivery:
        if parse_model_id(call.target.model_id).base != call.target.model_id or not call.rule.facts.counts_tokens:
            raise invalid(NO_COUNTING)
        check_types("CountTokens", call.body)
        given = call.body["input"]
        body = given["converse"] if "converse" in given else _messages_to_count(given)
        written = write_count(render(replace(call, body=body)).total)
        return Delivery(written, self, number=self._note(call, None, 0))

    def _answer(self, call: Call, prompt: CacheRequest, question: Question, points: int) -> Delivery:
        served = self.cache.serve(prompt, call.rule, self.clock())
        try:
            answer = finish(self.script.next(question), question, call)
        except Exception:
            self.cache.abandon(served)
            raise
        usage = replace(served.usage, output=answer.tokens)
        first_byte, rest = self.latency.before_first_token(usage), self.latency.of_output(usage)
        metrics = Metrics(first_byte=round(first_byte * 1000), whole=round((first_byte + rest) * 1000))
        written = write_answer(call, answer, usage, metrics, has_points=points > 0)
        if self.log is not None:
            logged = logged_answer(call, answer, usage, metrics, written.request_id, has_points=points > 0)
            bodies = ServedBodies(call.body, logged, usage, caches=call.rule.explicit)
            self._log(LogEntry(call.target, written.request_id, self.clock(), bodies))
        delivery = Delivery(written, self, number=self._note(call, usage, points), served=served)
        if self.latency.sleep:
            streams = call.target.streams
            delivery.first_byte_after = first_byte if streams else first_byte + rest
            delivery.each_frame_after = rest / len(written.frames) if streams else 0.0
        return delivery

    def _note(self, call: Call, usage: Usage | None, points: int) -> int:
        target = call.target
        return self._keep(
            ServedCall(
                time=self.clock(),
                operation=target.operation,
                model_id=target.model_id,
                region=target.region,
                account=target.account,
                status=200,
                usage=usage,
                delivered=False,
                points=points,
                priced_as=self.profiles.get(target.model_id, ""),
                service_tier=target.service_tier,
                body=call.body if self.keep_text else None,
            )
        )


def _messages_to_count(given: Json) -> Json:
    """The Anthropic Messages body that CountTokens was given, in the Converse shape."""
    try:
        body = json.loads(base64.b64decode(given["invokeModel"]["body"]))
    except (KeyError, ValueError):
        body = None
    if not isinstance(body, dict):
        raise invalid("input: one of converse and invokeModel is required")
    check_messages_types(body)
    return as_converse(body)
