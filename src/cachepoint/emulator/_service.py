"""Bedrock Runtime without HTTP: a request comes in as its target and body, and is answered or refused.

The order of a call: a fault planned for it, its body, its model, what the service refuses, then the cache, the
reply and the bill. What it wrote can be read from `Exchange.begin` on, when its response begins (rules R3.9).
"""

from __future__ import annotations

import base64
import json
import threading
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from cachepoint.core.provider.cache_model import CacheModel, Served
from cachepoint.core.provider.rules import ModelRule, Rules, Section, parse_model_id
from cachepoint.core.provider.usage import Usage
from cachepoint.emulator._answering.wire import (
    Metrics,
    Written,
    converse_body,
    converse_usage,
    encoded,
    write_answer,
)
from cachepoint.emulator._bill import ServedCall
from cachepoint.emulator._checks.anthropic_messages import check_messages
from cachepoint.emulator._checks.checkpoints import FoundPoint, extraneous, find_points
from cachepoint.emulator._checks.converse import check_converse
from cachepoint.emulator._checks.refusals import MODEL_ERRORS, Refusal, invalid
from cachepoint.emulator._clock import Clock, Latency
from cachepoint.emulator._invocation_log import InvocationLog, LogEntry
from cachepoint.emulator._reading.anthropic_messages import as_converse
from cachepoint.emulator._reading.converse import render
from cachepoint.emulator._reading.request import Call, Json, Options, Target
from cachepoint.emulator._reading.traits import traits_of
from cachepoint.emulator.faults import Fault, FaultPlan
from cachepoint.emulator.replies import Answer, Script, finish, read_question

INVALID_MODEL = "The provided model identifier is invalid."
NO_COUNTING = "The provided model doesn't support counting tokens."
_UNKNOWN_MODEL = ModelRule(name="unknown model", pattern=".", explicit=False)


@dataclass(slots=True)
class Exchange:
    """A served call whose answer is on its way out; the pauses are in seconds."""

    written: Written
    service: Service
    number: int
    served: Served | None = None
    first_byte_after: float = 0.0
    each_frame_after: float = 0.0

    def begin(self) -> None:
        """The response begins: what the call wrote can be read from now on."""
        if self.served is not None:
            self.service.begin(self.served)

    def arrived(self) -> None:
        """The answer goes out with its usage."""
        self.service.mark(self.number, delivered=True)

    def lost(self) -> None:
        """The answer did not reach the caller."""
        self.service.mark(self.number, delivered=False)


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
    refused: dict[tuple[Section, str | None], str | None] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock, repr=False)
    _calls: list[ServedCall] = field(default_factory=list)

    def fault_for(self, target: Target) -> Fault:
        """The fault planned for this call."""
        with self.lock:
            return self.faults.take(target)

    def serve(self, target: Target, raw: bytes) -> Exchange:
        """Answer a request; raises Refusal as the service would."""
        with self.lock:
            call = self._read(target, raw)
            if target.operation == "CountTokens":
                return self._count(call)
            if target.operation.startswith("Converse"):
                check_converse(call)
                shaped = call
            else:
                check_messages(call)
                shaped = replace(call, body=as_converse(call.body))
            points = list(find_points(shaped.body))
            self._check_refused(target, points)
            return self._answer(call, shaped, len(points))

    def note_failed(self, target: Target | None, error: str, status: int) -> None:
        """Record a request that was not served; status 0 says that not even the error was answered."""
        with self.lock:
            call = ServedCall(
                time=self.clock(),
                operation=target.operation if target else None,
                model_id=target.model_id if target else "",
                region=target.region if target else "",
                account=target.account if target else "",
                status=status,
                error=error,
                delivered=status != 0,
            )
            self._calls.append(call)
            if self.log is not None and target is not None and status:
                self.log.write(LogEntry(target, str(uuid.uuid4()), call.time, {}, None, None, error))

    def begin(self, served: Served) -> None:
        """Make what a call wrote readable."""
        with self.lock:
            self.cache.begin_response(served, self.clock())

    def mark(self, number: int, *, delivered: bool) -> None:
        """Note whether the answer of a call reached its caller."""
        with self.lock:
            self._calls[number] = replace(self._calls[number], delivered=delivered)

    def calls(self) -> list[ServedCall]:
        """What came in so far, in order."""
        with self.lock:
            return list(self._calls)

    # -- the parts ---------------------------------------------------------------------------------

    def _read(self, target: Target, raw: bytes) -> Call:
        try:
            body: Any = json.loads(raw or b"{}")
        except ValueError:
            body = None
        if not isinstance(body, dict):
            raise Refusal("SerializationException", 400, "The request body is not a JSON object.")
        known_as = self._known_as(target.model_id)
        rule = self._rule(known_as)
        return Call(target, body, rule, traits_of(known_as, rule), self.options)

    def _known_as(self, model_id: str) -> str:
        return self.profiles.get(model_id, model_id)

    def _rule(self, known_as: str) -> ModelRule:
        base = parse_model_id(known_as).base
        if base is None or "." not in base:  # an opaque ARN without a profile, or no provider's name
            raise invalid(INVALID_MODEL)
        return self.rules.resolve(known_as) or _UNKNOWN_MODEL

    def _check_refused(self, target: Target, points: list[FoundPoint]) -> None:
        for point in points:
            for model_id in (target.model_id, None):
                if (point.section, model_id) in self.refused:
                    message = self.refused[point.section, model_id]
                    raise invalid(message) if message else extraneous(point.pointer, MODEL_ERRORS)

    def _count(self, call: Call) -> Exchange:
        if parse_model_id(call.target.model_id).base != call.target.model_id or not call.traits.counts_tokens:
            raise invalid(NO_COUNTING)
        given = call.body.get("input") or {}
        if "converse" in given:
            body = given["converse"]
        else:
            try:
                body = as_converse(json.loads(base64.b64decode(given["invokeModel"]["body"])))
            except (KeyError, ValueError):
                raise invalid("input: one of converse and invokeModel is required") from None
        total = render(replace(call, body=body)).total
        written = Written({"content-type": "application/json"}, encoded({"inputTokens": total}))
        return Exchange(written, self, self._note(call, None, 0))

    def _answer(self, call: Call, shaped: Call, points: int) -> Exchange:
        served = self.cache.serve(render(shaped).for_cache(call.target.scope), call.rule, self.clock())
        question = read_question(call, shaped.body)
        try:
            answer = finish(self.script.next(question), question, call)
        except Exception:
            self.cache.abandon(served)
            raise
        usage = replace(served.usage, output=answer.tokens)
        first_byte, rest = self.latency.before_first_token(usage), self.latency.of_output(usage)
        metrics = Metrics(first_byte=round(first_byte * 1000), whole=round((first_byte + rest) * 1000))
        written = write_answer(call, answer, usage, points > 0, metrics)
        self._log_served(call, written, usage, answer, metrics)
        exchange = Exchange(written, self, self._note(call, usage, points), served)
        if self.latency.sleep:
            streams = call.target.streams
            exchange.first_byte_after = first_byte if streams else first_byte + rest
            exchange.each_frame_after = rest / len(written.frames) if streams else 0.0
        return exchange

    def _note(self, call: Call, usage: Usage | None, points: int) -> int:
        target = call.target
        self._calls.append(
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
                service_tier=target.service_tier or (call.body.get("serviceTier") or {}).get("type"),
                body=call.body if self.keep_text else None,
            )
        )
        return len(self._calls) - 1

    def _log_served(self, call: Call, written: Written, usage: Usage, answer: Answer, metrics: Metrics) -> None:
        if self.log is None:
            return
        counters: Json = converse_usage(call, usage, has_points=True)
        counters.pop("cacheDetails", None)
        body = converse_body(call, answer, counters, metrics)
        request_id = written.headers["x-amzn-requestid"]
        self.log.write(LogEntry(call.target, request_id, self.clock(), call.body, body, usage))
