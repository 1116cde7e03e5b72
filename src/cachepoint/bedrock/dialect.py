"""What the wire formats share: what a call asks of one, a plan's edits of a list, and how answers are told.

A checkpoint is a block of its own in one format and an attribute of a block in the other; which list a plan
touches, where it splits a text and what invalidates a section are the same in both.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Protocol

from cachepoint.core.plan import Plan
from cachepoint.core.prompt import IMAGES, Hints, ListKey, Mark, Prompt, Where
from cachepoint.core.rules import SECTIONS, TTL, Section, Tokenizer
from cachepoint.core.usage import Usage
from cachepoint.errors import ConfigurationError

CONTRACT = "promptCache"
"""The key under which a response, or a stream's last event with usage, says what caching did."""

Answered = Callable[[Mapping[str, Any] | None], Mapping[str, Any] | None]
"""Takes the usage as it was reported; gives what the call tells, None if nothing can be told."""
Reporter = Callable[[dict[str, Any]], dict[str, Any]]
"""Passes the events of one stream on; the one that completes the usage with what the call tells."""


class Dialect(Protocol):
    """What a call asks of an API's wire format; the modules `converse` and `invoke` are the two."""

    API: str

    def read(self, request: Mapping[str, Any], key: bytes, tokenizer: Tokenizer, hints: Hints) -> Prompt | None:
        """The request in wire order; None where it is passed on as it is."""

    def apply(self, request: Mapping[str, Any], plan: Plan) -> dict[str, Any]:
        """The request with the plan's checkpoints and splits in place of the user's own checkpoints."""

    def usage(self, reported: Mapping[str, Any] | None, unsaid_ttl: TTL = "5m") -> Usage | None:
        """Tokens by class; None when no usage was sent."""

    def count_input(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """What CountTokens is asked about a request."""

    def service_tier(self, request: Mapping[str, Any]) -> str | None:
        """The service tier a request names."""

    def reporter(self, answered: Answered) -> Reporter:
        """What the events of one stream pass through."""


def told(response: dict[str, Any], contract: Mapping[str, Any] | None) -> dict[str, Any]:
    """A response, or a part of one, with what the call tells."""
    return response if contract is None else {**response, CONTRACT: contract}


# -- reading --------------------------------------------------------------------------------------


_ABOUT_CHECKPOINTS = re.compile(
    r"cachepoint|cache_control|cache point|prompt caching|\bttl\b"
    r"|messages\.\d+\.content\.\d+\.type: field required"  # after a document that is not a PDF (section 2)
)


_ABOUT_LONG_TTL = re.compile(r"extended ttl|\.ttl: extra inputs|ttl[^.]*not (?:supported|available|permitted)")
_THINKING = ("thinking", "reasoning_config", "reasoningConfig")


def whole_settings(api: str, fields: Mapping[str, Any], under: str = "", effort: Any = None) -> dict[str, Any]:
    """What changes the whole prompt, by its path: the API, thinking and effort at their defaults when absent (R3.10).

    `under` is the path of `fields`; `effort` is Converse's own, which goes before the one in them.
    """
    name = next((name for name in _THINKING if fields.get(name)), _THINKING[0])
    thinking, output = fields.get(name) or None, fields.get("output_config")
    if isinstance(thinking, Mapping) and thinking.get("type") == "disabled":
        thinking = None
    effort_path = "outputConfig.effort" if effort else f"{under}output_config.effort"
    effort = effort or (output.get("effort") if isinstance(output, Mapping) else None)
    return {"api": api, f"{under}{name}": thinking, effort_path: None if effort == "high" else effort}


def messages_settings(choice: str, *, forced: bool, images: bool) -> dict[str, Any]:
    """What changes the messages only: a tool choice that forces, whose path is `choice`, and having images (R3.10)."""
    return {choice: forced, IMAGES: images}


def said_ttl(where: Where, control: Any) -> TTL | None:
    """The TTL that a user's mark names, None where it names none.

    Raises ConfigurationError for one that does not exist, which the service would refuse.
    """
    ttl = control.get("ttl") if isinstance(control, Mapping) else None
    if ttl is None or ttl == "5m" or ttl == "1h":
        return ttl
    raise ConfigurationError(
        f"the checkpoint at {where.path} has ttl={ttl!r}: write '5m' or '1h', or leave it out, which means 5m"
    )


def usage_of(
    tokens: int, read: int | None, written: int | None, by_ttl: Mapping[TTL, int], output: int | None, unsaid_ttl: TTL
) -> Usage:
    """Tokens by class; `by_ttl` splits what was written and is not added to it.

    Missing cache counters are normal and count as 0 (recorded C1). A write whose TTL is not said counts
    as `unsaid_ttl`.
    """
    split = {"5m": 0, "1h": 0, **by_ttl}
    said = sum(split.values())
    split[unsaid_ttl] += max((said if written is None else written) - said, 0)
    return Usage(tokens, read or 0, split["5m"], split["1h"], output or 0)


def refuses_long_ttl(message: str) -> bool:
    """Whether an error message says that the model has no 1h TTL, rather than that one stands in the wrong place."""
    return _ABOUT_LONG_TTL.search(message.lower()) is not None


def refused_section(message: str, plan: Plan) -> Section | None:
    """The section whose checkpoint an error message refuses; None when it is not about checkpoints."""
    lowered = message.lower()
    if _ABOUT_CHECKPOINTS.search(lowered) is None:
        return None
    pointed = {"tools": "toolconfig/tools", "system": "#/system", "messages": "messages"}
    for section in SECTIONS:
        if pointed[section] in lowered or f"{section}." in lowered:
            return section
    return plan.checkpoints[-1].where.section if plan.checkpoints else None


# -- writing --------------------------------------------------------------------------------------


@dataclass
class ListEdits:
    """What a plan does to one list, by index in it: marks to take out, checkpoints and splits to put in.

    A checkpoint stands at the end of an item (offset None) or at a split in it. `plain` says that the
    user wrote a string in the list's place.
    """

    marks: dict[int, list[Mark]] = field(default_factory=dict)
    ttls: dict[int, dict[int | None, TTL]] = field(default_factory=dict)
    cuts: dict[int, list[int]] = field(default_factory=dict)
    plain: bool = False

    def pieces(self, item: int, block: Any) -> Iterator[tuple[Any, TTL | None]]:
        """The blocks that a block is sent as, each with the TTL of the checkpoint after it, if any."""
        cuts, ttls = sorted(self.cuts.get(item, ())), self.ttls.get(item, {})
        for start, end in pairwise([0, *cuts, None]):
            yield {**block, "text": block["text"][start:end]} if cuts else block, ttls.get(end)

    def joined(self, item: int, sent: Sequence[Any], position: int) -> tuple[Any, int]:
        """The block that was sent as the pieces from `position` on, and the position after them."""
        end = position + len(self.cuts.get(item, ())) + 1
        first = sent[position]
        if end == position + 1:
            return first, end
        return {**first, "text": "".join(piece["text"] for piece in sent[position:end])}, end


Rewrite = Callable[[Any, ListEdits], Any]
_AT_THE_TOP: tuple[Section, ...] = ("tools", "system")


def edits_of(plan: Plan) -> dict[ListKey, ListEdits]:
    """A plan's edits, list by list; lists that are not named stay as they are."""
    edits: dict[ListKey, ListEdits] = {}
    for mark in plan.marks:
        edits.setdefault(mark.where.list_key, ListEdits()).marks.setdefault(mark.where.item, []).append(mark)
    for point in plan.checkpoints:
        here = edits.setdefault(point.where.list_key, ListEdits())
        here.ttls.setdefault(point.where.item, {})[point.offset] = point.ttl
    for split in plan.splits:
        edits.setdefault(split.where.list_key, ListEdits()).cuts.setdefault(split.where.item, []).append(split.offset)
    for key in plan.plain & edits.keys():
        edits[key].plain = True
    return edits


def rewritten(body: Mapping[str, Any], edits: Mapping[ListKey, ListEdits], rewrite: Rewrite) -> dict[str, Any]:
    """A body with every list at its top or in its messages that has edits passed through `rewrite`."""
    result = dict(body)
    for section in _AT_THE_TOP:
        here = edits.get((section, None))
        if here is not None and section in body:
            result[section] = rewrite(body[section], here)
    if any(message is not None for _, message in edits):
        result["messages"] = [
            {**message, "content": rewrite(message["content"], edits["messages", number])}
            if ("messages", number) in edits else message
            for number, message in enumerate(body["messages"])
        ]  # fmt: skip
    return result
