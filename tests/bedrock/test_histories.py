"""Histories with system messages in them: what parts a tool call from its result does not make halves of them."""

from __future__ import annotations

from converse_kit import Json, assistant, text, tool_result, tool_use, user

from cachepoint.bedrock.wire.history import mended

NOTE: Json = {"role": "system", "content": [text("It is late.")]}


def test_results_that_a_system_message_parts_are_all_found() -> None:
    calls = assistant(tool_use(1), tool_use(2))
    one, two = tool_result(1, text("one")), tool_result(2, text("two"))
    messages, warnings = mended([user("Go."), calls, user(one), NOTE, user(two), NOTE, user("Well?")], "signed")
    assert messages == [user("Go."), calls, user(one, two), NOTE, NOTE, user("Well?")]
    assert warnings == ()


def test_a_system_message_between_a_call_and_its_result_changes_nothing() -> None:
    history = [user("Go."), assistant(tool_use(1)), NOTE, user(tool_result(1, text("one")))]
    assert mended(history, "signed").messages is history
