"""The emulator's token counter: near the recorded counts, additive, and quick on long prompts."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachepoint.core.provider.rules import Tokenizer
from cachepoint.emulator._reading.tokenizer import WEIGHTS, count_tokens

FAMILIES = tuple(WEIGHTS)

# Recorded counts of repeated sentences (C4, C5 of docs/rules.md), and how near the counter comes in per cent.
RECORDED: list[tuple[str, int, Tokenizer, int, int]] = [
    ("bye ", 1024, "claude", 1024, 0),
    ("hello ", 1024, "claude", 1024, 0),
    ("a", 8192, "claude", 2731, 1),
    ("Account, transaction, dispute, and policy details for matter 1. ", 380, "claude", 5340, 8),
    ("Account, transaction, dispute, and policy details for matter 1. ", 380, "claude-new", 8010, 8),
    ("Stable reference sentence for the prompt cache fixture. ", 450, "claude", 4500, 8),
    ("YOU MUST RESPONSE ONLY WITH SINGLE NUMBER\n", 50, "claude", 600, 8),
    ("You are a helpful assistant for instrumentation tests. ", 300, "nova", 2701, 8),
]


@pytest.mark.parametrize(("text", "times", "family", "tokens", "percent"), RECORDED)
def test_it_comes_near_recorded_counts(text: str, times: int, family: Tokenizer, tokens: int, percent: int) -> None:
    assert count_tokens(text * times, family) == pytest.approx(tokens, rel=percent / 100)


@given(st.text(max_size=600), st.integers(0, 600), st.sampled_from(FAMILIES))
def test_cutting_a_text_in_two_changes_the_count_by_little(text: str, at: int, family: Tokenizer) -> None:
    parts = count_tokens(text[:at], family) + count_tokens(text[at:], family)
    assert abs(parts - count_tokens(text, family)) <= 4


@given(st.lists(st.from_regex(r"[A-Za-z]{1,12}[.,]? ", fullmatch=True), max_size=120), st.integers(0, 120))
def test_cutting_between_words_changes_it_by_two_at_most(words: list[str], at: int) -> None:
    whole, first, rest = "".join(words), "".join(words[:at]), "".join(words[at:])
    for family in FAMILIES:
        assert abs(count_tokens(first, family) + count_tokens(rest, family) - count_tokens(whole, family)) <= 2


@given(st.text(max_size=400), st.text(max_size=100), st.sampled_from(FAMILIES))
def test_more_text_is_never_fewer_tokens_by_more_than_a_few(text: str, more: str, family: Tokenizer) -> None:
    assert count_tokens(text + more, family) >= count_tokens(text, family) - 2


def test_only_the_empty_text_costs_nothing() -> None:
    assert count_tokens("", "claude") == 0
    assert count_tokens(" ", "claude") == count_tokens("é", "claude") == 1


def test_a_prompt_of_two_hundred_thousand_tokens_is_counted_at_once_and_remembered() -> None:
    from pydoc_data.topics import topics

    book = "\n".join(topics.values())
    text = (book * (900_000 // len(book) + 1))[:900_000]
    seconds = []
    for _ in range(2):
        started = time.process_time()
        tokens = count_tokens(text, "claude")
        seconds.append(time.process_time() - started)
    assert 180_000 < tokens < 260_000
    assert seconds[0] < 1.0  # about 0.05 on an idle machine
    assert seconds[1] < seconds[0] / 2
