"""What each tenant costs, by LlamaIndex's instrumentation.

python examples/llama_index_cost_by_tenant.py [--live]
"""

from __future__ import annotations

from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.instrumentation import get_dispatcher
from llama_index_common import bedrock, reference, told

import cachepoint
from cachepoint.llama_index import CacheAwareBedrockConverse, PromptCacheEventHandler

ASKED = {
    "acme": ("How is a number padded with zeros?", "What does the precision mean for strings?"),
    "globex": ("Which conversions are there?", "How is a brace written?", "What is a replacement field?"),
}

if __name__ == "__main__":
    costs = PromptCacheEventHandler()
    get_dispatcher().add_event_handler(costs)
    [chapter] = reference("formatstrings")
    with bedrock() as settings:
        llm = CacheAwareBedrockConverse(system_prompt=f"Answer from this chapter.\n\n{chapter.text}", **settings)
        for tenant, questions in ASKED.items():
            with cachepoint.tags(tenant=tenant):
                for question in questions:
                    print(f"{tenant:8}{told(llm.chat([ChatMessage(content=question)]))}")
    for tenant, totals in costs.by("tenant").items():
        print(f"{tenant}: {totals.calls} calls, {totals.cost.usd} USD, saved {totals.cost.saved_usd} USD")
    # As billed, who comes first pays for writing what all read; shared out, the write is spread over them.
    for tenant, totals in costs.ledger.by("tenant", shared="pro_rata").items():
        print(f"{tenant}: {totals.cost.usd:.6f} USD with the write shared out")
