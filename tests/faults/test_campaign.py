"""Whatever goes wrong, no call fails, waits or is billed otherwise than the plain client's (docs/reliability.md)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest
from faults.campaign import COUNTS, Case, play
from faults.troubles import cases
from hypothesis import HealthCheck, given, settings

CASES = int(os.environ.get("CACHEPOINT_FAULTS", "100"))
"""How many cases; `make faults` plays more."""


@pytest.fixture
def _counted(record_property: Callable[[str, object], None]) -> Iterator[None]:
    yield
    record_property("fault campaign", "\n".join(COUNTS.table()))


@pytest.mark.usefixtures("_counted")
@given(case=cases())
@settings(max_examples=CASES, suppress_health_check=list(HealthCheck), print_blob=True)
def test_no_call_fails_that_the_plain_client_got_through(case: Case, faults: list[Exception]) -> None:
    play(case)
    if case.trouble.options is not dict:  # what the user's own part raised is swallowed, and meant
        faults.clear()
