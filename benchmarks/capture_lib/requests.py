"""Requests in a form of no framework's: each contender turns them into its framework's own calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple


class Text(NamedTuple):
    """One string. Its pieces are where requests may part: the clairvoyant sees them, contenders see `whole`."""

    pieces: tuple[str, ...]

    @property
    def whole(self) -> str:
        return "".join(self.pieces)


def text(*pieces: str) -> Text:
    return Text(pieces)


class ToolUse(NamedTuple):
    id: str
    name: str
    input: dict[str, str]


class ToolResult(NamedTuple):
    id: str
    name: str
    text: str


class Tool(NamedTuple):
    name: str
    description: str
    schema: dict[str, Any]


class Message(NamedTuple):
    role: Literal["user", "assistant"]
    content: tuple[Text | ToolUse | ToolResult, ...]

    @property
    def blocks(self) -> int:
        """How many blocks it has, cut in pieces."""
        return sum(len(part.pieces) if isinstance(part, Text) else 1 for part in self.content)


@dataclass(frozen=True, slots=True)
class Request:
    """What one call sends and when.

    `at` is in seconds from the start. Neighbours of one `group` are sent at once from as many threads.
    `model` (an id, or `profile_arn`) and `region` are "" for the usual ones. `expect` is what its user knows of the
    future, as `cachepoint.expect` takes it.
    """

    at: float
    messages: tuple[Message, ...]
    system: tuple[Text, ...] = ()
    tools: tuple[Tool, ...] = ()
    group: str = ""
    model: str = ""
    region: str = ""
    expect: Mapping[str, Any] | None = None

    @property
    def scope(self) -> str:
        """What sets its entries apart from those of other requests with the same prefix; "" for the usual place."""
        return f"{self.region}|{self.model}" if self.region or self.model else ""

    @property
    def parts_inside_texts(self) -> bool:
        """Whether one of its strings has several pieces."""
        contents = (self.system, *(message.content for message in self.messages))
        return any(isinstance(part, Text) and len(part.pieces) > 1 for content in contents for part in content)


def profile_arn(number: int) -> str:
    """The ARN of an application inference profile in front of the usual model."""
    return f"arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/profile{number:04}"


@dataclass(frozen=True, slots=True)
class Knobs:
    """What can be turned to see whether a figure holds: another seed, and factors on sizes, gaps and counts.

    Another `day` brings the same documents, prompts and tools, but other questions at other times.
    """

    seed: int = 0
    sizes: float = 1.0
    gaps: float = 1.0
    count: float = 1.0
    day: int = 0

    @property
    def today(self) -> str:
        """What sets apart the text that is new each day."""
        return f"{self.seed}/{self.day}"

    def tokens(self, usual: float) -> int:
        return max(round(usual * self.sizes), 1)

    def many(self, usual: int) -> int:
        return max(round(usual * self.count), 1)


@dataclass(frozen=True, slots=True)
class Workload:
    """A row of the table: what it is, its requests in order of time, and the tokens of each answer.

    `minimum` stands in for the model's where the texts are scaled down. `profiles` is how many application
    inference profiles its requests name.
    """

    name: str
    title: str
    requests: Callable[[Knobs], Iterator[Request]]
    answer_tokens: int = 120
    minimum: int | None = None
    profiles: int = 0

    @property
    def arns(self) -> tuple[str, ...]:
        """The application inference profiles that exist."""
        return tuple(profile_arn(number) for number in range(self.profiles))


def user(*content: Text | str) -> Message:
    return Message("user", tuple(text(part) if isinstance(part, str) else part for part in content))


def assistant(answer: str) -> Message:
    return Message("assistant", (text(answer),))


def converse(request: Request, *, in_pieces: bool = False) -> dict[str, Any]:
    """The request as Converse takes it; `in_pieces` cuts every string where requests may part."""

    def texts(given: Text) -> list[dict[str, Any]]:
        return [{"text": part} for part in (given.pieces if in_pieces else (given.whole,))]

    def content(message: Message) -> Iterator[dict[str, Any]]:
        for part in message.content:
            if isinstance(part, Text):
                yield from texts(part)
            elif isinstance(part, ToolUse):
                yield {"toolUse": {"toolUseId": part.id, "name": part.name, "input": part.input}}
            else:
                yield {"toolResult": {"toolUseId": part.id, "content": [{"text": part.text}]}}

    sent: dict[str, Any] = {
        "messages": [{"role": message.role, "content": list(content(message))} for message in request.messages]
    }
    if request.system:
        sent["system"] = [block for part in request.system for block in texts(part)]
    if request.tools:
        sent["toolConfig"] = {"tools": [tool_spec(tool) for tool in request.tools]}
    return sent


def tool_spec(tool: Tool) -> dict[str, Any]:
    return {"toolSpec": {"name": tool.name, "description": tool.description, "inputSchema": {"json": tool.schema}}}


def in_order(requests: Sequence[Request]) -> Iterator[Request]:
    return iter(sorted(requests, key=lambda request: request.at))
