"""Many questions at once about one cold prefix: one writes it and the others follow, in place of all writing it.

python examples/langchain_batch.py [--live]
"""

from __future__ import annotations

import asyncio

from langchain_common import MODEL, bedrock, reference, told
from langchain_core.messages import HumanMessage, SystemMessage

import cachepoint
from cachepoint.langchain import CacheAwareChatBedrockConverse

TOPICS = ("alignment", "hexadecimal numbers", "thousands separators", "conversions", "nested fields", "padding")


def asked(chapter: str, topic: str) -> list[SystemMessage | HumanMessage]:
    [document] = reference(chapter)
    return [SystemMessage(f"Answer from this chapter.\n\n{document.page_content}"), HumanMessage(f"What of {topic}?")]


async def gathered(model: CacheAwareChatBedrockConverse) -> None:
    # A batch opens the block by itself; calls of one's own are made in one.
    with cachepoint.fan_out():
        answers = await asyncio.gather(*(model.ainvoke(asked("string-methods", topic)) for topic in TOPICS))
    for topic, answer in zip(TOPICS, answers, strict=True):
        print(f"gathered  {topic:22}{told(answer)}")


if __name__ == "__main__":
    with bedrock() as client:
        model = CacheAwareChatBedrockConverse(model=MODEL, client=client)
        for topic, answer in zip(TOPICS, model.batch([asked("formatstrings", topic) for topic in TOPICS]), strict=True):
            print(f"batch     {topic:22}{told(answer)}")
        asyncio.run(gathered(model))
        print(f"all: {sum(record.status == 'written' for record in model.ledger.records)} writes, one for each prefix")
