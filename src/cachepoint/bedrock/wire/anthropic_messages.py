"""The Anthropic Messages dialect: `cache_control` on tools, system blocks and message content.

Pure functions over the JSON body of InvokeModel; none changes its input, and untouched parts are shared
between the body given and the one returned. A checkpoint is an attribute of the block that it follows, so a
`system` or `content` written as a string becomes a list of blocks where it gets one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from cachepoint.bedrock.wire.dialect import (
    Counters,
    mapping,
    marked_ttl,
    messages_settings,
    output_settings,
    system_settings,
    usage_of,
    whole_settings,
)
from cachepoint.bedrock.wire.edits import ListEdits, edits_of, rewritten
from cachepoint.core.planning.plan import Plan
from cachepoint.core.prompt.builder import PromptBuilder, wire_bytes
from cachepoint.core.prompt.prompt import NO_HINTS, Hints, Kind, Mark, Media, Prompt, Where
from cachepoint.core.prompt.repeats import Trace, trace_of
from cachepoint.core.prompt.tokens import PROFILES
from cachepoint.core.provider.rules import TTL, ModelRule
from cachepoint.core.provider.usage import Usage

API = "invoke_model"
CACHE_CONTROL = "cache_control"
AUTOMATIC = Where("messages", None, 0)
"""The place of a `cache_control` at the body's top, which asks for a checkpoint at the prompt's end (R3.19).

Models up to Opus 4.6 refuse it there; on the last block it means the same to all.
"""

_KINDS: Mapping[str, Kind] = {
    "text": "text", "image": "image", "document": "document", "tool_use": "tool_use", "tool_result": "tool_result",
    "thinking": "reasoning", "redacted_thinking": "reasoning", "search_result": "search_result",
}  # fmt: skip

_COUNTERS = Counters("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", "output_tokens")
_WITH_MEDIA = frozenset({"image", "document", "tool_result"})


def read(
    body: Mapping[str, Any],
    key: bytes,
    rule: ModelRule,
    hints: Hints = NO_HINTS,
    *,
    guarded: bool = False,
) -> Prompt:
    """The body in wire order; `hints` say what is known of blocks.

    `guarded`: a guardrail looks for its tags in the text, which must not be cut in two then.
    """
    builder = PromptBuilder(key, rule.tokenizer, hints, cut_text=not guarded, attached=True)
    profile = PROFILES[rule.tokenizer]
    forced = (body.get("tool_choice") or {}).get("type") in ("any", "tool")
    output, schema = output_settings(body, rule.facts)
    tools, messages = body.get("tools") or (), body.get("messages") or ()
    builder.section("tools", whole_settings(API, body, rule.facts) | output, profile.tools if tools else 0.0)
    for item, tool in enumerate(tools):
        _read_tool(builder, Where("tools", None, item), tool)
    builder.section("system", system_settings(body), profile.output_schema if schema else 0.0)
    system = body.get("system")
    _, done = builder.resume(_traces(system, {where.item for where in hints if where.section == "system"}))
    _read_content(builder, Where("system", None, 0), system, done, splittable=True)
    settings = messages_settings("tool_choice", body, forced=forced, images=_has_images(messages))
    builder.section("messages", settings, profile.forced_tool if forced else 0.0)
    begun, done = builder.resume(_message_traces(messages, hints))
    first = max(begun - 1, 0)
    for number, message in enumerate(messages[first:], first):
        role = message.get("role", "")
        if number >= begun:
            builder.message(role)
            done = 0
        _read_content(builder, Where("messages", number, 0), message.get("content"), done, splittable=role == "user")
    _read_mark(builder, AUTOMATIC, body)
    return builder.build()


def apply(body: Mapping[str, Any], plan: Plan) -> dict[str, Any]:
    """The body with the plan's checkpoints and splits in place of the user's own checkpoints."""
    result = rewritten(body, edits_of(plan), _applied)
    return _bare(result) if _automatic(plan) else result


def undo(body: Mapping[str, Any], plan: Plan) -> dict[str, Any]:
    """The body as the user wrote it, from what `apply` made of it."""
    result = rewritten(body, edits_of(plan), _undone)
    for mark in _automatic(plan):
        result[CACHE_CONTROL] = mark.raw
    return result


def usage(reported: Mapping[str, Any] | None, unreported_ttl: TTL = "5m") -> Usage | None:
    """Tokens by class from the `usage` of an answer; None when none was sent."""
    split = mapping(mapping(reported).get("cache_creation"))
    by_ttl = [(ttl, split.get(f"ephemeral_{ttl}_input_tokens")) for ttl in ("5m", "1h")]
    return usage_of(reported, _COUNTERS, by_ttl, unreported_ttl)


# -- reading --------------------------------------------------------------------------------------


def _has_images(messages: Iterable[Mapping[str, Any]]) -> bool:
    for message in messages:
        for block in _blocks(message.get("content")):
            if block.get("type") == "image" or any(part.get("type") == "image" for part in _inner(block)):
                return True
    return False


def _blocks(content: Any) -> list[Mapping[str, Any]]:
    return [block for block in content if isinstance(block, Mapping)] if isinstance(content, list) else []


def _inner(block: Any) -> list[Mapping[str, Any]]:
    found = isinstance(block, Mapping) and block.get("type") == "tool_result"
    return _blocks(block.get("content")) if found else []


def _is_marked(block: Any) -> bool:
    return isinstance(block, Mapping) and isinstance(block.get(CACHE_CONTROL), Mapping)


def _read_mark(builder: PromptBuilder, where: Where, block: Any) -> None:
    if _is_marked(block):
        builder.mark(where, marked_ttl(where, block[CACHE_CONTROL]), block[CACHE_CONTROL])


def _read_tool(builder: PromptBuilder, where: Where, tool: Any) -> None:
    # A deferred tool is no part of the prompt until the model finds it, and may not carry a checkpoint.
    if not (isinstance(tool, Mapping) and tool.get("defer_loading")):
        builder.data(where, _bare(tool), "tool")
    _read_mark(builder, where, tool)


def _read_content(builder: PromptBuilder, where: Where, content: Any, done: int, *, splittable: bool) -> None:
    """Read a `system` or `content` whose first block is at `where`, after the blocks that are done."""
    if isinstance(content, str):
        if not done:
            builder.text(where, content, splittable=splittable, plain=True)
        return
    for item, block in enumerate((content or ())[done:], done):
        _read_block(builder, where._replace(item=item), block, splittable=splittable)


def _message_traces(messages: Sequence[Mapping[str, Any]], hints: Hints) -> list[Trace]:
    """What the blocks of the messages are known again by, up to the first that is to be looked at each time."""
    hinted = {where.message for where in hints}
    traces: list[Trace] = []
    if len(messages) == 1 and isinstance(messages[0].get("content"), str):  # a question alone seldom comes again
        return traces
    for number, message in enumerate(messages):
        content, before = message.get("content"), len(traces)
        if number not in hinted:
            traces += _traces(content, (), message.get("role", ""))
        if not content or len(traces) - before < (1 if isinstance(content, str) else len(content)):
            break
    return traces


def _traces(content: Any, hinted: Collection[int], *before: object) -> list[Trace]:
    """The same of a `system` or `content`, up to a block with a hint, or with a mark of the user's, kept itself."""
    if isinstance(content, str):
        return [] if hinted else [(*before, len(content), hash(content), "plain")]
    traces: list[Trace] = []
    for item, block in enumerate(content or ()):
        if item in hinted or _is_marked(block) or any(_is_marked(part) for part in _inner(block)):
            break
        text = block.get("text") if type(block) is dict and len(block) == 2 and block.get("type") == "text" else None
        trace = (*before, len(text), hash(text)) if type(text) is str else trace_of(block, *before)
        if trace is None:
            break
        traces.append(trace)
        before = ()
    return traces


def _read_block(builder: PromptBuilder, where: Where, block: Any, *, splittable: bool) -> None:
    bare = _bare(block)
    kind = _KINDS.get(bare.get("type", ""), "other") if isinstance(bare, Mapping) else "other"
    if kind == "text" and isinstance(bare.get("text"), str):
        rest = {name: value for name, value in bare.items() if name not in ("type", "text")}
        header = wire_bytes(rest) if rest else b""
        builder.text(where, bare["text"], header=header, splittable=splittable and not rest)
    else:
        media = [found for part in (bare, *_inner(bare)) for found in _media(part)] if kind in _WITH_MEDIA else []
        textual = not any(each.kind == "binary" for each in media)
        builder.data(where, bare, kind, textual=textual, media=media)
    _read_mark(builder, where, block)
    if kind == "tool_result":
        content = block.get("content")
        for nested, part in enumerate(content if isinstance(content, list) else ()):
            _read_mark(builder, where._replace(nested=nested), part)


def _media(block: Mapping[str, Any]) -> Iterator[Media]:
    """The image or document that a block is."""
    source = block.get("source")
    data = source.get("data") if isinstance(source, Mapping) else None
    if not isinstance(source, Mapping) or not isinstance(data, str):
        return
    encoded = source.get("type") == "base64"
    size = len(data) * 3 // 4 if encoded else len(data)
    yield Media("image" if block.get("type") == "image" else "binary" if encoded else "text", size, len(data))


# -- writing --------------------------------------------------------------------------------------


def _automatic(plan: Plan) -> list[Mark]:
    return [mark for mark in plan.marks if mark.where == AUTOMATIC]


def _applied(items: Any, edits: ListEdits) -> list[Any]:
    blocks = [{"type": "text", "text": items}] if isinstance(items, str) else items
    return [
        piece if ttl is None else {**piece, CACHE_CONTROL: _cache_control(ttl)}
        for number, block in enumerate(blocks)
        for piece, ttl in edits.pieces(number, _bare(block) if number in edits.marks else block)
    ]


def _undone(items: Sequence[Any], edits: ListEdits) -> Any:
    result: list[Any] = []
    position = 0
    while position < len(items):
        number = len(result)
        block, position = edits.joined(number, items, position)
        if number in edits.ttls:
            block = {name: value for name, value in block.items() if name != CACHE_CONTROL}
        for mark in edits.marks.get(number, ()):
            block = _marked_again(block, mark)
        result.append(block)
    return result[0]["text"] if edits.plain else result


def _bare(block: Any) -> Any:
    """A block without its own mark and those inside a tool result."""
    if not isinstance(block, Mapping):
        return block
    bare = {name: value for name, value in block.items() if name != CACHE_CONTROL} if _is_marked(block) else block
    if not any(_is_marked(part) for part in _inner(block)):
        return bare
    return {**bare, "content": [_bare(part) for part in block["content"]]}


def _marked_again(block: Mapping[str, Any], mark: Mark) -> dict[str, Any]:
    nested = mark.where.nested
    if nested is None:
        return {**block, CACHE_CONTROL: mark.raw}
    content = list(block["content"])
    content[nested] = {**content[nested], CACHE_CONTROL: mark.raw}
    return {**block, "content": content}


def _cache_control(ttl: TTL) -> dict[str, Any]:
    # An omitted TTL means 5m, and models that have no 1h refuse the field altogether.
    return {"type": "ephemeral", "ttl": ttl} if ttl == "1h" else {"type": "ephemeral"}
