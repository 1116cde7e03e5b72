"""The arithmetic of the article this project started from, set right with today's price code.

The article counts 1,000 requests over a document of 7,800 tokens at Claude 3.7 Sonnet's prices and
arrives at $0.26 with caching, 99% less. It takes the read price divided by ten once too often and
the write at the price of plain input; a read at 0.1x can never save more than 90% (P1 of docs/rules.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from cachepoint.core.provider.prices import Cost, Prices
from cachepoint.core.provider.usage import Usage
from cachepoint.errors import ConfigurationError

TITLE = "The FinOps of GenAI: Reduce Bedrock Latency and Cost with Prompt Caching"
DATE = "5 November 2025"
MODEL = "anthropic.claude-3-7-sonnet-20250219-v1:0"
REQUESTS = 1_000
TOKENS = 7_800
CLAIMED_USD = Decimal("0.26")
CLAIMED_SHARE = Decimal("0.99")


@dataclass(frozen=True, slots=True)
class Corrected:
    """What the article's requests cost, document tokens only, in USD."""

    without: Decimal
    cached: Decimal

    @property
    def saved_share(self) -> Decimal:
        """The saving as a share of the cost without caching."""
        return 1 - self.cached / self.without


def corrected(prices: Prices, at: datetime) -> Corrected:
    """One write and a read by every later request, priced."""
    write = priced(prices, MODEL, Usage(cache_write_5m=TOKENS), at)
    read = priced(prices, MODEL, Usage(cache_read=TOKENS), at)
    return Corrected(REQUESTS * write.uncached_usd, write.usd + (REQUESTS - 1) * read.usd)


def priced(prices: Prices, model_id: str, usage: Usage, at: datetime) -> Cost:
    """The cost of a call; raises ConfigurationError when a price it needs is unknown."""
    cost = prices.price(model_id, usage, at=at)
    if cost is None:
        raise ConfigurationError(
            f"no price is known for {model_id!r}; give it a row with prices in the file that CACHEPOINT_RULES names"
        )
    return cost
