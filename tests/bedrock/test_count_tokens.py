"""CountTokens settles, where the user asks for it, whether a prompt near the minimum reaches it."""

from __future__ import annotations

import pytest
from converse_kit import DOCUMENT, SONNET, Bedrock, Json, checkpoints, text, user

from cachepoint import CachePolicy

COUNTING = CachePolicy(count_tokens=True)


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
