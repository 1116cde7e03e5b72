"""What a store of learned traffic does; a shared one fits the same face."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from cachepoint.core.provider.usage import Usage
from cachepoint.core.traffic.entries import Sent
from cachepoint.core.traffic.evidence import Delta
from cachepoint.core.traffic.pool import Scope
from cachepoint.core.traffic.refusals import Outcome, Refusals
from cachepoint.core.traffic.static_plans import Habit
from cachepoint.core.traffic.view import Step, View
from cachepoint.core.traffic.waste import Waste

KEY_BYTES = range(16, 64 + 1)
"""A shorter key can be guessed, and then of which text a digest is; BLAKE2b takes no longer one (RFC 7693, 2.1)."""


def key_wanted(key: Any) -> str | None:
    """What is wrong with a digest key, and what to use instead; None where it will do."""
    if not isinstance(key, bytes):
        return f"its key is a {type(key).__name__}; use bytes, such as secrets.token_bytes(32)"
    if len(key) not in KEY_BYTES:
        return f"its key has {len(key)} bytes; use {KEY_BYTES[0]} to {KEY_BYTES[-1]}, such as secrets.token_bytes(32)"
    return None


def is_whole(value: Any) -> bool:
    """Whether this is a whole number, which True is not."""
    return isinstance(value, int) and not isinstance(value, bool)


class Store(Protocol):
    """Learned traffic: boundaries, entries and refusals by scope, habits by its base model.

    Digests only: no prompt text ever reaches a store. `key` keys the digests of all who use the store. All times are
    wall time in seconds. A store keeps a sum of deltas, which merge in any order and grouping, so that several can
    share what they learned.
    """

    @property
    def key(self) -> bytes:
        """The digest key (32 bytes), made once."""
        ...

    def visit(
        self, scope: Scope, steps: Sequence[Step], history: bytes | None, now: float, habit: Habit | None = None
    ) -> View:
        """Remember a request's boundaries and return what was known before it.

        `habit` is the kind of request that the guard of static plans judges it with; without one it is not guarded.
        """
        ...

    def peek(self, scope: Scope, steps: Sequence[Step], now: float) -> View:
        """What is known, without remembering."""
        ...

    def sent(self, scope: Scope, sent: Sent, now: float) -> Waste | None:
        """A planned request goes out, and what it may cost is reserved.

        Where what may be risked does not cover it, nothing is remembered, and the accounts as they stand are given.
        """
        ...

    def began(self, scope: Scope, sent: Sent) -> None:
        """Its response began."""
        ...

    def failed(self, scope: Scope, sent: Sent, lost: bool = False) -> None:  # noqa: FBT001, FBT002
        """It failed before its response began; `lost` says that it may have been served all the same."""
        ...

    def settled(self, scope: Scope, sent: Sent, usage: Usage | None, started: float) -> None:
        """Its answer is complete; `usage` is None when it never arrived."""
        ...

    def renewed(self, scope: Scope, sent: Sent, usage: Usage, started: float) -> None:
        """The prefix of an earlier request was sent again, to keep it alive and for nothing else."""
        ...

    def test(self, scope: Scope, now: float) -> Refusals | None:
        """A request goes out that tests what the service refuses; where another does, what is known."""
        ...

    def refuse(self, scope: Scope, outcome: Outcome) -> None:
        """What became of a request tells more of what the service refuses."""
        ...

    def learn(self, scope: Scope, delta: Delta) -> None:
        """Add evidence that another keeper has of how boundaries of this base model come back.

        docs/planner.md has the format. Each piece of evidence is to be learned once: a delta that is added twice
        counts twice. Raises ConfigurationError where it is none.
        """
        ...

    def evidence(self, scope: Scope, now: float) -> Delta:
        """All that is known of how boundaries of this base model come back, what is under way as far as it has come."""
        ...
