"""Cost by tenant, as billed and with the writes of a shared prefix spread over those who used it."""

from __future__ import annotations

import contextvars
from collections.abc import Generator
from decimal import Decimal

import pytest
from converse_kit import DOCUMENT, SONNET, SYSTEM, Bedrock, Json, text, user

import cachepoint
from cachepoint.bedrock.client import CacheClient
from cachepoint.errors import ConfigurationError


def ask(client: CacheClient, tenant: str | None, own: str = "", number: int = 0) -> None:
    """A question to the shared system prompt, with a document of the tenant's own if given."""
    system: list[Json] = [text(SYSTEM), *([text(own), POINT] if own else [])]
    request = {"modelId": SONNET, "system": [system[0], POINT, *system[1:]], "messages": [user(f"{number}: why?")]}
    if tenant is None:
        client.converse(**request)
        return
    with cachepoint.tags(tenant=tenant):
        client.converse(**request)


POINT: Json = {"cachePoint": {"type": "default"}}
EXPLICIT = cachepoint.CachePolicy(mode="explicit")


def test_as_billed_the_first_tenant_pays_for_all(bedrock: Bedrock) -> None:
    client = bedrock.wrapped(EXPLICIT)
    for tenant in ("a", "b", "c"):
        ask(client, tenant)
    billed = {tenant: totals.cost.usd for tenant, totals in client.ledger.by("tenant").items()}
    assert billed["a"] > 3 * billed["b"]
    assert sum(billed.values()) == sum((line.usd or Decimal(0)) for line in bedrock.bill)


def test_pro_rata_those_who_used_it_pay_alike(bedrock: Bedrock) -> None:
    client = bedrock.wrapped(EXPLICIT)
    for tenant in ("a", "b", "c"):
        ask(client, tenant)
    shared = client.ledger.by("tenant", shared="pro_rata")
    billed = client.ledger.by("tenant")
    assert shared["b"].cost.usd == shared["c"].cost.usd > billed["b"].cost.usd
    assert shared["a"].cost.usd < billed["a"].cost.usd
    assert sum(each.cost.usd for each in shared.values()) == client.ledger.totals().cost.usd
    assert sum(each.cost.saved_usd for each in shared.values()) == client.ledger.totals().cost.saved_usd
    assert {tenant: each.usage for tenant, each in shared.items()} == {t: each.usage for t, each in billed.items()}


def test_what_is_a_tenants_own_stays_its_own(bedrock: Bedrock) -> None:
    client = bedrock.wrapped(EXPLICIT)
    for _ in range(2):
        ask(client, "a", own=DOCUMENT)
        ask(client, "b")
    shared, billed = client.ledger.by("tenant", shared="pro_rata"), client.ledger.by("tenant")
    moved = shared["b"].cost.usd - billed["b"].cost.usd
    first = client.ledger.records[0]
    assert first.usage is not None
    assert first.cost is not None
    system = next(call.usage.cache_read for call in client.ledger.records if call.usage and call.tags["tenant"] == "b")
    share_of_system = first.cost.write_usd * system / first.usage.cache_write
    # Each of the two called twice.
    assert float(moved) == pytest.approx(float(share_of_system) / 2, rel=1e-9)


def test_a_call_without_a_tenant_that_warmed_the_prefix_is_borne_by_the_tenants(bedrock: Bedrock) -> None:
    client = bedrock.wrapped(EXPLICIT)
    ask(client, None)
    ask(client, "a")
    shared, billed = client.ledger.by("tenant", shared="pro_rata"), client.ledger.by("tenant")
    warmed = client.ledger.records[0].cost
    assert warmed is not None
    assert shared["a"].cost.usd - billed["a"].cost.usd == warmed.write_usd / 2


def test_other_ways_of_sharing_are_refused() -> None:
    for key, how in (("tenant", "equal"), ("tag", "pro_rata")):
        with pytest.raises(ConfigurationError, match='use "pro_rata"'):
            cachepoint.CacheLedger().by(key, shared=how)  # type: ignore[arg-type]


def test_tags_of_a_generator_may_be_closed_in_another_context() -> None:
    def streamed() -> Generator[int, None, None]:
        with cachepoint.tags(tenant="a"):
            yield 1
            yield 2

    answer = streamed()
    contextvars.copy_context().run(next, answer)
    answer.close()
