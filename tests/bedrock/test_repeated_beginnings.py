"""What a conversation repeats is not digested again, and reads as if it were."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import pytest
from converse_kit import SYSTEM, Json, assistant, image, point, text, tool, tool_result, tool_use, user
from converse_requests import conversations
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from messages_requests import messages_conversations

from cachepoint.bedrock.wire import anthropic_messages, converse
from cachepoint.core.prompt import repeats
from cachepoint.core.prompt.prompt import Hint, Prompt, Where
from cachepoint.core.prompt.repeats import Reading, Readings
from cachepoint.core.provider.rules import ModelRule

KEY = b"k" * 32
CLAUDE = ModelRule("Claude", "claude", tokenizer="claude")
often = settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))


@contextmanager
def readings(most: int = 16_384) -> Iterator[Readings]:
    """Nothing was read before this block, and so many boundaries are kept in it."""
    before, repeats.READINGS = repeats.READINGS, Readings(most)
    try:
        yield repeats.READINGS
    finally:
        repeats.READINGS = before


def cold(wire: Any, request: Json, **how: Any) -> Prompt:
    """A request read by itself."""
    with readings():
        return wire.read(request, KEY, CLAUDE, **how)  # type: ignore[no-any-return]


def digested(monkeypatch: pytest.MonkeyPatch, *requests: Json) -> list[int]:
    """The bytes that reading each of these requests digests, one after the other."""
    counts: list[int] = []

    class Counted:
        def __init__(self, made: Any) -> None:
            self._made = made

        def update(self, data: bytes) -> None:
            counts[-1] += len(data)
            self._made.update(data)

        def copy(self) -> Counted:
            return Counted(self._made.copy())

        def digest(self) -> bytes:
            return self._made.digest()  # type: ignore[no-any-return]

    made = hashlib.blake2b
    monkeypatch.setattr(hashlib, "blake2b", lambda *data, **how: Counted(made(*data, **how)))
    with readings():
        for request in requests:
            counts.append(0)
            converse.read(request, KEY, CLAUDE)
    return counts


def chat(turns: int, **more: Any) -> Json:
    said = [(user if number % 2 == 0 else assistant)(f"{number} " + "word " * 300) for number in range(2 * turns + 1)]
    return {"system": [text(SYSTEM)], "messages": said, **more}


@often
@given(conversations(), st.sampled_from([16_384, 20, 0]))
def test_a_converse_request_reads_the_same_whatever_was_read_before(asked: list[Json], most: int) -> None:
    with readings(most):
        for request in [*asked, *reversed(asked)]:
            assert converse.read(request, KEY, CLAUDE) == cold(converse, request)


@often
@given(messages_conversations(), st.sampled_from([16_384, 20]), st.booleans())
def test_a_messages_body_reads_the_same_whatever_was_read_before(
    asked: tuple[str, list[Json]], most: int, guarded: bool
) -> None:
    with readings(most):
        for body in [*asked[1], *reversed(asked[1])]:
            for tags in (guarded, not guarded):
                found = anthropic_messages.read(body, KEY, CLAUDE, guarded=tags)
                assert found == cold(anthropic_messages, body, guarded=tags)


@pytest.mark.parametrize(
    "change",
    [
        lambda request: request["messages"][0]["content"][0].update(text="0 " + "Word " + "word " * 299),
        lambda request: request["messages"][2].update(role="assistant"),
        lambda request: request["messages"][4]["content"][0]["toolUse"]["input"].update(number=1.0),
        lambda request: request["messages"][4]["content"][0]["toolUse"]["input"].update(number=True),
        lambda request: request["messages"][5]["content"][0]["toolResult"]["content"].append(text("more")),
        lambda request: request["messages"][5]["content"].insert(1, point("1h")),
        lambda request: request["messages"][3]["content"].append(image()),
        lambda request: request["messages"].pop(1),
        lambda request: request["system"].insert(0, text("Today is Friday.")),
        lambda request: request["toolConfig"]["tools"].reverse(),
        lambda request: request.update(guardrailConfig={}),
        lambda request: request["toolConfig"].update(toolChoice={"any": {}}),
    ],
)
def test_a_request_changed_in_place_is_read_as_it_is_now(change: Any) -> None:
    request = chat(1, toolConfig={"tools": [tool("search"), tool("fetch")]})
    request["messages"] += [
        {"role": "assistant", "content": [tool_use(0)]},
        {"role": "user", "content": [tool_result(0), text("And now?")]},
        assistant("Thus."), user("And then?"),
    ]  # fmt: skip
    request["messages"].insert(3, assistant("I look."))
    request["messages"][4]["content"][0]["toolUse"]["input"] = {"number": 1}
    with readings():
        for _ in range(3):
            converse.read(request, KEY, CLAUDE)
        change(request)
        assert converse.read(request, KEY, CLAUDE) == cold(converse, deepcopy(request))


def test_only_what_a_conversation_adds_is_digested(monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn adds two messages of some 1,500 bytes each; the next question in the place of the last, one."""
    other = chat(20)
    other["messages"][-1] = user("Another question? " + "word " * 300)
    first, turn, question, again = digested(monkeypatch, chat(19), chat(20), other, other)
    assert first > 39 * 1500
    assert turn < 3.2 * 1500
    assert question < 1.6 * 1500
    assert again < 200


def test_strings_made_anew_are_known_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a server, where each request is parsed from JSON."""
    first, again = digested(monkeypatch, chat(10), deepcopy(chat(10)))
    assert again < first / 50


def test_a_long_system_prompt_is_digested_once_for_many_conversations(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [{"system": [text("word " * 20_000)], "messages": [user(f"Question {number}?")]} for number in range(3)]
    first, *others = digested(monkeypatch, *asked)
    assert first > 100_000
    assert max(others) < 500


def test_documents_before_another_question_are_not_digested_again(monkeypatch: pytest.MonkeyPatch) -> None:
    documents = [text(f"Document {number}. " + "word " * 50) for number in range(200)]
    asked = [{"messages": [{"role": "user", "content": [*documents, text(f"{number}?")]}]} for number in range(2)]
    first, again = digested(monkeypatch, *asked)
    assert again < first / 50


def test_what_has_a_hint_is_read_anew() -> None:
    places = [Where("system", None, 0), Where("messages", 1, 0), Where("messages", 2, 0)]
    hints: list[dict[Where, Hint]] = [{}, *({place: hint} for place in places for hint in ("context_end", "volatile"))]
    with readings():
        for given_hints in [*hints, *hints]:
            found = converse.read(chat(3), KEY, CLAUDE, given_hints)
            assert found == cold(converse, chat(3), hints=given_hints)


def test_what_is_kept_is_bounded_and_the_oldest_goes_first() -> None:
    """A text of 1,500 bytes has some five cuts and its end; a chat of three and its points are some 25 boundaries."""
    with readings(200) as kept:
        for number in range(40):
            request = chat(1)
            request["messages"][0] = user(f"Chat {number} " + "word " * 300)
            converse.read(request, KEY, CLAUDE)
        assert 100 < sum(reading.weight for reading in kept._kept.values()) <= 200
        newest = list(kept._kept)
        assert converse.read(request, KEY, CLAUDE) == cold(converse, request)
        assert set(kept._kept) == set(newest)  # the last one was still there


def test_no_text_is_kept() -> None:
    with readings() as kept:
        converse.read(chat(3, toolConfig={"tools": [tool("search")]}), KEY, CLAUDE)
        assert kept._kept
        assert "word" not in repr(kept._kept)
        assert all(isinstance(reading, Reading) for reading in kept._kept.values())


def test_without_a_secret_hash_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where PYTHONHASHSEED is 0 anybody can work out two texts with one hash."""
    monkeypatch.setattr("cachepoint.core.prompt.repeats.KEYED", False)
    with readings() as kept:
        assert converse.read(chat(3), KEY, CLAUDE) == cold(converse, chat(3))
        assert not kept._kept


def test_what_no_json_can_say_ends_what_is_known_again() -> None:
    """An open file is another each time; text of a class of the caller's may say anything of itself."""

    class Words(str):
        __slots__ = ()

    for value in (object(), math.nan, Words("word")):
        request = chat(3)
        request["messages"][2]["content"] = [{"other": value}]
        with readings():
            converse.read(request, KEY, CLAUDE)
            assert converse.read(request, KEY, CLAUDE) == cold(converse, request)
