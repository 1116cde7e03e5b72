"""What a user can set about caching."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from difflib import get_close_matches
from typing import Any, Literal, get_args

from cachepoint.core.provider.rules import TTL
from cachepoint.errors import ConfigurationError

Mode = Literal["auto", "explicit", "observe", "off"]
TAG_NAME = re.compile(r"[a-zA-Z0-9\s:_@$#=/+,\-.]{1,256}", re.ASCII)
"""What Bedrock takes as a name in `requestMetadata` (botocore's model of it)."""


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """How cachepoint treats requests.

    - `mode`: "auto" places checkpoints; "explicit" sends only the user's own, made legal; "observe"
      plans and records but sends the request unchanged; "off" plans nothing and sends it unchanged too. Default
      "auto". The environment's CACHEPOINT_MODE overrules it, at each call.
    - `ttl`: "auto" chooses by the gaps seen; "5m" and "1h" fix it where the model has it.
    - `learn`: remember traffic (keyed digests, never text) and plan by it.
    - `split_text`: a long text may be sent as two blocks where requests part. Text is never changed.
    - `max_checkpoints`: at most this many checkpoints a request, the user's own included (0 to 4).
    - `count_tokens`: ask the service's free CountTokens once for a prefix near the model's minimum. The call waits
      for it, two seconds at most; where it fails, it is not asked for that model for two minutes.
    - `request_metadata`: names of tags sent as Bedrock's `requestMetadata`, in every mode. Default none.

    Raises ConfigurationError on any other value.
    """

    mode: Mode = "auto"
    ttl: Literal["auto"] | TTL = "auto"
    learn: bool = True
    split_text: bool = True
    max_checkpoints: int = 4
    count_tokens: bool = False
    request_metadata: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("mode", self.mode, get_args(Mode)),
            ("ttl", self.ttl, ("auto", *get_args(TTL))),
            ("max_checkpoints", self.max_checkpoints, (0, 1, 2, 3, 4)),
        ):
            if value not in allowed or type(value) not in (str, int):
                raise ConfigurationError(f"CachePolicy({name}={value!r}): use one of {allowed}")
        for name in ("learn", "split_text", "count_tokens"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigurationError(f"CachePolicy({name}={getattr(self, name)!r}): use True or False")
        names: Any = self.request_metadata
        if not isinstance(names, tuple | list) or not all(isinstance(name, str) for name in names):
            raise ConfigurationError(f"CachePolicy(request_metadata={names!r}): use tag names, such as ('tenant',)")
        if wrong := [name for name in names if not TAG_NAME.fullmatch(name)]:
            raise ConfigurationError(
                f"CachePolicy(request_metadata={names!r:.200}): Bedrock takes no name such as {wrong[0]!r:.80}; use "
                "letters, digits, white space and :_@$#=/+,-. (1 to 256 characters)"
            )
        object.__setattr__(self, "request_metadata", tuple(names))

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain JSON types."""
        return {**asdict(self), "request_metadata": list(self.request_metadata)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CachePolicy:
        """The policy written by `to_dict`; an unknown name raises ConfigurationError."""
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            meant = did_you_mean(unknown[0], known)
            raise ConfigurationError(f"CachePolicy has no setting {unknown[0]!r}{meant}; it has {sorted(known)}")
        return cls(**values)

    @classmethod
    def of(cls, given: Any) -> CachePolicy:
        """The policy that a user writes in short.

        A policy, a dict of settings, a lifetime ("5m", "1h"), a mode ("off", …), False for "off", True or None for the
        defaults. Anything else raises ConfigurationError.
        """
        if isinstance(given, CachePolicy):
            return given
        if isinstance(given, Mapping):
            return cls.from_dict(given)
        if given is None or isinstance(given, bool):
            return cls(mode="off" if given is False else "auto")
        if given in get_args(Mode):
            return cls(mode=given)
        if given in get_args(TTL):
            return cls(ttl=given)
        raise ConfigurationError(
            f"{given!r} is no policy: pass CachePolicy(…), a dict of its settings, or one of "
            f"{(*get_args(TTL), *get_args(Mode))}"
        )

    def asked(self, cache_control: Mapping[str, Any] | None) -> CachePolicy:
        """The policy of who passes a `cache_control` with a request: cache, with this TTL."""
        if not cache_control:
            return self
        if not isinstance(cache_control, Mapping):
            raise ConfigurationError(
                f'cache_control={cache_control!r:.80}: pass {{"type": "ephemeral"}}, with a "ttl" or not'
            )
        mode: Mode = "auto" if self.mode == "explicit" else self.mode
        return replace(self, mode=mode, ttl=cache_control.get("ttl") or self.ttl)

    def in_mode(self, mode: Mode) -> CachePolicy:
        """The same policy in another mode."""
        return self if mode == self.mode else replace(self, mode=mode)


def did_you_mean(given: object, known: Iterable[str]) -> str:
    """Which of the names known one that is not may stand for, as the part of a sentence; "" where none is near."""
    near = get_close_matches(str(given), list(known), 1)
    return f" (did you mean {near[0]!r}?)" if near else ""
