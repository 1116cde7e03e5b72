"""An agent with tools: what it has done so far is read at every step, and old tool results are cleared in chunks.

python examples/langchain_agent.py [--live]
"""

from __future__ import annotations

from pydoc_data.topics import topics
from typing import Any, Literal

from langchain.agents import create_agent
from langchain_common import MODEL, bedrock
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool

from cachepoint.langchain import CacheAwareChatBedrockConverse, PromptCacheMiddleware

SYSTEM = "You answer from the Python language reference. Look a chapter up with read_chapter before you answer."


@tool
def read_chapter(topic: Literal["formatstrings", "lambda", "string-methods", "with"]) -> str:
    """Read a chapter of the Python language reference."""
    return topics[topic]


if __name__ == "__main__":
    with bedrock() as client:
        model = CacheAwareChatBedrockConverse(model=MODEL, client=client)
        agent: Any = create_agent(
            model, [read_chapter], system_prompt=SYSTEM, middleware=[PromptCacheMiddleware(clear_at=20_000)]
        )
        state: dict[str, Any] = {"messages": []}
        for topic in ("string-methods", "formatstrings", "with"):
            asked = HumanMessage(f"Call read_chapter for the topic {topic}. What is the chapter about?")
            state = agent.invoke({"messages": [*state["messages"], asked]})
            spent = state["prompt_cache"]
            print(f"> {asked.text}\n{state['messages'][-1].text[:200]}")
            print(f"  {spent['calls']} calls, {spent['cost']['usd']} USD, saved {spent['cost']['saved_usd']} USD\n")
        print(f"all: {model.ledger.totals().hit_rate:.0%} of the prompts read from the cache")
