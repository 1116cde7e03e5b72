"""A query engine over one chapter of the Python reference: the chapter is written once and read by every question.

python examples/llama_index_query_engine.py           on the embedded emulator
python examples/llama_index_query_engine.py --live    on Amazon Bedrock, with your credentials
"""

from __future__ import annotations

from llama_index.core import SummaryIndex
from llama_index_common import bedrock, reference

from cachepoint.llama_index import CacheAwareBedrockConverse, CachedContextSynthesizer, StableOrderPostprocessor

QUESTIONS = (
    "How is a number written in hexadecimal?",
    "What does the alignment option do?",
    "How are thousands separated?",
    "What is the difference between !r and !s?",
)

if __name__ == "__main__":
    with bedrock() as settings:
        llm = CacheAwareBedrockConverse(**settings)
        engine = SummaryIndex.from_documents(reference("formatstrings")).as_query_engine(
            llm=llm,
            node_postprocessors=[StableOrderPostprocessor()],
            response_synthesizer=CachedContextSynthesizer(llm=llm),
        )
        for question in QUESTIONS:
            print(f"{question}\n  {engine.query(question)}")
            print(f"  {llm.ledger.records[-1].status}: {llm.ledger.records[-1].usage}")
        print(llm.ledger.summary())
