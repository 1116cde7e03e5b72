"""Chosen tags travel in `requestMetadata`, or the call is refused before anything is sent."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from converse_kit import SONNET, Bedrock, question
from hypothesis import given
from hypothesis import strategies as st

import cachepoint
from cachepoint.bedrock.tags import MOST_PAIRS, with_request_metadata
from cachepoint.core.planning.policy import Mode
from cachepoint.emulator import BedrockEmulator
from cachepoint.errors import ConfigurationError

POLICY = cachepoint.CachePolicy(request_metadata=("tenant", "feature"))
REQUEST = question()


def metadata_sent(bedrock: Bedrock) -> list[Any]:
    return [body.get("requestMetadata") for body in bedrock.bodies]


def test_chosen_tags_are_sent_and_others_are_not(bedrock: Bedrock) -> None:
    client = bedrock.wrapped(POLICY)
    with cachepoint.tags(tenant="a", feature="search", secret="x"):
        client.converse(**REQUEST)
        list(client.converse_stream(**REQUEST)["stream"])
    with cachepoint.tags(tenant="b"):
        client.converse(**REQUEST)
    client.converse(**REQUEST)
    both = {"tenant": "a", "feature": "search"}
    assert metadata_sent(bedrock) == [both, both, {"tenant": "b"}, None]


def test_nothing_is_sent_unless_asked_for(bedrock: Bedrock) -> None:
    with cachepoint.tags(tenant="a"):
        bedrock.wrapped().converse(**REQUEST)
    assert metadata_sent(bedrock) == [None]


def test_the_callers_own_pairs_stay_and_win(bedrock: Bedrock) -> None:
    with cachepoint.tags(tenant="a", feature="search"):
        bedrock.wrapped(POLICY).converse(**REQUEST, requestMetadata={"team": "docs", "tenant": "mine"})
    assert metadata_sent(bedrock) == [{"team": "docs", "tenant": "mine", "feature": "search"}]


@pytest.mark.parametrize("mode", ["off", "observe", "explicit"])
def test_the_mode_of_caching_does_not_matter(bedrock: Bedrock, mode: Mode) -> None:
    with cachepoint.tags(tenant="a"):
        bedrock.wrapped(POLICY.in_mode(mode)).converse(**REQUEST)
    assert metadata_sent(bedrock) == [{"tenant": "a"}]


def test_a_call_repeated_as_the_user_wrote_it_carries_it_too(bedrock: Bedrock) -> None:
    bedrock.emulator.refuse_checkpoints("system")
    with cachepoint.tags(tenant="a"), pytest.warns(UserWarning, match="refused a checkpoint"):
        bedrock.wrapped(POLICY).converse(**REQUEST)
    assert metadata_sent(bedrock)[-1] == {"tenant": "a"}


def test_awss_invocation_log_carries_it(tmp_path: Path) -> None:
    with BedrockEmulator(log_folder=tmp_path) as emulator, cachepoint.tags(tenant="a"):
        cachepoint.wrap(emulator.client(), POLICY).converse(**REQUEST)
    (log,) = tmp_path.rglob("*.gz")
    assert json.loads(gzip.decompress(log.read_bytes()))["requestMetadata"] == {"tenant": "a"}


@pytest.mark.parametrize("value", ["Müller & Söhne", "x" * 257, "50%"])
def test_a_value_the_service_would_not_take_is_an_error_before_anything_is_sent(bedrock: Bedrock, value: str) -> None:
    client = bedrock.wrapped(POLICY)
    with cachepoint.tags(tenant=value), pytest.raises(ConfigurationError, match="'tenant' has the value"):
        client.converse(**REQUEST)
    assert bedrock.calls == []
    assert client.ledger.totals().calls == 0


def test_a_name_the_service_would_not_take_is_an_error(bedrock: Bedrock) -> None:
    policy = cachepoint.CachePolicy(request_metadata=("größe",))
    with cachepoint.tags(größe="1"), pytest.raises(ConfigurationError, match="the tag name 'größe'"):
        bedrock.wrapped(policy).converse(**REQUEST)
    assert bedrock.calls == []


def test_more_pairs_than_the_service_takes_are_an_error(bedrock: Bedrock) -> None:
    mine = {f"key{number}": "x" for number in range(MOST_PAIRS)}
    with cachepoint.tags(tenant="a"), pytest.raises(ConfigurationError, match="17 pairs with the caller's own"):
        bedrock.wrapped(POLICY).converse(**REQUEST, requestMetadata=mine)
    assert bedrock.calls == []


def test_invoke_model_takes_it_as_a_header_of_json() -> None:
    sent = with_request_metadata(
        {"modelId": SONNET, "body": "{}", "requestMetadata": '{"team": "docs"}'}, ("tenant",), {"tenant": "a"}
    )
    assert json.loads(sent["requestMetadata"]) == {"tenant": "a", "team": "docs"}


@pytest.mark.parametrize("mine", ["team: docs", '["docs"]', ["docs"]])
def test_pairs_of_the_callers_that_are_none_are_named(mine: Any) -> None:
    with pytest.raises(ConfigurationError, match="pass a map of strings"):
        with_request_metadata({"modelId": SONNET, "requestMetadata": mine}, ("tenant",), {"tenant": "a"})


@pytest.mark.parametrize("names", ["tenant", 5, (1,)])
def test_a_policy_wants_names(names: Any) -> None:
    with pytest.raises(ConfigurationError, match="request_metadata"):
        cachepoint.CachePolicy(request_metadata=names)


def test_a_policy_with_names_goes_through_json() -> None:
    assert cachepoint.CachePolicy.from_dict(json.loads(json.dumps(POLICY.to_dict()))) == POLICY


SHAPES = botocore.session.get_session().get_service_model("bedrock-runtime")


@given(st.text(min_size=1, max_size=300), st.text(max_size=300))
def test_what_is_let_through_fits_the_services_own_model(name: str, value: str) -> None:
    """The pattern is botocore's; the lengths are the shapes'."""
    key, content = (SHAPES.shape_for(f"RequestMetadata{kind}String") for kind in ("Key", "Value"))
    fits = all(
        shape.metadata["min"] <= len(given) <= shape.metadata["max"] and set(given) <= ALLOWED
        for shape, given in ((key, name), (content, value))
    )
    try:
        with_request_metadata({}, (name,), {name: value})
    except ConfigurationError:
        assert not fits
    else:
        assert fits


ALLOWED = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 \t\n\r\f\v:_@$#=/+,-.")
