"""The emulator's time: a clock that tests move by hand, and the model of latency."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from math import inf

from cachepoint._forks import Lock
from cachepoint.core.provider.usage import Usage
from cachepoint.errors import EmulatorError


class Clock:
    """Seconds since the epoch, moved forward by `advance`.

    Runs on `base`, the real time by default; `Clock(lambda: 0.0)` stands still until it is advanced. Raises
    EmulatorError when `base` cannot be called.
    """

    def __init__(self, base: Callable[[], float] = time.time) -> None:
        if not callable(base):
            raise EmulatorError(
                f"the clock is {base!r}; use a function that gives the time in seconds, as time.time does"
            )
        self._base = base
        self._ahead = 0.0
        self._lock = Lock(waited_for=False)

    def __call__(self) -> float:
        """The present time."""
        return self._base() + self._ahead

    def advance(self, seconds: float) -> float:
        """Move forward by `seconds` and return the new time; raises EmulatorError when negative."""
        given: object = seconds
        if not (isinstance(given, int | float) and 0 <= given < inf):
            raise EmulatorError(
                f"the clock was told to advance by {seconds!r:.80} seconds; it only goes forward, so give 0 or more"
            )
        with self._lock.held:
            self._ahead += seconds
        return self()


@dataclass(frozen=True, slots=True)
class Latency:
    """How long a call takes, in seconds: a fixed part, then so much a token.

    The default is modelled, not measured: it meets the one pair of the article this project started from
    (7,800 prompt tokens and 300 output tokens, 7.61 s uncached and 3.12 s cached) with a cached token a tenth of
    an uncached one. It is reported as `latencyMs`; `sleep` makes calls really take that long.
    """

    fixed: float = 0.22
    uncached_token: float = 0.0006395
    cached_token: float = 0.00006395
    output_token: float = 0.008
    sleep: bool = False

    def before_first_token(self, usage: Usage) -> float:
        """Seconds until the response begins."""
        uncached = usage.prompt - usage.cache_read
        return self.fixed + uncached * self.uncached_token + usage.cache_read * self.cached_token

    def of_output(self, usage: Usage) -> float:
        """Seconds from there to the end of the response."""
        return usage.output * self.output_token
