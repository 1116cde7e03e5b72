"""How the suites of the core and the wrapped client make Converse requests, and read what was sent."""

from __future__ import annotations

from collections.abc import Iterator
from pydoc_data.topics import topics
from typing import Any

from botocore.config import Config

import cachepoint
from cachepoint.bedrock.client import CacheClient
from cachepoint.emulator import BedrockEmulator, BillLine, ServedCall

Json = dict[str, Any]

SONNET = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
SONNET_46 = "us.anthropic.claude-sonnet-4-6"
SONNET_37 = "us.anthropic.claude-3-7-sonnet-20250219-v1:0"
NOVA = "us.amazon.nova-lite-v1:0"
LLAMA = "us.meta.llama3-3-70b-instruct-v1:0"

DOCUMENT = topics["formatstrings"]
"""A chapter of the Python language reference: about 9,000 tokens of real prose."""
SYSTEM = topics["assignment"][:9000]
"""Another: about 2,300 tokens."""
PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x01\x00\x00\x00\x01\x00\x08\x02\x00\x00\x00"


class Bedrock:
    """One account of a running emulator: what it is sent, what it bills, and clients of it."""

    def __init__(self, emulator: BedrockEmulator, account: str) -> None:
        self.emulator = emulator
        self.clock = emulator.clock
        self.account = account

    def client(self, **settings: Any) -> Any:
        """A plain boto3 client."""
        return self.emulator.client(account=self.account, **settings)

    def wrapped(self, policy: cachepoint.CachePolicy | None = None, **options: Any) -> CacheClient:
        """A wrapped one, on the emulator's clock."""
        return cachepoint.wrap(self.client(), policy, **{"clock": self.clock, **options})

    def once(self, policy: cachepoint.CachePolicy | None = None, **options: Any) -> CacheClient:
        """A wrapped one that botocore does not retry for."""
        client = self.client(config=Config(retries={"total_max_attempts": 1}))
        return cachepoint.wrap(client, policy, **{"clock": self.clock, **options})

    @property
    def calls(self) -> list[ServedCall]:
        """What came in, in order: served, refused and failed."""
        return [call for call in self.emulator.requests if call.account == self.account]

    @property
    def statuses(self) -> list[int]:
        """The HTTP status of each."""
        return [call.status for call in self.calls]

    @property
    def bodies(self) -> list[Json]:
        """The requests that were served."""
        return [call.body for call in self.calls if call.body is not None]

    @property
    def bill(self) -> list[BillLine]:
        """What was served, with its price."""
        return [line for line in self.emulator.bill().lines if line.call.account == self.account]


def text(words: str) -> Json:
    return {"text": words}


def user(*content: Json | str) -> Json:
    return {"role": "user", "content": [text(part) if isinstance(part, str) else part for part in content]}


def assistant(*content: Json | str) -> Json:
    return {"role": "assistant", "content": [text(part) if isinstance(part, str) else part for part in content]}


def point(ttl: str | None = None) -> Json:
    return {"cachePoint": {"type": "default"} if ttl is None else {"type": "default", "ttl": ttl}}


def tool(name: str, description: str = "Looks something up.") -> Json:
    schema = {"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]}
    return {"toolSpec": {"name": name, "description": description, "inputSchema": {"json": schema}}}


def tool_use(number: int, name: str = "search") -> Json:
    return {"toolUse": {"toolUseId": f"use-{number}", "name": name, "input": {"query": f"topic {number}"}}}


def tool_result(number: int, *content: Json | str) -> Json:
    parts = [text(part) if isinstance(part, str) else part for part in content or (f"result {number}",)]
    return {"toolResult": {"toolUseId": f"use-{number}", "content": parts}}


def reasoning(words: str = "First the question, then the answer.") -> Json:
    return {"reasoningContent": {"reasoningText": {"text": words, "signature": "c2lnbmVk"}}}


def document(kind: str, content: bytes = b"name,price\nbolt,3\n" * 30, name: str = "paper") -> Json:
    return {"document": {"format": kind, "name": name, "source": {"bytes": content}}}


def image(content: bytes = PNG) -> Json:
    return {"image": {"format": "png", "source": {"bytes": content}}}


def video() -> Json:
    return {"video": {"format": "mp4", "source": {"bytes": b"\x00\x00\x00\x18ftypmp42"}}}


def guarded(words: str) -> Json:
    return {"guardContent": {"text": {"text": words}}}


def question(number: int = 0, model: str = SONNET) -> Json:
    """One of many questions to the same system prompt."""
    return {"modelId": model, "system": [text(SYSTEM)], "messages": [user(f"Question {number}: why?")]}


def lists(request: Json) -> Iterator[tuple[str, list[Json]]]:
    """The three kinds of block lists of a request, each with its path."""
    yield "tools", (request.get("toolConfig") or {}).get("tools") or []
    yield "system", request.get("system") or []
    for number, message in enumerate(request["messages"]):
        yield f"messages[{number}].content", message["content"]


def checkpoints(request: Json) -> list[tuple[str, str]]:
    """Path and TTL of every checkpoint in a request as sent."""
    return [
        (f"{path}[{number}]", block["cachePoint"].get("ttl", "5m"))
        for path, blocks in lists(request)
        for number, block in enumerate(blocks)
        if "cachePoint" in block
    ]


def joined_texts(request: Json) -> list[str]:
    """The text of every list, joined: what the model reads, however it is cut into blocks."""
    return ["".join(block["text"] for block in blocks if "text" in block) for _, blocks in lists(request)]
