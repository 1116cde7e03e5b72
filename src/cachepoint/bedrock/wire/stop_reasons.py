"""Why an answer ended, as Converse says it."""

BROKE_OFF = frozenset({
    "max_tokens", "model_context_window_exceeded", "stop_sequence", "guardrail_intervened", "content_filtered",
    "malformed_tool_use", "malformed_model_output", "refusal",
})  # fmt: skip
"""Reasons for which an answer ends where the model did not mean it to end: botocore's StopReason, and `refusal`.

What stands last in it may be cut; a tool call that does is not run.
"""
