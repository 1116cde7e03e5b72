"""What the service answers instead of a reply: an error with its HTTP status and the name boto3 raises it under."""

from __future__ import annotations

MODEL_ERRORS = "The model returned the following errors: "


class Refusal(Exception):
    """A request the service refuses; never leaves the emulator but as an HTTP answer."""

    def __init__(self, code: str, status: int, message: str) -> None:
        super().__init__(message)
        self.code, self.status, self.message = code, status, message


def invalid(message: str) -> Refusal:
    """A ValidationException, 400."""
    return Refusal("ValidationException", 400, message)


def denied(message: str) -> Refusal:
    """An AccessDeniedException, 403."""
    return Refusal("AccessDeniedException", 403, message)
