"""What the emulated model answers: scripted by the test, else made up from the request, always the same way.

A reply depends on the last turn's text, not on checkpoints or on how text is cut into blocks, so that runs
with and without caching get the same answers.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any

from cachepoint.emulator._answering.arguments import arguments_for, relevant_tool
from cachepoint.emulator._reading.request import Call, Json
from cachepoint.emulator._reading.tokenizer import count_tokens
from cachepoint.errors import EmulatorError


@dataclass(frozen=True, slots=True)
class Text:
    """A text block; EmulatorError where it is something else."""

    text: str

    def __post_init__(self) -> None:
        _check_text("Text", "text", self.text)


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool use; without `id` it gets one made from the request.

    `cut` is how many characters of its arguments' JSON came before the answer broke off, None where all did. Raises
    EmulatorError for what is of another type.
    """

    name: str
    input: Mapping[str, Any]
    id: str = ""
    cut: int | None = None

    def __post_init__(self) -> None:
        _check_text("ToolCall", "name", self.name)
        _check_text("ToolCall", "id", self.id)
        arguments: Any = self.input
        if not isinstance(arguments, Mapping):
            raise EmulatorError(f"ToolCall(input={arguments!r:.80}): give a mapping, arguments by their names")
        if not (self.cut is None or (type(self.cut) is int and self.cut >= 0)):
            raise EmulatorError(f"ToolCall(cut={self.cut!r:.80}): give a number of characters, 0 or more, or None")


@dataclass(frozen=True, slots=True)
class Reasoning:
    """A reasoning (thinking) block."""

    text: str
    signature: str = "c2lnbmVkIGJ5IHRoZSBlbXVsYXRvcg=="

    def __post_init__(self) -> None:
        _check_text("Reasoning", "text", self.text)
        _check_text("Reasoning", "signature", self.signature)


def _check_text(kind: str, name: str, given: Any) -> None:
    if not isinstance(given, str):
        raise EmulatorError(f"{kind}({name}={given!r:.80}): give text")


Part = Text | ToolCall | Reasoning


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer; `stop_reason` is Converse's word, worked out from the parts when empty."""

    parts: tuple[Part, ...]
    stop_reason: str = ""

    def __post_init__(self) -> None:
        if not _are_parts(self.parts):
            raise EmulatorError(f"Reply(parts={self.parts!r:.80}): give a tuple of Text, ToolCall and Reasoning")
        _check_text("Reply", "stop_reason", self.stop_reason)


@dataclass(frozen=True, slots=True)
class Question:
    """What a scripted callable sees of a request, whichever API it came through.

    `text` is the last turn's text, `results` the texts of its tool results, `tools` the JSON schemas by name,
    `forced` the tools the choice allows when it demands one, `schema` the demanded output's JSON schema.
    """

    model_id: str
    text: str
    results: tuple[str, ...]
    tools: Mapping[str, Json]
    forced: tuple[str, ...]
    used: frozenset[str]
    schema: Json | None
    thinks: bool
    max_tokens: int | None
    stop_sequences: tuple[str, ...]
    messages: Sequence[Json] = field(repr=False)

    @property
    def digest(self) -> str:
        """Hex digits that depend on the model and the last turn only."""
        seen = "\0".join((self.model_id, str(len(self.messages)), self.text, *self.results))
        return blake2b(seen.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


# What a script may hold: text, a part or several, a whole reply, a mapping (structured output as JSON text), or a
# callable that makes one of these from the question.
Scripted = str | Part | Reply | Mapping[str, Any] | Sequence[Part] | Callable[[Question], Any]


class Script:
    """Replies in waiting, then the default one for ever."""

    def __init__(self, default: Callable[[Question], Any] | None = None) -> None:
        self._waiting: deque[Scripted] = deque()
        self._default = default or default_reply

    def add(self, replies: Iterable[Scripted]) -> None:
        """Put replies at the end of the queue; raises EmulatorError where one of them is none, and adds none then."""
        replies = list(replies)
        for each in replies:
            if not callable(each):
                _plain_reply(each)
        self._waiting.extend(replies)

    def next(self, question: Question) -> Reply:
        """The reply to a question; takes the next scripted one if any waits."""
        scripted = self._waiting.popleft() if self._waiting else self._default
        return _as_reply(scripted, question)


def _as_reply(scripted: Any, question: Question) -> Reply:
    return _as_reply(scripted(question), question) if callable(scripted) else _plain_reply(scripted)


def _plain_reply(scripted: Any) -> Reply:
    if isinstance(scripted, Reply):
        return scripted
    if isinstance(scripted, str):
        return Reply((Text(scripted),))
    if isinstance(scripted, Text | ToolCall | Reasoning):
        return Reply((scripted,))
    if isinstance(scripted, Mapping):
        return Reply((Text(json.dumps(scripted, ensure_ascii=False)),))
    if _are_parts(scripted):
        return Reply(tuple(scripted))
    raise EmulatorError(
        f"a scripted reply is a {type(scripted).__name__}; give text, Text, ToolCall, Reasoning, several of them, "
        "a Reply, a mapping, or a callable that returns one"
    )


def _are_parts(given: Any) -> bool:
    return isinstance(given, Sequence) and all(isinstance(part, Text | ToolCall | Reasoning) for part in given)


def read_question(call: Call, body: Json) -> Question:
    """The question in a request's Converse shape."""
    messages: list[Json] = body.get("messages") or []
    last: list[Json] = messages[-1]["content"] if messages else []
    results = [block["toolResult"] for block in last if "toolResult" in block]
    config = body.get("toolConfig") or {}
    specs = [tool["toolSpec"] for tool in config.get("tools") or () if "toolSpec" in tool]
    tools = {spec["name"]: (spec.get("inputSchema") or {}).get("json") or {} for spec in specs if "name" in spec}
    choice = config.get("toolChoice") or {}
    inference = body.get("inferenceConfig") or {}
    thinking = (body.get("additionalModelRequestFields") or {}).get("thinking") or {}
    return Question(
        model_id=call.target.model_id,
        text="".join(block["text"] for block in last if "text" in block),
        results=tuple(_result_text(result) for result in results),
        tools=tools,
        forced=_forced(choice, tools),
        used=frozenset(b["toolUse"]["name"] for m in messages for b in m["content"] if "toolUse" in b),
        schema=_output_schema(body),
        thinks=thinking.get("type") in ("enabled", "adaptive"),
        max_tokens=inference.get("maxTokens"),
        stop_sequences=tuple(inference.get("stopSequences") or ()),
        messages=messages,
    )


def _result_text(result: Json) -> str:
    content = result.get("content") or ()
    return " ".join(
        block["text"] if "text" in block else json.dumps(block.get("json"), ensure_ascii=False)
        for block in content
        if "text" in block or "json" in block
    )


def _forced(choice: Json, tools: Mapping[str, Json]) -> tuple[str, ...]:
    if "any" in choice:
        return tuple(tools)
    demanded = (choice.get("tool") or {}).get("name")
    return tuple(name for name in tools if name == demanded)


def _output_schema(body: Json) -> Json | None:
    text_format = (body.get("outputConfig") or {}).get("textFormat") or {}
    schema = ((text_format.get("structure") or {}).get("jsonSchema") or {}).get("schema")
    if isinstance(schema, str):
        schema = json.loads(schema)
    return schema if isinstance(schema, dict) else None


_WORDS = (
    *("answer", "because", "block", "each", "first", "follows", "from", "its"),
    *("later", "order", "part", "prefix", "request", "rest", "says", "section"),
)


def default_reply(question: Question) -> Reply:
    """The reply nobody scripted: a tool call where one is demanded or plainly asked for, else text."""
    thought: tuple[Part, ...] = (Reasoning("The request is read, then answered."),) if question.thinks else ()
    tool = _tool_to_call(question)
    if tool is not None:
        call = ToolCall(tool, arguments_for(question.tools[tool], question.text))
        return Reply((*thought, call))
    if question.schema is not None:
        return Reply((*thought, Text(json.dumps(arguments_for(question.schema, question.text), ensure_ascii=False))))
    return Reply((*thought, Text(_made_up_text(question))))


def _tool_to_call(question: Question) -> str | None:
    if question.forced:
        # An agent that always demands a tool ends by the one it has not used yet, its structured answer.
        fresh = [name for name in question.forced if name not in question.used] or list(question.forced)
        return relevant_tool(fresh, question.text) or fresh[0]
    if question.results:
        return None
    return relevant_tool(list(question.tools), question.text)


def _made_up_text(question: Question) -> str:
    if question.results:
        return "The tool says: " + " ".join(result[:400] for result in question.results)
    words = [_WORDS[int(digit, 16)] for digit in question.digest]
    return f"Answer {question.digest[:8]}: {' '.join(words)}."


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply as it goes out: cut at `max_tokens` and stop sequences, with its tokens counted."""

    parts: tuple[Part, ...]
    stop_reason: str
    tokens: int
    stop_sequence: str | None = None


def finish(reply: Reply, question: Question, call: Call) -> Answer:
    """Cut a reply where the request says so, name its tool uses and count its tokens."""
    if question.max_tokens == 0:
        return Answer((), "max_tokens", 0)
    parts: list[Part] = []
    tokens = 0
    for index, scripted in enumerate(reply.parts):
        part, stopped_by = _ready(scripted, question, index, call)
        cost = _cost(part, call)
        left = None if question.max_tokens is None else question.max_tokens - tokens
        if isinstance(part, Text) and left is not None and cost > left:
            return Answer((*parts, _cut(part, left, call)), "max_tokens", tokens + left)
        if isinstance(part, ToolCall) and left is not None and cost > left:
            return Answer((*parts, _cut_call(part, left / cost)), "max_tokens", tokens + left)
        parts.append(part)
        tokens += cost
        if stopped_by is not None:
            return Answer(tuple(parts), reply.stop_reason or "stop_sequence", tokens, stopped_by)
    called = any(isinstance(part, ToolCall) for part in parts)
    return Answer(tuple(parts), reply.stop_reason or ("tool_use" if called else "end_turn"), max(tokens, 1))


def _ready(part: Part, question: Question, index: int, call: Call) -> tuple[Part, str | None]:
    """The part with its tool use named, or cut at the stop sequence that is given with it."""
    if isinstance(part, ToolCall) and not part.id:
        return replace(part, id=_tool_id(question, index, call)), None
    if isinstance(part, Text):
        return _stop_at(part, question.stop_sequences)
    return part, None


def _tool_id(question: Question, index: int, call: Call) -> str:
    prefix = "tooluse_" if call.target.operation.startswith("Converse") else "toolu_bdrk_"
    return f"{prefix}{question.digest[:20]}{index:02d}"


def _stop_at(part: Text, sequences: Iterable[str]) -> tuple[Text, str | None]:
    found = [(part.text.find(sequence), sequence) for sequence in sequences if sequence and sequence in part.text]
    if not found:
        return part, None
    at, sequence = min(found)
    return Text(part.text[:at]), sequence


def _cost(part: Part, call: Call) -> int:
    family = call.rule.tokenizer
    if isinstance(part, ToolCall):
        arguments = json.dumps(part.input, ensure_ascii=False, separators=(",", ":"))
        return 24 + count_tokens(part.name, family) + count_tokens(arguments, family)
    return 3 + count_tokens(part.text, family)


def _cut(part: Text, tokens: int, call: Call) -> Text:
    words = part.text.split(" ")
    kept = len(words)
    while kept > 1 and count_tokens(" ".join(words[:kept]), call.rule.tokenizer) > tokens:
        kept = kept // 2 if kept > 2 * tokens + 2 else kept - 1
    return Text(" ".join(words[:kept]))


def _cut_call(part: ToolCall, share: float) -> ToolCall:
    """The call with a share of its arguments: in a whole answer the members that are complete."""
    cut = int(len(json.dumps(part.input, ensure_ascii=False)) * share)
    return replace(part, cut=cut)
