"""LlamaIndex content blocks as Converse content blocks.

Nothing here writes to the caller's blocks. `ConversePart` is an object of a Converse request or
answer, as boto3 takes and gives it; a content block has a single key.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from typing import Any

import filetype  # type: ignore[import-untyped]  # a dependency of llama-index-core
from llama_index.core.base.llms.types import (
    BaseContentBlock,
    CacheControl,
    CachePoint,
    CitableBlock,
    CitationBlock,
    DocumentBlock,
    ImageBlock,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
    VideoBlock,
)
from llama_index.core.llms.utils import parse_partial_json

from cachepoint.bedrock.warn import warn
from cachepoint.bedrock.wire.cache_point import cache_point_for
from cachepoint.errors import ConfigurationError

ConversePart = dict[str, Any]

ORIGIN = "model_provider"
"""Key of `ThinkingBlock.additional_information` that names the provider whose model thought it."""
REDACTED = "redacted_content"
"""Key of `ThinkingBlock.additional_information` that holds redacted reasoning, in base64."""

_DOCUMENT_FORMATS: Mapping[str, str] = {
    "application/pdf": "pdf",
    "application/msword": "doc",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "application/vnd.ms-excel": "xls",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
    "text/csv": "csv",
    "text/html": "html",
    "text/markdown": "md",
    "text/plain": "txt",
}
_VIDEO_FORMATS: Mapping[str, str] = {
    "video/x-matroska": "mkv",
    "video/quicktime": "mov",
    "video/x-flv": "flv",
    "video/x-ms-wmv": "wmv",
    "video/3gpp": "three_gp",
}
_UNTITLED = "input_document"
"""What LlamaIndex calls a document that was given no title."""


def cache_mark(control: Any) -> ConversePart | None:
    """The checkpoint for a `cache_control`, LlamaIndex's or a dict; None where it asks for nothing."""
    if not control:
        return None
    return cache_point_for(control.model_dump(exclude_unset=True) if isinstance(control, CacheControl) else control)


UNREADABLE = (ValueError, RecursionError)
"""What reading JSON raises, also of a model that opens brackets until its answer breaks off."""


def parse_arguments(arguments: str | dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call, of which a part may be missing at the end."""
    if isinstance(arguments, dict):
        return arguments
    try:
        parsed = json.loads(arguments) if arguments else {}
    except UNREADABLE:
        try:
            parsed = parse_partial_json(arguments)
        except UNREADABLE:
            parsed = {}
    return parsed if isinstance(parsed, dict) else {}


class BlockTranslator:
    """Translates the blocks of one request.

    `origin` is the provider of the model it goes to, "" where that is not known.
    """

    def __init__(self, origin: str = "") -> None:
        self._origin = origin
        self._by_type: dict[type[BaseContentBlock], Callable[[Any], list[ConversePart]]] = {
            TextBlock: self._text,
            ImageBlock: self._image,
            DocumentBlock: lambda block: [{"document": self._document(block)}],
            VideoBlock: self._video,
            CachePoint: lambda block: [mark] if (mark := cache_mark(block.cache_control)) else [],
            CitableBlock: self._citable,
            # What was cited stands in the text before it; the service takes the text back as it is.
            CitationBlock: lambda _: [],
            ThinkingBlock: self._thinking,
            ToolCallBlock: self._tool_call,
        }

    def translate(self, block: BaseContentBlock) -> list[ConversePart]:
        """The Converse blocks of one LlamaIndex block, none where it is empty or Converse has no such thing."""
        kinds = (self._by_type.get(kind) for kind in type(block).__mro__)
        translation = next(filter(None, kinds), None)
        if translation is None:
            warn(f"Converse takes no {type(block).__name__}; it was left out of the request. Give what it says as text")
            return []
        return translation(block)

    def _text(self, block: TextBlock) -> list[ConversePart]:
        # Bedrock has accepted white space beside other text and has refused it: nobody misses what says nothing.
        return [{"text": block.text}] if block.text.strip() else []

    def _image(self, block: ImageBlock) -> list[ConversePart]:
        if source := _s3_source(block.url):
            kind = block.image_mimetype or "image/png"
        else:
            data = block.resolve_image().read()
            source = {"bytes": data}
            kind = block.image_mimetype or filetype.guess_mime(data) or "image/png"
        subtype = kind.removeprefix("image/")
        return [{"image": {"format": "jpeg" if subtype == "jpg" else subtype, "source": source}}]

    def _video(self, block: VideoBlock) -> list[ConversePart]:
        source = _s3_source(block.url) or {"bytes": block.resolve_video().read()}
        kind = block.video_mimetype or "video/mp4"
        return [{"video": {"format": _VIDEO_FORMATS.get(kind, kind.removeprefix("video/")), "source": source}}]

    def _document(self, block: DocumentBlock, title: str = "") -> ConversePart:
        source = _s3_source(block.url) or {"bytes": block.resolve_document().read()}
        own = block.title if block.title != _UNTITLED else ""
        return {
            "format": _document_format(block.document_mimetype, source.get("bytes")),
            "name": own or title or block.title or "",
            "source": source,
        }

    def _citable(self, block: CitableBlock) -> list[ConversePart]:
        cited = {"citations": {"enabled": True}}
        passages = [{"text": part.text} for part in block.content if isinstance(part, TextBlock) and part.text.strip()]
        result = {"source": block.source, "title": block.title, "content": passages, **cited}
        parts: list[ConversePart] = [{"searchResult": result}] if passages else []
        for part in block.content:
            if isinstance(part, DocumentBlock):
                # The service names a citation's source by the document's name.
                parts.append({"document": {**self._document(part, block.title), **cited}})
            elif isinstance(part, ImageBlock):
                parts += self._image(part)
        return parts

    def _thinking(self, block: ThinkingBlock) -> list[ConversePart]:
        known = block.additional_information
        # Another provider's reasoning is refused; of what is not known to be another's the model table decides.
        if self._origin and known.get(ORIGIN, self._origin) != self._origin:
            return []
        if redacted := known.get(REDACTED):
            return [{"reasoningContent": {"redactedContent": base64.b64decode(redacted)}}]
        signature = known.get("signature")
        if not block.content and not signature:
            return []
        text = {"text": block.content or "", **({"signature": signature} if signature else {})}
        return [{"reasoningContent": {"reasoningText": text}}]

    def _tool_call(self, block: ToolCallBlock) -> list[ConversePart]:
        arguments = parse_arguments(block.tool_kwargs)
        return [{"toolUse": {"toolUseId": block.tool_call_id or "", "name": block.tool_name, "input": arguments}}]


def _s3_source(url: object) -> ConversePart | None:
    return {"s3Location": {"uri": str(url)}} if url and str(url).startswith("s3://") else None


def _document_format(mimetype: str | None, content: bytes | None) -> str:
    """The format by the media type; what Converse has no format for is text, where its bytes are."""
    if known := _DOCUMENT_FORMATS.get((mimetype or "").partition(";")[0].strip().lower()):
        return known
    if content is not None:
        if content.startswith(b"%PDF-"):
            return "pdf"
        try:
            if "\x00" not in content.decode():
                return "txt"
        except UnicodeDecodeError:
            pass
    raise ConfigurationError(
        f"a document has the media type {mimetype!r}, for which Converse has no format, and no text in its place; "
        f"convert it, or set document_mimetype to one of {', '.join(_DOCUMENT_FORMATS)}"
    )
