"""Which errors say that the service refused a request, and what their words point at.

Words never decide whether it was a checkpoint: the service changes them, translates them, and quotes what users wrote.
They decide which feature is left out first while it is found out, no more.
"""

from __future__ import annotations

import hashlib
import re

from cachepoint.bedrock.wire.dialect import mapping
from cachepoint.bedrock.wire.failures import REFUSED
from cachepoint.core.healing import Refusal
from cachepoint.core.traffic.refusals import LONG_TTL, SYSTEM_TURNS, Feature

_NAMED = ("ValidationException", "AccessDeniedException")
"""Bedrock's own names of it; they hold whatever status a gateway gives them."""
_OTHERWISE = re.compile(
    r"throttl|toomany|quota|limitexceeded"  # ServiceQuotaExceededException has the status 400
    r"|expired|token|signature|credential|unrecognizedclient|authentication|requesttimetooskewed|optin"  # who calls
    r"|notfound|timeout|notready|unavailable"
)
"""What else comes with those statuses, by the error's name (AWS, *Common error types*), and is no word on a request."""

_POINTS_AT: tuple[tuple[Feature, re.Pattern[str]], ...] = (
    (LONG_TTL, re.compile(r"extended ttl|\.ttl: extra inputs|\bttl\b[^.]*not (?:supported|available|permitted)")),
    (SYSTEM_TURNS, re.compile(r"\brole\b.*\bsystem\b|\bsystem\b.*\brole\b")),
    ("tools", re.compile(r"\btools?\b|toolconfig")),
    ("system", re.compile(r"\bsystem\b")),
    ("messages", re.compile(r"\bmessages?\b")),
)

_LONGEST_NAME = 80
"""Bedrock's own have thirty letters at most."""

_OF_ONE_CALL = re.compile(r"\b\d{4}-\d\d-\d\d[t ][\d:.,+z]+|\b(?=[a-z_-]*\d)[\w-]{12,}\b", re.IGNORECASE)
"""Times and ids of requests, which gateways put into a refusal: it is in the same words without them. Places in a
request (`messages.3.content`) have none so long, and tell refusals apart."""


def refusal_in(error: BaseException, key: bytes) -> Refusal | None:
    """The refusal that an error of boto3's says; None when it is about something else.

    `key` keys the digest of its words, which may quote a prompt. Without the times and ids in them they count as alike.
    """
    name = type(error).__name__
    answer = getattr(error, "response", None)
    if name == "ParamValidationError":  # an older botocore that knows no `ttl`, or no checkpoint there, sends nothing
        code, message = name, str(error)
    elif told := mapping(mapping(answer).get("Error")):
        code, message = str(told.get("Code", "")), str(told.get("Message", ""))
        code = code[:1].upper() + code[1:]  # an exception in a stream has the same name, its first letter small
        status = mapping(mapping(answer).get("ResponseMetadata")).get("HTTPStatusCode")
        if code not in _NAMED and (status not in REFUSED or _OTHERWISE.search(code.lower())):
            return None
    else:
        return None
    words = _OF_ONE_CALL.sub("", message)
    digest = hashlib.blake2b(f"{code}\0{words}".encode(errors="replace"), key=key[:64], digest_size=16).digest()
    return Refusal(digest, _pointed_at(message.lower()), _shown(code, name))


def error_name(error: BaseException) -> str:
    """The name that the service gave an error, such as AccessDeniedException; that of its class where it gave none."""
    answer = mapping(getattr(error, "response", None))
    name = type(error).__name__
    return _shown(str(mapping(answer.get("Error")).get("Code", "")), name) or name


def _shown(code: str, name: str) -> str:
    """An error's name for a message; that of its class where a gateway put words in its place, "" for a bare status."""
    if not code or code.isdigit():
        return ""
    return code if code.isidentifier() and len(code) <= _LONGEST_NAME else name


def _pointed_at(message: str) -> Feature | None:
    return next((feature for feature, words in _POINTS_AT if words.search(message)), None)
