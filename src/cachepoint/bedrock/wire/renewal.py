"""The smallest request that reads the same entries as one already sent: its prefix up to the last checkpoint.

Pure functions over requests as they were sent, checkpoints and all; none changes its input.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from cachepoint.bedrock.wire.anthropic_messages import CACHE_CONTROL
from cachepoint.bedrock.wire.cache_point import is_cache_point
from cachepoint.bedrock.wire.json_text import JsonText, Path, Raw, parsed

Json = dict[str, Any]
Message = Mapping[str, Any]

_REASONING = ("thinking", "reasoning_config", "reasoningConfig")


class Renewal(NamedTuple):
    """A request that renews, under the name of its operation; `whole` says that all messages are in it.

    `cheaper` is the same for no output at all, which the service may refuse; None where it is sure to.
    """

    operation: Literal["converse", "invoke_model"]
    request: Json
    whole: bool
    cheaper: Json | None = None


def renewal(api: str, sent: Mapping[str, Any]) -> Renewal | None:
    """The request that renews what a request of an API read and wrote; None where none is sure to.

    A budget for thinking must be below the limit of the answer, and is part of the prefix. A guardrail is paid by the
    text it looks at.
    """
    return _of_converse(sent) if api == "converse" else _of_messages(sent)


def _of_converse(sent: Mapping[str, Any]) -> Renewal | None:
    fields = sent.get("additionalModelRequestFields") or {}
    if "guardrailConfig" in sent or "promptVariables" in sent or _thinks(fields):
        return None
    messages, question = list(sent["messages"]), {"role": "user", "content": [{"text": "."}]}
    cut = _cut(messages, is_cache_point)
    before = [*(sent.get("system") or ()), *((sent.get("toolConfig") or {}).get("tools") or ())]
    if cut is None:
        if not any(map(is_cache_point, before)):
            return None
        messages = [question]
    elif cut != WHOLE:
        last = messages[cut.message]
        kept = {**last, "content": _blocks(last["content"])[: cut.block + 1]}
        messages = [*messages[: cut.message], kept, *([question] if cut.unanswered else ())]
    limited = {**(sent.get("inferenceConfig") or {}), "maxTokens": 1}  # Converse takes no fewer (R3.21)
    return Renewal("converse", {**sent, "messages": messages, "inferenceConfig": limited}, cut == WHOLE)


def _of_messages(sent: Mapping[str, Any]) -> Renewal | None:
    body = parsed(sent["body"])
    if "guardrailIdentifier" in sent or _thinks(body):
        return None
    marked = [*_blocks(body.get("system")), *_blocks(body.get("tools"))]
    cut = WHOLE if CACHE_CONTROL in body else _cut(body["messages"], lambda block: bool(block.get(CACHE_CONTROL)))
    if cut is None and not any(block.get(CACHE_CONTROL) for block in marked):
        return None

    def limited(tokens: int) -> Json:
        return {**sent, "body": _shortened(JsonText(sent["body"], [_path(cut)]), cut, tokens)}

    # Refused with an output schema and with a forced tool (R3.21).
    output = body.get("output_config") or {}
    wordy = (
        "output_format" in body or "format" in output or (body.get("tool_choice") or {}).get("type") in ("any", "tool")
    )
    return Renewal("invoke_model", limited(1), cut == WHOLE, None if wordy else limited(0))


def _path(cut: _Cut | None) -> Path:
    return ("messages",) if cut is None or cut == WHOLE else ("messages", cut.message, "content", cut.block)


def _shortened(document: JsonText, cut: _Cut | None, tokens: int) -> Raw:
    """A body cut where it may be, for an answer of so many tokens; what is left of it keeps its bytes."""
    messages, question = document.values["messages",], '{"role":"user","content":"."}'
    if cut is None:
        document.replace(messages.start, messages.end, f"[{question}]")
    elif cut != WHOLE:
        *above, block = (document.values[_path(cut)[:depth]] for depth in (2, 3, 4))
        message, content = above
        document.replace(block.end, content.end - 1, "")
        document.replace(message.end, messages.end - 1, f",{question}" if cut.unanswered else "")
    document.set((), "max_tokens", str(tokens))
    return document.edited()


def _thinks(fields: Mapping[str, Any]) -> bool:
    settings = [fields[name] for name in _REASONING if isinstance(fields.get(name), Mapping)]
    return any(setting.get("type") == "enabled" for setting in settings)


def _blocks(content: Any) -> list[Message]:
    return [block for block in content if isinstance(block, Mapping)] if isinstance(content, list | tuple) else []


class _Cut(NamedTuple):
    """The message and the block of it that a shorter request ends with, and whether a question is wanted after it."""

    message: int
    block: int
    unanswered: bool


WHOLE = _Cut(-1, -1, unanswered=False)
"""No request that is shorter is sure to read the same."""


def _cut(messages: Sequence[Message], ends: Callable[[Message], bool]) -> _Cut | None:
    """Where the messages may be cut, after the last checkpoint; None where no checkpoint is in them.

    `ends` tells a block at which a checkpoint stands. Calls and results stay together, and so do images with what was
    before them, for that there are any is part of the prefix (R3.10).
    """
    for number in range(len(messages) - 1, -1, -1):
        message, blocks = messages[number], _blocks(messages[number].get("content"))
        last = max((i for i, block in enumerate(blocks) if ends(block)), default=-1)
        if last < 0:
            continue
        rest, kept = blocks[last + 1 :], blocks[: last + 1]
        later = [block for each in messages[number + 1 :] for block in _blocks(each.get("content"))]
        torn = any(_is(block, "toolResult", "tool_result") for block in rest)
        called = message["role"] != "user" and any(_is(block, "toolUse", "tool_use") for block in kept)
        wordless = any("document" in block for block in kept) and not any("text" in block for block in kept)
        shown = any(_shows_an_image(block) for block in (*rest, *later))
        if torn or called or wordless or shown or message["role"] == "system":
            return WHOLE
        return _Cut(number, last, unanswered=message["role"] != "user")
    return None


def _is(block: Message, converse: str, messages: str) -> bool:
    return converse in block or block.get("type") == messages


def _shows_an_image(block: Message) -> bool:
    inner = block["toolResult"].get("content") if "toolResult" in block else block.get("content")
    return any(_is(part, "image", "image") for part in (block, *_blocks(inner)))
