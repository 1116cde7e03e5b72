"""Converse responses as ChatResponses.

A stream is gathered into the same shape `converse` returns, so both are read by the same functions.
`ChatResponse.additional_kwargs` carries the call contract in `prompt_cache`; `raw["usage"]` carries, beside the
service's own counters, the names LlamaIndex's TokenCountingHandler looks for. Nothing about usage goes into the
message, where chat engines would print it into later prompts.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Mapping
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
from cachepoint.llama_index._request.blocks import REDACTED, ConversePart, parse_arguments
from cachepoint.llama_index._request.tools import STREAMED_CALLS

S = TypeVar("S")
T = TypeVar("T")


def chat_response(response: Mapping[str, Any]) -> ChatResponse:
    """The ChatResponse of a `converse` response."""
    content = response["output"]["message"]["content"]
    return ChatResponse(message=_message(content), **_accounts(response))


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

    The last chunk, made when the service reports the usage, has the whole response in `raw`, as `chat` has.
    """

    def __init__(self) -> None:
        self._content: dict[int, ConversePart] = {}
        self._stop: dict[str, Any] = {}

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
            message = {"role": "assistant", "content": self._blocks()}
            whole = {"output": {"message": message}, **self._stop, **metadata}
            return ChatResponse(message=self._message(), delta="", **_accounts(whole))
        return None

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
        if "toolUse" in block:
            block["toolUse"]["input"] = parse_arguments(block["toolUse"]["input"])
        if "citations" in block:
            citations, text = block.pop("citations"), block.pop("text", "")
            block["citationsContent"] = {"content": [{"text": text}], "citations": citations}

    def _blocks(self) -> list[ConversePart]:
        return [self._content[index] for index in sorted(self._content)]

    def _message(self) -> ChatMessage:
        message = _message(self._blocks())
        if calls := [block.tool_call_id for block in message.blocks if isinstance(block, ToolCallBlock)]:
            message.additional_kwargs[STREAMED_CALLS] = calls
        return message


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


def _message(content: Iterable[ConversePart]) -> ChatMessage:
    """The assistant's message; text parts that follow each other are one text.

    The service breaks a text at every citation, and LlamaIndex would put a line break at each.
    """
    blocks: list[ContentBlock] = []
    text: TextBlock | None = None
    for piece in content:
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
                _thinking(piece["reasoningContent"]) if "reasoningContent" in piece else _call(piece["toolUse"])
            )
    return ChatMessage(role=MessageRole.ASSISTANT, blocks=blocks)


def _thinking(reasoning: ConversePart) -> ThinkingBlock:
    if redacted := reasoning.get("redactedContent"):
        return ThinkingBlock(additional_information={REDACTED: base64.b64encode(redacted).decode("ascii")})
    text = reasoning.get("reasoningText", {})
    return ThinkingBlock(content=text.get("text"), additional_information={"signature": text.get("signature")})


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
