"""Chat engines and memory."""
