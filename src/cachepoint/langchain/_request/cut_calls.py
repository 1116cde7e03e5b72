"""Tool calls that broke off, of `max_tokens` or of anything else, as invalid tool calls.

The parent completes what has come of a call's arguments, and agents run it (langchain-core 1.8 `AIMessageChunk` reads
them with `parse_partial_json`). LangChain's place for such a call is `invalid_tool_calls`, which no agent runs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.tool import invalid_tool_call, tool_call_chunk
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.utils.json import parse_partial_json

from cachepoint.bedrock.wire.stop_reasons import BROKE_OFF, not_whole

_SPOILERS = ("]", "}", '"]', '"}', '""]', '""}')
"""What makes JSON that broke off no beginning of JSON: outside of a string, in one, and in one behind a backslash."""
_UNREADABLE = (ValueError, RecursionError)
"""Also what a model writes that opens brackets until its answer breaks off."""


def without_cut_call(message: BaseMessage) -> None:
    """Move the call that the answer broke off in to the message's invalid ones, in place.

    The content keeps its block, for not every parent sends an invalid call back (langchain-aws 1.6.4 raises). What the
    service makes of arguments that broke off nobody says; so the call in which the answer ended counts as cut.
    """
    stop = message.response_metadata.get("stopReason")
    if not isinstance(message, AIMessage) or stop not in BROKE_OFF or not isinstance(message.content, list):
        return
    last = message.content[-1] if message.content else None
    if not isinstance(last, dict) or last.get("type") != "tool_use":
        return
    cut = [call for call in message.tool_calls if call["id"] == last.get("id")]
    if not cut:
        return
    invalid = invalid_tool_call(
        name=cut[0]["name"],
        args=json.dumps(cut[0]["args"]),
        id=cut[0]["id"],
        error=not_whole(cut[0]["name"], stop),
    )
    message.tool_calls = [call for call in message.tool_calls if call not in cut]
    message.invalid_tool_calls.append(invalid)


class CutCalls:
    """Watches one stream; where it ends in a call that broke off, one more chunk makes that call an invalid one.

    Chunks are added up by whoever reads them, so what was sent of a call cannot be taken back. What is added instead
    makes its arguments unreadable for the lenient reading.
    """

    def __init__(self, run: CallbackManagerForLLMRun | None) -> None:
        self._run = run
        self._arguments: dict[Any, str] = {}

    def passing(self, chunks: Iterator[ChatGenerationChunk]) -> Iterator[ChatGenerationChunk]:
        """The chunks of a stream, and behind its content one for each call that is not whole."""
        with closing(chunks):  # type: ignore[type-var]  # the parent's generator
            for chunk in chunks:
                for more in self._spoiled_by(chunk.message):
                    if self._run:
                        self._run.on_llm_new_token("", chunk=more)
                    yield more
                yield chunk

    def _spoiled_by(self, message: BaseMessage) -> Iterator[ChatGenerationChunk]:
        if not isinstance(message, AIMessageChunk):
            return
        for part in message.tool_call_chunks:
            self._arguments[part["index"]] = self._arguments.get(part["index"], "") + (part["args"] or "")
        if stop := message.response_metadata.get("stopReason"):
            yield from self._spoiled(stop)

    def _spoiled(self, stop: str) -> Iterator[ChatGenerationChunk]:
        last = max(self._arguments, default=None)
        for index, text in self._arguments.items():
            if _is_object(text) or (not text and not (index == last and stop in BROKE_OFF)):
                continue
            spoiler = next((each for each in _SPOILERS if not isinstance(_lenient(text + each), dict)), None)
            if spoiler is not None and isinstance(_lenient(text), dict):
                part = tool_call_chunk(name=None, args=spoiler, id=None, index=index)
                yield ChatGenerationChunk(message=AIMessageChunk(content=[], tool_call_chunks=[part]))


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text, strict=False), dict)
    except _UNREADABLE:
        return False


def _lenient(text: str) -> Any:
    try:
        return parse_partial_json(text) if text else {}
    except _UNREADABLE:
        return None
