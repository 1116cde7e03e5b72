"""What surrounds a call without being an argument of it: tags, for the record and for AWS's own invocation logs.

Bedrock's limits on `requestMetadata` are botocore's model of it: 16 pairs, keys of 1 to 256 and values of up to 256
characters, letters, digits, white space and `:_@$#=/+,-.`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from cachepoint.bedrock.blocks import in_block
from cachepoint.errors import ConfigurationError

MOST_PAIRS = 16
_KEY = re.compile(r"[a-zA-Z0-9\s:_@$#=/+,\-.]{1,256}", re.ASCII)
_VALUE = re.compile(r"[a-zA-Z0-9\s:_@$#=/+,\-.]{0,256}", re.ASCII)
_ALLOWED = "letters, digits, white space and :_@$#=/+,-. (at most 256 characters)"

_TAGS: ContextVar[Mapping[str, str]] = ContextVar("cachepoint_tags", default={})  # noqa: B039 - never mutated


@contextmanager
def tags(**metadata: object) -> Iterator[None]:
    """Give every call in the block these tags; inner blocks add to outer ones.

    Values are kept as strings. The tag `session` also becomes the record's session.
    """
    with in_block(_TAGS, {**_TAGS.get(), **{name: str(value) for name, value in metadata.items()}}):
        yield


def current_tags() -> Mapping[str, str]:
    """The tags in force here."""
    return _TAGS.get()


def with_request_metadata(
    request: Mapping[str, Any], chosen: Iterable[str], tags: Mapping[str, str]
) -> Mapping[str, Any]:
    """The request with the chosen tags in its `requestMetadata`, beside what the caller put there.

    A pair of the caller's own wins; a tag this call does not have is left out. Raises
    ConfigurationError for what the service would not take.
    """
    pairs = {name: tags[name] for name in chosen if name in tags}
    if not pairs:
        return request
    for name, value in pairs.items():
        if not _KEY.fullmatch(name):
            raise ConfigurationError(f"request_metadata: the tag name {name!r} does not fit; Bedrock takes {_ALLOWED}")
        if not _VALUE.fullmatch(value):
            raise ConfigurationError(
                f"request_metadata: the tag {name!r} has the value {value[:80]!r}, which does not fit; Bedrock takes "
                f"{_ALLOWED}; map it to an id of those, or take {name!r} out of request_metadata"
            )
    given = _pairs(request.get("requestMetadata") or {})
    if pairs.keys() <= given.keys():
        return request
    merged = {**pairs, **given}
    if len(merged) > MOST_PAIRS:
        raise ConfigurationError(
            f"request_metadata: {len(merged)} pairs with the caller's own, Bedrock takes {MOST_PAIRS}; choose fewer"
        )
    return {**request, "requestMetadata": json.dumps(merged) if "body" in request else merged}


def _pairs(given: Any) -> Mapping[str, Any]:
    """The caller's own pairs: a map in Converse, which InvokeModel sends as a header of JSON."""
    try:
        pairs = json.loads(given) if isinstance(given, str) else given
    except ValueError:
        pairs = None
    if not isinstance(pairs, Mapping):
        raise ConfigurationError(
            f"requestMetadata={given!r:.80}: pass a map of strings, to InvokeModel as a JSON object"
        )
    return pairs
