"""Trimming and clearing in chunks, of any conversation."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.runnables import RunnableLambda
from langchain_kit import MakeModel

from cachepoint.errors import ConfigurationError
from cachepoint.langchain import clear_in_chunks, trim_in_chunks

LIMIT = 120


def words(message: BaseMessage) -> int:
    return len(message.text.split())


def said(number: int, results: list[int]) -> list[BaseMessage]:
    """An answer with as many tool calls as results, each of so many words."""
    calls = [{"id": f"{number}-{index}", "name": "find", "args": {}} for index in range(len(results))]
    found = [
        ToolMessage("found " * size, name="find", tool_call_id=f"{number}-{index}")
        for index, size in enumerate(results)
    ]
    return [AIMessage(f"answer {number}", tool_calls=calls), *found]


steps = st.lists(st.lists(st.integers(1, 40), max_size=4), min_size=1, max_size=25)
conversations = steps.map(
    lambda given: [
        SystemMessage("be brief"),
        HumanMessage("question"),
        *(message for number, results in enumerate(given) for message in said(number, results)),
    ]
)
trim = partial(trim_in_chunks, limit=LIMIT, count=words)
clear = partial(clear_in_chunks, limit=LIMIT, count=words)


def growing(messages: list[BaseMessage]) -> list[list[BaseMessage]]:
    """The conversation as it was before each of its answers, and whole."""
    ends = [index for index, message in enumerate(messages) if isinstance(message, AIMessage)]
    return [messages[:end] for end in (*ends, len(messages))]


@given(conversations)
def test_every_result_goes_with_its_call(messages: list[BaseMessage]) -> None:
    for shorter in (trim(messages), clear(messages)):
        called = [call["id"] for message in shorter if isinstance(message, AIMessage) for call in message.tool_calls]
        assert called == [message.tool_call_id for message in shorter if isinstance(message, ToolMessage)]


@given(conversations)
def test_what_is_trimmed_begins_as_a_conversation_does_and_ends_as_this_one(messages: list[BaseMessage]) -> None:
    shorter = trim(messages)
    assert shorter[:2] == messages[:2]
    assert shorter[2:] == messages[len(messages) - len(shorter) + 2 :]


@given(conversations)
def test_clearing_changes_results_only_and_not_those_of_the_last_step(messages: list[BaseMessage]) -> None:
    shorter = clear(messages)
    assert len(shorter) == len(messages)
    changed = [index for index, message in enumerate(messages) if shorter[index] != message]
    last = max(index for index, message in enumerate(messages) if isinstance(message, AIMessage))
    assert all(isinstance(messages[index], ToolMessage) and index < last for index in changed)


@settings(deadline=None)
@given(conversations)
def test_the_beginning_changes_seldom(messages: list[BaseMessage]) -> None:
    for shorten in (trim, clear):
        turns = [shorten(turn) for turn in growing(messages)]
        rewrites = sum(after[: len(before)] != before for before, after in pairwise(turns))
        # Between two rewrites, a fourth of the limit has to come in: clearing frees at least so much.
        assert rewrites <= sum(map(words, messages)) / (LIMIT / 4)


@given(conversations)
def test_the_messages_given_stay_as_they_are(messages: list[BaseMessage]) -> None:
    before = [message.model_copy(deep=True) for message in messages]
    trim(messages)
    clear(messages)
    assert messages == before


def test_results_of_a_tool_can_be_kept() -> None:
    messages = [HumanMessage("question"), *(message for step in range(9) for message in said(step, [30]))]
    assert clear(messages, exclude=["find"]) == messages
    assert clear(messages) != messages


def test_a_conversation_of_several_turns_is_cut_between_them() -> None:
    turns = [message for turn in range(9) for message in (HumanMessage("why " * 20), AIMessage("so " * 20))]
    shorter = trim(turns)
    assert isinstance(shorter[0], HumanMessage)
    assert shorter == turns[-len(shorter) :]


def test_they_work_in_a_chain_without_an_agent(make_model: MakeModel) -> None:
    turns = [message for turn in range(9) for message in (HumanMessage("why " * 50), AIMessage("so " * 50))]
    model = make_model()
    chain = RunnableLambda(partial(trim_in_chunks, limit=200)) | model
    chain.invoke([*turns, HumanMessage("And then?")])
    assert model.ledger.totals().usage.prompt < 300


@pytest.mark.parametrize(("limit", "keep"), [(0, 0.5), (10, 0.0), (10, 1.0)])
def test_a_limit_that_leaves_nothing_is_refused(limit: int, keep: float) -> None:
    for shorten in (trim_in_chunks, clear_in_chunks):
        with pytest.raises(ConfigurationError, match=f"limit={limit}"):
            shorten([HumanMessage("question")], limit, keep=keep)
