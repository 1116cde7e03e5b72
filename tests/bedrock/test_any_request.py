"""Whatever is asked, planning keeps its promises: nothing refused, nothing changed, at most four checkpoints."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from copy import deepcopy
from types import SimpleNamespace

import pytest
from converse_kit import Bedrock, Json, checkpoints, joined_texts
from converse_requests import conversations, requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cachepoint import CachePolicy, MemoryStore
from cachepoint.bedrock.call import Call
from cachepoint.bedrock.settings import settings as made_settings
from cachepoint.bedrock.wire import converse
from cachepoint.errors import CachepointWarning

POLICIES = st.builds(
    CachePolicy,
    mode=st.sampled_from(["auto", "auto", "auto", "explicit"]),
    ttl=st.sampled_from(["auto", "5m", "1h"]),
    split_text=st.sampled_from([True, True, False]),
    max_checkpoints=st.sampled_from([4, 4, 4, 4, 2, 1, 0]),
)
over_the_wire = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
pure = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(autouse=True)
def only_expected_warnings() -> Iterator[None]:
    """A repaired mark may be told; an error inside cachepoint or a refused checkpoint may not happen."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        yield
    words = [str(warning.message) for warning in told if issubclass(warning.category, CachepointWarning)]
    assert not [message for message in words if "failed inside" in message or "refused" in message]


class Application:
    """Plans and settles calls as a wrapped client does, on a service that caches what it is told to."""

    def __init__(self, policy: CachePolicy | None = None, store: MemoryStore | None = None) -> None:
        self.store = store or MemoryStore()
        self.now = 1_000.0
        options = {"store": self.store, "clock": lambda: self.now}
        self._settings = made_settings(policy, options)  # type: ignore[arg-type]
        meta = SimpleNamespace(region_name="us-east-1", endpoint_url="http://localhost")
        self._client = SimpleNamespace(meta=meta)

    def planned(self, request: Json) -> Call:
        call = Call(self._settings, self._client, converse, request)
        assert not [*call.departure()]
        return call

    def called(self, request: Json) -> Call:
        call = self.planned(request)
        assert call.exchange.prompt is not None
        cached = max((point.tokens for point in call.exchange.plan.checkpoints), default=0)
        read = round(call.exchange.plan.expected.read)
        usage = {"inputTokens": max(round(call.exchange.prompt.tokens) - cached, 3), "outputTokens": 9}
        call.answered({**usage, "cacheReadInputTokens": read, "cacheWriteInputTokens": max(cached - read, 0)})
        self.now += 20.0
        return call


@given(request=requests(), policy=POLICIES)
@over_the_wire
def test_no_planned_request_is_refused_nor_sent_twice(bedrock: Bedrock, request: Json, policy: CachePolicy) -> None:
    client = bedrock.wrapped(policy)
    before = len(bedrock.calls)
    client.converse(**request)
    assert bedrock.statuses[before:] == [200]


@given(asked=conversations(), policy=POLICIES)
@settings(over_the_wire, max_examples=40)
def test_nor_is_one_of_a_conversation_that_is_known(bedrock: Bedrock, asked: list[Json], policy: CachePolicy) -> None:
    client = bedrock.wrapped(policy)
    before = len(bedrock.calls)
    for request in asked:
        client.converse(**request)
        bedrock.clock.advance(30)
    assert bedrock.statuses[before:] == [200] * len(asked)


@given(request=requests(), policy=POLICIES)
@pure
def test_undo_gives_the_request_back(request: Json, policy: CachePolicy) -> None:
    call = Application(policy).planned(request)
    # Late system messages are placed, which is the one thing that is changed of what the model reads.
    assert converse.undo(call.request, call.exchange.plan) == converse.place_system_turns(request, taken=False)[0]


@given(asked=conversations())
@settings(pure, max_examples=80)
def test_undo_gives_the_requests_of_known_traffic_back(asked: list[Json]) -> None:
    application = Application()
    for request in asked:
        call = application.called(request)
        assert converse.undo(call.request, call.exchange.plan) == converse.place_system_turns(request, taken=False)[0]


@given(request=requests(), policy=POLICIES)
@pure
def test_planning_leaves_what_it_was_given_alone(request: Json, policy: CachePolicy) -> None:
    as_written = deepcopy(request)
    call = Application(policy).planned(request)
    assert request == as_written
    assert joined_texts(call.request) == joined_texts(dict(converse.place_system_turns(request, taken=False)[0]))


@given(request=requests(), policy=POLICIES)
@pure
def test_there_are_never_more_checkpoints_than_may_be(request: Json, policy: CachePolicy) -> None:
    call = Application(policy).planned(request)
    assert len(checkpoints(call.request)) <= policy.max_checkpoints
    assert [(point.path, point.ttl) for point in call.exchange.plan.checkpoints] == checkpoints(call.request)


@given(asked=conversations(), policy=POLICIES)
@settings(pure, max_examples=80)
def test_the_same_traffic_gives_the_same_plans(asked: list[Json], policy: CachePolicy) -> None:
    key = b"k" * 32
    once, again = Application(policy, MemoryStore(key=key)), Application(policy, MemoryStore(key=key))
    assert [once.called(request).exchange.plan for request in asked] == [
        again.called(request).exchange.plan for request in asked
    ]


@given(request=requests(marked=True))
@settings(pure, max_examples=80)
def test_explicit_mode_adds_no_checkpoint_of_its_own(request: Json) -> None:
    call = Application(CachePolicy(mode="explicit")).planned(request)
    assert all(point.marked for point in call.exchange.plan.checkpoints)


@given(asked=conversations())
@settings(pure, max_examples=80)
def test_observing_sends_every_request_as_it_was_written(asked: list[Json]) -> None:
    application = Application(CachePolicy(mode="observe"))
    assert [application.called(request).request for request in asked] == asked
