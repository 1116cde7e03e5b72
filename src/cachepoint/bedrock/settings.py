"""What a wrapped client works with, gathered once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from typing import Any, TypedDict

from cachepoint.bedrock.environment import mode_in_force, prices_by, stated_mode, stated_table, table_in_force
from cachepoint.bedrock.wall_time import now_by
from cachepoint.catalogue.table import ModelTable
from cachepoint.core.accounts.ledger import CacheLedger
from cachepoint.core.planning.policy import CachePolicy, did_you_mean
from cachepoint.core.prompt.prompt import NO_HINTS, Hints
from cachepoint.core.provider.prices import Prices
from cachepoint.core.provider.rules import Rules
from cachepoint.errors import ConfigurationError
from cachepoint.store._base import Store, key_wanted
from cachepoint.store._memory import MemoryStore


@dataclass(frozen=True)
class Settings:
    """Policy, where calls are recorded, where traffic is learned, and what names and prices models.

    `policy` is as it was given; of a call, its mode is what CACHEPOINT_MODE says then. `table` is the model table as
    CACHEPOINT_RULES has it.
    """

    policy: CachePolicy
    ledger: CacheLedger
    store: Store
    clock: Callable[[], float]
    base_models: Mapping[str, str]
    control_client: Any
    prices: Prices
    rules: Rules
    table: ModelTable
    hints: Hints = field(default_factory=dict)

    def in_force(self) -> Settings:
        """The settings of a call that is made now: CACHEPOINT_MODE switches a client that runs, too."""
        policy = mode_in_force(self.policy)
        return self if policy is self.policy else replace(self, policy=policy)

    def now(self) -> float:
        """Wall time by `clock`, or in its place where that fails."""
        return now_by(self.clock)


class Options(TypedDict, total=False):
    """What else a wrapped client can be given.

    - `ledger`, `store`: where calls are recorded and traffic is learned; may be shared between clients.
      Default: new ones for this client.
    - `clock`: wall time in seconds; default `time.time`.
    - `base_models`: opaque ARNs (application inference profiles, provisioned models) to model ids.
    - `control_client`: a `bedrock` client of boto3 or aiobotocore, asked about an opaque ARN not named until it
      answers, after a failure again two minutes later. Calls do not wait for it; never asked in mode "off".
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
    """Settings with what was left out filled in; raises ConfigurationError for a wrong one, also of the environment."""
    check(policy, options)
    policy = policy or CachePolicy()
    stated_mode(policy)
    return _filled(policy, stated_table(), options)


def settings_of_a_call(policy: CachePolicy | None, options: Options) -> Settings:
    """The same for one call of a model that checked its own when it was made: nothing that is wrong by now fails it."""
    return _filled(policy or CachePolicy(), table_in_force(), options)


def check(policy: Any, options: Mapping[str, Any]) -> None:
    """Raise ConfigurationError for a policy or an option that is none; None stands for the default of each."""
    if policy is not None and not isinstance(policy, CachePolicy):
        raise ConfigurationError(f"policy={policy!r:.80} is no CachePolicy; pass CachePolicy(…)")
    check_options(options)


def check_options(options: Mapping[str, Any]) -> None:
    """Raise ConfigurationError for an option that is none; None stands for the default of each."""
    for name, value in options.items():
        if name in _OF_THE_POLICY:
            raise ConfigurationError(f"{name!r} is a setting of the policy; pass CachePolicy({name}=…)")
        if name not in Options.__annotations__:
            known = sorted({"policy", *Options.__annotations__})
            meant = " (did you mean 'policy'?)" if "policy" in name or "cach" in name else did_you_mean(name, known)
            raise ConfigurationError(f"unknown option {name!r}{meant}; use any of {known}")
        if value is not None and (wanted := _wanted(name, value)):
            raise ConfigurationError(f"{name}={value!r:.80}: {wanted}")


@contextmanager
def configuration_errors() -> Iterator[None]:
    """A ConfigurationError that pydantic has put into a ValidationError comes out of the block as it was raised."""
    try:
        yield
    except ValueError as problem:
        errors: list[Mapping[str, Any]] = problem.errors() if hasattr(problem, "errors") else []
        for each in errors:
            ours = each.get("ctx", {}).get("error")
            if isinstance(ours, ConfigurationError):
                raise ours from None
        raise


def check_model(policy: CachePolicy, **live: Any) -> None:
    """Raise ConfigurationError for what a model of an adapter is made with, and for a wrong environment.

    What a first call would have to read and import, table and prices, is read and imported here.
    """
    check(policy, live)
    stated_mode(policy)
    prices_by(stated_table())


def check_names(given: Iterable[str], known: Iterable[str], ours: Iterable[str], *, others: bool = False) -> None:
    """Raise ConfigurationError for a name that an adapter's model does not know and that seems to mean one of `ours`.

    With `others`, names that mean none of them are the framework's affair: LangChain sends them to the model.
    """
    known = set(known)
    for name in given:
        if name in known:
            continue
        if name in Options.__annotations__:
            raise ConfigurationError(f"{name!r} is for cachepoint.wrap alone; {_ON_A_MODEL.get(name, 'leave it out')}")
        if name in _OF_THE_POLICY:
            raise ConfigurationError(f"{name!r} is a setting of the policy; write prompt_cache={{{name!r}: …}}")
        if name == "budget_usd":
            raise ConfigurationError(f"{name!r} is no model's; write PromptCacheCallbackHandler(budget_usd=…)")
        meant = next(iter(get_close_matches(name, ours, 1, _NEAR if others else _FAR)), None)
        if meant is None and ("cache" in name.lower() or "caching" in name.lower() or "policy" in name.lower()):
            meant = "prompt_cache"
        if meant is not None:
            raise ConfigurationError(f"no setting {name!r} here; did you mean {meant!r}?")
        if not others:
            raise ConfigurationError(f"no setting {name!r} here; leave it out")


def check_call(given: Iterable[str], ours: Iterable[str]) -> None:
    """Raise ConfigurationError for a setting of an adapter's model that stands among the arguments of a call."""
    ours = set(ours)
    for name in given:
        if name in ours:
            raise ConfigurationError(f"{name!r} is no argument of a call; make a model with {name}=… and call that")


def check_own_names(made: object, given: Iterable[str], known: Iterable[str]) -> None:
    """Raise ConfigurationError for a name that a class of an adapter's own does not know, which pydantic would drop."""
    known = set(known)
    for name in given:
        if name not in known:
            kind = type(made).__name__
            raise ConfigurationError(
                f"{kind} has no setting {name!r}{did_you_mean(name, known)}; it has {sorted(known)}"
            )


_OF_THE_POLICY = frozenset(each.name for each in fields(CachePolicy))
_NEAR, _FAR = 0.8, 0.6
"""How much of two names has to agree: `legder` and `promptCache` do, `top_k` and `stop` do not; and where every name
that is not known is wrong, so that `region` may mean `region_name`."""
_ON_A_MODEL = {
    "prices": "give them to the PromptCacheCallbackHandler, or pass client=wrap(…, prices=…)",
    "rules": "name a file in CACHEPOINT_RULES, or pass client=wrap(…, rules=…)",
    "base_models": "LangChain's class has base_model_id=",
    "control_client": "LangChain's class has bedrock_client=, LlamaIndex's base_models=",
    "hints": "mark the blocks themselves",
}

_STORE = tuple(name for name in vars(Store) if not name.startswith("_"))


def _wanted(name: str, value: Any) -> str | None:
    """What to pass for an option instead of this value; None where it will do."""
    match name:
        case "ledger":
            return None if isinstance(value, CacheLedger) else "pass a CacheLedger(…)"
        case "clock":
            return None if callable(value) else "pass a function that gives seconds since 1970, as time.time does"
        case "base_models":
            fits = isinstance(value, Mapping) and all(
                isinstance(each, str) and each for pair in value.items() for each in pair
            )
            return None if fits else "pass a mapping from ARN to model id, both of them text"
        case "hints":
            return None if isinstance(value, Mapping) else "pass a mapping from places in the request to hints"
        case "store":
            return _lacks(value, _STORE, "a store, such as MemoryStore()") or _unfit_key(value)
        case "prices":
            return _lacks(value, ("price",), "what has a method `price`, such as PriceBook(…)")
        case "rules":
            return _lacks(value, ("resolve",), "what has a method `resolve`, such as load_rules([…])")
        case "control_client":
            asked = ("get_inference_profile", "get_provisioned_model_throughput")
            known = [each for each in asked if not _lacks(value, (each,), "")]
            return None if known else "pass a client for 'bedrock', not one for 'bedrock-runtime'"
    return None


def _lacks(value: Any, names: Iterable[str], instead: str) -> str | None:
    missing = ["an instance"] if isinstance(value, type) else [name for name in names if not _has(value, name)]
    return f"it lacks {missing[0]}; pass {instead}" if missing else None


def _has(value: Any, name: str) -> bool:
    try:
        getattr(value, name)
    except AttributeError:
        return False
    except Exception:  # noqa: BLE001 - it is there, and what it raises is for the call that it happens in
        return True
    return True


def _unfit_key(store: Any) -> str | None:
    try:
        key = store.key
    except Exception:  # noqa: BLE001 - a store that is out of reach now may be there when a call comes
        return None
    return key_wanted(key)


def _filled(policy: CachePolicy, table: ModelTable, options: Options) -> Settings:
    def given(name: str, default: Callable[[], Any]) -> Any:
        value = options.get(name)
        return default() if value is None else value

    return Settings(
        policy=policy,
        ledger=given("ledger", CacheLedger),
        store=given("store", MemoryStore),
        clock=given("clock", lambda: time.time),
        base_models=given("base_models", dict),
        control_client=options.get("control_client"),
        prices=given("prices", lambda: prices_by(table)),
        rules=given("rules", lambda: table.rules),
        table=table,
        hints=given("hints", lambda: NO_HINTS),
    )
