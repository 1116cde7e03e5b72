"""What the clairvoyant would have read of the calls an emulator served."""

from __future__ import annotations

from collections.abc import Sequence

from capture_lib.clairvoyant import Trie, schedule

from cachepoint.catalogue.table import load_rules, rates_of
from cachepoint.emulator import Options, ServedCall
from cachepoint.emulator._reading.converse import render
from cachepoint.emulator._reading.request import Call, Target
from cachepoint.emulator._reading.traits import traits_of


def clairvoyant_reads(calls: Sequence[ServedCall], model: str) -> int:
    """Tokens that the cheapest schedule reads, with the future known and slots, lookback and minimum ignored.

    The calls are Converse calls to `model`, of an emulator that kept text.
    """
    trie, rates = Trie(), rates_of(model)
    rule = load_rules().resolve(model)
    assert rule is not None
    for call in calls:
        assert call.body is not None
        target = Target("Converse", model, "", "us-east-1")
        trie.add(call.time - calls[0].time, render(Call(target, call.body, rule, traits_of(model, rule), Options())))
    return sum(edge.tokens * schedule(edge.visits, rates).count("read") for edge in trie.edges.values())
