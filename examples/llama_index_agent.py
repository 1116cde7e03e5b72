"""An agent with tools: what it has done so far is read from the cache at every step.

python examples/llama_index_agent.py [--live]
"""

import asyncio
from pydoc_data.topics import topics
from typing import Literal

from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.tools import FunctionTool
from llama_index_common import bedrock

from cachepoint.llama_index import CacheAwareBedrockConverse, ChunkedChatMemory

SYSTEM = "You answer from the Python language reference. Look a chapter up before you answer."


def read_chapter(topic: Literal["formatstrings", "lambda", "string-methods", "with"]) -> str:
    """Read a chapter of the Python language reference."""
    return topics[topic]


async def run() -> None:
    with bedrock() as settings:
        llm = CacheAwareBedrockConverse(**settings)
        agent = FunctionAgent(tools=[FunctionTool.from_defaults(read_chapter)], llm=llm, system_prompt=SYSTEM)
        memory = ChunkedChatMemory.from_defaults(llm=llm)
        for topic in ("string-methods", "formatstrings", "with"):
            question = f"Read the chapter {topic}. What is it about?"
            print(f"> {question}\n{str(await agent.run(question, memory=memory))[:200]}\n")
        print(llm.ledger.summary())


if __name__ == "__main__":
    asyncio.run(run())
