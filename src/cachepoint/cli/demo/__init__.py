"""`cachepoint demo`: fifty questions about one document, without and with cachepoint.

It repeats the benchmark of the article that `article.py` names, on a model that is still served.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cachepoint.cli.columns import paragraph
from cachepoint.cli.demo import document as documents
from cachepoint.cli.demo.document import Document
from cachepoint.errors import MissingDependencyError

if TYPE_CHECKING:
    from cachepoint.cli.demo.runs import Run

MODEL = "us.anthropic.claude-sonnet-4-6"  # served, with no end announced: the article's 3.7 Sonnet ended 2026-04-28
_REQUESTS, _LIVE_REQUESTS = 50, 10
_SECONDS_BETWEEN = 8.0


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "demo",
        help="ask about a document without and with cachepoint, and compare the bills",
        description="Asks questions about one document twice, through ChatBedrockConverse as it is and through "
        "cachepoint's class, on an embedded Bedrock with real boto3, and compares tokens, cost and latency.",
    )
    parser.add_argument("--document", type=Path, metavar="FILE", help="ask about this text file instead")
    parser.add_argument("--model", default=MODEL, help="model or inference-profile id (default %(default)s)")
    parser.add_argument(
        "--requests",
        type=_at_least_two,
        metavar="N",
        help=f"requests on each side (default {_REQUESTS}, with --live {_LIVE_REQUESTS})",
    )
    parser.add_argument(
        "--live", action="store_true", help="use Amazon Bedrock with your credentials; says the cost and asks first"
    )
    parser.add_argument("--yes", action="store_true", help="with --live: do not ask")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run both sides and print the comparison; raises MissingDependencyError without LangChain's package for AWS."""
    try:
        import_module("langchain_aws")
    except ModuleNotFoundError as problem:
        raise MissingDependencyError(
            f"the demo asks through LangChain's ChatBedrockConverse and needs {problem.name}; "
            "run: pip install 'cachepoint[langchain,emulator]'"
        ) from problem
    from botocore.exceptions import BotoCoreError, ClientError

    document = documents.from_file(options.document) if options.document else documents.shipped()
    requests = options.requests or (_LIVE_REQUESTS if options.live else _REQUESTS)
    about = f"{requests} questions about {document.title} (about {documents.tokens_of(document.text):,} tokens)"
    print(f"{about}, model {options.model}\n", flush=True)
    with_article = options.document is None and options.model == MODEL
    try:
        if options.live:
            return _live(options.model, document, requests, agreed=options.yes, with_article=with_article)
        _embedded(options.model, document, requests, with_article=with_article)
    except (BotoCoreError, ClientError) as problem:
        print(f"cachepoint: {options.model}: {problem}", file=sys.stderr)
        return 1
    return 0


def _embedded(model_id: str, document: Document, requests: int, *, with_article: bool) -> None:
    from cachepoint.cli.demo import article
    from cachepoint.cli.demo.runs import Asking, with_cachepoint, without_caching
    from cachepoint.emulator import BedrockEmulator

    with BedrockEmulator(replies=lambda question: documents.excerpts(document, question.text)) as emulator:

        def pause() -> None:
            emulator.clock.advance(_SECONDS_BETWEEN)

        client = emulator.client()
        without = without_caching(client, model_id, document, Asking(requests, _progress("without", requests, pause)))
        asking = Asking(requests, _progress("with cachepoint", requests, pause))
        cached = with_cachepoint(client, model_id, document, asking, emulator.clock)
        billed = emulator.bill().total
    _print_report(model_id, without, cached, "modelled", with_article=with_article)
    source = "that article" if with_article else f'"{article.TITLE}" ({article.DATE})'
    print()
    print(
        paragraph(
            "No figure here was measured on Amazon Bedrock: the service was the emulator on this machine, the requests "
            f"{_SECONDS_BETWEEN:g} seconds apart on its clock. Its own bill for both runs is ${billed:.4f}. Latency is "
            f"its model, fitted to the single pair of times in {source}: 7.61 s and 3.12 s."
        )
    )


def _live(model_id: str, document: Document, requests: int, *, agreed: bool, with_article: bool) -> int:
    import boto3

    from cachepoint.cli.demo.runs import Asking, with_cachepoint, without_caching

    client: Any = boto3.client("bedrock-runtime")
    if not agreed and not _agrees(client.meta.region_name, model_id, document, requests):
        print("Nothing was sent.")
        return 1
    without = without_caching(client, model_id, document, Asking(requests, _progress("without", requests)))
    cached = with_cachepoint(client, model_id, document, Asking(requests, _progress("with cachepoint", requests)))
    _print_report(model_id, without, cached, "measured", with_article=with_article)
    return 0


def _agrees(region: str, model_id: str, document: Document, requests: int) -> bool:
    from cachepoint.catalogue.price_book import PriceBook
    from cachepoint.cli.demo import report
    from cachepoint.cli.demo.runs import INSTRUCTIONS, MAX_TOKENS

    prompts = [documents.tokens_of(INSTRUCTIONS + document.text + question) for question in document.asked(requests)]
    without, cached = report.estimate(PriceBook(), model_id, prompts, MAX_TOKENS, datetime.now(UTC))
    print(
        paragraph(
            f"This sends {2 * requests} requests to Amazon Bedrock in {region} with your credentials. At list prices, "
            f"and with answers as long as allowed ({MAX_TOKENS} tokens), they cost about ${without:.2f} without "
            f"caching and ${cached:.2f} with it: ${without + cached:.2f} in all. Token counts are estimates."
        )
    )
    try:
        return input("Go on? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


def _print_report(model_id: str, without: Run, cached: Run, latency: str, *, with_article: bool) -> None:
    from cachepoint.catalogue.price_book import PriceBook
    from cachepoint.cli.demo.report import Report

    print(Report(model_id, without, cached, PriceBook(), datetime.now(UTC), latency, with_article))


def _progress(side: str, requests: int, then: Callable[[], None] = lambda: None) -> Callable[[], None]:
    """Counts a side's requests on standard error, in one line on a terminal."""
    end = "\r" if sys.stderr.isatty() else "\n"
    step = 1 if sys.stderr.isatty() else max(1, requests // 4)
    done = 0

    def after_each() -> None:
        nonlocal done
        done += 1
        if done % step == 0 or done == requests:
            print(f"{side}: {done}/{requests}   ", end="\n" if done == requests else end, file=sys.stderr, flush=True)
        then()

    return after_each


def _at_least_two(text: str) -> int:
    number = int(text)
    if number < 2:
        raise argparse.ArgumentTypeError(f"{number} is too few: caching needs a second request to pay; give 2 or more")
    return number
