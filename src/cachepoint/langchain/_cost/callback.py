"""`PromptCacheCallbackHandler`: what the calls of any chat model cost, saved and missed, by callback."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from typing import Any
from uuid import UUID
from weakref import finalize

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.callbacks.manager import BaseRunManager
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, Generation, LLMResult
from langchain_core.tracers.context import register_configure_hook

from cachepoint._forks import Lock
from cachepoint._later import later
from cachepoint.bedrock.blocks import in_block
from cachepoint.bedrock.bounded import Bounded
from cachepoint.bedrock.call import ABANDONED
from cachepoint.bedrock.swallowed import deliver, swallow
from cachepoint.bedrock.tags import current_tags
from cachepoint.bedrock.warn import warn_once
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
RUNS_KEPT = 10_000
"""Runs and calls under way at once; LangChain does not tell the end of every run that is cancelled."""
_TOO_MANY = (
    f"cachepoint: more than {RUNS_KEPT:,} calls of one callback handler are under way, or were cancelled without "
    "LangChain telling so; the oldest are recorded as 'lost', and once more should they be answered"
)
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
    context: Context = field(default_factory=copy_context)


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
        self.ledger = CacheLedger(on_call=on_call)
        self._budget = Budget.of(budget_usd)
        # LangChain logs and drops what a handler raises, unless it asks for more.
        self.raise_error = budget_usd is not None
        self._prices = ChatPrices(prices)
        self._base_models = dict(base_models or {})
        self._clock = clock
        # A finaliser may end runs in the middle of anything here, so what it takes out of these is under no lock.
        self._outermost: Bounded[UUID, UUID] = Bounded(RUNS_KEPT)
        self._started: dict[UUID, _Started] = {}
        self._given_up: Bounded[UUID, _Started] = Bounded(RUNS_KEPT)
        self._watched: dict[UUID, Callable[[], object]] = {}
        self._lock = Lock(self._in_child)
        self._answered_from_cache = 0

    def _in_child(self) -> None:
        """A child process counts its own calls; those under way are its parent's."""
        for table in (self._started, self._given_up, self._watched):
            table.clear()
        self._answered_from_cache = 0

    @property
    def answered_from_cache(self) -> int:
        """How many answers came from LangChain's LLM cache, at no cost."""
        with self._lock.held:
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
        self._outermost[run_id] = self._outermost_of(run_id, parent)

    def _outermost_of(self, run_id: UUID, parent: UUID | None) -> UUID:
        if parent is None:
            return run_id
        outermost = self._outermost.pop(parent, None)
        if outermost is None:
            return parent
        self._outermost[parent] = outermost  # as one of the latest: it is still at work
        return outermost

    def _leave(self, run_id: UUID) -> None:
        self._outermost.pop(run_id, None)

    # -- calls ------------------------------------------------------------------------------------

    def on_llm_start(self, *_: Any, **__: Any) -> None:
        """A text model starts: it reports no cache, but costs money. Raises BudgetExceeded."""
        self._budget.check(self.ledger.spent)

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
        self._budget.check(self.ledger.spent)
        params = kwargs.get("invocation_params") or {}
        asked = messages[0] if messages else []
        outermost = self._outermost_of(run_id, parent_run_id)
        tags_of_call = {**current_tags(), **run_tags(metadata, tags), RUN: str(outermost)}
        started = _started(params, metadata or {}, asked, self._clock(), tags_of_call)
        self._start(run_id, started)

    def on_llm_new_token(self, *_: Any, run_id: UUID, **__: Any) -> None:
        """A stream has begun; its end is told, whichever task it is in."""
        self.unwatch(run_id)

    def on_stream_event(self, *_: Any, run_id: UUID, **__: Any) -> None:
        """The same for a stream of events."""
        self.unwatch(run_id)

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **_: Any) -> None:
        """A call was answered."""
        self._finish(run_id, response, None)

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """A call failed, or its stream was not read to the end."""
        if isinstance(error, GeneratorExit):  # which a finaliser raises in a generator that is collected
            self._put_off(run_id, partial(self._finish, run_id, kwargs.get("response"), ABANDONED, time.monotonic()))
        else:
            self._finish(run_id, kwargs.get("response"), type(error).__name__)

    def _finish(self, run_id: UUID, response: LLMResult | None, error: str | None, ended: float | None = None) -> None:
        self.unwatch(run_id)
        started = self._started.pop(run_id, None) or self._given_up.pop(run_id, None)
        if started is not None:
            self._count(started, response, error, ended)

    def _count(self, started: _Started, response: LLMResult | None, error: str | None, ended: float | None) -> None:
        try:
            message = _message(response)
            if message is not None and answered_from_cache(message.usage_metadata):
                with self._lock.held:
                    self._answered_from_cache += 1
                return
            record = self._record(started, message, error, time.monotonic() if ended is None else ended)
        except Exception as fault:  # noqa: BLE001 - counting must not make the call fail
            swallow(fault, "counting a call")
            return
        deliver(self.ledger, record)

    # -- calls whose end LangChain does not tell --------------------------------------------------

    def _start(self, run_id: UUID, started: _Started) -> None:
        self._started[run_id] = started
        self._watch(run_id)
        while len(self._started) > RUNS_KEPT:
            warn_once("runs:too_many", _TOO_MANY)
            with suppress(RuntimeError, StopIteration):  # another call has ended just now
                self._give_up(next(iter(self._started)), "lost")

    def _watch(self, run_id: UUID) -> None:
        """Give a call up when the asyncio task that runs here ends.

        LangChain does not tell that a call was cancelled that is no stream (langchain-core 1.5, `agenerate`).
        """
        try:
            task = asyncio.current_task()
        except RuntimeError:  # no event loop runs here
            return

        def ended(task: asyncio.Task[Any]) -> None:
            self._give_up(run_id, asyncio.CancelledError.__name__ if task.cancelled() else ABANDONED)

        if task is not None:
            task.add_done_callback(ended)
            self._watched[run_id] = partial(task.remove_done_callback, ended)

    def unwatch(self, run_id: UUID) -> None:
        """The end of a call will be told, whatever becomes of the task it began in."""
        if (call_off := self._watched.pop(run_id, None)) is not None:
            call_off()

    def _put_off(self, run_id: UUID, step: Callable[[], object]) -> None:
        started = self._started.get(run_id)
        if started is not None:
            later(partial(started.context.copy().run, step))

    def left(self, run_id: UUID) -> None:
        """Nothing more will be told of a run, of whatever kind; a finaliser may say so."""
        self._put_off(run_id, partial(self._give_up, run_id, ABANDONED, time.monotonic()))

    def _give_up(self, run_id: UUID, error: str, ended: float | None = None) -> None:
        """A call is recorded without an answer; one that comes all the same is recorded for what it cost."""
        self.unwatch(run_id)
        started = self._started.pop(run_id, None)
        if started is not None:
            self._given_up[run_id] = started
            self._count(started, None, error, ended)

    def _record(self, started: _Started, message: AIMessage | None, error: str | None, ended: float) -> CallRecord:
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
            seconds=ended - started.clock,
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


def watch(run: BaseRunManager | None) -> None:
    """Tell the handlers of a call of ours of its end when LangChain lets go of its run, should nothing else tell them.

    Its end is that of the thread it is in, not of the task that waited for it.
    """
    if run is not None:
        for handler in _ours(run):
            handler.unwatch(run.run_id)
            finalize(run, handler.left, run.run_id).atexit = False


def tell(run: BaseRunManager | None, generations: Sequence[Generation]) -> None:
    """Tell the handlers of a run the answer to a call for which nobody waits any more."""
    if run is not None:
        for handler in _ours(run):
            handler.on_llm_end(LLMResult(generations=[list(generations)]), run_id=run.run_id)


def _ours(run: BaseRunManager) -> list[PromptCacheCallbackHandler]:
    return [handler for handler in run.handlers if isinstance(handler, PromptCacheCallbackHandler)]


# -- as a context manager ---------------------------------------------------------------------------

_slots: list[ContextVar[PromptCacheCallbackHandler | None]] = []
_slots_lock = Lock()


def _free_slot() -> ContextVar[PromptCacheCallbackHandler | None]:
    """A context variable that LangChain looks at and no enclosing block uses: as many as blocks are nested."""
    with _slots_lock.held:
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
