"""What tokens cost by the prices a client has, which may be the user's own and do anything."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from cachepoint.bedrock.swallowed import forgive, swallow
from cachepoint.catalogue.price_book import PriceBook
from cachepoint.core.accounts.budget import estimate
from cachepoint.core.provider.prices import Cost, Prices, wrong_with
from cachepoint.core.provider.usage import Usage


def price_of(
    prices: Prices, model: str, usage: Usage, *, at: float, service_tier: str | None, region: str | None
) -> Cost | None:
    """What such a call costs; None where the prices do not know, or fail, of which a warning says so once."""
    try:
        cost = prices.price(model, usage, at=at, service_tier=service_tier, region=region)
    except Exception as error:  # noqa: BLE001 - a call is recorded whatever its price
        _doubt(prices, error, f"raised {type(error).__name__}")
        return None
    if wrong := wrong_with(cost):
        _doubt(prices, TypeError(wrong), f"gave {wrong}")
        return None
    return cost


def estimate_of(price: Callable[[Usage], Cost | None], request: Any, options: Mapping[str, Any]) -> Decimal:
    """What a budget keeps for a call, in USD; see `budget.estimate`. Never raises: the budget stops calls, not this."""
    try:
        return estimate(price, request, options)
    except Exception as fault:  # noqa: BLE001 - a request may hold anything, and may be one that the service refuses
        swallow(fault, "estimating a call")
        return Decimal(0)


def _doubt(prices: Prices, error: Exception, what: str) -> None:
    if isinstance(prices, PriceBook):
        swallow(error, "pricing")
        return
    name = type(prices).__name__
    forgive(
        error,
        f"prices:{name}",
        f"cachepoint: the prices ({name}) {what}; such calls are recorded without a cost, and budgets do not count "
        "them. price() has to give a Cost of finite Decimals in USD, or None where it knows none",
    )
