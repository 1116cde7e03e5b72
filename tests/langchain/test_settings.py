"""Settings of the model class are checked when it is made; what goes wrong afterwards fails no call."""

from __future__ import annotations

import pickle
import re
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_kit import CONNECTION, LATE_SYSTEM_MODEL, MODEL, MakeModel, question, sent, told

from cachepoint import CacheLedger, CachePolicy, MemoryStore, wrap
from cachepoint.emulator import BedrockEmulator
from cachepoint.errors import CachepointWarning, ConfigurationError
from cachepoint.langchain import (
    CacheAwareChatBedrockConverse,
    PromptCacheCallbackHandler,
    PromptCacheMiddleware,
    StableOrderTransformer,
    context_blocks,
    stable_order,
    with_exact_cost,
)

Model = CacheAwareChatBedrockConverse


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"store": {}}, "it lacks key; pass a store"),
        ({"store": MemoryStore}, "it lacks an instance"),
        ({"client": "bedrock-runtime"}, r"client\(str\): no `converse` method"),
        ({"ledger": []}, r"ledger=\[\]: pass a CacheLedger"),
        ({"clock": 1_700_000_000}, "clock=1700000000: pass a function"),
        ({"prompt_cache": {"tll": "1h"}}, r"no setting 'tll' \(did you mean 'ttl'\?\)"),
        ({"base_model_id": 3}, "base_model_id=3: give a model's id, as text"),
        ({"cache_control": "ephemeral"}, "cache_control='ephemeral': pass"),
        ({"cache_policy": CachePolicy()}, "no setting 'cache_policy' here; did you mean 'prompt_cache'"),
        ({"policy": "off"}, "did you mean 'prompt_cache'"),
        ({"promptCache": "off"}, "did you mean 'prompt_cache'"),
        ({"prompt_caching": True}, "did you mean 'prompt_cache'"),
        ({"legder": CacheLedger()}, "did you mean 'ledger'"),
        ({"split_text": False}, "is a setting of the policy; write prompt_cache={'split_text': …}"),
        ({"prices": None}, "'prices' is for cachepoint.wrap alone; give them to the PromptCacheCallbackHandler"),
        ({"base_models": {}}, "LangChain's class has base_model_id="),
    ],
)
def test_a_wrong_setting_is_refused_with_its_value_and_a_remedy(
    make_model: MakeModel, settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigurationError, match=said) as raised:
        make_model(**settings)
    assert CONNECTION["aws_secret_access_key"] not in str(raised.value)


async def test_a_setting_of_the_model_is_no_argument_of_a_call(
    make_model: MakeModel, emulator: BedrockEmulator
) -> None:
    model = make_model()
    with pytest.raises(ConfigurationError, match="'prompt_cache' is no argument of a call; make a model with prompt"):
        model.invoke("x", prompt_cache="off")
    with pytest.raises(ConfigurationError, match="'ledger' is no argument of a call"):
        [chunk async for chunk in model.bind(ledger=CacheLedger()).astream("x")]
    assert emulator.requests == []


def test_what_is_left_at_none_is_the_default(make_model: MakeModel) -> None:
    model = make_model(store=None, ledger=None, clock=None, prompt_cache=None)
    model.invoke(question())
    assert told(model.invoke(question()))["usage"]["cache_read"]
    assert model.ledger.totals().calls == 2


@pytest.mark.parametrize("name", ["CACHEPOINT_MODE", "CACHEPOINT_RULES"])
def test_a_wrong_environment_is_refused_when_a_model_is_made(
    make_model: MakeModel, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "disabled")
    with pytest.raises(ConfigurationError, match=f"{name}.*'disabled'"):
        make_model()


@pytest.mark.parametrize(
    ("given", "said"),
    [({"on_call": 5}, "on_call=5"), ({"prices": {}}, "it lacks price"), ({"clock": 5}, "clock=5"),
     ({"base_models": ["arn"]}, "pass a mapping"), ({"budget_usd": "ten"}, "budget_usd='ten'")],
)  # fmt: skip
def test_a_handler_is_checked_when_it_is_made(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        PromptCacheCallbackHandler(**given)


async def every_way(model: Model) -> None:
    """Every way to call a model."""
    assert model.invoke(question()).text
    assert list(model.stream(question()))
    assert (await model.ainvoke(question())).text
    assert [chunk async for chunk in model.astream(question())]
    assert len(model.batch([question(), question()])) == 2


def test_a_client_wrapped_under_the_kill_switch_gives_the_model_its_own_mode(
    make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CACHEPOINT_MODE", "off")
    model = make_model(client=wrap(make_model().client, CachePolicy(ttl="1h")))
    monkeypatch.delenv("CACHEPOINT_MODE")
    assert model.prompt_cache == CachePolicy(ttl="1h")
    assert told(model.invoke(question()))["mode"] == "auto"


async def test_a_wrong_environment_fails_no_call_of_a_model_that_is_made(
    make_model: MakeModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text("[[model]]\nname = 'mine'\npattern = 'mine'\n")
    monkeypatch.setenv("CACHEPOINT_RULES", str(rules))
    model = make_model()
    rules.write_text("[[model]]\nnam")
    monkeypatch.setenv("CACHEPOINT_MODE", "disabled")
    with pytest.warns(CachepointWarning) as warned:
        await every_way(model)
        rules.unlink()
        await every_way(pickle.loads(pickle.dumps(model)))
    said = sorted(str(warning.message) for warning in warned)
    assert len(said) == 2
    assert "rules.toml: no TOML" in said[0]
    assert "CACHEPOINT_MODE='disabled'" in said[1]
    assert f"Until then CACHEPOINT_RULES='{rules}' stays in force"[:100] in said[0]
    assert "Until then it counts as unset" in said[1]
    assert told(model.invoke(question()))["status"] == "hit"


def fails(*_: Any, **__: Any) -> Any:
    raise KeyError("a fault of the user's own")


class NoLedger(CacheLedger):
    add = fails


class NoStore(MemoryStore):
    visit = sent = settled = fails


PARTS: dict[str, Callable[[], dict[str, Any]]] = {
    "ledger": lambda: {"ledger": NoLedger()},
    "on_call": lambda: {"ledger": CacheLedger(on_call=fails)},
    "store": lambda: {"store": NoStore()},
    "clock": lambda: {"clock": fails},
    "no time": lambda: {"clock": lambda: float("nan")},
}


@pytest.mark.parametrize("part", PARTS)
async def test_a_part_of_the_users_that_fails_fails_no_call(
    make_model: MakeModel, part: str, faults: list[Exception]
) -> None:
    model = make_model(**PARTS[part]())
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # as under `python -W error`
        await every_way(model)
    assert {type(fault) for fault in faults} <= {KeyError}
    faults.clear()


def test_a_handlers_clock_that_fails_fails_no_call(make_model: MakeModel) -> None:
    # LangChain lets out what a handler with a budget raises.
    handler, before = PromptCacheCallbackHandler(clock=fails, budget_usd=10), time.time()
    with pytest.warns(CachepointWarning, match="the clock raised KeyError"):
        make_model().invoke(question(), config={"callbacks": [handler]})
    assert before <= handler.records[0].started <= time.time()


def test_a_warning_made_an_error_fails_no_call(make_model: MakeModel, emulator: BedrockEmulator) -> None:
    late = [HumanMessage("a"), AIMessage("b"), SystemMessage("late"), HumanMessage("c")]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert make_model(model=MODEL).invoke(late).text
    assert len(sent(emulator)) == 1


def test_tags_and_metadata_of_any_kind_fail_no_call(make_model: MakeModel) -> None:
    model = make_model(model=LATE_SYSTEM_MODEL)
    config: Any = {"tags": ["a", 5, None], "metadata": {"n": 10**5_000, 7: "x", "b": b"x", "tenant": "t"}}
    model.invoke(question(), config=config)
    assert model.ledger.records[0].tags == {"a": "", "tenant": "t"}


def test_a_function_of_the_users_that_fails_in_the_middleware_fails_no_agent(
    make_model: MakeModel, monkeypatch: pytest.MonkeyPatch, emulator: BedrockEmulator, tmp_path: Path
) -> None:
    middleware = PromptCacheMiddleware(count=fails, volatile=fails, clear_at=10, trim_at=20, summarise_at=30)
    agent = create_agent(make_model(), [], middleware=[middleware])
    monkeypatch.setenv("CACHEPOINT_RULES", str(tmp_path / "absent.toml"))
    with pytest.warns(CachepointWarning) as warned:
        asked: Any = {"messages": question()}
        state = agent.invoke(asked)
    assert len(sent(emulator)) == 1
    assert state["prompt_cache"]["calls"] == 1
    assert sorted(str(warning.message)[:40] for warning in warned) == [
        "cachepoint: CACHEPOINT_RULES names '" + str(tmp_path)[:4], "cachepoint: the middleware's `count` rai",
        "cachepoint: the middleware's `volatile` ",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "wrong",
    [{"clear_at": "10"}, {"trim_at": True}, {"summarise_at": float("inf")}, {"keep": "half"}, {"count": 5},
     {"volatile": "the time"}, {"keep_results_of": "search"}, {"keep_results_of": 5}, {"keep_results_of": [None]}],
)  # fmt: skip
def test_the_middleware_is_checked_when_it_is_made(wrong: dict[str, Any]) -> None:
    ((name, value),) = wrong.items()
    with pytest.raises(ConfigurationError, match=re.escape(f"PromptCacheMiddleware({name}={value!r}")):
        PromptCacheMiddleware(**wrong)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: StableOrderTransformer(k=cast(Any, "5")), r"k='5': give a number of documents"),
        (lambda: StableOrderTransformer(k=True), r"k=True: give a number of documents"),
        (lambda: StableOrderTransformer(key=cast(Any, "source")), r"key='source': give a function"),
        (lambda: stable_order([], order=cast(Any, "sort")), r"order='sort': use one of"),
        (lambda: context_blocks([], ttl=cast(Any, "2h")), r"ttl='2h'\): use one of"),
        (lambda: with_exact_cost(prices=cast(Any, 5)), r"prices=5: it lacks price"),
    ],
)
def test_so_is_what_orders_documents_or_tells_costs(make: Callable[[], object], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        make()
