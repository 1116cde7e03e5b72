"""Wall time from a clock that is somebody else's, which may fail or tell nonsense and must not make a call fail."""

from __future__ import annotations

import time
from collections.abc import Callable
from math import isfinite
from typing import Any

from cachepoint.bedrock.swallowed import forgive
from cachepoint.core.traffic.entries import LATEST_TIME


def now_by(clock: Callable[[], float]) -> float:
    """What a clock gives, in seconds since the epoch; `time.time()` where it raises or that is no such time.

    A clock that jumps is believed: whoever keeps times allows for it.
    """
    try:
        now: Any = clock()
    except Exception as error:  # noqa: BLE001 - the clock is the user's
        _stand_in(error, f"raised {type(error).__name__}")
        return time.time()
    if isinstance(now, int | float) and not isinstance(now, bool) and 0 <= now < LATEST_TIME and isfinite(now):
        return float(now)
    _stand_in(ValueError(), f"gave {_shown(now)}")
    return time.time()


def _stand_in(error: Exception, did: str) -> None:
    forgive(
        error,
        "clock",
        f"cachepoint: the clock {did} in place of seconds since 1970, so time.time() stands in for it; pass a clock "
        "that gives them as time.time does",
    )


def _shown(now: object) -> str:
    return f"{now!r:.40}" if isinstance(now, int | float | str) or now is None else type(now).__name__
