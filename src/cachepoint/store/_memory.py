"""Learned traffic in this process's memory."""

from __future__ import annotations

import os
import secrets
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from operator import add, gt, sub
from typing import TypeVar

from cachepoint._forks import Lock
from cachepoint._later import catch_up
from cachepoint.core.provider.usage import Usage
from cachepoint.core.traffic.entries import Sent
from cachepoint.core.traffic.evidence import Delta
from cachepoint.core.traffic.guard import Guard
from cachepoint.core.traffic.kinds import NAMED
from cachepoint.core.traffic.latest import EMPTY, Latest, Room
from cachepoint.core.traffic.pool import Pool, Scope
from cachepoint.core.traffic.refusals import NOTHING_REFUSED, Outcome, Refusals
from cachepoint.core.traffic.static_plans import Habit
from cachepoint.core.traffic.traffic import Traffic
from cachepoint.core.traffic.view import Step, View
from cachepoint.core.traffic.waste import Waste
from cachepoint.errors import ConfigurationError
from cachepoint.store import _profile as profile
from cachepoint.store._base import is_whole, key_wanted

BOUNDARIES_KEPT = 96_000
"""All scopes together; about 350 bytes each, so that a store stays below 64 MiB with all else it keeps."""
_ENTRIES_SHARE = 10
"""An entry for so many boundaries: a request writes one or two, and has ten and more boundaries."""
_CURVES_SHARE = 10
"""A return curve, of about a kilobyte, for so many boundaries."""
_BLOCKS_SHARE = 1
"""A block of a recent request, of 24 bytes, for so many boundaries."""
_FURTHER = ""
"""The name of the model for which all are taken that there is no room to tell apart."""
_SLACK = 32
"""Room is made for one in so many more than asked for, so that it is seldom made."""
IDLE_SECONDS = 3600.0
"""A scope that was not used for so long has no entry left to lose, and gives up first what it remembers."""
POOLS_KEPT = 256
"""Base models told apart, some times more than Bedrock has; all further ones are taken for one model."""
SCOPES_KEPT = 1024
"""Scopes told apart, each with some kilobytes besides its boundaries …"""
REFUSALS_KEPT = 4096
"""… and scopes no longer kept of which is known what the service refused; of more, it holds for every new scope."""

_R = TypeVar("_R")


class MemoryStore:
    """Learned traffic in memory; safe to share between threads, and between models and clients.

    Keeps keyed digests, counts and times, never text. The key (16 to 64 bytes) is made at construction unless given.
    Raises ConfigurationError for another key, or where fewer than one boundary is to be kept.
    """

    def __init__(self, *, key: bytes | None = None, boundaries_kept: int = BOUNDARIES_KEPT) -> None:
        if key is not None and (wanted := key_wanted(key)):
            raise ConfigurationError(f"MemoryStore(key=…): {wanted}")
        if not is_whole(boundaries_kept) or boundaries_kept < 1:
            raise ConfigurationError(f"MemoryStore(boundaries_kept={boundaries_kept!r:.80}): use a whole number from 1")
        self.key = key if key is not None else secrets.token_bytes(32)
        self._most = Room(
            boundaries_kept,
            boundaries_kept // _ENTRIES_SHARE,
            boundaries_kept // _BLOCKS_SHARE,
        )
        self._most_curves = boundaries_kept // _CURVES_SHARE
        self._kept = EMPTY
        self._pools: dict[str, Pool] = {}
        self._scopes: dict[str, Traffic] = {}
        self._refused: dict[str, Refusals] = {}
        self._refused_somewhere = NOTHING_REFUSED
        self._refused_at = 0.0
        self._writers: Latest[str] = Latest()
        # A signal handler may look at the ledger in the middle of this, which settles what finalisers left: what it
        # changes waits until this is done.
        self._lock = Lock(self._in_child)
        self._inside = False
        self._waiting: deque[Callable[[], None]] = deque()

    def visit(
        self, scope: Scope, steps: Sequence[Step], history: bytes | None, now: float, habit: Habit | None = None
    ) -> View:
        """Remember a request's boundaries and return what was known before it."""
        return self._alone(lambda: self._visit(scope, steps, history, now, habit))

    def peek(self, scope: Scope, steps: Sequence[Step], now: float) -> View:
        """What is known, without remembering."""
        return self._alone(lambda: self._traffic(scope).view(steps, now))

    def sent(self, scope: Scope, sent: Sent, now: float) -> Waste | None:
        """A planned request goes out; where what may be risked does not cover it, the accounts as they stand by now."""
        return self._alone(lambda: self._sent(scope, sent, now))

    def began(self, scope: Scope, sent: Sent) -> None:
        """Its response began."""
        self._change(lambda: self._traffic(scope).began(sent))

    def failed(self, scope: Scope, sent: Sent, lost: bool = False) -> None:  # noqa: FBT001, FBT002
        """It failed before its response began; `lost` says that it may have been served all the same."""
        self._change(lambda: self._failed(scope, sent, lost=lost))

    def settled(self, scope: Scope, sent: Sent, usage: Usage | None, started: float) -> None:
        """Its answer is complete; `usage` is None when it never arrived."""
        self._change(lambda: self._settled(scope, sent, usage, started))

    def renewed(self, scope: Scope, sent: Sent, usage: Usage, started: float) -> None:
        """The prefix of an earlier request was sent again, to keep it alive and for nothing else."""
        self._change(lambda: self._renewed(scope, sent, usage, started))

    def test(self, scope: Scope, now: float) -> Refusals | None:
        """A request goes out that tests what the service refuses; where another does, what is known."""
        return self._alone(lambda: self._traffic(scope).test(now))

    def refuse(self, scope: Scope, outcome: Outcome) -> None:
        """What became of a request tells more of what the service refuses."""
        self._change(lambda: self._refuse(scope, outcome))

    def learn(self, scope: Scope, delta: Delta) -> None:
        """Add evidence of how boundaries come back that another keeper has, once each; docs/planner.md has the format.

        Raises ConfigurationError where a row has another length than here, or a count that is negative or no number.
        """
        delta.check()
        self._change(lambda: self._learn(scope, delta))

    def evidence(self, scope: Scope, now: float) -> Delta:
        """All that is known of how boundaries of this base model come back, what is under way as far as it has come."""
        catch_up()
        return self._alone(lambda: self._pool(scope.model).habits.evidence(now))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write what was learned to a file, a profile to ship with a deployment. It holds the digest key.

        The file is replaced in one step, or, where that fails with an OSError, left as it was; a symbolic link at
        `path` is replaced, not followed. Raises ConfigurationError where `path` names no file.
        """
        target = profile.path_of(path)
        catch_up()
        taken = self._alone(lambda: profile.snapshot(self.key, self._pools, self._scopes))
        profile.write(target, taken)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, boundaries_kept: int = BOUNDARIES_KEPT) -> MemoryStore:
        """A store that starts with a saved profile.

        Another account, endpoint or Region starts with what was learned of the same base model, but
        believes no entry alive there. Raises ConfigurationError when the file is no profile, with what is wrong in it.
        """
        store = cls(boundaries_kept=boundaries_kept)
        key, pools, scopes = profile.read(profile.path_of(path), boundaries_kept)
        store.key = key
        store._pools, store._scopes = pools, scopes
        store._share_out_curves()
        store._kept = store._counted()
        return store

    # -- parts ------------------------------------------------------------------------------------

    def _alone(self, do: Callable[[], _R]) -> _R:
        """Do it with no other thread in the store; what a signal handler changes in this one waits for the end.

        The interpreter itself takes and leaves the lock: a handler may raise between any two calls in here (Ctrl-C,
        Celery's soft time limit), and in an `__exit__` of ours that would be before it is left.
        """
        with self._lock.held:
            if self._inside:
                raise RuntimeError("the store is asked in the middle of another of its calls, by a signal handler")
            try:
                self._inside = True
                self._catch_up()
                done = do()
                self._catch_up()
                return done
            finally:
                self._inside = False

    def _in_child(self) -> None:
        """A child process keeps what was learned; the calls under way are its parent's."""
        self._inside = False
        for each in self._keepers():
            each.leave_what_is_under_way()
        self._kept = self._counted()

    def _change(self, change: Callable[[], None]) -> None:
        """Make a change, after those that wait; in the middle of another one it waits itself."""
        with self._lock.held:
            self._waiting.append(change)
            if not self._inside:
                self._alone(lambda: None)

    def _visit(
        self, scope: Scope, steps: Sequence[Step], history: bytes | None, now: float, habit: Habit | None
    ) -> View:
        with self._grown(scope, now) as traffic:
            view = traffic.visit(steps, history, now, habit)
            return view if view.entries else replace(view, other_scope=self._other_scope(scope, steps, now))

    def _catch_up(self) -> None:
        while self._waiting:
            self._waiting.popleft()()

    def _sent(self, scope: Scope, sent: Sent, now: float) -> Waste | None:
        with self._grown(scope, now) as traffic:
            uncovered = traffic.sent(sent, now)
        if uncovered is not None:
            return uncovered
        for point in sent.points:
            self._writers.put(point.digest, scope.name)
        self._writers.take_oldest(len(self._writers) - self._most.entries)
        return None

    def _refuse(self, scope: Scope, outcome: Outcome) -> None:
        self._refused_at = max(self._refused_at, outcome.at)
        self._traffic(scope).refuse(outcome)

    def _learn(self, scope: Scope, delta: Delta) -> None:
        pool = self._pool(scope.model)
        pool.habits.learn(delta)
        pool.habits.coarsen(self._curves_each)

    def _failed(self, scope: Scope, sent: Sent, *, lost: bool) -> None:
        with self._grown(scope, 0.0) as traffic:
            traffic.failed(sent, lost=lost)

    def _settled(self, scope: Scope, sent: Sent, usage: Usage | None, started: float) -> None:
        with self._grown(scope, started) as traffic:
            traffic.settled(sent, usage, started)

    def _renewed(self, scope: Scope, sent: Sent, usage: Usage, started: float) -> None:
        with self._grown(scope, started) as traffic:
            traffic.renewed(sent, usage, started)

    @contextmanager
    def _grown(self, scope: Scope, now: float) -> Iterator[Traffic]:
        """The traffic of a scope; afterwards it is made sure that all together keep what they may."""
        found = self._traffic(scope)
        before = found.kept()
        yield found
        found.habits.coarsen(self._curves_each)
        after = found.kept()
        if after != before:
            self._count(before, after)
            if any(map(gt, self._kept, self._most)):
                self._make_room(now)

    def _pool(self, model: str) -> Pool:
        found = self._pools.get(model)
        if found is None and len(self._pools) >= POOLS_KEPT:
            model = _FURTHER
            found = self._pools.get(model)
        if found is None:
            found = self._pools[model] = Pool(guard=Guard(self.key))
            self._share_out_curves()
        return found

    @property
    def _curves_each(self) -> int:
        """How many curves each base model may keep."""
        return self._most_curves // max(len(self._pools), 1)

    def _share_out_curves(self) -> None:
        for pool in self._pools.values():
            pool.habits.coarsen(self._curves_each)

    def _traffic(self, scope: Scope) -> Traffic:
        found = self._scopes.pop(scope.name, None)
        if found is None:
            found = self._start(scope)
        self._scopes[scope.name] = found  # the last one used goes last, so the first is the one to forget
        return found

    def _start(self, scope: Scope) -> Traffic:
        refusals = self._refused.pop(scope.name, self._refused_somewhere)
        traffic = Traffic(self._pool(scope.model), refusals=refusals)
        while len(self._scopes) >= SCOPES_KEPT:
            self._forget(next(iter(self._scopes)))
        return traffic

    def _forget(self, name: str) -> None:
        """Forget a scope but for what the service refused there. The accounts of its model have all that it cost."""
        traffic = self._scopes.pop(name)
        self._count(traffic.kept(), EMPTY)
        traffic.keep(EMPTY, max(traffic.latest, traffic.habits.newest))
        if traffic.refusals != NOTHING_REFUSED:
            self._refused[name] = traffic.refusals
        while len(self._refused) > REFUSALS_KEPT:
            further = self._refused.pop(next(iter(self._refused)))
            self._refused_somewhere = self._refused_somewhere.merged(further, self._refused_at)

    def _count(self, before: Room, after: Room) -> None:
        self._kept = Room(*map(add, self._kept, map(sub, after, before)))

    def _counted(self) -> Room:
        kept = [each.kept() for each in self._keepers()]
        return Room(*(map(sum, zip(*kept, strict=True)) if kept else EMPTY))

    def _keepers(self) -> list[Traffic | Pool]:
        return [*self._scopes.values(), *self._pools.values()]

    def _make_room(self, now: float) -> None:
        """Idle scopes, then those that keep most, give up what they used longest ago, until there is room."""
        for traffic in self._scopes.values():
            if 0 < traffic.latest < now - IDLE_SECONDS:
                traffic.keep(EMPTY, now)
        kept = [each.kept() for each in self._keepers()]
        level = Room(*map(_level, zip(*kept, strict=True), self._most))
        for each, room in zip(self._keepers(), kept, strict=True):
            if any(map(gt, room, level)):
                each.keep(level, now)
        self._kept = self._counted()

    def _other_scope(self, scope: Scope, steps: Sequence[Step], now: float) -> bool:
        """Whether an entry of any of these prefixes is believed alive in another scope."""
        for step in steps:
            if step.role in NAMED and (name := self._writers.get(step.digest, scope.name)) != scope.name:
                other = self._scopes.get(name)
                if other is not None and other.holds((step.digest,), now):
                    return True
        return False


def _level(parts: Sequence[int], most: int) -> int:
    """The level to which parts are cut that are together more than they may be; else the largest of them."""
    if sum(parts) <= most:
        return max(parts)
    left = most - most // _SLACK
    for index, part in enumerate(sorted(parts)):
        share = left // (len(parts) - index)
        if part > share:
            return share
        left -= part
    return max(parts)
