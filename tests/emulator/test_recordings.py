"""Recorded answers of the real service, replayed with boto3: the emulator gives each call the same tokens' shares.

Token counts are estimates on both sides of the wire, so what is compared is the class of a call (write, read, both,
nothing) and the shares of read, write and input in its prompt, within three points.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest
from emulator.recordings import RECORDINGS, Cassette, Recorded, Tokens, play, read_cassettes

from cachepoint.emulator import BedrockEmulator, Options

WITHIN_POINTS = 3.0

# Calls the emulator answers with other shares than the service did, by cassette and position.
EXCEPTIONS: Mapping[tuple[str, int], str] = {
    (
        "test_bedrock_single_tool_choice_preserves_cache[nova].yaml|33b34d8ba1",
        3,
    ): "Nova's reads are not checkpoint-exact (R3.13): of a prefix it had written as 2,492 tokens it read 2,098.",
}

# Cassettes that cannot be replayed, by what their name contains.
INCOMPLETE: Mapping[str, str] = {
    "d1f99bbbb1": "its first call reads 7,309 of 7,317 tokens, an entry whose request was not recorded",
}

# Calls that read what an earlier, unrecorded run had written: with how many of their checkpoints they are sent once
# before, unrecorded as well, so that the entry exists.
WARMED_UP_WITH: Mapping[tuple[str, int], int] = {
    ("2e3241587c", 0): 2,
    ("aedd24f9a1", 0): 2,
    ("5d31ca9cb6", 0): 1,
    ("8e9b8dcebc", 0): 1,
    ("f5df509775", 0): 1,
    ("31776facdb", 0): 1,
    ("062a1a6042", 1): 1,  # recorded in two sittings, ten days apart
}

CASSETTES = read_cassettes() if RECORDINGS.exists() else []

pytestmark = pytest.mark.skipif(not CASSETTES, reason="shared/data/recordings is not beside this clone")


class RecordedTime:
    """A clock that shows when the calls were recorded."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("cassette", CASSETTES, ids=lambda cassette: cassette.name.rpartition("|")[2])
def test_a_cassette_is_served_as_it_was_recorded(cassette: Cassette, replayer: Replayer) -> None:
    if cassette.elided:
        pytest.skip("the recording cut its own prompt out")
    for mark, reason in INCOMPLETE.items():
        if cassette.name.endswith(mark):
            pytest.skip(reason)
    assert replayer.differences(cassette) == []


@pytest.fixture(scope="module")
def replayer() -> Iterator[Replayer]:
    time = RecordedTime()
    # A line break alone was still accepted beside other blocks when these were recorded.
    with BedrockEmulator(clock=time, options=Options(strict_blanks=False)) as emulator:
        yield Replayer(emulator, time)


def test_every_exception_and_warm_up_names_a_recorded_call() -> None:
    recorded = {(cassette.name, call.seq) for cassette in CASSETTES for call in cassette.calls}
    short = {(name.rpartition("|")[2], seq) for name, seq in recorded}
    assert {(name.rpartition("/")[2], seq) for name, seq in EXCEPTIONS} <= {
        (name.rpartition("/")[2], seq) for name, seq in recorded
    }
    assert set(WARMED_UP_WITH) <= short


def test_most_recorded_calls_are_compared() -> None:
    compared = [call for cassette in CASSETTES if not cassette.elided for call in cassette.calls]
    assert len(compared) >= 130


@dataclass(frozen=True)
class Replayer:
    """Plays cassettes against one emulator, each as an account of its own."""

    emulator: BedrockEmulator
    time: RecordedTime

    def differences(self, cassette: Cassette) -> list[str]:
        """How the answers differ from the recorded ones."""
        found = []
        clients: dict[str, Any] = {}
        account = "".join(filter(str.isalnum, cassette.name))[-40:]
        for call, self.time.now in zip(cassette.calls, cassette.times(), strict=True):
            if call.region not in clients:
                clients[call.region] = self.emulator.client(region=call.region, account=account)
            client = clients[call.region]
            warm_up(client, cassette, call)
            served = play(client, call)
            if not is_exception(cassette, call):
                found += [f"call {call.seq}: {difference}" for difference in compare(call, served)]
        return found


def compare(call: Recorded, served: Tokens) -> list[str]:
    differences = []
    if served.kind != call.tokens.kind:
        differences.append(f"{served.kind} instead of {call.tokens.kind}")
    for name, ours, theirs in zip(("input", "read", "write"), served.shares, call.tokens.shares, strict=True):
        if abs(ours - theirs) * 100 > WITHIN_POINTS:
            differences.append(f"{name} {ours:.1%} instead of {theirs:.1%}")
    return differences


def is_exception(cassette: Cassette, call: Recorded) -> bool:
    return any(cassette.name.endswith(name) and seq == call.seq for name, seq in EXCEPTIONS)


def warm_up(client: Any, cassette: Cassette, call: Recorded) -> None:
    kept = WARMED_UP_WITH.get((cassette.name.rpartition("|")[2], call.seq))
    if kept is not None:
        play(client, replace(call, request=_with_points(call.request, kept)))


def _with_points(request: Mapping[str, Any], kept: int) -> Any:
    """The request with only its first checkpoints, in wire order."""
    left = kept

    def trimmed(value: Any) -> Any:
        nonlocal left
        if isinstance(value, list):
            items = []
            for item in value:
                is_point = isinstance(item, dict) and "cachePoint" in item
                if not is_point or left > 0:
                    items.append(trimmed(item))
                left -= is_point
            return items
        if not isinstance(value, dict):
            return value
        marked = "cache_control" in value
        left -= marked
        return {name: trimmed(each) for name, each in value.items() if name != "cache_control" or left >= 0}

    sections = [name for name in ("toolConfig", "tools", "system", "messages") if name in request]
    trimmed_sections = {name: trimmed(request[name]) for name in sections}
    return {**request, **trimmed_sections}
