"""The client the parent sees during one call: the last word on its request, the first on its response."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

from cachepoint.bedrock.client import CacheClient
from cachepoint.bedrock.expectations import expecting
from cachepoint.bedrock.tags import tags
from cachepoint.bedrock.wire.converse import whole_numbers
from cachepoint.core.planning.expectation import Expectation
from cachepoint.core.prompt.prompt import Hints
from cachepoint.langchain._request.carried import take_hints
from cachepoint.langchain._request.system_turns import seat


def as_given(request: Mapping[str, Any]) -> Mapping[str, Any]:
    """The request as the parent built it."""
    return request


class CallClient:
    """Passes `converse` and `converse_stream` on to a `CacheClient`, and everything else to it as it is.

    `connect` makes that client, told what is known of the request's blocks. `run` are the tags of the run that calls,
    which go into the record, and `expected` is what was said of requests to come. `mend` takes what the service is
    known to refuse out of a request.
    """

    def __init__(
        self,
        connect: Callable[[Hints], CacheClient],
        run: Mapping[str, str],
        expected: Expectation,
        mend: Callable[[Mapping[str, Any]], Mapping[str, Any]] = as_given,
    ) -> None:
        # A call that waits for another is made again, and goes on where it was with the same client.
        self._connected = cache(lambda hints: connect(dict(hints)))
        self._run = run
        self._expected = expected
        self._mend = mend

    def converse(self, **request: Any) -> dict[str, Any]:
        """Send the request the parent built."""
        return _for_parent(self._send("converse", request))

    def converse_stream(self, **request: Any) -> dict[str, Any]:
        """Send the request the parent built; events come as they arrive."""
        response = self._send("converse_stream", request)
        return {**response, "stream": _events(response["stream"])}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connected(()), name)

    def _send(self, operation: str, request: Mapping[str, Any]) -> dict[str, Any]:
        with tags(**self._run), expecting(self._expected):
            return self._sent(operation, seat(request))

    def _sent(self, operation: str, request: Mapping[str, Any]) -> dict[str, Any]:
        request, hints = take_hints(self._mend(request))
        response: dict[str, Any] = getattr(self._connected(tuple(hints.items())), operation)(**request)
        return response


def _events(stream: Any) -> Iterator[Mapping[str, Any]]:
    try:
        for event in stream:
            yield {**event, "metadata": _for_parent(event["metadata"])} if "metadata" in event else event
    finally:
        if hasattr(stream, "close"):
            stream.close()


def _for_parent(answer: Mapping[str, Any]) -> dict[str, Any]:
    """What the parent makes response metadata of: LangChain's naming, and a usage, which it cannot do without."""
    given = {**answer, "usage": whole_numbers(answer.get("usage"))}
    if "promptCache" in given:
        given["prompt_cache"] = given.pop("promptCache")
    return given
