"""Prefixes kept alive in a block: which requests are sent, when, and what they cost."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from decimal import Decimal
from typing import Any

import pytest
from converse_kit import (
    SONNET,
    SYSTEM,
    Bedrock,
    Json,
    assistant,
    document,
    image,
    text,
    tool,
    tool_result,
    tool_use,
    user,
)

import cachepoint
from cachepoint.bedrock.keep_alive import Keeping
from cachepoint.bedrock.wire.renewal import renewal
from cachepoint.core.planning.policy import CachePolicy
from cachepoint.emulator.faults import failed, throttled
from cachepoint.errors import CachepointWarning, ConfigurationError

DUE = 285.0
"""Seconds after which an entry of five minutes is due to be renewed."""
POINT = {"cachePoint": {"type": "default"}}


def chat(*turns: str) -> Json:
    """A conversation about a long system prompt."""
    messages = [user(turn) if number % 2 == 0 else assistant(turn) for number, turn in enumerate(turns)]
    return {"modelId": SONNET, "system": [text(SYSTEM)], "messages": messages}


def later(bedrock: Bedrock, seconds: float, kept: Keeping) -> int:
    """How many renewals are sent by so many seconds later; the block's own thread may be the one to send them."""
    before = kept.sent
    bedrock.clock.advance(seconds)
    kept.step()
    while kept._under_way:
        time.sleep(0.005)
    return kept.sent - before


class TestWhatIsRenewed:
    def test_a_prefix_that_is_back_too_late_is_read_before_its_life_ends(self, bedrock: Bedrock) -> None:
        client = bedrock.wrapped()
        with cachepoint.keep_alive(budget_usd=1) as kept, cachepoint.expect(ends=False):
            client.converse(**chat("Why?"))
            assert [later(bedrock, seconds, kept) for seconds in (200, 85)] == [0, 1]
            told = bedrock.clock.advance(200), client.converse(**chat("Why?", "So.", "And?"))["promptCache"]
        assert told[1]["status"] == "extended"
        first, renewal_, second = bedrock.bill
        assert (renewal_.usage.cache_read, renewal_.usage.cache_write) == (first.usage.cache_write, 0)
        assert second.usage.cache_read == first.usage.cache_write
        assert bedrock.bodies[1]["inferenceConfig"] == {"maxTokens": 1}

    def test_the_planner_knows_that_it_lives(self, bedrock: Bedrock) -> None:
        client = bedrock.wrapped()
        with cachepoint.keep_alive(budget_usd=1) as kept, cachepoint.expect(ends=False):
            client.converse(**chat("Why?"))
            later(bedrock, DUE, kept)
            bedrock.clock.advance(200)
            client.converse(**chat("Why?", "So.", "And?"))
        assert client.ledger.records[-1].miss is None
        assert client.ledger.records[-1].status == "extended"

    def test_nothing_is_renewed_once_the_kill_switch_is_set(
        self, bedrock: Bedrock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        client = bedrock.wrapped()
        with cachepoint.keep_alive(budget_usd=1) as kept, cachepoint.expect(ends=False):
            client.converse(**chat("Why?"))
            monkeypatch.setenv("CACHEPOINT_MODE", "off")
            assert later(bedrock, DUE, kept) == 0
        assert len(bedrock.calls) == 1

    def test_nothing_is_renewed_without_a_chance_that_pays(self, bedrock: Bedrock) -> None:
        client = bedrock.wrapped()
        with cachepoint.keep_alive(budget_usd=1) as kept:
            with cachepoint.expect(ends=True):
                client.converse(**chat("Why?"))
            assert kept.next_due is None
            with cachepoint.expect(back_in=200):
                client.converse(**chat("Why not?"))
            assert later(bedrock, DUE, kept) == 0
            assert kept.next_due is None
        assert len(bedrock.calls) == 2

    def test_nothing_is_renewed_that_other_calls_keep_alive(self, bedrock: Bedrock) -> None:
        client = bedrock.wrapped()
        with cachepoint.keep_alive(budget_usd=1) as kept, cachepoint.expect(ends=False):
            for number in range(4):
                client.converse(**chat("Why?"))
                assert later(bedrock, 200.0, kept) == 0, number
        assert len(bedrock.calls) == 4

    def test_a_conversation_that_went_on_is_kept_where_it_is_now(self, bedrock: Bedrock) -> None:
        client = bedrock.wrapped()
        with cachepoint.keep_alive(budget_usd=1) as kept, cachepoint.expect(ends=False):
            client.converse(**chat("Why?"))
            bedrock.clock.advance(100)
            client.converse(**chat("Why?", "So.", "And? " * 300))
            assert later(bedrock, 190, kept) == 0
            assert later(bedrock, 95, kept) == 1
        assert len(bedrock.bodies[-1]["messages"]) == 3

    @pytest.mark.parametrize(("at_most", "count"), [(1, 0), (2, 2), (5, 2)])
    def test_between_two_calls_there_are_at_most_so_many(self, bedrock: Bedrock, at_most: int, count: int) -> None:
        # back in 850 s: renewals at 285 s and 570 s, of which the second lasts until 870 s, and one alone is of no use
        client = bedrock.wrapped()
        with cachepoint.keep_alive(budget_usd=1, at_most=at_most) as kept, cachepoint.expect(back_in=850):
            client.converse(**{**chat("Why?"), "system": [text(SYSTEM), POINT]})
            assert sum(later(bedrock, DUE, kept) for _ in range(4)) == count

    def test_a_prefix_that_was_not_there_any_more_is_given_up(self, bedrock: Bedrock) -> None:
        client = bedrock.wrapped()
        with cachepoint.keep_alive(budget_usd=1, at_most=9) as kept, cachepoint.expect(ends=False):
            client.converse(**chat("Why?"))
            bedrock.emulator.evict()
            assert later(bedrock, DUE, kept) == 1
            assert kept.next_due is None
        assert client.ledger.records[-1].status == "written"

    def test_a_call_outside_the_block_that_used_it_counts(self, bedrock: Bedrock) -> None:
        client = bedrock.wrapped()
        with cachepoint.expect(ends=False), cachepoint.keep_alive(budget_usd=1) as kept:
            client.converse(**chat("Why?"))
            bedrock.clock.advance(200)
            thread = threading.Thread(target=lambda: client.converse(**chat("Why?")))  # in no context of this one
            thread.start()
            thread.join()
            assert later(bedrock, 85, kept) == 0
            assert kept.next_due == pytest.approx(bedrock.clock() - 85 + 280, abs=1)


class TestTheBlock:
    def test_renewals_are_in_the_ledger_as_such_and_save_nothing_themselves(self, bedrock: Bedrock) -> None:
        client = bedrock.wrapped()
        with cachepoint.keep_alive(budget_usd=1) as kept, cachepoint.expect(ends=False), cachepoint.tags(tenant="a"):
            client.converse(**chat("Why?"))
            later(bedrock, DUE, kept)
        record = client.ledger.records[-1]
        assert (record.tags, record.status) == ({"tenant": "a", "keep_alive": "1"}, "hit")
        assert record.cost is not None
        assert (record.cost.uncached_usd, record.cost.saved_usd) == (Decimal(0), -record.cost.usd)
        assert (kept.sent, kept.spent_usd) == (1, record.cost.usd)
        assert client.ledger.by("keep_alive")["1"].calls == 1
        assert sum((line.usd or Decimal(0) for line in bedrock.bill), Decimal(0)) == client.ledger.totals().cost.usd

    def test_the_budget_is_never_exceeded(self, bedrock: Bedrock) -> None:
        # 2,120 tokens read at $0.30 a million, 10 more and one of output: $0.0007
        client = bedrock.wrapped()
        with cachepoint.keep_alive(budget_usd="0.0008") as kept, cachepoint.expect(ends=False):
            for number in range(3):
                client.converse(**chat(f"Question {number}?"))
            assert later(bedrock, DUE, kept) == 1
            assert Decimal(0) < kept.spent_usd < Decimal("0.0008")
        with cachepoint.keep_alive(budget_usd="0.0006") as kept, cachepoint.expect(ends=False):
            client.converse(**chat("Again?"))
            assert later(bedrock, DUE, kept) == 0

    def test_a_renewal_that_tells_no_usage_counts_at_its_estimate(self, bedrock: Bedrock) -> None:
        client = bedrock.wrapped()
        with cachepoint.keep_alive(budget_usd="0.0008") as kept, cachepoint.expect(ends=False):
            client.converse(**chat("Why?"))
            converse = client.wrapped.converse
            client.wrapped.converse = lambda **request: {**converse(**request), "usage": {"inputTokens": -1}}
            assert later(bedrock, DUE, kept) == 1
        assert client.ledger.records[-1].usage is None
        assert Decimal("0.0006") < kept.spent_usd < Decimal("0.0008")

    def test_after_the_block_nothing_is_sent_and_nothing_held(self, bedrock: Bedrock) -> None:
        client = bedrock.wrapped()
        with cachepoint.keep_alive(budget_usd=1) as kept, cachepoint.expect(ends=False):
            client.converse(**chat("Why?"))
            assert kept._kept
        assert later(bedrock, DUE, kept) == 0
        client.converse(**chat("Why?"))
        assert (kept.next_due, kept._kept) == (None, {})

    def test_its_thread_ends_with_it(self, bedrock: Bedrock) -> None:
        before = set(threading.enumerate())
        with cachepoint.keep_alive(budget_usd=1), cachepoint.expect(ends=False):
            bedrock.wrapped().converse(**chat("Why?"))
            (thread,) = set(threading.enumerate()) - before
            assert thread.daemon
        thread.join(5)
        assert not thread.is_alive()

    def test_its_thread_renews_by_itself(self, bedrock: Bedrock) -> None:
        client = bedrock.wrapped()
        with cachepoint.keep_alive(budget_usd=1) as kept, cachepoint.expect(ends=False):
            client.converse(**chat("Why?"))
            bedrock.clock.advance(DUE)
            kept._wakes_at = float("inf")
            client.converse(**chat("Another, which wakes it?"))
            for _ in range(500):
                if kept.sent:
                    break
                threading.Event().wait(0.01)
        assert kept.sent == 1

    def test_an_error_ends_the_keeping_and_no_call(self, bedrock: Bedrock) -> None:
        client = bedrock.once()
        with cachepoint.keep_alive(budget_usd=1) as kept, cachepoint.expect(ends=False):
            client.converse(**chat("Why?"))
            bedrock.emulator.fail_next(throttled())
            with pytest.warns(CachepointWarning, match="failed with ThrottlingException"):
                later(bedrock, DUE, kept)
            assert client.ledger.records[-1].error == "ThrottlingException"
            assert client.converse(**chat("Why?"))["promptCache"]["status"] == "hit"
            assert kept.next_due is None

    @pytest.mark.parametrize(
        ("wrong", "named"),
        [({"budget_usd": 0}, "budget_usd=0"), ({"budget_usd": "much"}, "budget_usd='much'"),
         ({"budget_usd": float("nan")}, "budget_usd=nan"), ({"budget_usd": 1, "at_most": 0}, "at_most=0")],
    )  # fmt: skip
    def test_a_wrong_value_is_named(self, wrong: dict[str, Any], named: str) -> None:
        with pytest.raises(ConfigurationError, match=named), cachepoint.keep_alive(**wrong):
            pass

    def test_without_a_price_nothing_is_sent(self, bedrock: Bedrock) -> None:
        class Unpriced:
            def price(self, *_: Any, **__: Any) -> None:
                return None

        client = bedrock.wrapped(prices=Unpriced())
        with cachepoint.keep_alive(budget_usd=1) as kept, cachepoint.expect(ends=False):
            client.converse(**chat("Why?"))
            assert later(bedrock, DUE, kept) == 0


class TestOtherWaysToCall:
    async def test_an_async_client_is_asked_in_a_task_on_its_loop(self, bedrock: Bedrock) -> None:
        session = pytest.importorskip("aiobotocore.session").AioSession()
        async with session.create_client(
            "bedrock-runtime", region_name="us-east-1", endpoint_url=bedrock.emulator.url,
            aws_access_key_id=bedrock.account, aws_secret_access_key="emulator",
        ) as raw:  # fmt: skip
            client = cachepoint.wrap_async(raw, clock=bedrock.clock)
            with cachepoint.keep_alive(budget_usd=1) as kept, cachepoint.expect(ends=False):
                await client.converse(**chat("Why?"))
                bedrock.clock.advance(DUE)
                kept.step()
                for _ in range(500):
                    if kept.sent and not kept._under_way:
                        break
                    await asyncio.sleep(0.01)
        assert client.ledger.records[-1].tags == {"keep_alive": "1"}
        assert client.ledger.records[-1].status == "hit"

    def test_a_stream_is_renewed_without_one(self, bedrock: Bedrock) -> None:
        client = bedrock.wrapped()
        with cachepoint.keep_alive(budget_usd=1) as kept, cachepoint.expect(ends=False):
            list(client.converse_stream(**chat("Why?"))["stream"])
            assert later(bedrock, DUE, kept) == 1
        assert client.ledger.records[-1].status == "hit"

    @pytest.mark.parametrize(("more", "tokens"), [({}, 0), ({"tools": True}, 1)])
    def test_a_body_of_messages_is_renewed_without_output_where_it_may(
        self, bedrock: Bedrock, more: dict[str, Any], tokens: int
    ) -> None:
        body = {
            "anthropic_version": "bedrock-2023-05-31", "max_tokens": 99, "system": SYSTEM,
            "messages": [{"role": "user", "content": "Why?"}],
        }  # fmt: skip
        if more:
            body["tools"] = [{"name": "find", "input_schema": {"type": "object", "properties": {}}}]
            body["tool_choice"] = {"type": "any"}
        client = bedrock.wrapped()
        with cachepoint.keep_alive(budget_usd=1) as kept, cachepoint.expect(ends=False):
            client.invoke_model(modelId=SONNET, body=json.dumps(body))
            assert later(bedrock, DUE, kept) == 1
        assert (bedrock.bodies[-1]["max_tokens"], bedrock.statuses) == (tokens, [200, 200])
        assert client.ledger.records[-1].status == "hit"

    def test_where_no_output_at_all_is_refused_one_token_is_asked_for(self, bedrock: Bedrock) -> None:
        body = {
            "anthropic_version": "bedrock-2023-05-31", "max_tokens": 99, "system": SYSTEM,
            "messages": [{"role": "user", "content": "Why?"}],
        }  # fmt: skip
        client = bedrock.wrapped()
        with cachepoint.keep_alive(budget_usd=1) as kept, cachepoint.expect(ends=False):
            client.invoke_model(modelId=SONNET, body=json.dumps(body))
            bedrock.emulator.fail_next(failed("ValidationException"))
            assert later(bedrock, DUE, kept) == 1
            assert kept.next_due is not None
        assert bedrock.statuses == [200, 400, 200]
        assert bedrock.bodies[-1]["max_tokens"] == 1
        assert len(client.ledger.records) == 2


class TestTheSmallestRequest:
    """What is sent, of a request as it was sent."""

    def test_what_stands_behind_the_last_checkpoint_is_left_out(self) -> None:
        sent = {"messages": [user("a", POINT, "b"), assistant("c"), user("d")], "inferenceConfig": {"maxTokens": 9}}
        found = renewal("converse", sent)
        assert found is not None
        assert found.request == {"messages": [user("a", POINT)], "inferenceConfig": {"maxTokens": 1}}
        assert not found.whole

    def test_behind_an_answer_stands_a_question(self) -> None:
        found = renewal("converse", {"messages": [user("a"), assistant("b", POINT), user("c")]})
        assert found is not None
        assert found.request["messages"] == [user("a"), assistant("b", POINT), user(".")]

    def test_a_prefix_of_system_or_tools_needs_a_question_only(self) -> None:
        for part in ({"system": [text("s"), POINT]}, {"toolConfig": {"tools": [tool("find"), POINT]}}):
            found = renewal("converse", {**part, "messages": [user("a" * 100)]})
            assert found is not None
            assert found.request == {**part, "messages": [user(".")], "inferenceConfig": {"maxTokens": 1}}

    @pytest.mark.parametrize(
        "messages",
        [
            [user("a"), assistant(tool_use(1), tool_use(2)), user(tool_result(1), POINT, tool_result(2))],
            [user("a"), assistant(tool_use(1), POINT), user(tool_result(1))],
            [user("a", POINT), assistant("b"), user(image())],
            [user("a", POINT), assistant(tool_use(1)), user(tool_result(1, image()))],
            [user(document("pdf"), POINT, "a")],
        ],
        ids=["results", "calls", "image", "image in a result", "document"],
    )
    def test_where_a_cut_would_be_refused_or_miss_all_is_sent(self, messages: list[Json]) -> None:
        found = renewal("converse", {"messages": messages})
        assert found is not None
        assert (found.request["messages"], found.whole) == (messages, True)

    @pytest.mark.parametrize(
        "more",
        [
            {"guardrailConfig": {"guardrailIdentifier": "g", "guardrailVersion": "1"}},
            {"additionalModelRequestFields": {"thinking": {"type": "enabled", "budget_tokens": 1024}}},
            {"promptVariables": {"a": {"text": "b"}}},
        ],
    )
    def test_what_cannot_be_asked_cheaply_is_not_asked(self, more: Json) -> None:
        assert renewal("converse", {"messages": [user("a", POINT)], **more}) is None
        assert renewal("converse", {"messages": [user("a")]}) is None

    def test_a_body_of_messages_is_cut_alike(self) -> None:
        marked = {"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}
        body = {"max_tokens": 99, "messages": [{"role": "user", "content": [marked, {"type": "text", "text": "b"}]}]}
        found = renewal("invoke_model", {"body": json.dumps(body), "modelId": SONNET})
        assert found is not None
        assert found.cheaper is not None
        shorter = [{"role": "user", "content": [marked]}]
        assert json.loads(found.request["body"]) == {"max_tokens": 1, "messages": shorter}
        assert json.loads(found.cheaper["body"]) == {"max_tokens": 0, "messages": shorter}
        thinking = {**body, "thinking": {"type": "enabled", "budget_tokens": 1024}}
        assert renewal("invoke_model", {"body": json.dumps(thinking)}) is None
        assert renewal("invoke_model", {"body": json.dumps({**body, "messages": []})}) is None


def test_in_observe_mode_nothing_is_kept(bedrock: Bedrock) -> None:
    client = bedrock.wrapped(CachePolicy(mode="observe"))
    with cachepoint.keep_alive(budget_usd=1) as kept, cachepoint.expect(ends=False):
        client.converse(**{**chat("Why?"), "system": [text(SYSTEM), POINT]})
        assert kept.next_due is None
