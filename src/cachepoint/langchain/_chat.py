"""`CacheAwareChatBedrockConverse`: `ChatBedrockConverse` whose calls are planned, recorded and explained."""

from __future__ import annotations

import time
from asyncio import CancelledError
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Self

from langchain_aws import ChatBedrockConverse
from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.language_models.base import LangSmithParams
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult, LLMResult
from langchain_core.runnables import Runnable, RunnableConfig, ensure_config
from langchain_core.utils import get_pydantic_field_names
from pydantic import (
    BeforeValidator,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    SecretStr,
    SkipValidation,
    field_serializer,
    model_validator,
)

from cachepoint.bedrock.bounded import Bounded
from cachepoint.bedrock.client import CacheClient, check_client, for_a_call
from cachepoint.bedrock.environment import mode_in_force, prices_by, stated_table, table_in_force
from cachepoint.bedrock.fan_out import fan_out
from cachepoint.bedrock.mending import mended
from cachepoint.bedrock.settings import check_call, check_model, check_names, configuration_errors
from cachepoint.bedrock.swallowed import swallow
from cachepoint.bedrock.threads import PausingClient, ThreadedStream, in_thread
from cachepoint.bedrock.warn import KEYS_KEPT, on_behalf_of_caller, warn
from cachepoint.bedrock.wire.cache_point import is_cache_point
from cachepoint.core.accounts.ledger import CacheLedger
from cachepoint.core.planning.expectation import NOTHING_SAID, Expectation
from cachepoint.core.planning.policy import CachePolicy
from cachepoint.core.prompt.prompt import Hints
from cachepoint.core.provider.rules import TTL, ModelFacts, parse_model_id
from cachepoint.errors import ConfigurationError
from cachepoint.langchain._cost.callback import PromptCacheCallbackHandler
from cachepoint.langchain._cost.reported import told_of
from cachepoint.langchain._cost.run_tags import run_tags
from cachepoint.langchain._request.cache_control import ending_in_a_mark, mark_messages, mark_system, mark_tools
from cachepoint.langchain._request.call_client import CallClient, as_given
from cachepoint.langchain._request.carried import carry_hints
from cachepoint.langchain._request.cut_calls import CutCalls, without_cut_call
from cachepoint.langchain._request.expected import said_in_config, said_on_messages
from cachepoint.langchain._request.system_turns import carry_late, has_late, keep_boundaries
from cachepoint.store._base import Store
from cachepoint.store._memory import MemoryStore

if TYPE_CHECKING:
    from langchain_core.language_models.chat_models import _ChatModelBinding

_WRAPPED = {"prompt_cache": "policy_given", "ledger": "ledger", "store": "store", "clock": "clock"}
_SHARED = ("client", "bedrock_client", "ledger", "store", "clock")
"""Fields that belong to this process: copies share them, pickles leave them out."""
_TRANSPORT = frozenset({"config", "timeout", "max_retries", "endpoint_url", "default_headers"})
_MODEL_KWARGS = ("model", "model_id", "modelId")


class CacheAwareChatBedrockConverse(ChatBedrockConverse):
    """`ChatBedrockConverse` with checkpoints where they pay; takes all of its parameters, and four more.

    `prompt_cache` says how to cache; what `CachePolicy.of` takes will do. Every call lands in `ledger`, and
    what it read, wrote, cost and saved is in `AIMessage.response_metadata["prompt_cache"]`.
    `store` keeps what was learned of the traffic; `clock` gives wall time in seconds.

    `cache_control`, here, in a call or by `BedrockPromptCachingMiddleware`, means "cache, with this TTL"
    and leaves the placing to cachepoint; on a content block or a tool it asks for a checkpoint after it.
    In the modes "observe" and "off" requests are the parent's own.
    """

    prompt_cache: Annotated[CachePolicy, BeforeValidator(CachePolicy.of)] = Field(default_factory=CachePolicy)
    # What these are is checked below, as `wrap` does, which says what to pass instead.
    ledger: SkipValidation[CacheLedger] = Field(default_factory=CacheLedger, exclude=True, repr=False)
    store: SkipValidation[Store] = Field(default_factory=MemoryStore, exclude=True, repr=False)
    clock: SkipValidation[Callable[[], float]] = Field(default=time.time, exclude=True, repr=False)

    _hoisted: Bounded[str, None] = PrivateAttr(default_factory=lambda: Bounded(KEYS_KEPT))
    """Models whose late system messages went to the front, of which the user was warned."""

    @field_serializer("prompt_cache")
    def _plain_policy(self, policy: CachePolicy) -> dict[str, Any]:
        return policy.to_dict()

    _run: dict[str, str] = PrivateAttr(default_factory=dict)
    """Tags of the run that a stream belongs to."""
    _expected: Expectation = PrivateAttr(default=NOTHING_SAID)
    """What the config of a run says of requests to come."""

    if not TYPE_CHECKING:  # a checker makes the signature of the fields

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            with configuration_errors():
                super().__init__(*args, **kwargs)

    @model_validator(mode="before")
    @classmethod
    def _take_our_names(cls, values: Any) -> Any:
        """`cache_control` goes into the policy; a name that is nearly ours is an error; None stands for a default.

        The parent would send a field it does not know to the model.
        """
        if not isinstance(values, dict):
            return values
        values = {name: value for name, value in values.items() if value is not None or name not in _WRAPPED}
        for name in ("model", "model_id", "base_model", "base_model_id"):
            if not isinstance(values.get(name), str | None):
                raise ConfigurationError(f"{name}={values[name]!r:.80}: give a model's id, as text")
        if "cache_control" in values:
            policy = CachePolicy.of(values.get("prompt_cache"))
            values["prompt_cache"] = policy.asked(values.pop("cache_control"))
        check_names(values, get_pydantic_field_names(cls), _WRAPPED, others=True)
        return values

    @model_validator(mode="after")
    def _check_ours(self) -> Self:
        check_model(self.prompt_cache, ledger=self.ledger, store=self.store, clock=self.clock)
        check_client(self.client, "client")
        return self

    @model_validator(mode="after")
    def _adopt_wrapped_client(self) -> Self:
        """A client that is wrapped already keeps what nobody has set here."""
        if isinstance(self.client, CacheClient):
            for name in {*_WRAPPED} - self.model_fields_set:
                setattr(self, name, getattr(self.client, _WRAPPED[name]))
        return self

    @model_validator(mode="wrap")
    @classmethod
    def _force_no_tool_that_is_refused(cls, values: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        # The parent's own list (langchain-aws 1.9.1 utils.py:568) lacks the models of which only the table knows it.
        model = handler(values)
        chosen = isinstance(values, dict) and values.get("supports_tool_choice_values") is not None
        rule = stated_table().rules.resolve(model.base_model_id or model.model_id)
        if not chosen and rule is not None:
            parents = model.supports_tool_choice_values or ()
            model.supports_tool_choice_values = tuple(each for each in parents if each in rule.facts.tool_choices)
        return model

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        call, messages, kwargs = self._for_call(messages, kwargs, run_manager)
        result = super(CacheAwareChatBedrockConverse, call)._generate(messages, stop, run_manager, **kwargs)
        for generation in result.generations:
            _unset_missing_usage(generation.message)
            without_cut_call(generation.message)
        return result

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        call, messages, kwargs = self._for_call(messages, kwargs, run_manager)
        chunks = super(CacheAwareChatBedrockConverse, call)._stream(messages, stop, run_manager, **kwargs)
        for chunk in CutCalls(run_manager).passing(chunks):
            _unset_missing_usage(chunk.message)
            yield chunk

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        run = run_manager.get_sync() if run_manager else None
        call, messages, kwargs = self._for_call(messages, kwargs, run, pausing=True)

        def generate() -> ChatResult:
            return super(CacheAwareChatBedrockConverse, call)._generate(messages, stop, run, **kwargs)

        with _telling_of_a_cancel(run_manager):
            result = await in_thread(generate)
        for generation in result.generations:
            _unset_missing_usage(generation.message)
            without_cut_call(generation.message)
        return result

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        run = run_manager.get_sync() if run_manager else None
        call, messages, kwargs = self._for_call(messages, kwargs, run, pausing=True)

        def begin() -> Iterator[ChatGenerationChunk]:
            chunks = super(CacheAwareChatBedrockConverse, call)._stream(messages, stop, run, **kwargs)
            chunks = CutCalls(run).passing(chunks)
            first = next(chunks, None)  # which sends the request
            return _preceded(first, chunks)

        with closing(ThreadedStream[ChatGenerationChunk](await in_thread(begin))) as chunks:
            async for chunk in chunks:
                _unset_missing_usage(chunk.message)
                yield chunk

    async def agenerate(self, *args: Any, **kwargs: Any) -> LLMResult:
        """As the parent's, which makes a task of each call; warnings are at the line that awaits them all the same."""
        with on_behalf_of_caller():
            return await super().agenerate(*args, **kwargs)

    def batch(self, inputs: list[Any], *args: Any, **kwargs: Any) -> list[AIMessage]:
        """As the parent's; of calls on one cold prefix the first to arrive writes it and the others read."""
        with fan_out(), on_behalf_of_caller():
            return super().batch(inputs, *args, **kwargs)

    async def abatch(self, inputs: list[Any], *args: Any, **kwargs: Any) -> list[AIMessage]:
        """As `batch`; calls that wait do so on the event loop."""
        with fan_out(), on_behalf_of_caller():
            return await super().abatch(inputs, *args, **kwargs)

    def batch_as_completed(self, inputs: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
        """As `batch`, in the order of completion."""
        with fan_out(), on_behalf_of_caller():
            yield from super().batch_as_completed(inputs, *args, **kwargs)

    async def abatch_as_completed(self, inputs: Any, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        """As `abatch`, in the order of completion."""
        with fan_out(), on_behalf_of_caller():
            async for result in super().abatch_as_completed(inputs, *args, **kwargs):
                yield result

    def warm(
        self,
        messages: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        tools: Sequence[Any] = (),
        ttl: TTL | None = None,
    ) -> AIMessage:
        """Write a prefix ahead of time: all of these messages, and the tools, for the calls that will start so.

        Sends one request for one token of output, which is billed. `ttl` defaults to the policy's.
        Returns its answer; `response_metadata["prompt_cache"]` says what was written.
        """
        model = self.bind_tools(tools) if tools else self
        return model.invoke(ending_in_a_mark(self._convert_input(messages).to_messages(), ttl), config, max_tokens=1)

    async def awarm(
        self,
        messages: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        tools: Sequence[Any] = (),
        ttl: TTL | None = None,
    ) -> AIMessage:
        """As `warm`."""
        model = self.bind_tools(tools) if tools else self
        marked = ending_in_a_mark(self._convert_input(messages).to_messages(), ttl)
        return await model.ainvoke(marked, config, max_tokens=1)

    def invoke(
        self,
        input: LanguageModelInput,  # noqa: A002 - the parent's name
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AIMessage:
        """As the parent's, which does not tell `_generate` of its config."""
        call = self._expecting(config)
        return super(CacheAwareChatBedrockConverse, call).invoke(input, config, stop=stop, **kwargs)

    async def ainvoke(
        self,
        input: LanguageModelInput,  # noqa: A002 - the parent's name
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AIMessage:
        """As the parent's, which does not tell `_agenerate` of its config."""
        call = self._expecting(config)
        return await super(CacheAwareChatBedrockConverse, call).ainvoke(input, config, stop=stop, **kwargs)

    def stream(
        self,
        input: LanguageModelInput,  # noqa: A002 - the parent's name
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> Iterator[AIMessageChunk]:
        """As the parent's, which does not tell `_stream` of its run."""
        call = self._in_run(config)
        return super(CacheAwareChatBedrockConverse, call).stream(input, config, stop=stop, **kwargs)

    def astream(
        self,
        input: LanguageModelInput,  # noqa: A002 - the parent's name
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[AIMessageChunk]:
        """As the parent's, which does not tell `_stream` of its run."""
        call = self._in_run(config)
        return super(CacheAwareChatBedrockConverse, call).astream(input, config, stop=stop, **kwargs)

    def bind(self, **kwargs: Any) -> _ChatModelBinding:
        """Bind arguments; a `cache_control` among them survives a later `bind_tools` or `with_structured_output`."""
        return super(CacheAwareChatBedrockConverse, self._caching(kwargs)).bind(**kwargs)

    def bind_tools(
        self, tools: Sequence[Any], *, tool_choice: Any = None, **kwargs: Any
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Bind tools; a `cache_control` on a tool, or in its `extras`, asks for a checkpoint after it."""
        marked = mark_tools(tools) if self._changes_requests else tools
        return super().bind_tools(marked, tool_choice=tool_choice, **kwargs)

    def with_structured_output(
        self, schema: Any, *, include_raw: bool = False, **kwargs: Any
    ) -> Runnable[LanguageModelInput, Any]:
        """As the parent's; a `cache_control` holds here too."""
        kwargs["include_raw"] = include_raw
        model = self._caching(kwargs)
        kwargs.pop("cache_control", None)
        return super(CacheAwareChatBedrockConverse, model).with_structured_output(schema, **kwargs)

    def _in_run(self, config: RunnableConfig | None) -> Self:
        config = ensure_config(config)
        call = self._expecting(config).model_copy()
        call._run = run_tags(
            {**config.get("metadata", {}), **(self.metadata or {})}, [*config.get("tags", ()), *(self.tags or ())]
        )
        return call

    def _expecting(self, config: RunnableConfig | None) -> Self:
        """This model with what a config says of requests to come."""
        said = said_in_config(ensure_config(config))
        if said == NOTHING_SAID:
            return self
        call = self.model_copy()
        call._expected = said
        return call

    def _for_call(
        self,
        messages: list[BaseMessage],
        kwargs: Mapping[str, Any],
        run: CallbackManagerForLLMRun | None,
        *,
        pausing: bool = False,
    ) -> tuple[Self, list[BaseMessage], dict[str, Any]]:
        """This model as one call needs it, with a client that plans; and what to give to the parent."""
        check_call(kwargs, _WRAPPED)
        call = self._called(_named_model(kwargs) or self.model_id)
        kwargs = {name: value for name, value in kwargs.items() if name not in _MODEL_KWARGS}
        call._expected = said_on_messages(messages).inside(self._expected)
        messages = carry_hints(messages)
        if self._changes_requests:
            call.prompt_cache = self.prompt_cache.asked(kwargs.pop("cache_control", None))
            call.system = mark_system(self.system) if self.system else None
            messages = call._placed(messages)
            if kwargs.get("tools"):
                kwargs["tools"] = mark_tools(kwargs["tools"])
                free = kwargs.get("tool_choice") in (None, "auto", {"auto": {}})
                if free and all(map(is_cache_point, kwargs["tools"])):
                    # Without tools the parent makes text of the calls in a history, as the service wants it then.
                    kwargs = {name: value for name, value in kwargs.items() if name not in ("tools", "tool_choice")}
        call.client = call._connected(run_tags(run.metadata, run.tags) if run else self._run, pausing=pausing)
        return call, messages, kwargs

    def _called(self, model_id: str) -> Self:
        """This model under the id a call names, so that all the parent derives from the id fits."""
        if model_id == self.model_id:
            return self.model_copy()
        called = self.model_copy(update={"model_id": model_id, "base_model_id": None})
        if base := parse_model_id(model_id).base:
            called.provider = base.partition(".")[0]
        called.profile = called._resolve_model_profile()
        return called

    def _connected(self, run: Mapping[str, str], *, pausing: bool) -> CallClient:
        wrapped = partial(
            for_a_call,
            self.client,
            policy=self.prompt_cache,
            ledger=self.ledger,
            store=self.store,
            clock=self.clock,
            base_models={self.model_id: self.base_model_id} if self.base_model_id else None,
            control_client=self.bedrock_client,
        )

        def connect(hints: Hints) -> CacheClient:
            client = wrapped(hints=hints)
            return PausingClient(client) if pausing else client

        mend = self._mended if self._changes_requests else as_given
        return CallClient(connect, run=run, expected=self._expected, mend=mend)

    def _mended(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """The request that the parent built, without what the service is known to refuse of a history."""
        base = self.base_model_id or self.model_id
        rule = table_in_force().rules.resolve(base)
        replay = rule.facts.replays_reasoning if rule else ModelFacts().replays_reasoning
        try:
            messages = mended(request["messages"], parse_model_id(base).base, replay)
        except ConfigurationError:
            raise
        except Exception as problem:  # noqa: BLE001 - what is in a form of its own is for the service to refuse
            swallow(problem, "mending the history")
            return request
        return request if messages is request["messages"] else {**request, "messages": messages}

    @property
    def _changes_requests(self) -> bool:
        return mode_in_force(self.prompt_cache).mode in ("auto", "explicit")

    def _caching(self, kwargs: Mapping[str, Any]) -> Self:
        """This model, with the policy that a `cache_control` among these arguments asks for."""
        policy = self.prompt_cache.asked(kwargs.get("cache_control"))
        return self if policy == self.prompt_cache else self.model_copy(update={"prompt_cache": policy})

    def _placed(self, messages: Sequence[BaseMessage]) -> list[BaseMessage]:
        """The messages with the user's marks, and with system messages where the cache needs them."""
        placed = keep_boundaries(mark_messages(messages))
        if not has_late(placed):
            return placed
        if not self.guard_last_turn_only:
            return carry_late(placed)
        self._warn_hoisted()
        return placed

    def _warn_hoisted(self) -> None:
        if self.model_id in self._hoisted:
            return
        self._hoisted[self.model_id] = None
        warn(
            f"{self.model_id}: a system message that follows other messages goes to the front, because "
            "guard_last_turn_only would make it guarded content. Everything behind it is then written to the cache "
            "anew; put what changes into a user message."
        )

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy that shares clients, ledger, store and clock."""
        copied = super().model_copy(update=update, deep=deep)
        # langchain-core caches the settings it serialises, and keys its LLM cache with them.
        copied.__dict__.pop("_serialized", None)
        return copied

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        memo = {} if memo is None else memo
        memo.update({id(value): value for value in (getattr(self, name) for name in _SHARED)})
        return super().__deepcopy__(memo)

    def __getstate__(self) -> dict[Any, Any]:
        state = super().__getstate__()
        left_out = (*_SHARED, "_serialized")
        fields = {name: value for name, value in state["__dict__"].items() if name not in left_out}
        if not self.region_name:
            fields["region_name"] = getattr(getattr(self.client, "meta", None), "region_name", None)
        return {**state, "__dict__": fields}

    def __setstate__(self, state: dict[Any, Any]) -> None:
        super().__setstate__(state)
        for name in _SHARED:
            self.__dict__[name] = type(self).model_fields[name].get_default(call_default_factory=True)
        prices_by(table_in_force())  # read now, not in the first call
        self.validate_environment()  # type: ignore[operator]  # pydantic's validators can be called as methods

    @classmethod
    def get_lc_namespace(cls) -> list[str]:
        """Where `langchain_core.load` finds the class."""
        return ["cachepoint", "langchain"]

    @property
    def lc_attributes(self) -> dict[str, Any]:
        """The policy as plain JSON types."""
        return {"prompt_cache": self.prompt_cache.to_dict()}

    @property
    def _identifying_params(self) -> dict[str, Any]:
        """Every setting an answer may depend on; without secrets and what concerns the connection only."""
        values = {
            name: getattr(self, name)
            for name, field in type(self).model_fields.items()
            if name not in BaseChatModel.model_fields and name not in _TRANSPORT and not field.exclude
        }
        given = {name: each for name, each in values.items() if each is not None and not isinstance(each, SecretStr)}
        return {**super()._identifying_params, **given, "prompt_cache": self.prompt_cache.to_dict()}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        if named := _named_model(kwargs):
            kwargs["model"] = named
        return super()._get_ls_params(stop=stop, **kwargs)


@contextmanager
def _telling_of_a_cancel(run: AsyncCallbackManagerForLLMRun | None) -> Iterator[None]:
    """Tell our handlers of a call that is cancelled: LangChain, whose own await is cancelled too, tells none."""
    try:
        yield
    except CancelledError as error:
        for handler in run.handlers if run else ():
            if isinstance(handler, PromptCacheCallbackHandler):
                handler.cancelled(error, run.run_id)  # type: ignore[union-attr]  # there are handlers of a run only
        raise


def _named_model(kwargs: Mapping[str, Any]) -> str | None:
    return next((kwargs[name] for name in _MODEL_KWARGS if kwargs.get(name)), None)


def _preceded(first: ChatGenerationChunk | None, rest: Iterator[ChatGenerationChunk]) -> Iterator[ChatGenerationChunk]:
    """A stream whose first chunk has come already; closing it drops the rest, and so ends the call."""
    if first is not None:
        yield first
        yield from rest


def _unset_missing_usage(message: BaseMessage) -> None:
    # The parent makes zeros of a usage that never came; told are zeros of a question that a guardrail blocked.
    if isinstance(message, AIMessage) and message.usage_metadata and not message.usage_metadata["total_tokens"]:
        told = told_of(message.response_metadata)
        if told is None or told.usage is None:
            message.usage_metadata = None
