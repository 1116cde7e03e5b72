"""Warnings about a user's setting, each said once in a process."""

from __future__ import annotations

import logging
import threading
import warnings

from cachepoint.errors import CachepointWarning

logger = logging.getLogger("cachepoint")

_said: set[str] = set()
_lock = threading.RLock()  # an abandoned stream may be recorded while this thread warns


def warn_once(key: str, message: str) -> None:
    """Warn with a message unless one with the same key was given before; never raises.

    Where the program makes errors of warnings, the message is logged: caching must not fail a call.
    """
    with _lock:
        if key in _said:
            return
        _said.add(key)
    try:
        warnings.warn(message, CachepointWarning, stacklevel=2)
    except CachepointWarning:
        logger.warning("%s", message)
