"""What a wrapped client works with, gathered once."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypedDict, get_args

from cachepoint.catalogue.price_book import PriceBook
from cachepoint.catalogue.table import load_rules
from cachepoint.core.accounts.ledger import CacheLedger
from cachepoint.core.planning.policy import CachePolicy, Mode
from cachepoint.core.prompt.prompt import NO_HINTS, Hints
from cachepoint.core.provider.prices import Prices
from cachepoint.core.provider.rules import Rules
from cachepoint.errors import ConfigurationError
from cachepoint.store._base import Store
from cachepoint.store._memory import MemoryStore

MODE_VARIABLE = "CACHEPOINT_MODE"


@dataclass(frozen=True)
class Settings:
    """Policy, where calls are recorded, where traffic is learned, and what names and prices models.

    `mode` is the policy's, overruled by CACHEPOINT_MODE.
    """

    policy: CachePolicy
    ledger: CacheLedger
    store: Store
    clock: Callable[[], float]
    base_models: Mapping[str, str]
    control_client: Any
    prices: Prices
    rules: Rules
    hints: Hints = field(default_factory=dict)


class Options(TypedDict, total=False):
    """What else a wrapped client can be given.

    - `ledger`, `store`: where calls are recorded and traffic is learned; may be shared between clients.
      Default: new ones for this client.
    - `clock`: wall time in seconds; default `time.time`.
    - `base_models`: opaque ARNs (application inference profiles, provisioned models) to model ids.
    - `control_client`: a `bedrock` client of boto3 or aiobotocore, asked once for an opaque ARN not named, beside the
      calls, which do not wait for it; never in mode "off".
    - `prices`: in place of the shipped `PriceBook`; `rules`: in place of the shipped model table.
    - `hints`: what is known of blocks, by their place in the request.
    """

    ledger: CacheLedger | None
    store: Store | None
    clock: Callable[[], float] | None
    base_models: Mapping[str, str] | None
    control_client: Any
    prices: Prices | None
    rules: Rules | None
    hints: Hints


def settings(policy: CachePolicy | None, options: Options) -> Settings:
    """Settings with what was left out filled in; a wrong value raises ConfigurationError."""
    if policy is not None and not isinstance(policy, CachePolicy):
        raise ConfigurationError(f"policy={policy!r} is no CachePolicy; pass CachePolicy(…)")
    unknown = sorted(set(options) - set(Options.__annotations__))
    if unknown:
        raise ConfigurationError(f"unknown option {unknown[0]!r}; use any of {sorted(Options.__annotations__)}")
    base_models = options.get("base_models") or {}
    if not isinstance(base_models, Mapping):
        raise ConfigurationError(f"base_models={base_models!r}: pass a mapping from ARN to model id")
    ledger, store = options.get("ledger"), options.get("store")
    return Settings(
        policy=in_environment(policy or CachePolicy()),
        ledger=CacheLedger() if ledger is None else ledger,
        store=MemoryStore() if store is None else store,
        clock=options.get("clock") or time.time,
        base_models=base_models,
        control_client=options.get("control_client"),
        prices=options.get("prices") or shipped_prices(),
        rules=options.get("rules") or load_rules(),
        hints=options.get("hints", NO_HINTS),
    )


def in_environment(policy: CachePolicy) -> CachePolicy:
    """The policy in the mode that CACHEPOINT_MODE names, if it names one."""
    mode = os.environ.get(MODE_VARIABLE, "").strip().lower()
    if not mode:
        return policy
    for known in get_args(Mode):
        if mode == known:
            return policy.in_mode(known)
    raise ConfigurationError(f"{MODE_VARIABLE}={mode!r}: use one of {get_args(Mode)}, or unset it")


@lru_cache(maxsize=1)
def shipped_prices() -> PriceBook:
    """The prices of a client that is given none.

    Who makes a client in the middle of a call asks for them before, for the first to ask waits until they are imported.
    """
    return PriceBook()
