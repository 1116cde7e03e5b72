"""`CacheAwareBedrockConverse`: Amazon Bedrock's Converse API as a LlamaIndex LLM that caches prompts by itself.

Each call is a pure step to a request, the wrapped client's call, and a pure step from its response; the synchronous
and the asynchronous methods share both steps. `complete` calls what `chat` calls, not `chat` itself, so that LlamaIndex
sees one call and not two.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
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
from llama_index.core.bridge.pydantic import BaseModel, PrivateAttr
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.core.llms.llm import ToolSelection
from llama_index.core.tools.types import BaseTool
from typing_extensions import override  # a dependency of llama-index-core

from cachepoint.bedrock.client import AsyncCacheClient, CacheClient, wrap, wrap_async
from cachepoint.bedrock.expectations import PARAMETER, expecting, said_by
from cachepoint.bedrock.settings import in_environment
from cachepoint.bedrock.threads import InThreads, in_thread
from cachepoint.catalogue.table import load_rules
from cachepoint.core.planning.expectation import Expectation
from cachepoint.core.prompt.prompt import Hints
from cachepoint.core.provider.rules import ModelFacts
from cachepoint.llama_index._clients import has_async_client
from cachepoint.llama_index._cost import announcing
from cachepoint.llama_index._request.messages import as_chat, said_on_messages, with_system_prompt
from cachepoint.llama_index._request.request import converse_request
from cachepoint.llama_index._request.responses import (
    StreamedResponse,
    amapped,
    chat_response,
    completion_response,
    mapped,
)
from cachepoint.llama_index._request.tools import ToolChoice, first_call_only, tool_config, tool_selections
from cachepoint.llama_index._settings import BedrockSettings
from cachepoint.llama_index._structured import StructuredBedrockConverse

_CONTEXT_WINDOW = 128_000
"""Tokens assumed for a model of which the table knows none: most models without caching have as many."""


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
        return LLMMetadata(
            context_window=self.context_window or self._facts(self.model).context_window or _CONTEXT_WINDOW,
            num_output=self.max_tokens,
            is_chat_model=True,
            is_function_calling_model=self.is_function_calling_model,
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
            can_force=self._can_force_tools(kwargs),
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
        return chunks if allow_parallel_tool_calls else mapped(first_call_only, chunks)

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
        return chunks if allow_parallel_tool_calls else amapped(first_call_only, chunks)

    @override
    def get_tool_calls_from_response(
        self, response: ChatResponse, error_on_no_tool_call: bool = True, **kwargs: Any
    ) -> list[ToolSelection]:
        """The tool calls of a response; without any, raises ValueError or gives an empty list."""
        selections = tool_selections(response)
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

    def _can_force_tools(self, kwargs: dict[str, Any]) -> bool:
        if self.supports_forced_tool_calls is not None:
            return self.supports_forced_tool_calls
        # Claude refuses a forced tool while it thinks (langchain-aws 1.9.1 utils.py:575).
        thinking = {"thinking": self.thinking, **self.additional_kwargs, **kwargs}["thinking"]
        thinks = thinking is not None and thinking.get("type") != "disabled"
        return not thinks and self._facts(self._called_model(kwargs)).forced_tool

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
        model = self._called_model(kwargs)
        facts = self._facts(model)
        options = {
            "max_tokens": self.max_tokens,
            "temperature": self.temperature if facts.temperature else None,
            "thinking": self.thinking,
            "guardrail_identifier": self.guardrail_identifier,
            "guardrail_version": self.guardrail_version,
            "guardrail_stream_processing_mode": self.guardrail_stream_processing_mode,
            "trace": self.trace,
            **self.additional_kwargs,
            **kwargs,
            "model": model,
        }
        options.pop(PARAMETER, None)
        return converse_request(
            with_system_prompt(messages, self.system_prompt),
            options,
            stream=stream,
            # The wrapped client puts system messages where the service takes them, where it may change requests.
            system_role=self._requests_are_changed,
            mark_system=self._places_asked_marks(asked=self.system_prompt_caching),
        )

    def _expected(self, messages: Sequence[ChatMessage], kwargs: dict[str, Any]) -> Expectation:
        """What is said of requests to come: for every call, in this one, and on its messages."""
        said = [given.get(PARAMETER) for given in (self.additional_kwargs, kwargs)]
        return said_by([*said, said_on_messages(messages)])

    def _facts(self, model: str) -> ModelFacts:
        rule = load_rules().resolve(self._base_model(model))
        return ModelFacts() if rule is None else rule.facts

    def _called_model(self, kwargs: dict[str, Any]) -> str:
        named = kwargs.get("model") or self.additional_kwargs.get("model")
        return named or self.application_inference_profile_arn or self.model

    def _places_asked_marks(self, *, asked: bool) -> bool:
        # In mode "auto" the planner puts a checkpoint there if it pays.
        return asked and self.prompt_cache.mode != "auto"

    def _wrapped(self, hints: Hints) -> CacheClient:
        client = self.client or self._clients.client(self._connection())
        return wrap(client, **self._wrapping(client, hints))

    async def _awrapped(self, hints: Hints) -> Any:
        if self.async_client is not None:
            return wrap_async(self.async_client, **self._wrapping(self.async_client, hints))
        # The credentials of a botocore session are for synchronous clients.
        if self.client is None and self.botocore_session is None and has_async_client():
            client = await self._clients.async_client(self._connection())
            return wrap_async(client, **self._wrapping(client, hints))
        return InThreads(await in_thread(partial(self._wrapped, hints)))

    @property
    def _requests_are_changed(self) -> bool:
        """Whether the wrapped client may change requests, whichever of the two clients is used."""
        policies = [self.prompt_cache]
        if "prompt_cache" not in self.model_fields_set:  # a client that is wrapped already keeps its own
            wrapped = (self.client, self.async_client)
            policies += [client.policy for client in wrapped if isinstance(client, CacheClient | AsyncCacheClient)]
        return all(in_environment(policy).mode in ("auto", "explicit") for policy in policies)

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

    def _chat(self, messages: Sequence[ChatMessage], kwargs: dict[str, Any]) -> ChatResponse:
        request, hints = self._request(messages, kwargs, stream=False)
        with expecting(self._expected(messages, kwargs)):
            return chat_response(self._wrapped(hints).converse(**request))

    async def _achat(self, messages: Sequence[ChatMessage], kwargs: dict[str, Any]) -> ChatResponse:
        # In a thread, for an image or a document may have to be fetched.
        request, hints = await in_thread(partial(self._request, messages, kwargs, stream=False))
        client = await self._awrapped(hints)
        with expecting(self._expected(messages, kwargs)):
            return chat_response(await client.converse(**request))

    def _stream(self, messages: Sequence[ChatMessage], kwargs: dict[str, Any]) -> ChatResponseGen:
        request, hints = self._request(messages, kwargs, stream=True)
        with expecting(self._expected(messages, kwargs)):
            return _chunks(self._wrapped(hints).converse_stream(**request)["stream"])

    async def _astream(self, messages: Sequence[ChatMessage], kwargs: dict[str, Any]) -> ChatResponseAsyncGen:
        request, hints = await in_thread(partial(self._request, messages, kwargs, stream=True))
        client = await self._awrapped(hints)
        with expecting(self._expected(messages, kwargs)):
            response = await client.converse_stream(**request)
        return _achunks(response["stream"])


def _chunks(stream: Any) -> ChatResponseGen:
    gathered = StreamedResponse()
    with closing(stream):
        for event in stream:
            if chunk := gathered.add(event):
                yield chunk


async def _achunks(stream: Any) -> ChatResponseAsyncGen:
    gathered = StreamedResponse()
    with closing(stream):
        async for event in stream:
            if chunk := gathered.add(event):
                yield chunk
