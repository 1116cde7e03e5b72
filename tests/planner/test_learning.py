"""What the planner makes of traffic, told as stories."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planner.kit import CLAUDE, SCOPE, Caller, asks, history_of, prose

from cachepoint.core.planning import planner
from cachepoint.core.planning.policy import CachePolicy
from cachepoint.core.provider.cache_model import CacheModel, CacheSwitches
from cachepoint.core.provider.prices import Rates
from cachepoint.core.traffic.boundaries import steps
from cachepoint.errors import ConfigurationError
from cachepoint.store._memory import MemoryStore

DOCUMENT = prose(6000, "document")


def in_one_string(number: int) -> dict[str, object]:
    return asks(f"{DOCUMENT}\n\nQuestion: what about {number}?")


def test_a_shared_beginning_is_split_off_and_read_from_the_third_request_on() -> None:
    caller = Caller()
    usages = caller.calls(in_one_string(number) for number in range(6))
    assert usages[0].cache_write == 0
    assert usages[1].cache_write > 5000
    assert all(usage.cache_read > 5000 and not usage.cache_write for usage in usages[2:])


def test_a_split_stays_the_same_while_its_entry_lives() -> None:
    caller = Caller()
    plans = [caller.call(in_one_string(number))[0] for number in range(6)]
    assert len({plan.splits for plan in plans[1:]}) == 1


def test_text_is_not_split_when_the_policy_forbids_it() -> None:
    caller = Caller(CachePolicy(split_text=False))
    assert not any(caller.call(in_one_string(number))[0].splits for number in range(6))


def test_splitting_stops_for_a_model_that_never_reads_what_was_split_off() -> None:
    caller = Caller()
    for number in range(30):
        caller.cache = CacheModel()  # this provider forgets everything at once
        plan, _ = caller.call(in_one_string(number))
    assert not plan.splits


def test_gaps_beyond_five_minutes_turn_the_ttl_to_an_hour() -> None:
    caller = Caller()
    usages = caller.calls((asks(f"question {n}", system=[DOCUMENT]) for n in range(30)), after=1000)
    # The first write, for 5 minutes, is lost. What may be risked then pays for an hour of a part of the prefix; what
    # that saves pays for a longer one, and so on.
    assert [usage.cache_write for usage in usages[-5:]] == [0] * 5
    assert usages[-1].cache_read > 5000
    assert any(usage.cache_write_1h for usage in usages)


def test_gaps_beyond_an_hour_end_writing() -> None:
    caller = Caller()
    usages = caller.calls((asks(f"question {n}", system=[DOCUMENT]) for n in range(12)), after=5000)
    assert not usages[-1].cache_write


def test_documents_that_change_every_turn_are_left_out_and_the_history_is_kept() -> None:
    caller = Caller()
    history: list[str] = []
    tails = []
    for turn in range(12):
        documents = prose(2000, ("documents", turn))
        _, usage = caller.call(asks(f"{documents}\n\nso?", history=history, system=[prose(1500, 0)]))
        tails.append(usage.cache_write)
        history = [*history, f"so, {turn}?", prose(200, ("answer", turn))]
    assert all(written < 1000 for written in tails[-5:])


def test_a_turn_of_many_blocks_still_reads_the_one_before() -> None:
    caller = Caller()
    history = [prose(2000, "task")]
    caller.call(asks("go on", history=[*history, "yes"]))
    caller.call(asks("go on", history=[*history, "yes"]))
    many = asks(*(f"result {n} " + prose(100, n) for n in range(30)), history=[*history, "yes", "go on", "working"])
    _, usage = caller.call(many)
    assert usage.cache_read > 1800


def test_an_entry_that_was_evicted_is_written_again() -> None:
    caller = Caller()
    caller.calls(asks(f"question {n}", system=[DOCUMENT]) for n in range(4))
    caller.cache = CacheModel()
    first, second = caller.calls(asks(f"another {n}", system=[DOCUMENT]) for n in range(2))
    assert first.cache_write > 5000
    assert second.cache_read > 5000


def test_entries_others_keep_warm_are_read_by_a_fresh_process() -> None:
    old, fresh = Caller(), Caller()
    old.calls(asks(f"question {n}", system=[DOCUMENT]) for n in range(3))
    fresh.cache, fresh.now = old.cache, old.now
    usages = fresh.calls(asks(f"question {n}", system=[DOCUMENT]) for n in range(2))
    assert all(usage.cache_read > 5000 and not usage.cache_write for usage in usages)


def test_a_minimum_the_table_does_not_know_is_learned() -> None:
    caller = Caller(followed=replace(CLAUDE, minimum=9000))
    plans = [caller.call(asks(f"question {number}", system=[DOCUMENT]))[0] for number in range(8)]
    assert plans[0].checkpoints
    assert not plans[-1].checkpoints


@pytest.mark.parametrize("ttl_shared", [True, False])
def test_one_hour_and_five_minute_entries_may_be_shared_or_not(ttl_shared: bool) -> None:
    caller = Caller(cache=CacheModel(CacheSwitches(ttl_shared=ttl_shared)))
    for turn in range(30):
        caller.call(asks(f"question {turn}", system=[DOCUMENT]), after=20 if turn % 3 else 600)
    assert caller.bill < 0.32 * caller.uncached  # the hour is bought in steps, as bound A lets it


def test_a_clock_that_goes_backwards_never_keeps_an_entry_alive() -> None:
    caller = Caller()
    caller.calls(asks(f"question {n}", system=[DOCUMENT]) for n in range(3))
    plan, _ = caller.call(asks("question", system=[DOCUMENT]), after=-4000)
    assert not plan.expected.read


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from([1.0, 100.0, 900.0])), min_size=3, max_size=15))
def test_the_same_traffic_gives_the_same_plans(traffic: list[tuple[int, float]]) -> None:
    def plans() -> list[object]:
        caller = Caller()
        return [caller.call(asks(f"q{n}", system=[prose(2000, n)]), gap)[0] for n, gap in traffic]

    assert plans() == plans()


def test_a_store_shared_by_threads_loses_no_observation() -> None:
    caller = Caller()
    prompt = caller.read(asks("question", system=[DOCUMENT]))
    found = steps(prompt)

    def visit() -> None:
        for _ in range(50):
            caller.store.visit(SCOPE, found, history_of(prompt), caller.now)

    threads = [threading.Thread(target=visit) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    view = caller.store.peek(SCOPE, found, caller.now)
    assert {seen.visits for seen in view.seen.values()} == {400}


def test_a_profile_makes_a_fresh_process_plan_like_the_old_one(tmp_path: Path) -> None:
    old = Caller()
    old.calls((asks(f"question {n}", system=[DOCUMENT]) for n in range(8)), after=1000)
    old.store.save(tmp_path / "profile.json")
    fresh = Caller(store=MemoryStore.load(tmp_path / "profile.json"), now=old.now + 10_000)
    plan, _ = fresh.call(asks("one more", system=[DOCUMENT]))
    assert [point.ttl for point in plan.checkpoints] == ["1h"]


def test_a_profile_holds_no_prompt_text(tmp_path: Path) -> None:
    caller = Caller()
    caller.calls(in_one_string(number) for number in range(4))
    caller.store.save(tmp_path / "profile.json")
    content = (tmp_path / "profile.json").read_text()
    assert "Question" not in content
    assert DOCUMENT[:20] not in content
    assert (tmp_path / "profile.json").stat().st_mode & 0o077 == 0


def test_a_file_that_is_no_profile_is_named(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(ConfigurationError, match=r"other\.json is no profile"):
        MemoryStore.load(tmp_path / "other.json")


def test_a_profile_with_curves_of_another_length_is_named(tmp_path: Path) -> None:
    caller = Caller()
    caller.calls(in_one_string(number) for number in range(4))
    caller.store.save(tmp_path / "profile.json")
    content = json.loads((tmp_path / "profile.json").read_text())
    content["models"]["model"]["curves"][0][1].pop()
    (tmp_path / "profile.json").write_text(json.dumps(content))
    with pytest.raises(ConfigurationError, match=r"profile\.json is no profile"):
        MemoryStore.load(tmp_path / "profile.json")


def test_a_plan_gives_a_reason_for_every_checkpoint_placed_and_rejected() -> None:
    caller = Caller()
    for number in range(4):
        plan, _ = caller.call(asks(f"question {number}", system=[DOCUMENT, "short"]))
        assert all(point.why for point in plan.checkpoints)
        assert all(place.why for place in plan.rejected)


def test_planning_never_changes_what_it_is_given() -> None:
    caller = Caller()
    prompt = caller.read(asks("question", system=[DOCUMENT]))
    view = caller.store.visit(SCOPE, steps(prompt), None, caller.now)
    first = planner.plan(prompt, CLAUDE, CachePolicy(), view, Rates(), caller.now)
    assert planner.plan(prompt, CLAUDE, CachePolicy(), view, Rates(), caller.now) == first
