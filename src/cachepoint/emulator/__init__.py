"""A local Bedrock Runtime for real boto3, served from this process on loopback.

Names are imported when first used, so that the pytest plugin costs nothing in runs that need no emulator.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cachepoint._lazy import lazy_names

if TYPE_CHECKING:
    from cachepoint.core.provider.cache_model import CacheSwitches
    from cachepoint.emulator._bill import Bill, BillLine, ServedCall
    from cachepoint.emulator._clock import Clock, Latency
    from cachepoint.emulator._reading.request import Options
    from cachepoint.emulator._server import BedrockEmulator, serve
    from cachepoint.emulator.faults import (
        Fault,
        cut_stream,
        failed,
        reset_after_serving,
        reset_before_serving,
        slow,
        stream_error,
        throttled,
    )
    from cachepoint.emulator.replies import Question, Reasoning, Reply, Text, ToolCall

_HOMES = {
    "BedrockEmulator": "cachepoint.emulator._server",
    "Bill": "cachepoint.emulator._bill",
    "BillLine": "cachepoint.emulator._bill",
    "CacheSwitches": "cachepoint.core.provider.cache_model",
    "Clock": "cachepoint.emulator._clock",
    "Fault": "cachepoint.emulator.faults",
    "Latency": "cachepoint.emulator._clock",
    "Options": "cachepoint.emulator._reading.request",
    "Question": "cachepoint.emulator.replies",
    "Reasoning": "cachepoint.emulator.replies",
    "Reply": "cachepoint.emulator.replies",
    "ServedCall": "cachepoint.emulator._bill",
    "Text": "cachepoint.emulator.replies",
    "ToolCall": "cachepoint.emulator.replies",
    "cut_stream": "cachepoint.emulator.faults",
    "failed": "cachepoint.emulator.faults",
    "reset_after_serving": "cachepoint.emulator.faults",
    "reset_before_serving": "cachepoint.emulator.faults",
    "serve": "cachepoint.emulator._server",
    "slow": "cachepoint.emulator.faults",
    "stream_error": "cachepoint.emulator.faults",
    "throttled": "cachepoint.emulator.faults",
}

__all__ = [
    "BedrockEmulator",
    "Bill",
    "BillLine",
    "CacheSwitches",
    "Clock",
    "Fault",
    "Latency",
    "Options",
    "Question",
    "Reasoning",
    "Reply",
    "ServedCall",
    "Text",
    "ToolCall",
    "cut_stream",
    "failed",
    "reset_after_serving",
    "reset_before_serving",
    "serve",
    "slow",
    "stream_error",
    "throttled",
]


__getattr__, __dir__ = lazy_names(__name__, _HOMES, extra="emulator")
