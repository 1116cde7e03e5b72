"""The model survives what programs do to models: copies, pickles, serialisation, binding, LangChain's own cache."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.load import dumpd, dumps, load, loads
from langchain_core.tools import tool
from langchain_kit import CONNECTION, MODEL, MakeModel, question, sent, told
from pydantic import BaseModel

from cachepoint import CacheLedger, CachePolicy, MemoryStore
from cachepoint.emulator import BedrockEmulator
from cachepoint.errors import ConfigurationError
from cachepoint.langchain import CacheAwareChatBedrockConverse

Model = CacheAwareChatBedrockConverse
POLICY = CachePolicy(ttl="1h", max_checkpoints=3)
ALLOWED: dict[str, Any] = {
    "allowed_objects": [Model],
    "valid_namespaces": ["cachepoint"],
    "secrets_map": {name.upper(): value for name, value in CONNECTION.items()},
}


@tool
def look_up(word: str) -> str:
    """Look a word up."""
    return word


class Word(BaseModel):
    """A word."""

    text: str


@pytest.fixture
def model(make_model: MakeModel, emulator: BedrockEmulator) -> Model:
    return make_model(prompt_cache=POLICY, ledger=CacheLedger(), store=MemoryStore(), clock=emulator.clock)


# -- what it is made with -----------------------------------------------------------------------------


def test_it_caches_by_default(make_model: MakeModel) -> None:
    made = make_model()

    assert made.prompt_cache == CachePolicy()
    assert isinstance(made.ledger, CacheLedger)
    assert made.ledger is not make_model().ledger


@pytest.mark.parametrize("short", [{"ttl": "1h"}, "1h"])
def test_a_policy_may_be_written_in_short(short: Any, make_model: MakeModel) -> None:
    assert make_model(prompt_cache=short).prompt_cache == CachePolicy(ttl="1h")


@pytest.mark.parametrize("wrong", [{"tll": "1h"}, {"ttl": "2h"}, {"mode": "on"}, "on"])
def test_a_wrong_policy_is_refused_when_the_model_is_made(wrong: Any, make_model: MakeModel) -> None:
    # Not pydantic's error, which shows all that the model was made with.
    with pytest.raises(ConfigurationError, match=r"'tll'|'2h'|'on'"):
        make_model(prompt_cache=wrong)


# -- copies -------------------------------------------------------------------------------------------

COPIES: dict[str, Callable[[Model], Model]] = {
    "model_copy": lambda model: model.model_copy(),
    "deep model_copy": lambda model: model.model_copy(deep=True),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}


@pytest.mark.parametrize("way", COPIES)
def test_a_copy_shares_what_belongs_to_the_process(way: str, model: Model) -> None:
    copied = COPIES[way](model)

    assert copied is not model
    assert copied.prompt_cache == POLICY
    for name in ("client", "ledger", "store", "clock"):
        assert getattr(copied, name) is getattr(model, name)
    copied.invoke(question())
    assert told(model.invoke(question()))["usage"]["cache_read"] > 1024
    assert model.ledger.totals().calls == 2


def test_a_changed_copy_is_serialised_with_its_own_settings(model: Model) -> None:
    """langchain-core keys its LLM cache with what it serialised, and copies that along."""
    model.invoke("Hello")

    changed = model.model_copy(update={"temperature": 0.5})

    assert changed._get_llm_string() != model._get_llm_string()


# -- pickles and LangChain's serialisation ------------------------------------------------------------


def test_a_pickle_works_and_starts_afresh(model: Model, emulator: BedrockEmulator) -> None:
    model.invoke(question())

    thawed = pickle.loads(pickle.dumps(model))

    assert thawed.prompt_cache == POLICY
    assert thawed.ledger.totals().calls == 0
    assert thawed.store is not model.store
    assert told(thawed.invoke(question("And now?")))["usage"]["cache_read"] > 1024


def test_a_pickle_keeps_the_region_of_a_client_that_was_given(make_model: MakeModel, emulator: BedrockEmulator) -> None:
    model = make_model(client=emulator.client(region="eu-west-1"), region_name=None)

    assert pickle.loads(pickle.dumps(model)).client.meta.region_name == "eu-west-1"


def test_bound_and_composed_models_pickle(model: Model) -> None:
    thawed = pickle.loads(pickle.dumps(model.bind_tools([{"name": "f", "input_schema": {"type": "object"}}])))

    assert told(thawed.invoke(question()))["status"] == "written"


def test_what_dumps_writes_loads_reads(model: Model) -> None:
    text = dumps(model)

    with pytest.warns(match="in beta"):
        loaded = loads(text, **ALLOWED)

    assert isinstance(loaded, Model)
    assert loaded.prompt_cache == POLICY
    assert loaded.ledger.totals().calls == 0
    assert told(loaded.invoke(question()))["status"] == "written"
    assert "emulator" not in text.replace(model.endpoint_url or "", "")


def test_what_is_dumped_is_plain_and_complete(model: Model) -> None:
    dumped = dumpd(model)

    assert dumped["id"] == ["cachepoint", "langchain", "CacheAwareChatBedrockConverse"]
    assert dumped["kwargs"]["prompt_cache"] == POLICY.to_dict()
    assert not {"ledger", "store", "clock", "client"} & set(dumped["kwargs"])
    with pytest.warns(match="in beta"):
        assert load(dumped, **ALLOWED).model_dump(mode="json") == model.model_dump(mode="json")


def test_pydantic_dumps_the_policy_as_a_dict(model: Model) -> None:
    fields = model.model_dump()

    assert fields["prompt_cache"] == POLICY.to_dict()
    assert not {"ledger", "store", "clock"} & set(fields)


# -- binding ------------------------------------------------------------------------------------------

BINDINGS: dict[str, Callable[[Model], Any]] = {
    "bind": lambda model: model.bind(stop=["END"]),
    "bind_tools": lambda model: model.bind_tools([look_up]),
    "structured output": lambda model: model.with_structured_output(Word),
    "retry": lambda model: model.with_retry(),
    "fallbacks": lambda model: model.with_fallbacks([model]),
    "config": lambda model: model.with_config(tags=["a"]),
    "configurable": lambda model: model.configurable_fields(),
}


@pytest.mark.parametrize("way", BINDINGS)
def test_a_bound_model_keeps_policy_and_ledger(way: str, model: Model, emulator: BedrockEmulator) -> None:
    BINDINGS[way](model).invoke(question())

    assert [point["ttl"] for point in sent(emulator)[-1]["system"][1:] for point in point.values()] == ["1h"]
    assert model.ledger.totals().calls == 1


# -- LangChain's own cache ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "other", [{"temperature": 0.9}, {"system": ["Answer in French."]}, {"model": "us.amazon.nova-lite-v1:0"}]
)
def test_models_with_other_settings_do_not_share_cached_answers(
    other: dict[str, Any], make_model: MakeModel, emulator: BedrockEmulator
) -> None:
    cache = InMemoryCache()
    one, two = make_model(cache=cache), make_model(cache=cache, **other)

    for each in (one, one, two):
        each.invoke("Hello")

    assert len(emulator.requests) == 2
    assert one._identifying_params != two._identifying_params


def test_identifying_parameters_hold_no_secret(make_model: MakeModel) -> None:
    identifying = make_model(temperature=0.1)._identifying_params

    assert identifying["model_id"] == MODEL
    assert identifying["temperature"] == 0.1
    assert CONNECTION["aws_secret_access_key"] not in repr(identifying).replace("emulator.", "")
