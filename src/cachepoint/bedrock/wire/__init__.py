"""The two wire formats, Converse and Anthropic Messages through InvokeModel: read, apply, undo, usage."""
