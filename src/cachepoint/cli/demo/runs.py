"""The same questions asked twice: by the parent class without caching, and by cachepoint's."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cachepoint.cli.demo.document import Document
from cachepoint.core.provider.usage import Usage

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import AIMessage

    from cachepoint.core.accounts.record import CallRecord

INSTRUCTIONS = "Answer the question from the document below, briefly, and quote the sentence you rely on.\n\n"
MAX_TOKENS = 400


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: its tokens, and how many seconds it took by the service's own account."""

    usage: Usage
    seconds: float


@dataclass(frozen=True, slots=True)
class Run:
    """The requests of one side, and what cachepoint recorded of them (nothing for the other side)."""

    asked: tuple[Asked, ...]
    records: tuple[CallRecord, ...] = ()

    @property
    def usage(self) -> Usage:
        """All tokens, by class."""
        return sum((each.usage for each in self.asked), Usage())

    @property
    def hit_rate(self) -> float:
        """The share of prompt tokens that were read from the cache."""
        usage = self.usage
        return usage.cache_read / usage.prompt if usage.prompt else 0.0


def without_caching(client: Any, model_id: str, document: Document, asking: Asking) -> Run:
    """Ask through `ChatBedrockConverse` as it is."""
    from langchain_aws import ChatBedrockConverse

    model = ChatBedrockConverse(client=client, model=model_id, max_tokens=MAX_TOKENS)
    return Run(tuple(asking.ask(model, document)))


def with_cachepoint(
    client: Any, model_id: str, document: Document, asking: Asking, clock: Callable[[], float] = time.time
) -> Run:
    """Ask through `CacheAwareChatBedrockConverse`; nothing else differs."""
    from cachepoint.core.accounts.ledger import CacheLedger
    from cachepoint.langchain import CacheAwareChatBedrockConverse

    ledger = CacheLedger()
    model = CacheAwareChatBedrockConverse(
        client=client,
        model=model_id,
        max_tokens=MAX_TOKENS,
        ledger=ledger,
        clock=clock,
    )
    asked = tuple(asking.ask(model, document))
    return Run(asked, tuple(ledger.records))


@dataclass(frozen=True, slots=True)
class Asking:
    """How the questions are put: how many, and what happens after each (progress, time passing)."""

    requests: int
    after_each: Callable[[], None]

    def ask(self, model: BaseChatModel, document: Document) -> Iterator[Asked]:
        """Put the questions one after the other."""
        from langchain_core.messages import HumanMessage, SystemMessage

        system = SystemMessage(INSTRUCTIONS + document.text)
        for question in document.asked(self.requests):
            answer = model.invoke([system, HumanMessage(question)])
            yield Asked(usage_of(answer), latency_of(answer))
            self.after_each()


def usage_of(answer: AIMessage) -> Usage:
    """The tokens of an answer by LangChain's conventions: `input_tokens` is the whole prompt."""
    reported = answer.usage_metadata
    if reported is None:
        return Usage()
    details: dict[str, Any] = {**reported.get("input_token_details", {})}
    read = details.get("cache_read") or 0
    written_1h = details.get("ephemeral_1h_input_tokens") or 0
    written_5m = (details.get("ephemeral_5m_input_tokens") or 0) + (details.get("cache_creation") or 0)
    return Usage(
        input=reported["input_tokens"] - read - written_5m - written_1h,
        cache_read=read,
        cache_write_5m=written_5m,
        cache_write_1h=written_1h,
        output=reported["output_tokens"],
    )


def latency_of(answer: AIMessage) -> float:
    """Seconds from the `latencyMs` that Converse reports; LangChain keeps it in a list."""
    milliseconds: list[int] = answer.response_metadata["metrics"]["latencyMs"]
    return sum(milliseconds) / 1000


def median(numbers: Sequence[float]) -> float:
    """The middle one of the sorted numbers."""
    ranked = sorted(numbers)
    return ranked[len(ranked) // 2]
