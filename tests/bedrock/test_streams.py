"""Streams are passed on as they come, and every one is recorded, read to its end or not."""

from __future__ import annotations

import gc
import time
from contextlib import closing
from itertools import islice

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, EventStreamError, HTTPClientError
from converse_kit import Bedrock, question

from cachepoint import CachePolicy, wrap
from cachepoint.bedrock.client import CacheClient
from cachepoint.emulator import Fault, cut_stream, failed, reset_after_serving, slow, stream_error, throttled
from cachepoint.errors import CachepointWarning

QUESTION = question()
# What botocore leaves open when a stream is dropped unread, with or without cachepoint.
drops_a_socket = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def test_the_metadata_event_tells_what_caching_did(bedrock: Bedrock) -> None:
    client = bedrock.wrapped()
    client.converse(**question(1))
    events = list(client.converse_stream(**QUESTION)["stream"])
    told = [event for event in events if "promptCache" in str(event)]
    assert [list(event) for event in told] == [["metadata"]]
    assert told[0]["metadata"]["promptCache"]["status"] == "hit"
    assert told[0]["metadata"]["usage"]["cacheReadInputTokens"] > 2000


def test_all_other_events_are_the_services(bedrock: Bedrock) -> None:
    plain = list(bedrock.client().converse_stream(**QUESTION)["stream"])
    cached = list(bedrock.wrapped(CachePolicy(mode="off")).converse_stream(**QUESTION)["stream"])
    cached[-1]["metadata"].pop("promptCache")
    assert cached == plain


def test_events_are_passed_on_as_they_arrive(bedrock: Bedrock) -> None:
    bedrock.emulator.fail_next(slow(0.05))
    arrived = [time.monotonic() for _ in bedrock.wrapped().converse_stream(**QUESTION)["stream"]]
    assert arrived[-1] - arrived[0] > 0.1


def test_a_stream_read_to_its_end_is_recorded_once(bedrock: Bedrock) -> None:
    client = bedrock.wrapped()
    stream = client.converse_stream(**QUESTION)["stream"]
    assert not client.ledger.records
    list(stream)
    stream.close()
    del stream
    gc.collect()
    (record,) = client.ledger.records
    assert (record.status, record.error) == ("written", None)


def test_a_stream_that_is_closed_early_is_recorded_as_abandoned(bedrock: Bedrock) -> None:
    client = bedrock.wrapped()
    stream = client.converse_stream(**QUESTION)["stream"]
    list(islice(stream, 2))
    stream.close()
    (record,) = client.ledger.records
    assert (record.usage, record.cost, record.status, record.error) == (None, None, None, "abandoned")
    assert record.at_least


@drops_a_socket
def test_a_stream_that_is_left_is_recorded_as_abandoned(bedrock: Bedrock) -> None:
    client = bedrock.wrapped()
    for _ in client.converse_stream(**QUESTION)["stream"]:
        break
    gc.collect()
    assert [record.error for record in client.ledger.records] == ["abandoned"]


@drops_a_socket
def test_a_stream_nobody_reads_is_recorded_as_abandoned(bedrock: Bedrock) -> None:
    client = bedrock.wrapped()
    client.converse_stream(**QUESTION)
    gc.collect()
    assert [record.error for record in client.ledger.records] == ["abandoned"]


def test_what_an_abandoned_stream_wrote_is_read_later(bedrock: Bedrock) -> None:
    client = bedrock.wrapped()
    client.converse_stream(**QUESTION)["stream"].close()
    assert client.converse(**question(1))["promptCache"]["status"] == "hit"


def test_an_error_in_a_stream_is_recorded_under_its_name(bedrock: Bedrock) -> None:
    client = bedrock.wrapped()
    bedrock.emulator.fail_next(stream_error("ThrottlingException"))
    with closing(client.converse_stream(**QUESTION)["stream"]) as stream, pytest.raises(EventStreamError):
        list(stream)
    (record,) = client.ledger.records
    assert (record.usage, record.error) == (None, "EventStreamError")


def test_a_refusal_in_the_first_event_of_a_stream_is_repeated(bedrock: Bedrock) -> None:
    client = bedrock.wrapped()
    bedrock.emulator.fail_next(stream_error("ValidationException", 0, "Nein."))
    with pytest.warns(CachepointWarning, match="refused a checkpoint in system"):
        events = list(client.converse_stream(**QUESTION)["stream"])
    assert "messageStop" in str(events)
    (record,) = client.ledger.records
    assert (record.error, record.status, record.checkpoints) == (None, "uncached", ())
    assert len(bedrock.statuses) == 2


def test_one_whose_repeat_is_refused_too_raises_the_first_error(bedrock: Bedrock) -> None:
    client = bedrock.wrapped()
    for _ in range(2):
        bedrock.emulator.fail_next(stream_error("ValidationException", 0, "Nein."), times=2)
        with (
            closing(client.converse_stream(**QUESTION)["stream"]) as stream,
            pytest.raises(EventStreamError, match=r"Nein\."),
        ):
            list(stream)
    assert [record.error for record in client.ledger.records] == ["EventStreamError"] * 2
    assert len(bedrock.statuses) == 4


@pytest.mark.parametrize(("fault", "code"), [(throttled(), "Throttling"), (failed(), "InternalServer")])
def test_a_repeat_of_a_stream_that_fails_otherwise_raises_that(bedrock: Bedrock, fault: Fault, code: str) -> None:
    client = wrap(bedrock.client(config=Config(retries={"total_max_attempts": 1})), clock=bedrock.clock)
    bedrock.emulator.fail_next(stream_error("ValidationException", 0, "Nein."))
    stream = client.converse_stream(**QUESTION)["stream"]
    bedrock.emulator.fail_next(fault)
    with pytest.raises(ClientError, match=code):
        list(stream)
    assert [record.error for record in client.ledger.records] == [f"{code}Exception"]


@drops_a_socket
def test_a_stream_that_breaks_off_is_recorded_without_usage(bedrock: Bedrock) -> None:
    client = bedrock.wrapped()
    bedrock.emulator.fail_next(cut_stream(quietly=True))
    with closing(client.converse_stream(**QUESTION)["stream"]) as stream:
        list(stream)
    (record,) = client.ledger.records
    assert (record.usage, record.error) == (None, None)
    assert client.ledger.totals().unreported == 1


def test_a_stream_can_be_closed_as_a_context_manager_does(bedrock: Bedrock) -> None:
    client = bedrock.wrapped()
    with closing(client.converse_stream(**QUESTION)["stream"]) as stream:
        next(iter(stream))
    assert [record.error for record in client.ledger.records] == ["abandoned"]


# -- attempts before the answer -------------------------------------------------------------------


def patient(bedrock: Bedrock) -> CacheClient:
    """A client whose botocore tries three times, without a pause worth the name."""
    return wrap(bedrock.client(config=Config(retries={"total_max_attempts": 3})), clock=bedrock.clock)


def test_an_answer_after_lost_attempts_says_how_many(bedrock: Bedrock) -> None:
    client = patient(bedrock)
    bedrock.emulator.fail_next(reset_after_serving())
    contract = client.converse(**QUESTION)["promptCache"]
    (record,) = client.ledger.records
    assert (record.retries, contract["retries"], client.ledger.totals().retries) == (1, 1, 1)
    assert "1 earlier attempts, of which those that timed out or lost" in client.ledger.summary()
    assert record.to_dict()["retries"] == 1
    # The emulator billed both; the ledger tells the one of which it was told.
    assert len(bedrock.bill) == 2
    assert record.cost is not None
    assert record.cost.usd == bedrock.bill[1].usd


def test_a_stream_that_began_after_lost_attempts_says_how_many(bedrock: Bedrock) -> None:
    client = patient(bedrock)
    bedrock.emulator.fail_next(reset_after_serving())
    with closing(client.converse_stream(**QUESTION)["stream"]) as stream:
        told = [event["metadata"]["promptCache"] for event in stream if "metadata" in event]
    assert told[0]["retries"] == client.ledger.records[0].retries == 1


def test_a_call_that_fails_after_all_attempts_says_how_many(bedrock: Bedrock) -> None:
    client = patient(bedrock)
    bedrock.emulator.fail_next(throttled(), times=3)
    with pytest.raises(ClientError):
        client.converse(**QUESTION)
    (record,) = client.ledger.records
    assert (record.retries, record.at_least) == (2, False)  # throttled is not served


def test_a_call_without_retries_says_nothing_of_them(bedrock: Bedrock) -> None:
    client = bedrock.wrapped()
    assert "retries" not in client.converse(**QUESTION)["promptCache"]
    assert client.ledger.records[0].retries == 0


def test_a_call_whose_answer_was_lost_may_be_billed(bedrock: Bedrock) -> None:
    client = bedrock.once()
    bedrock.emulator.fail_next(reset_after_serving())
    with pytest.raises(HTTPClientError):
        client.converse(**QUESTION)
    (record,) = client.ledger.records
    assert (record.usage, record.cost, record.at_least) == (None, None, True)
    assert client.ledger.totals().at_least == 1
