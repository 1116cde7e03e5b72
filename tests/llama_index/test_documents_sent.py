"""Documents go out as Converse takes them, or are named with a remedy before anything is sent."""

from __future__ import annotations

from typing import Any

import pytest
from llama_index.core.base.llms.types import (
    ChatMessage,
    CitableBlock,
    ContentBlock,
    DocumentBlock,
    ImageBlock,
    TextBlock,
)
from llama_index_kit import CONNECTION, MODEL, sent

from cachepoint.emulator import BedrockEmulator
from cachepoint.errors import CachepointWarning, ConfigurationError
from cachepoint.llama_index import CacheAwareBedrockConverse

XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
PPTX = "application/vnd.openxmlformats-officedocument.presentationml.presentation"
PDF = b"%PDF-1.4\n%%EOF\n"
ZIP = b"PK\x03\x04\xff\xfe"
CITED = {"enabled": True}

pytestmark = pytest.mark.usefixtures("nothing_warned_of")


@pytest.fixture
def llm(emulator: BedrockEmulator) -> CacheAwareBedrockConverse:
    return CacheAwareBedrockConverse(model=MODEL, endpoint_url=emulator.url, max_retries=0, **CONNECTION)


def document(data: bytes, kind: str | None, title: str | None = None) -> DocumentBlock:
    return DocumentBlock(data=data, document_mimetype=kind, title=title)


def sent_for(llm: CacheAwareBedrockConverse, emulator: BedrockEmulator, *blocks: ContentBlock) -> list[dict[str, Any]]:
    llm.chat([ChatMessage(blocks=[*blocks, TextBlock(text="What does it say?")])])
    return [block["document"] for block in sent(emulator)[-1]["messages"][0]["content"] if "document" in block]


@pytest.mark.parametrize(
    ("data", "kind", "expected"),
    [
        (PDF, "application/pdf", "pdf"),
        (b"# Tea", "application/pdf", "txt"),
        (PDF, "text/plain", "pdf"),
        (PDF, None, "pdf"),
        (b"# Tea", "text/markdown; charset=utf-8", "md"),
        (b"{}", "application/json", "txt"),
        (b"Tea", None, "txt"),
        (ZIP, XLSX, "xlsx"),
    ],
)
def test_a_documents_format_is_what_its_bytes_are(
    data: bytes, kind: str | None, expected: str, llm: CacheAwareBedrockConverse, emulator: BedrockEmulator
) -> None:
    (given,) = sent_for(llm, emulator, document(data, kind))
    assert given["format"] == expected


@pytest.mark.parametrize(
    ("block", "named"),
    [
        (document(ZIP, PPTX), PPTX),
        (document(ZIP, "application/pdf"), r"messages\[0\]\.content\[0\] is said to be a PDF"),
        (CitableBlock(title="Tea", source="t", content=[document(b"\xff\xfe\x00", "text/plain")]), "no UTF-8"),
        (DocumentBlock(url="s3://bucket/tea.pdf"), "Claude reads nothing"),
        (ImageBlock(url="s3://bucket/tea.png"), "Claude reads nothing"),
    ],
)
def test_what_converse_has_no_place_for_is_named_before_anything_is_sent(
    block: ContentBlock, named: str, llm: CacheAwareBedrockConverse, emulator: BedrockEmulator
) -> None:
    with pytest.raises(ConfigurationError, match=named):
        sent_for(llm, emulator, block)
    assert sent(emulator) == []


def test_nova_reads_s3(llm: CacheAwareBedrockConverse, emulator: BedrockEmulator) -> None:
    nova = llm.model_copy(update={"model": "us.amazon.nova-pro-v1:0"})
    (given,) = sent_for(nova, emulator, DocumentBlock(url="s3://bucket/tea.pdf"))
    assert given["source"] == {"s3Location": {"uri": "s3://bucket/tea.pdf"}}


@pytest.mark.parametrize("kind", ["text/plain", "text/markdown", "text/csv", "text/html"])
def test_text_that_is_to_be_cited_goes_as_text_under_its_title(
    kind: str, llm: CacheAwareBedrockConverse, emulator: BedrockEmulator
) -> None:
    citable = CitableBlock(title="Tea: a report.", source="tea", content=[document("Thé".encode(), kind)])
    expected = {"format": "txt", "name": "Tea a report", "source": {"text": "Thé"}, "citations": CITED}
    assert sent_for(llm, emulator, citable) == [expected]


def test_a_format_without_citations_goes_without_them(
    llm: CacheAwareBedrockConverse, emulator: BedrockEmulator
) -> None:
    citable = CitableBlock(title="Tea", source="tea", content=[document(ZIP, XLSX), document(PDF, "application/pdf")])
    with pytest.warns(CachepointWarning, match="'xlsx': Bedrock gives them for PDF and text only"):
        sheet, pdf = sent_for(llm, emulator, citable)
    assert (sheet["format"], "citations" in sheet, sheet["name"]) == ("xlsx", False, "Tea")
    assert (pdf["format"], pdf["citations"], pdf["name"]) == ("pdf", CITED, "Tea (2)")


def test_every_document_has_a_name_of_its_own(llm: CacheAwareBedrockConverse, emulator: BedrockEmulator) -> None:
    titles = ["a/b", "a.b", "a b (2)", "a b", "", "表", "x" * 300, "x" * 300]
    names = [
        each["name"] for each in sent_for(llm, emulator, *(document(PDF, "application/pdf", each) for each in titles))
    ]
    assert names[:6] == ["a b", "a b (2)", "a b (2) (2)", "a b (3)", "input_document", "document"]
    assert [len(name) for name in names[6:]] == [200, 200]
    assert len({*names}) == len(names)
