"""What calls cost, saved and missed, by LlamaIndex's instrumentation and by its callbacks.

Instrumentation is the better of the two: the LLM emits one event for each record of its ledger, also for calls that
fail and streams that are abandoned, wherever the LLM is used. Callbacks are bound to a CallbackManager, which engines
exchange for their own; but what a callback raises reaches the caller, so a budget can stop the next call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from decimal import Decimal
from functools import lru_cache
from typing import Any

from llama_index.core.callbacks import CallbackManager
from llama_index.core.callbacks.base_handler import BaseCallbackHandler
from llama_index.core.callbacks.schema import CBEventType
from llama_index_instrumentation import get_dispatcher
from llama_index_instrumentation.base import BaseEvent
from llama_index_instrumentation.dispatcher import active_instrument_tags
from llama_index_instrumentation.event_handlers import BaseEventHandler
from llama_index_instrumentation.span import active_span_id
from pydantic import Field, InstanceOf
from typing_extensions import override  # a dependency of llama-index-core

from cachepoint.bedrock.listeners import Listener, listening
from cachepoint.catalogue.price_book import PriceBook
from cachepoint.core.accounts.budget import Budget, Spending
from cachepoint.core.accounts.ledger import CacheLedger, Sink
from cachepoint.core.accounts.record import CallRecord
from cachepoint.core.accounts.summary import LedgerReport

_DISPATCHER = get_dispatcher(__name__)


class PromptCacheCallEvent(BaseEvent):
    """A call has ended, failed or been abandoned; there is one for every record of the LLM's ledger."""

    record: InstanceOf[CallRecord]

    @classmethod
    @override
    def class_name(cls) -> str:
        return "PromptCacheCallEvent"


def announcing(ledger: CacheLedger, callbacks: CallbackManager) -> CacheLedger:
    """A ledger for one call, which passes the record on to `ledger`, to event handlers and to callback handlers."""
    span, tags = active_span_id.get(), dict(active_instrument_tags.get())
    handlers = [handler for handler in callbacks.handlers if isinstance(handler, PromptCacheCallbackHandler)]

    def announce(record: CallRecord) -> None:
        _DISPATCHER.event(PromptCacheCallEvent(record=record, span_id=span, tags=tags))

    return CacheLedger(keep=0, on_call=[ledger.add, announce, *(handler.ledger.add for handler in handlers)])


def within_budgets(callbacks: CallbackManager, ask: Callable[[], Decimal]) -> AbstractContextManager[None]:
    """A block in which a call begins, for which the budgets of callback handlers keep what `ask` gives until it ends.

    In the block a call raises BudgetExceeded where nothing is left for it.
    """
    handlers = [handler for handler in callbacks.handlers if isinstance(handler, PromptCacheCallbackHandler)]
    return listening([handler.keep(ask) for handler in handlers if handler.has_budget])


@lru_cache(maxsize=1)
def list_prices() -> PriceBook:
    """What estimates are made by; the record has the cost, by the client's own prices."""
    return PriceBook()


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


class PromptCacheCallbackHandler(LedgerReport, BaseCallbackHandler):
    """Counts the calls of `CacheAwareBedrockConverse` for a CallbackManager: `CallbackManager([handler])`.

    Give that manager to `Settings.callback_manager`, not to the LLM: engines and synthesizers put their own in the
    LLM's place. What it counts are the ledger's records, which the LLM hands to each such handler in its manager;
    LlamaIndex's events know nothing of a call's Region, its model behind an ARN, or whether it was sent at all.

    - `on_call`: a function, or several, called with each `CallRecord`.
    - `budget_usd`: once so much is spent, or kept for calls under way, the next call raises BudgetExceeded before it
      is sent. A call under way counts at an estimate, its answer at `max_tokens`; so does one that was cut or lost, and
      one that was cancelled until its answer comes, if it does. Calls of unknown price do not count.
    """

    def __init__(
        self,
        *,
        on_call: Sink | Sequence[Sink] | None = None,
        budget_usd: Decimal | float | str | None = None,
    ) -> None:
        super().__init__(event_starts_to_ignore=[], event_ends_to_ignore=[])
        self.ledger = CacheLedger(on_call=on_call)
        self._spending = Spending(Budget.of(budget_usd), lambda: self.ledger.spent)

    @property
    def has_budget(self) -> bool:
        """Whether calls may have to be stopped."""
        return self._spending.limited

    def keep(self, ask: Callable[[], Decimal]) -> Listener:
        """What keeps the amount that `ask` gives for a call, from its beginning to its record."""
        call = object()
        return Listener(
            self,
            call,
            lambda record: self._spending.settle(call, record),
            lambda: self._spending.settle(call),
            lambda: self._spending.reserve(call, ask()),
        )

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
        if event_type == CBEventType.LLM:
            self._spending.check()
        return event_id

    @override
    def on_event_end(
        self,
        event_type: CBEventType,
        payload: dict[str, Any] | None = None,
        event_id: str = "",
        **kwargs: Any,
    ) -> None:
        """Nothing happens when an event ends; the call's record has come already."""

    @override
    def start_trace(self, trace_id: str | None = None) -> None:
        """Nothing happens when a trace starts."""

    @override
    def end_trace(self, trace_id: str | None = None, trace_map: dict[str, list[str]] | None = None) -> None:
        """Nothing happens when a trace ends."""
