"""`PromptCacheCallbackHandler`: what the calls of any chat model cost, saved and missed, by callback."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, LLMResult
from langchain_core.tracers.context import register_configure_hook

from cachepoint.bedrock.blocks import in_block
from cachepoint.bedrock.call import ABANDONED
from cachepoint.bedrock.settings import check_options
from cachepoint.bedrock.swallowed import deliver, swallow
from cachepoint.bedrock.tags import current_tags
from cachepoint.bedrock.wall_time import now_by
from cachepoint.core.accounts.budget import Budget
from cachepoint.core.accounts.ledger import CacheLedger, Sink
from cachepoint.core.accounts.record import CallRecord
from cachepoint.core.accounts.summary import LedgerReport
from cachepoint.core.provider.prices import Prices
from cachepoint.core.provider.rules import TTL
from cachepoint.langchain._cost.langsmith import exact_costs
from cachepoint.langchain._cost.reported import Answer, ChatPrices, answered_from_cache, asked_ttl
from cachepoint.langchain._cost.run_tags import SESSION, run_tags

RUN = "run"
_TTL_UNREPORTED = "anthropic-bedrock-chat"
"""LangChain's name of the class whose streams do not tell the TTL of a write."""


@dataclass(frozen=True, slots=True)
class _Started:
    """What is known of a call when it starts."""

    at: float
    clock: float
    model: str
    provider: str | None
    region: str | None
    api: str
    ttl: TTL
    tags: Mapping[str, str]


def _started(
    params: Mapping[str, Any],
    metadata: Mapping[str, Any],
    messages: list[BaseMessage],
    at: float,
    tags: Mapping[str, str],
) -> _Started:
    api = str(params.get("_type") or "chat")
    invocation = metadata.get("ls_invocation_params")
    region = invocation.get("region_name") if isinstance(invocation, Mapping) else None
    return _Started(
        at=at,
        clock=time.monotonic(),
        model=str(metadata.get("ls_model_name") or params.get("model") or "unknown"),
        provider=metadata.get("ls_provider"),
        region=region or params.get("region_name"),
        api=api,
        ttl=asked_ttl(messages) if api == _TTL_UNREPORTED else "5m",
        tags=tags,
    )


class PromptCacheCallbackHandler(LedgerReport, BaseCallbackHandler):
    """Counts what chat models report of the cache: tokens, exact cost, saving, hit rate, misses.

    Works with every chat model that reports LangChain's usage; those of cachepoint also tell misses.
    `by(key)` groups by `model`, `run` (the outermost run's id), `tag`, `session`, or any metadata key.
    An answer from LangChain's LLM cache is no call; `answered_from_cache` counts them.

    - `on_call`: a function, or several, called with each `CallRecord`.
    - `budget_usd`: once so much is spent, the next call raises BudgetExceeded before it is sent. Calls
      already under way go on; calls of unknown price do not count.
    - `prices`: of Bedrock's models that do not tell their cost; default `PriceBook()`. `base_models`: opaque
      ARNs to model ids.
    - `clock`: wall time in seconds.
    """

    run_inline = True  # in the order of events also under asyncio, and in the context of the call

    def __init__(
        self,
        *,
        on_call: Sink | Sequence[Sink] | None = None,
        budget_usd: Decimal | float | str | None = None,
        prices: Prices | None = None,
        base_models: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__()
        check_options({"prices": prices, "base_models": base_models, "clock": clock})
        self.ledger = CacheLedger(on_call=on_call)
        self._budget = Budget.of(budget_usd)
        # LangChain logs and drops what a handler raises, unless it asks for more.
        self.raise_error = budget_usd is not None
        self._prices = ChatPrices(prices)
        self._base_models = dict(base_models or {})
        self._clock = clock
        self._lock = threading.Lock()
        self._outermost: dict[UUID, UUID] = {}
        self._started: dict[UUID, _Started] = {}
        self._answered_from_cache = 0

    @property
    def answered_from_cache(self) -> int:
        """How many answers came from LangChain's LLM cache, at no cost."""
        with self._lock:
            return self._answered_from_cache

    def to_dict(self) -> dict[str, Any]:
        """The sums, in all and by model, as plain JSON types."""
        return {**super().to_dict(), "answered_from_cache": self.answered_from_cache}

    def __str__(self) -> str:
        return self.summary()

    # -- runs -------------------------------------------------------------------------------------

    def on_chain_start(self, *_: Any, run_id: UUID, parent_run_id: UUID | None = None, **__: Any) -> None:
        """A chain, graph or agent starts."""
        self._enter(run_id, parent_run_id)

    def on_chain_end(self, *_: Any, run_id: UUID, **__: Any) -> None:
        """It ended."""
        self._leave(run_id)

    def on_chain_error(self, *_: Any, run_id: UUID, **__: Any) -> None:
        """It failed."""
        self._leave(run_id)

    def on_tool_start(self, *_: Any, run_id: UUID, parent_run_id: UUID | None = None, **__: Any) -> None:
        """A tool starts; it may call models."""
        self._enter(run_id, parent_run_id)

    def on_tool_end(self, *_: Any, run_id: UUID, **__: Any) -> None:
        """It ended."""
        self._leave(run_id)

    def on_tool_error(self, *_: Any, run_id: UUID, **__: Any) -> None:
        """It failed."""
        self._leave(run_id)

    def on_retriever_start(self, *_: Any, run_id: UUID, parent_run_id: UUID | None = None, **__: Any) -> None:
        """A retriever starts; it may call models, as one that asks several queries does."""
        self._enter(run_id, parent_run_id)

    def on_retriever_end(self, *_: Any, run_id: UUID, **__: Any) -> None:
        """It ended."""
        self._leave(run_id)

    def on_retriever_error(self, *_: Any, run_id: UUID, **__: Any) -> None:
        """It failed."""
        self._leave(run_id)

    def _enter(self, run_id: UUID, parent: UUID | None) -> None:
        with self._lock:
            self._outermost[run_id] = run_id if parent is None else self._outermost.get(parent, parent)

    def _leave(self, run_id: UUID) -> None:
        with self._lock:
            self._outermost.pop(run_id, None)

    # -- calls ------------------------------------------------------------------------------------

    def on_llm_start(self, *_: Any, **__: Any) -> None:
        """A text model starts: it reports no cache, but costs money. Raises BudgetExceeded."""
        self._budget.check(self.cost.usd)

    def on_chat_model_start(
        self,
        serialized: dict[str, Any],  # noqa: ARG002
        messages: list[list[BaseMessage]],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """A call starts. Raises BudgetExceeded when the budget is spent."""
        self._budget.check(self.cost.usd)
        params = kwargs.get("invocation_params") or {}
        asked = messages[0] if messages else []
        with self._lock:
            outermost = run_id if parent_run_id is None else self._outermost.get(parent_run_id, parent_run_id)
        tags_of_call = {**current_tags(), **run_tags(metadata, tags), RUN: str(outermost)}
        started = _started(params, metadata or {}, asked, now_by(self._clock), tags_of_call)
        with self._lock:
            self._started[run_id] = started

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **_: Any) -> None:
        """A call was answered."""
        self._finish(run_id, response, None)

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """A call failed, or its stream was not read to the end."""
        name = ABANDONED if isinstance(error, GeneratorExit) else type(error).__name__
        self._finish(run_id, kwargs.get("response"), name)

    def _finish(self, run_id: UUID, response: LLMResult | None, error: str | None) -> None:
        with self._lock:
            started = self._started.pop(run_id, None)
        if started is None:
            return
        try:
            message = _message(response)
            if message is not None and answered_from_cache(message.usage_metadata):
                with self._lock:
                    self._answered_from_cache += 1
                return
            record = self._record(started, message, error)
        except Exception as fault:  # noqa: BLE001 - counting must not make the call fail
            swallow(fault, "counting a call")
            return
        deliver(self.ledger, record)

    def _record(self, started: _Started, message: AIMessage | None, error: str | None) -> CallRecord:
        answer = Answer(
            self._prices,
            {} if message is None else message.response_metadata,
            None if message is None else message.usage_metadata,
            provider=started.provider,
            asked_model=started.model,
            region=started.region,
            at=started.at,
            base_models=self._base_models,
            unreported_ttl=started.ttl,
        )
        return CallRecord(
            started=started.at,
            seconds=time.monotonic() - started.clock,
            model=answer.model,
            base_model=answer.base_model,
            region=started.region,
            api=started.api,
            tags=started.tags,
            session=started.tags.get(SESSION),
            error=error,
            **answer.told._asdict(),
        )


def _message(response: LLMResult | None) -> AIMessage | None:
    for generations in response.generations if response is not None else ():
        for generation in generations:
            if isinstance(generation, ChatGeneration) and isinstance(generation.message, AIMessage):
                return generation.message
    return None


# -- as a context manager ---------------------------------------------------------------------------

_slots: list[ContextVar[PromptCacheCallbackHandler | None]] = []
_slots_lock = threading.Lock()


def _free_slot() -> ContextVar[PromptCacheCallbackHandler | None]:
    """A context variable that LangChain looks at and no enclosing block uses: as many as blocks are nested."""
    with _slots_lock:
        for slot in _slots:
            if slot.get() is None:
                return slot
        slot = ContextVar(f"cachepoint_tracking_{len(_slots)}", default=None)
        register_configure_hook(slot, inheritable=True)
        _slots.append(slot)
        return slot


@contextmanager
def get_prompt_cache_callback(
    *,
    on_call: Sink | Sequence[Sink] | None = None,
    budget_usd: Decimal | float | str | None = None,
    prices: Prices | None = None,
    base_models: Mapping[str, str] | None = None,
    clock: Callable[[], float] = time.time,
) -> Iterator[PromptCacheCallbackHandler]:
    """Count every chat model's calls in the block; the arguments are `PromptCacheCallbackHandler`'s.

    Blocks nest, and each counts what happens inside it. Runs that LangSmith traces there carry exact cost.
    """
    handler = PromptCacheCallbackHandler(
        on_call=on_call, budget_usd=budget_usd, prices=prices, base_models=base_models, clock=clock
    )
    with in_block(_free_slot(), handler), exact_costs(prices):
        yield handler
