"""The settings of `CacheAwareBedrockConverse`, and how an LLM with live parts is copied, pickled and loaded."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from llama_index.core.bridge.pydantic import Field, PrivateAttr, model_validator
from llama_index.core.constants import DEFAULT_TEMPERATURE
from llama_index.core.llms.function_calling import FunctionCallingLLM
from pydantic import BeforeValidator, SkipValidation

from cachepoint.bedrock.client import AsyncCacheClient, CacheClient, check_async_client, check_client
from cachepoint.bedrock.settings import check_model, check_names, configuration_errors
from cachepoint.core.accounts.ledger import CacheLedger
from cachepoint.core.planning.policy import CachePolicy
from cachepoint.llama_index._clients import Clients, Connection, get_ready
from cachepoint.store._memory import MemoryStore

_LIVE = ("client", "async_client", "ledger", "store", "clock", "botocore_session", "botocore_config", "rate_limiter")
"""What belongs to this process: copies share it, pickles and JSON leave it out.

Older releases of LlamaIndex have no `rate_limiter`.
"""

OURS = frozenset({"prompt_cache", "base_models", "ledger", "store", "clock"})
"""What a BedrockConverse does not have."""

_MAX_TOKENS = 512


class BedrockSettings(FunctionCallingLLM):
    """What can be set; those of `BedrockConverse` have its names and defaults, so that the class can be exchanged."""

    # LlamaIndex's own field, kept out of the repr, which may end up in a log.
    system_prompt: str | None = Field(default=None, repr=False, description="In front of every chat.")
    model: str = Field(description="Model id, inference profile id or ARN.")
    temperature: float | None = Field(
        default=DEFAULT_TEMPERATURE, ge=0, le=1, description="Left out for models that refuse it, and where None."
    )
    max_tokens: int = Field(default=_MAX_TOKENS, gt=0, description="At most so many tokens in an answer.")
    context_window: int | None = Field(
        default=None, gt=0, description="Tokens of prompt and answer; where None, by model, 128,000 for unknown ones."
    )
    is_function_calling_model: bool | None = Field(
        default=None, description="Whether the model calls tools; where None, by model, and unknown ones do."
    )
    supports_forced_tool_calls: bool | None = Field(
        default=None, description="Whether a tool can be required; where None, by model and its thinking."
    )
    thinking: dict[str, Any] | None = Field(
        default=None, description="The model's own thinking configuration; ignored, with a warning, where it has none."
    )
    additional_kwargs: dict[str, Any] = Field(
        default_factory=dict, description="More members of the Converse request, for every call."
    )
    guardrail_identifier: str | None = None
    guardrail_version: str | None = None
    guardrail_stream_processing_mode: Literal["sync", "async"] | None = None
    trace: str | None = Field(default=None, description="The guardrail's trace.")

    prompt_cache: Annotated[CachePolicy, BeforeValidator(CachePolicy.of)] = Field(
        default_factory=CachePolicy, description="How prompts are cached; what `CachePolicy.of` takes will do."
    )
    base_models: dict[str, str] = Field(
        default_factory=dict, description="The model id behind each ARN that does not name it."
    )
    application_inference_profile_arn: str | None = Field(
        default=None, description="Called in place of `model`, which must be the model behind it."
    )
    system_prompt_caching: bool = Field(
        default=False, description="A checkpoint behind the system prompt where the policy places none itself."
    )
    tool_caching: bool = Field(
        default=False, description="A checkpoint behind the tools where the policy places none itself."
    )
    # What these are is checked below, as `wrap` does, which says what to pass instead.
    ledger: SkipValidation[CacheLedger] = Field(default_factory=CacheLedger, exclude=True, repr=False)
    store: Any = Field(default_factory=MemoryStore, exclude=True, repr=False, description="Where traffic is learned.")
    clock: SkipValidation[Callable[[], float]] = Field(
        default=time.time, exclude=True, repr=False, description="Gives the time in seconds since the epoch."
    )

    region_name: str | None = None
    profile_name: str | None = None
    endpoint_url: str | None = None
    api_version: str | None = None
    use_ssl: bool = True
    verify: bool | str | None = None
    timeout: float = Field(default=60.0, gt=0, description="Seconds, for connecting and for reading.")
    max_retries: int = Field(default=10, ge=0, description="Times botocore repeats a call that failed.")
    aws_access_key_id: str | None = Field(default=None, exclude=True, repr=False)
    aws_secret_access_key: str | None = Field(default=None, exclude=True, repr=False)
    aws_session_token: str | None = Field(default=None, exclude=True, repr=False)
    botocore_session: Any = Field(default=None, exclude=True, repr=False)
    botocore_config: Any = Field(default=None, exclude=True, repr=False)
    client: Any = Field(
        default=None, exclude=True, repr=False, description="A bedrock-runtime client to use; made when needed if None."
    )
    async_client: Any = Field(default=None, exclude=True, repr=False, description="The same, of aiobotocore.")

    _clients: Clients = PrivateAttr(default_factory=Clients)

    if not TYPE_CHECKING:  # a checker makes the signature of the fields

        def __init__(self, **data: Any) -> None:
            with configuration_errors():
                super().__init__(**data)

    @model_validator(mode="before")
    @classmethod
    def _take_our_names(cls, values: Any) -> Any:
        """A name that is none of the fields' is an error, as upstream; None stands for a default."""
        if not isinstance(values, dict):
            return values
        check_names(values, {*cls.model_fields, "class_name"}, cls.model_fields)
        return {name: value for name, value in values.items() if value is not None or name not in OURS}

    @model_validator(mode="after")
    def _check_ours(self) -> Self:
        live = {name: getattr(self, name) for name in ("ledger", "store", "clock")}
        check_model(self.prompt_cache, base_models=self.base_models, **live)
        if self.client is not None:
            check_client(self.client, "client")
        if self.async_client is not None:
            check_async_client(self.async_client, "async_client")
        return self

    @model_validator(mode="after")
    def _share_with_wrapped_client(self) -> Self:
        """A client that is wrapped already goes on recording and learning where it did."""
        get_ready(asynchronous=self.client is None and self.async_client is None)
        for client in (self.async_client, self.client):
            if isinstance(client, CacheClient | AsyncCacheClient):
                shared = {"ledger", "store"} - self.model_fields_set
                self.__dict__.update({name: getattr(client, name) for name in shared})
        return self

    def _connection(self) -> Connection:
        return Connection(**{field.name: getattr(self, field.name) for field in fields(Connection)})

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        shared = [getattr(self, name, None) for name in _LIVE] + [self._clients]
        return super().__deepcopy__({**(memo or {}), **{id(part): part for part in shared}})

    def __getstate__(self) -> dict[str, Any]:
        # LlamaIndex deletes what it cannot pickle from the state, which pydantic shares with the object itself.
        twin = self.model_copy()
        for name in _LIVE:
            twin.__dict__.pop(name, None)
        object.__setattr__(twin, "__pydantic_private__", None)
        return super(BedrockSettings, twin).__getstate__()

    def __setstate__(self, state: dict[str, Any]) -> None:
        # A pickle of another version may have what this one does not know.
        known = {name: value for name, value in state["__dict__"].items() if name in type(self).model_fields}
        super().__setstate__({**state, "__dict__": known})

    def _base_models(self) -> Mapping[str, str]:
        arn = self.application_inference_profile_arn
        return {**self.base_models, **({arn: self.model} if arn else {})}

    def _base_model(self, model: str) -> str:
        """The model behind an ARN that does not name it, and every other model itself."""
        return self._base_models().get(model, model)
