"""Whatever body is sent, planning keeps its promises: nothing refused, nothing changed, at most four checkpoints."""

from __future__ import annotations

import json
import re
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
from converse_kit import Bedrock
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from messages_kit import Json, checkpoints, joined_texts, planned, request
from messages_requests import messages_conversations, messages_requests

from cachepoint import CachePolicy, MemoryStore
from cachepoint.bedrock.call import Call
from cachepoint.bedrock.settings import settings as made_settings
from cachepoint.bedrock.wire import anthropic_messages as messages
from cachepoint.bedrock.wire import invoke_model as invoke
from cachepoint.catalogue.table import load_rules
from cachepoint.core.planning.plan import Checkpoint, Plan, Split
from cachepoint.core.prompt.prompt import Where

POLICIES = st.builds(
    CachePolicy,
    mode=st.sampled_from(["auto", "explicit"]),
    ttl=st.sampled_from(["auto", "5m", "1h"]),
    split_text=st.booleans(),
    max_checkpoints=st.integers(0, 4),
)
over_the_wire = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
pure = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))

pytestmark = pytest.mark.filterwarnings("ignore:cachepoint. the checkpoint")


class Application:
    """Plans and settles calls as a wrapped client does, on a service that caches what it is told to."""

    def __init__(self, policy: CachePolicy | None = None) -> None:
        self.now = 1_000.0
        self._settings = made_settings(policy, {"store": MemoryStore(), "clock": lambda: self.now})
        meta = SimpleNamespace(region_name="us-east-1", endpoint_url="http://localhost")
        self._client = SimpleNamespace(meta=meta)

    def planned(self, model: str, body: Json | str) -> tuple[Call, Json]:
        """The call, and the body it sends; the body may be given as text."""
        asked = request(body, model) if isinstance(body, dict) else {"modelId": model, "body": body}
        call = Call(self._settings, self._client, invoke, asked)
        assert not [*call.departure()]
        return call, json.loads(call.request["body"])

    def called(self, model: str, body: Json | str) -> tuple[Call, Json]:
        """The same, answered."""
        call, sent = self.planned(model, body)
        assert call.exchange.prompt is not None
        cached = max((point.tokens for point in call.exchange.plan.checkpoints), default=0)
        read = round(call.exchange.plan.expected.read)
        usage = {"input_tokens": max(round(call.exchange.prompt.tokens) - cached, 3), "output_tokens": 9}
        call.answered({**usage, "cache_read_input_tokens": read, "cache_creation_input_tokens": max(cached - read, 0)})
        self.now += 20.0
        return call, sent


@given(asked=messages_requests(), policy=POLICIES)
@over_the_wire
def test_no_planned_body_is_refused_nor_sent_twice(
    bedrock: Bedrock, asked: tuple[str, Json], policy: CachePolicy
) -> None:
    before = len(bedrock.calls)
    bedrock.wrapped(policy).invoke_model(**request(asked[1], asked[0]))
    assert bedrock.statuses[before:] == [200]


@given(asked=messages_conversations(), policy=POLICIES)
@settings(over_the_wire, max_examples=25)
def test_nor_is_one_of_a_conversation_that_is_known(
    bedrock: Bedrock, asked: tuple[str, list[Json]], policy: CachePolicy
) -> None:
    model, bodies = asked
    before, wrapped = len(bedrock.calls), bedrock.wrapped(policy)
    for body in bodies:
        wrapped.invoke_model(**request(body, model))
        bedrock.clock.advance(30)
    assert bedrock.statuses[before:] == [200] * len(bodies)
    usages = [call.usage for call in bedrock.calls[before:]]
    assert [record.usage for record in wrapped.ledger.records] == usages


@given(asked=messages_requests(), policy=POLICIES)
@pure
def test_undo_gives_the_body_back(asked: tuple[str, Json], policy: CachePolicy) -> None:
    call, sent = Application(policy).planned(*asked)
    assert messages.undo(sent, call.exchange.plan) == asked[1]


@given(asked=messages_conversations())
@settings(pure, max_examples=60)
def test_undo_gives_the_bodies_of_known_traffic_back(asked: tuple[str, list[Json]]) -> None:
    application = Application()
    for body in asked[1]:
        call, sent = application.called(asked[0], body)
        assert messages.undo(sent, call.exchange.plan) == body


def without_short_ttls(body: Json) -> Json:
    """The body with a TTL of 5 minutes left out, which says the same: one that the user wrote may stay."""
    read: Json = json.loads(json.dumps(body).replace(', "ttl": "5m"', ""))
    return read


@given(asked=messages_requests(), policy=POLICIES)
@pure
def test_planning_changes_no_text_and_not_what_it_was_given(asked: tuple[str, Json], policy: CachePolicy) -> None:
    model, body = asked
    call, sent = Application(policy).planned(model, body)
    assert joined_texts(sent) == joined_texts(body)
    assert without_short_ttls(sent) == without_short_ttls(planned(body, call.exchange.plan))


def oddly_written(value: Any, chance: Random) -> str:
    """A JSON value as text with blanks, numbers and escapes as nobody writes them; never `},{` nor `[{`."""
    blank = chance.choice([" ", "\t", "\n", "\r\n  ", " "])
    maybe = chance.choice(["", blank])
    if isinstance(value, dict):
        items = chance.sample([*value.items()], len(value)) if value.get("type") == "text" else value.items()
        members = [f"{json.dumps(name)}{maybe}:{oddly_written(each, chance)}" for name, each in items]
        return "{" + maybe + f"{maybe},{blank}".join(members) + blank + "}"
    if isinstance(value, list):
        return "[" + blank + f",{blank}".join([oddly_written(each, chance) for each in value]) + maybe + "]"
    if isinstance(value, str):
        letter = chance.choice("oszw.")  # none of which is part of an escape
        spelt = f"\\u{ord(letter):04{chance.choice('xX')}}"
        return json.dumps(value, ensure_ascii=chance.random() < 0.5).replace(letter, spelt)
    if type(value) is int:
        return chance.choice([str(value), f"{value}.00", f"{value}e0", f"{value}E+000"])
    return json.dumps(value)


ADDED = re.compile(
    r'\[\{"type":"text","text":(?=")|(?:,"cache_control":\{"type":"ephemeral"(?:,"ttl":"1h")?\})(?:\}\])?'
    r'|(?<=")\}\]'
)
SPLIT = re.compile(
    r'"(?:,"type":"text")?(?:,"cache_control":\{"type":"ephemeral"(?:,"ttl":"1h")?\})?\},\{(?:"type":"text",)?"text":"'
)


def without_what_was_added(sent: str) -> str:
    """What is left of a text without the splits and checkpoints as cachepoint writes them."""
    return re.sub(ADDED, "", re.sub(SPLIT, "", sent))


def exactly(text: str) -> Json:
    """A document with its numbers as they are spelt."""
    read: Json = json.loads(text, parse_int=str, parse_float=str)
    return read


@given(asked=messages_conversations(), seed=st.integers(0, 2**32))
@settings(pure, max_examples=12)
def test_the_text_of_a_body_is_changed_by_what_is_added_alone(asked: tuple[str, list[Json]], seed: int) -> None:
    application, chance = Application(), Random(seed)
    for given_ in asked[1]:
        text = oddly_written(given_, chance)
        call, _ = application.called(asked[0], text)
        sent, plan = call.request["body"], call.exchange.plan
        assert without_short_ttls(exactly(sent)) == without_short_ttls(planned(exactly(text), plan))
        if not plan.marks:
            assert without_what_was_added(sent) == text


def any_plan(body: Json, model: str, chance: Random) -> Plan:
    """Checkpoints and splits wherever there may be any, in place of the user's marks."""
    rule = load_rules().resolve(model)
    assert rule is not None
    prompt = messages.read(body, b"key", rule)
    points, splits = list[Checkpoint](), list[Split]()
    for block in prompt.blocks:
        text = text_at(body, block.where)
        if text and block.where.section != "tools":
            for offset in sorted(
                {chance.randrange(1, len(text) + 1) for _ in range(chance.randrange(3))} - {len(text)}
            ):
                splits.append(Split(0, block.where, offset))
                if chance.random() < 0.5:
                    points.append(Checkpoint(0, block.where, offset, chance.choice(["5m", "1h"]), 0, ""))  # type: ignore[arg-type]
        if chance.random() < 0.5:
            points.append(Checkpoint(0, block.where, None, chance.choice(["5m", "1h"]), 0, ""))  # type: ignore[arg-type]
    return Plan(tuple(points), splits=tuple(splits), marks=prompt.marks, plain=prompt.plain)


def text_at(body: Json, where: Where) -> str:
    """The text of a block that may be split, else an empty one."""
    content = body[where.section] if where.message is None else body["messages"][where.message]["content"]
    block = content if isinstance(content, str) else content[where.item]
    if isinstance(block, str):
        return block
    return block["text"] if block.keys() <= {"type", "text", "cache_control"} and "text" in block else ""


@given(asked=messages_requests(), seed=st.integers(0, 2**32))
@settings(pure, max_examples=50)
def test_any_plan_is_applied_to_the_text_as_to_the_values(asked: tuple[str, Json], seed: int) -> None:
    model, body = asked
    chance = Random(seed)
    plan = any_plan(body, model, chance)
    for text in (oddly_written(body, chance), json.dumps(body)):
        sent = messages.apply(text, plan)
        assert isinstance(sent, str)
        assert without_short_ttls(exactly(sent)) == without_short_ttls(planned(exactly(text), plan))
        assert messages.apply(text.encode(), plan) == sent.encode()
        if not plan.marks and "},{" not in text and "[{" not in text:
            assert without_what_was_added(sent) == text


@given(asked=messages_requests(), policy=POLICIES)
@pure
def test_every_checkpoint_sent_is_told_and_there_are_no_others(asked: tuple[str, Json], policy: CachePolicy) -> None:
    call, sent = Application(policy).planned(*asked)
    assert [(point.path, point.ttl) for point in call.exchange.plan.checkpoints] == checkpoints(sent)
    assert len(checkpoints(sent)) <= policy.max_checkpoints


@given(asked=messages_conversations())
@settings(pure, max_examples=40)
def test_every_split_of_known_traffic_is_told_where_it_is(asked: tuple[str, list[Json]]) -> None:
    application = Application()
    for body in asked[1]:
        call, sent = application.called(asked[0], body)
        assert [(point.path, point.ttl) for point in call.exchange.plan.checkpoints] == checkpoints(sent)
