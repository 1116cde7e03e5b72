"""What one model takes and another refuses: tools, thinking, late system messages, prompts of a length.

Which model refuses what stands in the model table (`ModelFacts`); where sources disagree of system messages, they are
refused unless `Options.disputed_system_turns` is set.
Most texts were reported of one API each (V8 to V10 and V16 to V18 of docs/rules.md); that Converse puts its usual
prefix before those of InvokeModel and of Anthropic's own API is assumed.
"""

from __future__ import annotations

from datetime import UTC, datetime

from cachepoint.core.provider.rules import ModelRule
from cachepoint.emulator._checks.service_errors import MODEL_ERRORS, ServiceError, invalid
from cachepoint.emulator._reading.request import Call, Json

ALWAYS_THINKS = (
    '"thinking.type.disabled" is not supported for this model. Thinking defaults to adaptive mode when not specified; '
    'use "thinking.type.enabled" with "budget_tokens" for extended thinking.'
)
ADAPTIVE_ONLY = (
    '"thinking.type.enabled" is not supported for this model. Use "thinking.type.adaptive" and "output_config.effort" '
    "to control thinking behavior."
)
NO_ADAPTIVE = (
    "thinking: Input tag 'adaptive' found using 'type' does not match any of the expected tags: 'disabled', 'enabled'"
)
THINKING_WITH_FORCED_TOOL = "Thinking may not be enabled when tool_choice forces tool use."
NO_FORCED_TOOL = 'tool_choice: type "tool" and "any" are not supported for this model.'
NO_TOOLS = "This model doesn't support tool use."
NO_TOOLS_IN_STREAMS = "This model doesn't support tool use in streaming mode."
NO_CONVERSE = "This action doesn't support the model that you provided. Try again with a supported text or chat model."
NO_SYSTEM_ROLE = "role 'system' is not supported on this model"
NO_SYSTEM_ROLE_UP_TO_4_6 = (
    'messages: Unexpected role "system". The Messages API accepts a top-level `system` parameter, not "system" as an '
    "input message role."
)
ENDED = "This model version has reached the end of its life. Please refer to the AWS documentation for more details."
_FORCED = {"any", "tool"}


def check_lifecycle(rule: ModelRule, now: float) -> None:
    """Raise the ServiceError for a model that has ended; `now` is in seconds since the epoch."""
    last = rule.facts.end_of_life
    if last and datetime.fromtimestamp(now, UTC).date().isoformat() >= last:
        raise ServiceError("ResourceNotFoundException", 404, ENDED)


def check_length(call: Call, tokens: int) -> None:
    """Raise the ServiceError for a prompt that is longer than the model's context window."""
    window = call.rule.facts.context_window
    if window is None or tokens <= window:
        return
    if call.traits.claude:
        text = f"prompt is too long: {tokens} tokens > {window} maximum"
    elif call.traits.nova:
        text = "Input Tokens Exceeded: Number of input tokens exceeds maximum length."
    else:
        text = f"This model's maximum context length is {window} tokens."
    raise _by_the_model(call, text)


def check_model_limits(call: Call) -> None:
    """Raise the ServiceError for what this model never takes; `call` has its body in the Converse shape."""
    if call.target.api == "converse" and not call.rule.facts.converse:
        raise invalid(NO_CONVERSE)
    _check_tools(call)
    text = _refused_thinking(call) or _refused_role(call)
    if text:
        raise _by_the_model(call, text)


def _by_the_model(call: Call, text: str) -> ServiceError:
    return invalid(MODEL_ERRORS + text if call.target.api == "converse" else text)


def _check_tools(call: Call) -> None:
    config: Json = call.body.get("toolConfig") or {}
    facts = call.rule.facts
    if config.get("tools") and not facts.calls_tools:
        raise invalid(NO_TOOLS_IN_STREAMS if call.target.streams else NO_TOOLS)
    for kind in (config.get("toolChoice") or {}).keys() - set(facts.tool_choices):
        if call.traits.claude:
            raise _by_the_model(call, NO_FORCED_TOOL)
        field = f"toolConfig.toolChoice.{kind}"
        raise invalid(f"This model doesn't support the {field} field. Remove {field} and try again.")


def _refused_thinking(call: Call) -> str:
    fields: Json = call.body.get("additionalModelRequestFields") or {}
    facts = call.rule.facts
    if "thinking" not in fields:
        return ""
    kind = (fields["thinking"] or {}).get("type", "")
    if facts.thinking == "none":
        return _no_thinking(call, kind)
    if kind in ("enabled", "adaptive", "disabled") and kind not in facts.thinking_types:
        return {"disabled": ALWAYS_THINKS, "enabled": ADAPTIVE_ONLY, "adaptive": NO_ADAPTIVE}[kind]
    choice: Json = (call.body.get("toolConfig") or {}).get("toolChoice") or {}
    if kind in ("enabled", "adaptive") and choice.keys() & _FORCED and not facts.forced_tool_with_thinking:
        return THINKING_WITH_FORCED_TOOL
    return ""


def _no_thinking(call: Call, kind: str) -> str:
    if not call.traits.claude:
        return "Malformed input request: #: extraneous key [thinking] is not permitted"
    return "" if kind == "disabled" else f"{call.target.model_id} does not support thinking."


def _refused_role(call: Call) -> str:
    late = any(message.get("role") == "system" for message in call.body.get("messages") or ())
    facts, api = call.rule.facts, call.target.api
    taken = facts.may_take_system_role(api) if call.options.disputed_system_turns else api in facts.system_role
    if late and not taken:
        # Of models that are not Claude no such refusal was reported; theirs is assumed to read like the newer one.
        old_claude = call.traits.claude and not facts.top_level_cache_control
        return NO_SYSTEM_ROLE_UP_TO_4_6 if old_claude else NO_SYSTEM_ROLE
    return ""
