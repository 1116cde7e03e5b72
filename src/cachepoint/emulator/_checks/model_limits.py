"""What one model takes and another refuses: thinking turned off, a forced tool, system messages in mid-conversation.

Which model refuses what stands in the model table (`ModelFacts`); where sources disagree of system messages, they are
refused unless `Options.disputed_system_turns` is set.
The texts were reported of one API each (V8 to V10 of docs/rules.md); that Converse puts its usual prefix before
those of InvokeModel and of Anthropic's own API is assumed.
"""

from __future__ import annotations

from cachepoint.emulator._checks.service_errors import MODEL_ERRORS, invalid
from cachepoint.emulator._reading.request import Call, Json

ALWAYS_THINKS = (
    '"thinking.type.disabled" is not supported for this model. Thinking defaults to adaptive mode when not specified; '
    'use "thinking.type.enabled" with "budget_tokens" for extended thinking.'
)
NO_FORCED_TOOL = 'tool_choice: type "tool" and "any" are not supported for this model.'
NO_SYSTEM_ROLE = "role 'system' is not supported on this model"
NO_SYSTEM_ROLE_UP_TO_4_6 = (
    'messages: Unexpected role "system". The Messages API accepts a top-level `system` parameter, not "system" as an '
    "input message role."
)


def check_model_limits(call: Call) -> None:
    """Raise the ServiceError for what this model never takes; `call` has its body in the Converse shape."""
    text = _refused_by_model(call)
    if text:
        raise invalid(MODEL_ERRORS + text if call.target.api == "converse" else text)


def _refused_by_model(call: Call) -> str:
    facts = call.rule.facts
    if facts.thinking == "always" and _thinking(call.body).get("type") == "disabled":
        return ALWAYS_THINKS
    choice: Json = (call.body.get("toolConfig") or {}).get("toolChoice") or {}
    if not facts.forced_tool and choice.keys() & {"any", "tool"}:
        return NO_FORCED_TOOL
    late = any(message.get("role") == "system" for message in call.body.get("messages") or ())
    api = call.target.api
    taken = facts.may_take_system_role(api) if call.options.disputed_system_turns else api in facts.system_role
    if late and not taken:
        # Of models that are not Claude no such refusal was reported; theirs is assumed to read like the newer one.
        old_claude = call.traits.claude and not facts.top_level_cache_control
        return NO_SYSTEM_ROLE_UP_TO_4_6 if old_claude else NO_SYSTEM_ROLE
    return ""


def _thinking(body: Json) -> Json:
    fields = body.get("additionalModelRequestFields")
    thinking = fields.get("thinking") if isinstance(fields, dict) else None
    return thinking if isinstance(thinking, dict) else {}
