"""The emulated model, in several habits: each answers from the question alone, so that caching changes no answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from capture_lib.prose import prose

from cachepoint.emulator import Question, Text, ToolCall
from programs_lib.texts import asked

Answers = Callable[[Question], Any]

ANSWER_TOKENS = 25
SUMMARY_TOKENS = 150
_OBSERVATION = "Observation:"


def answering(tokens: int = ANSWER_TOKENS) -> Answers:
    """Names what the last question asks about, so that asked to rephrase it, it gives the same question again."""

    def reply(question: Question) -> Text:
        named = " and ".join(f'"{word}"' for word in asked(question.text))
        return Text(" ".join(part for part in (named, prose(tokens, "answer", question.digest)) if part))

    return reply


def calling(calls: int) -> Answers:
    """Calls so many tools, one after the other, before it answers; without tools it is asked for a summary."""

    def reply(question: Question) -> Any:
        if not question.tools:
            return Text(prose(SUMMARY_TOKENS, "summary", question.digest))
        if _since_the_user_spoke(question, _is_tool_result) >= calls:
            return answering()(question)
        return _call(question, sorted(question.tools))

    return reply


def reasoning_and_acting(tool: str, argument: str, calls: int) -> Answers:
    """Calls a tool so many times in ReAct's form, which is text, before it answers."""

    def reply(question: Question) -> Text:
        if _since_the_user_spoke(question, _is_observation) >= calls:
            text = prose(ANSWER_TOKENS, "answer", question.digest)
            return Text(f"Thought: I can answer without using any more tools.\nAnswer: {text}")
        given = json.dumps({argument: question.digest[:8]})
        return Text(f"Thought: I need a tool to help me answer.\nAction: {tool}\nAction Input: {given}")

    return reply


def supervising(question: Question) -> Any:
    """As a supervisor, hands over to each agent once; as an agent, calls a tool once and reports."""
    agents = [name for name in sorted(question.tools) if name.startswith("transfer_to_")]
    if not agents:
        handed_over = any(result.startswith("Transferred") for result in question.results)
        return _call(question, sorted(question.tools)) if handed_over else answering(60)(question)
    # Three messages of results an agent: of the way there, of its tool, of the way back.
    done = _since_the_user_spoke(question, _is_tool_result) // 3
    return ToolCall(agents[done], {}) if done < len(agents) else answering()(question)


def _call(question: Question, names: list[str]) -> ToolCall:
    """One of the tools, with its first argument; both depend on the question."""
    name = names[int(question.digest, 16) % len(names)]
    return ToolCall(name, {next(iter(question.tools[name]["properties"])): question.digest[:8]})


def _since_the_user_spoke(question: Question, is_of_kind: Callable[[dict[str, Any]], bool]) -> int:
    found = 0
    for message in reversed(question.messages):
        if message["role"] == "user" and not is_of_kind(message):
            break
        found += message["role"] == "user"
    return found


def _is_tool_result(message: dict[str, Any]) -> bool:
    return any("toolResult" in block for block in message["content"])


def _is_observation(message: dict[str, Any]) -> bool:
    return any(block.get("text", "").startswith(_OBSERVATION) for block in message["content"])
