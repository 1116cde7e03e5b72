"""What caching saves, and where it costs, by the shape of the traffic: the README's second table.

Every shape is sent twice to a fresh emulator with real boto3, by the plain client and by a wrapped one,
at the list prices of Claude Sonnet 4.6. Run: `python benchmarks/shapes.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

import cachepoint
from cachepoint.catalogue.table import model_prices
from cachepoint.cli.columns import columns
from cachepoint.cli.demo.document import excerpts, shipped
from cachepoint.core.provider.usage import Usage
from cachepoint.emulator import BedrockEmulator

MODEL = "global.anthropic.claude-sonnet-4-6"
REQUESTS = 50
DOCUMENT = shipped()
KEY = b"the same handicaps in every run."
"""A store's key draws the handicaps of the guard, and a figure is to be the same each time."""
Request = dict[str, Any]


def user(text: str) -> Request:
    return {"role": "user", "content": [{"text": text}]}


def about(system: str, question: str) -> Request:
    return {"system": [{"text": system}], "messages": [user(question)]}


def questions() -> tuple[str, ...]:
    return DOCUMENT.asked(REQUESTS)


def document_in_system() -> Iterator[Request]:
    return (about(DOCUMENT.text, question) for question in questions())


def document_and_question_in_one_string() -> Iterator[Request]:
    return ({"messages": [user(f"{DOCUMENT.text}\n\nQuestion: {question}")]} for question in questions())


def one_long_conversation() -> Iterator[Request]:
    turns: list[Request] = []
    for question in questions():
        turns.append(user(question))
        yield {"system": [{"text": DOCUMENT.text[:2_000]}], "messages": list(turns)}
        turns.append({"role": "assistant", "content": [{"text": excerpts(DOCUMENT, question)}]})


def time_of_day_first() -> Iterator[Request]:
    for number, question in enumerate(questions()):
        yield about(f"It is 09:{number:02}:17.\n\n{DOCUMENT.text}", question)


def another_document_each_time() -> Iterator[Request]:
    for number, question in enumerate(questions()):
        words = DOCUMENT.text.split(" ")
        yield about(" ".join(words[number * 7 :] + words[: number * 7]), question)


def below_the_minimum() -> Iterator[Request]:
    return (about(DOCUMENT.text[:2_000], question) for question in questions())


def only_one_request() -> Iterator[Request]:
    return iter([about(DOCUMENT.text, questions()[0])])


@dataclass(frozen=True, slots=True)
class Shape:
    """Requests, so many seconds apart."""

    name: str
    requests: Callable[[], Iterator[Request]]
    seconds_between: float = 8.0

    def usages(self, *, caching: bool) -> list[Usage]:
        with BedrockEmulator(replies=lambda question: excerpts(DOCUMENT, question.text[-200:])) as emulator:
            client = emulator.client()
            if caching:
                client = cachepoint.wrap(client, clock=emulator.clock, store=cachepoint.MemoryStore(key=KEY))
            for request in self.requests():
                client.converse(modelId=MODEL, **request)
                emulator.clock.advance(self.seconds_between)
            return [line.usage for line in emulator.bill().lines]


SHAPES = (
    Shape("a document in the system prompt, 8 s apart", document_in_system),
    Shape("the same, 7 minutes apart", document_in_system, 420),
    Shape("the same, 2 hours apart", document_in_system, 7_200),
    Shape("document and question in one string", document_and_question_in_one_string),
    Shape("one conversation of 50 turns", one_long_conversation),
    Shape("the time of day on line one", time_of_day_first),
    Shape("another document each time", another_document_each_time),
    Shape("a prompt below the minimum", below_the_minimum),
    Shape("a single request", only_one_request),
)


def cost(usages: list[Usage], *, with_output: bool) -> Decimal:
    prices = model_prices(MODEL)
    assert prices is not None
    total = Decimal(0)
    for usage in usages:
        priced = prices.cost(usage if with_output else replace(usage, output=0))
        assert priced is not None
        total += priced.usd
    return total


def measured(shape: Shape) -> tuple[str, ...]:
    without, cached = shape.usages(caching=False), shape.usages(caching=True)
    whole = sum(cached, Usage())
    changes = (
        f"{cost(cached, with_output=output) / cost(without, with_output=output) - 1:+.1%}" for output in (False, True)
    )
    return (shape.name, f"{whole.cache_read / whole.prompt:.1%}", *changes)


if __name__ == "__main__":
    print(columns(map(measured, SHAPES), header=("traffic", "hit rate", "input cost", "whole bill")))
