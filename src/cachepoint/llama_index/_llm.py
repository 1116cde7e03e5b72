"""`CacheAwareBedrockConverse`: Amazon Bedrock's Converse API as a LlamaIndex LLM that caches prompts by itself.

Each call is a pure step to a request, the wrapped client's call, and a pure step from its response; the synchronous
and the asynchronous methods share both steps. `complete` calls what `chat` calls, not `chat` itself, so that LlamaIndex
sees one call and not two.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, closing
from functools import partial
from typing import Any, Self

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
    LLMMetadata,
)
from llama_index.core.bridge.pydantic import BaseModel, PrivateAttr, model_validator
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.core.llms.llm import ToolSelection
from llama_index.core.tools.types import BaseTool
from typing_extensions import override  # a dependency of llama-index-core

from cachepoint.bedrock.client import AsyncCacheClient, CacheClient, for_a_call, for_a_call_async
from cachepoint.bedrock.environment import mode_in_force, table_in_force
from cachepoint.bedrock.expectations import PARAMETER, expecting, said_by
from cachepoint.bedrock.pricing import estimate_of
from cachepoint.bedrock.settings import check_call
from cachepoint.bedrock.threads import InThreads, in_thread
from cachepoint.bedrock.wall_time import now_by
from cachepoint.bedrock.warn import warn, warn_once
from cachepoint.core.planning.expectation import Expectation
from cachepoint.core.prompt.prompt import Hints
from cachepoint.core.provider.prices import Cost
from cachepoint.core.provider.rules import TOOL_CHOICES, ModelFacts, parse_model_id
from cachepoint.core.provider.usage import Usage
from cachepoint.llama_index._clients import has_async_client
from cachepoint.llama_index._cost import announcing, list_prices, within_budgets
from cachepoint.llama_index._request.messages import Recipient, as_chat, said_on_messages, with_system_prompt
from cachepoint.llama_index._request.request import converse_request
from cachepoint.llama_index._request.responses import (
    StreamedResponse,
    amapped,
    chat_response,
    completion_response,
    mapped,
)
from cachepoint.llama_index._request.tools import (
    ToolChoice,
    first_call_only,
    tool_config,
    tool_selections,
    with_whole_calls,
)
from cachepoint.llama_index._settings import OURS, BedrockSettings
from cachepoint.llama_index._structured import StructuredBedrockConverse

_CONTEXT_WINDOW = 128_000
"""Tokens assumed for a model of which the table knows none: most models without caching have as many."""

_IGNORED = "{model}: `thinking` is ignored, because {why}; leave it out, or choose another model"


class CacheAwareBedrockConverse(BedrockSettings):
    """A function-calling LLM on Amazon Bedrock that places checkpoints where they pay and reports what they saved.

    It takes the place of `BedrockConverse`. `ChatResponse.additional_kwargs["prompt_cache"]` tells of each call what
    was read, written and saved; in a stream it is on the last chunk. What the service refuses raises botocore's errors.
    """

    _tool_required: bool = PrivateAttr(default=False)

    @classmethod
    def class_name(cls) -> str:
        """The name under which LlamaIndex serialises the class."""
        return "CacheAwareBedrockConverse"

    @property
    def metadata(self) -> LLMMetadata:
        """What LlamaIndex wants to know of the model; unknown models are served like any other."""
        facts, calls_tools = self._facts(self.model), self.is_function_calling_model
        return LLMMetadata(
            context_window=self.context_window or facts.context_window or _CONTEXT_WINDOW,
            num_output=self.max_tokens,
            is_chat_model=True,
            is_function_calling_model=facts.calls_tools if calls_tools is None else calls_tools,
            model_name=self.model,
        )

    # -- the eight methods ------------------------------------------------------------------------

    @override
    @llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Answer a chat; `kwargs` are options of this call, by LlamaIndex's or Converse's names."""
        return self._chat(messages, kwargs)

    @override
    @llm_chat_callback()
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        """Answer a chat in chunks; closing the generator ends the call."""
        return self._stream(messages, kwargs)

    @override
    @llm_chat_callback()
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """`chat`, without blocking the event loop."""
        return await self._achat(messages, kwargs)

    @override
    @llm_chat_callback()
    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseAsyncGen:
        """`stream_chat`, without blocking the event loop."""
        return await self._astream(messages, kwargs)

    @override
    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Answer a prompt, sent as one user message."""
        return completion_response(self._chat(as_chat(prompt), kwargs))

    @override
    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        """Answer a prompt in chunks."""
        return mapped(completion_response, self._stream(as_chat(prompt), kwargs))

    @override
    @llm_completion_callback()
    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """`complete`, without blocking the event loop."""
        return completion_response(await self._achat(as_chat(prompt), kwargs))

    @override
    @llm_completion_callback()
    async def astream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseAsyncGen:
        """`stream_complete`, without blocking the event loop."""
        return amapped(completion_response, await self._astream(as_chat(prompt), kwargs))

    # -- tools ------------------------------------------------------------------------------------

    @override
    def _prepare_chat_with_tools(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        tool_choice: ToolChoice = None,
        tool_caching: bool | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        messages = list(chat_history or ())
        if user_msg is not None:
            messages.append(ChatMessage(content=user_msg) if isinstance(user_msg, str) else user_msg)
        config = tool_config(
            tools,
            tool_choice,
            required=tool_required or self._tool_required,
            choices=self._tool_choices(kwargs),
            mark_end=self._places_asked_marks(asked=self.tool_caching if tool_caching is None else tool_caching),
        )
        return {"messages": messages, "tools": config, **kwargs}

    @override
    def _validate_chat_with_tools_response(
        self,
        response: ChatResponse,
        tools: Sequence[BaseTool],
        allow_parallel_tool_calls: bool = False,
        **kwargs: Any,
    ) -> ChatResponse:
        return response if allow_parallel_tool_calls else first_call_only(response)

    @override
    def stream_chat_with_tools(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        **kwargs: Any,
    ) -> ChatResponseGen:
        """`chat_with_tools` in chunks; where no parallel calls are allowed, later ones are left out of each."""
        chunks = super().stream_chat_with_tools(
            tools, user_msg, chat_history, verbose, allow_parallel_tool_calls, tool_required, **kwargs
        )
        chunks = chunks if allow_parallel_tool_calls else mapped(first_call_only, chunks)
        return mapped(with_whole_calls, chunks) if self._tool_required else chunks

    @override
    async def astream_chat_with_tools(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        **kwargs: Any,
    ) -> ChatResponseAsyncGen:
        """`stream_chat_with_tools`, without blocking the event loop."""
        chunks = await super().astream_chat_with_tools(
            tools, user_msg, chat_history, verbose, allow_parallel_tool_calls, tool_required, **kwargs
        )
        chunks = chunks if allow_parallel_tool_calls else amapped(first_call_only, chunks)
        return amapped(with_whole_calls, chunks) if self._tool_required else chunks

    @override
    def get_tool_calls_from_response(
        self, response: ChatResponse, error_on_no_tool_call: bool = True, **kwargs: Any
    ) -> list[ToolSelection]:
        """The tool calls of a response; without any, raises ValueError or gives an empty list.

        Raises InvalidToolCall where one was cut off: none is run with a part of its arguments.
        """
        selections = tool_selections(with_whole_calls(response))
        if error_on_no_tool_call and not selections:
            raise ValueError(
                "the response has no tool call; pass tool_required=True, or error_on_no_tool_call=False. A model that "
                "thinks cannot be forced to call: ask for the call in the prompt, or set thinking=None"
            )
        return selections

    @override
    def as_structured_llm(self, output_cls: type[BaseModel], **kwargs: Any) -> StructuredBedrockConverse:
        """An LLM that answers with objects of `output_cls`, through this one."""
        return StructuredBedrockConverse(
            **{"llm": self, "output_cls": output_cls, "callback_manager": self.callback_manager, **kwargs}
        )

    def _tool_choices(self, kwargs: dict[str, Any]) -> Sequence[str]:
        if self.supports_forced_tool_calls is not None:
            return TOOL_CHOICES if self.supports_forced_tool_calls else ("auto",)
        facts = self._facts(self._called_model(kwargs))
        thinking = self._thinking(kwargs)
        if thinking and thinking.get("type") != "disabled" and not facts.forced_tool_with_thinking:
            return ("auto",)
        return facts.tool_choices

    def _thinking(self, kwargs: dict[str, Any]) -> dict[str, Any] | None:
        """The thinking to ask for in a call; none, with a warning, where the model has no such."""
        asked: dict[str, Any] | None = {"thinking": self.thinking, **self.additional_kwargs, **kwargs}["thinking"]
        model = self._called_model(kwargs)
        why = _refused_thinking(self._facts(model), asked)
        if not why:
            return asked
        warn_once(f"thinking {model}", _IGNORED.format(model=model, why=why))
        return None

    @model_validator(mode="after")
    def _ask_for_no_thinking_that_is_refused(self) -> Self:
        if why := _refused_thinking(self._facts(self.model), self.thinking):
            warn(_IGNORED.format(model=self.model, why=why))
            self.thinking = None
        return self

    # Of a whole object LlamaIndex requires the tool; of a streamed one it does not, and the model may answer in words.

    @override
    def _structured_stream_call(self, *args: Any, **kwargs: Any) -> Any:
        return super(CacheAwareBedrockConverse, self._requiring_tools())._structured_stream_call(*args, **kwargs)

    @override
    async def _structured_astream_call(self, *args: Any, **kwargs: Any) -> Any:
        return await super(CacheAwareBedrockConverse, self._requiring_tools())._structured_astream_call(*args, **kwargs)

    def _requiring_tools(self) -> Self:
        twin = self.model_copy()
        twin._tool_required = True
        return twin

    # -- the steps of a call ----------------------------------------------------------------------

    def _request(
        self, messages: Sequence[ChatMessage], kwargs: dict[str, Any], *, stream: bool
    ) -> tuple[dict[str, Any], Hints]:
        check_call([*self.additional_kwargs, *kwargs], OURS)
        model = self._called_model(kwargs)
        facts = self._facts(model)
        options = {
            "max_tokens": self.max_tokens,
            "temperature": self.temperature if facts.temperature else None,
            "guardrail_identifier": self.guardrail_identifier,
            "guardrail_version": self.guardrail_version,
            "guardrail_stream_processing_mode": self.guardrail_stream_processing_mode,
            "trace": self.trace,
            **self.additional_kwargs,
            **kwargs,
            "thinking": self._thinking(kwargs),
            "model": model,
        }
        options.pop(PARAMETER, None)
        return converse_request(
            with_system_prompt(messages, self.system_prompt),
            options,
            recipient=self._recipient(model),
            stream=stream,
            mark_system=self._places_asked_marks(asked=self.system_prompt_caching),
        )

    def _expected(self, messages: Sequence[ChatMessage], kwargs: dict[str, Any]) -> Expectation:
        """What is said of requests to come: for every call, in this one, and on its messages."""
        said = [given.get(PARAMETER) for given in (self.additional_kwargs, kwargs)]
        return said_by([*said, said_on_messages(messages)])

    def _recipient(self, model: str) -> Recipient:
        facts = self._facts(model)
        return Recipient(
            base_model=parse_model_id(self._base_model(model)).base,
            # The wrapped client puts system messages where the service takes them, where it may change requests.
            system_role=self._requests_are_changed,
            replay=facts.replays_reasoning,
            calls_tools=facts.calls_tools,
        )

    def _facts(self, model: str) -> ModelFacts:
        rule = table_in_force().rules.resolve(self._base_model(model))
        return ModelFacts() if rule is None else rule.facts

    def _origin(self, kwargs: dict[str, Any]) -> str:
        """Who made the model that answers this call."""
        return self._recipient(self._called_model(kwargs)).provider

    def _called_model(self, kwargs: dict[str, Any]) -> str:
        named = kwargs.get("model") or self.additional_kwargs.get("model")
        return named or self.application_inference_profile_arn or self.model

    def _places_asked_marks(self, *, asked: bool) -> bool:
        # In mode "auto" the planner puts a checkpoint there if it pays.
        return asked and mode_in_force(self.prompt_cache).mode != "auto"

    def _wrapped(self, hints: Hints) -> CacheClient:
        client = self.client or self._clients.client(self._connection())
        return for_a_call(client, **self._wrapping(client, hints))

    async def _awrapped(self, hints: Hints) -> Any:
        if self.async_client is not None:
            return for_a_call_async(self.async_client, **self._wrapping(self.async_client, hints))
        # The credentials of a botocore session are for synchronous clients.
        if self.client is None and self.botocore_session is None and has_async_client():
            client = await self._clients.async_client(self._connection())
            return for_a_call_async(client, **self._wrapping(client, hints))
        return InThreads(await in_thread(partial(self._wrapped, hints)))

    @property
    def _requests_are_changed(self) -> bool:
        """Whether the wrapped client may change requests, whichever of the two clients is used."""
        policies = [self.prompt_cache]
        if "prompt_cache" not in self.model_fields_set:  # a client that is wrapped already keeps its own
            wrapped = (self.client, self.async_client)
            policies += [client.policy for client in wrapped if isinstance(client, CacheClient | AsyncCacheClient)]
        return all(mode_in_force(policy).mode in ("auto", "explicit") for policy in policies)

    def _wrapping(self, client: Any, hints: Hints) -> dict[str, Any]:
        ledger = announcing(self.ledger, self.callback_manager)
        settings: dict[str, Any] = {"ledger": ledger, "store": self.store, "hints": hints}
        # A client that is wrapped already keeps what nobody has set here.
        bare = not isinstance(client, CacheClient | AsyncCacheClient)
        if bare or "prompt_cache" in self.model_fields_set:
            settings["policy"] = self.prompt_cache
        if bare or "clock" in self.model_fields_set:
            settings["clock"] = self.clock
        if base_models := self._base_models():
            settings["base_models"] = base_models
        return settings

    def _within_budgets(self, request: dict[str, Any]) -> AbstractContextManager[None]:
        """A block for a call that budgets may stop; what it may cost is asked only where there is one."""

        def price(usage: Usage) -> Cost | None:
            model = self._base_model(request["modelId"])
            return list_prices().price(model, usage, at=now_by(self.clock), region=self.region_name)

        return within_budgets(self.callback_manager, lambda: estimate_of(price, request, request))

    def _chat(self, messages: Sequence[ChatMessage], kwargs: dict[str, Any]) -> ChatResponse:
        request, hints = self._request(messages, kwargs, stream=False)
        with expecting(self._expected(messages, kwargs)), self._within_budgets(request):
            return chat_response(self._wrapped(hints).converse(**request), self._origin(kwargs))

    async def _achat(self, messages: Sequence[ChatMessage], kwargs: dict[str, Any]) -> ChatResponse:
        # In a thread, for an image or a document may have to be fetched.
        request, hints = await in_thread(partial(self._request, messages, kwargs, stream=False))
        client = await self._awrapped(hints)
        with expecting(self._expected(messages, kwargs)), self._within_budgets(request):
            return chat_response(await client.converse(**request), self._origin(kwargs))

    def _stream(self, messages: Sequence[ChatMessage], kwargs: dict[str, Any]) -> ChatResponseGen:
        request, hints = self._request(messages, kwargs, stream=True)
        with expecting(self._expected(messages, kwargs)), self._within_budgets(request):
            response = self._wrapped(hints).converse_stream(**request)
        return _chunks(response["stream"], self._origin(kwargs))

    async def _astream(self, messages: Sequence[ChatMessage], kwargs: dict[str, Any]) -> ChatResponseAsyncGen:
        request, hints = await in_thread(partial(self._request, messages, kwargs, stream=True))
        client = await self._awrapped(hints)
        with expecting(self._expected(messages, kwargs)), self._within_budgets(request):
            response = await client.converse_stream(**request)
        return _achunks(response["stream"], self._origin(kwargs))


def _refused_thinking(facts: ModelFacts, asked: dict[str, Any] | None) -> str:
    """Why a model does not take a thinking configuration, "" where it does."""
    if asked and facts.thinking == "none":
        return "the model has no thinking"
    if asked and asked.get("type") == "adaptive" and "adaptive" not in facts.thinking_types:
        return "the model has no adaptive thinking"
    return ""


def _chunks(stream: Any, origin: str) -> ChatResponseGen:
    gathered = StreamedResponse(origin)
    with closing(stream):
        for event in stream:
            if chunk := gathered.add(event):
                yield chunk
        if chunk := gathered.broken_off():
            yield chunk


async def _achunks(stream: Any, origin: str) -> ChatResponseAsyncGen:
    gathered = StreamedResponse(origin)
    with closing(stream):
        async for event in stream:
            if chunk := gathered.add(event):
                yield chunk
        if chunk := gathered.broken_off():
            yield chunk
