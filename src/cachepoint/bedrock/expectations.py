"""What a user says of requests to come, around the calls it is about."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import reduce
from typing import Any

from cachepoint.bedrock.blocks import in_block
from cachepoint.core.planning.expectation import NOTHING_SAID, Expectation
from cachepoint.errors import ConfigurationError

PARAMETER = "prompt_cache_expect"
"""Its name in the frameworks: in LangChain's config, in LlamaIndex's arguments, and on a message of either."""

_EXPECTED: ContextVar[Expectation] = ContextVar("cachepoint_expected", default=NOTHING_SAID)


@contextmanager
def expect(*, ends: bool | None = None, back_in: float | None = None, times: int | None = None) -> Iterator[None]:
    """Say what you know of the requests that follow the ones in the block; it goes before what was learned.

    - `ends=True`: no turn of this conversation follows, so its tail and history are not written, and what others share
      is; those of an agent, which goes on after a tool call, are not written for an hour. `ends=False`: one follows.
    - `back_in`: within how many seconds of each call the next one comes, which decides its TTL; one that is back later
      than in an hour is not written. The conversation goes on then; with `times` it is the context that is back.
    - `times`: how often a context such as a document comes in all, this request included. A context is what was marked
      as one, else the system prompt and the largest block in front of the question, or of one string all but its end.

    Each prefix so named may cost one write beyond the bound on waste. Inner blocks go before outer ones. Raises
    ConfigurationError on any other value.
    """
    said = Expectation(ends, back_in, times)
    if said == NOTHING_SAID:
        raise ConfigurationError("expect() says nothing: give ends=…, back_in=… or times=…")
    with expecting(said):
        yield


@contextmanager
def expecting(said: Expectation) -> Iterator[None]:
    """The same with what was said elsewhere, as in a framework's arguments."""
    with in_block(_EXPECTED, said.inside(_EXPECTED.get())):
        yield


def said_by(given: Iterable[Any]) -> Expectation:
    """What several say together, each a dict, an Expectation or None; the later ones go before the earlier.

    Raises ConfigurationError for anything else.
    """
    return reduce(lambda before, said: Expectation.of(said).inside(before), given, NOTHING_SAID)


def current_expectation() -> Expectation:
    """What is said here."""
    return _EXPECTED.get()
