"""Past turns of a Converse conversation as the service takes them back.

A framework's history is trimmed, broken off and moved between models. What is then left of it the service may refuse
for good: reasoning that a model does not take back, a turn of nothing else, half of a tool's call and result. Each is
left out, or made whole in words that the model reads; a history that is whole is given back as it is.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from cachepoint.bedrock.wire.cache_point import is_cache_point
from cachepoint.core.exchange import Warn
from cachepoint.core.provider.rules import Replay

Block = dict[str, Any]
Message = dict[str, Any]

UNANSWERED = "No result: this call was cut off or never answered, and nothing is known of what it did."
ORPHANED = "Result of an earlier tool call that is no longer in this conversation:"
CALLED = "Tool call:"
RESULT = "Result of a tool call:"

# botocore's model of the service: ToolUseId.
_ID = re.compile(r"[a-zA-Z0-9_.:-]{1,64}")
_NOT_IN_IDS = re.compile(r"[^a-zA-Z0-9_.:-]")
_LONGEST_ID = 64


class Mended(NamedTuple):
    """Messages that the service takes, and what to warn of."""

    messages: list[Message]
    warnings: tuple[Warn, ...] = ()


def mended(messages: list[Message], replay: Replay) -> Mended:
    """The messages with reasoning as far as the model takes it back (`replay`), and with whole pairs of tool blocks."""
    kept = [_with_reasoning(message, replay) for message in messages]
    untouched = all(now is before for now, before in zip(kept, messages, strict=True))
    return _Pairing(without_empty_turns(messages if untouched else kept)).mended()


def without_empty_turns(messages: list[Message]) -> list[Message]:
    """The messages without assistant turns that say nothing, or nothing but thoughts; roles alternate as before.

    Fable 5.1 and Sonnet 5 take a turn of thoughts alone for a prefill and refuse it wherever it stands
    (hermes-agent#105780, claude-code#13709).
    """
    return without_turns(messages, lambda message: message["role"] == "assistant" and _says_nothing(message["content"]))


def without_turns(messages: list[Message], left_out: Callable[[Message], bool]) -> list[Message]:
    """The messages without those turns, themselves where there are none; two of one role that meet then become one."""
    kept: list[Message] = []
    gap = False
    for message in messages:
        if left_out(message):
            gap = True
            continue
        if gap and kept and kept[-1].get("role") == message.get("role"):
            kept[-1] = {**kept[-1], "content": [*kept[-1]["content"], *message["content"]]}
        else:
            kept.append(message)
        gap = False
    return messages if len(kept) == len(messages) else kept


def _says_nothing(content: Sequence[Block]) -> bool:
    return all("reasoningContent" in block or is_cache_point(block) for block in content)


# -- reasoning ------------------------------------------------------------------------------------


def _with_reasoning(message: Message, replay: Replay) -> Message:
    content = message["content"]
    if message["role"] != "assistant" or not any("reasoningContent" in block for block in content):
        return message
    kept = [block for block in content if "reasoningContent" not in block or _taken_back(block, replay)]
    return message if len(kept) == len(content) else {**message, "content": kept}


def _taken_back(block: Block, replay: Replay) -> bool:
    """Whether a model takes this reasoning back; where the display is off, a signature stands beside an empty text."""
    reasoning = block["reasoningContent"]
    if replay == "none":
        return False
    signed = "redactedContent" in reasoning or bool((reasoning.get("reasoningText") or {}).get("signature"))
    return signed or (replay == "unsigned" and bool((reasoning.get("reasoningText") or {}).get("text")))


# -- tools in words -------------------------------------------------------------------------------


def in_words(messages: list[Message]) -> list[Message]:
    """The messages with tool calls and results as text, for a model that takes neither; themselves without any."""
    kept = [{**message, "content": list(_blocks_in_words(message["content"]))} for message in messages]
    return messages if kept == messages else kept


def _blocks_in_words(content: Sequence[Block]) -> Iterator[Block]:
    for block in content:
        if "toolUse" in block:
            arguments = json.dumps(block["toolUse"].get("input"), ensure_ascii=False)
            yield {"text": f"{CALLED} {block['toolUse']['name']} {arguments}"}
        elif "toolResult" in block:
            yield from _result_in_words(block, RESULT)
        else:
            yield block


def _result_in_words(block: Block, heading: str) -> Iterator[Block]:
    said: list[str] = []
    others: list[Block] = []
    for part in block["toolResult"].get("content") or ():
        if "text" in part:
            said.append(part["text"])
        elif "json" in part:
            said.append(json.dumps(part["json"], ensure_ascii=False))
        elif not is_cache_point(part):
            others.append(part)
    yield {"text": "\n".join([heading, *said])}
    yield from others


# -- pairs of tool calls and results --------------------------------------------------------------


class _Result(NamedTuple):
    """A tool's result, and the checkpoints right behind it."""

    block: Block
    points: list[Block]


class _Pairing:
    """Gives each tool call one result in the next turn, under an id of its own that the service takes."""

    def __init__(self, messages: list[Message]) -> None:
        self._messages = messages
        self._given = {use["toolUseId"] for message in messages for use in _uses(message)}
        self._taken: set[str] = set()
        self._found: Counter[str] = Counter()

    def mended(self) -> Mended:
        if not any(_uses(message) or _has_results(message) for message in self._messages) or self._is_whole():
            return Mended(self._messages)
        kept: list[Message] = []
        pending: list[tuple[str, str]] = []
        for message in _gathered(self._messages):
            if message["role"] == "user":
                message = self._answering(message, pending)  # noqa: PLW2901
                pending = []
            elif message["role"] == "assistant":
                if pending:
                    kept.append({"role": "user", "content": [self._unanswered(sent) for _, sent in pending]})
                message, pending = self._calling(message)  # noqa: PLW2901
            kept.append(message)
        if pending:
            kept.append({"role": "user", "content": [self._unanswered(sent) for _, sent in pending]})
        return Mended(kept, tuple(self._warnings()))

    def _is_whole(self) -> bool:
        pending: list[str] = []
        seen: set[str] = set()
        for message in self._messages:
            if message["role"] == "user":
                content = message["content"]
                results = [block["toolResult"]["toolUseId"] for block in content if "toolResult" in block]
                if sorted(results) != sorted(pending) or not _first(content):
                    return False
                pending = []
            elif message["role"] == "assistant":
                if pending:
                    return False
                pending = [use["toolUseId"] for use in _uses(message)]
                known = len(seen) + len(pending)
                seen.update(pending)
                if len(seen) < known or not all(_ID.fullmatch(call) for call in pending):
                    return False
        return not pending

    def _calling(self, message: Message) -> tuple[Message, list[tuple[str, str]]]:
        """The assistant's turn with ids that the service takes; each as it was given and as it is sent."""
        own = _uses(message)
        if not own:
            return message, []
        pairs = [(use["toolUseId"], self._sent_id(use["toolUseId"])) for use in own]
        renamed = iter(pairs)
        content = [
            {"toolUse": {**block["toolUse"], "toolUseId": next(renamed)[1]}}
            if any(block.get("toolUse") is use for use in own) else block
            for block in message["content"]
        ]  # fmt: skip
        return {**message, "content": content}, pairs

    def _sent_id(self, given: str) -> str:
        if _ID.fullmatch(given) and given not in self._taken:
            self._taken.add(given)
            return given
        self._found["renamed"] += 1
        plain = _NOT_IN_IDS.sub("_", given) or "call"
        number = 1
        while True:
            tail = "" if number == 1 else f"-{number}"
            sent = plain[: _LONGEST_ID - len(tail)] + tail
            if sent not in self._taken and sent not in self._given:
                self._taken.add(sent)
                return sent
            number += 1

    def _answering(self, message: Message, pending: list[tuple[str, str]]) -> Message:
        """The user's turn with one result for each call of the turn before, first, and other results as text."""
        results, rest = _parted(message["content"])
        answers: list[Block] = []
        for given, sent in pending:
            place = next((n for n, each in enumerate(results) if each.block["toolResult"]["toolUseId"] == given), None)
            if place is None:
                answers.append(self._unanswered(sent))
                continue
            block, points = results.pop(place)
            answers += [{"toolResult": {**block["toolResult"], "toolUseId": sent}}, *points]
        texts = [part for orphan in results for part in self._orphaned(orphan)]
        return {**message, "content": [*answers, *texts, *rest]}

    def _unanswered(self, sent: str) -> Block:
        self._found["unanswered"] += 1
        return {"toolResult": {"toolUseId": sent, "content": [{"text": UNANSWERED}]}}

    def _orphaned(self, orphan: _Result) -> Iterator[Block]:
        self._found["orphaned"] += 1
        yield from _result_in_words(orphan.block, ORPHANED)
        yield from orphan.points

    def _warnings(self) -> Iterator[Warn]:
        for what, sentence in _SENTENCES.items():
            if number := self._found[what]:
                yield Warn(f"history:{what}", sentence.format(number))


_SENTENCES = {
    "unanswered": (
        "the conversation has tool calls without a result ({}), which Bedrock refuses; the model is told that there is "
        "none. Put a result after each call, or trim the history before a user's turn"
    ),
    "orphaned": (
        "the conversation has tool results that follow no call of theirs ({}), which Bedrock refuses; they were sent "
        "as text. Trim the history before a user's turn, and put each result right after its call"
    ),
    "renamed": (
        "the conversation has tool calls whose id stands there twice or is one that Bedrock refuses ({}); they were "
        "sent under others. An id has up to 64 letters, digits and _ . : -"
    ),
}


def _gathered(messages: list[Message]) -> list[Message]:
    """The messages with all results between two answers in one turn, the first: a system message may part them."""
    kept: list[Message] = []
    first: int | None = None
    for message in messages:
        if message["role"] == "assistant":
            first = None
        elif message["role"] == "user" and first is None:
            first = len(kept)
        elif first is not None and _has_results(message):
            results, rest = _parted(message["content"])
            blocks = [block for result in results for block in (result.block, *result.points)]
            kept[first] = {**kept[first], "content": [*kept[first]["content"], *blocks]}
            if not rest:
                continue
            message = {**message, "content": rest}  # noqa: PLW2901
        kept.append(message)
    return kept


def _uses(message: Message) -> list[Block]:
    """The calls of an assistant's turn that the next turn is to answer: those of the service's own tools it has."""
    if message["role"] != "assistant":
        return []
    content = message["content"]
    answered = {block["toolResult"]["toolUseId"] for block in content if "toolResult" in block}
    uses = (block["toolUse"] for block in content if "toolUse" in block)
    return [use for use in uses if "type" not in use and use["toolUseId"] not in answered]


def _has_results(message: Message) -> bool:
    return message["role"] == "user" and any("toolResult" in block for block in message["content"])


def _first(content: Sequence[Block]) -> bool:
    """Whether all results stand before everything else, as Claude wants them."""
    others = False
    for block in content:
        if "toolResult" in block and others:
            return False
        others = others or not ("toolResult" in block or is_cache_point(block))
    return True


def _parted(content: Sequence[Block]) -> tuple[list[_Result], list[Block]]:
    results: list[_Result] = []
    rest: list[Block] = []
    behind = False
    for block in content:
        if "toolResult" in block:
            results.append(_Result(block, []))
            behind = True
        elif behind and is_cache_point(block):
            results[-1].points.append(block)
        else:
            rest.append(block)
            behind = False
    return results, rest
