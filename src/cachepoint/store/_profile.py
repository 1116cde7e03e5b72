"""A store's learned traffic as a file: what a deployment ships so that a fresh process plans like an old one.

Holds keyed digests, counts and times, and the digest key that makes them comparable; no text.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cachepoint.core.prompt.tokens import Calibration
from cachepoint.core.traffic.entries import Entry
from cachepoint.core.traffic.evidence import N_COUNTERS
from cachepoint.core.traffic.kinds import AGAIN_KIND, COARSE, FIRST_KINDS, N_BUCKETS, CurveKey, coarser
from cachepoint.core.traffic.return_curves import Habits
from cachepoint.core.traffic.traffic import Traffic
from cachepoint.core.traffic.view import Seen
from cachepoint.errors import ConfigurationError

VERSION = 2
"""2: curves are plain counts that fade from their first use on; 1 faded them by the event."""


def write(path: str | os.PathLike[str], key: bytes, scopes: Mapping[str, Traffic]) -> None:
    """Write a profile, readable by its owner only; replaces the file in one step."""
    content = {"version": VERSION, "key": key.hex(), "scopes": {name: _plain(found) for name, found in scopes.items()}}
    target = Path(path)
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(content, file, separators=(",", ":"))
    partial.replace(target)


def read(path: str | os.PathLike[str]) -> tuple[bytes, dict[str, Traffic]]:
    """The key and the scopes of a profile; raises ConfigurationError when the file is none."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        if content["version"] != VERSION:
            raise ConfigurationError(
                f"{os.fspath(path)}: a profile of version {content['version']!r}; this cachepoint reads {VERSION}, "
                "so save it anew"
            )
        key = bytes.fromhex(content["key"])
        return key, {name: _traffic(found) for name, found in content["scopes"].items()}
    except (json.JSONDecodeError, UnicodeDecodeError, AttributeError, LookupError, TypeError, ValueError) as problem:
        if isinstance(problem, ConfigurationError):
            raise
        raise ConfigurationError(
            f"{os.fspath(path)} is no profile ({type(problem).__name__}); write one with MemoryStore.save"
        ) from None


def _plain(traffic: Traffic) -> dict[str, Any]:
    # A boundary seen once says nothing a fresh process would not assume; most boundaries are such.
    seen = {
        digest.hex(): [found.times, found.kind, found.born, found.gaps]
        for digest, found in traffic.seen.items()
        if found.visits > 1
    }
    return {
        "calibration": [traffic.calibration.factor, traffic.calibration.spread, traffic.calibration.samples],
        "learned_minimum": traffic.learned_minimum,
        "refused": sorted(traffic.refused),
        "splits_trusted": traffic.splits_trusted,
        "curves": list(traffic.habits.counted(traffic.latest).items()),
        "seen": seen,
        "entries": {
            digest.hex(): [entry.ttl, entry.used_at, [split.hex() for split in entry.splits]]
            for digest, entry in traffic.entries.items()
            if entry.readable
        },
    }


def _traffic(plain: Mapping[str, Any]) -> Traffic:
    curves = {_kind(kind): tuple(_of(N_COUNTERS, counts)) for kind, counts in plain["curves"]}
    traffic = Traffic(
        calibration=Calibration(*plain["calibration"]),
        learned_minimum=plain["learned_minimum"],
        refused=frozenset(plain["refused"]),
        splits_trusted=plain["splits_trusted"],
        habits=Habits(undated=curves),
    )
    for digest, (times, kind, born, gaps) in plain["seen"].items():
        own = tuple(gaps and _of(N_BUCKETS, gaps))
        traffic.seen.put(bytes.fromhex(digest), Seen(times, None, _kind(kind), _kind(born), own))
    for digest, (ttl, used_at, splits) in plain["entries"].items():
        traffic.entries[bytes.fromhex(digest)] = Entry(ttl, used_at, tuple(bytes.fromhex(split) for split in splits))
    return traffic


def _of(length: int, plain: Sequence[Any]) -> Sequence[Any]:
    if len(plain) != length:
        raise ValueError(f"{len(plain)} for {length}")
    return plain


def _kind(plain: Sequence[Any]) -> CurveKey:
    role, again, size = plain
    # The very tuples that traffic uses, since every boundary kept points at two.
    return AGAIN_KIND[role] if again else coarser(FIRST_KINDS[role][0]) if size == COARSE else FIRST_KINDS[role][size]
