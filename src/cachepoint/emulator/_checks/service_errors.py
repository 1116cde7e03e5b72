"""What the service answers instead of a reply: an error with its HTTP status and the name boto3 raises it under."""

from __future__ import annotations

MODEL_ERRORS = "The model returned the following errors: "


class ServiceError(Exception):
    """What the service refuses a request with; never leaves the emulator but as an HTTP answer."""

    def __init__(self, code: str, status: int, message: str) -> None:
        super().__init__(message)
        self.code, self.status, self.message = code, status, message


def invalid(message: str) -> ServiceError:
    """A ValidationException, 400."""
    return ServiceError("ValidationException", 400, message)


def denied(message: str) -> ServiceError:
    """An AccessDeniedException, 403."""
    return ServiceError("AccessDeniedException", 403, message)
