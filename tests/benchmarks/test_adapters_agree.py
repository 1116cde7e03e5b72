"""The same traffic costs the same through LangChain's model and through LlamaIndex's."""

from __future__ import annotations

import pytest
from capture_lib.contenders import cachepoints
from capture_lib.measure import Outcome, run
from capture_lib.requests import Knobs
from capture_lib.stage import Contender
from capture_lib.traffic import Traffic
from capture_lib.workloads import WORKLOADS

pytest.importorskip("langchain_aws", reason="langchain-aws is not installed")
pytest.importorskip("llama_index.core", reason="llama-index-core is not installed")

BY_NAME = {workload.name: workload for workload in WORKLOADS}
COUNTS = {
    "A1": 0.05, "A2": 0.05, "A3": 0.05, "A4": 0.05, "A5": 0.125,
    "A6": 0.25, "A7": 0.1, "A8": 0.04, "A9": 0.2, "A10": 0.09,
}  # fmt: skip
"""The share of each row's requests that is sent: at least one conversation, agent or burst of it."""


def adapters() -> dict[str, Contender]:
    return {each.name.partition("(")[2].rstrip(")"): each for each in cachepoints()}


@pytest.mark.parametrize("row", COUNTS)
@pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecationWarning")
def test_both_adapters_pay_the_same_for_the_same_traffic(row: str) -> None:
    traffic = Traffic.of(BY_NAME[row], Knobs(count=COUNTS[row]))

    def sent_by(name: str) -> Outcome:
        outcome = run(adapters()[name], traffic, fast=False)
        assert (outcome.refused, len(outcome.usages)) == (0, len(traffic.requests))
        return outcome

    langchain, llama_index = sent_by("LangChain"), sent_by("LlamaIndex")

    assert langchain.ratio < 0.95, "it is cached at all"  # of A7 a dozen calls, in which an hour is bought in parts
    assert llama_index.ratio == pytest.approx(langchain.ratio, abs=0.01)
