"""Documents that are of one turn alone come back within it, at each step of a tool loop."""

from __future__ import annotations

import random
from decimal import Decimal
from itertools import count
from typing import Any

from langchain_core.documents import Document
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_kit import connected

from cachepoint.emulator import BedrockEmulator, Bill, Text, ToolCall
from cachepoint.langchain import cached_context_prompt

TURNS, STEPS = 5, 6


@tool
def look_up(word: str) -> str:
    """Look a word up."""
    return word


def page(number: int) -> Document:
    """A page of about a thousand tokens that no other question finds."""
    words = random.Random(number)
    return Document(" ".join(f"{words.randrange(10**6):06d}" for _ in range(400)), id=f"page-{number}")


def bill(policy: Any, *, marked: bool = False) -> Bill:
    """A conversation whose every turn has documents of its own and six tool calls; `marked`: at every prompt's end."""
    numbers = count(1)

    def brain(_: Any) -> Text | ToolCall:
        number = next(numbers)
        return ToolCall("look_up", {"word": str(number)}) if number % (STEPS + 1) else Text("So it is.")

    with BedrockEmulator(replies=brain) as emulator:
        model = connected(emulator, prompt_cache=policy, clock=emulator.clock).bind_tools([look_up])
        history: list[BaseMessage] = []
        for turn in range(TURNS):
            documents = [page(5 * turn + each) for each in range(5)]
            asked = {"context": documents, "input": f"Question {turn}?", "chat_history": history}
            messages = cached_context_prompt("You answer.").invoke(asked).to_messages()
            while True:
                *before, last = messages
                point = HumanMessage([{"cachePoint": {"type": "default"}}])
                answer = model.invoke([*before, last, point] if marked else messages)
                assert isinstance(answer, AIMessage)
                messages.append(answer)
                if not answer.tool_calls:
                    break
                messages += [ToolMessage("found " * 30, tool_call_id=call["id"]) for call in answer.tool_calls]
                emulator.clock.advance(3)
            history += [HumanMessage(f"Question {turn}?"), AIMessage(answer.text)]
            emulator.clock.advance(30)
        assert not [call.error for call in emulator.requests if call.status != 200]
        return emulator.bill()


def test_documents_of_a_turn_are_read_at_each_step_of_its_tool_loop() -> None:
    nothing, by_hand, ours = bill("off"), bill("explicit", marked=True), bill("auto")
    # A point at every prompt's end is the best there is here.
    assert by_hand.total < nothing.total * Decimal("0.4")
    assert ours.total <= by_hand.total * Decimal("1.01")
