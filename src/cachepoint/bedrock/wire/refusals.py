"""What the service refused, read off its error message (the texts are in docs/rules.md, V1 to V7)."""

from __future__ import annotations

import re

from cachepoint.core.exchange import Refusal
from cachepoint.core.planning.plan import Plan
from cachepoint.core.provider.rules import SECTIONS, Section

_ABOUT_CHECKPOINTS = re.compile(
    r"cachepoint|cache_control|cache point|prompt caching|\bttl\b"
    r"|messages\.\d+\.content\.\d+\.type: field required"  # after a document that is not a PDF (V4)
)

_ABOUT_LONG_TTL = re.compile(r"extended ttl|\.ttl: extra inputs|ttl[^.]*not (?:supported|available|permitted)")


def refuses_long_ttl(message: str) -> bool:
    """Whether an error message says that the model has no 1h TTL, rather than that one stands in the wrong place."""
    return _ABOUT_LONG_TTL.search(message.lower()) is not None


def refused_section(message: str, plan: Plan) -> Section | None:
    """The section whose checkpoint an error message refuses; None when it is not about checkpoints."""
    lowered = message.lower()
    if _ABOUT_CHECKPOINTS.search(lowered) is None:
        return None
    pointed = {"tools": "toolconfig/tools", "system": "#/system", "messages": "messages"}
    for section in SECTIONS:
        if pointed[section] in lowered or f"{section}." in lowered:
            return section
    return plan.checkpoints[-1].where.section if plan.checkpoints else None


def refusal_in(error: BaseException, plan: Plan) -> Refusal | None:
    """What an error of boto3's refused of the checkpoints sent; None when it is about something else."""
    details = (getattr(error, "response", None) or {}).get("Error", {})
    code, message = details.get("Code"), details.get("Message", "")
    if code not in ("ValidationException", "AccessDeniedException") or not plan.checkpoints:
        return None
    section = refused_section(message, plan)
    if refuses_long_ttl(message) and any(point.ttl == "1h" for point in plan.checkpoints):
        return Refusal(section or plan.checkpoints[-1].where.section, long_ttl=True)
    return None if section is None else Refusal(section, everywhere=code == "AccessDeniedException")
