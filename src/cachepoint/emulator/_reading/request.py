"""One request as it came in: who asked which model what, in which Region."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Literal
from urllib.parse import unquote

from cachepoint.core.provider.rules import Api, ModelRule
from cachepoint.emulator._checks.service_errors import ServiceError
from cachepoint.emulator._reading.traits import Traits

Operation = Literal["Converse", "ConverseStream", "InvokeModel", "InvokeModelWithResponseStream", "CountTokens"]
Json = dict[str, Any]

_OPERATIONS: Mapping[str, Operation] = {
    "converse": "Converse",
    "converse-stream": "ConverseStream",
    "invoke": "InvokeModel",
    "invoke-with-response-stream": "InvokeModelWithResponseStream",
    "count-tokens": "CountTokens",
}
_PATH = re.compile(r"^/model/(?P<model>[^/]+)/(?P<operation>[a-z-]+)$")
_TARGET_HEADERS = ("service-tier", "performanceconfig-latency", "request-metadata")
_STORED_PROMPT = re.compile(r"^arn:aws[\w-]*:bedrock:[\w-]*:\d*:prompt/")
# The Regions of every partition, such as us-east-1, us-gov-west-1 and eusc-de-east-1; the log names folders by them.
_REGION = re.compile(r"[a-z]{2,4}(-[a-z]{2,10}){1,3}-\d{1,2}")
_CREDENTIAL = re.compile(r"Credential=(?P<key>[^/,\s]+)/\d+/(?P<region>[^/,\s]+)/")


@dataclass(frozen=True, slots=True)
class Options:
    """Behaviour on which the public facts (docs/rules.md) leave a choice, or which the service changed over time.

    - `strict_roles`: refuse two messages of one role in a row. Default True; threads of 2026 suggest that the
      service merges them now, older ones show the refusal (V11).
    - `strict_blanks`: refuse text of white space alone in a message, whatever stands beside it. Default True, as
      reported from the middle of 2026 on; recordings up to February 2026 show it accepted beside other blocks.
    - `thinking_in_every_section`: a change of thinking or effort invalidates tools and system too, not only
      messages. Default True, as measured on Sonnet 4.6 (R3.10).
    - `nova_choice_in_every_section`: a change of tool choice invalidates the whole prompt on Nova. Default
      True: it explains the misses of the one recording that changes it (R3.13, C9).
    - `serve_ended`: serve models past their end of life, which the service answers with 404. Default False; it goes by
      the emulator's clock.
    - `disputed_system_turns`: take system messages in mid-conversation where sources disagree (docs/rules.md, "Late
      system messages"). Default False: three authors of clients saw Converse refuse them.
    - `default_region`: the Region of calls that name none (Bedrock API keys).
    """

    strict_roles: bool = True
    strict_blanks: bool = True
    thinking_in_every_section: bool = True
    nova_choice_in_every_section: bool = True
    serve_ended: bool = False
    disputed_system_turns: bool = False
    default_region: str = "us-east-1"


@dataclass(frozen=True, slots=True)
class Target:
    """Where a request goes, before its body is read.

    `account` is the access key id, which is no secret. `service_tier`, `latency` and `metadata` (JSON) are what
    InvokeModel names in headers; the tier of a Converse request stands in its body.
    """

    operation: Operation
    model_id: str
    account: str
    region: str
    service_tier: str | None = None
    latency: str | None = None
    metadata: str | None = None

    @property
    def streams(self) -> bool:
        """Whether the answer is a stream of events."""
        return self.operation in ("ConverseStream", "InvokeModelWithResponseStream")

    @property
    def api(self) -> Api:
        """The API the operation belongs to; CountTokens counts for both and goes with InvokeModel."""
        return "converse" if self.operation.startswith("Converse") else "invoke_model"

    @property
    def names_stored_prompt(self) -> bool:
        """The model id is the ARN of a prompt of Prompt management, which brings its own messages (R1.13)."""
        return _STORED_PROMPT.match(self.model_id) is not None

    @property
    def scope(self) -> str:
        """What cache entries are not shared across: account, Region, model id and API (R3.10, R3.14)."""
        return f"{self.account}|{self.region}|{self.model_id}|{self.api}"


@dataclass(frozen=True, slots=True)
class Call:
    """A request with its body read and its model resolved."""

    target: Target
    body: Json = field(repr=False)
    rule: ModelRule
    traits: Traits
    options: Options


def read_target(path: str, headers: Mapping[str, str], default_region: str) -> Target:
    """Take path and headers apart; raises a ServiceError when they fit no operation or name no caller."""
    found = _PATH.match(path)
    operation = _OPERATIONS.get(found["operation"]) if found else None
    if found is None or operation is None:
        raise ServiceError(
            "UnknownOperationException", 404, "The emulator serves Converse, InvokeModel and CountTokens."
        )
    account, region = _caller(headers.get("authorization"), default_region)
    named = (headers.get(f"x-amzn-bedrock-{name}") for name in _TARGET_HEADERS)
    return Target(operation, unquote(found["model"]), account, region, *named)


def _caller(authorization: str | None, default_region: str) -> tuple[str, str]:
    if authorization is None:
        raise ServiceError("MissingAuthenticationTokenException", 403, "Missing Authentication Token")
    signed = _CREDENTIAL.search(authorization)
    if signed:
        if not _REGION.fullmatch(signed["region"]):
            raise ServiceError("InvalidSignatureException", 403, "Credential should be scoped to a valid region.")
        return signed["key"], signed["region"]
    # A Bedrock API key is a secret: only its digest names the account.
    return blake2b(authorization.encode(), digest_size=6).hexdigest(), default_region
