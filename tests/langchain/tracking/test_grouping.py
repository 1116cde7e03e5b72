"""Cost by tenant, session, tag and run: what LangChain's config carries reaches every record."""

from __future__ import annotations

import contextvars
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda
from langchain_kit import MakeModel, question

import cachepoint
from cachepoint.core.accounts.record import CallRecord
from cachepoint.core.accounts.totals import Totals
from cachepoint.errors import CachepointWarning
from cachepoint.langchain import (
    CacheAwareChatBedrockConverse,
    PromptCacheCallbackHandler,
    get_prompt_cache_callback,
)
from cachepoint.langchain._cost.run_tags import run_tags
from cachepoint.sinks import JsonLines

CONFIG: RunnableConfig = {"metadata": {"tenant": "a", "session_id": "s1", "turn": 3}, "tags": ["search"]}


def calls(sums: dict[str, Totals]) -> dict[str, int]:
    return {value: totals.calls for value, totals in sums.items()}


async def test_metadata_and_tags_reach_the_models_ledger_by_every_way_to_call(
    model: CacheAwareChatBedrockConverse,
) -> None:
    model.invoke(question(), config=CONFIG)
    list(model.stream(question(), config=CONFIG))
    await model.ainvoke(question(), config=CONFIG)
    async for _ in model.astream(question(), config=CONFIG):
        pass
    model.batch([question()], config=CONFIG)
    chain: Runnable[str, Any] = RunnableLambda(question) | model
    chain.invoke("What?", config=CONFIG)
    list(chain.stream("What?", config=CONFIG))
    for record in model.ledger.records:
        assert record.tags == {"search": "", "tenant": "a", "session_id": "s1", "turn": "3", "session": "s1"}
        assert record.session == "s1"
    assert calls(model.ledger.by("tenant")) == {"a": 7}
    assert calls(model.ledger.by("tag")) == {"search": 7}
    assert calls(model.ledger.by("session")) == {"s1": 7}


def test_the_callback_groups_by_model_tag_metadata_session_and_run(model: CacheAwareChatBedrockConverse) -> None:
    chain: Runnable[str, Any] = RunnableLambda(question) | model
    with get_prompt_cache_callback() as cache, cachepoint.tags(feature="faq"):
        chain.invoke("One?", config=CONFIG)
        chain.invoke("Two?", config={"metadata": {"tenant": "b"}, "tags": ["chat", "search"]})
        model.invoke(question("Three?"), config={"metadata": {"tenant": "b"}})
    assert calls(cache.by("model")) == {model.model_id: 3}
    assert calls(cache.by("tenant")) == {"a": 1, "b": 2}
    assert calls(cache.by("tag")) == {"search": 2, "chat": 1}
    assert calls(cache.by("session")) == {"s1": 1}
    assert calls(cache.by("feature")) == {"faq": 3}
    assert sorted(calls(cache.by("run")).values()) == [1, 1, 1]
    assert cache.by("never seen") == {}
    assert sum(totals.cost.usd for totals in cache.by("tenant").values()) == cache.cost.usd


def test_what_a_config_says_overrules_the_block_around_it(model: CacheAwareChatBedrockConverse) -> None:
    with cachepoint.tags(tenant="outer", feature="faq"):
        model.invoke(question(), config={"metadata": {"tenant": "inner"}})
    assert dict(model.ledger.records[0].tags) == {"tenant": "inner", "feature": "faq"}


def test_a_model_that_a_retriever_calls_belongs_to_the_outermost_run(model: CacheAwareChatBedrockConverse) -> None:
    class Rephrasing(BaseRetriever):
        def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
            asked = model.invoke(question(query), config={"callbacks": run_manager.get_child()})
            return [Document(asked.text)]

    chain = RunnableLambda(str.strip) | Rephrasing() | (lambda found: question(found[0].page_content)) | model
    with get_prompt_cache_callback() as cache:
        chain.invoke("What?")
    assert list(calls(cache.by("run")).values()) == [2]


def test_tags_of_the_model_itself_count_too(make_model: MakeModel) -> None:
    model = make_model(tags=["fast"], metadata={"team": "docs"})
    model.invoke(question())
    list(model.stream(question()))
    assert calls(model.ledger.by("team")) == {"docs": 2}
    assert calls(model.ledger.by("tag")) == {"fast": 2}


def test_what_frameworks_add_for_themselves_is_left_out() -> None:
    metadata = {
        "ls_provider": "amazon_bedrock", "lc_versions": {"langchain": "1"}, "langgraph_step": 3,
        "langgraph_node": "agent", "langgraph_triggers": ("a",), "checkpoint_ns": "x", "thread_id": "t9", "tenant": "a",
    }  # fmt: skip
    found = run_tags(metadata, ["seq:step:2", "mine", "langsmith:hidden"])
    assert found == {"mine": "", "langgraph_node": "agent", "thread_id": "t9", "tenant": "a", "session": "t9"}


def test_metadata_that_cannot_be_a_tag_is_left_out(model: CacheAwareChatBedrockConverse) -> None:
    odd: Any = {1: "x", "tenant": "a", "roles": ["admin"], "user": None}
    with get_prompt_cache_callback(budget_usd=1) as cache:
        model.invoke(question(), config={"metadata": odd})
    assert dict(model.ledger.records[0].tags) == {"tenant": "a"}
    assert calls(cache.by("tenant")) == {"a": 1}


def test_blocks_nest_and_each_counts_what_happens_inside(model: CacheAwareChatBedrockConverse) -> None:
    with get_prompt_cache_callback() as outer:
        model.invoke(question("One?"))
        with get_prompt_cache_callback() as inner:
            model.invoke(question("Two?"))
        model.invoke(question("Three?"))
    model.invoke(question("Four?"))
    assert (outer.calls, inner.calls) == (3, 1)


def test_a_thread_counts_for_itself(model: CacheAwareChatBedrockConverse) -> None:
    counted: dict[str, int] = {}

    def work(name: str, times: int) -> None:
        with get_prompt_cache_callback() as cache:
            for number in range(times):
                model.invoke(question(f"{name} {number}?"))
        counted[name] = cache.calls

    threads = [threading.Thread(target=work, args=(name, times)) for name, times in (("a", 1), ("b", 2), ("c", 3))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counted == {"a": 1, "b": 2, "c": 3}


def test_a_block_in_a_generator_may_end_in_another_context(model: CacheAwareChatBedrockConverse) -> None:
    def served() -> Iterator[int]:
        with get_prompt_cache_callback() as cache:
            model.invoke(question())
            yield cache.calls

    stream = served()  # web servers take each piece of a streamed answer in a context of its own
    assert [contextvars.copy_context().run(next, stream, None) for _ in range(2)] == [1, None]


def test_many_blocks_leave_nothing_behind_in_langchain() -> None:
    from langchain_core.tracers.context import _configure_hooks

    with get_prompt_cache_callback():
        before = len(_configure_hooks)
    for _ in range(50):
        with get_prompt_cache_callback():
            pass
    assert len(_configure_hooks) == before


def test_each_call_goes_to_the_users_own_sinks(model: CacheAwareChatBedrockConverse, tmp_path: Path) -> None:
    seen: list[CallRecord] = []
    with JsonLines(tmp_path / "calls.jsonl") as lines, get_prompt_cache_callback(on_call=[seen.append, lines]) as cache:
        model.invoke(question(), config=CONFIG)
    assert tuple(seen) == cache.records
    (line,) = [json.loads(line) for line in (tmp_path / "calls.jsonl").read_text().splitlines()]
    assert line["tags"]["tenant"] == "a"
    assert line["cost"] == cache.cost.to_dict()


def test_a_sink_that_fails_spoils_no_call(model: CacheAwareChatBedrockConverse) -> None:
    def broken(_: CallRecord) -> None:
        raise OSError

    with (
        get_prompt_cache_callback(on_call=broken, budget_usd=1) as cache,
        pytest.warns(CachepointWarning, match="on_call raised OSError"),
    ):
        assert model.invoke(question()).text
    assert cache.calls == 1


def test_the_summary_is_a_table_and_the_dictionary_plain_json(model: CacheAwareChatBedrockConverse) -> None:
    with get_prompt_cache_callback() as cache:
        model.invoke(question("One?"))
        model.invoke(question("Two?"))
    head, row, total = cache.summary().splitlines()
    assert head.split()[:2] == ["model", "calls"]
    assert row.split()[:2] == [model.model_id, "2"]
    assert total.split()[0] == "all"
    assert str(cache) == cache.summary()
    printed = json.loads(json.dumps(cache.to_dict()))
    assert printed["cost"]["usd"] == f"{cache.cost.usd:f}".rstrip("0")
    assert printed["by_model"][model.model_id]["calls"] == 2


def test_checkpoints_and_misses_of_our_model_are_in_the_records(model: CacheAwareChatBedrockConverse) -> None:
    handler = PromptCacheCallbackHandler()
    model.invoke(question("One?"), config={"callbacks": [handler]})
    (record,) = handler.records
    (contract,) = [mine.contract() for mine in model.ledger.records]
    assert record.contract() == contract
    assert record.checkpoints[0].path == "system[1]"
