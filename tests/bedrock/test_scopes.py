"""Where a client's calls belong: told from any client, without asking for credentials and without keeping a key."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

import boto3
import botocore.session
import pytest
from botocore import UNSIGNED
from botocore.config import Config
from botocore.credentials import Credentials, DeferredRefreshableCredentials, RefreshableCredentials
from converse_kit import SONNET, Bedrock, question

import cachepoint
from cachepoint.bedrock.scopes import region_of, scope_of

KEY = "ASIAIOSFODNN7EXAMPLE"
ACCOUNT = "581039954779"
"""What the key holds: the forty bits after the first of base32 IOSFODNN7EXAMPLE."""
NOW = datetime.now(UTC)


def account_in(client: Any) -> str:
    return scope_of(client, SONNET, None, "converse").name.partition("|")[0]


def renew() -> NoReturn:
    pytest.fail("credentials were renewed to tell whose they are")


async def renew_async() -> NoReturn:
    pytest.fail("credentials were renewed to tell whose they are")


def client_with(credentials: Any, **settings: Any) -> Any:
    session: Any = botocore.session.Session()
    session._credentials = credentials
    return session.create_client("bedrock-runtime", region_name="us-east-1", **settings)


def test_renewable_credentials_are_not_renewed_to_tell_the_account() -> None:
    """They are past their time, so that any reading of `access_key` renews them."""
    client = client_with(RefreshableCredentials(KEY, "secret", "token", NOW - timedelta(hours=1), renew, "iam-role"))
    assert account_in(client) == ACCOUNT


def test_credentials_not_fetched_yet_are_not_fetched() -> None:
    assert account_in(client_with(DeferredRefreshableCredentials(renew, "assume-role"))) == ""


def test_an_account_that_the_credentials_name_is_taken() -> None:
    """As those of SSO and of AssumeRole do (botocore's `account_id`)."""
    assert account_in(client_with(Credentials("sso-key", "secret", account_id="123456789012"))) == "123456789012"


async def test_aiobotocores_renewable_credentials_cache(bedrock: Bedrock) -> None:
    """Those of IMDS, ECS, SSO, AssumeRole and IRSA, whose `access_key` raises NotImplementedError."""
    credentials = pytest.importorskip("aiobotocore.credentials", reason="aiobotocore is not installed")
    from aiobotocore.session import AioSession  # type: ignore[import-untyped]

    session = AioSession()
    session._credentials = credentials.AioRefreshableCredentials(
        KEY, "secret", "token", NOW + timedelta(hours=5), renew_async, "iam-role"
    )
    opening = session.create_client("bedrock-runtime", region_name="us-east-1", endpoint_url=bedrock.emulator.url)
    async with opening as raw:
        client = cachepoint.wrap_async(raw, clock=bedrock.clock)
        told = [(await client.converse(**question(number)))["promptCache"]["status"] for number in range(2)]
        assert account_in(raw) == ACCOUNT
    assert told == ["written", "hit"]


async def test_aiobotocores_credentials_not_fetched_yet_are_not_fetched() -> None:
    credentials = pytest.importorskip("aiobotocore.credentials", reason="aiobotocore is not installed")
    from aiobotocore.session import AioSession

    session = AioSession()
    session._credentials = credentials.AioDeferredRefreshableCredentials(renew_async, "assume-role")
    async with session.create_client("bedrock-runtime", region_name="us-east-1") as client:
        assert account_in(client) == ""


def test_a_client_that_signs_nothing_has_no_account() -> None:
    config = Config(signature_version=UNSIGNED)
    assert account_in(boto3.client("bedrock-runtime", region_name="us-east-1", config=config)) == ""


def test_an_api_key_stands_for_its_account_as_a_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "bedrock-api-key-secret")
    client = boto3.session.Session().client("bedrock-runtime", region_name="us-east-1")
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "another-api-key-secret")
    another = boto3.session.Session().client("bedrock-runtime", region_name="us-east-1")
    assert len(account_in(client)) == 16
    assert account_in(client) != account_in(another)
    assert "secret" not in account_in(client)


@pytest.mark.parametrize(
    "key", ["EXAMPLEKEY", "AKIA0189!?8901234567", "AKIAÄÖÜÄÖÜÄÖÜÄÖÜÄÖÜÄ", "minioadmin", "AKIA", "\ud800"]
)
def test_a_key_id_that_tells_no_account_is_not_kept_as_it_is(key: str) -> None:
    account = account_in(client_with(Credentials(key, "secret")))
    assert len(account) == 16
    assert key not in account
    assert account_in(client_with(Credentials(key, "secret"))) == account


def test_a_password_in_an_endpoint_is_not_kept() -> None:
    client = client_with(Credentials(KEY, "secret"), endpoint_url="https://me:hunter2@gateway.test")
    assert "hunter2" not in scope_of(client, SONNET, None, "converse").name


class Hostile:
    """A client or a part of one whose every attribute raises."""

    def __init__(self, error: Exception) -> None:
        object.__setattr__(self, "_error", error)

    def __getattribute__(self, name: str) -> Any:
        raise object.__getattribute__(self, "_error")


class Answering:
    """A client that answers, with one attribute that raises."""

    def __init__(self, client: Any, hostile: str, error: Exception) -> None:
        self._inner, self._hostile, self._raised = client, hostile, error

    def converse(self, **request: Any) -> Any:
        return self._inner.converse(**request)

    def __getattr__(self, name: str) -> Any:
        if name == self._hostile:
            raise self._raised
        return getattr(self._inner, name)


ERRORS = [NotImplementedError("await it"), RuntimeError("no loop"), AttributeError("none"), ValueError("expired")]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_whatever_an_attribute_raises_costs_its_part_of_the_scope_only(bedrock: Bedrock, error: Exception) -> None:
    for hostile in ("meta", "_request_signer"):
        raw = Answering(bedrock.client(), hostile, error)
        client = cachepoint.wrap(raw, clock=bedrock.clock)
        told = [client.converse(**question(number))["promptCache"]["status"] for number in range(2)]
        assert told[1] == "hit"
    assert account_in(Hostile(error)) == ""
    assert region_of(Hostile(error)) is None


def test_credentials_of_an_unknown_kind_have_no_account() -> None:
    for part in (object(), None, Hostile(RuntimeError()), 7, {"access_key": KEY}):
        client = client_with(Credentials(KEY, "secret"))
        client._request_signer._credentials = part
        assert account_in(client) == ""
        client._request_signer = part
        assert account_in(client) == ""
