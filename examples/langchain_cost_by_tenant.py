"""What each tenant costs, kept in SQLite: every call becomes a row as soon as it is answered.

python examples/langchain_cost_by_tenant.py [--live] [costs.sqlite]
"""

from __future__ import annotations

import sqlite3
import sys
from decimal import Decimal

from langchain_common import MODEL, bedrock, reference

from cachepoint import CallRecord
from cachepoint.langchain import CacheAwareChatBedrockConverse, cached_context_prompt, get_prompt_cache_callback

ASKED = {
    "acme": ("How is a number padded with zeros?", "What does the precision mean for strings?"),
    "globex": ("Which conversions are there?", "How is a brace written?", "What is a replacement field?"),
}
TABLE = "CREATE TABLE IF NOT EXISTS calls (started REAL, tenant TEXT, model TEXT, read INT, written INT, usd TEXT)"


class SqliteSink:
    """Writes each call into a table; amounts as text, so that none is rounded."""

    def __init__(self, path: str) -> None:
        self.rows = sqlite3.connect(path, check_same_thread=False)
        self.rows.execute(TABLE)

    def __call__(self, record: CallRecord) -> None:
        usage, cost = record.usage, record.cost
        tokens = (usage.cache_read, usage.cache_write) if usage else (None, None)
        usd = str(cost.usd) if cost else None
        with self.rows:
            self.rows.execute(
                "INSERT INTO calls VALUES (?, ?, ?, ?, ?, ?)",
                (record.started, record.tags.get("tenant"), record.model, *tokens, usd),
            )

    def by_tenant(self) -> dict[str, Decimal]:
        """USD by tenant."""
        sums: dict[str, Decimal] = {}
        for tenant, usd in self.rows.execute("SELECT tenant, usd FROM calls WHERE usd IS NOT NULL ORDER BY started"):
            sums[tenant] = sums.get(tenant, Decimal(0)) + Decimal(usd)
        return sums


if __name__ == "__main__":
    sink = SqliteSink(next((name for name in sys.argv[1:] if not name.startswith("-")), ":memory:"))
    with bedrock() as client, get_prompt_cache_callback(on_call=sink) as costs:
        model = CacheAwareChatBedrockConverse(model=MODEL, client=client)
        chain = cached_context_prompt(documents="first") | model
        for tenant, questions in ASKED.items():
            for question in questions:
                said = {"context": reference("formatstrings"), "input": question}
                chain.invoke(said, {"metadata": {"tenant": tenant}})
        for tenant, usd in sink.by_tenant().items():
            print(f"{tenant}: {costs.by('tenant')[tenant].calls} calls, {usd} USD")
        # As billed, who comes first pays for writing what all read; shared out, the write is spread over them.
        for tenant, totals in model.ledger.by("tenant", shared="pro_rata").items():
            print(f"{tenant}: {totals.cost.usd:.6f} USD with the write shared out")
