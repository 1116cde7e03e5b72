"""Retrieved documents in a LangChain prompt."""
