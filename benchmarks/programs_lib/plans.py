"""Static plans: checkpoints put into recorded requests at fixed places, and what that would have cost.

The places known by hand need an oracle, the program's own static texts; the rest is what langchain-aws does.
Replies depend on no checkpoint, so a program's requests are the same under every plan and need recording once.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from cachepoint.emulator import BedrockEmulator, Bill, Clock, ServedCall
from programs_lib.answers import Answers
from programs_lib.stage import START

_SIGNED = {"authorization": "Bearer of recorded requests"}

Body = dict[str, Any]
TTL = Literal["5m", "1h"]
Place = Literal["tools", "static", "system", "history", "end"]


@dataclass(frozen=True)
class Plan:
    """Checkpoints of one TTL at the same places of every request.

    Places: behind the tools, the static text (where a request has none, the tools), the system prompt, the message
    before the last, the last message.
    """

    name: str
    places: tuple[Place, ...]
    ttl: TTL = "5m"

    @property
    def is_by_hand(self) -> bool:
        return "static" in self.places

    def applied(self, body: Body, static: Sequence[str]) -> Body:
        """The request with this plan's checkpoints, and no others."""
        body = {
            **body,
            "messages": [{**message, "content": _unmarked(message["content"])} for message in body["messages"]],
        }
        if body.get("system"):
            body["system"] = _unmarked(body["system"])
        if body.get("toolConfig"):
            body["toolConfig"] = {**body["toolConfig"], "tools": _unmarked(body["toolConfig"]["tools"])}
        for blocks, at in _targets(body, self.places, static):
            _insert(blocks, at, self.ttl)
        return body


_BY_HAND: dict[str, tuple[Place, ...]] = {
    "static text": ("static",),
    "static text + history": ("static", "history"),
    "static text + end": ("static", "end"),
    "static text + history + end": ("static", "history", "end"),
}
LANGCHAIN_AWS: tuple[Place, ...] = ("tools", "system", "history", "end")
NOTHING = Plan("nothing", ())
PLANS = (
    NOTHING,
    *(
        Plan(f"{name}, {ttl}", places, ttl)
        for ttl in ("5m", "1h")
        for name, places in {**_BY_HAND, "as langchain-aws": LANGCHAIN_AWS}.items()
    ),
)


def replay(served: Iterable[ServedCall], plan: Plan, static: Sequence[str], answers: Answers) -> Bill:
    """The bill of recorded requests under a plan, at their times."""
    now = [START]
    # Without boto3, whose part of a call is two thirds of the time and none of the bill.
    service = BedrockEmulator(clock=Clock(lambda: now[0]), replies=answers)._service
    for call in served:
        assert call.body is not None
        now[0] = call.time
        raw = json.dumps(plan.applied(call.body, static)).encode()
        delivery = service.respond(f"/model/{call.model_id}/converse", _SIGNED, raw)
        assert delivery.written.status == 200, delivery.written.body
        delivery.begin()
    return service.bill()


def _targets(body: Body, places: Sequence[Place], static: Sequence[str]) -> list[tuple[list[Body], int]]:
    """Lists of blocks and the index in each behind which a checkpoint goes."""
    tools: list[Body] = body.get("toolConfig", {}).get("tools", [])
    system: list[Body] = body.get("system") or []
    messages: list[Body] = body["messages"]
    found: dict[Place, list[Body]] = {
        "tools": tools,
        "system": system,
        "history": messages[-2]["content"] if len(messages) > 1 else [],
        "end": messages[-1]["content"],
    }
    # What is split stands before what is appended to, or a list would grow in between.
    targets = []
    if "static" in places:
        targets += [_split(system, static) or _split(messages[0]["content"], static) or (tools, len(tools))]
    return targets + [(found[place], len(found[place])) for place in places if place != "static"]


def _split(blocks: list[Body], static: Sequence[str]) -> tuple[list[Body], int] | None:
    """Cut the block that has a static text behind it; None where no block has one."""
    for index in reversed(range(len(blocks))):
        text = blocks[index].get("text", "")
        end = max((text.find(known) + len(known) for known in static if known in text), default=0)
        if end:
            pieces = [piece for piece in (text[:end], text[end:]) if piece]
            # A block of white space alone is refused.
            if len(pieces) == 2 and not pieces[1].strip():
                pieces = [text]
            blocks[index : index + 1] = [{"text": piece} for piece in pieces]
            return blocks, index + 1
    return None


def _unmarked(blocks: list[Body]) -> list[Body]:
    return [block for block in blocks if "cachePoint" not in block]


def _insert(blocks: list[Body], at: int, ttl: TTL) -> None:
    if not blocks or at == 0 or "cachePoint" in blocks[at - 1]:
        return
    point = {"type": "default"} | ({"ttl": ttl} if ttl != "5m" else {})
    blocks.insert(at, {"cachePoint": point})
