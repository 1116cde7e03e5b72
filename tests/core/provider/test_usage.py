"""Tokens by class: what adds up to the prompt, and what is printed."""

from __future__ import annotations

import pytest

from cachepoint.core.provider.usage import MOST_TOKENS, Usage, count, oddities

USAGE = Usage(input=1, cache_read=20, cache_write_5m=300, cache_write_1h=4000, output=50_000)


def test_the_prompt_is_all_but_the_output() -> None:
    assert (USAGE.cache_write, USAGE.prompt) == (4300, 4321)


def test_each_class_is_summed_alone() -> None:
    assert USAGE + Usage(5, 6, 7, 8, 9) == Usage(6, 26, 307, 4008, 50_009)
    assert USAGE + Usage() == USAGE


def test_it_prints_as_the_call_contract_says() -> None:
    assert USAGE.to_dict() == {
        "input": 1, "cache_read": 20, "cache_write_5m": 300, "cache_write_1h": 4000, "output": 50_000,
    }  # fmt: skip


@pytest.mark.parametrize("value", [12, 12.0, "12", "012"])
def test_a_whole_number_is_a_count_however_it_is_written(value: object) -> None:
    assert count(value) == 12


@pytest.mark.parametrize(
    "value",
    [
        None, True, False, -1, -1.0, "-1", 1.5, "1.5", "", " 12", "1e3", "\u00b2", "\u0661", "9" * 5000, 10**30, 1e30,
        MOST_TOKENS + 1, float("nan"), float("inf"), [12], {"a": 12}, b"12", object(),
    ],
)  # fmt: skip
def test_anything_else_is_none_and_reading_it_never_fails(value: object) -> None:
    assert count(value) is None


@pytest.mark.parametrize(
    ("reported", "odd"),
    [
        (None, ()),
        ({"inputTokens": 12, "outputTokens": None, "serviceTier": "x", "cacheDetails": [{"inputTokens": 1}]}, ()),
        ([12], ("usage is of type list",)),
        ({"inputTokens": "12", "output_tokens": -1}, ("inputTokens is of type str", "output_tokens is negative")),
        ({"inputTokens": 10**30, "outputTokens": True},
         ("inputTokens is beyond any call", "outputTokens is of type bool")),
        ({"cacheDetails": "secret"}, ("a part of cacheDetails is of type str",)),
        ({"cacheDetails": [None, 5, {"ttl": "5m", "inputTokens": 1.5}]},
         ("a part of cacheDetails is of type int", "inputTokens is of type float")),
        ({"cache_creation": 7}, ("cache_creation is of type int",)),
        ({"cache_creation": {"ephemeral_1h_input_tokens": []}}, ("ephemeral_1h_input_tokens is of type list",)),
        ({3: "three", "tokens": 3}, ()),
    ],
)  # fmt: skip
def test_what_is_odd_is_named_by_its_type(reported: object, odd: tuple[str, ...]) -> None:
    assert oddities(reported) == odd
