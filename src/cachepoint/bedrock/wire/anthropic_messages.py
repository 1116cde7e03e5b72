"""The Anthropic Messages dialect: `cache_control` on tools, system blocks and message content.

Pure functions over the JSON body of InvokeModel; none changes its input. A checkpoint is an attribute of the block that
it follows, so a `system` or `content` written as a string becomes a list of blocks where it gets one. What a plan does
not change goes out byte for byte: it is applied to the text of a body.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
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
from cachepoint.bedrock.wire.json_text import JsonText, Path, Raw
from cachepoint.core.planning.plan import Plan
from cachepoint.core.prompt.builder import PromptBuilder, wire_bytes
from cachepoint.core.prompt.prompt import NO_HINTS, Hints, Kind, ListKey, Mark, Media, Prompt, Where
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


def has_its_shape(body: Mapping[str, Any]) -> bool:
    """Whether lists, blocks and their types are where the format has them; another body is the service's to refuse."""
    system, choice, messages = body.get("system"), body.get("tool_choice"), body.get("messages")
    return (
        _are_blocks(body.get("tools"))
        and (isinstance(system, str) or _are_blocks(system))
        and (choice is None or isinstance(choice, dict))
        and isinstance(messages, list)
        and all(type(message) is dict and isinstance(message.get("role", ""), str) for message in messages)
        and all(isinstance(said := each.get("content"), str) or _are_blocks(said) for each in messages)
    )


def _are_blocks(items: Any) -> bool:
    if not isinstance(items, list):
        return items is None
    return all(type(block) is dict and isinstance(block.get("type", ""), str) for block in items)


def read(
    body: Mapping[str, Any],
    key: bytes,
    rule: ModelRule,
    hints: Hints = NO_HINTS,
    *,
    guarded: bool = False,
) -> Prompt:
    """A body that has its shape in wire order; `hints` say what is known of blocks.

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
    prompt = builder.build()
    return prompt if "1h" in rule.ttls else _without_short_ttls(prompt)


def apply(body: Raw, plan: Plan) -> Raw:
    """The body, in the text that `read` saw, with the plan's checkpoints and splits in place of the user's checkpoints.

    Text comes back as text and bytes as bytes; the very body given where the plan leaves all as it is.
    """
    edits = {key: here for key, here in edits_of(plan).items() if key != AUTOMATIC.list_key}
    document = JsonText(body, _paths(edits))
    for key, here in edits.items():
        for item in here.items:
            _edit(document, key, item, here)
    if _automatic(plan):
        document.set((), CACHE_CONTROL, None)
    return document.edited()


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


def _without_short_ttls(prompt: Prompt) -> Prompt:
    """A prompt for a model that refuses the field `ttl` altogether: its only one counts as not said."""
    if not any(mark.ttl == "5m" for mark in prompt.marks):
        return prompt
    return replace(prompt, marks=tuple(replace(mark, ttl=None) if mark.ttl == "5m" else mark for mark in prompt.marks))


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


def _paths(edits: Mapping[ListKey, ListEdits]) -> list[Path]:
    """What has to be found in a body's text: each block that is edited, and the marks inside it."""
    found: list[Path] = []
    for key, here in edits.items():
        for item in here.items:
            block = (*_path(key), item)
            found += [(*block, CACHE_CONTROL)]
            found += [(*block, *_inside(mark), CACHE_CONTROL) for mark in here.marks.get(item, ())]
    return found


def _path(key: ListKey) -> Path:
    section, message = key
    return (section,) if message is None else (section, message, "content")


def _inside(mark: Mark) -> Path:
    return () if mark.where.nested is None else ("content", mark.where.nested)


def _edit(document: JsonText, key: ListKey, item: int, edits: ListEdits) -> None:
    """Put a block's checkpoints and splits into the text, and take the user's own out."""
    cuts, ttls = sorted(edits.cuts.get(item, ())), edits.ttls.get(item, {})
    if edits.plain:
        literal = document.values[_path(key)]
        document.insert(literal.start, '[{"type":"text","text":')
        _split(document, literal.start, cuts, ttls, "", '"type":"text",')
        document.insert(literal.end, f"{_written(ttls.get(None))}}}]")
        return
    block = (*_path(key), item)
    moved = False
    if cuts:
        members = document.values[block].members
        kind, text, control = (members[name][0] if name in members else -1 for name in ("type", "text", CACHE_CONTROL))
        before, after = ('"type":"text",', "") if kind < text else ("", ',"type":"text"')
        _split(document, members["text"][1].start, cuts, ttls, after, before)
        moved = 0 <= control < text  # it would stand in the first piece
    own = None
    for mark in edits.marks.get(item, ()):
        if mark.where.nested is None and not moved:
            own = mark
        else:
            document.set((*block, *_inside(mark)), CACHE_CONTROL, None)
    _mark(document, block, own, ttls.get(None), moved=moved)


def _split(
    document: JsonText, start: int, cuts: Sequence[int], ttls: Mapping[int | None, TTL], after: str, before: str
) -> None:
    """End the block after each piece of the string at `start` but the last and begin another for the next.

    `after` and `before` are the members that stand after and before its text.
    """
    for cut, at in zip(cuts, document.characters(start, cuts), strict=True):
        document.insert(at, f'"{after}{_written(ttls.get(cut))}}},{{{before}"text":"')


def _mark(document: JsonText, block: Path, own: Mark | None, ttl: TTL | None, *, moved: bool) -> None:
    """Give the block a checkpoint, None for none, where its `own` mark stands if it has one."""
    if own is None:
        if ttl is not None and moved:
            document.insert(max(value.end for _, value in document.values[block].members.values()), _written(ttl))
        elif ttl is not None:
            document.set(block, CACHE_CONTROL, _text(_cache_control(ttl)))
    elif ttl is None:
        document.set(block, CACHE_CONTROL, None)
    elif own.raw.get("ttl") != own.ttl or (own.ttl or "5m") != ttl:
        document.set((*block, CACHE_CONTROL), "ttl", _text(ttl) if ttl == "1h" else None)


def _written(ttl: TTL | None) -> str:
    """A checkpoint as the last member of an object that has others; nothing for None."""
    return "" if ttl is None else f",{_text(CACHE_CONTROL)}:{_text(_cache_control(ttl))}"


def _text(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


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
