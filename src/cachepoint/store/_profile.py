"""A store's learned traffic as a file: what a deployment ships so that a fresh process plans like an old one.

Holds keyed digests, counts and times, and the digest key that makes them comparable; no text. What is in a file is
checked to the last number, for a profile is trusted for as long as it is shipped; what would keep prompts uncached for
good, with nothing to tell it otherwise, is in none.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, get_args

from cachepoint.core.prompt.prompt import DIGEST_BYTES
from cachepoint.core.prompt.tokens import Calibration
from cachepoint.core.provider.rules import TTL, parse_model_id
from cachepoint.core.traffic.entries import LATEST_TIME, Entry
from cachepoint.core.traffic.evidence import N_COUNTERS, Counts, added
from cachepoint.core.traffic.guard import Guard
from cachepoint.core.traffic.kinds import (
    AGAIN_KIND,
    COARSE,
    FIRST_KINDS,
    N_BUCKETS,
    SIZE_LIMITS,
    CurveKey,
    coarser,
)
from cachepoint.core.traffic.pool import Pool
from cachepoint.core.traffic.traffic import Traffic
from cachepoint.core.traffic.view import Seen
from cachepoint.core.traffic.waste import CARRIED, Waste
from cachepoint.errors import ConfigurationError
from cachepoint.store._base import KEY_BYTES
from cachepoint.store._shapes import (
    MisfitError,
    Shape,
    document,
    fault,
    flag,
    hexed,
    number,
    one_of,
    record,
    row,
    several,
    table,
    text,
    whole,
)

VERSION = 3
"""3: what belongs to a base model is told by model; 2 told all by scope; 1 faded by the event."""

_MOST_BYTES = 64 * 2**20
"""More than twice what a store of the default size writes: 96,000 boundaries of some 200 bytes …"""
_BYTES_A_BOUNDARY = 512
"""… and more than twice what a larger one does."""
_MANY = 4096
"""Models, scopes, curves of a model and splits of an entry: more than a store keeps of any."""
_NAME = 4096
"""Characters in the name of a scope or model, of which an ARN of 2,048 is the longest part (botocore's `modelId`)."""
_COUNTS = 1e12
"""Visits: more than anybody has in the days that they count for."""
_FACTORS = (0.1, 10.0)
"""Real tokens to estimated ones: beyond these no text is, and from either the next answers lead back within ten."""
_WON = CARRIED * 10_000_000
"""Tokens: what reads have won of the largest context window that any model has."""


# -- writing --------------------------------------------------------------------------------------


class _PoolNow(NamedTuple):
    calibration: Calibration
    waste: Waste
    curves: Mapping[CurveKey, Counts]
    told: Mapping[bytes, Seen]


class _ScopeNow(NamedTuple):
    model: str
    splits_trusted: bool
    seen: Mapping[bytes, Seen]
    entries: Mapping[bytes, Entry]


class Snapshot(NamedTuple):
    """What a store knows at one moment: copies of its tables, whose values never change."""

    key: bytes
    pools: Mapping[str, _PoolNow]
    scopes: Mapping[str, _ScopeNow]


def snapshot(key: bytes, pools: Mapping[str, Pool], scopes: Mapping[str, Traffic]) -> Snapshot:
    """What a profile is made of, taken while nothing changes; to write it takes much longer, and needs no lock."""
    models = {id(pool): model for model, pool in pools.items()}
    return Snapshot(
        key,
        {
            model: _PoolNow(
                pool.calibration, pool.waste, pool.habits.counted(max(pool.habits.newest, 0.0)), dict(pool.told)
            )
            for model, pool in pools.items()
        },
        {
            name: _ScopeNow(models[id(found.pool)], found.splits_trusted, dict(found.seen), dict(found.entries))
            for name, found in scopes.items()
        },
    )


def path_of(given: Any) -> Path:
    """The path that a profile is to have; raises ConfigurationError where what was given names no file."""
    try:
        path = Path(os.fsdecode(given))
    except TypeError:
        path = Path()
    if not path.name or "\0" in path.name:
        raise ConfigurationError(f"a profile's path is {given!r:.80}; give that of a file")
    return path


def write(path: str | os.PathLike[str], taken: Snapshot) -> None:
    """Write a profile, readable by its owner only; replaces the file in one step, and leaves it where that fails.

    Nothing is written through a symbolic link: one at `path` is replaced itself. Raises OSError, also where something
    stands there that is no file, such as a device, which only root could replace and the whole machine would miss.
    """
    target = Path(path)
    with suppress(FileNotFoundError):
        kind = target.lstat().st_mode
        if not (stat.S_ISREG(kind) or stat.S_ISLNK(kind)):
            raise OSError(errno.EEXIST, "it is no regular file", os.fspath(path))
    # A name of its own, so that two who write at once leave one whole file, and nobody can have put a link there.
    partial = target.with_name(f".cachepoint-{secrets.token_hex(8)}")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(_plain(taken), file, separators=(",", ":"), allow_nan=False)
                file.flush()
                os.fsync(file.fileno())  # or a crash may leave the new name with none of its content
            partial.replace(target)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
    except OSError as problem:  # which names the partial file, of which the user knows nothing
        raise OSError(problem.errno, problem.strerror, os.fspath(path)) from None


def _plain(taken: Snapshot) -> dict[str, Any]:
    told = {model: dict(pool.told) for model, pool in taken.pools.items()}
    for scope in taken.scopes.values():
        known = told[scope.model]
        known.update((d, seen) for d, seen in scope.seen.items() if d not in known or seen.times > known[d].times)
    return {
        "version": VERSION,
        "key": taken.key.hex(),
        "models": {model: _plain_pool(pool, told[model]) for model, pool in taken.pools.items()},
        "scopes": {name: _plain_scope(scope) for name, scope in taken.scopes.items()},
    }


def _plain_pool(pool: _PoolNow, told: Mapping[bytes, Seen]) -> dict[str, Any]:
    known = pool.calibration
    return {
        "calibration": [min(max(known.factor, _FACTORS[0]), _FACTORS[1]), known.spread, min(known.samples, _COUNTS)],
        "learned_minimum": 0,  # earlier releases want the member; see `_POOL`
        "won": min(pool.waste.carried(), _WON),
        "proven": sorted(pool.waste.proven),
        "curves": list(pool.curves.items()),
        # A boundary seen once says nothing a fresh process would not assume; most boundaries are such.
        "seen": {
            digest.hex(): [found.times, found.kind, found.born, found.gaps]
            for digest, found in told.items()
            if found.visits > 1
        },
    }


def _plain_scope(scope: _ScopeNow) -> dict[str, Any]:
    return {
        "model": scope.model,
        "splits_trusted": scope.splits_trusted,
        "entries": {
            digest.hex(): [entry.ttl, entry.used_at, [split.hex() for split in entry.splits]]
            for digest, entry in scope.entries.items()
            if entry.readable
        },
    }


# -- reading --------------------------------------------------------------------------------------


def _kind(value: Any) -> CurveKey:
    try:
        return _KINDS[tuple(value)]
    except (KeyError, TypeError):
        role, again, size = _KIND(value)
        # Seen before, sizes are not told apart.
        raise MisfitError(size, f"0 in a kind that is {role}, {again}") from None


def _gaps(value: Any) -> tuple[float, ...]:
    return () if value == [] else _GAPS(value)


def _seen(value: Any) -> Seen:
    times, kind, born, gaps = _SEEN(value)
    # Every gap ends with a visit. More of them, late ones, would outweigh what comes for as long as the file is used.
    if sum(gaps) > times * (1 + 1e-6):
        raise MisfitError(value[3], f"no more gaps than its {times:g} visits")
    return Seen(times, None, kind, born, gaps)


def _entry(value: Any) -> Entry:
    ttl, used_at, splits = _ENTRY(value)
    return Entry(ttl, used_at, splits)


def _curves(value: Any) -> dict[CurveKey, Counts]:
    curves = dict(_CURVES(value))
    if len(curves) < len(value):
        raise MisfitError(value, "a list in which each kind stands once")
    return curves


_ROLES = tuple(AGAIN_KIND)
_DIGEST = hexed(range(DIGEST_BYTES, DIGEST_BYTES + 1))
_COUNT = number(0, _COUNTS)
_KIND = row(one_of(*_ROLES), flag, whole(COARSE, len(SIZE_LIMITS)))
# The very tuples that traffic uses, since every boundary kept points at two; and looked up, since a profile has many.
_KINDS: Mapping[tuple[Any, ...], CurveKey] = {
    kind: kind for role in _ROLES for kind in (AGAIN_KIND[role], coarser(FIRST_KINDS[role][0]), *FIRST_KINDS[role])
}
_GAPS = row(*[_COUNT] * N_BUCKETS)
_SEEN = row(_COUNT, _kind, _kind, _gaps)
_ENTRY = row(one_of(*get_args(TTL)), number(0, LATEST_TIME), several(_DIGEST, _MANY))
_CURVES = several(row(_kind, row(*[_COUNT] * N_COUNTERS)), _MANY)
_POOL: Mapping[str, Shape[Any]] = {
    # No minimum that was learned: below it nothing is tried, so nothing would tell a wrong one; to find it out again
    # takes three requests, which cost what they cost without caching.
    "calibration": row(number(*_FACTORS), number(0, 1), _COUNT),
    "won": number(0, _WON),
    "proven": several(one_of(*_ROLES), len(_ROLES)),
    "curves": _curves,
    "seen": table(_DIGEST, _seen),
}
_SCOPE: Mapping[str, Shape[Any]] = {"splits_trusted": flag, "entries": table(_DIGEST, _entry)}
_VERSION = record({"version": whole(0, _MANY)})
_OPTIONAL = {"won": 0.0, "proven": ()}


_SHAPES: Mapping[int, Shape[dict[str, Any]]] = {
    2: record({
        "key": hexed(KEY_BYTES),
        "scopes": table(text(_NAME), record({**_POOL, **_SCOPE}, _OPTIONAL), _MANY),
    }),
    VERSION: record({
        "key": hexed(KEY_BYTES),
        "models": table(text(_NAME), record(_POOL, _OPTIONAL), _MANY),
        "scopes": table(text(_NAME), record({**_SCOPE, "model": text(_NAME)}), _MANY),
    }),
}  # fmt: skip
"""What a profile is to have, by the versions that can be read."""


def read(path: str | os.PathLike[str], boundaries: int) -> tuple[bytes, dict[str, Pool], dict[str, Traffic]]:
    """The key, the pools by base model and the scopes; `boundaries` is how many the store keeps.

    Raises ConfigurationError when the file is no profile, with what in it is wrong.
    """
    try:
        content = document(Path(path), max(_MOST_BYTES, boundaries * _BYTES_A_BOUNDARY))
        version = _VERSION(content)["version"]
        if version in _SHAPES:
            return _taken_in(_SHAPES[version](content))
    except (OSError, ValueError, RecursionError) as problem:
        raise ConfigurationError(
            f"{os.fspath(path)} is no profile: {fault(problem)}. Write one with MemoryStore.save, or start without"
        ) from None
    raise ConfigurationError(
        f"{os.fspath(path)}: a profile of version {version}; this cachepoint reads {' and '.join(map(str, _SHAPES))}, "
        "so save it anew"
    )


def _taken_in(content: Mapping[str, Any]) -> tuple[bytes, dict[str, Pool], dict[str, Traffic]]:
    key, pools = content["key"], dict[str, Pool]()
    told = content.get("models") or {}
    # A profile of version 2 tells of a model by scope: there is a row for each.
    rows = told.items() if "models" in content else [(_model(name), each) for name, each in content["scopes"].items()]
    for model, plain in rows:
        _tell(pools.setdefault(model, Pool(guard=Guard(key))), plain)
    scopes = {}
    for name, plain in content["scopes"].items():
        model = plain.get("model", _model(name))
        if model not in pools:
            raise MisfitError(model, f"the model of the scope {name[:60]!r}, and one of `models`")
        traffic = scopes[name] = Traffic(pools[model], splits_trusted=plain["splits_trusted"])
        traffic.entries.update(plain["entries"])
    return key, pools, scopes


def _model(scope: str) -> str:
    """The base model of a scope that a profile of version 2 names; the id itself where it does not tell."""
    model = scope.split("|")[-2] if "|" in scope else scope
    return parse_model_id(model).base or model


def _tell(pool: Pool, plain: Mapping[str, Any]) -> None:
    """Add a row to what a pool starts with."""
    told, curves = pool.habits.undated, plain["curves"]
    pool.habits.undated = {kind: added(told.get(kind), curves.get(kind)) for kind in {**told, **curves}}
    pool.calibration = max(pool.calibration, Calibration(*plain["calibration"]), key=lambda known: known.samples)
    pool.waste = Waste(purse=plain["won"], proven=frozenset(plain["proven"]))
    for digest, seen in plain["seen"].items():
        known = pool.told.get(digest)
        if known is None or seen.times > known.times:
            pool.told.put(digest, seen)
