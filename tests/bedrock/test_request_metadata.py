"""Chosen tags travel in `requestMetadata`; what the service would not take is left out, and no call fails for it."""

from __future__ import annotations

import gzip
import json
import warnings
from pathlib import Path
from typing import Any, get_args

import botocore.session
import pytest
from converse_kit import SONNET, Bedrock, question
from hypothesis import given
from hypothesis import strategies as st

import cachepoint
from cachepoint.bedrock.tags import MOST_PAIRS, with_request_metadata
from cachepoint.core.planning.policy import Mode
from cachepoint.emulator import BedrockEmulator
from cachepoint.errors import CachepointWarning, ConfigurationError

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
@pytest.mark.parametrize("mode", get_args(Mode))
def test_a_value_the_service_would_not_take_is_left_out_with_one_warning(
    bedrock: Bedrock, value: str, mode: Mode
) -> None:
    client = bedrock.wrapped(POLICY.in_mode(mode))
    with cachepoint.tags(tenant=value, feature="search"), pytest.warns(CachepointWarning) as warned:
        for _ in range(2):
            client.converse(**REQUEST)
    assert [str(warning.message)[:35] for warning in warned] == ["cachepoint sent the tag 'tenant' in"]
    assert metadata_sent(bedrock) == [{"feature": "search"}] * 2
    assert client.ledger.by("tenant")[value].calls == 2


@pytest.mark.parametrize("name", ["größe", "", "x" * 257, "50%"])
def test_a_name_the_service_would_not_take_is_an_error_of_the_policy(name: str) -> None:
    with pytest.raises(ConfigurationError, match=r"request_metadata=.*Bedrock takes no name such as"):
        cachepoint.CachePolicy(request_metadata=("tenant", name))


def test_more_pairs_than_the_service_takes_are_left_out_with_a_warning(bedrock: Bedrock) -> None:
    mine = {f"key{number}": "x" for number in range(MOST_PAIRS - 1)}
    with cachepoint.tags(tenant="a", feature="search"), pytest.warns(CachepointWarning, match="16 pairs"):
        bedrock.wrapped(POLICY).converse(**REQUEST, requestMetadata=mine)
    assert metadata_sent(bedrock) == [{**mine, "tenant": "a"}]


def test_invoke_model_takes_it_as_a_header_of_json() -> None:
    sent = with_request_metadata(
        {"modelId": SONNET, "body": "{}", "requestMetadata": '{"team": "docs"}'}, ("tenant",), {"tenant": "a"}
    )
    assert json.loads(sent["requestMetadata"]) == {"tenant": "a", "team": "docs"}


@pytest.mark.parametrize("mine", [None, "", "{}", "{ }", ' {"team" :"d\\u006fcs"}\t', '{"a":1e400 , "feature":"mine"}'])
def test_a_header_of_the_callers_gets_the_tags_and_keeps_its_bytes(mine: str | None) -> None:
    chosen = {"tenant": "a", "feature": "search"}
    given = {"body": "{}"} | ({} if mine is None else {"requestMetadata": mine})
    sent = with_request_metadata(given, chosen, chosen)["requestMetadata"]
    own = json.loads(mine or "{}")
    assert json.loads(sent) == {**chosen, **own}
    assert sent.startswith((mine or "{}").rstrip()[:-1].rstrip())
    assert sent.endswith((mine or "{}")[-1])


@pytest.mark.parametrize("mine", ['{"team":"a","team":"b"}', "team: docs", '["docs"]', ["docs"], "[" * 100_000, 5])
def test_pairs_of_the_callers_that_are_none_are_for_the_service_to_judge(mine: Any) -> None:
    request = {"modelId": SONNET, "requestMetadata": mine}
    assert with_request_metadata(request, ("tenant",), {"tenant": "a"}) is request


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
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sent = with_request_metadata({}, (name,), {name: value})
    assert sent == ({"requestMetadata": {name: value}} if fits else {})


ALLOWED = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 \t\n\r\f\v:_@$#=/+,-.")
