"""Retrieved nodes in a LlamaIndex prompt."""
