"""What the service refuses in an Anthropic Messages body of InvokeModel (docs/rules.md, V1 to V13, R3.19 to R3.21)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cachepoint.core.provider.rules import TTL_SECONDS, Section
from cachepoint.emulator._checks.checkpoints import LONG_AFTER_SHORT, NO_CACHING
from cachepoint.emulator._checks.converse import BLANK_TEXT, NO_PREFILL
from cachepoint.emulator._checks.service_errors import denied, invalid
from cachepoint.emulator._checks.shapes import check_messages_types
from cachepoint.emulator._reading.anthropic_messages import content_blocks
from cachepoint.emulator._reading.request import Call, Json

START_WITH_USER = 'messages: first message must use the "user" role'
EMPTY_TEXT = "cache_control cannot be set for empty text blocks"
ONLY_MESSAGES = (
    "Malformed input request: the emulator serves InvokeModel for Anthropic Messages bodies only, "
    "please reformat your input and try again."
)
_ROLES = ("user", "assistant", "system")
_UNCACHEABLE = ("thinking", "redacted_thinking")


@dataclass(frozen=True, slots=True)
class _Control:
    section: Section
    path: str
    block: Json

    @property
    def control(self) -> Json:
        control: Json = self.block["cache_control"]
        return control


def check_messages(call: Call) -> None:
    """Raise the ServiceError an Anthropic Messages body earns, if any."""
    body = call.body
    if not call.traits.claude:
        raise invalid(ONLY_MESSAGES)
    for name in ("anthropic_version", "max_tokens", "messages"):
        if name not in body:
            raise invalid(f"{name}: Field required")
    check_messages_types(body)
    least = 1 if call.target.streams or _must_answer(body) else 0
    if body["max_tokens"] < least:
        raise invalid(f"max_tokens: must be greater than or equal to {least}")
    if not body["messages"]:
        raise invalid("messages: at least one message is required")
    _check_turns(call)
    _check_controls(call)


def _must_answer(body: Json) -> bool:
    """Whether a request asks for what takes output: thinking, an output schema, a forced tool (R3.21)."""
    output, choice = body.get("output_config") or {}, body.get("tool_choice") or {}
    thinks = (body.get("thinking") or {}).get("type") == "enabled"
    return thinks or "format" in output or "output_format" in body or choice.get("type") in ("any", "tool")


def _check_turns(call: Call) -> None:
    messages: list[Json] = call.body["messages"]
    if messages[0].get("role") == "assistant" and not call.rule.facts.leading_assistant:
        raise invalid(START_WITH_USER)
    pending: list[str] = []
    for index, message in enumerate(messages):
        if message.get("role") not in _ROLES:
            raise invalid(f"messages.{index}.role: Input should be 'user', 'assistant' or 'system'")
        blocks = content_blocks(message.get("content", []))
        if not blocks or any(block.get("type") == "text" and not block.get("text") for block in blocks):
            raise invalid(f"messages.{index}: all messages must have non-empty content")
        blank = any(block.get("type") == "text" and not block["text"].strip() for block in blocks)
        if blank and call.options.strict_blanks:
            raise invalid(BLANK_TEXT)
        results = [block.get("tool_use_id") for block in blocks if block.get("type") == "tool_result"]
        missing = [use for use in pending if use not in results]
        if missing:
            raise invalid(
                f"messages.{index - 1}: `tool_use` ids were found without `tool_result` blocks immediately after: "
                f"{', '.join(missing)}. Each `tool_use` block must have a corresponding `tool_result` block in the "
                "next message."
            )
        unasked = [str(result) for result in results if result not in pending]
        if unasked:
            raise invalid(
                f"messages.{index}.content.0: unexpected `tool_use_id` found in `tool_result` blocks: {unasked[0]}. "
                "Each `tool_result` block must have a corresponding `tool_use` block in the previous message."
            )
        pending = [str(block.get("id")) for block in blocks if block.get("type") == "tool_use"]
    if messages[-1].get("role") == "assistant" and not call.rule.facts.prefill:
        raise invalid(NO_PREFILL)


def _controls(body: Json) -> Iterator[_Control]:
    """Blocks that carry a `cache_control`, in wire order."""
    for index, tool in enumerate(body.get("tools") or []):
        if tool.get("cache_control"):
            yield _Control("tools", f"tools.{index}", tool)
    for index, block in enumerate(content_blocks(body.get("system") or [])):
        if block.get("cache_control"):
            yield _Control("system", f"system.{index}", block)
    for number, message in enumerate(body["messages"]):
        for index, block in enumerate(content_blocks(message.get("content", []))):
            if block.get("cache_control"):
                yield _Control("messages", f"messages.{number}.content.{index}", block)


def _check_controls(call: Call) -> None:
    controls = list(_controls(call.body))
    automatic = call.body.get("cache_control")
    if (controls or automatic) and not call.rule.explicit:
        raise denied(NO_CACHING)
    if automatic and not call.rule.facts.top_level_cache_control:
        raise invalid("cache_control: Extra inputs are not permitted")
    short = False
    for each in controls:
        _check_control(call, each)
        if each.control.get("ttl") == "1h" and short:
            raise invalid(f"{each.path}.cache_control.ttl: {LONG_AFTER_SHORT}")
        short = short or each.control.get("ttl") != "1h"
    found, most = len(controls) + bool(automatic), call.rule.max_checkpoints
    if found > most:
        raise invalid(f"A maximum of {most} blocks with cache_control may be provided. Found {found}.")


def _check_control(call: Call, each: _Control) -> None:
    kind = each.block.get("type")
    if kind in _UNCACHEABLE:
        raise invalid(f"{each.path}.{kind}.cache_control: Extra inputs are not permitted")
    if kind == "text" and not each.block.get("text"):
        raise invalid(f"{each.path}.text: {EMPTY_TEXT}")
    if each.control.get("type") != "ephemeral":
        raise invalid(f"{each.path}.cache_control.type: Input should be 'ephemeral'")
    ttl = each.control.get("ttl")
    if ttl is None:
        return
    if "1h" not in call.rule.ttls:
        raise invalid(f"{each.path}.cache_control.ephemeral.ttl: Extra inputs are not permitted")
    if ttl not in TTL_SECONDS:
        raise invalid(f"{each.path}.cache_control.ephemeral.ttl: Input should be '5m' or '1h'")
