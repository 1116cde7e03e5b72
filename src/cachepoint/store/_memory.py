"""Learned traffic in this process's memory."""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Sequence
from dataclasses import replace

from cachepoint.core.provider.usage import Usage
from cachepoint.core.traffic.return_curves import NAMED
from cachepoint.core.traffic.traffic import Traffic
from cachepoint.core.traffic.view import Sent, Step, View
from cachepoint.store import _profile as profile

BOUNDARIES_KEPT = 120_000
"""All scopes together; about 300 bytes each, so that a store stays below 64 MiB."""
SCOPES_KEPT = 128
"""Each keeps habits besides its boundaries: some 200 KiB where there are many scopes."""


class MemoryStore:
    """Learned traffic in memory; safe to share between threads, and between models and clients.

    Keeps keyed digests, counts and times, never text. The key is made at construction unless given.
    """

    def __init__(self, *, key: bytes | None = None, boundaries_kept: int = BOUNDARIES_KEPT) -> None:
        self.key = key if key is not None else secrets.token_bytes(32)
        self._boundaries_kept = boundaries_kept
        self._scopes: dict[str, Traffic] = {}
        self._learned: dict[str, Traffic] = {}
        # An abandoned stream settles itself when it is collected, which may be in the middle of another call.
        self._lock = threading.RLock()

    def visit(self, scope: str, steps: Sequence[Step], history: bytes | None, now: float) -> View:
        """Remember a request's boundaries and return what was known before it."""
        with self._lock:
            view = self._traffic(scope).visit(steps, history, now)
            return view if view.entries else replace(view, other_scope=self._other_scope(scope, steps, now))

    def peek(self, scope: str, steps: Sequence[Step], now: float) -> View:
        """What is known, without remembering."""
        with self._lock:
            return self._traffic(scope).view(steps, now)

    def sent(self, scope: str, sent: Sent, now: float) -> None:
        """A planned request goes out."""
        with self._lock:
            self._traffic(scope).sent(sent, now)

    def began(self, scope: str, sent: Sent) -> None:
        """Its response began."""
        with self._lock:
            self._traffic(scope).began(sent)

    def failed(self, scope: str, sent: Sent) -> None:
        """It failed before its response began."""
        with self._lock:
            self._traffic(scope).failed(sent)

    def settled(self, scope: str, sent: Sent, usage: Usage | None, started: float) -> None:
        """Its answer is complete; `usage` is None when it never arrived."""
        with self._lock:
            self._traffic(scope).settled(sent, usage, started)

    def refuse(self, scope: str, refused: str) -> None:
        """The service refused checkpoints in a section, or the TTL `legality.LONG_TTL`."""
        with self._lock:
            self._traffic(scope).refuse(refused)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write what was learned to a file, a profile to ship with a deployment. It holds the digest key."""
        with self._lock:
            profile.write(path, self.key, self._scopes)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, boundaries_kept: int = BOUNDARIES_KEPT) -> MemoryStore:
        """A store that starts with a saved profile.

        Another account, endpoint or Region starts with what was learned of the same model and API, but
        believes no entry alive there. Raises ConfigurationError when the file is no profile.
        """
        key, scopes = profile.read(path)
        store = cls(key=key, boundaries_kept=boundaries_kept)
        store._scopes = dict(scopes)
        store._learned = dict(scopes)
        return store

    def _other_scope(self, scope: str, steps: Sequence[Step], now: float) -> bool:
        digests = [step.digest for step in steps if step.role in NAMED]
        return any(other.holds(digests, now) for name, other in self._scopes.items() if name != scope)

    def _start(self, scope: str) -> Traffic:
        like = [found for name, found in self._learned.items() if name.split("|")[-2:] == scope.split("|")[-2:]]
        return like[-1].like() if like else Traffic()

    def _traffic(self, scope: str) -> Traffic:
        found = self._scopes.pop(scope, None)
        if found is None:
            found = self._start(scope)
            while len(self._scopes) >= SCOPES_KEPT:
                del self._scopes[next(iter(self._scopes))]
        self._scopes[scope] = found  # the last one used goes last, so the first is the one to forget
        found.limit_boundaries(self._boundaries_kept // len(self._scopes))
        return found
