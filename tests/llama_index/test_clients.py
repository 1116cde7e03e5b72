"""LLMs share what is dear to make, a boto3 session, and nothing that another's settings or credentials are in."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.retries.standard import ExponentialBackoff
from botocore.session import Session
from fork_kit import forked, join, needs_fork, warned_of_threads
from llama_index.core.base.llms.types import ChatMessage
from llama_index_kit import CONNECTION, LONG, MODEL

import cachepoint
from cachepoint.emulator import BedrockEmulator, failed
from cachepoint.llama_index import CacheAwareBedrockConverse
from cachepoint.llama_index import _clients as clients


@pytest.fixture
def sessions(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The boto3 sessions that are made."""
    made: list[Any] = []

    class Counted(boto3.Session):
        def __init__(self, **settings: Any) -> None:
            made.append(self)
            super().__init__(**{**settings, "profile_name": None})  # there is no file with profiles

    monkeypatch.setattr(clients, "_SESSIONS", clients._Sessions())
    monkeypatch.setattr(boto3, "Session", Counted)
    return made


def client_of(**settings: Any) -> Any:
    llm = CacheAwareBedrockConverse(model=MODEL, **{**CONNECTION, **settings})
    return llm._clients.client(llm._connection())


def test_llms_share_a_session_and_have_a_client_each(sessions: list[Any]) -> None:
    made = [client_of(timeout=seconds) for seconds in (10.0, 10.0, 20.0)]
    assert len(sessions) == 1
    assert len(set(map(id, made))) == 3


def test_threads_share_a_session(sessions: list[Any]) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(lambda _: client_of(), range(32)))) == 32
    assert len(sessions) == 1


@pytest.mark.parametrize(
    "other",
    [
        {"region_name": "eu-west-1"}, {"profile_name": "work"}, {"aws_access_key_id": "ANOTHER"},
        {"aws_secret_access_key": "another"}, {"aws_session_token": "token"}, {"botocore_session": Session()},
    ],
)  # fmt: skip
def test_other_settings_of_a_session_make_another(other: dict[str, Any], sessions: list[Any]) -> None:
    client_of()
    client_of(**other)
    client_of()
    assert len(sessions) == 2


def test_credentials_that_change_around_the_program_are_for_llms_made_later(
    sessions: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "credentials"
    client_of()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "RENEWED")
    client_of()
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    client_of()
    file.write_text("[default]\n")
    client_of()
    client_of()
    assert len(sessions) == 4


@needs_fork
@warned_of_threads
def test_a_child_process_has_sessions_and_clients_of_its_own(sessions: list[Any]) -> None:
    """Its parent's are connected, and another thread may be making one, for which no fork waits."""
    llm = CacheAwareBedrockConverse(model=MODEL, **CONNECTION)
    made = llm._clients.client(llm._connection())
    making, done = threading.Event(), threading.Event()

    def make(_: Any) -> None:
        making.set()
        done.wait(60)

    thread = threading.Thread(target=clients._SESSIONS.use, args=(llm._connection(), make))
    thread.start()
    making.wait(60)
    began = time.monotonic()

    def child() -> None:
        assert llm._clients.client(llm._connection()) is not made
        assert len(sessions) == 2

    children = [forked(child)]
    took = time.monotonic() - began
    done.set()
    thread.join(60)
    assert join(*children) == ["well"]
    assert took < 4
    assert llm._clients.client(llm._connection()) is made


def test_sessions_are_forgotten_in_the_end(sessions: list[Any]) -> None:
    for number in range(clients._Sessions.KEPT + 1):
        client_of(aws_access_key_id=f"KEY{number}")
    client_of(aws_access_key_id=f"KEY{clients._Sessions.KEPT}")
    assert len(sessions) == clients._Sessions.KEPT + 1
    client_of(aws_access_key_id="KEY0")
    assert len(sessions) == clients._Sessions.KEPT + 2


async def test_in_an_outage_chats_on_one_prefix_do_not_wait_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every chat's first attempt fails before any chat's second, which is held here until the last has failed."""
    monkeypatch.setattr(ExponentialBackoff, "delay_amount", lambda *_: 0.0)
    together = threading.Barrier(8)

    def hold(attempts: int, **_: Any) -> None:
        if attempts == 1:
            together.wait(30)

    with BedrockEmulator() as bedrock:
        bedrock.fail_next(failed("ServiceUnavailableException"), times=16)
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(8))
        client = bedrock.client(config=Config(retries={"total_max_attempts": 2, "mode": "standard"}))
        client.meta.events.register("needs-retry.bedrock-runtime", hold)
        llm = CacheAwareBedrockConverse(model=MODEL, client=client, system_prompt=LONG)
        with cachepoint.fan_out(timeout=300):
            chats = (llm.achat([ChatMessage(content=f"Question {number}?")]) for number in range(8))
            ended = await asyncio.gather(*chats, return_exceptions=True)
    assert [type(each).__name__ for each in ended] == ["ServiceUnavailableException"] * 8
