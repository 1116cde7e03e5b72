"""The Converse dialect: how a Converse body becomes a prompt, in the emulator's own reading.

Wire order is tools, system, messages (docs/rules.md, R3.1). Text documents move to the head of their message on Claude,
so that one that follows a checkpoint is cached with it (R3.12); media stay where they are.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Sequence
from typing import Any

from cachepoint.core.provider.rules import TTL
from cachepoint.emulator._reading.positions import PromptWriter, RenderedPrompt
from cachepoint.emulator._reading.request import Call, Json
from cachepoint.emulator._reading.tokenizer import count_tokens

# What a tool use and its result cost besides their content (recordings of fifty rounds of one tool).
_TOOL_USE_TOKENS, _TOOL_RESULT_TOKENS = 32, 16
_DOCUMENT_TOKENS = 20
_IMAGE_PIXELS_A_TOKEN, _MOST_IMAGE_TOKENS = 750, 1600
_VIDEO_TOKENS = 2300  # the one recorded video, on Nova Pro
_PDF_BYTES_A_TOKEN = 7
_PNG = b"\x89PNG\r\n\x1a\n"


def _compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _is_result_turn(message: Json) -> bool:
    return any("toolResult" in block for block in message.get("content", []))


def render(call: Call) -> RenderedPrompt:
    """The prompt of a Converse body."""
    return _Renderer(call).render()


class _Renderer:
    def __init__(self, call: Call) -> None:
        self._call = call
        self._body = call.body
        self._framing = call.traits.framing
        self._tools: Sequence[Json] = (call.body.get("toolConfig") or {}).get("tools") or ()
        self._choice: Json = (call.body.get("toolConfig") or {}).get("toolChoice") or {}
        self._messages: Sequence[Json] = call.body.get("messages") or ()
        fields = call.body.get("additionalModelRequestFields")
        self._fields: Json = fields if isinstance(fields, dict) else {}
        self._writer = PromptWriter(self._root())

    def render(self) -> RenderedPrompt:
        """The request in wire order: tools, system, messages."""
        self._begin_tools()
        self._write_tools()
        self._begin_system()
        for block in self._body.get("system") or ():
            self._write("system", block)
        self._begin_messages()
        for index, message in enumerate(self._messages):
            self._write_message(index, message)
        return self._writer.finish(self._opening())

    def _root(self) -> str:
        """What every section depends on (R3.10)."""
        parts: list[object] = [
            (self._body.get("outputConfig") or {}).get("textFormat"),
            sorted((self._body.get("promptVariables") or {}).items()),
            # Where the fields' tools go among the others is not documented; so all tools are lost with them.
            [self._fields.get(name) for name in ("tools", "anthropic_beta", "mcp_servers")],
        ]
        if self._call.options.thinking_in_every_section:
            parts.append(self._thinking())
        if self._call.traits.nova and self._call.options.nova_choice_in_every_section:
            parts.append(self._choice)
        return _compact(parts)

    def _begin_tools(self) -> None:
        """The variables of a stored prompt; its own text is not in the request, and not counted."""
        values = (self._body.get("promptVariables") or {}).values()
        self._writer.unseen(sum(self._count(value.get("text", "")) for value in values))

    def _begin_system(self) -> None:
        """The fields' own tools, which stand before the system prompt, and fast mode, which leaves the tools."""
        tools = self._fields.get("tools") or ()
        tokens = sum(self._count(_compact(tool)) for tool in tools)
        if tools and not self._tools:
            tokens += self._framing.tools
        speed = self._fields.get("speed")
        self._writer.unseen(tokens, _compact([None if speed == "standard" else speed, self._fields.get("system")]))

    def _write_tools(self) -> None:
        fixed = self._framing.tools
        for tool in self._tools:
            if "cachePoint" in tool:
                self._point(tool)
                continue
            text = _compact(tool.get("toolSpec") or tool)
            self._writer.block("tools", text.encode("utf-8", "surrogatepass"), fixed + self._count(text))
            fixed = 0

    def _begin_messages(self) -> None:
        """What stands between system and messages: fixed tokens, and what only the messages depend on."""
        framing, forced = self._framing, bool({"any", "tool"} & set(self._choice))
        tokens = framing.tools_tail if self._tools else 0
        if forced:
            tokens += framing.forced_choice
        if any((tool.get("toolSpec") or {}).get("strict") for tool in self._tools):
            tokens += framing.strict_tools
        text_format = (self._body.get("outputConfig") or {}).get("textFormat")
        if text_format:
            tokens += framing.output_schema + self._count(_compact(text_format))
        more_system = self._fields.get("system")
        if more_system:
            tokens += self._count(more_system if isinstance(more_system, str) else _compact(more_system))
        images = any("image" in block for block in self._all_blocks())
        cleared = self._fields.get("context_management")
        self._writer.unseen(tokens, _compact([forced, images, self._thinking(), cleared]))

    def _thinking(self) -> list[object]:
        """Thinking and effort where they are not the model's default, which is the same as absent (R3.10)."""
        facts = self._call.rule.facts
        named = (self._fields.get(name) for name in ("thinking", "reasoning_config", "reasoningConfig"))
        thinking = next(filter(None, named), None)
        if thinking == {"type": "adaptive" if facts.thinking in ("on", "always") else "disabled"}:
            thinking = None
        effort = (self._body.get("outputConfig") or {}).get("effort")
        effort = effort or (self._fields.get("output_config") or {}).get("effort") or facts.effort
        return [thinking, effort]

    def _all_blocks(self) -> Iterator[Json]:
        for message in self._messages:
            for block in message.get("content", []):
                yield block
                yield from (block.get("toolResult") or {}).get("content") or ()

    def _write_message(self, index: int, message: Json) -> None:
        label = f"messages:{message.get('role')}:start"
        framing = self._framing.message
        blocks: list[Json] = message.get("content", [])
        if self._call.traits.claude:
            blocks = sorted(blocks, key=lambda block: not _is_text_document(block))
        for block in blocks:
            if "reasoningContent" in block and self._drops_thinking(index):
                continue
            self._write(label, block, framing)
            if "cachePoint" not in block:
                label, framing = "messages", 0

    def _drops_thinking(self, index: int) -> bool:
        later = self._messages[index + 1 :]
        asked_anew = any(message["role"] == "user" and not _is_result_turn(message) for message in later)
        return asked_anew and not self._call.rule.facts.keeps_thinking

    def _write(self, label: str, block: Json, framing: int = 0) -> None:
        if "cachePoint" in block:
            self._point(block)
            return
        kind, content = _kind_and_content(block)
        written = content if kind == "text" else _compact(content)
        self._writer.block(f"{label}:{kind}", written.encode("utf-8", "surrogatepass"), framing + self._tokens(block))

    def _point(self, block: Json) -> None:
        ttl: TTL = "1h" if block["cachePoint"].get("ttl") == "1h" else "5m"
        self._writer.point(ttl)

    def _opening(self) -> int:
        if self._messages and _is_result_turn(self._messages[-1]):
            return self._framing.opening_after_result
        return self._framing.opening_with_tools if self._tools else self._framing.opening

    # -- tokens ------------------------------------------------------------------------------------

    def _count(self, text: str) -> int:
        return count_tokens(text, self._call.rule.tokenizer)

    def _tokens(self, block: Json) -> int:
        kind, content = _kind_and_content(block)
        if kind == "text":
            return self._count(content)
        if kind == "toolUse":
            return _TOOL_USE_TOKENS + self._count(content.get("name", "")) + self._count(_compact(content.get("input")))
        if kind == "toolResult":
            return _TOOL_RESULT_TOKENS + sum(self._tokens(each) for each in content.get("content") or ())
        if kind == "reasoningContent":
            return self._count((content.get("reasoningText") or {}).get("text", "")) + self._framing.message
        if kind in ("document", "image", "video"):
            return self._media_tokens(kind, content)
        if kind == "cachePoint":
            return 0
        return self._count(_compact(content))

    def _media_tokens(self, kind: str, content: Json) -> int:
        source = content.get("source") or {}
        data = _decoded(source.get("bytes", ""))
        if kind == "video":
            return _VIDEO_TOKENS
        if kind == "image":
            return _image_tokens(data)
        if content.get("format") == "pdf":
            return _DOCUMENT_TOKENS + len(data) // _PDF_BYTES_A_TOKEN
        text = source.get("text") or data.decode("utf-8", "replace") or _compact(source.get("content", ""))
        return _DOCUMENT_TOKENS + self._count(text)


def _kind_and_content(block: Json) -> tuple[str, Any]:
    return next(iter(block.items()), ("empty", ""))


def _image_tokens(data: bytes) -> int:
    # Only a PNG's size is read; any other image costs the most.
    if not data.startswith(_PNG) or len(data) < 24:
        return _MOST_IMAGE_TOKENS
    width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    return min(max(width * height // _IMAGE_PIXELS_A_TOKEN, 1), _MOST_IMAGE_TOKENS)


def _is_text_document(block: Json) -> bool:
    return "document" in block and block["document"].get("format") != "pdf"


def _decoded(data: str) -> bytes:
    try:
        return base64.b64decode(data, validate=False)
    except (binascii.Error, ValueError):
        return b""
