"""How long calls on one cold prefix wait for each other, above all where the service is in trouble."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from botocore.retries.standard import ExponentialBackoff
from converse_kit import Bedrock, Json, question

import cachepoint
from cachepoint.bedrock import fan_out as room
from cachepoint.bedrock.blocks import in_block
from cachepoint.bedrock.fan_out import FanOut, current_fan_out
from cachepoint.bedrock.threads import InThreads
from cachepoint.emulator import failed, slow
from cachepoint.errors import CachepointWarning, ConfigurationError

FOLLOWERS = 4
ANSWER: Json = {"output": {"message": {"role": "assistant", "content": [{"text": "noon"}]}}}


def service_error(code: str, status: int, message: str = "no") -> ClientError:
    told: Any = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(told, "Converse")


class Service:
    """A client that is no botocore's. Its first call goes as the test says; later ones have to be under way together.

    A call that waited for another of them would keep the rest waiting here, and break the barrier.
    """

    def __init__(self, first: Callable[[], object], later: int = FOLLOWERS) -> None:
        self.meta = SimpleNamespace(region_name="us-east-1", endpoint_url="https://bedrock.test")
        self.asked = threading.Event()
        self._first, self._later = first, threading.Barrier(later)

    def converse(self, **request: Any) -> Json:
        first = not self.asked.is_set()
        self.asked.set()
        self._first() if first else self._later.wait(30)
        return ANSWER


def until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def waiting() -> int:
    """How many calls of the block wait for a leader."""
    block = current_fan_out()
    assert block is not None
    return sum(len(flight._wake) for flight in {*block._leaders.values()})


def raising(error: BaseException, followers: Callable[[], int]) -> Callable[[], object]:
    def end() -> None:
        until(lambda: followers() == FOLLOWERS)
        raise error

    return end


@contextmanager
def calling(pool: ThreadPoolExecutor, client: Any, asked: threading.Event) -> Iterator[list[Future[Any]]]:
    """A leader under way and its followers, inside a block."""
    calls = [pool.submit(copy_context().run, partial(client.converse, **question()))]
    assert asked.wait(30)
    calls += [
        pool.submit(copy_context().run, partial(client.converse, **question(number)))
        for number in range(1, FOLLOWERS + 1)
    ]
    yield calls
    for call in calls:
        call.exception(60)


def opened(bedrock: Bedrock, **config: Any) -> Any:
    """What opens an aiobotocore client of the test's account."""
    session = pytest.importorskip("aiobotocore.session", reason="aiobotocore is not installed")
    from aiobotocore.config import AioConfig  # type: ignore[import-untyped]

    return session.get_session().create_client(
        "bedrock-runtime",
        region_name="us-east-1",
        endpoint_url=bedrock.emulator.url,
        aws_access_key_id=bedrock.account,
        aws_secret_access_key="emulator",
        config=AioConfig(**config),
    )


FAILURES = [
    ConnectionError("down"),
    service_error("ServiceUnavailableException", 503),
    service_error("ThrottlingException", 429),
    service_error("ResourceNotFoundException", 404),
]


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
def test_when_a_leader_fails_all_go_at_once_and_none_leads(error: Exception) -> None:
    with cachepoint.fan_out(timeout=300), ThreadPoolExecutor(FOLLOWERS + 1) as pool:
        service = Service(raising(error, partial(copy_context().run, waiting)))
        client = cachepoint.wrap(service)
        with calling(pool, client, service.asked) as calls:
            pass
    assert [call.exception() for call in calls] == [error] + [None] * FOLLOWERS


def test_newcomers_wait_for_nobody_while_the_service_is_in_trouble() -> None:
    def fail() -> None:
        raise service_error("ServiceUnavailableException", 503)

    service = Service(fail)
    client = cachepoint.wrap(service)
    with cachepoint.fan_out(timeout=300), ThreadPoolExecutor(FOLLOWERS) as pool:
        with pytest.raises(ClientError):
            client.converse(**question())
        calls = [pool.submit(copy_context().run, partial(client.converse, **question())) for _ in range(FOLLOWERS)]
        assert [call.exception(60) for call in calls] == [None] * FOLLOWERS


def test_after_the_pause_one_leads_again(bedrock: Bedrock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "PAUSE_SECONDS", 0.0)
    client = bedrock.once()
    bedrock.emulator.fail_next(failed("ServiceUnavailableException"))
    with cachepoint.fan_out(timeout=300), ThreadPoolExecutor(FOLLOWERS) as pool:
        with pytest.raises(ClientError):
            client.converse(**question())
        calls = [pool.submit(copy_context().run, partial(client.converse, **question())) for _ in range(FOLLOWERS)]
        told = sorted(call.result(60)["promptCache"]["status"] for call in calls)
    assert told == ["hit"] * (FOLLOWERS - 1) + ["written"]


def test_a_leader_that_does_not_answer_is_waited_for_once() -> None:
    """The service lets five go together: four followers whose time is out, and one who comes only then."""
    answer = threading.Event()
    service = Service(lambda: answer.wait(60), later=FOLLOWERS + 1)
    client = cachepoint.wrap(service)
    with (
        cachepoint.fan_out(timeout=0.2),
        ThreadPoolExecutor(FOLLOWERS + 2) as pool,
        calling(pool, client, service.asked) as calls,
    ):
        until(lambda: service._later.n_waiting == FOLLOWERS)
        newcomer = pool.submit(copy_context().run, partial(client.converse, **question()))
        assert newcomer.exception(60) is None
        answer.set()
    assert [call.exception() for call in calls] == [None] * (FOLLOWERS + 1)


class EverAnother(FanOut):
    """A block where a call that has waited for a leader always finds the next one."""

    waits = 0

    def join(self, *_: Any) -> Any:
        self.waits += 1
        flight = room.Flight(self.deadline())
        threading.Timer(0.05, flight.release).start()
        return flight, False


async def test_the_sum_of_a_calls_waits_has_an_end(bedrock: Bedrock) -> None:
    """Leaders of 0.05 s each under a maximum of 0.2 s: the wait that begins before it is the last."""
    client = bedrock.wrapped()
    for ask in (client.converse, InThreads(client).converse):
        block = EverAnother(0.2)
        with in_block(room._FAN_OUT, block):
            answer = ask(**question())
            if asyncio.iscoroutine(answer):
                await answer
        assert 1 <= block.waits <= 4
    until(lambda: not any(isinstance(thread, threading.Timer) for thread in threading.enumerate()))


def test_a_leader_whose_checkpoint_was_refused_still_leads(bedrock: Bedrock) -> None:
    bedrock.emulator.refuse_checkpoints("system")
    sent, going = [], threading.Event()
    raw = bedrock.client()

    def send(**_: Any) -> None:
        sent.append(waiting())
        if len(sent) == 2:  # the leader's, repeated
            until(lambda: waiting() == FOLLOWERS)
            assert len(sent) == 2
        going.set()

    raw.meta.events.register("before-send.bedrock-runtime", send)
    client = cachepoint.wrap(raw, clock=bedrock.clock)
    with (
        pytest.warns(CachepointWarning, match="refused"),
        cachepoint.fan_out(timeout=300),
        ThreadPoolExecutor(FOLLOWERS + 1) as pool,
        calling(pool, client, going) as calls,
    ):
        pass
    assert [call.exception() for call in calls] == [None] * (FOLLOWERS + 1)


async def test_a_leader_nobody_wants_any_more_is_followed_by_one_other(bedrock: Bedrock) -> None:
    going = asyncio.Event()
    async with opened(bedrock) as raw:
        raw.meta.events.register("before-send.bedrock-runtime", lambda **_: going.set())
        client = cachepoint.wrap_async(raw, clock=bedrock.clock)
        bedrock.emulator.fail_next(slow(0.5))
        with cachepoint.fan_out(timeout=300):
            leader = asyncio.ensure_future(client.converse(**question()))
            await asyncio.wait_for(going.wait(), 30)
            calls = [asyncio.ensure_future(client.converse(**question(number))) for number in range(3)]
            await asyncio.to_thread(until, lambda: waiting() == 3)
            leader.cancel()
            told = [answer["promptCache"]["status"] for answer in await asyncio.gather(*calls)]
    assert told.count("written") == 1


SHORT: Json = {"modelId": question()["modelId"], "messages": [{"role": "user", "content": [{"text": "Why?"}]}]}


@pytest.mark.parametrize(("error", "paused"), [("ServiceUnavailableException", True), ("ValidationException", False)])
def test_a_call_that_does_not_lead_tells_of_trouble_too(bedrock: Bedrock, error: str, *, paused: bool) -> None:
    client = bedrock.once()
    bedrock.emulator.fail_next(failed(error))
    with cachepoint.fan_out():
        with pytest.raises(ClientError):
            client.converse(**SHORT)
        block = current_fan_out()
    assert block is not None
    assert bool(block._troubled) is paused


# -- attempts that botocore repeats: those who wait go at the first that fails -------------------------------


@pytest.fixture
def no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    """Repeat at once what botocore would repeat after a second or so."""
    monkeypatch.setattr(ExponentialBackoff, "delay_amount", lambda *_: 0.0)


def once_repeated(bedrock: Bedrock) -> Any:
    return bedrock.client(config=Config(retries={"total_max_attempts": 2, "mode": "standard"}))


@pytest.mark.usefixtures("no_backoff")
def test_at_the_first_failed_attempt_the_others_go(bedrock: Bedrock) -> None:
    raw = once_repeated(bedrock)
    together = threading.Barrier(FOLLOWERS + 1)

    def hold(attempts: int, **_: Any) -> None:
        """Keep a call after its first attempt until every other's has failed too."""
        if attempts == 1:
            together.wait(30)

    raw.meta.events.register("needs-retry.bedrock-runtime", hold)
    bedrock.emulator.fail_next(failed("ServiceUnavailableException"), times=2 * (FOLLOWERS + 1))
    client = cachepoint.wrap(raw, clock=bedrock.clock)
    with cachepoint.fan_out(timeout=300), ThreadPoolExecutor(FOLLOWERS + 1) as pool:
        calls = [
            pool.submit(copy_context().run, partial(client.converse, **question(number)))
            for number in range(FOLLOWERS + 1)
        ]
        ended = [type(call.exception(60)).__name__ for call in calls]
    assert ended == ["ServiceUnavailableException"] * (FOLLOWERS + 1)


@pytest.mark.usefixtures("no_backoff")
async def test_at_the_first_failed_attempt_the_others_go_on_a_loop(bedrock: Bedrock) -> None:
    together = asyncio.Barrier(FOLLOWERS + 1)

    async def hold(attempts: int, **_: Any) -> None:
        if attempts == 1:
            await asyncio.wait_for(together.wait(), 30)

    bedrock.emulator.fail_next(failed("ThrottlingException"), times=2 * (FOLLOWERS + 1))
    async with opened(bedrock, retries={"total_max_attempts": 2, "mode": "standard"}) as raw:
        raw.meta.events.register("needs-retry.bedrock-runtime", hold)
        client = cachepoint.wrap_async(raw, clock=bedrock.clock)
        with cachepoint.fan_out(timeout=300):
            calls = (client.converse(**question(number)) for number in range(FOLLOWERS + 1))
            ended = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(each).__name__ for each in ended] == ["ThrottlingException"] * (FOLLOWERS + 1)


def test_a_client_hears_of_its_own_leaders_only(bedrock: Bedrock) -> None:
    """An attempt that fails outside of a block releases nobody inside one."""
    client = bedrock.once()
    with cachepoint.fan_out():
        client.converse(**question())
        block = current_fan_out()
    assert block is not None
    bedrock.emulator.fail_next(failed("ServiceUnavailableException"))
    with pytest.raises(ClientError):
        client.converse(**question(1))
    assert block._troubled == {}


@pytest.mark.parametrize("timeout", [0, -1.0, float("nan"), "60", None])
def test_a_maximum_that_is_none_is_refused(timeout: Any) -> None:
    with pytest.raises(ConfigurationError, match="timeout"), cachepoint.fan_out(timeout):
        pass
