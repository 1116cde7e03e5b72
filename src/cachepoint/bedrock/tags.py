"""What surrounds a call without being an argument of it: tags, for the record and for AWS's own invocation logs.

Bedrock's limits on `requestMetadata` are botocore's model of it: 16 pairs, keys of 1 to 256 and values of up to 256
characters, letters, digits, white space and `:_@$#=/+,-.`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from cachepoint.bedrock.blocks import in_block
from cachepoint.bedrock.warn import warn_once
from cachepoint.bedrock.wire.json_text import JsonText, Raw, parsed
from cachepoint.core.planning.policy import TAG_NAME
from cachepoint.errors import ConfigurationError

MOST_PAIRS = 16
_VALUE = re.compile(r"[a-zA-Z0-9\s:_@$#=/+,\-.]{0,256}", re.ASCII)
_ALLOWED = "letters, digits, white space and :_@$#=/+,-. (at most 256 characters)"

_TAGS: ContextVar[Mapping[str, str]] = ContextVar("cachepoint_tags", default={})  # noqa: B039 - never mutated


@contextmanager
def tags(**metadata: object) -> Iterator[None]:
    """Give every call in the block these tags; inner blocks add to outer ones.

    Values are kept as strings; raises ConfigurationError for one that cannot be made a string. The tag `session` also
    becomes the record's session.
    """
    with in_block(_TAGS, {**_TAGS.get(), **{name: _text(name, value) for name, value in metadata.items()}}):
        yield


def _text(name: str, value: object) -> str:
    try:
        return str(value)
    except Exception as error:  # noqa: BLE001 - whatever it was, the value is named
        raise ConfigurationError(
            f"tags({name}=…): str() of a {type(value).__name__} raised {type(error).__name__}; give a string"
        ) from None


def current_tags() -> Mapping[str, str]:
    """The tags in force here."""
    return _TAGS.get()


def with_request_metadata(
    request: Mapping[str, Any], chosen: Iterable[str], tags: Mapping[str, str]
) -> Mapping[str, Any]:
    """The request with the chosen tags in its `requestMetadata`, beside what the caller put there.

    A pair of the caller's own wins; a tag this call does not have is left out. What the service would not take is left
    out too, with one warning for each tag, since a tag must not fail the call; the record has it all the same.
    """
    pairs = {name: tags[name] for name in chosen if name in tags and _fits(name, tags[name])}
    own = _pairs(request.get("requestMetadata"))
    if not pairs or own is None:
        return request
    more: dict[str, str] = {}
    for name, value in pairs.items():
        if name in own:
            continue
        if len(own) + len(more) >= MOST_PAIRS:
            _leave_out(name, f"Bedrock takes {MOST_PAIRS} pairs, the caller's own among them; choose fewer")
            continue
        more[name] = value
    if not more:
        return request
    given = request.get("requestMetadata") or ("{}" if "body" in request else {})
    return {**request, "requestMetadata": _added(given, more) if isinstance(given, str) else {**given, **more}}


def _added(header: str, pairs: Mapping[str, str]) -> Raw:
    """A header with more pairs, in which the caller's own stay as they are written."""
    document = JsonText(header, [()])
    document.add((), dict(pairs))
    return document.edited()


def _fits(name: str, value: str) -> bool:
    if TAG_NAME.fullmatch(name) and _VALUE.fullmatch(value):
        return True
    _leave_out(
        name,
        f"its value {value[:80]!r} does not fit: Bedrock takes {_ALLOWED}. Map it to an id of those, or take the tag "
        "out of request_metadata",
    )
    return False


def _leave_out(name: str, why: str) -> None:
    warn_once(f"request_metadata:{name}", f"cachepoint sent the tag {name!r} in no requestMetadata, for {why}")


def _pairs(given: Any) -> Mapping[str, Any] | None:
    """The caller's own pairs: a map in Converse, which InvokeModel sends as a header of JSON.

    None where they are neither, of which the service is the judge.
    """
    if given is None or given == "":
        return {}
    try:
        pairs = parsed(given) if isinstance(given, str) else given
    except ValueError:
        return None
    return pairs if isinstance(pairs, Mapping) else None
