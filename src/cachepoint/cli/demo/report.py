"""What the demo prints at the end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal

from cachepoint.cli.columns import columns, paragraph
from cachepoint.cli.demo import article
from cachepoint.cli.demo.runs import Run, median
from cachepoint.core.planning.plan import Checkpoint
from cachepoint.core.planning.reasons import Rejected
from cachepoint.core.provider.prices import Cost, Prices
from cachepoint.core.provider.usage import Usage


@dataclass(frozen=True, slots=True)
class Report:
    """Both runs with what prices them; `latency` says whether seconds are modelled or measured.

    `with_article` adds the article's arithmetic, for the run that repeats its benchmark.
    """

    model_id: str
    without: Run
    cached: Run
    prices: Prices
    at: datetime
    latency: str
    with_article: bool

    def __str__(self) -> str:
        placed = any(record.checkpoints for record in self.cached.records)
        places = [self._break_even(), self._checkpoints()] if placed else [self._held()]
        arithmetic = [article_set_right(self.prices, self.at)] if self.with_article else []
        return "\n\n".join([self._table(), *places, *arithmetic])

    def _table(self) -> str:
        rows = [*self._tokens(), *self._money(), *self._latency()]
        return columns(rows, header=("", "without", "with cachepoint", "change"))

    def _tokens(self) -> Iterator[tuple[str, ...]]:
        before, after = self.without.usage, self.cached.usage
        yield "requests", str(len(self.without.asked)), str(len(self.cached.asked)), ""
        for label, name in (
            ("input tokens, not cached", "input"),
            ("tokens read from the cache", "cache_read"),
            ("tokens written, 5 minutes", "cache_write_5m"),
            ("tokens written, 1 hour", "cache_write_1h"),
            ("output tokens", "output"),
        ):
            yield label, f"{getattr(before, name):,}", f"{getattr(after, name):,}", ""
        yield "hit rate (of prompt tokens)", f"{self.without.hit_rate:.1%}", f"{self.cached.hit_rate:.1%}", ""

    def _money(self) -> Iterator[tuple[str, ...]]:
        for label, with_output in (("input cost", False), ("total cost with output", True)):
            before, after = (self._usd(run, with_output=with_output) for run in (self.without, self.cached))
            yield label, _amount(before), _amount(after), _change(before, after)

    def _latency(self) -> Iterator[tuple[str, ...]]:
        first = self.without.asked[0].seconds, self.cached.asked[0].seconds
        usual = tuple(median([each.seconds for each in run.asked]) for run in (self.without, self.cached))
        for label, (before, after) in (("first request", first), ("median request", usual)):
            yield f"{label}, {self.latency}", f"{before:.2f} s", f"{after:.2f} s", _change(before, after)

    def _usd(self, run: Run, *, with_output: bool) -> Decimal | None:
        """Every request priced alone, for a price may depend on a prompt's length; None when one is unknown."""
        costs = [self._cost(each.usage, with_output=with_output) for each in run.asked]
        known = [cost.usd for cost in costs if cost is not None]
        return sum(known, Decimal(0)) if len(known) == len(costs) else None

    def _cost(self, usage: Usage, *, with_output: bool) -> Cost | None:
        counted = usage if with_output else replace(usage, output=0)
        return self.prices.price(self.model_id, counted, at=self.at)

    def _break_even(self) -> str:
        request = break_even(self.prices, self.model_id, self.at)
        if request is None:
            return "Break-even: none, no lower price is known for reads with this model."
        return f"Break-even: from request {request} on, within 5 minutes of the one before, caching has cost less."

    def _checkpoints(self) -> str:
        """Where checkpoints went and why; reasons that differ only in numbers are one."""
        placed: dict[tuple[object, ...], list[Checkpoint]] = {}
        for record in self.cached.records:
            for point in record.checkpoints:
                placed.setdefault((point.path, point.ttl, point.reason.key), []).append(point)
        rows = (
            (points[0].path, points[0].ttl, str(len(points)), f"{points[0].tokens:,}", points[0].why)
            for points in placed.values()
        )
        return columns(rows, header=("checkpoint at", "TTL", "requests", "tokens, estimated", "why"))

    def _held(self) -> str:
        """Why no checkpoint was placed; reasons that differ only in numbers are one."""
        held: dict[tuple[str, str], list[Rejected]] = {}
        for record in self.cached.records:
            for place in record.held:
                held.setdefault((place.path, place.reason), []).append(place)
        rows = [(places[0].path or "-", str(len(places)), places[0].why) for places in held.values()]
        reasons = [columns(rows, header=("held back after", "requests", "why"))] if rows else []
        return "\n\n".join(["Checkpoints: none was placed.", *reasons])


def article_set_right(prices: Prices, at: datetime) -> str:
    """The article's arithmetic beside the right one."""
    right = article.corrected(prices, at)
    return paragraph(
        f'The arithmetic of "{article.TITLE}" ({article.DATE}), set right: {article.REQUESTS:,} requests '
        f"over a document of {article.TOKENS:,} tokens at Claude 3.7 Sonnet's prices "
        f"cost ${right.without:.2f} without caching and ${right.cached:.2f} with it "
        f"(one write and {article.REQUESTS - 1:,} reads, document tokens only): {right.saved_share:.1%} less. "
        f"Not ${article.CLAIMED_USD} and {article.CLAIMED_SHARE:.0%} less: that takes a tenth of the read price, "
        f"and the write for the price of plain input."
    )


def estimate(
    prices: Prices, model_id: str, prompt: Sequence[int], output: int, at: datetime
) -> tuple[Decimal, Decimal]:
    """What both runs would cost at most, in USD, without caching and with it: prompts in tokens, one per request."""
    without = [article.priced(prices, model_id, Usage(input=tokens, output=output), at).usd for tokens in prompt]
    first, *later = prompt
    write = article.priced(prices, model_id, Usage(cache_write_5m=first, output=output), at).usd
    reads = [article.priced(prices, model_id, Usage(cache_read=tokens, output=output), at).usd for tokens in later]
    return sum(without, Decimal(0)), write + sum(reads, Decimal(0))


def break_even(prices: Prices, model_id: str, at: datetime) -> int | None:
    """From which request on a prefix that was written once has cost less than uncached; None: never, or unknown."""
    # A price may depend on the prompt's length, so it takes a length: the article's.
    write = prices.price(model_id, Usage(cache_write_5m=article.TOKENS), at=at)
    read = prices.price(model_id, Usage(cache_read=article.TOKENS), at=at)
    if write is None or read is None or read.saved_usd <= 0:
        return None
    surcharge = write.usd - write.uncached_usd
    return int(surcharge // read.saved_usd) + 2


def _amount(usd: Decimal | None) -> str:
    return "unknown" if usd is None else f"${usd:.4f}"


def _change(before: Decimal | float | None, after: Decimal | float | None) -> str:
    if not before or after is None:
        return ""
    return f"{float(after) / float(before) - 1:+.1%}"
