"""What counts as a return and what does not: texts that change, histories that are edited, other processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from planner.kit import SCOPE, Caller, Request, asks, prose

from cachepoint.core.provider.cache_model import CacheModel
from cachepoint.core.provider.usage import Usage
from cachepoint.core.traffic.evidence import ELSEWHERE

STATIC = prose(3500, "static")


def documents(turn: int, tokens: int = 2000) -> str:
    return prose(tokens, ("documents", turn))


def chat(turns: int, system: Callable[[int], list[str]]) -> list[Request]:
    """A conversation; its system prompt may be another one in each turn."""
    history: list[str] = []
    requests = []
    for turn in range(turns):
        requests.append(asks(f"question {turn}", system=system(turn), history=history))
        history = [*history, f"question {turn}", prose(150, ("answer", turn))]
    return requests


def in_one_string(turn: int) -> list[str]:
    return [f"{STATIC}\n\n{documents(turn)}"]


def in_two_blocks(turn: int) -> list[str]:
    return [STATIC, documents(turn)]


def static_tokens() -> int:
    """The size of what stays the same."""
    prompt = Caller().read(asks("question", system=[STATIC]))
    return round(prompt.end(prompt.system_end).tokens)


# -- a text that changes behind one that does not ------------------------------------------------


def test_in_one_string_what_two_requests_share_is_written_and_nothing_behind() -> None:
    caller, shared = Caller(), static_tokens()
    _, second, *others = caller.calls(chat(15, in_one_string), after=30)
    # up to the last break before the text that changes
    assert 0.9 * shared < second.cache_write <= shared
    assert all(0.9 * shared < usage.cache_read <= shared for usage in others)
    assert sum(usage.cache_write for usage in others) <= shared - second.cache_write
    assert caller.bill < 0.6 * caller.uncached


def test_in_two_blocks_what_stays_is_read_and_nothing_more_written() -> None:
    caller, shared = Caller(), static_tokens()
    first, *others = caller.calls(chat(15, in_two_blocks), after=30)
    assert first.cache_write > shared  # a lone first request counts on its system prompt as a whole
    assert all((usage.cache_read, usage.cache_write) == (shared, 0) for usage in others)


def test_where_nothing_is_static_only_the_first_request_is_written() -> None:
    caller = Caller()
    first, *others = caller.calls(chat(15, lambda turn: [documents(turn, 4000)]), after=30)
    assert not any(usage.cache_read or usage.cache_write for usage in others)
    # 3% at most, and one lost write
    assert caller.bill <= 1.03 * caller.uncached + 0.25 * first.prompt


def test_a_memory_behind_an_agents_prompt_does_not_keep_its_tools_uncached() -> None:
    tools = {
        "tools": [
            {"toolSpec": {"name": f"tool{n}", "description": prose(300, n), "inputSchema": {"json": {}}}}
            for n in range(5)
        ]
    }
    requests = [{**each, "toolConfig": tools} for each in chat(10, in_one_string)]
    caller = Caller()
    _, second, *others = caller.calls(requests, after=30)
    assert second.cache_read + second.cache_write > 4500
    assert all(usage.cache_read > 4500 and usage.cache_write < 200 for usage in others)


def test_calls_of_another_kind_in_between_do_not_hide_what_two_requests_share() -> None:
    caller, shared = Caller(), static_tokens()
    answers: list[Usage] = []
    rephrasings: list[Usage] = []
    for turn in range(12):
        rephrasings += caller.calls([asks(f"rephrase question {turn}", system=[prose(1500, "condense")])], after=5)
        text = f"{STATIC}\n\n{documents(turn, 3000)}"
        answers += caller.calls([asks(f"question {turn}", system=[text])], after=5)
    assert all(usage.cache_read > 1400 and not usage.cache_write for usage in rephrasings[1:])
    assert all(usage.cache_read > 0.9 * shared and usage.cache_write < 0.1 * shared for usage in answers[2:])


# -- histories that are no longer what they were -------------------------------------------------


def regenerated() -> Iterator[Request]:
    """Every third answer is asked for twice, and the second one stays."""
    for request in conversation(as_it_was):
        yield request
        yield request


def conversation(change: Callable[[list[str], int], list[str]], turns: int = 16) -> Iterator[Request]:
    history: list[str] = []
    for turn in range(turns):
        history = change(history, turn)
        question = prose(150, ("question", turn))
        yield asks(question, system=[STATIC], history=history)
        history = [*history, question, prose(200, ("answer", turn))]


def as_it_was(history: list[str], _: int) -> list[str]:
    return history


def edited(history: list[str], turn: int) -> list[str]:
    """Now and then the question before the last one is put in other words, and answered anew."""
    if not turn or turn % 3:
        return history
    return [*history[:-4], f"in other words {turn}", prose(200, ("other", turn)), *history[-2:]]


def trimmed(history: list[str], _: int) -> list[str]:
    """Only the last eight messages are kept."""
    return history[-8:]


def cleared(history: list[str], turn: int) -> list[str]:
    """All questions but the last are taken out, one more each turn."""
    return ["cleared" if not i % 2 and i < 2 * turn - 2 else text for i, text in enumerate(history)]


def elsewhere(caller: Caller) -> float:
    """Returns that were taken for another process's."""
    return sum(row[ELSEWHERE] for row in caller.store.evidence(SCOPE, caller.now).rows.values())


@pytest.mark.parametrize(
    "requests",
    [regenerated(), *map(conversation, (edited, trimmed, cleared))],
    ids=["regenerated", "edited", "trimmed", "cleared"],
)
def test_a_history_that_was_changed_is_no_other_processs_turn(requests: Iterator[Request]) -> None:
    caller = Caller()
    usages = caller.calls(requests, after=40)
    assert elsewhere(caller) == 0
    assert not any(usage.cache_write_1h for usage in usages)  # nothing came back after five minutes
    assert all(usage.cache_read >= static_tokens() for usage in usages[1:])


def test_a_changed_system_text_before_a_conversation_is_no_other_processs_turn() -> None:
    caller = Caller()
    caller.calls(chat(10, in_one_string), after=30)
    caller.calls(chat(10, lambda turn: [documents(turn, 4000)]), after=30)
    assert elsewhere(caller) == 0


def test_turns_that_another_process_took_are_told() -> None:
    here, there = Caller(cache=(shared := CacheModel())), Caller(cache=shared)
    for turn, request in enumerate(conversation(as_it_was)):
        caller = there if turn % 3 else here
        caller.now = 1_000_000.0 + 40 * turn
        caller.call(request, after=0)
    assert elsewhere(here) > 0
