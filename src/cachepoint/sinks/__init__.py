"""Where a ledger's calls can go besides: give one as `CacheLedger(on_call=…)`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cachepoint._lazy import lazy_names

if TYPE_CHECKING:
    from cachepoint.sinks._background import InBackground
    from cachepoint.sinks._json_lines import JsonLines
    from cachepoint.sinks._otel import OpenTelemetry

_HOMES = {
    "InBackground": "cachepoint.sinks._background",
    "JsonLines": "cachepoint.sinks._json_lines",
    "OpenTelemetry": "cachepoint.sinks._otel",
}

__all__ = ["InBackground", "JsonLines", "OpenTelemetry"]

__getattr__, __dir__ = lazy_names(__name__, _HOMES, extra="otel")
