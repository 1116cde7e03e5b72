"""Tokens and cost in LangChain's callbacks, traces and messages."""
