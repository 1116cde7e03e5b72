"""Why an answer ended, as Converse says it, and what becomes of a tool call that it broke off."""

BROKE_OFF = frozenset({
    "max_tokens", "model_context_window_exceeded", "stop_sequence", "guardrail_intervened", "content_filtered",
    "malformed_tool_use", "malformed_model_output", "refusal",
})  # fmt: skip
"""Reasons for which an answer ends where the model did not mean it to end: botocore's StopReason, and `refusal`.

What stands last in it may be cut; a tool call that does is not run.
"""


def not_whole(tool: str | None, stop: str) -> str:
    """Why a tool call was not run whose answer ended for this reason, "" for none that is known, and what to do."""
    return (
        f"the call of the tool {tool!r} is not whole (stop reason: {stop or 'unknown'}), so it was not run; raise "
        "max_tokens, or ask for less in one call"
    )
