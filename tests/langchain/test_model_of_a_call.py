"""A call may name another model; what is planned, billed and reported is that model's."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_kit import LONG, MODEL, NOVA, MakeModel, question, sent, told

from cachepoint.emulator import BedrockEmulator
from cachepoint.langchain import CacheAwareChatBedrockConverse

Model = CacheAwareChatBedrockConverse
PROFILE = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc123"


@pytest.mark.parametrize("name", ["model", "model_id"])
@pytest.mark.parametrize("streamed", [False, True])
def test_a_call_on_another_model(name: str, streamed: bool, model: Model, emulator: BedrockEmulator) -> None:
    named: Any = {name: NOVA}
    if streamed:
        chunks = list(model.stream(question(), **named))
        metadata = next(chunk.response_metadata for chunk in chunks if "prompt_cache" in chunk.response_metadata)
    else:
        metadata = model.invoke(question(), **named).response_metadata

    assert metadata["model_name"] == NOVA
    assert emulator.requests[-1].model_id == NOVA
    record = model.ledger.records[-1]
    assert record.model == NOVA
    assert record.cost is not None
    assert record.cost.usd == emulator.bill().total
    assert model.model_id == MODEL


def test_a_bound_model_name(model: Model, emulator: BedrockEmulator) -> None:
    answer = model.bind(model=NOVA).invoke(question())

    assert answer.response_metadata["model_name"] == NOVA


def test_what_the_parent_derives_from_the_id_follows(make_model: MakeModel, emulator: BedrockEmulator) -> None:
    """Temperature is dropped for models that refuse it, by the profile of the model really called."""
    model = make_model(temperature=0.5)

    model.invoke("Hello")
    with pytest.warns(UserWarning, match="does not support temperature"):
        model.invoke("Hello", model="us.anthropic.claude-opus-4-8")

    first, second = sent(emulator)
    assert first["inferenceConfig"]["temperature"] == 0.5
    assert "temperature" not in second["inferenceConfig"]


def test_tracers_are_told_the_model_really_called(model: Model) -> None:
    seen: list[str] = []

    class Tracer(BaseCallbackHandler):
        def on_chat_model_start(self, *args: Any, metadata: dict[str, Any] | None = None, **kwargs: Any) -> None:
            seen.append((metadata or {})["ls_model_name"])

    calls: list[dict[str, Any]] = [{}, {"model": NOVA}, {"model_id": NOVA}]
    for named in calls:
        model.invoke("Hello", config={"callbacks": [Tracer()]}, **named)

    assert seen == [MODEL, NOVA, NOVA]


def test_a_profile_is_planned_and_priced_by_its_base_model() -> None:
    with BedrockEmulator(profiles={PROFILE: MODEL}) as emulator:
        from langchain_kit import connected

        model = connected(emulator, model=PROFILE, provider="anthropic", base_model=MODEL)

        answer = model.invoke(question())

    assert told(answer)["status"] == "written"
    assert told(answer)["cost"] is not None
    assert answer.response_metadata["model_name"] == MODEL
    assert answer.response_metadata["inference_profile_id"] == PROFILE
    assert LONG[:30] not in repr(model.ledger.records)


@pytest.mark.parametrize("name", ["fable-5-1", "fable-5-2", "mythos-5-1", "mythos-5-2", "opus-5-5", "sonnet-5-5"])
def test_structured_output_forces_no_tool_on_a_model_that_refuses_it(
    name: str, make_model: MakeModel, emulator: BedrockEmulator
) -> None:
    schema = {"title": "City", "type": "object", "properties": {"name": {"type": "string"}}}
    make_model(model=f"us.anthropic.claude-{name}").with_structured_output(schema).invoke("Where?")

    assert "toolChoice" not in sent(emulator)[-1]["toolConfig"]


def test_a_users_own_tool_choices_win_over_the_models(make_model: MakeModel) -> None:
    model = make_model(model="us.anthropic.claude-fable-5-2", supports_tool_choice_values=("auto", "any"))

    assert model.supports_tool_choice_values == ("auto", "any")
