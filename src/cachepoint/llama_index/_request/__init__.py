"""From LlamaIndex's messages, blocks and tools to a request, and back."""
