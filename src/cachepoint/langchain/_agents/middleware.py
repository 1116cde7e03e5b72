"""`PromptCacheMiddleware`: an agent whose requests begin the same from one step to the next."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Generator, Mapping, Sequence
from math import inf
from typing import Annotated, Any, NotRequired, TypedDict, TypeVar

from langchain.agents.middleware.types import (
    AgentMiddleware,
    AgentState,
    ExtendedModelResponse,
    ModelRequest,
    ModelResponse,
    OmitFromInput,
    PrivateStateAttr,
)
from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langgraph.runtime import Runtime
from langgraph.types import Command
from typing_extensions import override  # a dependency of langchain-core

from cachepoint.bedrock.swallowed import forgive, swallow
from cachepoint.core.prompt.volatile import looks_volatile
from cachepoint.errors import ConfigurationError
from cachepoint.langchain._agents.history import (
    KEEP,
    Count,
    clear_in_chunks,
    estimated_tokens,
    start_of_chunk,
    trim_in_chunks,
    with_question,
)
from cachepoint.langchain._agents.tools import in_stable_order
from cachepoint.langchain._cost.agent_run import nothing_spent, spent_after
from cachepoint.langchain._request.cache_control import blocks_of, carries_mark, marked_at_end
from cachepoint.langchain._request.carried import hinted

SUMMARISE = (
    "The conversation so far is about to be replaced by your summary of it. Call no tool. Write down what the user "
    "wants, what was found and decided and why, what was made or changed, and what is left to do."
)
_SUMMARY = "Summary of the conversation so far:\n\n"


class Summary(TypedDict):
    """What stands in place of the messages before the one with the id `until`."""

    text: str
    until: str


class PromptCacheState(AgentState[Any]):
    """What the middleware adds to an agent's state: what its run cost, and a summary of its history."""

    prompt_cache: NotRequired[Annotated[dict[str, Any], OmitFromInput]]
    prompt_cache_summary: NotRequired[Annotated[Summary | None, PrivateStateAttr]]


_R = TypeVar("_R")
Flow = Generator[ModelRequest[Any], ModelResponse[Any], ExtendedModelResponse[Any]]


class PromptCacheMiddleware(AgentMiddleware[PromptCacheState, Any, Any]):
    """Keeps what an agent sends the same from call to call, so that its prefix is read; goes last in `middleware`.

    Tools get a stable order and canonical schemas. Blocks of the system prompt that change go behind those that do not.
    The messages in the agent's state stay as they are; what is sent of them is shortened in chunks:

    - `clear_at`: above so many tokens of history the oldest tool results are cleared, but for those of the tools
      `keep_results_of`;
    - `summarise_at`: above so many the oldest messages are replaced by a summary, which the model writes behind the
      history it has in the cache;
    - `trim_at`: above so many the oldest messages are left out.

    Each goes down to a share `keep` of its limit. `count` says how many tokens a message has. `volatile` makes the text
    of what changes from call to call, such as the time; it is sent last and is no part of any prefix. The state's
    `prompt_cache` has what the run cost, under the names of `CacheLedger.totals().to_dict()`.

    Checkpoints are the model's affair: use `CacheAwareChatBedrockConverse`, or any model with a caching middleware.
    """

    state_schema = PromptCacheState

    def __init__(
        self,
        *,
        clear_at: int | None = None,
        summarise_at: int | None = None,
        trim_at: int | None = None,
        keep: float = KEEP,
        keep_results_of: Sequence[str] = (),
        count: Count = estimated_tokens,
        volatile: Callable[[ModelRequest[Any]], str] | None = None,
    ) -> None:
        super().__init__()
        limits: dict[str, Any] = {"clear_at": clear_at, "summarise_at": summarise_at, "trim_at": trim_at}
        share: Any = keep
        for name, limit in limits.items():
            if limit is not None and not (isinstance(limit, int | float) and 1 <= limit < inf and limit is not True):
                raise ConfigurationError(f"PromptCacheMiddleware({name}={limit!r}): give a number of tokens, 1 or more")
        spared: Any = keep_results_of
        if isinstance(spared, str) or not (
            isinstance(spared, Collection) and all(isinstance(each, str) for each in spared)
        ):
            raise ConfigurationError(
                f"PromptCacheMiddleware(keep_results_of={spared!r:.80}): give names of tools, such as ('search',)"
            )
        if not (isinstance(share, int | float) and 0 < share < 1):
            raise ConfigurationError(f"PromptCacheMiddleware(keep={keep!r}): give a share of the limits, such as 0.5")
        for name, function in (("count", count), ("volatile", volatile)):
            if function is not None and not callable(function):
                raise ConfigurationError(f"PromptCacheMiddleware({name}={function!r:.80}): give a function")
        self._clear_at = clear_at
        self._summarise_at = summarise_at
        self._trim_at = trim_at
        self._keep = keep
        self._keep_results_of = tuple(keep_results_of)
        self._count = count
        self._volatile = volatile

    @override
    def before_agent(self, state: PromptCacheState, runtime: Runtime[Any]) -> dict[str, Any]:
        return {"prompt_cache": nothing_spent()}

    @override
    async def abefore_agent(self, state: PromptCacheState, runtime: Runtime[Any]) -> dict[str, Any]:
        return self.before_agent(state, runtime)

    @override
    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> ExtendedModelResponse[Any]:
        flow = self._flow(request)
        asked = next(flow)
        while True:
            answer = handler(asked)
            try:
                asked = flow.send(answer)
            except StopIteration as done:
                result: ExtendedModelResponse[Any] = done.value
                return result

    @override
    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]
    ) -> ExtendedModelResponse[Any]:
        flow = self._flow(request)
        asked = next(flow)
        while True:
            answer = await handler(asked)
            try:
                asked = flow.send(answer)
            except StopIteration as done:
                result: ExtendedModelResponse[Any] = done.value
                return result

    def _flow(self, request: ModelRequest[Any]) -> Flow:
        """The calls of one step: yields what to ask the model and is sent its answers."""
        state: Mapping[str, Any] = request.state
        spent = state.get("prompt_cache") or nothing_spent()
        summary: Summary | None = state.get("prompt_cache_summary")
        request = request.override(
            tools=in_stable_order(request.tools), system_message=_volatile_last(request.system_message)
        )
        messages = _summarised(request.messages, summary)
        if until := self._to_summarise(request.messages[_begin(request.messages, summary) :]):
            asked = [*self._shortened(messages), HumanMessage(SUMMARISE)]
            answer = yield request.override(messages=asked, response_format=None)
            spent = _spent_after(spent, answer, request)
            if text := _text(answer):  # a model that calls a tool all the same has summed up nothing
                summary = Summary(text=text, until=until)
                messages = _summarised(request.messages, summary)
        answer = yield request.override(messages=self._with_volatile(request, self._shortened(messages)))
        update = {"prompt_cache": _spent_after(spent, answer, request), "prompt_cache_summary": summary}
        return ExtendedModelResponse(answer, Command(update=update))

    def _to_summarise(self, messages: Sequence[BaseMessage]) -> str | None:
        """The id of the message up to which a summary is due."""
        at = self._summarise_at
        if at is None:
            return None
        start = _users_own("count", lambda: start_of_chunk(messages, at, keep=self._keep, count=self._count), 0)
        return messages[start].id if start else None

    def _shortened(self, messages: Sequence[BaseMessage]) -> list[Any]:
        return _users_own("count", lambda: self._cut(messages), list(messages))

    def _cut(self, messages: Sequence[BaseMessage]) -> list[Any]:
        shorter = list(messages)
        if self._clear_at is not None:
            shorter = clear_in_chunks(
                shorter, self._clear_at, keep=self._keep, exclude=self._keep_results_of, count=self._count
            )
        if self._trim_at is not None:
            shorter = trim_in_chunks(shorter, self._trim_at, keep=self._keep, count=self._count)
        return shorter

    def _with_volatile(self, request: ModelRequest[Any], messages: list[AnyMessage]) -> list[AnyMessage]:
        volatile = self._volatile
        text = _users_own("volatile", lambda: volatile(request), "") if volatile else ""
        if not text or not messages:
            return messages
        *before, last = messages
        # Nothing else says that the end of the history is in front of this, where the next request will part.
        marked = marked_at_end(last) if isinstance(last, ToolMessage) else last
        # As a block, which is not merged with the text of a question before it.
        return [*before, marked, HumanMessage([{"type": "text", "text": text}])]


def _begin(messages: Sequence[BaseMessage], summary: Summary | None) -> int:
    """Where the messages begin that are not summed up; 0 where those that were are no longer there."""
    until = summary["until"] if summary else None
    return next((index for index, message in enumerate(messages) if until and message.id == until), 0)


def _summarised(messages: Sequence[BaseMessage], summary: Summary | None) -> list[Any]:
    """The messages with a summary in place of those it sums up."""
    begin = _begin(messages, summary)
    if not summary or not begin:
        return list(messages)
    return [HumanMessage(_SUMMARY + summary["text"]), *with_question(messages, begin)]


def _spent_after(spent: Mapping[str, Any], answer: ModelResponse[Any], request: ModelRequest[Any]) -> dict[str, Any]:
    sums = dict(spent)
    try:
        for message in answer.result:
            if isinstance(message, AIMessage):
                sums = spent_after(sums, message, request.model)
    except Exception as fault:  # noqa: BLE001 - counting must not make the call fail
        swallow(fault, "the sums of a run")
    return sums


def _users_own(name: str, function: Callable[[], _R], otherwise: _R) -> _R:
    """What a function of the user's gives; where it raises, the agent goes on without."""
    try:
        return function()
    except Exception as error:  # noqa: BLE001 - it is the user's, and must not make the call fail
        forgive(
            error,
            f"middleware:{name}",
            f"cachepoint: the middleware's `{name}` raised {type(error).__name__}; the request went out without "
            "what it is for",
        )
        return otherwise


def _text(answer: ModelResponse[Any]) -> str:
    return "\n".join(message.text for message in answer.result if isinstance(message, AIMessage)).strip()


def _volatile_last(system: SystemMessage | None) -> SystemMessage | None:
    """The system message with the blocks that look volatile behind the others; marked ones stay where they are."""
    if system is None or isinstance(system.content, str):
        return system
    blocks = blocks_of(system.content)
    volatile = [block for block in blocks if looks_volatile(str(block.get("text", "")))]
    static = [block for block in blocks if block not in volatile]
    if not volatile or not static or any(map(carries_mark, blocks)):
        return system
    return system.model_copy(update={"content": [*static[:-1], hinted(static[-1], "context_end"), *volatile]})
