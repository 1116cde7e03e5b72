"""What calls cost, saved and missed, by LlamaIndex's instrumentation and by its callbacks.

Instrumentation is the better of the two: the LLM emits one event for each record of its ledger, also for calls that
fail and streams that are abandoned, wherever the LLM is used. Callbacks are bound to a CallbackManager, which engines
exchange for their own; but what a callback raises reaches the caller, so a budget can stop the next call.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from llama_index.core.callbacks.base_handler import BaseCallbackHandler
from llama_index.core.callbacks.schema import CBEventType, EventPayload
from llama_index_instrumentation import get_dispatcher
from llama_index_instrumentation.base import BaseEvent
from llama_index_instrumentation.dispatcher import active_instrument_tags
from llama_index_instrumentation.event_handlers import BaseEventHandler
from llama_index_instrumentation.span import active_span_id
from pydantic import Field, InstanceOf
from typing_extensions import override  # a dependency of llama-index-core

from cachepoint.bedrock.call import ABANDONED
from cachepoint.bedrock.context import current_tags
from cachepoint.core.budget import Budget
from cachepoint.core.ledger import CacheLedger, Sink
from cachepoint.core.record import CallRecord, Told, read_contract
from cachepoint.core.report import LedgerReport

_DISPATCHER = get_dispatcher(__name__)


class PromptCacheCallEvent(BaseEvent):
    """A call has ended, failed or been abandoned; there is one for every record of the LLM's ledger."""

    record: InstanceOf[CallRecord]

    @classmethod
    @override
    def class_name(cls) -> str:
        return "PromptCacheCallEvent"


def announcing(ledger: CacheLedger) -> CacheLedger:
    """A ledger for one call, which passes the record on to `ledger` and to LlamaIndex's event handlers."""
    span, tags = active_span_id.get(), dict(active_instrument_tags.get())

    def pass_on(record: CallRecord) -> None:
        ledger.add(record)
        _DISPATCHER.event(PromptCacheCallEvent(record=record, span_id=span, tags=tags))

    return CacheLedger(keep=0, on_call=pass_on)


class PromptCacheEventHandler(LedgerReport, BaseEventHandler):
    """Counts the calls of every `CacheAwareBedrockConverse` it hears of: `get_dispatcher().add_event_handler(…)`.

    `by(key)` groups by `model`, `session`, the tags of `cachepoint.tags` and of LlamaIndex's `instrument_tags`, and
    workflow run (`llamaindex.run_id`). `on_call` is a function, or several, called with each `CallRecord`.
    """

    ledger: CacheLedger = Field(default_factory=CacheLedger, repr=False)

    def __init__(self, *, on_call: Sink | Sequence[Sink] | None = None) -> None:
        super().__init__()
        self.ledger = CacheLedger(on_call=on_call)

    @classmethod
    @override
    def class_name(cls) -> str:
        return "PromptCacheEventHandler"

    @override
    def handle(self, event: BaseEvent, **kwargs: Any) -> None:
        if isinstance(event, PromptCacheCallEvent):
            given = {str(name): str(value) for name, value in event.tags.items()}
            self.ledger.add(replace(event.record, tags={**given, **event.record.tags}))


@dataclass(frozen=True, slots=True)
class _Started:
    """What is known of a call when it starts."""

    at: float
    clock: float
    model: str
    tags: Mapping[str, str]


class PromptCacheCallbackHandler(LedgerReport, BaseCallbackHandler):
    """Counts the calls of `CacheAwareBedrockConverse` for a CallbackManager: `CallbackManager([handler])`.

    Give that manager to `Settings.callback_manager`, not to the LLM: engines and synthesizers put their own in the
    LLM's place.

    - `on_call`: a function, or several, called with each `CallRecord`.
    - `budget_usd`: once so much is spent, the next call raises BudgetExceeded before it is sent. Calls already under
      way go on; calls of unknown price do not count.
    - `clock`: wall time in seconds.
    """

    def __init__(
        self,
        *,
        on_call: Sink | Sequence[Sink] | None = None,
        budget_usd: Decimal | float | str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(event_starts_to_ignore=[], event_ends_to_ignore=[])
        self.ledger = CacheLedger(on_call=on_call)
        self._budget = Budget.of(budget_usd)
        self._clock = clock
        self._lock = threading.Lock()
        self._started: dict[str, _Started] = {}

    @override
    def on_event_start(
        self,
        event_type: CBEventType,
        payload: dict[str, Any] | None = None,
        event_id: str = "",
        parent_id: str = "",
        **kwargs: Any,
    ) -> str:
        """A call starts. Raises BudgetExceeded when the budget is spent."""
        if event_type != CBEventType.LLM or payload is None:
            return event_id
        self._budget.check(self.cost.usd)
        serialized = payload.get(EventPayload.SERIALIZED) or {}
        # Other LLMs, and those around ours (as_structured_llm), are somebody else's calls.
        if "prompt_cache" in serialized:
            options = payload.get(EventPayload.ADDITIONAL_KWARGS) or {}
            model = str(options.get("model") or serialized.get("model_name") or serialized["model"])
            with self._lock:
                self._started[event_id] = _Started(self._clock(), time.monotonic(), model, current_tags())
        return event_id

    @override
    def on_event_end(
        self,
        event_type: CBEventType,
        payload: dict[str, Any] | None = None,
        event_id: str = "",
        **kwargs: Any,
    ) -> None:
        with self._lock:
            started = self._started.pop(event_id, None)
        if started is None:
            return
        given = payload or {}
        response = given.get(EventPayload.RESPONSE) or given.get(EventPayload.COMPLETION)
        contract = getattr(response, "additional_kwargs", {}).get("prompt_cache")
        told = read_contract(contract) if contract else Told("auto", None, None, None)
        self.ledger.add(_record(started, told, given.get(EventPayload.EXCEPTION)))

    @override
    def start_trace(self, trace_id: str | None = None) -> None:
        """Nothing happens when a trace starts."""

    @override
    def end_trace(self, trace_id: str | None = None, trace_map: dict[str, list[str]] | None = None) -> None:
        """Nothing happens when a trace ends."""


def _record(started: _Started, told: Told, error: BaseException | None) -> CallRecord:
    name = None if error is None else ABANDONED if isinstance(error, GeneratorExit) else type(error).__name__
    return CallRecord(
        started=started.at,
        seconds=time.monotonic() - started.clock,
        model=started.model,
        base_model=started.model,
        region=None,
        api="converse",
        tags=started.tags,
        session=started.tags.get("session"),
        error=name,
        **told._asdict(),
    )
