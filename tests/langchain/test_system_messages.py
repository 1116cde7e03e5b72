"""System messages: each keeps a boundary of its own, and a late one leaves the prefix before it alone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_aws.chat_models.bedrock_converse import _messages_to_bedrock
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_kit import EPHEMERAL, LATE_SYSTEM_MODEL, LONG, MODEL, NOVA, POINT, Json, MakeModel, connected, sent, told

from cachepoint.emulator import BedrockEmulator, Options
from cachepoint.errors import CachepointWarning
from cachepoint.langchain import CacheAwareChatBedrockConverse
from cachepoint.langchain._request.system_turns import carry_late, keep_boundaries, seat

Model = CacheAwareChatBedrockConverse
LATE = "From now on, answer in French."


def texts(blocks: list[Json]) -> list[str]:
    return [block["text"] for block in blocks if "text" in block]


def roles(body: Json) -> list[str]:
    return [message["role"] for message in body["messages"]]


def conversation(*late: BaseMessage) -> list[BaseMessage]:
    return [SystemMessage(LONG), HumanMessage("One?"), AIMessage("One."), HumanMessage("Two?"), *late]


# -- boundaries ---------------------------------------------------------------------------------------


def test_consecutive_system_strings_stay_apart_and_read_the_same(model: Model, emulator: BedrockEmulator) -> None:
    model.invoke([SystemMessage(LONG), SystemMessage("Today it rains."), HumanMessage("Hello")])

    assert texts(sent(emulator)[-1]["system"]) == [LONG, "\nToday it rains."]


def test_a_changing_second_system_message_leaves_the_first_one_readable(model: Model) -> None:
    for weather in (f"Today it is {degrees} degrees." for degrees in range(6)):
        answer = model.invoke([SystemMessage(LONG), SystemMessage(weather), HumanMessage("Hello")])

    assert told(answer)["usage"]["cache_read"] > 1024


SYSTEM_TEXTS = st.lists(st.text(alphabet="ab \n", max_size=4), min_size=1, max_size=5)


@given(SYSTEM_TEXTS)
def test_boundaries_never_change_what_the_model_reads(parts: list[str]) -> None:
    messages: list[BaseMessage] = [*(SystemMessage(part) for part in parts), HumanMessage("Hello")]

    _, theirs = _messages_to_bedrock(list(messages))
    _, ours = _messages_to_bedrock(keep_boundaries(messages))

    assert "".join(texts(ours)) == "".join(texts(theirs))


# -- late messages ------------------------------------------------------------------------------------

SPOKEN = f"<system>\n{LATE}\n</system>"
GUARDRAIL = {"guardrailIdentifier": "g", "guardrailVersion": "1"}
CALL: Any = {"name": "f", "args": {}, "id": "call-1", "type": "tool_call"}
TOOLS = [{"name": "f", "description": "F", "input_schema": {"type": "object", "properties": {}}}]


@pytest.fixture
def late_model(make_model: MakeModel) -> Model:
    return make_model(model=LATE_SYSTEM_MODEL)


@pytest.mark.parametrize("name", [MODEL, LATE_SYSTEM_MODEL, NOVA])
def test_a_late_message_is_said_by_the_user_in_its_place(
    name: str, make_model: MakeModel, emulator: BedrockEmulator
) -> None:
    model = make_model(model=name)
    model.invoke(conversation(SystemMessage(LATE)))
    list(model.stream(conversation(SystemMessage(LATE))))

    for body in sent(emulator):
        assert texts(body["system"]) == [LONG]
        assert roles(body) == ["user", "assistant", "user"]
        assert texts(body["messages"][-1]["content"]) == ["Two?", SPOKEN]


def test_it_leaves_the_conversation_before_it_readable(late_model: Model) -> None:
    late_model.invoke(conversation())
    answer = late_model.invoke(conversation(SystemMessage(LATE)))

    assert told(answer)["usage"]["cache_read"] > 1024
    assert told(answer)["miss"] is None


@pytest.mark.parametrize(
    ("messages", "last"),
    [
        ([HumanMessage("One?"), AIMessage("One."), SystemMessage(LATE), HumanMessage("Two?")], [SPOKEN, "Two?"]),
        ([HumanMessage("One?"), AIMessage("One."), SystemMessage(LATE)], [SPOKEN]),
        ([HumanMessage("One?"), SystemMessage(LATE), HumanMessage("Two?")], ["One?", SPOKEN, "Two?"]),
        (conversation(SystemMessage(LATE), SystemMessage("And be brief.")), ["Two?", SPOKEN, "And be brief."]),
    ],
    ids=["before a question", "behind an answer", "between questions", "two in a row"],
)
def test_wherever_it_stands_it_keeps_its_place(
    messages: list[BaseMessage], last: list[str], late_model: Model, emulator: BedrockEmulator
) -> None:
    late_model.invoke(messages)

    content = texts(sent(emulator)[-1]["messages"][-1]["content"])
    assert [re.sub(r"^<system>\n\n?(And be brief.)\n</system>$", r"\1", text) for text in content] == last


def test_behind_a_call_it_goes_behind_the_tools_result(late_model: Model, emulator: BedrockEmulator) -> None:
    """The results of tools come first in the turn after their calls."""
    turn = [HumanMessage("Go."), AIMessage("", tool_calls=[CALL]), SystemMessage(LATE)]

    late_model.bind_tools(TOOLS).invoke([*turn, ToolMessage("Done.", tool_call_id="call-1")])

    result, *others = sent(emulator)[-1]["messages"][-1]["content"]
    assert "toolResult" in result
    assert texts(others) == [SPOKEN]


def test_a_mark_on_it_is_kept(make_model: MakeModel, emulator: BedrockEmulator) -> None:
    model = make_model(model=LATE_SYSTEM_MODEL, prompt_cache={"mode": "explicit"})

    model.invoke(conversation(SystemMessage([{"type": "text", "text": LATE, "cache_control": EPHEMERAL}])))

    assert sent(emulator)[-1]["messages"][-1]["content"] == [{"text": "Two?"}, {"text": SPOKEN}, POINT]


@pytest.mark.parametrize("mode", ["off", "observe"])
def test_where_requests_are_the_parents_own_it_goes_to_the_front(
    mode: str, make_model: MakeModel, emulator: BedrockEmulator
) -> None:
    make_model(prompt_cache={"mode": mode}).invoke(conversation(SystemMessage(LATE)))

    assert texts(sent(emulator)[-1]["system"]) == [LONG, LATE]


def test_a_guarded_last_turn_is_left_to_the_parent(make_model: MakeModel, emulator: BedrockEmulator) -> None:
    model = make_model(model=LATE_SYSTEM_MODEL, guardrail_config=GUARDRAIL, guard_last_turn_only=True)

    with pytest.warns(CachepointWarning, match="guard_last_turn_only") as warned:
        for _ in range(2):
            model.invoke(conversation(SystemMessage(LATE)))

    assert texts(sent(emulator)[-1]["system"]) == [LONG, LATE]
    assert len(warned) == 1


@pytest.fixture
def known(emulator: BedrockEmulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BedrockEmulator:
    """A row of the user's says that Converse takes system messages; the service was begun without it."""
    own = tmp_path / "rules.toml"
    own.write_text('[[model]]\nname = "Claude Opus 4.8"\nsystem_role = ["converse"]\n')
    monkeypatch.setenv("CACHEPOINT_RULES", str(own))
    return emulator


@pytest.mark.usefixtures("known")
def test_a_model_that_is_known_to_take_the_role_gets_it() -> None:
    with BedrockEmulator(keep_text=True, options=Options(disputed_system_turns=True)) as emulator:
        connected(emulator, model=LATE_SYSTEM_MODEL).invoke(conversation(SystemMessage(LATE)))
        body = sent(emulator)[-1]

    assert roles(body) == ["user", "assistant", "user", "system"]
    assert texts(body["messages"][-1]["content"]) == [LATE]


def test_a_model_that_refuses_the_role_after_all_is_asked_once(known: BedrockEmulator, late_model: Model) -> None:
    with pytest.warns(CachepointWarning, match="refused a system message in the conversation"):
        for _ in range(3):
            late_model.invoke(conversation(SystemMessage(LATE)))

    assert [call.status for call in known.requests] == [400, 200, 200, 200]
    assert [texts(body["messages"][-1]["content"])[-1] for body in sent(known)] == [SPOKEN] * 3
    assert [record.error for record in late_model.ledger.records] == [None] * 3


KINDS = {"h": HumanMessage, "a": AIMessage, "s": SystemMessage}


@given(st.text(alphabet="has", min_size=1, max_size=8).filter(lambda kinds: "h" in kinds))
def test_whatever_the_conversation_every_message_arrives_in_its_place(kinds: str) -> None:
    messages = [KINDS[kind](f"{kind}{number}") for number, kind in enumerate(kinds)]

    bedrock, system = _messages_to_bedrock(carry_late(messages))
    seated = seat({"messages": bedrock, "system": system})

    late = re.sub("^s*", "", kinds)
    merged = re.sub("([ha])\\1+", "\\1", late)
    assert "".join(message["role"][0] for message in seated["messages"]) == merged.replace("h", "u")
    arrived = "".join(texts([*system, *(block for message in seated["messages"] for block in message["content"])]))
    assert arrived.replace("\n", "") == "".join(str(message.content) for message in messages)
