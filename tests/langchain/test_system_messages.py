"""System messages: each keeps a boundary of its own, and a late one leaves the prefix before it alone."""

from __future__ import annotations

import re
import warnings
from typing import Any

import pytest
from botocore.exceptions import ClientError, ParamValidationError
from hypothesis import given
from hypothesis import strategies as st
from langchain_aws.chat_models.bedrock_converse import _messages_to_bedrock
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_kit import EPHEMERAL, LATE_SYSTEM_MODEL, LONG, POINT, Json, MakeModel, sent, told

from cachepoint.emulator import BedrockEmulator, failed
from cachepoint.errors import CachepointWarning
from cachepoint.langchain import CacheAwareChatBedrockConverse
from cachepoint.langchain._request.system_turns import carry_late, hoist, keep_boundaries, seat

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


@pytest.fixture
def late_model(make_model: MakeModel) -> Model:
    return make_model(model=LATE_SYSTEM_MODEL)


def test_a_late_message_keeps_its_place(late_model: Model, emulator: BedrockEmulator) -> None:
    late_model.invoke(conversation(SystemMessage(LATE)))

    body = sent(emulator)[-1]
    assert texts(body["system"]) == [LONG]
    assert roles(body) == ["user", "assistant", "user", "system"]
    assert texts(body["messages"][-1]["content"]) == [LATE]


def test_it_leaves_the_conversation_before_it_readable(late_model: Model) -> None:
    late_model.invoke(conversation())
    answer = late_model.invoke(conversation(SystemMessage(LATE)))

    assert told(answer)["usage"]["cache_read"] > 1024
    assert told(answer)["miss"] is None


def test_before_a_question_it_goes_behind_it(late_model: Model, emulator: BedrockEmulator) -> None:
    """AWS takes a system message only behind a user's turn."""
    late_model.invoke([HumanMessage("One?"), AIMessage("One."), SystemMessage(LATE), HumanMessage("Two?")])

    body = sent(emulator)[-1]
    assert roles(body) == ["user", "assistant", "user", "system"]
    assert texts(body["messages"][2]["content"]) == ["Two?"]


def test_behind_a_tools_result_it_keeps_its_place(late_model: Model, emulator: BedrockEmulator) -> None:
    call: Any = {"name": "f", "args": {}, "id": "call-1", "type": "tool_call"}
    tools = [{"name": "f", "description": "F", "input_schema": {"type": "object", "properties": {}}}]
    turn = [HumanMessage("Go."), AIMessage("", tool_calls=[call]), ToolMessage("Done.", tool_call_id="call-1")]

    late_model.bind_tools(tools).invoke([*turn, SystemMessage(LATE)])

    body = sent(emulator)[-1]
    assert roles(body) == ["user", "assistant", "user", "system"]
    assert "toolResult" in body["messages"][2]["content"][0]


def test_two_in_a_row_become_one_message(late_model: Model, emulator: BedrockEmulator) -> None:
    late_model.invoke(conversation(SystemMessage(LATE), SystemMessage("And be brief.")))

    body = sent(emulator)[-1]
    assert roles(body)[-2:] == ["user", "system"]
    assert "".join(texts(body["messages"][-1]["content"])) == f"{LATE}\nAnd be brief."


def test_a_mark_on_it_is_kept(make_model: MakeModel, emulator: BedrockEmulator) -> None:
    model = make_model(model=LATE_SYSTEM_MODEL, prompt_cache={"mode": "explicit"})

    model.invoke(conversation(SystemMessage([{"type": "text", "text": LATE, "cache_control": EPHEMERAL}])))

    assert sent(emulator)[-1]["messages"][-1] == {"role": "system", "content": [{"text": LATE}, POINT]}


def test_a_model_without_the_role_gets_it_in_front_with_one_warning(model: Model, emulator: BedrockEmulator) -> None:
    with pytest.warns(CachepointWarning, match="goes to the front"):
        model.invoke(conversation(SystemMessage(LATE)))
    list(model.stream(conversation(SystemMessage(LATE))))

    assert [texts(body["system"]) for body in sent(emulator)] == [[LONG, LATE]] * 2


@pytest.mark.parametrize(
    "messages",
    [
        [HumanMessage("One?"), AIMessage("One."), SystemMessage(LATE)],
        conversation(SystemMessage([{"type": "image", "base64": "aGk=", "mime_type": "image/png"}])),
    ],
    ids=["behind an answer", "an image"],
)
def test_what_the_service_takes_nowhere_goes_the_parents_way(messages: list[BaseMessage], late_model: Model) -> None:
    with pytest.warns(CachepointWarning, match="goes to the front"), pytest.raises((ClientError, ParamValidationError)):
        late_model.invoke(messages)


def test_a_guarded_last_turn_is_left_to_the_parent(make_model: MakeModel, emulator: BedrockEmulator) -> None:
    guardrail = {"guardrailIdentifier": "g", "guardrailVersion": "1"}
    model = make_model(model=LATE_SYSTEM_MODEL, guardrail_config=guardrail, guard_last_turn_only=True)

    with pytest.warns(CachepointWarning, match="guard_last_turn_only"):
        model.invoke(conversation(SystemMessage(LATE)))

    assert texts(sent(emulator)[-1]["system"]) == [LONG, LATE]


def test_a_model_that_refuses_the_role_after_all_is_asked_once(late_model: Model, emulator: BedrockEmulator) -> None:
    emulator.fail_next(failed("ValidationException", "messages.3: role 'system' is not supported on this model"))

    with pytest.warns(CachepointWarning, match="the service refused it"):
        late_model.invoke(conversation(SystemMessage(LATE)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        late_model.invoke(conversation(SystemMessage(LATE)))

    assert [call.status for call in emulator.requests] == [400, 200, 200]
    assert [texts(body["system"]) for body in sent(emulator)] == [[LONG, LATE]] * 2
    assert [record.error for record in late_model.ledger.records] == ["ValidationException", None, None]


KINDS = {"h": HumanMessage, "a": AIMessage, "s": SystemMessage}


@given(st.text(alphabet="has", min_size=1, max_size=8).filter(lambda kinds: "h" in kinds))
def test_late_messages_are_only_ever_where_the_service_takes_them(kinds: str) -> None:
    messages = [KINDS[kind](f"{kind}{number}") for number, kind in enumerate(kinds)]
    carried = carry_late(messages)
    if carried is None:
        return

    bedrock, system = _messages_to_bedrock(carried)
    seated = seat({"messages": bedrock, "system": system})

    order = "".join(message["role"][0] for message in seated["messages"])
    assert re.fullmatch(r"([ua]|(?<=u)s(?=a|$))*", order)
    every = "".join(texts([*hoist(seated)["system"], *(b for m in hoist(seated)["messages"] for b in m["content"])]))
    assert sorted(every.replace("\n", "")) == sorted("".join(str(message.content) for message in messages))
