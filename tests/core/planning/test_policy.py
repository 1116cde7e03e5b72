"""A policy takes only what means something, and survives its way through plain JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cachepoint import CachePolicy
from cachepoint.errors import ConfigurationError


@pytest.mark.parametrize(
    "wrong",
    [
        {"mode": "on"}, {"mode": None}, {"ttl": "10m"}, {"ttl": 300}, {"max_checkpoints": 5}, {"max_checkpoints": -1},
        {"max_checkpoints": True}, {"max_checkpoints": 2.0}, {"learn": "yes"}, {"split_text": 1},
        {"count_tokens": None},
    ],
)  # fmt: skip
def test_a_wrong_value_is_named_with_what_to_use(wrong: dict[str, Any]) -> None:
    name, value = next(iter(wrong.items()))
    with pytest.raises(ConfigurationError, match=f"{name}={value!r}.*use"):
        CachePolicy(**wrong)


@pytest.mark.parametrize(
    "policy", [CachePolicy(), CachePolicy(mode="observe", ttl="1h", learn=False, max_checkpoints=2)]
)
def test_it_survives_json(policy: CachePolicy) -> None:
    assert CachePolicy.from_dict(json.loads(json.dumps(policy.to_dict()))) == policy


def test_an_unknown_setting_is_named() -> None:
    with pytest.raises(ConfigurationError, match="'modus'"):
        CachePolicy.from_dict({"modus": "auto"})


def test_a_policy_in_another_mode_is_the_same_in_all_else() -> None:
    policy = CachePolicy(ttl="1h", max_checkpoints=3)
    assert policy.in_mode("off") == CachePolicy(mode="off", ttl="1h", max_checkpoints=3)
    assert policy.in_mode("auto") is policy
    assert hash(policy) == hash(CachePolicy(ttl="1h", max_checkpoints=3))


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (CachePolicy(learn=False), CachePolicy(learn=False)), ({"ttl": "5m"}, CachePolicy(ttl="5m")),
        ("1h", CachePolicy(ttl="1h")), ("observe", CachePolicy(mode="observe")), ("auto", CachePolicy()),
        (False, CachePolicy(mode="off")), (True, CachePolicy()), (None, CachePolicy()),
    ],
)  # fmt: skip
def test_it_may_be_written_in_short(given: Any, meant: CachePolicy) -> None:
    assert CachePolicy.of(given) == meant


@pytest.mark.parametrize("given", ["on", "10m", 1, ["1h"], 3600.0])
def test_what_is_no_policy_is_named_with_what_to_pass(given: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"pass CachePolicy\(…\)"):
        CachePolicy.of(given)


def test_a_cache_control_asks_for_caching_and_for_its_ttl() -> None:
    policy = CachePolicy(mode="explicit", learn=False)
    assert policy.asked({"type": "ephemeral", "ttl": "1h"}) == CachePolicy(mode="auto", ttl="1h", learn=False)
    assert policy.asked({"type": "ephemeral"}) == CachePolicy(mode="auto", learn=False)
    assert CachePolicy(mode="off").asked({"type": "ephemeral"}).mode == "off"
    assert policy.asked(None) is policy
