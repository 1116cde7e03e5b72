"""Text that looks different on every request: a time of day, a UUID, a request id."""

from __future__ import annotations

import re

_HEAD, _FOOT = 512, 256
"""Characters looked at from each end: volatile parts stand in the first lines and the last."""

_VOLATILE = re.compile(
    r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d"  # an ISO timestamp, to the minute at least
    r"|\b[0-2]?\d:[0-5]\d:[0-5]\d\b"  # a time of day with seconds
    r"|\b[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[1-8][0-9a-fA-F]{3}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}\b"  # a UUID
    r"|\b(?:request|trace|correlation|session|run)[ _-]?id\b\W{1,4}[\w-]{8,}",
    re.IGNORECASE,
)


def looks_volatile(text: str) -> bool:
    """Whether a text shows, near its start or end, something that changes with every request."""
    if len(text) <= _HEAD + _FOOT:
        return _VOLATILE.search(text) is not None
    return _VOLATILE.search(text, 0, _HEAD) is not None or _VOLATILE.search(text, len(text) - _FOOT) is not None
