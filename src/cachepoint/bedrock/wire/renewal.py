"""The smallest request that reads the same entries as one already sent: its prefix up to the last checkpoint.

Pure functions over requests as they were sent, checkpoints and all; none changes its input.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from cachepoint.bedrock.wire.anthropic_messages import CACHE_CONTROL
from cachepoint.bedrock.wire.cache_point import is_cache_point

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
    cut = _cut(sent["messages"], is_cache_point, {"text": "."})
    before = [*(sent.get("system") or ()), *((sent.get("toolConfig") or {}).get("tools") or ())]
    if cut is None and not any(map(is_cache_point, before)):
        return None
    messages, whole = cut or ([{"role": "user", "content": [{"text": "."}]}], False)
    limited = {**(sent.get("inferenceConfig") or {}), "maxTokens": 1}  # Converse takes no fewer (R3.21)
    return Renewal("converse", {**sent, "messages": messages, "inferenceConfig": limited}, whole)


def _of_messages(sent: Mapping[str, Any]) -> Renewal | None:
    body: Json = json.loads(sent["body"])
    if "guardrailIdentifier" in sent or _thinks(body):
        return None
    marked = [*_blocks(body.get("system")), *_blocks(body.get("tools"))]
    cut = _cut(body["messages"], lambda block: bool(block.get(CACHE_CONTROL)), {"type": "text", "text": "."})
    if CACHE_CONTROL in body:
        cut = (body["messages"], True)
    if cut is None and not any(block.get(CACHE_CONTROL) for block in marked):
        return None
    messages, whole = cut or ([{"role": "user", "content": "."}], False)

    def limited(tokens: int) -> Json:
        shorter = {**body, "messages": messages, "max_tokens": tokens}
        return {**sent, "body": json.dumps(shorter, separators=(",", ":")).encode()}

    # Refused with an output schema and with a forced tool (R3.21).
    output = body.get("output_config") or {}
    wordy = (
        "output_format" in body or "format" in output or (body.get("tool_choice") or {}).get("type") in ("any", "tool")
    )
    return Renewal("invoke_model", limited(1), whole, None if wordy else limited(0))


def _thinks(fields: Mapping[str, Any]) -> bool:
    settings = [fields[name] for name in _REASONING if isinstance(fields.get(name), Mapping)]
    return any(setting.get("type") == "enabled" for setting in settings)


def _blocks(content: Any) -> list[Message]:
    return [block for block in content if isinstance(block, Mapping)] if isinstance(content, list | tuple) else []


def _cut(messages: Sequence[Message], ends: Any, filler: Json) -> tuple[list[Any], bool] | None:
    """The messages up to the last checkpoint, and whether those are all; None where no checkpoint is in them.

    `ends` tells a block at which a checkpoint stands; `filler` is a question to put behind an answer. Calls and results
    stay together, and so do images with what was before them, for that there are any is part of the prefix (R3.10).
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
            return list(messages), True
        question = [] if message["role"] == "user" else [{"role": "user", "content": [filler]}]
        return [*messages[:number], {**message, "content": kept}, *question], False
    return None


def _is(block: Message, converse: str, messages: str) -> bool:
    return converse in block or block.get("type") == messages


def _shows_an_image(block: Message) -> bool:
    inner = block["toolResult"].get("content") if "toolResult" in block else block.get("content")
    return any(_is(part, "image", "image") for part in (block, *_blocks(inner)))
