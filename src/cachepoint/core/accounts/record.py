"""One call as it is remembered: what was sent, what came back, what it cost, why it missed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any, Literal, NamedTuple

from cachepoint.core.accounts.sharing_out import PrefixUse
from cachepoint.core.planning.plan import Checkpoint
from cachepoint.core.planning.policy import Mode
from cachepoint.core.planning.reasons import Placed, Rejected
from cachepoint.core.prompt.prompt import Where
from cachepoint.core.provider.prices import Cost, plain
from cachepoint.core.provider.rules import Section
from cachepoint.core.provider.usage import Usage

Status = Literal["hit", "extended", "written", "uncached"]
MissReason = Literal[
    "model_changed", "tools_changed", "system_changed", "messages_changed", "expired", "lookback",
    "below_minimum", "concurrent_write", "evicted_or_rerouted", "not_marked",
]  # fmt: skip
_AMOUNTS = ("usd", "uncached_usd", "saved_usd")
_PATH = re.compile(
    r"(?:messages\[(?P<message>\d+)\]\.content|(?P<section>tools|system))\[(?P<item>\d+)\]"
    r"(?:\.toolResult\.content\[(?P<nested>\d+)\])?"
)


def status_of(usage: Usage) -> Status:
    """hit: read and nothing written; extended: both; written: only written; uncached: neither."""
    if usage.cache_read:
        return "extended" if usage.cache_write else "hit"
    return "written" if usage.cache_write else "uncached"


@dataclass(frozen=True, slots=True)
class Miss:
    """Why tokens that could have been read were not; `lost_tokens` is how many, likely."""

    reason: MissReason
    path: str
    lost_tokens: int
    hint: str
    lost_usd: str | None = None

    def priced(self, read: Cost | None) -> Miss:
        """The same with what the loss cost: input price less read price, given the cost of reading the tokens."""
        return self if read is None else replace(self, lost_usd=plain(read.saved_usd))

    def to_dict(self) -> dict[str, Any]:
        """The miss as the call contract prints it."""
        return {
            "reason": self.reason, "path": self.path, "lost_tokens": self.lost_tokens,
            "lost_usd": self.lost_usd, "hint": self.hint,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class CallRecord:
    """One call to a model.

    `started` is wall time in seconds, `seconds` a monotonic duration. `usage` is None when it never
    arrived (a failure, an abandoned stream), `cost` also when the price is unknown. `at_least`: the
    response was cut, left or lost, so that the bill may have more than they tell; the prompt's tokens are
    exact where they were told, those of the answer are as many as were told by then. `retries` is how many
    attempts botocore made before the last; of those that timed out or lost their connection each may have
    been billed, those that were refused or throttled were not, and which they were it does not say. A tag without a
    value, as LangChain has them, has the value "". `error` is the exception's class name or `abandoned`;
    never text of the prompt or the answer. `prefix` names what was read and written. `held` says why no
    checkpoint, or no further one, was placed.
    """

    started: float
    seconds: float
    model: str
    base_model: str | None
    region: str | None
    api: str
    mode: Mode
    status: Status | None
    usage: Usage | None
    cost: Cost | None
    checkpoints: tuple[Checkpoint, ...] = ()
    miss: Miss | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    session: str | None = None
    error: str | None = None
    prefix: PrefixUse = field(default_factory=PrefixUse, repr=False)
    held: tuple[Rejected, ...] = ()
    at_least: bool = False
    retries: int = 0

    def contract(self) -> dict[str, Any]:
        """What each call tells, as plain JSON types (the `prompt_cache` of a response); `retries` if there were any."""
        return {
            **({"retries": self.retries} if self.retries else {}),
            "v": 1,
            "mode": self.mode,
            "status": self.status,
            "checkpoints": [
                {"path": point.path, "tokens": point.tokens, "ttl": point.ttl, "why": point.why}
                for point in self.checkpoints
            ],
            "held": [place.to_dict() for place in self.held],
            "usage": None if self.usage is None else self.usage.to_dict(),
            "cost": None if self.cost is None else self.cost.to_dict(),
            "miss": None if self.miss is None else self.miss.to_dict(),
        }

    def to_dict(self) -> dict[str, Any]:
        """The whole record as plain JSON types: what is known of the call, then its contract."""
        return {
            "started": self.started,
            "seconds": self.seconds,
            "model": self.model,
            "base_model": self.base_model,
            "region": self.region,
            "api": self.api,
            "session": self.session,
            "tags": dict(self.tags),
            "error": self.error,
            "at_least": self.at_least,
            "retries": self.retries,
            **self.contract(),
        }


class Told(NamedTuple):
    """What a call contract tells: the part of a record that travels with the answer."""

    mode: Mode
    status: Status | None
    usage: Usage | None
    cost: Cost | None
    checkpoints: tuple[Checkpoint, ...] = ()
    miss: Miss | None = None
    held: tuple[Rejected, ...] = ()
    retries: int = 0


def read_contract(contract: Mapping[str, Any]) -> Told:
    """The contract that `CallRecord.contract` printed; raises KeyError, TypeError or ValueError for another shape."""
    usage, cost, miss = contract["usage"], contract["cost"], contract["miss"]
    return Told(
        contract["mode"],
        contract["status"],
        None if usage is None else Usage(**usage),
        None
        if cost is None
        else Cost(**{name: Decimal(cost[name]) for name in _AMOUNTS}, prices_as_of=cost["prices_as_of"]),
        tuple(
            Checkpoint(
                -1, _where(point["path"]), None, point["ttl"], point["tokens"], Placed("quoted", text=point["why"]),
                path=point["path"],
            )
            for point in contract["checkpoints"]
        ),
        None if miss is None else Miss(**miss),
        # Answers kept from before `held` was told have none.
        tuple(Rejected(place["path"], place["reason"], text=place["why"]) for place in contract.get("held", ())),
        contract.get("retries", 0),
    )  # fmt: skip


def _where(path: str) -> Where:
    found = _PATH.fullmatch(path)
    if found is None:
        raise ValueError(f"{path!r} is no place in a request")
    message, nested = found["message"], found["nested"]
    section: Section = "messages" if message else "tools" if found["section"] == "tools" else "system"
    return Where(section, int(message) if message else None, int(found["item"]), int(nested) if nested else None)
