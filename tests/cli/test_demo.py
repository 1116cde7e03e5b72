"""`cachepoint demo`, on the embedded Bedrock and on one that it takes for the service."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from cachepoint.catalogue.price_book import PriceBook
from cachepoint.catalogue.table import load_rules
from cachepoint.cli import demo, main
from cachepoint.cli.demo import article, document, report
from cachepoint.cli.demo.runs import Asking, with_cachepoint, without_caching
from cachepoint.emulator import BedrockEmulator

MODEL = "us.anthropic.claude-sonnet-4-6"
NOW = datetime(2026, 11, 22, tzinfo=UTC)
Printed = Callable[[], str]


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Printed:
    """What was printed, its lines joined and its spaces single."""
    return lambda: " ".join(capsys.readouterr().out.split())


@pytest.fixture
def service(bedrock_emulator: BedrockEmulator, monkeypatch: pytest.MonkeyPatch) -> BedrockEmulator:
    """An emulator that boto3 takes for Amazon Bedrock."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", bedrock_emulator.url)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "local")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "local")
    return bedrock_emulator


def number_after(label: str, text: str) -> int:
    found = re.search(re.escape(label) + r" ([\d,]+)", text)
    assert found, label
    return int(found[1].replace(",", ""))


def nothing() -> None:
    pass


def test_the_demo_writes_the_document_once_and_reads_it_ever_after(printed: Printed) -> None:
    assert main(["demo", "--requests", "5"]) == 0
    text = printed()
    assert number_after("tokens read from the cache 0", text) == 4 * number_after("tokens written, 5 minutes 0", text)
    assert "Break-even: from request 2 on" in text


def test_the_demo_says_what_its_figures_are(printed: Printed) -> None:
    main(["demo", "--requests", "2"])
    text = printed()
    assert "No figure here was measured on Amazon Bedrock" in text
    assert "median request, modelled" in text


def test_the_demo_sets_the_articles_arithmetic_right(printed: Printed) -> None:
    main(["demo", "--requests", "2"])
    text = printed()
    assert "cost $23.40 without caching and $2.37 with it (one write and 999 reads" in text
    assert "89.9% less. Not $0.26 and 99% less" in text
    assert f'"{article.TITLE}" (5 November 2025)' in text


def test_another_model_leaves_the_articles_arithmetic_out(printed: Printed) -> None:
    main(["demo", "--requests", "2", "--model", "us.anthropic.claude-sonnet-4-5-20250929-v1:0"])
    text = printed()
    assert "set right" not in text
    assert f'the single pair of times in "{article.TITLE}" (5 November 2025)' in text


def test_the_default_model_is_one_that_does_not_end() -> None:
    rule = load_rules(environ={}).resolve(demo.MODEL)
    assert rule is not None
    assert rule.facts.end_of_life == ""


def test_the_articles_figures_follow_from_todays_prices() -> None:
    right = article.corrected(PriceBook(), NOW)
    assert right.without == Decimal("23.4")
    assert right.cached == Decimal("7.8") * Decimal("0.00375") + 999 * Decimal("7.8") * Decimal("0.0003")


@pytest.mark.parametrize(("model", "request_number"), [(MODEL, 2), ("us.anthropic.claude-3-7-sonnet-20250219-v1:0", 2)])
def test_a_prefix_read_once_has_paid_for_its_write(model: str, request_number: int) -> None:
    assert report.break_even(PriceBook(), model, NOW) == request_number


def test_where_reads_have_no_lower_price_nothing_breaks_even() -> None:
    assert report.break_even(PriceBook(), "meta.llama3-1-70b-instruct-v1:0", NOW) is None


def test_both_runs_cost_together_what_the_emulator_bills(bedrock_emulator: BedrockEmulator) -> None:
    shipped, client = document.shipped(), bedrock_emulator.client()
    without = without_caching(client, MODEL, shipped, Asking(4, nothing))
    cached = with_cachepoint(client, MODEL, shipped, Asking(4, nothing), bedrock_emulator.clock)
    prices = PriceBook()
    usages = [each.usage for run in (without, cached) for each in run.asked]
    assert sum(article.priced(prices, MODEL, usage, NOW).usd for usage in usages) == bedrock_emulator.bill().total


def test_the_document_is_of_the_articles_size_and_the_questions_differ() -> None:
    shipped = document.shipped()
    assert 0.95 * article.TOKENS < document.tokens_of(shipped.text) <= article.TOKENS
    assert len(set(shipped.asked(50))) == 50


def test_a_document_of_the_users_is_asked_about_whole(tmp_path: Path, printed: Printed) -> None:
    file = tmp_path / "terms.txt"
    file.write_text("A tenant may cancel at the end of every month. " * 400)
    assert main(["demo", "--requests", "3", "--document", str(file)]) == 0
    text = printed()
    assert "3 questions about terms.txt" in text
    assert "set right" not in text


def test_the_demo_says_why_no_checkpoint_was_placed(tmp_path: Path, printed: Printed) -> None:
    file = tmp_path / "note.txt"
    file.write_text("A tenant may cancel at the end of every month.")
    assert main(["demo", "--requests", "2", "--document", str(file)]) == 0
    text = printed()
    assert "Checkpoints: none was placed." in text
    assert "below the minimum of 1024" in text


@pytest.mark.parametrize("content", [None, "", b"\xff\xfe\x00"], ids=["missing", "empty", "no text"])
def test_a_document_that_cannot_be_read_is_named(
    content: str | bytes | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "terms.txt"
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert main(["demo", "--document", str(file)]) == 1
    assert str(file) in capsys.readouterr().err


def test_a_model_without_caching_costs_the_same_on_both_sides(printed: Printed) -> None:
    assert main(["demo", "--requests", "2", "--model", "meta.llama3-1-70b-instruct-v1:0"]) == 0
    text = printed()
    assert "hit rate (of prompt tokens) 0.0% 0.0%" in text
    assert "Checkpoints: none was placed." in text
    assert "the model takes no checkpoints" in text
    assert "Break-even" not in text


def test_one_request_is_too_few(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["demo", "--requests", "1"])
    assert "1 is too few" in capsys.readouterr().err


@pytest.mark.parametrize("answer", ["n", "", None])
def test_nothing_is_sent_to_the_service_unless_the_user_agrees(
    answer: str | None, service: BedrockEmulator, monkeypatch: pytest.MonkeyPatch, printed: Printed
) -> None:
    def reply(_: str) -> str:
        if answer is None:
            raise EOFError
        return answer

    monkeypatch.setattr("builtins.input", reply)
    assert main(["demo", "--live"]) == 1
    text = printed()
    assert "This sends 20 requests to Amazon Bedrock in us-east-1" in text
    assert re.search(r"\$0\.\d\d in all", text)
    assert not service.requests


def test_on_the_service_latency_is_measured_and_not_modelled(service: BedrockEmulator, printed: Printed) -> None:
    assert main(["demo", "--live", "--yes", "--requests", "2"]) == 0
    text = printed()
    assert "median request, measured" in text
    assert "emulator" not in text
    assert len(service.requests) == 4


def test_the_estimate_is_an_upper_bound_of_the_cost(service: BedrockEmulator) -> None:
    shipped = document.shipped()
    prompts = [document.tokens_of(shipped.text + question) + 50 for question in shipped.asked(3)]
    without, cached = report.estimate(PriceBook(), MODEL, prompts, 400, NOW)
    main(["demo", "--live", "--yes", "--requests", "3"])
    assert 0.5 * float(without + cached) < service.bill().total < without + cached


def test_a_model_that_is_none_is_one_line_and_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--requests", "2", "--model", "foo"]) == 1
    refusal = "when calling the Converse operation: The provided model identifier is invalid."
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("cachepoint: ")]
    assert lines == [f"cachepoint: foo: An error occurred (ValidationException) {refusal}"]


def test_what_the_service_refuses_is_reported_as_it_says_it(
    service: BedrockEmulator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", "--live", "--yes", "--requests", "2", "--model", "no-such-model"]) == 1
    assert "The provided model identifier is invalid" in capsys.readouterr().err
