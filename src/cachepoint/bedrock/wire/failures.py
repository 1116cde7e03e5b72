"""What kind of failure an error tells of: the request was refused, the service is in trouble, or the answer was lost.

Each kind has its own remedy: a refused request is repeated without what is ours, a service in trouble is not queued
for, and a request whose answer was lost may have been served and billed.
"""

from __future__ import annotations

from typing import Any

from cachepoint.bedrock.wire.dialect import mapping

REFUSED = frozenset({400, 403, 413, 422})
"""A request refused for what is in it: 400 and 403 by Bedrock (docs/rules.md, V1 to V10), 413 and 422 by gateways.

The others would come for the plain request too, or pass by themselves: 401 and 407 (who calls), 404 (no such model),
408 and 424 (the model failed), 409 and 429 (too many), and all of 5xx.
"""
_TROUBLE = frozenset({408, 424, 429})
"""Besides 500 and above, the HTTP statuses with which Bedrock fails a request that it may serve a moment later: model
time-out, model error and throttling (API reference of Converse, "Errors"). What else is in the 400s is the request's
own fault."""
LOST = frozenset({"ReadTimeoutError", "ConnectionClosedError", "HTTPClientError", "ServerDisconnectedError"})
"""Errors of botocore and aiohttp after which nobody knows whether the service served the request, and billed it."""
LOST_BY_ANY_CLIENT = LOST | {"EventStreamError", "APITimeoutError", "ReadTimeout", "ReadError", "RemoteProtocolError"}
"""With those of a stream under way, of Anthropic's client and of httpx."""


def is_trouble(error: BaseException) -> bool:
    """Whether a failed call tells of the service, not of the request or of a caller who no longer wants the answer."""
    metadata = mapping(mapping(getattr(error, "response", None)).get("ResponseMetadata"))
    return isinstance(error, Exception) and is_status_of_trouble(metadata.get("HTTPStatusCode"))


def is_status_of_trouble(status: Any) -> bool:
    """Whether an HTTP status, or that there is none, tells of the service and not of the request."""
    return not isinstance(status, int) or status >= 500 or status in _TROUBLE
