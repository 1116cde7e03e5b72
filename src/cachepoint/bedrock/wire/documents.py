"""Documents and other media of a Converse request as the service takes them.

- A name has letters, digits, single spaces, hyphens, parentheses and brackets (botocore's model of `DocumentBlock`) and
  underscores (a recording has one that was taken), and no other document of the request has it too.
- With citations the service reads `bytes` as a PDF, whatever the format says; text goes into `source.text`, as a `txt`
  (boto3#4726, botocore#3525). "Only txt and pdf formats are supported when citations are enabled."
- What a document is, its bytes say: a PDF has `%PDF-` within its first 1,024 (ISO 32000, as readers take it).
- Of S3 Claude reads nothing through Converse; Nova does (AWS, "Supported models and features").
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from cachepoint.bedrock.wire.history import Block, Mended, Message
from cachepoint.core.exchange import Warn
from cachepoint.errors import ConfigurationError

_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_\-()\[\]]+")
_LONGEST_NAME = 200
_UNNAMED = "document"
_MEDIA = ("document", "image", "video", "audio")
_TEXT_FORMATS = frozenset({"txt", "md", "csv", "html"})
_PDF = b"%PDF-"
_HEAD = 1024
_UNCITED = (
    "citations were left out of a document of the format {0!r}: Bedrock gives them for PDF and text only. "
    "Convert it to one of these to have it cited"
)


def mended(messages: list[Message], base_model: str | None) -> Mended:
    """The messages with documents that the service takes; `base_model` is the model's id without its geography.

    Raises ConfigurationError for what no request can carry; nothing has been sent then.
    """
    if not any(_media_in(block) for message in messages for block in message["content"]):
        return Mended(messages)
    work = _Mending((base_model or "").startswith("anthropic."))
    kept = [
        {
            **message,
            "content": [
                work.block(block, f"messages[{turn}].content[{item}]") for item, block in enumerate(message["content"])
            ],
        }
        for turn, message in enumerate(messages)
    ]
    return Mended(kept, tuple(work.warnings))


def _media_in(block: Block) -> bool:
    if "toolResult" in block:
        return any(map(_media_in, block["toolResult"].get("content") or ()))
    return any(name in block for name in _MEDIA)


class _Mending:
    def __init__(self, is_claude: bool) -> None:  # noqa: FBT001 - private
        self._is_claude = is_claude
        self._names: set[str] = set()
        self.warnings: list[Warn] = []

    def block(self, block: Block, path: str) -> Block:
        if "toolResult" in block:
            result = block["toolResult"]
            parts = [self.block(part, f"{path}.toolResult[{n}]") for n, part in enumerate(result.get("content") or ())]
            return {**block, "toolResult": {**result, "content": parts}}
        for name in _MEDIA:
            if isinstance(block.get(name), Mapping):
                self._check_source(name, block[name], path)
        return {**block, "document": self._document(block["document"], path)} if "document" in block else block

    def _check_source(self, kind: str, media: Mapping[str, Any], path: str) -> None:
        location = (media.get("source") or {}).get("s3Location")
        if location and self._is_claude:
            raise ConfigurationError(
                f"{path} is in S3 (s3://…), where Claude reads nothing through Converse; load it and give its bytes, "
                f"or call a model that reads S3, such as Amazon Nova, with this {kind}"
            )

    def _document(self, document: Mapping[str, Any], path: str) -> dict[str, Any]:
        sent = {**document, "name": self._name(str(document.get("name") or ""))}
        content = (document.get("source") or {}).get("bytes")
        if isinstance(content, bytes | bytearray):
            sent["format"] = _format_of(bytes(content), str(document.get("format") or ""), path)
        if not (document.get("citations") or {}).get("enabled") or sent.get("format") in (None, "pdf"):
            return sent
        if sent["format"] not in _TEXT_FORMATS:
            del sent["citations"]
            self.warnings.append(Warn(f"citations:{sent['format']}", _UNCITED.format(sent["format"])))
        elif isinstance(content, bytes | bytearray):
            sent |= {"format": "txt", "source": {"text": _text(bytes(content), path)}}
        return sent

    def _name(self, given: str) -> str:
        """The name in characters that the service takes; a second document of that name gets a number."""
        plain = _NOT_IN_NAMES.sub(" ", given).strip()[:_LONGEST_NAME].strip() or _UNNAMED
        name, number = plain, 1
        while name in self._names:
            number += 1
            tail = f" ({number})"
            name = plain[: _LONGEST_NAME - len(tail)] + tail
        self._names.add(name)
        return name


def _format_of(content: bytes, given: str, path: str) -> str:
    """The document's format, by its bytes where they contradict what was said of it."""
    if given in _TEXT_FORMATS:
        return "pdf" if content.startswith(_PDF) else given
    if given == "pdf" and _PDF not in content[:_HEAD]:
        if _is_text(content):
            return "txt"
        raise ConfigurationError(
            f"{path} is said to be a PDF, and its {len(content)} bytes are neither one nor text; "
            "name its own format: pdf, csv, doc, docx, xls, xlsx, html, txt or md"
        )
    return given


def _is_text(content: bytes) -> bool:
    try:
        return "\x00" not in content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return False


def _text(content: bytes, path: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigurationError(
            f"{path} is a text document with citations, and its bytes are no UTF-8; Bedrock cites text only as such: "
            "encode it anew, or switch its citations off"
        ) from None
