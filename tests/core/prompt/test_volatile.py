"""What looks different on every request, and where it is looked for."""

from __future__ import annotations

import pytest

from cachepoint.core.prompt.volatile import looks_volatile

MINUTE = "2026-11-04T12:30"
assert len(MINUTE) == 16


@pytest.mark.parametrize(
    "text",
    [
        "Today is 2026-11-04 12:30.",
        "now: 2026-11-04t12:30:05Z",
        "It is 9:05:00 in Paris.",
        "user 3f2504e0-4f89-41d3-9a0c-0305e82c3301",
        "Request-ID: 8f14e45fceea",
        "session_id=8f14e45f",
        "trace id  8f14e45f-1",
    ],
)
def test_times_and_ids_look_volatile(text: str) -> None:
    assert looks_volatile(text)


@pytest.mark.parametrize(
    "text",
    [
        "", "You are brief.", "Today is 2026-11-04.", "Meet at 12:30.", "Version 3.12.1",
        "the request id is given below", "request id: none", "3f2504e0-4f89", "ratio 99:99:99",
    ],
)  # fmt: skip
def test_dates_versions_and_words_do_not(text: str) -> None:
    assert not looks_volatile(text)


def placed(before: int, after: int) -> str:
    """The minute with so many characters before it and behind it."""
    return ("x " * 1000)[-before:] + MINUTE + (" x" * 1000)[:after]


def test_a_text_of_up_to_768_characters_is_looked_through() -> None:
    assert looks_volatile(placed(496, 768 - 16 - 496))
    assert looks_volatile(placed(498, 768 - 16 - 498))
    assert not looks_volatile(placed(498, 769 + 16 - 498))


@pytest.mark.parametrize(("before", "found"), [(2, True), (496, True), (498, False), (700, False)])
def test_of_a_long_text_the_first_512_characters_count(before: int, found: bool) -> None:
    """The minute ends at `before` + 16: at 512 it is inside, at 514 no more."""
    assert looks_volatile(placed(before, 1000)) is found


@pytest.mark.parametrize(("after", "found"), [(2, True), (240, True), (241, False), (500, False)])
def test_of_a_long_text_the_last_256_characters_count(after: int, found: bool) -> None:
    """The minute begins `after` + 16 before the end: at 256 it is inside, at 257 no more."""
    assert looks_volatile(placed(1000, after)) is found
