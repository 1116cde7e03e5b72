"""`PromptCacheCallbackHandler`: what the calls of any chat model cost, saved and missed, by callback."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import partial
from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, LLMResult
from langchain_core.tracers.context import register_configure_hook

from cachepoint._forks import Lock
from cachepoint._later import later
from cachepoint.bedrock.blocks import in_block
from cachepoint.bedrock.bounded import Bounded
from cachepoint.bedrock.call import ABANDONED
from cachepoint.bedrock.listeners import Listener, call_off, listen
from cachepoint.bedrock.pricing import estimate_of
from cachepoint.bedrock.settings import check_options
from cachepoint.bedrock.swallowed import deliver, swallow
from cachepoint.bedrock.tags import current_tags
from cachepoint.bedrock.wall_time import now_by
from cachepoint.bedrock.warn import warn_once
from cachepoint.bedrock.wire.failures import LOST_BY_ANY_CLIENT
from cachepoint.core.accounts.budget import Budget, Spending
from cachepoint.core.accounts.ledger import CacheLedger, Sink
from cachepoint.core.accounts.record import CallRecord
from cachepoint.core.accounts.summary import LedgerReport
from cachepoint.core.provider.prices import Prices
from cachepoint.core.provider.rules import TTL
from cachepoint.errors import BudgetExceeded
from cachepoint.langchain._cost.langsmith import exact_costs
from cachepoint.langchain._cost.reported import Answer, ChatPrices, answered_from_cache, asked_ttl, tier_of
from cachepoint.langchain._cost.run_tags import SESSION, run_tags

RUN = "run"
RUNS_KEPT = 10_000
"""Runs and calls under way at once; LangChain does not tell the end of every run that is cancelled."""
_TOO_MANY = (
    f"cachepoint: more than {RUNS_KEPT:,} calls of one callback handler are under way, or were cancelled without "
    "LangChain telling so; the oldest are recorded as 'lost', and once more should they be answered. Give each request "
    "a handler of its own"
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


@dataclass
class _UnderWay:
    """A call that has not been counted yet: `heard` is its record where a client of ours made it and has ended it.

    `error` is how its run ended where that was told before the record.
    """

    started: _Started
    listener: Listener | None = None
    heard: CallRecord | None = None
    error: str | None = None

    @property
    def goes_on(self) -> bool:
        """Whether a client of ours is still at it."""
        return self.listener is not None and not self.listener.waits and self.heard is None


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
    - `budget_usd`: once so much is spent, or kept for calls under way, the next call raises BudgetExceeded before
      it is sent. A call under way counts at an estimate, its answer at `max_tokens` or else at 4,096 tokens; so
      does one that was cancelled, cut or lost. Calls of unknown price do not count.
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
        self._spending = Spending(Budget.of(budget_usd), lambda: self.ledger.spent)
        # LangChain logs and drops what a handler raises, unless it asks for more.
        self.raise_error = budget_usd is not None
        self._prices = ChatPrices(prices)
        self._base_models = dict(base_models or {})
        self._clock = clock
        # A finaliser may end runs in the middle of anything here, so what it takes out of these is under no lock.
        self._outermost: Bounded[UUID, UUID] = Bounded(RUNS_KEPT)
        self._started: dict[UUID, _UnderWay] = {}
        self._given_up: Bounded[UUID, _UnderWay] = Bounded(RUNS_KEPT)
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
        self._spending.check()

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
        """A call starts. Raises BudgetExceeded when the budget is spent, or kept for calls under way."""
        params = kwargs.get("invocation_params") or {}
        asked = messages[0] if messages else []
        outermost = self._outermost_of(run_id, parent_run_id)
        tags_of_call = {**current_tags(), **run_tags(metadata, tags), RUN: str(outermost)}
        started = _started(params, metadata or {}, asked, now_by(self._clock), tags_of_call)
        if self._spending.limited:
            self._reserve(run_id, started, asked, params)
        # Of several prompts in one run the calls may begin in any order; their messages tell what they can.
        alone = kwargs.get("batch_size", 1) == 1
        self._start(run_id, _UnderWay(started, self._listening(run_id) if alone else None))

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
        finish = partial(self._finish, run_id, kwargs.get("response"), error)
        if isinstance(error, GeneratorExit):  # which a finaliser raises in a generator that is collected
            self._put_off(run_id, partial(finish, ended=time.monotonic()))
        else:
            finish()

    def cancelled(self, error: BaseException, run_id: UUID) -> None:
        """A call of our own class was cancelled, of which LangChain tells no handler."""
        self._finish(run_id, None, error, ours=True)

    def _finish(
        self,
        run_id: UUID,
        response: LLMResult | None,
        error: BaseException | None,
        ended: float | None = None,
        *,
        ours: bool = False,
    ) -> None:
        """A run is over; where a client of ours is still at its call, that one will tell what it came to."""
        self.unwatch(run_id)
        call = self._started.get(run_id) or self._given_up.get(run_id)
        if call is None:
            return
        call.error = None if error is None else ABANDONED if isinstance(error, GeneratorExit) else type(error).__name__
        if (error is not None and call.goes_on) or not self._take(run_id):
            return
        message = _message(response)
        if message is not None and answered_from_cache(message.usage_metadata):
            with self._lock.held:
                self._answered_from_cache += 1
            self._spending.settle(run_id)
        elif error is not None and call.heard is not None:
            self._count(run_id, partial(self._of_our_client, call, call.heard))
        else:
            at_least = error is not None and not ours and _may_be_billed(error, message)
            self._count(run_id, partial(self._record, call, message, ended, at_least=at_least))

    def _hear(self, run_id: UUID, record: CallRecord) -> None:
        """A client of ours has ended the call of a run.

        It counts at once, for LangChain may never tell the end of a run that was cancelled or left. One that was
        refused may be made again in the same run, and counts with the end of that.
        """
        call = self._started.get(run_id) or self._given_up.get(run_id)
        if call is None:
            return
        call.heard = record
        if call.error is None and record.usage is None and not record.at_least:
            self._spending.settle(run_id)
        elif self._take(run_id):
            self.unwatch(run_id)
            self._count(run_id, partial(self._of_our_client, call, record))

    def _take(self, run_id: UUID) -> bool:
        """Whether a call is still to be counted, by whoever asks first."""
        return self._started.pop(run_id, None) is not None or self._given_up.pop(run_id, None) is not None

    def _count(self, run_id: UUID, make: Callable[[], CallRecord]) -> None:
        try:
            record = make()
        except Exception as fault:  # noqa: BLE001 - counting must not make the call fail
            swallow(fault, "counting a call")
            self._spending.settle(run_id)
            return
        deliver(self.ledger, record)
        self._spending.settle(run_id, record)

    # -- calls whose end LangChain does not tell --------------------------------------------------

    def _start(self, run_id: UUID, call: _UnderWay) -> None:
        self._started[run_id] = call
        self._watch(run_id)
        while len(self._started) > RUNS_KEPT:
            warn_once("runs:too_many", _TOO_MANY)
            with suppress(RuntimeError, StopIteration):  # another call has ended just now
                self._give_up(next(iter(self._started)), "lost")

    def _listening(self, run_id: UUID) -> Listener:
        """Has the client of ours that the call may go through tell its record."""
        listener = Listener(self, run_id, partial(self._hear, run_id), partial(self._call_off, run_id))
        listen(listener)
        return listener

    def _call_off(self, run_id: UUID) -> None:
        """A run does not start, for another handler's budget is spent."""
        self.unwatch(run_id)
        self._take(run_id)
        self._spending.settle(run_id)

    def _watch(self, run_id: UUID) -> None:
        """Give a call up when the asyncio task that runs here ends.

        LangChain does not tell that a call was cancelled that is no stream (langchain-core 1.5, `agenerate`).
        """
        try:
            task = asyncio.current_task()
        except RuntimeError:  # no event loop runs here
            return

        def ended(task: asyncio.Task[Any]) -> None:
            call = self._started.get(run_id)
            if call is not None:
                call.error = asyncio.CancelledError.__name__ if task.cancelled() else ABANDONED
                if not call.goes_on:
                    self._give_up(run_id, call.error)

        if task is not None:
            task.add_done_callback(ended)
            self._watched[run_id] = partial(task.remove_done_callback, ended)

    def unwatch(self, run_id: UUID) -> None:
        """The end of a call will be told, whatever becomes of the task it began in."""
        if (call_off := self._watched.pop(run_id, None)) is not None:
            call_off()

    def _put_off(self, run_id: UUID, step: Callable[[], object]) -> None:
        call = self._started.get(run_id)
        if call is not None:
            later(partial(call.started.context.copy().run, step))

    def _give_up(self, run_id: UUID, error: str) -> None:
        """A call is recorded without an answer; one that comes all the same is recorded for what it cost."""
        self.unwatch(run_id)
        call = self._started.pop(run_id, None)
        if call is not None:
            self._given_up[run_id] = call
            call.error = error
            self._count(run_id, partial(self._record, call, None, at_least=True))

    def _of_our_client(self, call: _UnderWay, record: CallRecord) -> CallRecord:
        """The record of a client of ours, as this handler names calls."""
        return replace(
            record,
            started=call.started.at,
            model=call.started.model,
            base_model=self._base_models.get(call.started.model),
            region=call.started.region,
            api=call.started.api,
            tags=call.started.tags,
            session=call.started.tags.get(SESSION),
            error=record.error if record.usage is not None else call.error or record.error,
        )

    def _record(
        self, call: _UnderWay, message: AIMessage | None, ended: float | None = None, *, at_least: bool
    ) -> CallRecord:
        """The record of a call by what its message tells."""
        started = call.started
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
            seconds=(time.monotonic() if ended is None else ended) - started.clock,
            model=answer.model,
            base_model=answer.base_model,
            region=started.region,
            api=started.api,
            tags=started.tags,
            session=started.tags.get(SESSION),
            error=call.error,
            at_least=at_least,
            **answer.told._asdict(),
        )

    # -- the budget -------------------------------------------------------------------------------

    def _reserve(self, run_id: UUID, started: _Started, asked: list[BaseMessage], params: Mapping[str, Any]) -> None:
        """Keep what a call may cost; raises BudgetExceeded, of which handlers that were asked before are told."""
        try:
            self._spending.reserve(run_id, self._estimate(started, asked, params))
        except BudgetExceeded:
            call_off(run_id)
            raise

    def _estimate(self, started: _Started, asked: list[BaseMessage], params: Mapping[str, Any]) -> Decimal:
        price = partial(
            self._prices.price,
            provider=started.provider,
            model=self._base_models.get(started.model, started.model),
            at=started.at,
            tier=tier_of(params),
            region=started.region,
        )
        calls = [message.tool_calls for message in asked if isinstance(message, AIMessage)]
        contents = [message.content for message in asked]
        return estimate_of(price, [contents, calls, params.get("tools"), params.get("system")], params)


def _may_be_billed(error: BaseException, message: AIMessage | None) -> bool:
    """Whether a call that ended so may be billed for more than it told: it was left or lost, or was being answered."""
    return not isinstance(error, Exception) or type(error).__name__ in LOST_BY_ANY_CLIENT or message is not None


def _message(response: LLMResult | None) -> AIMessage | None:
    for generations in response.generations if response is not None else ():
        for generation in generations:
            if isinstance(generation, ChatGeneration) and isinstance(generation.message, AIMessage):
                return generation.message
    return None


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
