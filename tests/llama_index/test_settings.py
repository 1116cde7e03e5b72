"""What is set, on the LLM, on a client or in a call, is what a call is made with."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from botocore.config import Config
from botocore.session import Session
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from llama_index_kit import CONNECTION, METHODS, MODEL, answer, sent, text_of
from pydantic import BaseModel

import cachepoint
from cachepoint import CacheLedger, CachePolicy, MemoryStore
from cachepoint.emulator import BedrockEmulator
from cachepoint.errors import CachepointWarning, ConfigurationError
from cachepoint.llama_index import CacheAwareBedrockConverse

ARN = "arn:aws:bedrock:us-east-1:111122223333:application-inference-profile/abc123"
WITHOUT_TEMPERATURE = "us.anthropic.claude-opus-4-8"
THINKING = {"type": "enabled", "budget_tokens": 1024}
QUESTION = ChatMessage(content="What does it say?")


class City(BaseModel):
    """A city."""

    name: str


@pytest.fixture
def llm(emulator: BedrockEmulator) -> CacheAwareBedrockConverse:
    return CacheAwareBedrockConverse(model=MODEL, client=emulator.client())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"region": "us-east-1"}, "no setting 'region' here; did you mean 'region_name'"),
        ({"mode": "off"}, "'mode' is a setting of the policy; write prompt_cache={'mode': …}"),
        ({"budget_usd": 1}, r"'budget_usd' is no model's; write PromptCacheCallbackHandler\(budget_usd=…\)"),
        ({"verbose": True}, "no setting 'verbose' here; leave it out"),
    ],
)
def test_a_name_that_upstream_does_not_know_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        CacheAwareBedrockConverse(model=MODEL, **settings)


def test_a_setting_of_the_llm_is_no_argument_of_a_call(
    llm: CacheAwareBedrockConverse, emulator: BedrockEmulator
) -> None:
    with pytest.raises(ConfigurationError, match="'prompt_cache' is no argument of a call; make a model with prompt"):
        llm.chat([QUESTION], prompt_cache="off")
    llm.additional_kwargs["store"] = MemoryStore()
    with pytest.raises(ConfigurationError, match="'store' is no argument of a call"):
        llm.stream_complete("x")
    assert emulator.requests == []


def test_a_pickle_of_another_version_is_read() -> None:
    state = CacheAwareBedrockConverse(model=MODEL, max_tokens=77, **CONNECTION).__getstate__()
    state["__dict__"]["a_setting_of_next_year"] = 5
    again = CacheAwareBedrockConverse.__new__(CacheAwareBedrockConverse)
    again.__setstate__(state)
    assert again.max_tokens == 77
    assert again.ledger.totals().calls == 0


def test_temperature_is_left_out_for_the_model_that_a_call_names(
    llm: CacheAwareBedrockConverse, emulator: BedrockEmulator
) -> None:
    llm.chat([QUESTION], model=WITHOUT_TEMPERATURE)
    llm.chat([QUESTION])
    assert ["temperature" in request["inferenceConfig"] for request in sent(emulator)] == [False, True]


def test_what_is_known_of_a_model_is_known_of_its_profile() -> None:
    with BedrockEmulator(keep_text=True, profiles={ARN: WITHOUT_TEMPERATURE}) as emulator:
        llm = CacheAwareBedrockConverse(model=ARN, base_models={ARN: WITHOUT_TEMPERATURE}, client=emulator.client())
        llm.chat([QUESTION])
        assert "temperature" not in sent(emulator)[0]["inferenceConfig"]
        assert llm.metadata.context_window == 1_000_000


@pytest.mark.parametrize(
    "option", [{"thinking": THINKING, "max_tokens": 2_000}, {"model": "anthropic.claude-opus-5-5"}]
)
def test_a_tool_is_not_forced_where_the_options_of_a_call_rule_it_out(
    option: dict[str, Any], llm: CacheAwareBedrockConverse, emulator: BedrockEmulator
) -> None:
    tool = FunctionTool.from_defaults(lambda town: town, name="find", description="Finds a town.")
    llm.chat_with_tools([tool], "Where is Paris?", tool_required=True, **option)
    assert sent(emulator)[0]["toolConfig"]["toolChoice"] == {"auto": {}}


async def test_a_streamed_object_is_required_as_a_whole_one_is(
    llm: CacheAwareBedrockConverse, emulator: BedrockEmulator
) -> None:
    prompt = PromptTemplate("hello")
    whole = llm.structured_predict(City, prompt)
    assert list(llm.stream_structured_predict(City, prompt))[-1] == whole
    assert [each async for each in await llm.astream_structured_predict(City, prompt)][-1] == whole
    assert [request["toolConfig"]["toolChoice"] for request in sent(emulator)] == [{"any": {}}] * 3


@pytest.mark.parametrize("half", [{"guardrail_identifier": "gr1"}, {"guardrail_version": "1"}])
def test_half_a_guardrail_is_no_call_without_one(half: dict[str, Any], emulator: BedrockEmulator) -> None:
    llm = CacheAwareBedrockConverse(model=MODEL, client=emulator.client(), **half)
    with pytest.raises(ConfigurationError, match="needs both guardrail_identifier and guardrail_version"):
        llm.chat([QUESTION])
    assert not emulator.requests


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"prompt_cache": {"tll": "1h"}}, r"CachePolicy has no setting 'tll' \(did you mean 'ttl'\?\)"),
        ({"cache_policy": "off"}, "no setting 'cache_policy' here; did you mean 'prompt_cache'"),
        ({"temprature": 0.5}, "did you mean 'temperature'"),
        ({"ttl": "1h"}, "'ttl' is a setting of the policy; write prompt_cache={'ttl': …}"),
        ({"rules": []}, "'rules' is for cachepoint.wrap alone; name a file in CACHEPOINT_RULES"),
        ({"store": {}}, "it lacks key; pass a store"),
        ({"ledger": "calls"}, "ledger='calls': pass a CacheLedger"),
        ({"clock": 5}, "clock=5: pass a function"),
    ],
)
def test_a_wrong_setting_is_refused_with_its_value_and_a_remedy(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        CacheAwareBedrockConverse(model=MODEL, **wrong)


@pytest.mark.parametrize("name", ["CACHEPOINT_MODE", "CACHEPOINT_RULES"])
def test_a_wrong_environment_is_refused_when_an_llm_is_made(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "disabled")
    with pytest.raises(ConfigurationError, match=f"{name}.*'disabled'"):
        CacheAwareBedrockConverse(model=MODEL)


def fails(*_: Any, **__: Any) -> Any:
    raise KeyError("a fault of the user's own")


class NoLedger(CacheLedger):
    add = fails


class NoStore(MemoryStore):
    visit = sent = settled = fails


PARTS: dict[str, Callable[[], dict[str, Any]]] = {
    "nothing": dict,
    "ledger": lambda: {"ledger": NoLedger()},
    "on_call": lambda: {"ledger": CacheLedger(on_call=fails)},
    "store": lambda: {"store": NoStore()},
    "clock": lambda: {"clock": fails},
}


@pytest.mark.parametrize("part", PARTS)
async def test_what_goes_wrong_once_an_llm_is_made_fails_no_call(
    emulator: BedrockEmulator, part: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, faults: list[Exception]
) -> None:
    llm = CacheAwareBedrockConverse(model=MODEL, client=emulator.client(), **PARTS[part]())
    monkeypatch.setenv("CACHEPOINT_MODE", "disabled")
    monkeypatch.setenv("CACHEPOINT_RULES", str(tmp_path / "absent.toml"))
    with warnings.catch_warnings():
        for kind in (CachepointWarning, DeprecationWarning):
            warnings.simplefilter("error", kind)  # as under `python -W error`, but for LlamaIndex's own
        for method in METHODS:
            assert text_of(await answer(llm, method, "hello"))
    assert {type(fault) for fault in faults} <= {KeyError}
    faults.clear()


def test_a_wrapped_clients_policy_holds_until_the_llm_has_its_own(emulator: BedrockEmulator) -> None:
    client = cachepoint.wrap(emulator.client(), CachePolicy(mode="off"))
    CacheAwareBedrockConverse(model=MODEL, client=client).complete("hello")
    CacheAwareBedrockConverse(model=MODEL, client=client, prompt_cache=CachePolicy(mode="observe")).complete("hello")
    assert [record.mode for record in client.ledger.records] == ["off", "observe"]


async def test_calls_go_to_the_ledger_of_an_asynchronous_client_already_wrapped(emulator: BedrockEmulator) -> None:
    aiobotocore = pytest.importorskip("aiobotocore.session", reason="the extra `async` is not installed")
    opening = aiobotocore.AioSession().create_client("bedrock-runtime", endpoint_url=emulator.url, **CONNECTION)
    async with cachepoint.wrap_async(opening) as client:
        await CacheAwareBedrockConverse(model=MODEL, async_client=client).achat([QUESTION])
        assert client.ledger.totals().calls == 1


async def test_asynchronous_calls_use_the_credentials_of_a_botocore_session(
    emulator: BedrockEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    session = Session()
    session.set_credentials("from-the-session", "secret")
    llm = CacheAwareBedrockConverse(
        model=MODEL, botocore_session=session, endpoint_url=emulator.url, region_name="us-east-1"
    )
    response = await llm.achat([QUESTION])
    assert response.message.content


def test_a_botocore_config_changes_what_it_names_alone(emulator: BedrockEmulator) -> None:
    config = Config(read_timeout=7)
    llm = CacheAwareBedrockConverse(
        model=MODEL, botocore_config=config, max_retries=3, endpoint_url=emulator.url, **CONNECTION
    )
    made = llm._connection().client().meta.config
    assert (made.read_timeout, made.connect_timeout, made.retries["total_max_attempts"]) == (7, 60, 4)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"client": "bedrock-runtime"}, r"client\(str\): no `converse` method"),
        ({"async_client": object()}, r"async_client\(object\): no `converse` method"),
        ({"client": CacheAwareBedrockConverse}, r"client\(.*\): no `converse` method"),
    ],
)
def test_what_is_no_client_is_refused_when_an_llm_is_made(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        CacheAwareBedrockConverse(model=MODEL, **settings)


def test_a_client_is_given_as_what_it_is(emulator: BedrockEmulator) -> None:
    with pytest.raises(ConfigurationError, match="a client that does not await; use client"):
        CacheAwareBedrockConverse(model=MODEL, async_client=emulator.client())
