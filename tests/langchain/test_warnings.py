"""Whatever LangChain puts between, a warning is at the user's own line."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_core.runnables import RunnableLambda
from langchain_kit import MODEL, MakeModel, question

from cachepoint.emulator import BedrockEmulator
from cachepoint.errors import CachepointWarning

pytestmark = pytest.mark.usefixtures("nothing_warned_of")

GUARDED: dict[str, Any] = {
    "guardrail_config": {"guardrailIdentifier": "g", "guardrailVersion": "1"}, "guard_last_turn_only": True,
}  # fmt: skip
"""With these the adapter warns of a late system message, which goes to the front."""
LATE = [HumanMessage("Hello"), SystemMessage("Be brief.")]


def invoke(model: Any, messages: Any) -> None:
    model.invoke(messages)


def stream(model: Any, messages: Any) -> None:
    list(model.stream(messages))


def batch(model: Any, messages: Any) -> None:
    model.batch([messages, messages])


def chain(model: Any, messages: Any) -> None:
    (RunnableLambda(lambda _: messages) | model).invoke("")


async def ainvoke(model: Any, messages: Any) -> None:
    await model.ainvoke(messages)


async def astream(model: Any, messages: Any) -> None:
    async for _ in model.astream(messages):
        pass


async def abatch(model: Any, messages: Any) -> None:
    await model.abatch([messages, messages])


def places(warned: pytest.WarningsRecorder, call: Callable[..., Any]) -> set[tuple[str, bool]]:
    """The files, and whether the line is in the function that calls."""
    start = call.__code__.co_firstlineno
    return {(warning.filename, warning.lineno in range(start, start + 4)) for warning in warned}


@pytest.mark.parametrize("call", [invoke, stream, batch, chain])
def test_what_the_adapter_warns_of(call: Callable[..., None], make_model: MakeModel) -> None:
    with pytest.warns(CachepointWarning, match="goes to the front") as warned:
        call(make_model(**GUARDED), LATE)
    assert places(warned, call) == {(__file__, True)}


@pytest.mark.parametrize("call", [ainvoke, astream, abatch])
async def test_what_the_adapter_warns_of_under_a_loop(
    call: Callable[..., Awaitable[None]], make_model: MakeModel
) -> None:
    with pytest.warns(CachepointWarning, match="goes to the front") as warned:
        await call(make_model(**GUARDED), LATE)
    assert places(warned, call) == {(__file__, True)}


@pytest.mark.parametrize("call", [invoke, stream, batch])
def test_what_the_client_warns_of(call: Callable[..., None], make_model: MakeModel, emulator: BedrockEmulator) -> None:
    emulator.refuse_checkpoints("system", MODEL)
    with pytest.warns(CachepointWarning, match="refused a checkpoint") as warned:
        call(make_model(), question())
    assert places(warned, call) == {(__file__, True)}


@pytest.mark.parametrize("call", [ainvoke, astream, abatch])
async def test_what_the_client_warns_of_in_a_thread(
    call: Callable[..., Awaitable[None]], make_model: MakeModel, emulator: BedrockEmulator
) -> None:
    emulator.refuse_checkpoints("system", MODEL)
    with pytest.warns(CachepointWarning, match="refused a checkpoint") as warned:
        await call(make_model(), question())
    assert places(warned, call) == {(__file__, True)}
