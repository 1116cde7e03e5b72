"""How the emulated service reads a request: its blocks, tokens and positions."""
