"""Each call as OpenTelemetry sees it: attributes of a span, and metrics.

Names are those of the GenAI semantic conventions (status: Development), each beside the older ones that
backends still read: an attribute is cheap, a dashboard that shows no cache reads is not. Needs the extra `otel`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Literal, get_args

from cachepoint.core.accounts.record import CallRecord
from cachepoint.core.provider.usage import Usage
from cachepoint.errors import ConfigurationError, MissingDependencyError

try:
    from opentelemetry import metrics, trace
    from opentelemetry.util.types import AttributeValue
except ModuleNotFoundError as problem:
    raise MissingDependencyError(f"{__name__} needs {problem.name}; run: pip install 'cachepoint[otel]'") from problem

_SCOPE = "cachepoint"
_BEDROCK = "aws.bedrock"
_BEDROCK_APIS = ("converse", "invoke_model")
_BUCKETS = [4.0**power for power in range(14)]  # 1 to 67,108,864, as the conventions have it
_NANOSECONDS = 1_000_000_000

Attributes = dict[str, AttributeValue]
Spans = Literal["current", "own", "none"]


class OpenTelemetry:
    """Exports each call of a ledger: `CacheLedger(on_call=OpenTelemetry())`.

    `spans`: "current" puts the attributes on the span that is current when the call ends, where a later
    call in the same span overwrites them; "own" makes a span for each call; "none" makes none.
    `tags` are the names of tags to add to spans and metrics as `cachepoint.tag.<name>`; each value is a
    time series of its own. Providers default to the global ones.
    """

    def __init__(
        self,
        *,
        spans: Spans = "current",
        tags: Sequence[str] = (),
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
    ) -> None:
        if spans not in get_args(Spans):
            raise ConfigurationError(f"OpenTelemetry(spans={spans!r}): use one of {get_args(Spans)}")
        if isinstance(tags, str):
            raise ConfigurationError(f"OpenTelemetry(tags={tags!r}): use tag names, such as ({tags!r},)")
        given: Any = tags
        if not isinstance(given, Collection) or not all(isinstance(name, str) for name in given):
            raise ConfigurationError(f"OpenTelemetry(tags={given!r:.80}): use tag names, such as ('tenant',)")
        self._spans = spans
        self._tags = tuple(tags)
        self._tracer = trace.get_tracer(_SCOPE, tracer_provider=tracer_provider)
        self._instruments = _Instruments(metrics.get_meter(_SCOPE, meter_provider=meter_provider))

    def __call__(self, record: CallRecord) -> None:
        """Export a call."""
        common = _identity(record) | self._chosen(record)
        self._instruments.record(record, common)
        if self._spans == "current":
            span = trace.get_current_span()
            if span.is_recording():
                span.set_attributes(common | span_attributes(record))
        elif self._spans == "own":
            started = round(record.started * _NANOSECONDS)
            self._tracer.start_span(
                f"chat {record.model}",
                kind=trace.SpanKind.CLIENT,
                attributes=common | span_attributes(record),
                start_time=started,
            ).end(started + round(record.seconds * _NANOSECONDS))

    def _chosen(self, record: CallRecord) -> Attributes:
        return {f"cachepoint.tag.{name}": record.tags[name] for name in self._tags if name in record.tags}


def _identity(record: CallRecord) -> Attributes:
    identity: Attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": _provider(record),
        "gen_ai.request.model": record.model,
    }
    if record.base_model is not None:
        identity["gen_ai.response.model"] = record.base_model
    if record.error is not None:
        identity["error.type"] = record.error
    return identity


def _provider(record: CallRecord) -> str:
    """Who was called; of LangChain's other classes, whose calls the callback records, as `api` names them."""
    bedrock = record.api in _BEDROCK_APIS or "bedrock" in record.api
    return _BEDROCK if bedrock else record.api.removesuffix("-chat")


def span_attributes(record: CallRecord) -> Attributes:
    """What a span says of a call's tokens, cost and cache, under the current names and the older ones."""
    attributes: Attributes = {"gen_ai.system": _provider(record), "cachepoint.mode": record.mode}
    if record.status is not None:
        attributes["cachepoint.status"] = record.status
    if record.usage is not None:
        attributes |= _token_attributes(record.usage)
    if record.cost is not None:
        cost = record.cost.to_dict()
        attributes["gen_ai.usage.cost"] = float(record.cost.usd)
        attributes |= {f"cachepoint.cost.{name}": cost[name] for name in ("usd", "uncached_usd", "saved_usd")}
    if record.at_least:
        attributes["cachepoint.at_least"] = True
    if record.retries:
        attributes["cachepoint.retries"] = record.retries
    if record.miss is not None:
        attributes |= {
            "cachepoint.miss.reason": record.miss.reason,
            "cachepoint.miss.path": record.miss.path,
            "cachepoint.miss.lost_tokens": record.miss.lost_tokens,
        }
    return attributes


def _token_attributes(usage: Usage) -> Attributes:
    read, written = usage.cache_read, usage.cache_write
    return {
        "gen_ai.usage.input_tokens": usage.prompt,
        "gen_ai.usage.output_tokens": usage.output,
        "gen_ai.usage.cache_read.input_tokens": read,
        "gen_ai.usage.cache_write.input_tokens": written,
        # deprecated by the conventions
        "gen_ai.usage.cache_creation.input_tokens": written,
        # OpenLLMetry's and Strands'
        "gen_ai.usage.cache_read_input_tokens": read,
        "gen_ai.usage.cache_creation_input_tokens": written,
        "gen_ai.usage.cache_write_input_tokens": written,
        # OpenInference's
        "llm.token_count.prompt": usage.prompt,
        "llm.token_count.completion": usage.output,
        "llm.token_count.prompt_details.cache_read": read,
        "llm.token_count.prompt_details.cache_write": written,
    }


class _Instruments:
    """The counters, the histograms, and the histogram that the counters replaced."""

    def __init__(self, meter: metrics.Meter) -> None:
        usage, operation = "gen_ai.client.inference.usage", "gen_ai.client.inference.operation"
        self._input = meter.create_counter(f"{usage}.input_tokens", "{token}", "Prompt tokens, cached ones included")
        self._output = meter.create_counter(f"{usage}.output_tokens", "{token}", "Answer tokens")
        self._read = meter.create_counter(f"{usage}.cache_read.input_tokens", "{token}", "Tokens read from the cache")
        self._write = meter.create_counter(f"{usage}.cache_write.input_tokens", "{token}", "Tokens written to it")
        self._cost = meter.create_counter("cachepoint.cost", "USD", "What the calls cost")
        self._saved = meter.create_up_down_counter("cachepoint.saved", "USD", "What caching saved, or cost if negative")
        self._misses = meter.create_counter("cachepoint.misses", "{call}", "Calls that could have read more, by reason")

        def histogram(name: str, description: str) -> metrics.Histogram:
            return meter.create_histogram(name, "{token}", description, explicit_bucket_boundaries_advisory=_BUCKETS)

        self._input_sizes = histogram(f"{operation}.input_tokens", "Prompt tokens of one call")
        self._output_sizes = histogram(f"{operation}.output_tokens", "Answer tokens of one call")
        self._deprecated = histogram("gen_ai.client.token.usage", "Prompt and answer tokens of one call")

    def record(self, record: CallRecord, common: Attributes) -> None:
        """Add a call; one whose usage never came counts with 0 tokens, as the conventions want it."""
        usage = record.usage or Usage()
        spent = {name: value for name, value in common.items() if name != "error.type"}
        spent["gen_ai.token.modality"] = "unknown"  # Bedrock does not say
        self._input.add(usage.prompt, spent)
        self._output.add(usage.output, spent)
        self._read.add(usage.cache_read, spent)
        self._write.add(usage.cache_write, spent)
        self._input_sizes.record(usage.prompt, common)
        self._output_sizes.record(usage.output, common)
        self._deprecated.record(usage.prompt, common | {"gen_ai.token.type": "input"})
        self._deprecated.record(usage.output, common | {"gen_ai.token.type": "output"})
        if record.cost is not None:
            self._cost.add(float(record.cost.usd), common)
            self._saved.add(float(record.cost.saved_usd), common)
        if record.miss is not None:
            self._misses.add(1, common | {"cachepoint.miss.reason": record.miss.reason})
