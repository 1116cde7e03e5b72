"""A chain about one chapter: written by the first question, read by the others, streamed or not.

python examples/langchain_chain.py [--live]
"""

from __future__ import annotations

from langchain_common import MODEL, bedrock, reference

from cachepoint.langchain import CacheAwareChatBedrockConverse, cached_context_prompt, get_prompt_cache_callback

QUESTIONS = ("How is a number written in hexadecimal?", "What does the alignment option do?")

if __name__ == "__main__":
    with bedrock() as client, get_prompt_cache_callback() as costs:
        model = CacheAwareChatBedrockConverse(model=MODEL, client=client)
        chain = cached_context_prompt(documents="first") | model
        chapter = reference("formatstrings")
        for question in QUESTIONS:
            print(f"> {question}\n{chain.invoke({'context': chapter, 'input': question}).text}\n")
        print("> How are thousands separated?")
        for chunk in chain.stream({"context": chapter, "input": "How are thousands separated?"}):
            print(chunk.text, end="", flush=True)
        print(f"\n\n{costs.summary()}")
