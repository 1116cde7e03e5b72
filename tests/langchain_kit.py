"""What the LangChain suites share: models on the test's emulator, long prompts, and what was sent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import boto3
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage

from cachepoint.emulator import BedrockEmulator
from cachepoint.langchain import CacheAwareChatBedrockConverse

Json = dict[str, Any]
MakeModel = Callable[..., CacheAwareChatBedrockConverse]
"""Makes the model under test, connected to the test's emulator; settings given go before the usual ones."""

MODEL = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
LATE_SYSTEM_MODEL = "us.anthropic.claude-opus-4-8"
NOVA = "us.amazon.nova-lite-v1:0"
CONNECTION: Mapping[str, Any] = {
    "region_name": "us-east-1",
    "aws_access_key_id": "EMULATOR",
    "aws_secret_access_key": "emulator",
}
LONG = "Prefix caching reads what an earlier request wrote, as long as not a byte before the checkpoint differs. " * 80
"""About 1,600 tokens: above the minimum of the models the suites use."""

POINT = {"cachePoint": {"type": "default"}}
POINT_1H = {"cachePoint": {"type": "default", "ttl": "1h"}}
EPHEMERAL = {"type": "ephemeral"}
EPHEMERAL_1H = {"type": "ephemeral", "ttl": "1h"}


@lru_cache(maxsize=1)
def control_client() -> Any:
    """A control-plane client to share: making one is half of the time that making a model takes."""
    return boto3.client("bedrock", **CONNECTION)


def connected(emulator: BedrockEmulator, **settings: Any) -> CacheAwareChatBedrockConverse:
    """A model that calls an emulator."""
    usual = {"model": MODEL, "endpoint_url": emulator.url, "bedrock_client": control_client(), **CONNECTION}
    return CacheAwareChatBedrockConverse(**{**usual, **settings})


def question(text: str = "What does it say?") -> list[SystemMessage | HumanMessage]:
    """A question about a long system prompt."""
    return [SystemMessage(LONG), HumanMessage(text)]


def sent(emulator: BedrockEmulator) -> list[Json]:
    """The bodies of the requests the emulator got, which must have been told to keep text."""
    return [call.body for call in emulator.requests if call.body is not None]


def told(message: AIMessage) -> Json:
    """What a response tells of caching."""
    contract: Json = message.response_metadata["prompt_cache"]
    return contract
