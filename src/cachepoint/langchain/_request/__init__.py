"""From LangChain's messages and arguments to a request."""
