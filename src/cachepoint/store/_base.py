"""What a store of learned traffic does; a shared one fits the same face."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from cachepoint.core.provider.usage import Usage
from cachepoint.core.traffic.entries import Sent
from cachepoint.core.traffic.evidence import Delta
from cachepoint.core.traffic.view import Step, View


class Store(Protocol):
    """Learned traffic by scope. Digests only: no prompt text ever reaches a store.

    `key` keys the digests of all who use the store. All times are wall time in seconds. A store keeps a sum of
    deltas, which merge in any order and grouping, so that several can share what they learned.
    """

    @property
    def key(self) -> bytes:
        """The digest key (32 bytes), made once."""
        ...

    def visit(self, scope: str, steps: Sequence[Step], history: bytes | None, now: float) -> View:
        """Remember a request's boundaries and return what was known before it."""
        ...

    def peek(self, scope: str, steps: Sequence[Step], now: float) -> View:
        """What is known, without remembering."""
        ...

    def sent(self, scope: str, sent: Sent, now: float) -> None:
        """A planned request goes out."""
        ...

    def began(self, scope: str, sent: Sent) -> None:
        """Its response began."""
        ...

    def failed(self, scope: str, sent: Sent) -> None:
        """It failed before its response began."""
        ...

    def settled(self, scope: str, sent: Sent, usage: Usage | None, started: float) -> None:
        """Its answer is complete; `usage` is None when it never arrived."""
        ...

    def renewed(self, scope: str, sent: Sent, usage: Usage, started: float) -> None:
        """The prefix of an earlier request was sent again, to keep it alive and for nothing else."""
        ...

    def refuse(self, scope: str, refused: str) -> None:
        """The service refused checkpoints in a section, or the TTL `legality.LONG_TTL`."""
        ...

    def learn(self, scope: str, delta: Delta) -> None:
        """Add evidence of how boundaries come back that another keeper has; docs/planner.md has the format.

        Each piece of evidence is to be learned once: a delta that is added twice counts twice. Raises
        ConfigurationError where it is none.
        """
        ...

    def evidence(self, scope: str, now: float) -> Delta:
        """All that is known of how boundaries come back, what is under way as far as it has come."""
        ...
