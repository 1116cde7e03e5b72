"""What the service says of checkpoints it does not take in a Converse request (docs/rules.md, V1 to V7).

Each check is one row of the facts: its trigger, and the text with its status. They run in the order in which
the service can know: whether the model caches at all, the shape of a point, its place in its list, then what
needs the whole request (order of TTLs, number of points).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cachepoint.core.provider.rules import TTL_SECONDS, Section
from cachepoint.emulator._checks.service_errors import MODEL_ERRORS, ServiceError, denied, invalid
from cachepoint.emulator._reading.request import Call, Json

NOTHING_TO_CACHE = "There is nothing available to cache. Please remove the invalid cache point and try again."
AFTER_REASONING = (
    "Cache point cannot be inserted after reasoning block. Please remove the invalid cache point and try again."
)
NO_CACHING = (
    "You invoked an unsupported model or your request did not allow prompt caching. "
    "See the documentation for more information."
)
NO_CACHE_POINT_FIELD = "This model doesn't support the cachePoint field"
NO_LONG_TTL = "Extended TTL prompt caching is only supported for Anthropic models"
LONG_AFTER_SHORT = (
    "a ttl='1h' cache_control block must not come after a ttl='5m' cache_control block. "
    "Note that blocks are processed in the following order: `tools`, `system`, `messages`."
)


@dataclass(frozen=True, slots=True)
class FoundPoint:
    """A checkpoint in a Converse body: its section, the list it stands in, and where it stands."""

    section: Section
    siblings: list[Json]
    index: int
    path: str

    @property
    def ttl(self) -> str | None:
        """The TTL the point names; None when it names none."""
        ttl: str | None = self.siblings[self.index]["cachePoint"].get("ttl")
        return ttl

    @property
    def before(self) -> Json:
        """The block the point stands after, past any other point; empty when there is none."""
        blocks = [block for block in self.siblings[: self.index] if "cachePoint" not in block]
        return blocks[-1] if blocks else {}

    @property
    def pointer(self) -> str:
        """The point's place as a JSON pointer names it."""
        place = "toolConfig/tools" if self.section == "tools" else self.path.rpartition(".")[0].replace(".", "/")
        return f"#/{place}/{self.index}"


def find_points(body: Json) -> Iterator[FoundPoint]:
    """The checkpoints of a Converse body in wire order."""
    lists: list[tuple[Section, str, list[Json]]] = [
        ("tools", "tools", (body.get("toolConfig") or {}).get("tools") or []),
        ("system", "system", body.get("system") or []),
    ]
    for number, message in enumerate(body.get("messages") or []):
        lists.append(("messages", f"messages.{number}.content", message.get("content") or []))
    for section, path, blocks in lists:
        for index, block in enumerate(blocks):
            if "cachePoint" in block:
                yield FoundPoint(section, blocks, index, f"{path}.{index}")


def extraneous(pointer: str, prefix: str = "") -> ServiceError:
    """How a point where the model knows none is refused."""
    return invalid(
        f"{prefix}Malformed input request: {pointer}: extraneous key [cachePoint] is not permitted, "
        "please reformat your input and try again."
    )


def check_points(call: Call) -> None:
    """Raise the ServiceError for the first checkpoint the service would not take."""
    points = list(find_points(call.body))
    if points and not call.rule.explicit:
        raise invalid(NO_CACHE_POINT_FIELD) if "moonshot" in call.rule.provider else denied(NO_CACHING)
    for point in points:
        _check_shape(point)
        _check_place(call, point)
        _check_ttl(call, point)
    _check_order(points)
    most = call.rule.max_checkpoints
    if len(points) > most:
        raise invalid(
            f"{MODEL_ERRORS}A maximum of {most} blocks with cache_control may be provided. Found {len(points)}."
        )


def _check_shape(point: FoundPoint) -> None:
    cache_point = point.siblings[point.index]["cachePoint"]
    for name, allowed in (("type", ["default"]), ("ttl", list(TTL_SECONDS))):
        value = cache_point.get(name, allowed[0])
        if value not in allowed:
            raise invalid(
                f"1 validation error detected: Value '{value}' at '{point.path}.cachePoint.{name}' failed to satisfy "
                f"constraint: Member must satisfy enum value set: [{', '.join(allowed)}]"
            )


def _check_place(call: Call, point: FoundPoint) -> None:
    before = point.before
    if call.traits.nova:
        _check_place_on_nova(call, point, before)
    if not before:
        raise invalid(NOTHING_TO_CACHE)
    if "reasoningContent" in before:
        raise invalid(AFTER_REASONING)
    if "document" in before and before["document"].get("format") != "pdf":
        raise invalid(f"{MODEL_ERRORS}{point.path}.type: Field required")
    if "video" in before or ("text" in before and not before["text"]):
        raise invalid(NOTHING_TO_CACHE)
    if point.section == "messages" and _only_documents(point.siblings[: point.index]):
        raise invalid(NOTHING_TO_CACHE)


def _check_place_on_nova(call: Call, point: FoundPoint, before: Json) -> None:
    if point.section not in call.rule.sections:
        raise extraneous(point.pointer, MODEL_ERRORS)
    if point.section == "messages" and call.rule.after_text_only and before and "text" not in before:
        # The pointer names the block the point was folded into, which is the one before it.
        place, _, index = point.pointer.rpartition("/")
        raise extraneous(f"{place}/{int(index) - 1}")


def _only_documents(blocks: list[Json]) -> bool:
    return all("document" in block or "cachePoint" in block for block in blocks)


def _check_ttl(call: Call, point: FoundPoint) -> None:
    if point.ttl is None or "1h" in call.rule.ttls:
        return
    if call.traits.claude:
        raise invalid(f"{MODEL_ERRORS}{point.path}.cache_control.ephemeral.ttl: Extra inputs are not permitted")
    if point.ttl == "1h":
        raise invalid(NO_LONG_TTL)


def _check_order(points: list[FoundPoint]) -> None:
    short = False
    for point in points:
        if point.ttl == "1h" and short:
            raise invalid(f"{MODEL_ERRORS}{point.path}.cache_control.ttl: {LONG_AFTER_SHORT}")
        short = short or point.ttl != "1h"
