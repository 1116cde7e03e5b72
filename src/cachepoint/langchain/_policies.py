"""What users write where a policy is wanted: a policy, a dict of its settings, or LangChain's `cache_control`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from cachepoint.core.planning.policy import CachePolicy
from cachepoint.errors import ConfigurationError


def as_policy(given: Any) -> Any:
    """A policy from its settings; anything that is neither raises ConfigurationError."""
    if isinstance(given, Mapping):
        return CachePolicy.from_dict(given)
    if not isinstance(given, CachePolicy | None):
        raise ConfigurationError(f"prompt_cache={given!r}: pass CachePolicy(…), such as CachePolicy(mode='off')")
    return given


def asked_for(policy: CachePolicy, cache_control: Mapping[str, Any] | None) -> CachePolicy:
    """The policy of who passes `cache_control`: cache, with this TTL."""
    if not cache_control:
        return policy
    mode = "auto" if policy.mode == "explicit" else policy.mode
    return replace(policy, mode=mode, ttl=cache_control.get("ttl") or policy.ttl)
