"""Tokens by class: what adds up to the prompt, and what is printed."""

from __future__ import annotations

from cachepoint.core.provider.usage import Usage

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
