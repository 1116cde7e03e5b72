"""The Converse dialect: `cachePoint` blocks in `toolConfig.tools`, `system` and message content.

Pure functions over request dictionaries; none changes its input, and untouched parts are shared
between the request given and the one returned.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Any

from cachepoint.bedrock.wire import system_turns
from cachepoint.bedrock.wire.cache_point import CACHE_POINT, cache_point, is_cache_point
from cachepoint.bedrock.wire.dialect import (
    NOTHING,
    Answered,
    Counters,
    Heard,
    Reporter,
    mapping,
    marked_ttl,
    messages_settings,
    output_settings,
    system_settings,
    told,
    usage_of,
    whole_settings,
)
from cachepoint.bedrock.wire.edits import ListEdits, Rewrite, edits_of, rewritten
from cachepoint.bedrock.wire.lone_points import without_lone_points
from cachepoint.core.exchange import Warn
from cachepoint.core.planning.plan import Plan
from cachepoint.core.prompt.builder import PromptBuilder, wire_bytes
from cachepoint.core.prompt.prompt import NO_HINTS, Hints, Kind, Mark, Media, Prompt, Where
from cachepoint.core.prompt.repeats import Trace, trace_of
from cachepoint.core.prompt.tokens import PROFILES
from cachepoint.core.provider.rules import TTL, ModelFacts, ModelRule
from cachepoint.core.provider.usage import Usage, oddities

API = "converse"
_TOOL_CHOICE = "toolConfig.toolChoice"
_FIELDS = "additionalModelRequestFields."

_KINDS: Mapping[str, Kind] = {
    "text": "text", "image": "image", "document": "document", "video": "video", "audio": "audio",
    "toolUse": "tool_use", "toolResult": "tool_result", "reasoningContent": "reasoning",
    "guardContent": "guard", "citationsContent": "citations", "searchResult": "search_result",
}  # fmt: skip
_MEDIA = frozenset({"image", "document", "video", "audio"})
_WITH_MEDIA = _MEDIA | {"tool_result"}
_COUNTERS = Counters("inputTokens", "cacheReadInputTokens", "cacheWriteInputTokens", "outputTokens")
_COUNTED = ("messages", "system", "toolConfig", "additionalModelRequestFields")


def has_system_turns(request: Mapping[str, Any]) -> bool:
    """Whether a request has system messages in its conversation."""
    return system_turns.has_system_turns(request.get("messages"))


def place_system_turns(
    request: Mapping[str, Any], hints: Hints = NO_HINTS, *, taken: bool
) -> tuple[Mapping[str, Any], Hints]:
    """The request with its system messages where the service takes them, itself where nothing moves; and the hints."""
    if not has_system_turns(request):
        return request, hints
    placed = system_turns.placed(request["messages"], taken=taken)
    if placed is None or placed.messages == request["messages"]:
        return request, hints
    return {**request, "messages": placed.messages}, placed.hints(hints)


def read(request: Mapping[str, Any], key: bytes, rule: ModelRule, hints: Hints = NO_HINTS) -> Prompt:
    """The request in wire order; `hints` say what is known of blocks.

    Without `messages` where it names a stored prompt, whose own text nobody knows here.
    """
    builder = PromptBuilder(key, rule.tokenizer, hints)
    profile = PROFILES[rule.tokenizer]
    tool_config = request.get("toolConfig") or {}
    tools, choice = tool_config.get("tools") or (), tool_config.get("toolChoice") or {}
    forced = "any" in choice or "tool" in choice
    fields = mapping(request.get("additionalModelRequestFields"))
    variables = dict(sorted(mapping(request.get("promptVariables")).items()))
    output = request.get("outputConfig") or NOTHING
    more_tools, more_system = fields.get("tools"), fields.get("system")
    whole, schema = _whole(fields, output, rule.facts) if fields or output else _PLAIN
    whole = {**whole, "promptVariables": variables}
    if rule.tokenizer == "nova":  # there another tool choice misses altogether (C9)
        whole[_TOOL_CHOICE] = choice
    builder.section("tools", whole, (profile.tools if tools else 0.0) + _tokens(variables, profile.likely))
    for item, tool in enumerate(tools):
        where = Where("tools", None, item)
        if not _read_mark(builder, where, tool):
            builder.data(where, tool, "tool")
    # Whether the fields' tools come before those of toolConfig or after them is not documented. So a change of theirs
    # counts as losing all tools, and their tokens count from the system prompt on, before which they surely stand.
    fixed = _tokens(more_tools, profile.json) + (profile.tools if more_tools and not tools else 0.0)
    builder.section(
        "system",
        system_settings(fields, _FIELDS) | {f"{_FIELDS}system": more_system},
        fixed + (profile.output_schema if schema else 0.0),
    )
    system = request.get("system") or ()
    _, done = builder.resume(_traces(system, {where.item for where in hints if where.section == "system"}))
    for item, block in enumerate(system[done:], done):
        _read_block(builder, Where("system", None, item), block, splittable=True)
    messages = request.get("messages") or ()
    builder.section(
        "messages",
        messages_settings(_TOOL_CHOICE, fields, _FIELDS, forced=forced, images=_has_images(messages)),
        _tokens(more_system, profile.likely) + (profile.forced_tool if forced else 0.0),
    )
    _read_messages(builder, messages, guarded="guardrailConfig" in request)
    return builder.build()


def sendable(request: Mapping[str, Any]) -> tuple[Mapping[str, Any], Sequence[Warn]]:
    """The request without lists of nothing but checkpoints; raises ConfigurationError where one is needed."""
    return without_lone_points(request)


def apply(request: Mapping[str, Any], plan: Plan) -> dict[str, Any]:
    """The request with the plan's checkpoints and splits in place of the user's own checkpoints."""
    return _rewritten(request, plan, _applied)


def undo(request: Mapping[str, Any], plan: Plan) -> dict[str, Any]:
    """The request as the user wrote it, from what `apply` made of it."""
    return _rewritten(request, plan, _undone)


def usage(reported: Mapping[str, Any] | None, unreported_ttl: TTL = "5m") -> Usage | None:
    """Tokens by class from a Converse `usage`; None when none was sent."""
    details = mapping(reported).get("cacheDetails")
    parts = [mapping(each) for each in details] if isinstance(details, list | tuple) else []
    return usage_of(reported, _COUNTERS, [(part.get("ttl"), part.get("inputTokens")) for part in parts], unreported_ttl)


def whole_numbers(reported: Any) -> dict[str, Any]:
    """A `usage` that frameworks can add up: as it came, or where it is odd as it was read; empty if nothing is told."""
    if isinstance(reported, Mapping) and not oddities(reported):
        return {name: value for name, value in reported.items() if value is not None}
    read = usage(reported)
    if read is None:
        return {}
    return {
        "inputTokens": read.input,
        "outputTokens": read.output,
        "totalTokens": read.prompt + read.output,
        "cacheReadInputTokens": read.cache_read,
        "cacheWriteInputTokens": read.cache_write,
        "cacheDetails": [
            {"ttl": ttl, "inputTokens": tokens}
            for ttl, tokens in (("1h", read.cache_write_1h), ("5m", read.cache_write_5m))
            if tokens
        ],
    }


def count_input(request: Mapping[str, Any]) -> dict[str, Any]:
    """What CountTokens is asked about a request."""
    return {"converse": {name: request[name] for name in _COUNTED if name in request}}


def service_tier(request: Mapping[str, Any]) -> str | None:
    """The service tier a request names."""
    tier: str | None = (request.get("serviceTier") or {}).get("type")
    return tier


def reporter(answered: Answered, heard: Heard) -> Reporter:  # noqa: ARG001 - Converse reports its usage once, at the end
    """The `metadata` event has the usage, and gets the call's report."""

    def passed(event: dict[str, Any]) -> dict[str, Any]:
        """The event, with the call's report where it carries the usage."""
        metadata = event.get("metadata")
        if not isinstance(metadata, dict) or "usage" not in metadata:
            return event
        return {**event, "metadata": told(metadata, answered(metadata["usage"]))}

    return passed


# -- reading --------------------------------------------------------------------------------------


def _tokens(value: Any, bytes_a_token: float) -> float:
    """The likely tokens of what is part of the prompt without being one of its blocks."""
    return len(wire_bytes(value)) / bytes_a_token if value else 0.0


def _whole(fields: Mapping[str, Any], output: Mapping[str, Any], facts: ModelFacts) -> tuple[Mapping[str, Any], bool]:
    """What changes the whole prompt, by its path; and whether the answer has a format."""
    answer, schema = output_settings(fields, facts, _FIELDS, output)
    settings = whole_settings(API, fields, facts, _FIELDS) | answer
    return settings | {"promptVariables": None, f"{_FIELDS}tools": fields.get("tools")}, schema


_PLAIN = _whole(NOTHING, NOTHING, ModelFacts())
"""Of a request that says nothing of it, whatever the model's defaults are."""


def _read_messages(builder: PromptBuilder, messages: Sequence[Mapping[str, Any]], *, guarded: bool) -> None:
    begun, done = builder.resume(_message_traces(messages, builder.hints), cut=not guarded)
    first = max(begun - 1, 0)
    for number, message in enumerate(messages[first:], first):
        role = message.get("role", "")
        if number >= begun:
            builder.message(role)
            done = 0
        for item, block in enumerate((message.get("content") or ())[done:], done):
            _read_block(builder, Where("messages", number, item), block, splittable=role == "user" and not guarded)


def _message_traces(messages: Sequence[Mapping[str, Any]], hints: Hints) -> list[Trace]:
    """What the blocks of the messages are known again by, up to the first that is to be looked at each time."""
    hinted = {where.message for where in hints}
    traces: list[Trace] = []
    if len(messages) == 1 and len(messages[0].get("content") or ()) == 1:  # a question alone seldom comes again
        return traces
    for number, message in enumerate(messages):
        content = message.get("content") or ()
        before = len(traces)
        if number not in hinted:
            traces += _traces(content, (), message.get("role", ""))
        if not content or len(traces) - before < len(content):
            break
    return traces


def _traces(blocks: Sequence[Any], hinted: Container[int], *before: object) -> list[Trace]:
    """The same of a list of blocks, up to one with a hint, or with a checkpoint of the user's, which is kept itself."""
    traces: list[Trace] = []
    for item, block in enumerate(blocks):
        text = block.get("text") if type(block) is dict and len(block) == 1 else None
        if item in hinted:
            break
        if type(text) is str:
            traces.append((*before, len(text), hash(text)))
        elif is_cache_point(block) or any(is_cache_point(part) for part in _result_parts(block)):
            break
        elif (trace := trace_of(block, *before)) is not None:
            traces.append(trace)
        else:
            break
        before = ()
    return traces


def _has_images(messages: Sequence[Mapping[str, Any]]) -> bool:
    for message in messages:
        for block in message.get("content") or ():
            if "image" in block or ("toolResult" in block and any("image" in part for part in _result_parts(block))):
                return True
    return False


def _result_parts(block: Mapping[str, Any]) -> Sequence[Any]:
    return block["toolResult"].get("content") or () if "toolResult" in block else ()


def _read_mark(builder: PromptBuilder, where: Where, block: Any) -> bool:
    if not is_cache_point(block):
        return False
    builder.mark(where, marked_ttl(where, block[CACHE_POINT]), block, leading=where.item == 0 and where.nested is None)
    return True


def _read_block(builder: PromptBuilder, where: Where, block: Any, *, splittable: bool) -> None:
    if _read_mark(builder, where, block):
        return
    name = next(iter(block), "") if isinstance(block, dict) and len(block) == 1 else ""
    kind = _KINDS.get(name, "other")
    if kind == "text" and isinstance(block["text"], str):
        builder.text(where, block["text"], splittable=splittable)
        return
    nested: list[tuple[Where, Any]] = []
    if kind == "tool_result":
        parts = enumerate(_result_parts(block))
        nested = [(where._replace(nested=number), part) for number, part in parts if is_cache_point(part)]
        block = _without_nested_marks(block) if nested else block
    media = [found for part in (block, *_result_parts(block)) for found in _media(part)] if kind in _WITH_MEDIA else []
    builder.data(where, block, kind, textual=kind != "document" or _is_text_document(block[name]), media=media)
    for place, point in nested:
        _read_mark(builder, place, point)


def _media(block: Mapping[str, Any]) -> Iterator[Media]:
    for name in _MEDIA & block.keys():
        source = block[name].get("source") or {}
        content = source.get("bytes")
        # What lies in S3 has a size too, which nobody knows here.
        size = len(content) if isinstance(content, bytes | bytearray) else 0
        if name == "image":
            yield Media("image", size)
        elif size:
            yield Media("text" if name == "document" and _is_text_document(block[name]) else "binary", size)


def _is_text_document(document: Any) -> bool:
    return not (isinstance(document, Mapping) and document.get("format") == "pdf")


# -- writing --------------------------------------------------------------------------------------


def _rewritten(request: Mapping[str, Any], plan: Plan, rewrite: Rewrite) -> dict[str, Any]:
    if plan.changes_nothing:
        return dict(request)
    edits = edits_of(plan)
    result = rewritten(request, edits, rewrite)
    tools = edits.get(("tools", None))
    if tools is not None:
        config = request["toolConfig"]
        result["toolConfig"] = {**config, "tools": rewrite(config["tools"], tools)}
    return result


def _applied(items: Sequence[Any], edits: ListEdits) -> list[Any]:
    result: list[Any] = []
    for number, item in enumerate(items):
        marks = edits.marks.get(number)
        if marks and marks[0].where.nested is None:
            continue
        for piece, ttl in edits.pieces(number, _without_nested_marks(item) if marks else item):
            result.append(piece)
            if ttl is not None:
                result.append(_checkpoint(ttl))
    return result


def _undone(items: Sequence[Any], edits: ListEdits) -> list[Any]:
    bare = [item for item in items if not is_cache_point(item)]
    result: list[Any] = []
    position = 0
    while position < len(bare) or len(result) in edits.marks:
        marks = edits.marks.get(len(result), [])
        if marks and marks[0].where.nested is None:
            result.append(marks[0].raw)
            continue
        block, position = edits.joined(len(result), bare, position)
        result.append(_with_nested_marks(block, marks))
    return result


def _without_nested_marks(block: Mapping[str, Any]) -> Mapping[str, Any]:
    result = block["toolResult"]
    return {"toolResult": {**result, "content": [part for part in result["content"] if not is_cache_point(part)]}}


def _with_nested_marks(block: Any, marks: Sequence[Mark]) -> Any:
    if not marks:
        return block
    content = list(block["toolResult"]["content"])
    for mark in marks:
        content.insert(mark.where.nested or 0, mark.raw)
    return {"toolResult": {**block["toolResult"], "content": content}}


def _checkpoint(ttl: TTL) -> dict[str, Any]:
    # An omitted TTL means 5m, and models that have no 1h refuse the field altogether.
    return cache_point(ttl if ttl == "1h" else None)
