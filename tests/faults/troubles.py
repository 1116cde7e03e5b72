"""What can go wrong, as Hypothesis strategies."""

from __future__ import annotations

import errno
import io
import json
import math
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from converse_kit import DOCUMENT, SYSTEM, Json, assistant, question, text, user
from converse_requests import CLAUDE, MODELS, conversations, words
from faults.campaign import Case, Service, Trouble
from faults.ways import CONVERSE, FRAMEWORKS, INVOKE, Way
from faults.wordings import WORDINGS
from hypothesis import strategies as st
from messages_requests import as_messages

import cachepoint
from cachepoint import CacheLedger
from cachepoint.core.provider.rules import SECTIONS
from cachepoint.emulator import (
    cut_stream,
    failed,
    reset_after_serving,
    reset_before_serving,
    slow,
    stream_error,
    throttled,
)
from cachepoint.errors import ConfigurationError
from cachepoint.sinks import JsonLines
from cachepoint.store import MemoryStore

CALLS = 4


class Broken(RuntimeError):
    """What a part that the user gave raises."""


def _raises(*_: Any, **__: Any) -> Any:
    raise Broken


def _broken_store(method: str) -> Callable[[], Mapping[str, Any]]:
    def options() -> Mapping[str, Any]:
        store = MemoryStore()
        setattr(store, method, _raises)
        return {"store": store}

    return options


class _Prices:
    def __init__(self, answer: Any) -> None:
        self._answer = answer

    def price(self, *_: Any, **__: Any) -> Any:
        return _raises() if self._answer is Broken else self._answer


def _clock(readings: Any) -> Callable[[], Mapping[str, Any]]:
    return lambda: {"clock": _raises if readings is Broken else lambda: readings}


class _FullDisk(io.StringIO):
    def write(self, _: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


@cache
def _profile() -> str:
    """A profile as a deployment has it."""
    service, store = Service(), MemoryStore()
    client = cachepoint.wrap(service.client, store=store, clock=lambda: service.now)
    for number in range(3):
        client.converse(**question(number))
    with TemporaryDirectory() as folder:
        store.save(Path(folder, "profile.json"))
        return Path(folder, "profile.json").read_text(encoding="utf-8")


def _leaves(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield at
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in pairs:
        yield from _leaves(each, (*at, key))


_ODD: tuple[Any, ...] = (None, True, -1, 1e308, 10**30, "", "zz", [], {}, [[]], {"a": 1})


def _damaged(place: int, value: Any) -> Callable[[], Mapping[str, Any]]:
    """A store of a profile with one value changed, a new one where that is refused."""

    def options() -> Mapping[str, Any]:
        content = json.loads(_profile())
        places = [*_leaves(content)][1:]
        *above, last = places[place % len(places)]
        inner = content
        for key in above:
            inner = inner[key]
        inner[last] = value
        with TemporaryDirectory() as folder:
            path = Path(folder, "profile.json")
            path.write_text(json.dumps(content), encoding="utf-8")
            try:
                return {"store": MemoryStore.load(path)}
            except ConfigurationError:
                return {}

    return options


SERVICE = (
    ("throttled", throttled()),
    ("500", failed()),
    ("503", failed("ServiceUnavailableException")),
    ("model not ready", failed("ModelNotReadyException")),
    ("time-out of the model", failed("ModelTimeoutException")),
    ("no such model", failed("ResourceNotFoundException")),
    ("reset before serving", reset_before_serving()),
    ("reset after serving", reset_after_serving()),
    ("slow", slow(0.001)),
)
_METHODS = ("visit", "peek", "sent", "began", "settled", "failed", "refuse", "test")
USERS = (
    *((f"store: {method}", _broken_store(method)) for method in _METHODS),
    ("clock raises", _clock(Broken)),
    ("clock gives NaN", _clock(math.nan)),
    ("clock gives infinity", _clock(math.inf)),
    ("clock gives None", _clock(None)),
    ("sink raises", lambda: {"ledger": CacheLedger(on_call=_raises)}),
    ("disk full", lambda: {"ledger": CacheLedger(on_call=JsonLines(_FullDisk()))}),
    ("prices raise", lambda: {"prices": _Prices(Broken)}),
    ("prices give a float", lambda: {"prices": _Prices(0.25)}),
    ("prices give a string", lambda: {"prices": _Prices("much")}),
)


@st.composite
def _troubles(draw: st.DrawFn, way: Way) -> Trouble:
    at = draw(st.integers(0, CALLS - 1))
    kinds = ["service", "service", "refused", "refused", "bad request", "denied", "evicted", "clock", "user"]
    kinds += ["user", "profile", "nothing"]
    kinds += ["cut", "left"] * way.streams + ["cancelled"] * (way.awaits and not way.framework)
    match draw(st.sampled_from(kinds)):
        case "service":
            name, fault = draw(st.sampled_from(SERVICE))
            return Trouble(name, at, fault=fault)
        case "refused":
            section = draw(st.sampled_from(SECTIONS))
            return Trouble("refused checkpoints", at, refused=(section, draw(st.sampled_from(WORDINGS))))
        case "bad request":
            # The service says the same however often it is asked.
            fault = failed("ValidationException", draw(st.sampled_from(WORDINGS)) or "no")
            return Trouble("request of the user's refused", at, fault=fault, times=draw(st.sampled_from([1, 2])))
        case "denied":
            fault = failed("AccessDeniedException", draw(st.sampled_from(WORDINGS)) or "no")
            return Trouble("access denied", at, fault=fault, times=draw(st.sampled_from([1, 2])))
        case "evicted":
            return Trouble("evicted", at, evicted=True)
        case "clock":
            seconds = draw(st.sampled_from([-1e9, -3600.0, -1.0, 301.0, 3601.0, 1e6, 1e9]))
            return Trouble("clock jumps", at, jump=seconds)
        case "user":
            name, options = draw(st.sampled_from(USERS))
            return Trouble(name, options=options)
        case "profile":
            place, value = draw(st.integers(0, 10_000)), draw(st.sampled_from(_ODD))
            return Trouble("hostile profile", options=_damaged(place, value))
        case "cut":
            return _cut(draw, at)
        case "left":
            return Trouble("left early", at, events=draw(st.integers(1, 12)))
        case "cancelled":
            return Trouble("cancelled", at, await_=draw(st.integers(1, 12)))
    return Trouble("nothing")


def _cut(draw: st.DrawFn, at: int) -> Trouble:
    after = draw(st.integers(0, 12))
    how = draw(st.sampled_from(["reset", "quietly", "ThrottlingException", "ModelStreamErrorException"]))
    if how in ("reset", "quietly"):
        return Trouble("stream cut", at, fault=cut_stream(after, quietly=how == "quietly"))
    return Trouble("stream ends in an error", at, fault=stream_error(how, after))


@st.composite
def _chats(draw: st.DrawFn) -> list[Json]:
    """Requests of text alone, as every framework makes: a conversation that grows, or questions to one text."""
    model = draw(st.sampled_from(CLAUDE))
    system = draw(st.sampled_from([SYSTEM, SYSTEM[:400], DOCUMENT]))
    first = [text(system)] if draw(st.integers(0, 3)) else None
    grows = draw(st.booleans())
    turns: list[Json] = []
    made: list[Json] = []
    for number in range(CALLS):
        asked = draw(words).strip() + f" ({number})"
        turns = [*turns, user(asked)] if grows else [user(asked)]
        made.append({"modelId": model, "messages": turns} | ({"system": first} if first else {}))
        turns = [*turns, assistant("An answer.")]
    return made


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """A case of the campaign."""
    way = draw(st.sampled_from((*CONVERSE, *INVOKE, *FRAMEWORKS)))
    if way.framework:
        requests = draw(_chats())
    elif way in INVOKE:
        asked = draw(conversations(CLAUDE, turns=CALLS))
        requests = [{"modelId": each["modelId"], **as_messages(each)} for each in asked]
    else:
        requests = draw(conversations(MODELS, turns=CALLS))
    return Case(way, requests, draw(_troubles(way)))
