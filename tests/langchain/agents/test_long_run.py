"""A `create_agent` loop of many steps, with up to 20 parallel tool calls a step, beside the clairvoyant."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from agent_kit import Agent, Run
from langchain_core.messages import ToolMessage

from cachepoint.langchain import PromptCacheMiddleware
from cachepoint.langchain._agents.middleware import SUMMARISE

STEPS = 60
ENOUGH = 0.9
LOOKBACK = 20


def calls(steps: int, seed: int) -> list[int]:
    return [random.Random(seed + step).randint(1, LOOKBACK) for step in range(steps)]


def share_of_clairvoyant(run: Run) -> float:
    return run.usage.cache_read / run.clairvoyant_reads()


@pytest.mark.long("sixty steps of up to twenty calls, ten seconds on an idle machine")
@pytest.mark.timeout(900)
def test_sixty_steps_with_context_editing_read_what_the_clairvoyant_reads() -> None:
    run = Agent(calls(STEPS, seed=7), [PromptCacheMiddleware(clear_at=30_000)]).run()
    assert len(run.calls) == STEPS + 1
    assert max(len(call.body["messages"]) for call in run.calls if call.body) == 2 * STEPS + 1
    assert share_of_clairvoyant(run) >= ENOUGH


@pytest.mark.parametrize(
    "middleware",
    [
        PromptCacheMiddleware(trim_at=12_000),
        PromptCacheMiddleware(summarise_at=12_000),
        PromptCacheMiddleware(clear_at=8_000, trim_at=15_000, keep=0.4),
    ],
    ids=["trimming", "summarising", "clearing and trimming"],
)
def test_so_does_every_way_to_shorten_the_history(middleware: PromptCacheMiddleware) -> None:
    run = Agent(calls(25, seed=3), [middleware]).run()
    prompts = [call.usage.prompt for call in run.calls if call.usage]
    assert any(after < before for before, after in pairwise(prompts))
    assert share_of_clairvoyant(run) >= ENOUGH


def test_twenty_parallel_calls_a_step_keep_their_hits() -> None:
    run = Agent([LOOKBACK] * 8, [PromptCacheMiddleware()]).run()
    usages = [call.usage for call in run.calls if call.usage]
    for before, after in pairwise(usages):
        assert after.cache_read >= before.cache_read + before.cache_write


def test_the_agents_state_keeps_every_result() -> None:
    run = Agent(calls(25, seed=3), [PromptCacheMiddleware(clear_at=8_000)]).run()
    results = [message for message in run.state["messages"] if isinstance(message, ToolMessage)]
    assert len(results) == sum(calls(25, seed=3))
    assert all(message.text.startswith("Item") for message in results)


def test_what_the_model_has_not_seen_is_never_cleared() -> None:
    run = Agent([LOOKBACK] * 8, [PromptCacheMiddleware(clear_at=3_000, keep=0.1)]).run()
    for call in run.calls[1:]:
        assert call.body is not None
        newest = call.body["messages"][-1]["content"]
        results = [block["toolResult"]["content"][0]["text"] for block in newest if "toolResult" in block]
        assert len(results) == LOOKBACK
        assert all(text.startswith("Item") for text in results)


def test_a_summary_is_asked_for_behind_the_cached_history() -> None:
    run = Agent([5] * 20, [PromptCacheMiddleware(summarise_at=6_000)]).run()
    summarising = [index for index, call in enumerate(run.calls) if SUMMARISE in str(call.body)]
    assert summarising
    for index in summarising:
        before, asked = run.calls[index - 1].usage, run.calls[index].usage
        assert before
        assert asked
        assert asked.cache_read >= before.cache_read + before.cache_write
