"""Each call on OpenTelemetry's spans and in its metrics, under the names that backends read."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from converse_kit import SONNET, Bedrock, question

pytest.importorskip("opentelemetry.sdk", reason="the extra `otel` is not installed")

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import cachepoint
from cachepoint.emulator import throttled
from cachepoint.errors import ConfigurationError
from cachepoint.sinks import OpenTelemetry


class Telemetry:
    """Providers that keep what they are told."""

    def __init__(self) -> None:
        self.spans = InMemorySpanExporter()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.spans))
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider(metric_readers=[self.reader])

    def ledger(self, **settings: Any) -> cachepoint.CacheLedger:
        sink = OpenTelemetry(tracer_provider=self.tracers, meter_provider=self.meters, **settings)
        return cachepoint.CacheLedger(on_call=sink)

    def attributes(self) -> list[Mapping[str, Any]]:
        return [span.attributes or {} for span in self.spans.get_finished_spans()]

    def metrics(self) -> dict[str, list[Any]]:
        data = self.reader.get_metrics_data()
        found = data.resource_metrics[0].scope_metrics[0].metrics if data else []
        return {metric.name: list(metric.data.data_points) for metric in found}


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry()


def test_the_current_span_gets_the_tokens_under_current_and_older_names(bedrock: Bedrock, telemetry: Telemetry) -> None:
    client = bedrock.wrapped(ledger=telemetry.ledger())
    for number in range(2):
        with telemetry.tracers.get_tracer("test").start_as_current_span("ask"):
            client.converse(**question(number))
    written, read = telemetry.attributes()
    first, second = (line.usage for line in bedrock.bill)
    assert written["gen_ai.usage.input_tokens"] == first.prompt
    assert written["gen_ai.usage.cache_write.input_tokens"] == first.cache_write
    assert written["gen_ai.usage.cache_creation.input_tokens"] == first.cache_write
    assert written["gen_ai.usage.cache_creation_input_tokens"] == first.cache_write
    assert read["gen_ai.usage.cache_read.input_tokens"] == second.cache_read
    assert read["gen_ai.usage.cache_read_input_tokens"] == second.cache_read
    assert read["llm.token_count.prompt_details.cache_read"] == second.cache_read
    assert read["gen_ai.usage.output_tokens"] == second.output
    assert (read["gen_ai.provider.name"], read["gen_ai.system"]) == ("aws.bedrock", "aws.bedrock")
    assert (read["gen_ai.request.model"], read["gen_ai.operation.name"]) == (SONNET, "chat")
    assert (written["cachepoint.status"], read["cachepoint.status"]) == ("written", "hit")


def test_a_span_tells_the_exact_cost_and_why_a_call_missed(bedrock: Bedrock, telemetry: Telemetry) -> None:
    client = bedrock.wrapped(ledger=telemetry.ledger(spans="own"))
    client.converse(**question(1))
    bedrock.clock.advance(3 * 3600)
    told = client.converse(**question(2))["promptCache"]
    attributes = telemetry.attributes()[1]
    assert attributes["cachepoint.cost.usd"] == told["cost"]["usd"]
    assert attributes["gen_ai.usage.cost"] == float(told["cost"]["usd"])
    assert attributes["cachepoint.miss.reason"] == told["miss"]["reason"] == "expired"


def test_a_span_of_its_own_lasts_as_long_as_the_call(bedrock: Bedrock, telemetry: Telemetry) -> None:
    ledger = telemetry.ledger(spans="own")
    bedrock.wrapped(ledger=ledger).converse(**question())
    (span,), (record,) = telemetry.spans.get_finished_spans(), ledger.records
    assert span.name == f"chat {SONNET}"
    assert span.start_time is not None
    assert span.end_time is not None
    assert (span.end_time - span.start_time) / 1e9 == pytest.approx(record.seconds, abs=1e-6)


def test_without_a_span_or_when_told_so_nothing_is_traced(bedrock: Bedrock, telemetry: Telemetry) -> None:
    bedrock.wrapped(ledger=telemetry.ledger()).converse(**question())
    with telemetry.tracers.get_tracer("test").start_as_current_span("ask"):
        bedrock.wrapped(ledger=telemetry.ledger(spans="none")).converse(**question())
    assert telemetry.attributes() == [{}]


def test_counters_add_up_and_histograms_hold_each_call(bedrock: Bedrock, telemetry: Telemetry) -> None:
    client = bedrock.wrapped(ledger=telemetry.ledger())
    for number in range(3):
        client.converse(**question(number))
    usage, metrics = client.ledger.totals().usage, telemetry.metrics()

    def total(name: str) -> Any:
        (point,) = metrics[name]
        assert point.attributes["gen_ai.token.modality"] == "unknown"
        return point.value

    counters = "gen_ai.client.inference.usage"
    assert total(f"{counters}.input_tokens") == usage.prompt
    assert total(f"{counters}.output_tokens") == usage.output
    assert total(f"{counters}.cache_read.input_tokens") == usage.cache_read
    assert total(f"{counters}.cache_write.input_tokens") == usage.cache_write
    (sizes,) = metrics["gen_ai.client.inference.operation.input_tokens"]
    assert (sizes.count, sizes.sum) == (3, usage.prompt)
    assert list(sizes.explicit_bounds)[:3] == [1, 4, 16]
    deprecated = metrics["gen_ai.client.token.usage"]
    assert {point.attributes["gen_ai.token.type"]: point.sum for point in deprecated} == {
        "input": usage.prompt,
        "output": usage.output,
    }
    (cost,) = metrics["cachepoint.cost"]
    assert cost.value == pytest.approx(float(client.ledger.totals().cost.usd))
    (saved,) = metrics["cachepoint.saved"]
    assert saved.value == pytest.approx(float(client.ledger.totals().cost.saved_usd))


def test_chosen_tags_become_attributes(bedrock: Bedrock, telemetry: Telemetry) -> None:
    client = bedrock.wrapped(ledger=telemetry.ledger(tags=("tenant",)))
    for tenant in ("a", "b"):
        with cachepoint.tags(tenant=tenant, request="once"):
            client.converse(**question())
    points = telemetry.metrics()["gen_ai.client.inference.usage.input_tokens"]
    assert sorted(point.attributes["cachepoint.tag.tenant"] for point in points) == ["a", "b"]
    assert not [point for point in points if "cachepoint.tag.request" in point.attributes]


def test_a_call_that_failed_counts_no_tokens_and_names_its_error(bedrock: Bedrock, telemetry: Telemetry) -> None:
    client = bedrock.once(ledger=telemetry.ledger(spans="own"))
    bedrock.emulator.fail_next(throttled())
    with pytest.raises(Exception, match="ThrottlingException"):
        client.converse(**question())
    (attributes,) = telemetry.attributes()
    assert attributes["error.type"] == "ThrottlingException"
    assert "gen_ai.usage.input_tokens" not in attributes
    (sizes,) = telemetry.metrics()["gen_ai.client.inference.operation.input_tokens"]
    assert (sizes.sum, sizes.attributes["error.type"]) == (0, "ThrottlingException")


def test_a_span_tells_of_what_may_have_been_billed_besides(bedrock: Bedrock, telemetry: Telemetry) -> None:
    client = bedrock.wrapped(ledger=telemetry.ledger(spans="own"))
    bedrock.emulator.fail_next(throttled())
    client.converse(**question())
    client.converse_stream(**question())["stream"].close()
    assert client.ledger.totals().calls == 2
    names = ("cachepoint.retries", "cachepoint.at_least")
    assert [[span.get(name) for name in names] for span in telemetry.attributes()] == [[1, None], [None, True]]


@pytest.mark.parametrize(
    ("api", "provider"),
    [("amazon_bedrock_chat", "aws.bedrock"), ("anthropic-chat", "anthropic"), ("openai-chat", "openai")],
)
def test_calls_of_langchains_other_classes_name_their_own_provider(
    bedrock: Bedrock, telemetry: Telemetry, api: str, provider: str
) -> None:
    client = bedrock.wrapped()
    client.converse(**question())
    telemetry.ledger(spans="own").add(replace(client.ledger.records[0], api=api))
    (attributes,) = telemetry.attributes()
    assert attributes["gen_ai.provider.name"] == attributes["gen_ai.system"] == provider


@pytest.mark.parametrize("wrong", [{"spans": "each"}, {"tags": "tenant"}])
def test_a_wrong_setting_is_named(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        OpenTelemetry(**wrong)


def test_without_the_extra_the_pip_command_is_named() -> None:
    hide = "import sys; sys.modules['opentelemetry'] = None; import cachepoint.sinks._otel"
    said = subprocess.run([sys.executable, "-c", hide], capture_output=True, text=True, check=False).stderr
    assert (
        "MissingDependencyError: cachepoint.sinks._otel needs opentelemetry; run: pip install 'cachepoint[otel]'"
        in said
    )
