"""Faults that the emulator plays on demand: `emulator.fail_next(throttled(), times=2)`.

A fault inside a stream waits for a call that streams.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Any, Literal, get_args

from cachepoint.emulator._reading.request import Operation, Target
from cachepoint.errors import EmulatorError

# Error names and statuses of Converse (docs/rules.md, R1.9). An exception inside a stream has the same name, its first
# letter small.
_ERRORS: Mapping[str, tuple[int, str]] = {
    "ThrottlingException": (429, "Too many requests, please wait before trying again."),
    "InternalServerException": (500, "The system encountered an unexpected error during processing. Try again later."),
    "ServiceUnavailableException": (503, "Bedrock is unable to process your request."),
    "ModelTimeoutException": (408, "The model timed out. Try again later."),
    "ModelNotReadyException": (429, "The model is not ready for inference."),
    "ModelErrorException": (424, "The model returned an error. Try again later."),
    "ModelStreamErrorException": (424, "The model returned an error while streaming."),
    "ValidationException": (400, "The request is invalid."),
    "AccessDeniedException": (403, "You don't have access to the model with the specified model ID."),
    "ResourceNotFoundException": (404, "The requested resource was not found."),
    "ServiceQuotaExceededException": (400, "Your request exceeds the service quota for your account."),
}


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to a call; use the functions of this module to make one.

    `pause` is in seconds: before the response begins, and between the events of a stream.
    `after_events` counts the events of a stream that still arrive.
    """

    error: str | None = None
    message: str | None = None
    reset: Literal["before", "after"] | None = None
    after_events: int | None = None
    pause: float = 0.0

    def __post_init__(self) -> None:
        if self.error is not None and self.error not in _ERRORS:
            raise EmulatorError(f"no error named {self.error!r}; use one of {', '.join(_ERRORS)}")
        if not isinstance(self.message, str | None):
            raise EmulatorError(f"a fault's message is {self.message!r:.80}; give text, or None for the usual one")
        if not (self.after_events is None or (type(self.after_events) is int and self.after_events >= 0)):
            raise EmulatorError(f"after_events is {self.after_events!r:.80}; give how many events arrive, 0 or more")
        if not (type(self.pause) in (int, float) and 0 <= self.pause < inf):
            raise EmulatorError(f"a fault's pause is {self.pause!r:.80}; give seconds, 0 or more")

    @property
    def status(self) -> int:
        """The HTTP status of the error."""
        return _ERRORS[self.error or "InternalServerException"][0]

    @property
    def text(self) -> str:
        """The error's message."""
        return self.message or _ERRORS[self.error or "InternalServerException"][1]


def throttled(message: str | None = None) -> Fault:
    """ThrottlingException, 429; nothing is served."""
    return Fault(error="ThrottlingException", message=message)


def failed(error: str = "InternalServerException", message: str | None = None) -> Fault:
    """The named exception instead of an answer; nothing is served."""
    return Fault(error=error, message=message)


def reset_before_serving() -> Fault:
    """The connection is reset before the call is served; botocore sends it again."""
    return Fault(reset="before")


def reset_after_serving() -> Fault:
    """The call is served and billed, and its answer is lost with the connection; botocore sends it again."""
    return Fault(reset="after")


def cut_stream(after_events: int = 2, *, quietly: bool = False) -> Fault:
    """A stream breaks off after so many events; served and billed.

    The connection is reset, or with `quietly` the stream just ends without `messageStop` and `metadata`.
    """
    return Fault(reset=None if quietly else "after", after_events=after_events)


def stream_error(error: str = "ThrottlingException", after_events: int = 2, message: str | None = None) -> Fault:
    """A stream ends in the named exception after so many events; served and billed."""
    return Fault(error=error, message=message, after_events=after_events)


def slow(seconds: float) -> Fault:
    """So many seconds pass before the response begins, and between the events of a stream."""
    return Fault(pause=seconds)


NO_FAULT = Fault()


@dataclass(slots=True)
class _Planned:
    fault: Fault
    operation: Operation | None
    model_id: str | None
    left: int

    def fits(self, target: Target) -> bool:
        streams = self.fault.after_events is None or target.streams
        return streams and self.operation in (None, target.operation) and self.model_id in (None, target.model_id)


class FaultPlan:
    """Faults waiting for their calls, first planned first played."""

    def __init__(self) -> None:
        self._planned: deque[_Planned] = deque()

    def add(self, fault: Fault, times: int, operation: Operation | None, model_id: str | None) -> None:
        """Plan a fault for so many calls, of one operation or model if given."""
        given: Any = fault
        if not isinstance(given, Fault):
            raise EmulatorError(f"the fault is {given!r:.80}; call a function of cachepoint.emulator, as throttled()")
        if not (type(times) is int and times >= 1):
            raise EmulatorError(f"times is {times!r:.80}; give 1 or more")
        if operation not in (None, *get_args(Operation)):
            raise EmulatorError(f"operation is {operation!r:.80}; use one of {', '.join(get_args(Operation))}")
        self._planned.append(_Planned(fault, operation, model_id, times))

    def take(self, target: Target) -> Fault:
        """The fault for this call; `NO_FAULT` when none waits for it."""
        for planned in self._planned:
            if planned.fits(target):
                planned.left -= 1
                if not planned.left:
                    self._planned.remove(planned)
                return planned.fault
        return NO_FAULT
