"""Before rollout: `observe` plans and counts and sends every request as it was written; then the same with caching.

python examples/langchain_observe.py [--live]; CACHEPOINT_MODE=observe in the environment does it without a change.
"""

from __future__ import annotations

from langchain_common import MODEL, bedrock, reference
from langchain_core.messages import HumanMessage, SystemMessage

from cachepoint import CachePolicy
from cachepoint.langchain import CacheAwareChatBedrockConverse

QUESTIONS = ("How is a number padded with zeros?", "Which conversions are there?", "How is a brace written?")

if __name__ == "__main__":
    [chapter] = reference("formatstrings")
    with bedrock() as client:
        for mode in ("observe", "auto"):
            model = CacheAwareChatBedrockConverse(model=MODEL, client=client, prompt_cache=CachePolicy(mode=mode))
            for question in QUESTIONS:
                system = SystemMessage(f"Answer from this chapter.\n\n{chapter.page_content}")
                answer = model.invoke([system, HumanMessage(question)])
                told = answer.response_metadata["prompt_cache"]
                for point in told["checkpoints"]:
                    verb = "would put" if mode == "observe" else "put"
                    print(f"{verb} a checkpoint at {point['path']}: {point['tokens']} tokens, {point['why']}")
            print(f"\n{mode}\n{model.ledger.summary()}\n")
