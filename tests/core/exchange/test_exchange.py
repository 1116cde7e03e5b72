"""The life of a call: its states, what each step leaves to do, and what is left when it is over."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from cachepoint.core.exchange import STEPS, Effects, Exchange, Lesson, Target, sent_record
from cachepoint.core.healing import Refusal, added
from cachepoint.core.planning.plan import Plan
from cachepoint.core.planning.policy import CachePolicy
from cachepoint.core.prompt.builder import PromptBuilder
from cachepoint.core.prompt.prompt import NO_HINTS, Hints, Prompt, Where
from cachepoint.core.prompt.tokens import Calibration
from cachepoint.core.provider.prices import Cost, Rates
from cachepoint.core.provider.rules import ModelFacts, ModelRule
from cachepoint.core.provider.usage import Usage
from cachepoint.core.traffic.boundaries import steps
from cachepoint.core.traffic.entries import Entry, Reach
from cachepoint.core.traffic.pool import Scope
from cachepoint.core.traffic.refusals import Outcome, Refusals
from cachepoint.core.traffic.view import View
from cachepoint.core.traffic.waste import Segment, Waste
from cachepoint.errors import ConfigurationError, IllegalStep

NOW = 1_000_000.0
KEY = b"k" * 32
RULE = ModelRule("Claude", "claude", ttls=("5m", "1h"), minimum=1024, tokenizer="claude")
TARGET = Target("us.model", "model", "us-east-1", Scope("scope", "model"), RULE, Rates())
REQUEST = {"modelId": "us.model", "ask": "Why?"}
SYSTEM = "rules " * 2000  # 12,000 bytes at 4.4 a token: 2,727 tokens
REFUSAL = Refusal(b"words", error="ValidationException")
REPORTED = {"input": 9, "read": 0, "written": 2727, "output": 5}


class Wire:
    """A wire format with one system block and one question; `apply` puts the plan's checkpoints beside them."""

    API = "converse"

    def __init__(self, system: str = SYSTEM, fails_in: str = "") -> None:
        self.system, self.fails_in = system, fails_in

    def read(self, request: Mapping[str, Any], key: bytes, rule: ModelRule, hints: Hints) -> Prompt | None:
        self._fail("read")
        if request.get("foreign"):
            return None
        if request.get("wrong_mark"):
            raise ConfigurationError("the checkpoint at system[0] has ttl='9m'")
        builder = PromptBuilder(key, rule.tokenizer)
        builder.section("tools", {})
        builder.section("system", {})
        builder.text(Where("system", None, 0), self.system)
        if request.get("marked"):
            builder.mark(Where("system", None, 1), "5m", {})
        builder.section("messages", {})
        builder.message("user")
        builder.text(Where("messages", 0, 0), str(request["ask"]))
        return builder.build()

    def apply(self, request: Mapping[str, Any], plan: Plan) -> dict[str, Any]:
        self._fail("apply")
        return {**request, "points": [(point.path, point.ttl) for point in plan.checkpoints]}

    def usage(self, reported: Mapping[str, Any] | None, unreported_ttl: str = "5m") -> Usage | None:
        self._fail("usage")
        if reported is None:
            return None
        written = reported["written"]
        return Usage(
            input=reported["input"], cache_read=reported["read"], output=reported["output"],
            cache_write_5m=written if unreported_ttl == "5m" else 0,
            cache_write_1h=written if unreported_ttl == "1h" else 0,
        )  # fmt: skip

    def place_system_turns(
        self, request: Mapping[str, Any], hints: Hints, *, taken: bool
    ) -> tuple[Mapping[str, Any], Hints]:
        self._fail("place")
        if "late" not in request or (taken and request["late"] == "system"):
            return request, hints
        return {**request, "late": "user"}, hints

    def count_input(self, request: Mapping[str, Any]) -> dict[str, Any]:
        return {"converse": dict(request)}

    def _fail(self, where: str) -> None:
        if where == self.fails_in:
            raise ArithmeticError(where)


def price(usage: Usage) -> Cost | None:
    """Ten dollars a token, one for a read."""
    usd, uncached = Decimal(10 * (usage.input + usage.cache_write) + usage.cache_read), Decimal(10 * usage.prompt)
    return Cost(usd, uncached, uncached - usd, "2026-11-27")


def exchange(policy: CachePolicy | None = None, wire: Wire | None = None, **request: Any) -> Exchange:
    return Exchange(wire or Wire(), {**REQUEST, **request}, policy or CachePolicy(), {"session": "s", "tenant": "a"})


def planned(*given: Any, view: View | None = None, target: Target = TARGET, **request: Any) -> Exchange:
    call = exchange(*given, **request)
    call.read(target, KEY, NOW)
    call.known(view or View(), NOW)
    return call


def sent(*given: Any, **request: Any) -> Exchange:
    call = planned(*given, **request)
    call.send()
    return call


def began(*given: Any, **request: Any) -> Exchange:
    call = sent(*given, **request)
    call.began()
    return call


def learned(effects: Effects) -> list[str]:
    return [lesson.what for lesson in effects.lessons]


IN_STATE: Mapping[str, Callable[[], Exchange]] = {
    "new": exchange,
    "read": lambda: (call := exchange(), call.read(TARGET, KEY, NOW))[0],
    "planned": planned,
    "waiting": lambda: (call := planned(), call.wait())[0],
    "sent": sent,
    "refused": lambda: (call := sent(), call.refused(REFUSAL))[0],
    "began": began,
    "settled": lambda: (call := began(), call.answered(REPORTED, 1.0, price))[0],
    "failed": lambda: (call := sent(), call.failed("ModelErrorException", 1.0))[0],
    "cut": lambda: (call := began(), call.ended("cut", "ConnectionError", 1.0))[0],
    "abandoned": lambda: (call := began(), call.ended("abandoned", "abandoned", 1.0))[0],
    "cancelled": lambda: (call := sent(), call.cancelled("CancelledError", 1.0))[0],
}
TAKE: Mapping[str, Callable[[Exchange], Effects]] = {
    "read": lambda call: call.read(TARGET, KEY, NOW),
    "plan": lambda call: call.known(View(), NOW),
    "count": lambda call: call.counted(3000),
    "leave as written": lambda call: call.leave_as_written(),
    "wait": lambda call: call.wait(),
    "send": lambda call: call.send(),
    "refuse": lambda call: call.refused(REFUSAL),
    "deny": lambda call: call.denied(Waste()),
    "repeat": lambda call: call.repeat(),
    "begin": lambda call: call.began(),
    "hear": lambda call: call.heard(REPORTED),
    "answer": lambda call: call.answered(REPORTED, 1.0, price),
    "fail": lambda call: call.failed("ThrottlingException", 1.0),
    "cut": lambda call: call.ended("cut", "ConnectionError", 1.0),
    "abandon": lambda call: call.ended("abandoned", "abandoned", 1.0),
    "cancel": lambda call: call.cancelled("CancelledError", 1.0),
    "give up": lambda call: call.ended("cancelled", "CancelledError", 1.0),
}
# By hand, not from STEPS: which step may be taken where, and where it leads.
ALLOWED: Mapping[str, Mapping[str, str]] = {
    "new": {
        "read": "read", "leave as written": "planned", "fail": "failed", "cancel": "cancelled",
    },
    "read": {
        "plan": "planned", "count": "planned", "leave as written": "planned", "send": "sent", "fail": "failed",
        "cancel": "cancelled",
    },
    "planned": {
        "plan": "planned", "count": "planned", "leave as written": "planned", "wait": "waiting", "send": "sent",
        "fail": "failed", "cancel": "cancelled",
    },
    "waiting": {
        "plan": "planned", "count": "planned", "leave as written": "planned", "fail": "failed",
        "cancel": "cancelled",
    },
    "sent": {
        "leave as written": "planned", "refuse": "refused", "deny": "planned", "begin": "began", "fail": "failed",
        "cancel": "cancelled",
    },
    "refused": {
        "repeat": "sent", "fail": "failed", "cancel": "cancelled",
    },
    "began": {
        "refuse": "refused", "hear": "began", "answer": "settled", "cut": "cut", "abandon": "abandoned",
        "give up": "cancelled",
    },
    **{over: {} for over in ("settled", "failed", "cut", "abandoned", "cancelled")},
}  # fmt: skip


@pytest.mark.parametrize("state", IN_STATE)
@pytest.mark.parametrize("step", TAKE)
def test_a_step_is_taken_where_it_is_legal_and_raises_elsewhere(state: str, step: str) -> None:
    call = IN_STATE[state]()
    assert call.state == state
    after = ALLOWED[state].get(step)
    if after is None:
        with pytest.raises(IllegalStep, match=f"a call that is '{state}' cannot"):
            TAKE[step](call)
        assert call.state == state
    else:
        TAKE[step](call)
        assert call.state == after


@pytest.mark.parametrize("state", IN_STATE)
def test_it_is_over_where_no_step_is_left(state: str) -> None:
    assert IN_STATE[state]().over is (not ALLOWED[state])


def test_the_picture_in_the_documents_shows_the_steps(project_root: Path) -> None:
    drawn = re.findall(
        r"^    (\w+) --> (\w+): ([\w ]+)$", (project_root / "docs" / "exchange.md").read_text(), re.MULTILINE
    )
    assert len(drawn) > 15
    for before, after, step in drawn:
        allowed, leads_to = STEPS[step]
        assert before in allowed, (before, step)
        assert after == leads_to, (after, step)
    shown = {(before, step) for before, _, step in drawn}
    missing = {(state, step) for step, (states, _) in STEPS.items() for state in states} - shown
    assert {step for _, step in missing} <= {"leave as written", "fail", "cancel"}
    assert {state for state, _ in missing} <= {"new", "read", "planned", "waiting", "sent", "refused"}


# -- a call that goes well ------------------------------------------------------------------------


def test_what_a_call_leaves_to_do_step_by_step() -> None:
    call = exchange()
    assert call.read(TARGET, KEY, NOW) == Effects()
    assert call.question is not None
    assert call.question.remember
    assert call.question.history is None
    assert [step.role for step in call.question.steps if step.role != "cut"] == ["system_end", "tail_single"]
    assert call.known(View(), NOW) == Effects()
    (departed,) = call.send().lessons
    assert (departed.what, departed.scope) == ("sent", TARGET.scope)
    assert departed.about == (call.sent, NOW)
    (arrived,) = call.began().lessons
    assert (arrived.what, arrived.about) == ("began", (call.sent,))
    (settled,) = call.answered(REPORTED, 1.5, price).lessons
    assert (settled.what, settled.about) == ("settled", (call.sent, Usage(9, 0, 2727, 0, 5), NOW))


def test_a_lesson_is_handed_to_the_method_of_its_name() -> None:
    heard: list[Any] = []

    class Store:
        def began(self, *given: Any) -> None:
            heard.append(given)

    call = sent()
    call.began().lessons[0].teach(Store())  # type: ignore[arg-type]
    assert heard == [(TARGET.scope, call.sent)]


def test_the_record_says_what_was_sent_and_what_came_back() -> None:
    call = began()
    call.answered(REPORTED, 1.5, price)
    record = call.record
    assert record is not None
    assert (record.started, record.seconds) == (NOW, 1.5)
    assert (record.model, record.base_model, record.region, record.api) == (
        "us.model", "model", "us-east-1", "converse"
    )  # fmt: skip
    assert (record.mode, record.status, record.error) == ("auto", "written", None)
    assert record.usage == Usage(9, 0, 2727, 0, 5)
    # 9 + 2,727 tokens at ten dollars, with caching as without.
    assert record.cost == Cost(Decimal(27360), Decimal(27360), Decimal(0), "2026-11-27")
    assert [(point.path, point.ttl) for point in record.checkpoints] == [("system[1]", "5m")]
    assert (record.tags, record.session) == ({"session": "s", "tenant": "a"}, "s")
    assert record.miss is None
    assert record.prefix.wrote


def test_the_request_sent_has_the_checkpoints_of_the_plan() -> None:
    call = sent()
    assert call.request == {**REQUEST, "points": [("system[1]", "5m")]}
    assert call.original == REQUEST


def test_a_write_of_one_ttl_only_counts_as_of_that_ttl() -> None:
    call = began(CachePolicy(ttl="1h"))
    call.answered(REPORTED, 1.0, price)
    assert call.record is not None
    assert call.record.usage == Usage(9, 0, 0, 2727, 5)


def test_a_lost_read_is_told_with_what_it_cost() -> None:
    call = exchange()
    call.read(TARGET, KEY, NOW)
    assert call.prompt is not None
    end = call.prompt.end(0)
    call.known(View(entries={end.digest: Entry("5m", NOW - 10, tokens=2700)}, seen={}), NOW)
    call.send()
    call.began()
    call.answered(REPORTED, 1.0, price)
    assert call.record is not None
    miss = call.record.miss
    assert miss is not None
    assert (miss.reason, miss.lost_tokens) == ("evicted_or_rerouted", 2700)
    # 2,700 tokens at ten dollars less one for a read.
    assert miss.lost_usd == "24300"


# -- modes ----------------------------------------------------------------------------------------


def test_off_neither_reads_nor_learns_but_records() -> None:
    call = exchange(CachePolicy(mode="off"), Wire(fails_in="read"))
    assert call.read(TARGET, KEY, NOW) == Effects()
    assert call.question is None
    assert call.send() == Effects()
    assert call.request == REQUEST
    call.began()
    assert call.answered(REPORTED, 1.0, price) == Effects()
    assert call.record is not None
    assert call.record.mode == "off"
    assert call.record.usage == Usage(9, 0, 2727, 0, 5)


def test_observe_plans_and_sends_what_the_user_wrote() -> None:
    call = sent(CachePolicy(mode="observe"))
    assert call.request == REQUEST
    assert [point.path for point in call.plan.checkpoints] == ["system[1]"]
    assert call.sent.points == ()


def test_observe_learns_of_the_users_own_checkpoints() -> None:
    call = sent(CachePolicy(mode="observe"), marked=True)
    assert [point.ttl for point in call.sent.points] == ["5m"]
    assert call.request == {**REQUEST, "marked": True}


def test_observe_lets_a_wrong_mark_pass() -> None:
    call = exchange(CachePolicy(mode="observe"), wrong_mark=True)
    assert call.read(TARGET, KEY, NOW) == Effects()
    call.send()
    assert call.request == {**REQUEST, "wrong_mark": True}


def test_a_mark_the_service_would_refuse_is_the_users_to_mend() -> None:
    call = exchange(wrong_mark=True)
    with pytest.raises(ConfigurationError, match="ttl='9m'"):
        call.read(TARGET, KEY, NOW)
    call.failed("ConfigurationError", 0.1)
    assert call.record is not None
    assert call.record.error == "ConfigurationError"


def test_without_a_rule_or_with_a_foreign_body_nothing_is_asked() -> None:
    for call, target in ((exchange(), Target("arn:opaque")), (exchange(foreign=True), TARGET)):
        call.read(target, KEY, NOW)
        assert call.question is None
        assert call.send() == Effects()


def test_without_learning_only_refusals_are_known_and_nothing_is_taught() -> None:
    call = exchange(CachePolicy(learn=False))
    call.read(TARGET, KEY, NOW)
    assert call.question is not None
    assert not call.question.remember
    call.known(View(left_out=("system",), learned_minimum=9, splits_trusted=False), NOW)
    assert call.view == View(left_out=("system",))
    assert call.plan.checkpoints == ()
    assert call.send().lessons == ()
    assert call.began().lessons == ()
    assert call.answered(REPORTED, 1.0, price).lessons == ()


# -- waiting --------------------------------------------------------------------------------------


def entry_under_way(call: Exchange) -> dict[bytes, Entry]:
    assert call.prompt is not None
    return {call.prompt.end(0).digest: Entry("5m", NOW, readable=False)}


def test_a_call_names_what_it_could_wait_for_and_what_it_writes() -> None:
    call = planned()
    assert call.prompt is not None
    cold, writes = call.shared_prefixes()
    system, tail = (call.prompt.end(block).digest for block in (0, 1))
    assert list(writes) == [system]
    assert cold[0] == tail  # deepest first
    assert system in cold
    small = [boundary.digest for boundary in call.prompt.boundaries if boundary.tokens < 1024]
    assert not set(small) & set(cold)


def test_nothing_is_waited_for_inside_what_is_read() -> None:
    call = exchange()
    call.read(TARGET, KEY, NOW)
    assert call.prompt is not None
    call.known(View(entries={call.prompt.end(0).digest: Entry("5m", NOW - 10)}), NOW)
    assert call.shared_prefixes() == ([call.prompt.end(1).digest], [])


def test_observed_calls_wait_for_nobody() -> None:
    assert planned(CachePolicy(mode="observe")).shared_prefixes() == ((), ())
    assert exchange().shared_prefixes() == ((), ())


def test_after_a_wait_the_call_is_planned_by_what_is_known_since() -> None:
    call = exchange()
    call.read(TARGET, KEY, NOW)
    call.known(View(entries=entry_under_way(call)), NOW)
    assert call.outdated
    call.wait()
    assert call.prompt is not None
    landed = Entry("5m", NOW)
    call.known(View(entries={call.prompt.end(0).digest: landed}), NOW + 2)
    assert list(call.view.entries.values()) == [landed]
    assert call.plan.expected.read_boundary == call.prompt.ends[0]
    assert call.started == NOW + 2


# -- CountTokens ----------------------------------------------------------------------------------

NEAR = "rules " * 800  # 4,800 bytes: 1,091 tokens likely, 774 at least, 1,714 at most


def test_tokens_are_counted_where_the_estimate_straddles_the_minimum() -> None:
    ask = CachePolicy(count_tokens=True)
    assert planned(ask, Wire(NEAR)).count_question() == {"modelId": "model", "input": {"converse": REQUEST}}
    assert planned(CachePolicy(), Wire(NEAR)).count_question() is None
    assert planned(ask).count_question() is None  # surely above
    assert planned(ask, Wire("short")).count_question() is None  # surely below
    known = View(calibration=Calibration(1.0, 0.1, 3.0))
    assert planned(ask, Wire(NEAR), view=known).count_question() is None
    nameless = Target("m", None, None, Scope("scope", "m"), RULE)
    assert planned(ask, Wire(NEAR), target=nameless).count_question() is None


def test_what_was_counted_decides_about_the_minimum() -> None:
    ask = CachePolicy(count_tokens=True)
    few, many = planned(ask, Wire(NEAR)), planned(ask, Wire(NEAR))
    few.counted(800)
    many.counted(1500)
    assert few.plan.checkpoints == ()
    assert [point.path for point in many.plan.checkpoints] == ["system[1]"]


# -- refusals -------------------------------------------------------------------------------------


def repeated(*given: Any, view: View | None = None, **request: Any) -> Exchange:
    call = planned(*given, view=view, **request)
    call.send()
    call.refused(REFUSAL)
    call.repeat()
    return call


def told(effects: Effects) -> list[Outcome]:
    """What the store is to learn of refusals."""
    return [lesson.about[0] for lesson in effects.lessons if lesson.what == "refuse"]


def knowing(refusals: Refusals, **more: Any) -> View:
    return View(**more).with_refusals(refusals, NOW)


def test_a_refused_request_is_repeated_as_the_user_wrote_it() -> None:
    call = sent(marked=True)
    assert learned(call.refused(REFUSAL)) == ["failed"]
    assert call.can_repeat
    assert call.repeat() == Effects()
    assert (call.state, call.request) == ("sent", {**REQUEST, "marked": True})


def test_only_a_repeat_that_is_taken_tells_that_it_was_a_checkpoint() -> None:
    call = repeated()
    effects = call.began()
    assert told(effects) == [Outcome("refused", frozenset({"system"}), NOW, None, b"words")]
    assert [warning.key for warning in effects.warnings] == ["refused:scope:system"]
    assert effects.warnings[0].message == (
        "cachepoint: 'us.model' refused a checkpoint in system (ValidationException); the call was repeated as "
        "you wrote it, later calls go without it, and after a day it is tried again"
    )
    assert call.answered({**REPORTED, "written": 0}, 1.0, price) == Effects()
    assert call.record is not None
    assert call.record.checkpoints == ()
    assert ("system[0]", "refused") in [(held.path, held.reason) for held in call.record.held]


def test_a_refusal_of_several_says_that_it_is_to_be_found_out() -> None:
    effects = repeated(CachePolicy(ttl="1h")).began()
    assert told(effects)[0].features == {"system", "ttl:1h"}
    assert (
        "refused a TTL of 1h or a checkpoint in system (ValidationException); the call was repeated as "
        "you wrote it, each later call goes without one of these until it is known which, and"
    ) in effects.warnings[0].message


@pytest.mark.parametrize("error", ["ValidationException", "AccessDeniedException"])
def test_a_repeat_that_is_refused_too_tells_only_that_access_is_denied(error: str) -> None:
    call = planned()
    call.send()
    call.refused(Refusal(b"words", error=error))
    call.repeat()
    effects = call.refused(Refusal(b"other words", error=error))
    lasting = [Outcome("failing", frozenset(), NOW, None, b"words")]
    assert told(effects) == (lasting if error == "AccessDeniedException" else [])
    assert (call.can_repeat, effects.warnings) == (False, ())
    assert learned(call.failed("ValidationException", 1.0)) == []
    assert call.record is not None
    assert call.record.error == "ValidationException"


def test_a_repeat_that_fails_otherwise_tells_nothing() -> None:
    assert repeated().failed("ThrottlingException", 1.0) == Effects()


def test_within_a_minute_the_same_words_are_not_repeated() -> None:
    failing = Refusals(failing={b"words": NOW + 1})
    call = planned(view=knowing(failing))
    call.send()
    call.refused(REFUSAL)
    assert not call.can_repeat
    other = planned(view=knowing(failing))
    other.send()
    other.refused(Refusal(b"other words", error="ValidationException"))
    assert other.can_repeat


def test_a_request_that_finds_out_more_is_repeated_whatever_is_known_to_fail() -> None:
    """What is tried is likely refused, in the words of the refusals before it."""
    call = planned(view=knowing(Refusals(("system", "tools"), failing={b"words": NOW + 1})))
    assert learned(call.send()) == ["sent", "test"]
    call.refused(REFUSAL)
    assert call.can_repeat


@pytest.mark.parametrize("mode", ["observe", "off"])
def test_the_users_own_request_is_not_repeated(mode: Any) -> None:
    call = sent(CachePolicy(mode=mode))
    call.refused(REFUSAL)
    assert not call.can_repeat
    call.failed("ValidationException", 1.0)
    assert call.record is not None
    assert call.record.error == "ValidationException"


def test_what_is_known_to_be_refused_is_left_out() -> None:
    call = planned(view=knowing(Refusals(refused={"system": NOW + 1})))
    call.send()
    assert call.request["points"] == []
    assert ("system[0]", "refused") in [(held.path, held.reason) for held in call.plan.held]
    assert told(call.began()) == []


def test_of_two_suspects_one_is_left_out_and_what_is_taken_is_told() -> None:
    call = planned(CachePolicy(ttl="1h"), view=knowing(Refusals(("ttl:1h", "system"))))
    assert learned(call.send()) == ["sent", "test"]
    assert call.request["points"] == [("system[1]", "5m")]
    assert told(call.began()) == [Outcome("taken", frozenset({"system"}), NOW)]


def test_where_another_call_finds_out_more_this_one_leaves_it_out() -> None:
    call = planned(view=knowing(Refusals(("system", "tools"))))
    call.send()
    effects = call.denied(Refusals(("system", "tools"), testing=NOW + 1))
    assert (learned(effects), call.state) == (["failed"], "planned")
    assert learned(call.send()) == ["sent"]
    assert call.request["points"] == []


def test_a_request_left_as_written_after_all_tells_nothing_of_a_test() -> None:
    """Such as where the store failed: nothing of what was to be tested goes out."""
    call = planned(view=knowing(Refusals(("system", "tools"))))
    assert learned(call.send()) == ["sent", "test"]
    call.leave_as_written()
    call.send()
    assert call.request == REQUEST
    assert told(call.began()) == []


def test_a_call_that_is_denied_for_good_carries_nothing_and_tells_nothing() -> None:
    """What it would have carried was not taken: a suspect that it clears would leave another one convicted."""
    suspects = Refusals(("tools", "system"))
    call = planned(view=knowing(suspects))
    for _ in range(3):
        call.send()
        assert call.request["points"]
        call.denied(suspects)
    call.send()
    assert call.request == dict(call.original)
    assert told(call.began()) == []


def test_what_the_user_marked_is_the_users_and_not_suspected() -> None:
    prompt = Wire().read({**REQUEST, "marked": True}, KEY, RULE, NO_HINTS)
    assert prompt is not None
    assert added(prompt, planned(CachePolicy(mode="explicit"), marked=True).plan) == set()
    moved = planned(marked=True).plan
    assert added(prompt, replace(moved, marks=())) == {"system"}
    longer = replace(moved, checkpoints=tuple(replace(point, ttl="1h") for point in moved.checkpoints))
    assert added(prompt, longer) == {"system", "ttl:1h"}


# -- late system messages -------------------------------------------------------------------------

TAKEN = replace(TARGET, rule=replace(RULE, facts=ModelFacts(system_role=("converse",))))


@pytest.mark.parametrize(("target", "late"), [(TARGET, "user"), (TAKEN, "system"), (Target("m"), "user")])
def test_a_late_system_message_goes_where_the_row_says(target: Target, late: str) -> None:
    call = planned(target=target, late="system")
    call.send()
    assert (call.request["late"], call.original["late"]) == (late, "system")


@pytest.mark.parametrize("mode", ["off", "observe"])
def test_a_request_that_is_the_users_own_keeps_its_system_messages(mode: Any) -> None:
    call = planned(CachePolicy(mode=mode), late="system")
    call.send()
    assert call.request["late"] == "system"


def test_a_role_that_is_refused_is_repeated_as_a_user_turn_and_suspected() -> None:
    call = planned(target=TAKEN, late="system")
    call.send()
    call.refused(REFUSAL)
    call.repeat()
    assert call.request == {**REQUEST, "late": "user"}
    effects = call.began()
    assert told(effects)[0].features == {"system_turns", "system"}
    assert "refused a system message in the conversation or a checkpoint in system" in effects.warnings[0].message


def test_a_role_is_suspected_where_nothing_else_of_ours_goes_out() -> None:
    call = planned(target=TAKEN, late="system")
    call.leave_as_written()
    call.send()
    assert call.request == {**REQUEST, "late": "system"}
    call.refused(REFUSAL)
    call.repeat()
    assert call.request == {**REQUEST, "late": "user"}
    assert told(call.began())[0].features == {"system_turns"}


def test_a_role_that_was_refused_goes_as_a_user_turn_from_then_on() -> None:
    call = exchange(late="system")
    call.read(TAKEN, KEY, NOW, refusals=Refusals(refused={"system_turns": NOW + 1}))
    call.known(knowing(Refusals(refused={"system_turns": NOW + 1})), NOW)
    assert learned(call.send()) == ["sent"]
    assert call.request["late"] == "user"


def test_a_user_turn_is_not_suspected_of_a_checkpoint() -> None:
    call = repeated(late="system")
    assert call.request == {**REQUEST, "late": "user"}
    assert told(call.began())[0].features == {"system"}


def test_a_user_turn_that_is_refused_goes_as_the_user_wrote_it() -> None:
    call = planned(target=Target("m"), late="system")  # of an unknown model, so nothing else is changed
    call.send()
    call.refused(REFUSAL)
    call.repeat()
    assert call.request == {**REQUEST, "late": "system"}
    assert told(call.began()) == []  # there is no scope to remember it for


def test_where_placing_a_system_message_fails_it_goes_out_as_written() -> None:
    call = exchange(wire=Wire(fails_in="place"), late="system")
    assert [fault.where for fault in call.read(TARGET, KEY, NOW).faults] == ["placing system messages"]
    call.send()
    assert call.request["late"] == "system"


def test_a_store_that_fails_at_sending_lets_the_request_go_as_written() -> None:
    call = sent()
    assert learned(call.leave_as_written()) == ["failed"]
    assert call.send() == Effects()
    assert call.request == REQUEST


# -- endings --------------------------------------------------------------------------------------


def test_a_call_that_failed_wrote_nothing() -> None:
    call = sent()
    assert learned(call.failed("ThrottlingException", 2.0)) == ["failed"]
    record = call.record
    assert record is not None
    assert (record.error, record.seconds, record.usage, record.cost, record.status) == (
        "ThrottlingException", 2.0, None, None, None
    )  # fmt: skip


def test_a_call_that_failed_before_it_was_sent_has_nothing_to_take_back() -> None:
    assert planned().failed("CancelledError", 2.0) == Effects()


def test_a_caller_cancelled_before_the_response_is_recorded_as_such() -> None:
    call = sent()
    assert learned(call.cancelled("CancelledError", 2.0)) == ["failed"]
    assert call.state == "cancelled"
    assert call.record is not None
    assert call.record.error == "CancelledError"


@pytest.mark.parametrize(
    ("how", "error"), [("cut", "ConnectionError"), ("abandoned", "abandoned"), ("cancelled", "CancelledError")]
)
def test_a_response_without_its_end_is_settled_without_a_usage(how: Any, error: str) -> None:
    call = began()
    (settled,) = call.ended(how, error, 1.0).lessons
    assert (settled.what, settled.about[1]) == ("settled", None)
    assert call.record is not None
    assert (call.record.error, call.record.usage, call.record.status) == (error, None, None)


def test_half_a_usage_counts_where_the_rest_never_comes() -> None:
    call = began()
    call.heard(REPORTED)
    (settled,) = call.ended("cut", "ConnectionError", 1.0).lessons
    assert settled.about[1] == Usage(9, 0, 2727, 0, 5)
    assert call.record is not None
    assert (call.record.status, call.record.error) == ("written", "ConnectionError")
    assert call.record.cost is None  # no price was handed in
    assert call.record.at_least


def test_half_a_usage_is_priced_as_the_least_that_was_billed() -> None:
    call = began()
    call.heard(REPORTED)
    call.ended("abandoned", "abandoned", 1.0, lambda usage: Cost(Decimal(usage.prompt)))
    assert call.record is not None
    assert call.record.cost == Cost(Decimal(9 + 2727))
    assert call.record.at_least


@pytest.mark.parametrize(
    ("end", "at_least"),
    [
        (lambda call: call.failed("ThrottlingException", 1.0), False),
        (lambda call: call.failed("ReadTimeoutError", 1.0, lost=True), True),
        (lambda call: call.cancelled("CancelledError", 1.0), True),
    ],
)
def test_a_request_that_may_have_been_served_may_be_billed(end: Any, at_least: bool) -> None:
    call = sent()
    end(call)
    assert call.record is not None
    assert call.record.at_least is at_least


def test_a_request_that_never_went_out_is_not_billed() -> None:
    call = planned()
    call.cancelled("CancelledError", 1.0)
    assert call.record is not None
    assert not call.record.at_least


def test_attempts_before_the_answer_are_recorded() -> None:
    call = sent()
    call.began(2)
    call.answered(REPORTED, 1.0, lambda _: None)
    assert call.record is not None
    assert (call.record.retries, call.record.contract()["retries"]) == (2, 2)


def test_an_odd_usage_is_named_by_its_types() -> None:
    call = began()
    (warning,) = call.answered({**REPORTED, "inputTokens": "secret"}, 1.0, lambda _: None).warnings
    odd = "reports a usage in which inputTokens is of type str; it is counted as far as it can be"
    assert warning.message == f"cachepoint: {call.target.model!r} {odd}"


def test_half_a_usage_counts_where_the_answer_reports_none() -> None:
    call = began()
    call.heard(REPORTED)
    call.answered(None, 1.0, price)
    assert call.record is not None
    assert call.record.usage == Usage(9, 0, 2727, 0, 5)


def test_the_whole_usage_goes_before_the_half() -> None:
    call = began()
    call.heard(REPORTED)
    call.answered({**REPORTED, "output": 70}, 1.0, price)
    assert call.record is not None
    assert call.record.usage == Usage(9, 0, 2727, 0, 70)


# -- errors of our own ----------------------------------------------------------------------------


@pytest.mark.parametrize(("part", "where"), [("read", "reading"), ("apply", "applying the plan")])
def test_an_error_before_sending_leaves_the_request_as_written(part: str, where: str) -> None:
    call = exchange(None, Wire(fails_in=part))
    faults = [*call.read(TARGET, KEY, NOW).faults]
    if call.question is not None:
        faults += call.known(View(), NOW).faults
    effects = call.send()
    faults += effects.faults
    assert [(type(fault.problem), fault.where) for fault in faults] == [(ArithmeticError, where)]
    assert effects.lessons == ()
    assert call.request == REQUEST


def test_an_error_in_planning_leaves_the_request_as_written(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> Plan:
        raise ArithmeticError

    monkeypatch.setattr("cachepoint.core.planning.planner.plan", broken)
    call = exchange()
    call.read(TARGET, KEY, NOW)
    (fault,) = call.known(View(), NOW).faults
    assert fault.where == "planning"
    call.send()
    assert call.request == REQUEST


def test_an_error_in_reading_the_usage_leaves_the_call_recorded() -> None:
    call = began(None, Wire(fails_in="usage"))
    effects = call.answered(REPORTED, 1.0, price)
    assert [fault.where for fault in effects.faults] == ["reading the usage"]
    assert learned(effects) == ["settled"]
    assert call.record is not None
    assert call.record.usage is None
    assert call.record.checkpoints


def test_an_error_in_pricing_leaves_the_tokens_counted() -> None:
    def broken(_: Usage) -> Cost | None:
        raise ArithmeticError

    call = began()
    effects = call.answered(REPORTED, 1.0, broken)
    assert [fault.where for fault in effects.faults] == ["pricing"]
    assert call.record is not None
    assert (call.record.usage, call.record.cost) == (Usage(9, 0, 2727, 0, 5), None)


def test_a_price_table_in_error_does_not_lose_the_answer() -> None:
    def broken(_: Usage) -> Cost | None:
        raise ConfigurationError("a price of -1")  # of the price table's making, not of this request's

    call = began()
    assert [fault.where for fault in call.answered(REPORTED, 1.0, broken).faults] == ["pricing"]
    assert call.record is not None
    assert call.record.usage == Usage(9, 0, 2727, 0, 5)


def test_a_refusal_that_cannot_be_answered_is_the_services_to_tell() -> None:
    class Odd(dict[str, Any]):
        def __ne__(self, other: object) -> bool:
            raise ArithmeticError

    call = sent()
    call.request = Odd(call.request)
    assert [fault.where for fault in call.refused(REFUSAL).faults] == ["what to repeat"]
    assert not call.can_repeat
    call.failed("ValidationException", 1.0)
    assert call.record is not None


def test_effects_are_told_once() -> None:
    call = exchange(None, Wire(fails_in="read"))
    assert len(call.read(TARGET, KEY, NOW).faults) == 1
    assert call.send().faults == ()


def test_splits_that_do_not_bear_out_are_told_once_the_request_goes() -> None:
    call = planned(view=View(splits_trusted=False))
    (warning,) = call.send().warnings
    assert warning.key == "splits:scope"
    assert planned(CachePolicy(split_text=False), view=View(splits_trusted=False)).send().warnings == ()


def test_hints_reach_the_wire_format() -> None:
    heard: list[Hints] = []

    class Listening(Wire):
        def read(self, request: Mapping[str, Any], key: bytes, rule: ModelRule, hints: Hints) -> Prompt | None:
            heard.append(hints)
            return None

    hints: Hints = {Where("system", None, 0): "context_end"}
    exchange(None, Listening()).read(TARGET, KEY, NOW, hints)
    exchange(None, Listening()).read(TARGET, KEY, NOW)
    assert heard == [hints, NO_HINTS]


# -- from a plan to what goes out -----------------------------------------------------------------


def departing() -> tuple[Prompt, Plan]:
    """A plan that writes system[0] for an hour, reads nothing, and one point more on the question."""
    call = planned(CachePolicy(ttl="1h"))
    assert call.prompt is not None
    return call.prompt, call.plan


def test_what_is_sent_is_kept_by_digest_size_and_ttl() -> None:
    prompt, plan = departing()
    sent = sent_record(prompt, plan, RULE, Rates(0.1, 1.25, 2.0), View(), steps(prompt))
    (point,) = sent.points
    assert (point.digest, point.ttl, point.splits, point.exact) == (prompt.end(0).digest, "1h", (), False)
    assert point.tokens == 2727  # 12,000 bytes at 4.4 a token
    assert sent.read is None
    assert (sent.estimated, sent.minimum) == (prompt.tokens, 1024)
    assert sent.reaches == (Reach(point.digest, 2727.0, "system_end"),)
    # written at twice the price, of which the user set the TTL; the prompt is 2,727 tokens, 12 for the question
    assert sent.risk.segments == (Segment(point.digest, "system_end", 2727.0, own=0.25, asked=0.75),)
    assert (sent.risk.price, sent.risk.read, sent.risk.prompt.mid) == (0.25, b"", prompt.tokens)
    shape = sent.shape
    assert shape is not None
    assert shape.digests == tuple(prompt.end(block).digest for block in range(2))
    assert (shape.sizes, shape.sections, shape.ttl) == ((12000, 4), (-1, 0), "1h")


def test_what_is_read_is_kept_as_the_entry_it_was() -> None:
    call = exchange()
    call.read(TARGET, KEY, NOW)
    assert call.prompt is not None
    entries = {call.prompt.end(0).digest: Entry("1h", NOW - 10, tokens=2700)}
    call.known(View(entries=entries, waste=Waste(baseline=1e9)), NOW)
    call.send()
    assert call.sent.read is not None
    assert call.sent.read == (call.prompt.end(0).digest, "1h", 2700.0, (), True)
    assert call.sent.reaches == (Reach(call.prompt.end(0).digest, 2700.0, "system_end"),)


# -- where what may be risked was spent meanwhile -------------------------------------------------


def test_a_call_that_is_denied_is_planned_by_the_accounts_as_they_stand() -> None:
    call = sent(CachePolicy(ttl="1h"))
    assert call.plan.checkpoints
    effects = call.denied(Waste(general=1.0))
    assert (call.state, effects.lessons, call.view.waste.general) == ("planned", (), 1.0)
    assert [lesson.what for lesson in call.send().lessons] == ["sent"]
    assert call.plan.checkpoints


def test_a_call_that_is_denied_again_has_nothing_of_our_own_and_says_why() -> None:
    call = sent(CachePolicy(ttl="1h"))
    for _ in range(2):
        call.denied(Waste())
        call.send()
    assert not call.plan.checkpoints
    assert not call.plan.risk.ours
    assert "allowance_spent" in {held.reason for held in call.plan.held}
    call.denied(Waste())  # a store that denies even that
    call.send()
    assert (call.prompt, call.request) == (None, dict(call.original))


def test_a_lesson_gives_what_the_store_answers() -> None:
    class Full:
        def sent(self, *_: object) -> Waste:
            return Waste(general=7.0)

    assert Lesson("sent", TARGET.scope, ()).teach(Full()) == Waste(general=7.0)  # type: ignore[arg-type]
