"""What the service refuses in a Converse request: its shape, then its roles and tools, then its checkpoints.

Texts and statuses are those that callers reported (docs/rules.md, V11 to V14).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from cachepoint.emulator._checks.checkpoints import check_points
from cachepoint.emulator._checks.contents import check_contents, has_thoughts_alone
from cachepoint.emulator._checks.service_errors import MODEL_ERRORS, invalid
from cachepoint.emulator._reading.request import Call, Json

_KINDS = (
    "text",
    "image",
    "document",
    "video",
    "audio",
    "toolUse",
    "toolResult",
    "guardContent",
    "cachePoint",
    "reasoningContent",
    "citationsContent",
    "searchResult",
    "toolAddition",
    "toolRemoval",
)
_TOOL_USE_ID = re.compile(r"[a-zA-Z0-9_.:-]{1,64}")
_ROLES = ("user", "assistant", "system")
START_WITH_USER = (
    "A conversation must start with a user message. Try again with a conversation that starts with a user message."
)
ALTERNATE = (
    "A conversation must alternate between user and assistant roles. "
    "Make sure the conversation alternates between user and assistant roles and try again."
)
NO_PREFILL = "This model does not support assistant message prefill. The conversation must end with a user message."
NO_TOOL_CONFIG = "The toolConfig field must be defined when using toolUse and toolResult content blocks."
BLANK_TEXT = "messages: text content blocks must contain non-whitespace text"
TEXT_WITH_DOCUMENTS = "A text block must be included when using documents."


def check_converse(call: Call) -> None:
    """Raise the ServiceError a Converse request earns, if any."""
    messages: Sequence[Json] = call.body.get("messages") or []
    if not messages and not call.target.names_stored_prompt:
        raise invalid("messages: at least one message is required")
    _check_extra_fields(call)
    for index, message in enumerate(messages):
        _check_message(call, index, message)
    _check_roles(call, messages)
    _check_tools(call, messages)
    check_contents(call)
    check_points(call)


def _check_extra_fields(call: Call) -> None:
    extra = call.body.get("additionalModelRequestFields")
    if not isinstance(extra, dict):
        return
    if "cacheControl" in extra:
        raise invalid("Malformed input request: extraneous key [cacheControl] is not permitted")
    if "cache_control" in extra and not call.rule.facts.top_level_cache_control:
        raise invalid(f"{MODEL_ERRORS}cache_control: Extra inputs are not permitted")


def _check_message(call: Call, index: int, message: Json) -> None:
    if message["role"] not in _ROLES:
        raise invalid(
            f"1 validation error detected: Value '{message['role']}' at 'messages.{index}.role' failed to satisfy "
            f"constraint: Member must satisfy enum value set: [{', '.join(_ROLES)}]"
        )
    content: Sequence[Json] = message.get("content") or []
    if not content:
        raise invalid(
            f"The content field in the Message object at messages.{index} is empty. "
            "Add a ContentBlock object to the content field and try again."
        )
    for place, block in enumerate(content):
        where = f"messages.{index}.content.{place}"
        if len(block) != 1:
            raise invalid(f"ContentBlock object at {where} can only set one of the following keys: {', '.join(_KINDS)}")
        if "text" in block and not block["text"].strip():
            _check_blank(call, where, block["text"], alone=len(content) == 1)
    if any("document" in block for block in content) and not any("text" in block for block in content):
        raise invalid(TEXT_WITH_DOCUMENTS)


def _check_blank(call: Call, where: str, text: str, *, alone: bool) -> None:
    if not text or alone:
        raise invalid(
            f"The text field in the ContentBlock object at {where} is blank. Add text to the text field, and try again."
        )
    if call.options.strict_blanks:
        raise invalid(MODEL_ERRORS + BLANK_TEXT)


def _check_roles(call: Call, messages: Sequence[Json]) -> None:
    if messages and messages[0]["role"] == "assistant" and not call.rule.facts.leading_assistant:
        raise invalid(START_WITH_USER)
    roles = [message["role"] for message in messages if message["role"] != "system"]
    if call.options.strict_roles and any(one == next_ for one, next_ in pairwise(roles)):
        raise invalid(ALTERNATE)
    ends_early = bool(roles) and roles[-1] == "assistant"
    if (ends_early or any(map(has_thoughts_alone, messages))) and not call.rule.facts.prefill:
        raise invalid(NO_PREFILL)


def _check_tools(call: Call, messages: Sequence[Json]) -> None:
    pending: list[str] = []
    used: set[str] = set()
    for index, message in enumerate(messages):
        content = message["content"]
        uses = [block["toolUse"]["toolUseId"] for block in content if "toolUse" in block]
        results = [block["toolResult"]["toolUseId"] for block in content if "toolResult" in block]
        if (uses or results) and not call.body.get("toolConfig"):
            raise invalid(NO_TOOL_CONFIG)
        if message["role"] == "system":
            continue
        for use in uses:
            _check_id(call, f"messages.{index}.content", use, used)
        _check_results(index, pending, results)
        if results and call.traits.claude and _others_first(content):
            raise invalid(_unanswered(index - 1, pending))
        if results and call.traits.claude and any(_blocks_results(block) for block in content):
            raise invalid(_unanswered(index - 1, pending))
        pending = uses if message["role"] == "assistant" else []
    if pending:
        raise invalid(
            f"Expected toolResult blocks at messages.{len(messages)}.content for the following Ids: "
            f"{', '.join(pending)}"
        )


def _check_results(index: int, pending: list[str], results: list[str]) -> None:
    missing = [use for use in pending if use not in results]
    if missing:
        raise invalid(
            f"Expected toolResult blocks at messages.{index}.content for the following Ids: {', '.join(missing)}"
        )
    if len(results) > len(pending):
        raise invalid(
            f"The number of toolResult blocks at messages.{index}.content exceeds the number of toolUse blocks "
            "of previous turn."
        )


def _check_id(call: Call, where: str, use: str, used: set[str]) -> None:
    if not _TOOL_USE_ID.fullmatch(use):
        raise invalid(
            f"1 validation error detected: Value '{use}' at '{where}.toolUse.toolUseId' failed to satisfy constraint: "
            f"Member must satisfy regular expression pattern: {_TOOL_USE_ID.pattern}"
        )
    if use in used and call.traits.claude:
        raise invalid(f"{MODEL_ERRORS}{where}: `tool_use` ids must be unique")
    used.add(use)


def _others_first(content: Sequence[Json]) -> bool:
    """Whether something stands before a tool result, where Claude wants the results first."""
    kinds = ["toolResult" in block for block in content if "cachePoint" not in block]
    return True in kinds and not all(kinds[: kinds.count(True)])


def _blocks_results(block: Json) -> bool:
    """Whether Claude takes no tool result beside this block."""
    return "video" in block or ("document" in block and block["document"].get("format") != "pdf")


def _unanswered(index: int, uses: list[str]) -> str:
    return (
        f"{MODEL_ERRORS}messages.{index}: `tool_use` ids were found without `tool_result` blocks immediately after: "
        f"{', '.join(uses)}. Each `tool_use` block must have a corresponding `tool_result` block in the next message."
    )
