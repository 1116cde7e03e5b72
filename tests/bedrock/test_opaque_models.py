"""An ARN that does not say which model answers: named by the user, asked of the control plane once, or left alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from itertools import count
from threading import Event, Thread
from typing import Any

import pytest
from botocore.exceptions import ClientError
from converse_kit import SONNET, SYSTEM, Bedrock, Json, checkpoints, text, user

import cachepoint
from cachepoint.bedrock import opaque_models as base_models
from cachepoint.emulator import BedrockEmulator
from cachepoint.errors import CachepointWarning

FOUNDATION_MODEL = "arn:aws:bedrock:us-east-1::foundation-model/anthropic.claude-sonnet-4-5-20250929-v1:0"
_numbers = count(1)


@pytest.fixture
def profile() -> str:
    """The ARN of an application inference profile that no test has asked about."""
    return f"arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/profile{next(_numbers)}"


@pytest.fixture
def bedrock(profile: str) -> Iterator[Bedrock]:
    with BedrockEmulator(keep_text=True, profiles={profile: SONNET, FOUNDATION_MODEL: SONNET}) as emulator:
        yield Bedrock(emulator, "EMULATOR")


class ControlPlane:
    """As much of a boto3 `bedrock` client as is asked, and how often it was."""

    def __init__(self, answer: Json | Exception) -> None:
        self.asked: list[str] = []
        self.answers = Event()
        self.answers.set()
        self.answer = answer

    def get_inference_profile(self, *, inferenceProfileIdentifier: str) -> Json:  # noqa: N803 - boto3's name
        return self._answered(inferenceProfileIdentifier)

    def get_provisioned_model_throughput(self, *, provisionedModelId: str) -> Json:  # noqa: N803 - boto3's name
        return self._answered(provisionedModelId)

    def _answered(self, arn: str) -> Json:
        self.asked.append(arn)
        assert self.answers.wait(30)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def answered() -> None:
    """Wait until the control plane was heard, which no call does."""
    for asking in [*base_models._asking.values()]:
        if isinstance(asking.running, Thread):
            asking.running.join(30)


def until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def ask(client: Any, model: str) -> Json:
    response: Json = client.converse(modelId=model, system=[text(SYSTEM)], messages=[user("Why?")])
    return response


def test_nobody_says_so_nothing_is_placed_and_one_warning_says_what_to_pass(bedrock: Bedrock, profile: str) -> None:
    client = bedrock.wrapped()
    with pytest.warns(CachepointWarning, match=r"base_models=.*control_client") as told:
        responses = [ask(client, profile) for _ in range(3)]
    assert len(told) == 1
    assert [checkpoints(body) for body in bedrock.bodies] == [[], [], []]
    assert responses[0]["promptCache"]["cost"] is None
    totals = client.ledger.totals()
    assert (totals.calls, totals.unpriced) == (3, 3)
    assert totals.usage.input > 6000


def test_the_user_names_the_base_model(bedrock: Bedrock, profile: str) -> None:
    client = bedrock.wrapped(base_models={profile: SONNET})
    told = ask(client, profile)["promptCache"]
    assert told["status"] == "written"
    assert float(told["cost"]["usd"]) > 0
    (record,) = client.ledger.records
    assert (record.model, record.base_model) == (profile, SONNET)
    assert set(client.ledger.by("model")) == {SONNET}


def test_the_control_plane_is_asked_once_and_off_the_path(bedrock: Bedrock, profile: str) -> None:
    control = ControlPlane({"models": [{"modelArn": FOUNDATION_MODEL}]})
    control.answers.clear()
    client = bedrock.wrapped(control_client=control)
    first = [ask(client, profile)["promptCache"]["status"] for _ in range(2)]
    assert first == ["uncached", "uncached"]  # nobody waits for an answer
    control.answers.set()
    answered()
    later = [ask(client, profile)["promptCache"]["status"] for _ in range(2)]
    assert later[0] == "written"
    assert later[1] in ("hit", "extended")
    assert control.asked == [profile]
    assert client.ledger.records[-1].base_model == SONNET.removeprefix("us.")  # an id, as `base_models` has them


def test_a_control_plane_that_hangs_holds_a_few_threads_only(bedrock: Bedrock, profile: str) -> None:
    control = ControlPlane({"models": [{"modelArn": FOUNDATION_MODEL}]})
    control.answers.clear()
    client = bedrock.wrapped(control_client=control, prices=None)
    for number in range(base_models.MOST_ASKED_AT_ONCE + 5):
        with suppress(ClientError):  # the emulator knows one profile
            ask(client, f"{profile}-{number}")
    assert len(base_models._asking) == base_models.MOST_ASKED_AT_ONCE
    control.answers.set()
    answered()
    assert len(control.asked) == base_models.MOST_ASKED_AT_ONCE


def test_what_the_user_named_is_not_asked(bedrock: Bedrock, profile: str) -> None:
    control = ControlPlane({"models": []})
    ask(bedrock.wrapped(control_client=control, base_models={profile: SONNET}), profile)
    assert control.asked == []


DENIED = ClientError({"Error": {"Code": "AccessDeniedException", "Message": "no"}}, "GetInferenceProfile")


def test_a_control_plane_that_failed_is_asked_again_after_a_while(
    bedrock: Bedrock, profile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    control = ControlPlane(DENIED)
    client = bedrock.wrapped(control_client=control)
    ask(client, profile)
    answered()
    with pytest.warns(CachepointWarning, match="base_models"):
        ask(client, profile)
    control.answer = {"models": [{"modelArn": FOUNDATION_MODEL}]}
    assert ask(client, profile)["promptCache"]["status"] == "uncached"
    monkeypatch.setattr(base_models, "ASK_AGAIN_SECONDS", 0.0)
    ask(client, profile)
    answered()
    assert "uncached" not in [ask(client, profile)["promptCache"]["status"] for _ in range(2)]
    assert control.asked == [profile] * 2


def test_a_control_plane_without_permission_is_asked_once_and_told(bedrock: Bedrock, profile: str) -> None:
    control = ControlPlane(DENIED)
    client = bedrock.wrapped(control_client=control)
    with pytest.warns(CachepointWarning, match=r"GetInferenceProfile failed with AccessDeniedException\), so") as told:
        for _ in range(3):
            ask(client, profile)
            answered()
    assert (len(told), len(control.asked)) == (1, 1)


def test_a_provisioned_model_says_its_foundation_model(profile: str) -> None:
    arn = profile.replace("application-inference-profile", "provisioned-model")
    with BedrockEmulator(keep_text=True, profiles={arn: SONNET}) as emulator:
        control = ControlPlane({"modelArn": "arn:of:a:custom:model", "foundationModelArn": FOUNDATION_MODEL})
        client = cachepoint.wrap(emulator.client(), control_client=control)
        first = ask(client, arn)["promptCache"]
        answered()
        told = ask(client, arn)["promptCache"]
    assert first["held"][0]["reason"] == "unknown_model"
    assert told["status"] == "written"
    assert control.asked == [arn]


@pytest.mark.parametrize("model", [FOUNDATION_MODEL, SONNET, SONNET.removeprefix("us.")])
def test_an_id_that_says_its_model_is_never_asked(bedrock: Bedrock, model: str) -> None:
    control = ControlPlane({"models": []})
    assert ask(bedrock.wrapped(control_client=control), model)["promptCache"]["status"] == "written"
    assert control.asked == []


# -- a control plane that hangs --------------------------------------------------------------------------


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[ControlPlane]:
    """A control plane that does not answer until its test is over; it is given up at once."""
    monkeypatch.setattr(base_models, "GIVE_UP_SECONDS", 0.0)
    control = ControlPlane({"models": [{"modelArn": FOUNDATION_MODEL}]})
    control.answers.clear()
    yield control
    control.answers.set()
    answered()


def test_a_control_plane_that_hangs_is_given_up_and_told(bedrock: Bedrock, profile: str, hanging: ControlPlane) -> None:
    client = bedrock.wrapped(control_client=hanging)
    ask(client, profile)
    with pytest.warns(CachepointWarning, match=r"\(GetInferenceProfile is not answered\), so it places no"):
        assert ask(client, profile)["promptCache"]["status"] == "uncached"
    assert hanging.asked == [profile]


def test_a_control_plane_that_hangs_is_not_asked_of_other_models(
    bedrock: Bedrock, profile: str, hanging: ControlPlane
) -> None:
    client = bedrock.wrapped(control_client=hanging)
    ask(client, profile)
    with pytest.warns(CachepointWarning, match="base_models"), suppress(ClientError):  # the emulator knows one profile
        ask(client, f"{profile}-2")
    assert hanging.asked == [profile]


def test_while_one_control_plane_hangs_another_is_asked(bedrock: Bedrock, profile: str, hanging: ControlPlane) -> None:
    for number in range(base_models.MOST_ASKED_AT_ONCE + 2):  # each through a client of its own, as gateways have them
        base_models._ask(f"{profile}-{number}", Through(hanging))
    assert len(hanging.asked) == base_models.MOST_ASKED_AT_ONCE + 2
    other = ControlPlane({"models": [{"modelArn": FOUNDATION_MODEL}]})
    client = bedrock.wrapped(control_client=other)
    ask(client, profile)
    until(lambda: profile not in base_models._asking)
    assert ask(client, profile)["promptCache"]["status"] == "written"


def test_control_planes_that_hang_hold_so_many_threads(profile: str, hanging: ControlPlane) -> None:
    for number in range(base_models.MOST_HELD + 5):
        base_models._ask(f"{profile}-{number}", Through(hanging))
    assert len(hanging.asked) == base_models.MOST_HELD


def test_an_answer_that_comes_late_is_taken(bedrock: Bedrock, profile: str, hanging: ControlPlane) -> None:
    client = bedrock.wrapped(control_client=hanging)
    ask(client, profile)
    with pytest.warns(CachepointWarning, match="base_models"):
        ask(client, profile)
    hanging.answers.set()
    answered()
    assert ask(client, profile)["promptCache"]["status"] == "written"


class Through:
    """A client of a control plane, one of several."""

    def __init__(self, control: ControlPlane) -> None:
        self.get_inference_profile = control.get_inference_profile


# -- clients that have to be awaited ---------------------------------------------------------------------


class AsyncControlPlane:
    """As much of an aiobotocore `bedrock` client as is asked; it takes a step of the loop, or for ever."""

    def __init__(self, *, hangs: bool = False) -> None:
        self.asked: list[str] = []
        self._hangs = hangs

    async def get_inference_profile(self, *, inferenceProfileIdentifier: str) -> Json:  # noqa: N803 - boto3's name
        self.asked.append(inferenceProfileIdentifier)
        await asyncio.sleep(3600 if self._hangs else 0)
        return {"models": [{"modelArn": FOUNDATION_MODEL}]}


@pytest.fixture
async def raw(bedrock: Bedrock) -> AsyncIterator[Any]:
    """An aiobotocore client of the test's account."""
    session = pytest.importorskip("aiobotocore.session", reason="aiobotocore is not installed").get_session()
    async with session.create_client(
        "bedrock-runtime",
        region_name="us-east-1",
        endpoint_url=bedrock.emulator.url,
        aws_access_key_id=bedrock.account,
        aws_secret_access_key="emulator",
    ) as client:
        yield client


async def ask_async(client: Any, model: str) -> str:
    response = await client.converse(modelId=model, system=[text(SYSTEM)], messages=[user("Why?")])
    return str(response["promptCache"]["status"])


async def test_a_control_plane_that_is_awaited_is_asked_beside_the_call(
    bedrock: Bedrock, profile: str, raw: Any
) -> None:
    control = AsyncControlPlane()
    client = cachepoint.wrap_async(raw, clock=bedrock.clock, control_client=control)
    told = [await ask_async(client, profile) for _ in range(3)]
    assert told[:2] == ["uncached", "written"]
    assert told[2] in ("hit", "extended")
    assert control.asked == [profile]


async def test_an_awaited_control_plane_that_hangs_is_given_up(
    bedrock: Bedrock, profile: str, raw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base_models, "GIVE_UP_SECONDS", 0.01)
    control = AsyncControlPlane(hangs=True)
    client = cachepoint.wrap_async(raw, clock=bedrock.clock, control_client=control)
    await ask_async(client, profile)
    asking = base_models._asking.get(profile)
    if asking is not None and isinstance(asking.running, asyncio.Task):
        await asyncio.wait_for(asking.running, 30)
    with pytest.warns(CachepointWarning, match="base_models"):
        await ask_async(client, profile)
    assert control.asked == [profile]


async def test_a_control_plane_of_boto3s_is_not_asked_on_the_loop(bedrock: Bedrock, profile: str, raw: Any) -> None:
    control = ControlPlane({"models": [{"modelArn": FOUNDATION_MODEL}]})
    control.answers.clear()
    client = cachepoint.wrap_async(raw, clock=bedrock.clock, control_client=control)
    assert await asyncio.wait_for(ask_async(client, profile), 20) == "uncached"  # it would wait 30 seconds
    control.answers.set()
    await asyncio.to_thread(answered)
    assert await ask_async(client, profile) == "written"


def test_a_client_that_has_to_be_awaited_is_asked_where_no_loop_runs(bedrock: Bedrock, profile: str) -> None:
    client = bedrock.wrapped(control_client=AsyncControlPlane())
    ask(client, profile)
    answered()
    assert ask(client, profile)["promptCache"]["status"] == "written"


async def test_aiobotocores_control_client_is_known_for_one() -> None:
    session = pytest.importorskip("aiobotocore.session", reason="aiobotocore is not installed").get_session()
    async with session.create_client(
        "bedrock", region_name="us-east-1", aws_access_key_id="none", aws_secret_access_key="none"
    ) as control:
        assert base_models._is_asynchronous(control)


@pytest.mark.filterwarnings("error")
def test_in_mode_off_nobody_is_asked(bedrock: Bedrock, profile: str) -> None:
    control = ControlPlane({"models": [{"modelArn": FOUNDATION_MODEL}]})
    client = bedrock.wrapped(cachepoint.CachePolicy(mode="off"), control_client=control)
    ask(client, profile)
    answered()
    assert control.asked == []
