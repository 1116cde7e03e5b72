"""CountTokens settles, where the user asks for it, whether a prompt near the minimum reaches it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from converse_kit import DOCUMENT, SONNET, Bedrock, Json, checkpoints, text, user

import cachepoint
from cachepoint import CachePolicy
from cachepoint.bedrock import counting
from cachepoint.bedrock.bounded import Bounded

COUNTING = CachePolicy(count_tokens=True)


@pytest.fixture(autouse=True)
def nothing_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    """No earlier test's failure keeps this one from asking."""
    monkeypatch.setattr(counting, "_failed", Bounded(counting.MODELS_KEPT))


def asked(characters: int, model: str = SONNET) -> Json:
    return {"modelId": model, "system": [text(DOCUMENT[:characters])], "messages": [user("Why?")]}


def operations(bedrock: Bedrock) -> list[str | None]:
    return [call.operation for call in bedrock.calls]


def test_it_is_not_asked_unless_the_user_wants_it(bedrock: Bedrock) -> None:
    bedrock.wrapped().converse(**asked(4600))
    assert operations(bedrock) == ["Converse"]


def test_it_is_asked_where_the_estimate_straddles_the_minimum(bedrock: Bedrock) -> None:
    bedrock.wrapped(COUNTING).converse(**asked(4600))
    assert operations(bedrock) == ["CountTokens", "Converse"]
    assert bedrock.statuses == [200, 200]


def test_it_is_asked_once(bedrock: Bedrock) -> None:
    client = bedrock.wrapped(COUNTING)
    for _ in range(3):
        client.converse(**asked(4600))
    assert operations(bedrock) == ["CountTokens", "Converse", "Converse", "Converse"]


@pytest.mark.parametrize("characters", [200, 30_000])
def test_it_is_not_asked_where_the_estimate_is_sure(bedrock: Bedrock, characters: int) -> None:
    bedrock.wrapped(COUNTING).converse(**asked(characters))
    assert operations(bedrock) == ["Converse"]


def test_the_answer_decides(bedrock: Bedrock) -> None:
    """About 850 tokens by the service's count: the estimate alone does not rule 1,024 out."""
    characters = 3200
    bedrock.wrapped().converse(**asked(characters))
    bedrock.wrapped(COUNTING).converse(**asked(characters))
    guessed, counted = bedrock.bodies[0], bedrock.bodies[-1]
    assert len(checkpoints(guessed)) == 1
    assert checkpoints(counted) == []


def test_a_service_that_does_not_count_is_no_obstacle(bedrock: Bedrock) -> None:
    opus = "us.anthropic.claude-opus-4-8"
    response = bedrock.wrapped(COUNTING).converse(**asked(3900, opus))
    assert response["output"]
    assert bedrock.statuses == [400, 200]
    assert bedrock.calls[0].operation is None or "CountTokens" in str(bedrock.calls[0].operation)


def test_a_service_that_does_not_count_is_not_asked_again_for_a_while(
    bedrock: Bedrock, monkeypatch: pytest.MonkeyPatch
) -> None:
    opus = "us.anthropic.claude-opus-4-8"
    for _ in range(3):  # each client as new to the model as the first
        bedrock.wrapped(COUNTING).converse(**asked(3900, opus))
    assert bedrock.statuses == [400, 200, 200, 200]
    monkeypatch.setattr(counting, "ASK_AGAIN_SECONDS", 0.0)
    bedrock.wrapped(COUNTING).converse(**asked(3900, opus))
    assert bedrock.statuses[4:] == [400, 200]


@pytest.mark.parametrize("mode", ["off", "observe"])
def test_it_is_not_asked_where_it_changes_no_request(bedrock: Bedrock, mode: Any) -> None:
    bedrock.wrapped(COUNTING.in_mode(mode)).converse(**asked(4600))
    assert operations(bedrock) == ["Converse"]


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """For a CountTokens that does not answer until this is set; it is given up soon."""
    monkeypatch.setattr(counting, "GIVE_UP_SECONDS", 0.05)
    end = threading.Event()
    yield end
    end.set()
    for thread in threading.enumerate():
        if thread.name == "cachepoint-count":
            thread.join(30)


class Hanging:
    """A client whose CountTokens hangs."""

    def __init__(self, client: Any, count_tokens: Any) -> None:
        self._inner, self.count_tokens = client, count_tokens

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def test_a_count_that_hangs_is_given_up_and_the_call_goes_on(bedrock: Bedrock, hanging: threading.Event) -> None:
    client = cachepoint.wrap(Hanging(bedrock.client(), lambda **_: hanging.wait(30)), COUNTING, clock=bedrock.clock)
    began = time.monotonic()
    client.converse(**asked(4600))
    assert time.monotonic() - began < 20  # the count would take 30 seconds
    assert operations(bedrock) == ["Converse"]


async def test_a_count_that_hangs_on_the_loop_is_given_up_too(bedrock: Bedrock, hanging: threading.Event) -> None:
    session = pytest.importorskip("aiobotocore.session", reason="aiobotocore is not installed").get_session()
    opening = session.create_client(
        "bedrock-runtime",
        region_name="us-east-1",
        endpoint_url=bedrock.emulator.url,
        aws_access_key_id=bedrock.account,
        aws_secret_access_key="emulator",
    )
    async with opening as raw:
        client = cachepoint.wrap_async(Hanging(raw, lambda **_: asyncio.sleep(30)), COUNTING, clock=bedrock.clock)
        await asyncio.wait_for(client.converse(**asked(4600)), 20)
    assert operations(bedrock) == ["Converse"]
