"""Where a program runs: the embedded emulator on a virtual clock, and the models by which the variants differ.

A program asks its stage for models and middleware and is otherwise the same in every variant.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal

from cachepoint import CachePolicy
from cachepoint.emulator import BedrockEmulator, Bill, Clock, ServedCall
from programs_lib.answers import Answers

MODEL = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
REGION = "us-east-1"
START = 1_780_000_000.0
MAX_TOKENS = 4096
SECONDS_A_CALL = 3.0
"""How long a call takes: what `emulator.Latency` makes of a cached prompt of 7,800 tokens and 300 of output."""

Variant = Literal["no caching", "off", "ours", "ours 5m", "peer"]
"""The framework's own class without caching, ours without, ours, ours with a TTL, the framework's own with caching."""
_POLICIES: dict[Variant, CachePolicy] = {
    "off": CachePolicy(mode="off"),
    "ours": CachePolicy(),
    "ours 5m": CachePolicy(ttl="5m"),
}


def total(bill: Bill) -> Decimal:
    """What a bill comes to, in USD; raises AssertionError where a call has no price."""
    assert all(line.usd is not None for line in bill.lines)
    return bill.total


@dataclass
class Stage:
    """One run of one program."""

    variant: Variant
    answers: Answers
    seconds_a_call: float = SECONDS_A_CALL
    turn_ends: list[int] = field(default_factory=list)
    """How many requests had come at the end of each turn."""

    def __post_init__(self) -> None:
        self.emulator = BedrockEmulator(clock=Clock(lambda: START), replies=self.answers, keep_text=True)
        self._client = self.emulator.local_client(region=REGION)
        self._client.meta.events.register("after-call.bedrock-runtime", self._took_its_time)

    def _took_its_time(self, **_: Any) -> None:
        self.emulator.clock.advance(self.seconds_a_call)

    @property
    def served(self) -> list[ServedCall]:
        return self.emulator.requests

    @property
    def usd(self) -> Decimal:
        return total(self.emulator.bill())

    def turn_ended(self, seconds: float) -> None:
        """The user reads, thinks and types for so long."""
        self.turn_ends.append(len(self.served))
        self.emulator.clock.advance(seconds)

    def close(self) -> None:
        self._client.close()

    # -- LangChain ---------------------------------------------------------------------------------

    def chat_model(self) -> Any:
        """The chat model, as agents take it."""
        from langchain_aws import ChatBedrockConverse

        from cachepoint.langchain import CacheAwareChatBedrockConverse

        given: dict[str, Any] = {"model": MODEL, "client": self._client, "max_tokens": MAX_TOKENS}
        if self.variant in ("no caching", "peer"):
            return ChatBedrockConverse(**given)
        return CacheAwareChatBedrockConverse(**given, clock=self.emulator.clock, prompt_cache=self._policy())

    def chain_model(self, tools: list[Any] | None = None) -> Any:
        """The chat model, as chains take it: langchain-aws is asked by an argument of the call."""
        model = self.chat_model()
        bound = model.bind_tools(tools) if tools else model
        return bound.bind(cache_control={"type": "ephemeral"}) if self.variant == "peer" else bound

    def middleware(self) -> list[Any]:
        """What an agent needs to cache: for langchain-aws its own."""
        from langchain_aws.middleware.prompt_caching import BedrockPromptCachingMiddleware

        return [BedrockPromptCachingMiddleware()] if self.variant == "peer" else []

    # -- LlamaIndex --------------------------------------------------------------------------------

    def llm(self, system_prompt: str | None = None) -> Any:
        """The LLM; LlamaIndex's own is asked to cache by its two switches."""
        from llama_index.llms.bedrock_converse import BedrockConverse

        from cachepoint.llama_index import CacheAwareBedrockConverse

        given: dict[str, Any] = {
            "model": MODEL,
            "client": self._client,
            "region_name": REGION,
            "max_tokens": MAX_TOKENS,
            "system_prompt": system_prompt,
        }
        if self.variant in ("no caching", "peer"):
            asks = self.variant == "peer"
            return BedrockConverse(**given, system_prompt_caching=asks, tool_caching=asks)
        return CacheAwareBedrockConverse(**given, clock=self.emulator.clock, prompt_cache=self._policy())

    def _policy(self) -> CachePolicy:
        return _POLICIES[self.variant]
