"""One call from request to record: the pure step that the sync and async clients drive.

A driver makes a `Call`, sends `call.request`, and tells the call what happened: `refused`, `failed`,
`answered`, or for a stream `began`, `event` and `ended`. Nothing here does I/O, and nothing here may
make the user's call fail: on any error inside cachepoint the request goes out as the user wrote it.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from cachepoint.bedrock.fan_out import FanOut, Flight, current_fan_out
from cachepoint.bedrock.opaque_models import base_model
from cachepoint.bedrock.request_metadata import with_request_metadata
from cachepoint.bedrock.settings import Settings, scope_of
from cachepoint.bedrock.tags import current_tags
from cachepoint.bedrock.warn import warn_once
from cachepoint.bedrock.wire.dialect import Dialect, Reporter
from cachepoint.bedrock.wire.refusals import refused_section, refuses_long_ttl
from cachepoint.catalogue.table import rates_of
from cachepoint.core import exchange as sending
from cachepoint.core.accounts.misses import diagnose
from cachepoint.core.accounts.record import CallRecord, Miss, status_of
from cachepoint.core.accounts.sharing_out import PrefixUse, prefix_use
from cachepoint.core.planning import planner
from cachepoint.core.planning.legality import LONG_TTL
from cachepoint.core.planning.plan import Checkpoint, Plan
from cachepoint.core.planning.policy import CachePolicy
from cachepoint.core.prompt.prompt import Prompt
from cachepoint.core.prompt.tokens import PROFILES
from cachepoint.core.provider.prices import Cost, Rates
from cachepoint.core.provider.rules import SECTIONS, ModelRule, parse_model_id
from cachepoint.core.provider.usage import Usage
from cachepoint.core.traffic.boundaries import steps
from cachepoint.core.traffic.view import Sent, Step, View
from cachepoint.errors import ConfigurationError

ABANDONED = "abandoned"
_DIGITS = re.compile(r"\d+")
_R = TypeVar("_R")


class Call:
    """One call; see the module for its life. `request` is what to send."""

    def __init__(self, settings: Settings, client: Any, dialect: Dialect, request: Mapping[str, Any]) -> None:
        self._settings = settings
        self._dialect = dialect
        self.tags = dict(current_tags())
        self.policy = settings.policy
        self._original = with_request_metadata(request, self.policy.request_metadata, self.tags)
        self._client = client
        self.request: dict[str, Any] = dict(self._original)
        self.model = str(request.get("modelId", ""))
        self.base: str | None = None
        self.rule: ModelRule | None = None
        self.prompt: Prompt | None = None
        self.plan = Plan()
        self._observed = Plan()
        self._mistake: ConfigurationError | None = None
        self.view = View()
        self._steps: Sequence[Step] = ()
        self.sent = Sent()
        self.rates = Rates()
        self.scope = ""
        self.started = settings.clock()
        self._clock_started = time.monotonic()
        self._recorded: CallRecord | None = None
        self._in_flight = False
        self._repeated = False
        self._flight: Flight | None = None
        # A stream may be read and closed by two threads, and closed again when it is collected.
        self._settling = threading.RLock()
        self._safely(self._read)

    # -- before sending ---------------------------------------------------------------------------

    def count_request(self) -> dict[str, Any] | None:
        """Arguments for CountTokens where the policy asks for it and the estimate straddles the minimum."""
        if not (self.policy.count_tokens and self.prompt and self.rule and self.rule.explicit and self.base):
            return None
        if self.view.calibration.samples:  # exact totals have come in, which tell as much
            return None
        band = self.view.calibration.band(self.prompt.tokens, PROFILES[self.prompt.tokenizer])
        if not band.low < self.rule.minimum <= band.high:
            return None
        # Inference profiles do not count, only the model behind them (T1).
        return {"modelId": parse_model_id(self.base).base, "input": self._dialect.count_input(self._original)}

    def counted(self, tokens: int) -> None:
        """What CountTokens answered."""
        if self.prompt is not None:
            self.view = self.view.calibrated(self.view.calibration.updated(self.prompt.tokens, tokens))

    def prepare(self) -> None:
        """Plan; raises ConfigurationError for a mark of the user's that the service would refuse."""
        if self._mistake is not None and self.policy.mode != "observe":
            raise self._mistake
        self._safely(self._plan)

    def waits(self) -> Iterator[Flight]:
        """Leaders to wait for, one after the other, inside a `fan_out()` block; this call may become one."""
        fan_out = current_fan_out()
        stale = any(not entry.readable for entry in self.view.entries.values())
        while fan_out is not None and self.prompt is not None and self.policy.mode in ("auto", "explicit"):
            joined = self._safely(partial(self._join, fan_out))
            if joined is None:
                if stale:  # planned while a leader was under way that has landed since
                    self._safely(self._plan_anew)
                return
            flight, leads = joined
            if leads:
                self._flight = flight
                return
            yield flight
            stale = False
            if not self.policy.learn:  # the leader's entry is not known of, but it is there
                return
            self._safely(self._plan_anew)

    def resume(self) -> None:
        """Plan anew after a wait that somebody else did."""
        self._safely(self._plan_anew)

    def depart(self) -> None:
        """Put the planned request into `request`: it goes out now."""
        if not self._safely(self._apply):
            self.request, self.plan = dict(self._original), Plan()

    def _read(self) -> None:
        settings = self._settings
        self.base = base_model(self.model, settings.base_models, settings.control_client)
        self.rule = settings.rules.resolve(self.base) if self.base else None
        if self.policy.mode == "off" or self.rule is None:
            return
        self.scope = scope_of(self._client, self.model, self._dialect.API)
        self.rates = rates_of(self.base or self.model)
        try:
            prompt = self._dialect.read(self._original, settings.store.key, self.rule, settings.hints)
        except ConfigurationError as mistake:
            self._mistake = mistake
            return
        if prompt is None:
            return
        self._steps = steps(prompt)
        if self.policy.learn:
            history = prompt.end(prompt.history_end).digest if prompt.has_turns and prompt.history_end >= 0 else None
            self.view = settings.store.visit(self.scope, self._steps, history, self.started)
        else:  # what the service refused holds whether or not traffic is learned
            self.view = View(refused=settings.store.peek(self.scope, (), self.started).refused)
        self.prompt = prompt

    def _plan(self) -> None:
        if self.prompt is None or self.policy.mode == "off":
            return
        self.plan = self._planned(self.prompt, self.policy)
        if self.policy.mode == "observe":
            self._observed = self._planned(self.prompt, self.policy.in_mode("explicit"))

    def _planned(self, prompt: Prompt, policy: CachePolicy) -> Plan:
        return planner.plan(prompt, self.rule, policy, self.view, self.rates, self.started)

    @property
    def _sends(self) -> Plan:
        """What goes out: the plan, or in mode "observe" the checkpoints the user wrote."""
        return self._observed if self.policy.mode == "observe" else self.plan

    def _plan_anew(self) -> None:
        if self.prompt is not None:
            self.started = self._settings.clock()
            if self.policy.learn:
                fresh = self._settings.store.peek(self.scope, self._steps, self.started)
                self.view = self.view.refreshed(fresh)
            self._plan()

    def _join(self, fan_out: FanOut) -> tuple[Flight, bool] | None:
        if self.prompt is None or self.rule is None:
            return None
        return fan_out.join(self.scope, *sending.fan_out_digests(self.prompt, self.plan, self.rule, self.view))

    def _apply(self) -> bool:
        if self.prompt is None or self.policy.mode == "off":
            return True
        if self.policy.mode != "observe":
            self.request = self._dialect.apply(self._original, self.plan)
            self._say()
        self._track()
        return True

    def _say(self) -> None:
        if self.policy.split_text and not self.view.splits_trusted:
            warn_once(
                f"splits:{self.scope}",
                f"cachepoint stopped splitting text for {self.model!r}: what it reads or counts does not bear it out",
            )
        for warning in self.plan.warnings:
            # Once for each kind of repair, not for each message of a growing conversation.
            warn_once(f"plan:{self.scope}:{_DIGITS.sub('', warning)}", f"cachepoint: {warning}")

    def _track(self) -> None:
        if self.prompt is None:
            return
        self.sent = sending.sent_record(self.prompt, self._sends, self.rule, self.rates, self.view, self._steps)
        if self.policy.learn:
            self._settings.store.sent(self.scope, self.sent, self.started)
            self._in_flight = True

    # -- what happened ----------------------------------------------------------------------------

    def refused(self, error: BaseException) -> bool:
        """Whether the service refused a checkpoint; then `request` is the one to repeat, with fewer checkpoints."""
        if self.policy.mode == "observe" or not self.plan.checkpoints:
            return False
        return bool(self._safely(lambda: self._withdraw(error)))

    def _withdraw(self, error: BaseException) -> bool:
        details = (getattr(error, "response", None) or {}).get("Error", {})
        code, message, points = details.get("Code"), details.get("Message", ""), self.plan.checkpoints
        if code not in ("ValidationException", "AccessDeniedException"):
            return False
        if refuses_long_ttl(message) and any(point.ttl == "1h" for point in points):
            self._repeat_with((LONG_TTL,), [replace(point, ttl="5m") for point in points])
            warn_once(
                f"refused:{self.scope}:{LONG_TTL}",
                f"cachepoint: {self.model!r} refused a TTL of 1h; the call was repeated with 5m, and 1h will not be "
                "asked of it again",
            )
            return True
        section = refused_section(message, self.plan)
        if section is None:
            return False
        unsupported = code == "AccessDeniedException"
        everywhere = unsupported or self._repeated
        self._repeated = True
        kept = [point for point in points if not everywhere and point.where.section != section]
        if len(kept) == len(points):
            return False
        self._repeat_with(SECTIONS if unsupported else (section,), kept)
        warn_once(
            f"refused:{self.scope}:{section}",
            f"cachepoint: {self.model!r} refused a checkpoint in {'the request' if everywhere else section}; "
            "the call was repeated without it and none will be placed there again",
        )
        return True

    def _repeat_with(self, refused: Sequence[str], points: Sequence[Checkpoint]) -> None:
        self._safely(lambda: self._remember_refused(refused))
        self.plan = sending.with_points(self.prompt, self.plan, points) if self.prompt else Plan()
        self.request = self._dialect.apply(self._original, self.plan)
        self._safely(self._track)

    def _remember_refused(self, refused: Sequence[str]) -> None:
        self._forget()
        for what in refused:
            self._settings.store.refuse(self.scope, what)

    def failed(self, error: BaseException) -> None:
        """The call failed before its response began."""
        self._safely(self._forget)
        self._land()
        with self._settling:
            self._record(None, type(error).__name__)

    def began(self) -> None:
        """The response began: what was written can be read, and those who wait for it are told after that."""
        if self._in_flight:
            self._safely(lambda: self._settings.store.began(self.scope, self.sent))
        self._land()

    def answered(self, reported: Mapping[str, Any] | None) -> dict[str, Any] | None:
        """The answer's usage came; returns what the call tells (`promptCache`), None if nothing can be told."""
        self.began()
        return self._settle(reported, None)

    def ended(self, error: str | None = None) -> None:
        """A stream ended; recorded here when its usage never came."""
        self._settle(None, error)

    def reporter(self) -> Reporter:
        """What the events of this call's stream pass through."""
        return self._dialect.reporter(self.answered)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """While the body of a response is read; a failure in it is recorded."""
        self.began()
        try:
            yield
        except BaseException as error:
            self.ended(type(error).__name__)
            raise

    def _land(self) -> None:
        if self._flight is not None:
            self._flight.release()

    # -- parts ------------------------------------------------------------------------------------

    def _settle(self, reported: Mapping[str, Any] | None, error: str | None) -> dict[str, Any] | None:
        with self._settling:
            if self._recorded is None:
                usage = self._safely(lambda: self._usage(reported))
                if self._in_flight:
                    self._in_flight = False
                    self._safely(lambda: self._settings.store.settled(self.scope, self.sent, usage, self.started))
                self._record(usage, error)
            recorded = self._recorded
        return self._safely(recorded.contract) if recorded else None

    def _usage(self, reported: Mapping[str, Any] | None) -> Usage | None:
        ttls = {point.ttl for point in self._sends.checkpoints}
        return self._dialect.usage(reported, "1h" if ttls == {"1h"} else "5m")

    def _forget(self) -> None:
        if self._in_flight:
            self._in_flight = False
            self._settings.store.failed(self.scope, self.sent)

    def _record(self, usage: Usage | None, error: str | None) -> None:
        if self._recorded is not None:
            return
        # Each part on its own: whatever fails in it, the call is recorded.
        self._recorded = CallRecord(
            started=self.started,
            seconds=time.monotonic() - self._clock_started,
            model=self.model,
            base_model=self.base,
            region=self._region,
            api=self._dialect.API,
            mode=self.policy.mode,
            status=status_of(usage) if usage else None,
            usage=usage,
            cost=self._safely(lambda: self._price(usage)) if usage else None,
            checkpoints=self.plan.checkpoints,
            miss=self._safely(lambda: self._miss(usage)) if usage else None,
            tags=self.tags,
            session=self.tags.get("session"),
            error=error,
            prefix=(self._safely(lambda: self._prefix(usage)) if usage else None) or PrefixUse(),
        )
        self._deliver(self._recorded)

    def _deliver(self, record: CallRecord) -> None:
        try:
            self._settings.ledger.add(record)
        except Exception as problem:  # noqa: BLE001 - a sink that fails must not make the call fail
            warn_once(
                f"sink:{type(problem).__name__}",
                f"cachepoint: the ledger's on_call raised {type(problem).__name__}; the call is in the ledger, but not "
                "where on_call keeps it",
            )

    @property
    def _region(self) -> str | None:
        return getattr(getattr(self._client, "meta", None), "region_name", None)

    def _price(self, usage: Usage) -> Cost | None:
        tier = self._dialect.service_tier(self._original)
        prices = self._settings.prices
        return prices.price(self.base or self.model, usage, at=self.started, service_tier=tier, region=self._region)

    def _miss(self, usage: Usage) -> Miss | None:
        if self.prompt is None:
            return None
        miss = diagnose(self.prompt, self._sends, self.view, usage, self.rule, self.started)
        if miss is None or not miss.lost_tokens:
            return miss
        return miss.priced(self._price(Usage(cache_read=miss.lost_tokens)))

    def _prefix(self, usage: Usage) -> PrefixUse:
        if self.prompt is None or not usage.cache_read + usage.cache_write:
            return PrefixUse()
        sent = [point.digest for point in self.sent.points]
        known = {*sent, *self.view.entries}
        ends = {boundary.digest: boundary.tokens for boundary in self.prompt.boundaries if boundary.digest in known}
        return prefix_use(self.scope, ends, sent, usage, self.prompt.tokens)

    def _safely(self, step: Callable[[], _R]) -> _R | None:
        try:
            return step()
        except Exception as problem:  # noqa: BLE001 - caching must never make a call fail
            warn_once(
                f"internal:{type(problem).__name__}",
                f"cachepoint failed inside ({type(problem).__name__} in {_name_of(step)}) and left a call as it was "
                "written; please report it",
            )
            return None


def _name_of(step: Callable[..., object]) -> str:
    step = step.func if isinstance(step, partial) else step
    return getattr(step, "__qualname__", type(step).__name__)
