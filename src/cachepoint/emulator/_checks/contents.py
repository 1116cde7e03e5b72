"""What the service refuses of the contents of turns: documents, and reasoning that comes back.

Where no text was reported (docs/rules.md, V11 to V13) one was made up.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from cachepoint.emulator._checks.service_errors import MODEL_ERRORS, invalid
from cachepoint.emulator._reading.request import Call, Json

NO_REASONING = "User messages cannot contain reasoning content. Please remove the reasoning content and try again."
CITED_FORMATS = "Only txt and pdf formats are supported when citations are enabled."
NO_PDF = "The PDF specified was not valid."
DOCUMENT_NAME = (
    "The document file name can only contain alphanumeric characters, whitespace characters, hyphens, parentheses, and "
    "square brackets. The name can't contain more than one consecutive whitespace character."
)
SAME_NAME = "Duplicate document names are not allowed in a request. Give each document a name of its own."
NO_S3 = "This model doesn't support S3 locations. Provide the content as bytes."
# An underscore, which the text leaves out, was taken (recorded on Claude 3.7 Sonnet).
_NAME = re.compile(r"[\w\-()\[\]]+(?:\s[\w\-()\[\]]+)*", re.ASCII)


def check_contents(call: Call) -> None:
    """Raise the ServiceError for a document, other media or reasoning that the model does not take."""
    names: set[str] = set()
    for index, message in enumerate(call.body.get("messages") or ()):
        content = message.get("content") or ()
        for place, block in enumerate(content):
            if "reasoningContent" in block:
                _check_reasoning(call, f"messages.{index}.content.{place}", block["reasoningContent"])
            for part in (block, *((block.get("toolResult") or {}).get("content") or ())):
                _check_media(call, part, names)


def has_thoughts_alone(message: Json) -> bool:
    """Whether a turn is one of reasoning and nothing else, which newer Claudes take for a prefill."""
    content = message.get("content") or ()
    return message.get("role") == "assistant" and all("reasoningContent" in block for block in content)


def _check_reasoning(call: Call, where: str, reasoning: Json) -> None:
    replay = call.rule.facts.replays_reasoning
    if replay == "none":
        raise invalid(NO_REASONING)
    signed = "redactedContent" in reasoning or (reasoning.get("reasoningText") or {}).get("signature")
    if call.traits.claude and not signed:
        raise invalid(f"{MODEL_ERRORS}{where}.thinking.signature: Field required")


def _media(block: Json) -> Iterator[Json]:
    return (block[kind] for kind in ("document", "image", "video") if isinstance(block.get(kind), dict))


def _check_media(call: Call, block: Json, names: set[str]) -> None:
    if call.traits.claude and any("s3Location" in (media.get("source") or {}) for media in _media(block)):
        raise invalid(NO_S3)
    document = block.get("document")
    if not isinstance(document, dict):
        return
    name = document.get("name") or ""
    if not _NAME.fullmatch(name):
        raise invalid(DOCUMENT_NAME)
    if name in names:
        raise invalid(SAME_NAME)
    names.add(name)
    if (document.get("citations") or {}).get("enabled"):
        _check_cited(document)


def _check_cited(document: Json) -> None:
    if document.get("format", "pdf") not in ("pdf", "txt"):
        raise invalid(CITED_FORMATS)
    if document.get("format") == "txt" and "bytes" in (document.get("source") or {}):
        raise invalid(NO_PDF)
