"""What tokens cost by the prices a client has, which may be the user's own and do anything."""

from __future__ import annotations

from cachepoint.bedrock.swallowed import forgive, swallow
from cachepoint.catalogue.price_book import PriceBook
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


def _doubt(prices: Prices, error: Exception, what: str) -> None:
    if isinstance(prices, PriceBook):
        swallow(error, "pricing")
        return
    name = type(prices).__name__
    forgive(
        error,
        f"prices:{name}",
        f"cachepoint: the prices ({name}) {what}; such calls are recorded without a cost, and no budget counts them. "
        "price() has to give a Cost of finite Decimals in USD, or None where it knows none",
    )
