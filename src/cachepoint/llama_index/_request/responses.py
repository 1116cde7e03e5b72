"""Converse responses as ChatResponses.

A stream is gathered into the same shape `converse` returns, so both are read by the same functions.
`ChatResponse.additional_kwargs` carries the call contract in `prompt_cache`; `raw["usage"]` carries, beside the
service's own counters, the names LlamaIndex's TokenCountingHandler looks for. Nothing about usage goes into the
message, where chat engines would print it into later prompts.
"""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Mapping, Sequence
from contextlib import aclosing, closing
from typing import Any, TypeVar

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CitationBlock,
    CompletionResponse,
    ContentBlock,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)

from cachepoint.bedrock.wire.converse import whole_numbers
from cachepoint.bedrock.wire.stop_reasons import BROKE_OFF, not_whole
from cachepoint.llama_index._request.blocks import ORIGIN, REDACTED, UNREADABLE, ConversePart, parse_arguments
from cachepoint.llama_index._request.tools import INVALID_CALLS, STREAMED_CALLS

_NO_END = "the stream broke off"
_CUT = BROKE_OFF | {_NO_END}

S = TypeVar("S")
T = TypeVar("T")


def chat_response(response: Mapping[str, Any], origin: str = "") -> ChatResponse:
    """The ChatResponse of a `converse` response; `origin` is the provider of its model, "" where that is not known."""
    content, stop = response["output"]["message"]["content"], response.get("stopReason", "")
    invalid = [place for place, piece in enumerate(content) if _is_cut(piece, stop, last=place == len(content) - 1)]
    return ChatResponse(message=_message(content, origin, invalid, stop), **_accounts(response))


def completion_response(response: ChatResponse) -> CompletionResponse:
    """The same answer in the form `complete` returns."""
    return CompletionResponse(
        text=response.message.content or "",
        delta=response.delta,
        raw=response.raw,
        additional_kwargs={**response.message.additional_kwargs, **response.additional_kwargs},
    )


def mapped(function: Callable[[S], T], chunks: Generator[S, None, None]) -> Generator[T, None, None]:
    """Each chunk in another form; closing the generator closes `chunks`."""
    with closing(chunks):
        for chunk in chunks:
            yield function(chunk)


async def amapped(function: Callable[[S], T], chunks: AsyncGenerator[S, None]) -> AsyncGenerator[T, None]:
    """Each chunk in another form; closing the generator closes `chunks`."""
    async with aclosing(chunks):
        async for chunk in chunks:
            yield function(chunk)


class StreamedResponse:
    """Gathers the events of a `converse_stream` response; each may give a chunk to pass on.

    The last chunk, made when the service reports the usage, has the whole response in `raw`, as `chat` has. Until then
    the arguments of tool calls are what has come of them; in the last chunk they are whole, or the call is invalid.
    """

    def __init__(self, origin: str = "") -> None:
        self._origin = origin
        self._content: dict[int, ConversePart] = {}
        self._stop: dict[str, Any] = {}
        self._ended = False

    def add(self, event: Mapping[str, Any]) -> ChatResponse | None:
        """Take in one event; the chunk to pass on, None where it says nothing new."""
        if start := event.get("contentBlockStart"):
            return self._start(start, event)
        if delta := event.get("contentBlockDelta"):
            return self._delta(delta, event)
        if stop := event.get("contentBlockStop"):
            self._close(self._content.get(stop["contentBlockIndex"], {}))
        elif stop := event.get("messageStop"):
            self._stop = dict(stop)
        elif metadata := event.get("metadata"):
            self._ended = True
            message = self._last_message()
            content = {"role": "assistant", "content": self._blocks()}
            whole = {"output": {"message": content}, **self._stop, **metadata}
            return ChatResponse(message=message, delta="", **_accounts(whole))
        return None

    def broken_off(self) -> ChatResponse | None:
        """The last chunk of a stream that came to no end, where a tool call in it is not whole."""
        if self._ended:
            return None
        message = self._last_message()
        return ChatResponse(message=message, delta="") if INVALID_CALLS in message.additional_kwargs else None

    def _last_message(self) -> ChatMessage:
        blocks, stop = self._blocks(), self._stop.get("stopReason", _NO_END)
        invalid = [place for place, piece in enumerate(blocks) if not _complete(piece, stop, place == len(blocks) - 1)]
        return _with_ids(_message(blocks, self._origin, invalid, stop), blocks)

    def _start(self, start: Mapping[str, Any], event: Mapping[str, Any]) -> ChatResponse | None:
        call = start["start"].get("toolUse")
        if call is None:
            return None
        self._content[start["contentBlockIndex"]] = {"toolUse": {**call, "input": ""}}
        return ChatResponse(message=self._message(), delta="", raw=event)

    def _delta(self, delta: Mapping[str, Any], event: Mapping[str, Any]) -> ChatResponse:
        change = delta["delta"]
        block = self._content.setdefault(delta["contentBlockIndex"], {})
        thinking = None
        if "text" in change:
            block["text"] = block.get("text", "") + change["text"]
        elif "toolUse" in change:
            call = block.setdefault("toolUse", {"input": ""})
            call["input"] += change["toolUse"].get("input", "")
        elif "citation" in change:
            block.setdefault("citations", []).append(change["citation"])
        elif "reasoningContent" in change:
            thinking = _add_reasoning(block.setdefault("reasoningContent", {}), change["reasoningContent"])
        return ChatResponse(
            message=self._message(),
            delta=change.get("text", ""),
            raw=event,
            additional_kwargs={} if thinking is None else {"thinking_delta": thinking},
        )

    def _close(self, block: ConversePart) -> None:
        """Give a block that is complete the shape it has in a `converse` response."""
        if "citations" in block:
            citations, text = block.pop("citations"), block.pop("text", "")
            block["citationsContent"] = {"content": [{"text": text}], "citations": citations}

    def _blocks(self) -> list[ConversePart]:
        return [self._content[index] for index in sorted(self._content)]

    def _message(self) -> ChatMessage:
        blocks = self._blocks()
        return _with_ids(_message(blocks, self._origin), blocks)


def _with_ids(message: ChatMessage, blocks: Iterable[ConversePart]) -> ChatMessage:
    if calls := [block["toolUse"].get("toolUseId") for block in blocks if "toolUse" in block]:
        message.additional_kwargs[STREAMED_CALLS] = calls
    return message


def _complete(piece: ConversePart, stop: str, last: bool) -> bool:  # noqa: FBT001 - private
    """Whether a streamed piece is whole; the arguments of a tool call, which have come as text, become an object.

    An object's text is whole when it can be read. No text at all is a call without arguments, or one that was cut off
    before them.
    """
    text = piece.get("toolUse", {}).get("input")
    if not isinstance(text, str):
        return True
    try:
        arguments = json.loads(text) if text else {}
    except UNREADABLE:
        return False
    if not isinstance(arguments, dict) or (not text and last and stop in _CUT):
        return False
    piece["toolUse"]["input"] = arguments
    return True


def _is_cut(piece: ConversePart, stop: str, *, last: bool) -> bool:
    """Whether a piece of a whole response is a tool call without all of its arguments.

    What the service makes of arguments that broke off nobody says; so the call in which the answer ended counts as cut.
    """
    call = piece.get("toolUse")
    return call is not None and (not isinstance(call.get("input"), dict) or (last and stop in _CUT))


def _add_reasoning(known: ConversePart, change: Mapping[str, Any]) -> str | None:
    """Add to a block's reasoning in place; the new thinking text, None where the change is of another kind."""
    if "redactedContent" in change:
        known["redactedContent"] = known.get("redactedContent", b"") + change["redactedContent"]
        return None
    text = known.setdefault("reasoningText", {"text": ""})
    text["text"] += change.get("text", "")
    if "signature" in change:
        text["signature"] = text.get("signature", "") + change["signature"]
    return change.get("text")


def _message(content: Sequence[ConversePart], origin: str, invalid: Sequence[int] = (), stop: str = "") -> ChatMessage:
    """The assistant's message; text parts that follow each other are one text.

    The service breaks a text at every citation, and LlamaIndex would put a line break at each. The tool calls at the
    indices `invalid` are no blocks, which an agent would run and a later request would have to answer.
    """
    blocks: list[ContentBlock] = []
    text: TextBlock | None = None
    for place, piece in enumerate(content):
        if place in invalid:
            continue
        citations = piece.get("citationsContent", {})
        part = piece.get("text") or "".join(each.get("text", "") for each in citations.get("content", ()))
        if part:
            if text is None:
                text = TextBlock(text="")
                blocks.append(text)
            text.text += part
        blocks += [_citation(each) for each in (*citations.get("citations", ()), *piece.get("citations", ()))]
        if "reasoningContent" in piece or "toolUse" in piece:
            text = None
            blocks.append(
                _thinking(piece["reasoningContent"], origin) if "reasoningContent" in piece else _call(piece["toolUse"])
            )
    extras = {INVALID_CALLS: [_invalid_call(content[place]["toolUse"], stop) for place in invalid]} if invalid else {}
    return ChatMessage(role=MessageRole.ASSISTANT, blocks=blocks, additional_kwargs=extras)


def _invalid_call(call: ConversePart, stop: str) -> dict[str, Any]:
    name, arguments = call["name"], call.get("input")
    return {
        "id": call.get("toolUseId"),
        "name": name,
        "args": arguments if isinstance(arguments, str) else json.dumps(arguments),
        "error": not_whole(name, stop),
    }


def _thinking(reasoning: ConversePart, origin: str) -> ThinkingBlock:
    known: dict[str, Any] = {ORIGIN: origin} if origin else {}
    if redacted := reasoning.get("redactedContent"):
        return ThinkingBlock(additional_information={REDACTED: base64.b64encode(redacted).decode("ascii"), **known})
    text = reasoning.get("reasoningText", {})
    return ThinkingBlock(content=text.get("text"), additional_information={"signature": text.get("signature"), **known})


def _call(call: ConversePart) -> ToolCallBlock:
    return ToolCallBlock(
        tool_call_id=call.get("toolUseId"), tool_name=call["name"], tool_kwargs=parse_arguments(call["input"])
    )


def _citation(citation: ConversePart) -> CitationBlock:
    """What was cited; `additional_location_info` has the numbers of the service's location, such as start and end."""
    place: Mapping[str, Any] = next(iter(citation.get("location", {}).values()), {})
    return CitationBlock(
        cited_content=TextBlock(text="".join(part.get("text", "") for part in citation.get("sourceContent", ()))),
        source=citation.get("source", ""),
        title=citation.get("title", ""),
        additional_location_info={name: number for name, number in place.items() if isinstance(number, int)},
    )


def _accounts(response: Mapping[str, Any]) -> dict[str, Any]:
    """`raw` and `additional_kwargs` of a finished call."""
    usage = whole_numbers(response.get("usage"))
    counts = _counts(usage) if usage else {}
    contract = {"prompt_cache": response["promptCache"]} if "promptCache" in response else {}
    raw = {**response, "usage": {**usage, **counts}} if usage else dict(response)
    return {"raw": raw, "additional_kwargs": {**counts, **contract}}


def _counts(usage: Mapping[str, Any]) -> dict[str, int]:
    """Token counts under LlamaIndex's names; `prompt_tokens` is the whole prompt, cached or not."""
    read, written = usage.get("cacheReadInputTokens") or 0, usage.get("cacheWriteInputTokens") or 0
    prompt, answer = (usage.get("inputTokens") or 0) + read + written, usage.get("outputTokens") or 0
    return {
        "prompt_tokens": prompt,
        "completion_tokens": answer,
        "total_tokens": prompt + answer,
        "cache_read_input_tokens": read,
        "cache_creation_input_tokens": written,
    }
