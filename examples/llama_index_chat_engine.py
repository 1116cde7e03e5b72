"""A conversation about the Python reference whose prefix grows and never changes.

python examples/llama_index_chat_engine.py [--live]
"""

from __future__ import annotations

from pydoc_data.topics import topics

from llama_index_common import WordRetriever, bedrock, reference

from cachepoint.llama_index import CacheAwareBedrockConverse, CachedContextChatEngine, ChunkedChatMemory

SYSTEM = f"""You explain the Python language to programmers who know another one. Be exact and brief.
Use terms as this chapter does:

{topics["execmodel"]}"""
QUESTIONS = (
    "What does a lambda expression evaluate to?",
    "Can it contain statements?",
    "How does a closure keep the variables of its function?",
    "What does the nonlocal statement do?",
    "When is a default argument evaluated?",
)

if __name__ == "__main__":
    with bedrock() as settings:
        llm = CacheAwareBedrockConverse(**settings)
        chat = CachedContextChatEngine.from_defaults(
            WordRetriever(reference()),
            llm=llm,
            system_prompt=SYSTEM,
            memory=ChunkedChatMemory.from_defaults(token_limit=20_000),
        )
        for question in QUESTIONS:
            print(f"\n> {question}")
            for token in chat.stream_chat(question).response_gen:
                print(token, end="", flush=True)
            print()
        print(llm.ledger.summary())
