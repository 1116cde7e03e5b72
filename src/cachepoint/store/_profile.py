"""A store's learned traffic as a file: what a deployment ships so that a fresh process plans like an old one.

Holds keyed digests, counts and times, and the digest key that makes them comparable; no text.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from math import inf
from pathlib import Path
from typing import Any

from cachepoint.core.prompt.tokens import Calibration
from cachepoint.core.provider.rules import parse_model_id
from cachepoint.core.traffic.entries import Entry
from cachepoint.core.traffic.evidence import N_COUNTERS, added
from cachepoint.core.traffic.guard import Guard
from cachepoint.core.traffic.kinds import AGAIN_KIND, COARSE, FIRST_KINDS, N_BUCKETS, CurveKey, coarser
from cachepoint.core.traffic.pool import Pool
from cachepoint.core.traffic.traffic import Traffic
from cachepoint.core.traffic.view import Seen
from cachepoint.core.traffic.waste import Waste
from cachepoint.errors import ConfigurationError

VERSION = 3
"""3: what belongs to a base model is told by model; 2 told all by scope; 1 faded by the event."""
READ = (2, VERSION)
"""The versions that can be read."""


def write(path: str | os.PathLike[str], key: bytes, pools: Mapping[str, Pool], scopes: Mapping[str, Traffic]) -> None:
    """Write a profile, readable by its owner only; replaces the file in one step."""
    told = {model: dict(pool.told) for model, pool in pools.items()}
    models = {id(pool): model for model, pool in pools.items()}
    for traffic in scopes.values():
        known = told[models[id(traffic.pool)]]
        known.update((d, seen) for d, seen in traffic.seen.items() if d not in known or seen.times > known[d].times)
    content = {
        "version": VERSION,
        "key": key.hex(),
        "models": {model: _plain_pool(pool, told[model]) for model, pool in pools.items()},
        "scopes": {name: _plain_scope(found, models[id(found.pool)]) for name, found in scopes.items()},
    }
    target = Path(path)
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(content, file, separators=(",", ":"))
    partial.replace(target)


def read(path: str | os.PathLike[str]) -> tuple[bytes, dict[str, Pool], dict[str, Traffic]]:
    """The key, the pools by base model and the scopes; raises ConfigurationError when the file is no profile."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        if content["version"] not in READ:
            raise ConfigurationError(
                f"{os.fspath(path)}: a profile of version {content['version']!r}; this cachepoint reads "
                f"{' and '.join(map(str, READ))}, so save it anew"
            )
        key, scopes = bytes.fromhex(content["key"]), content["scopes"]
        models = content["models"].items() if "models" in content else [(_model(name), scopes[name]) for name in scopes]
        pools: dict[str, Pool] = {}
        for model, plain in models:
            _tell(pools.setdefault(model, Pool(guard=Guard(key))), plain)
        return (
            key,
            pools,
            {name: _scope(plain, pools[plain.get("model", _model(name))]) for name, plain in scopes.items()},
        )
    except (json.JSONDecodeError, UnicodeDecodeError, AttributeError, LookupError, TypeError, ValueError) as problem:
        if isinstance(problem, ConfigurationError):
            raise
        raise ConfigurationError(
            f"{os.fspath(path)} is no profile ({type(problem).__name__}); write one with MemoryStore.save"
        ) from None


def _model(scope: str) -> str:
    """The base model of a scope that a profile of version 2 names; the id itself where it does not tell."""
    model = scope.split("|")[-2] if "|" in scope else scope
    return parse_model_id(model).base or model


def _plain_pool(pool: Pool, told: Mapping[bytes, Seen]) -> dict[str, Any]:
    return {
        "calibration": [pool.calibration.factor, pool.calibration.spread, pool.calibration.samples],
        "learned_minimum": pool.learned_minimum,
        "won": pool.waste.carried(),
        "proven": sorted(pool.waste.proven),
        "curves": list(pool.habits.counted(max(pool.habits.newest, 0.0)).items()),
        # A boundary seen once says nothing a fresh process would not assume; most boundaries are such.
        "seen": {
            digest.hex(): [found.times, found.kind, found.born, found.gaps]
            for digest, found in told.items()
            if found.visits > 1
        },
    }


def _plain_scope(traffic: Traffic, model: str) -> dict[str, Any]:
    return {
        "model": model,
        "splits_trusted": traffic.splits_trusted,
        "entries": {
            digest.hex(): [entry.ttl, entry.used_at, [split.hex() for split in entry.splits]]
            for digest, entry in traffic.entries.items()
            if entry.readable
        },
    }


def _tell(pool: Pool, plain: Mapping[str, Any]) -> None:
    """Add a row to what a pool starts with: of version 2 there is one for every scope."""
    curves = {_kind(kind): tuple(_of(N_COUNTERS, counts)) for kind, counts in plain["curves"]}
    told = pool.habits.undated
    pool.habits.undated = {kind: added(told.get(kind), curves.get(kind)) for kind in {**told, **curves}}
    pool.calibration = max(pool.calibration, Calibration(*plain["calibration"]), key=lambda known: known.samples)
    pool.learned_minimum = max(pool.learned_minimum, plain["learned_minimum"])
    won = float(plain.get("won", 0.0))
    proven = frozenset(role for role in AGAIN_KIND if role in plain.get("proven", ()))
    pool.waste = Waste(purse=won if 0 < won < inf else 0.0, proven=proven)
    for digest, (times, kind, born, gaps) in plain["seen"].items():
        own, known = tuple(gaps and _of(N_BUCKETS, gaps)), pool.told.get(bytes.fromhex(digest))
        if known is None or times > known.times:
            pool.told.put(bytes.fromhex(digest), Seen(times, None, _kind(kind), _kind(born), own))


def _scope(plain: Mapping[str, Any], pool: Pool) -> Traffic:
    # What was refused on another day, which older profiles tell, is found out anew: the service may have changed since.
    traffic = Traffic(pool, splits_trusted=plain["splits_trusted"])
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
