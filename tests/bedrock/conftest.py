"""One emulator for the suite, an account of its own for each test, and warnings that every test hears anew."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest
from converse_kit import Bedrock

from cachepoint.emulator import BedrockEmulator, Options

_accounts = count(1)


@pytest.fixture(scope="session")
def _running() -> Iterator[BedrockEmulator]:
    # Whatever blank text a request has is the user's: what is tested here is what becomes of checkpoints beside it.
    # Models that have ended stand here for those that know no TTL.
    options = Options(strict_blanks=False, serve_ended=True)
    with BedrockEmulator(keep_text=True, options=options) as emulator:
        yield emulator


@pytest.fixture
def bedrock(_running: BedrockEmulator) -> Iterator[Bedrock]:
    """An account that has sent nothing yet, on an emulator where nothing is planned."""
    yield Bedrock(_running, f"ACCOUNT{next(_accounts)}")
    _running.accept_checkpoints()


@pytest.fixture(autouse=True)
def warned_anew(nothing_warned_of: None) -> None:
    """Every test hears its own warnings."""
