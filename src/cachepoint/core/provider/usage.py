"""Tokens of one call, by the class they are billed in, and how counts are read that somebody else reported."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

MOST_TOKENS = 10**9
"""No count of one call is larger: the longest context known is of ten million tokens (Llama 4 Scout)."""
_MOST_DIGITS = 10


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one call; the five classes never overlap.

    `input` is what was neither read from nor written to the cache. The provider's rule is
    input + cache_read + cache writes = the whole prompt (R3.4).
    """

    input: int = 0
    cache_read: int = 0
    cache_write_5m: int = 0
    cache_write_1h: int = 0
    output: int = 0

    @property
    def cache_write(self) -> int:
        """Tokens written to the cache at either TTL."""
        return self.cache_write_5m + self.cache_write_1h

    @property
    def prompt(self) -> int:
        """Tokens of the whole prompt, cached or not."""
        return self.input + self.cache_read + self.cache_write

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.input + other.input,
            self.cache_read + other.cache_read,
            self.cache_write_5m + other.cache_write_5m,
            self.cache_write_1h + other.cache_write_1h,
            self.output + other.output,
        )

    def to_dict(self) -> dict[str, int]:
        """The five counters under their names, as the call contract prints them."""
        return {
            "input": self.input,
            "cache_read": self.cache_read,
            "cache_write_5m": self.cache_write_5m,
            "cache_write_1h": self.cache_write_1h,
            "output": self.output,
        }


# -- as it was reported ---------------------------------------------------------------------------


def count(value: object) -> int | None:
    """A count of tokens as somebody reported it; None where the value is none, which is then not told.

    A string of digits is one, as InvokeModel's headers have it, and a float without a fraction, since JSON knows no
    integers: gateways write both. A negative number, a truth value or more than `MOST_TOKENS` is none.
    """
    if isinstance(value, str):
        value = int(value) if value.isascii() and value.isdigit() and len(value) <= _MOST_DIGITS else None
    elif isinstance(value, float):
        value = int(value) if value.is_integer() else None
    return int(value) if isinstance(value, int) and type(value) is not bool and 0 <= value <= MOST_TOKENS else None


def oddities(reported: object, name: str = "usage") -> tuple[str, ...]:
    """What in a reported usage is not as a service writes it, by its name and its type, never by its value.

    `name` is what the whole of it is called. Every field whose name ends in `tokens` has a count, in both wire formats;
    `cacheDetails` is a list of objects and `cache_creation` an object.
    """
    if reported is None:
        return ()
    if not isinstance(reported, Mapping):
        return (f"{name} is of type {type(reported).__name__}",)
    odd: list[str] = []
    for field, value in reported.items():
        if value is None or not isinstance(field, str):
            continue
        if field.lower().endswith("tokens"):
            odd += [] if type(value) is int and count(value) is not None else [f"{field} is {_kind(value)}"]
        elif field == "cache_creation":
            odd += oddities(value, field)
        elif field == "cacheDetails":
            for part in value if isinstance(value, list | tuple) else [value]:
                odd += oddities(part, "a part of cacheDetails")
    return tuple(dict.fromkeys(odd))


def told_oddly(model: str, odd: Iterable[str], usage: Usage | None) -> tuple[str, str]:
    """A warning of a usage with these oddities, of which `usage` was made, and its key."""
    what = "; ".join(odd)
    counted = "counted as far as it can be" if usage else "not counted, nor is its cost"
    return f"usage:{model}:{what}", f"cachepoint: {model!r} reports a usage in which {what}; it is {counted}"


def _kind(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return "negative" if value < 0 else "beyond any call"
    return f"of type {type(value).__name__}"
