"""One call, from the request to its record, as a pure protocol: no I/O, no lock, no clock, no warning.

Whoever makes, replays or simulates calls drives an `Exchange`: it asks the store, the clock and the service, and hands
in what they answered. Each step gives back `Effects`: what the store is to learn, what to warn of, and the errors of
our own that a step survived. The picture is in docs/exchange.md.

    new ─ read → read ─ plan → planned ─ send → sent ─ begin → began ─ answer → settled
                      waiting ⇄ ←─ deny ───⇅ refuse, repeat         ├─ cut, abandon, give up
                                        refused                     ·
          before the response begins: fail → failed, cancel → cancelled

An error inside leaves the call as the user wrote it and comes out among the effects: caching never makes a call fail.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

from cachepoint.core.accounts.misses import diagnose
from cachepoint.core.accounts.record import CallRecord, Miss, status_of
from cachepoint.core.accounts.sharing_out import PrefixUse, prefix_use
from cachepoint.core.planning import planner
from cachepoint.core.planning.expectation import NOTHING_SAID, Expectation
from cachepoint.core.planning.plan import Plan
from cachepoint.core.planning.policy import CachePolicy
from cachepoint.core.planning.reasons import Rejected
from cachepoint.core.planning.shadow_bill import ShadowBill
from cachepoint.core.prompt.prompt import NO_HINTS, Hints, Prompt
from cachepoint.core.prompt.tokens import PROFILES
from cachepoint.core.provider.prices import Cost, Rates
from cachepoint.core.provider.rules import TTL, ModelRule, parse_model_id
from cachepoint.core.provider.usage import Usage, oddities, told_oddly
from cachepoint.core.traffic.boundaries import ending, steps, turn_before
from cachepoint.core.traffic.entries import Reach, Sent, SentPoint, Shape
from cachepoint.core.traffic.pool import Scope
from cachepoint.core.traffic.refusals import (
    LEFT_OUT_FIRST,
    LONG_TTL,
    NOTHING_REFUSED,
    SPLIT,
    SYSTEM_TURNS,
    Feature,
    Outcome,
    Refusals,
)
from cachepoint.core.traffic.shadows import Shadowed
from cachepoint.core.traffic.static_plans import Habit, habit_of
from cachepoint.core.traffic.view import Step, View
from cachepoint.core.traffic.waste import Waste
from cachepoint.errors import ConfigurationError, IllegalStep

State = Literal[
    "new", "read", "planned", "waiting", "sent", "refused", "began",
    "settled", "failed", "cut", "abandoned", "cancelled",
]  # fmt: skip
Ending = Literal["cut", "abandoned", "cancelled"]
"""How a response ends that does not come to its end: it broke off, was left unread, or its caller was cancelled."""

_BEFORE_SENDING: frozenset[State] = frozenset({"new", "read", "planned", "waiting"})
_UNDER_WAY: frozenset[State] = _BEFORE_SENDING | {"sent", "refused", "began"}
STEPS: Mapping[str, tuple[frozenset[State], State]] = {
    "read": (frozenset({"new"}), "read"),
    "plan": (frozenset({"read", "planned", "waiting"}), "planned"),
    "leave as written": (_BEFORE_SENDING | {"sent"}, "planned"),
    "wait": (frozenset({"planned"}), "waiting"),
    "send": (frozenset({"read", "planned"}), "sent"),
    "deny": (frozenset({"sent"}), "planned"),
    "refuse": (frozenset({"sent", "began"}), "refused"),
    "repeat": (frozenset({"refused"}), "sent"),
    "begin": (frozenset({"sent"}), "began"),
    "hear": (frozenset({"began"}), "began"),
    "answer": (frozenset({"began"}), "settled"),
    "fail": (_UNDER_WAY - {"began"}, "failed"),
    "cut": (frozenset({"began"}), "cut"),
    "abandon": (frozenset({"began"}), "abandoned"),
    "give up": (frozenset({"began"}), "cancelled"),
    "cancel": (_UNDER_WAY - {"began"}, "cancelled"),
}
"""Every step: the states it may be taken in, and the state it leads to."""

_R = TypeVar("_R")
READING = "reading"
"""Where a fault comes from that may be the request's own."""
_NAMES: Mapping[Feature, str] = {
    LONG_TTL: "a TTL of 1h", SPLIT: "a text in two blocks", SYSTEM_TURNS: "a system message in the conversation",
}  # fmt: skip
_DENIALS = 2
"""After so many, a call is sent with nothing of our own: threads that spend the same room are few."""
Price = Callable[[Usage], Cost | None]
"""What tokens of this call cost, None where that is not known."""


# -- what goes in ---------------------------------------------------------------------------------


class Wire(Protocol):
    """What an exchange asks of an API's wire format; every function of it is pure."""

    API: str

    def place_system_turns(
        self, request: Mapping[str, Any], hints: Hints, *, taken: bool
    ) -> tuple[Mapping[str, Any], Hints]:
        """The request with its late system messages where the service takes them; itself where it has none.

        `taken` says that the model takes messages of that role; else each becomes a user turn in its place.
        """

    def read(self, request: Mapping[str, Any], key: bytes, rule: ModelRule, hints: Hints) -> Prompt | None:
        """The request in wire order, as the model of `rule` takes it; None where it is passed on as it is."""

    def apply(self, request: Mapping[str, Any], plan: Plan) -> dict[str, Any]:
        """The request with the plan's checkpoints and splits in place of the user's own checkpoints."""

    def usage(self, reported: Mapping[str, Any] | None, unreported_ttl: TTL = "5m") -> Usage | None:
        """Tokens by class; None when no usage was sent."""

    def count_input(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """What CountTokens is asked about a request."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a call goes and what is known of the model there.

    `base_model` is the id whose rules and prices apply, None where nobody can tell; `rule` is None then too. `scope`
    is what cache entries are kept apart by, and the base model whose habits it shares; `rates` are the model's prices
    relative to uncached input.
    """

    model: str
    base_model: str | None = None
    region: str | None = None
    scope: Scope = Scope()
    rule: ModelRule | None = None
    rates: Rates = Rates()


class Refusal(NamedTuple):
    """The service refused a request: a keyed digest of its words, and which feature they seem to be about, if any.

    `error` is the error's name, "" of one that is only an HTTP status, as a proxy answers: of that nothing is learned.
    """

    words: bytes
    first: Feature | None = None
    error: str = ""


# -- what comes out -------------------------------------------------------------------------------


class Learner(Protocol):
    """What a store of traffic does with the lessons of an exchange."""

    def sent(self, scope: Scope, sent: Sent, now: float) -> Waste | None:
        """A planned request goes out, and what it may cost is reserved.

        Where what may be risked does not cover it, nothing is remembered, and the accounts as they stand are given.
        """

    def began(self, scope: Scope, sent: Sent) -> None:
        """Its response began."""

    def failed(self, scope: Scope, sent: Sent, lost: bool = False) -> None:  # noqa: FBT001, FBT002
        """It failed before its response began; `lost` says that it may have been served all the same."""

    def settled(self, scope: Scope, sent: Sent, usage: Usage | None, started: float) -> None:
        """Its answer is complete; `usage` is None when it never arrived."""

    def tries(self, scope: Scope, now: float) -> Refusals | None:
        """A request goes out that finds out more of what the service refuses; where another does, what is known."""

    def refuse(self, scope: Scope, outcome: Outcome) -> None:
        """What became of a request tells more of what the service refuses."""


class Question(NamedTuple):
    """What to ask the store about a request: a visit where it is to be remembered, else only what was refused."""

    steps: Sequence[Step]
    history: bytes | None
    remember: bool
    habit: Habit | None = None


Taught = Literal["sent", "began", "failed", "settled", "tries", "refuse"]


class Lesson(NamedTuple):
    """One thing for the store to learn, by the name of the method that takes it."""

    what: Taught
    scope: Scope
    about: tuple[Any, ...]

    def teach(self, store: Learner) -> Waste | Refusals | None:
        """Hand it to a store; gives what `sent` or `tries` answers where the store denies what is sent."""
        denied: Waste | Refusals | None = getattr(store, self.what)(self.scope, *self.about)
        return denied


class Warn(NamedTuple):
    """Something the user should know, once for each key."""

    key: str
    message: str


class Fault(NamedTuple):
    """An error of cachepoint's own that a step survived, and in which part of it."""

    problem: Exception
    where: str


class Effects(NamedTuple):
    """What a step leaves to do."""

    lessons: tuple[Lesson, ...] = ()
    warnings: tuple[Warn, ...] = ()
    faults: tuple[Fault, ...] = ()


NO_EFFECTS = Effects()


# -- the protocol ---------------------------------------------------------------------------------


@dataclass
class Exchange:
    """One call; see the module for its life.

    `request` is what to send, `record` what is left of the call once it is over. `base` is what is planned upon: the
    `original`, with its late system messages where the service takes them. `started` is the wall time, in seconds,
    from which the life of its cache entries counts: a wait for another call moves it.
    """

    wire: Wire
    original: Mapping[str, Any]
    policy: CachePolicy = field(default_factory=CachePolicy)
    tags: Mapping[str, str] = field(default_factory=dict)
    base: Mapping[str, Any] = field(init=False)
    state: State = field(default="new", init=False)
    target: Target = field(init=False, default=Target(""))
    expected: Expectation = field(default=NOTHING_SAID, init=False)
    prompt: Prompt | None = field(default=None, init=False)
    view: View = field(init=False, default=View())
    plan: Plan = field(init=False, default=Plan())
    sent: Sent = field(init=False, default=Sent())
    request: dict[str, Any] = field(init=False, default_factory=dict)
    record: CallRecord | None = field(default=None, init=False)
    started: float = field(default=0.0, init=False)
    question: Question | None = field(default=None, init=False)
    _observed: Plan = field(init=False, default=Plan())
    _plain: Mapping[str, Any] = field(init=False)
    _by_row: bool = field(default=True, init=False)
    _carried: frozenset[Feature] = field(default=frozenset(), init=False)
    _refusal: Refusal | None = field(default=None, init=False)
    _repeat: Mapping[str, Any] | None = field(default=None, init=False)
    _in_flight: bool = field(default=False, init=False)
    _denials: int = field(default=0, init=False)
    _retries: int = field(default=0, init=False)
    _half: Mapping[str, Any] | None = field(default=None, init=False)
    _lessons: list[Lesson] = field(init=False, default_factory=list)
    _warnings: list[Warn] = field(init=False, default_factory=list)
    _faults: list[Fault] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self.base = self._plain = self.original

    @property
    def over(self) -> bool:
        """Whether nothing more can happen to it."""
        return self.state not in _UNDER_WAY

    # -- before sending ---------------------------------------------------------------------------

    def read(
        self,
        target: Target,
        key: bytes,
        now: float,
        hints: Hints = NO_HINTS,
        expected: Expectation = NOTHING_SAID,
        refusals: Refusals | None = NOTHING_REFUSED,
    ) -> Effects:
        """Read the request; `question` then says what to ask the store, None where nothing is to be planned.

        `key` keys the digests, `expected` is what the user said of requests to come. `refusals` decide the place
        of late system messages; None where the request is known to have none. Raises ConfigurationError for a mark of
        the user's that the service would refuse.
        """
        self._step("read")
        self.target, self.started, self.expected = target, now, expected
        if refusals is not None and self.policy.mode in ("auto", "explicit"):
            hints = self._try("placing system messages", partial(self._place, hints, refusals)) or hints
        if self.policy.mode != "off" and target.rule is not None:
            mistake = self._try(READING, partial(self._read, target.rule, key, hints))
            if mistake is not None and self.policy.mode != "observe":
                raise mistake
        return self._effects()

    def _place(self, hints: Hints, refusals: Refusals) -> Hints:
        """Put late system messages where the service takes them, which gives hints other places."""
        rule = self.target.rule
        taken = rule is not None and self.wire.API in rule.facts.system_role
        place = partial(self.wire.place_system_turns, self.original, hints)
        self._plain, as_user = place(taken=False)
        if self._plain is self.original:
            return hints
        self._by_row = SYSTEM_TURNS not in {*refusals.left_out(self.started), *refusals.suspects}
        self.base, placed = place(taken=True) if taken == self._by_row else (self._plain, as_user)
        return placed

    def _read(self, rule: ModelRule, key: bytes, hints: Hints) -> ConfigurationError | None:
        """Take the request apart; a mistake of the user's in it is given back."""
        try:
            prompt = self.wire.read(self.base, key, rule, hints)
        except ConfigurationError as mistake:
            return mistake
        if prompt is None:
            return None
        history = prompt.end(prompt.history_end).digest if prompt.has_turns and prompt.history_end >= 0 else None
        habit = None
        if self.policy.mode == "auto" and self.policy.learn and prompt.blocks:
            habit = habit_of(prompt, self.policy.ttl)
        self.question = Question(steps(prompt), history, self.policy.learn, habit)
        self.prompt = prompt
        return None

    def known(self, view: View, now: float) -> Effects:
        """Plan by what the store knows; after a wait, by what it knows since."""
        fresh = self.state == "read"
        self._step("plan")
        self.started = now
        if self.policy.learn:
            self.view = view if fresh else self.view.refreshed(view)
        else:  # what the service refused holds whether or not traffic is learned
            self.view = View(refused=view.refused, refusals=view.refusals)
        self._try("planning", self._plan)
        return self._effects()

    def count_question(self) -> dict[str, Any] | None:
        """Arguments for CountTokens where the policy asks for it and the estimate straddles the minimum."""
        return self._try("the question to CountTokens", self._count_question)

    def _count_question(self) -> dict[str, Any] | None:
        rule, base = self.target.rule, self.target.base_model
        if not (self.policy.count_tokens and self.prompt and rule and rule.explicit and base):
            return None
        if self.policy.mode == "observe":  # whose request goes out as it is, whatever was counted
            return None
        if self.view.calibration.samples:  # exact totals have come in, which tell as much
            return None
        band = self.view.calibration.band(self.prompt.tokens, PROFILES[self.prompt.tokenizer])
        if not band.low < rule.minimum <= band.high:
            return None
        # Inference profiles do not count, only the model behind them.
        return {"modelId": parse_model_id(base).base, "input": self.wire.count_input(self.base)}

    def counted(self, tokens: int) -> Effects:
        """Plan anew with what CountTokens answered."""
        self._step("plan")
        if self.prompt is not None:
            self.view = self.view.calibrated(self.view.calibration.updated(self.prompt.tokens, tokens))
            self._try("planning", self._plan)
        return self._effects()

    def _plan(self) -> None:
        if self.prompt is None:
            return
        if self.view.refusals is not NOTHING_REFUSED:
            self.view = self.view.with_refusals(self.view.refusals, self.started)
        self.plan = self._planned(self.prompt, self.policy)
        if self.view.refusals.suspects:
            wanted = carried(self.prompt, self.plan)
            if out := self.view.refusals.left_out_as_well(wanted, self.started):
                self.view = self.view.leaving_out(out)
                self.plan = self._planned(self.prompt, self.policy)
        if self.policy.mode == "observe":
            self._observed = self._planned(self.prompt, self.policy.in_mode("explicit"))

    def _planned(self, prompt: Prompt, policy: CachePolicy) -> Plan:
        target = self.target
        return planner.plan(prompt, target.rule, policy, self.view, target.rates, self.started, self.expected)

    def shared_prefixes(self) -> tuple[Sequence[bytes], Sequence[bytes]]:
        """The prefixes this call could wait for, deepest first, and those it is about to write.

        Nothing is waited for up to what is read already, nor below the minimum.
        """
        return self._try("the prefixes shared", self._shared_prefixes) or ((), ())

    def _shared_prefixes(self) -> tuple[Sequence[bytes], Sequence[bytes]]:
        prompt, rule, view = self.prompt, self.target.rule, self.view
        if prompt is None or rule is None or self.policy.mode == "observe":
            return (), ()
        read = self.plan.expected.read_boundary if self.plan.expected.read_boundary is not None else -1
        minimum = max(rule.minimum, view.learned_minimum)
        per_token = view.calibration.band(1.0, PROFILES[prompt.tokenizer]).mid
        cold = [b for i, b in enumerate(prompt.boundaries) if i > read and b.tokens * per_token >= minimum]
        writes = [prompt.boundaries[point.boundary].digest for point in self.plan.checkpoints if point.boundary > read]
        return [b.digest for b in reversed(cold)], writes

    @property
    def outdated(self) -> bool:
        """Whether it was planned while another call was writing what it could read."""
        return any(not entry.readable for entry in self.view.entries.values())

    def wait(self) -> Effects:
        """The call waits for another that writes its prefix."""
        self._step("wait")
        return self._effects()

    def leave_as_written(self) -> Effects:
        """The request is to go out as the user wrote it, for something failed."""
        self._step("leave as written")
        self._forget()
        self._drop()
        return self._effects()

    def send(self) -> Effects:
        """The planned request goes out; `request` is what to send."""
        self._step("send")
        self.request = dict(self.base)
        if self.prompt is not None:
            self._try("applying the plan", partial(self._send, self.prompt))
        return self._effects()

    def _send(self, prompt: Prompt) -> None:
        if self.policy.mode != "observe":
            self.request = self.wire.apply(self.base, self.plan)
            self._warn_of_the_plan()
            self._carried = self._carries(prompt)
        rule, rates = self.target.rule, self.target.rates
        self.sent = sent_record(
            prompt, self._sends, rule, rates, self.view, self.question.steps if self.question else ()
        )
        habit = self.view.habit
        if rule is not None and habit is not None and self.view.followed is not None:
            self.sent = replace(self.sent, shadowed=self._shadowed(prompt, rule, habit))
        if self.policy.learn:
            self._in_flight = True
            self._learn("sent", self.sent, self.started)
        if self.view.refusals.is_test(self._carried):
            self._learn("tries", self.started)

    def _carries(self, prompt: Prompt) -> frozenset[Feature]:
        """What of ours goes out that the service may refuse."""
        found, placed = carried(prompt, self.plan), self._plain is not self.original
        return found | {SYSTEM_TURNS} if placed and self._by_row else found

    def _shadowed(self, prompt: Prompt, rule: ModelRule, habit: Habit) -> Shadowed:
        bill, plan = ShadowBill.of(prompt, rule, self.target.rates, self.view), self.plan
        return bill.bill(habit, plan.own, self.started, plan.charge)

    def denied(self, by: Waste | Refusals) -> Effects:
        """The store denies what was sent: others spent the room since it was planned, or try what this one would.

        It is planned anew by what is known now; denied again, nothing of our own is placed. Then `send`.
        """
        self._step("deny")
        self._denials += 1
        if isinstance(by, Refusals):
            self._forget()
        self._in_flight = False
        if self._denials > _DENIALS:
            self._drop()
            return self._effects()
        if isinstance(by, Refusals):
            self.view = self.view.with_refusals(by, self.started)
        else:
            self.view = self.view.with_waste(by if self._denials < _DENIALS else by.spent())
        self._try("planning", self._plan)
        return self._effects()

    @property
    def _sends(self) -> Plan:
        """What goes out: the plan, or in mode "observe" the checkpoints the user wrote."""
        return self._observed if self.policy.mode == "observe" else self.plan

    def _warn_of_the_plan(self) -> None:
        scope, model = self.target.scope.name, self.target.model
        if self.policy.split_text and not self.view.splits_trusted:
            self._warn(
                f"splits:{scope}",
                f"cachepoint stopped splitting text for {model!r}: what it reads or counts does not bear it out. "
                "Calls go on with their texts whole",
            )
        for warning in self.plan.warnings:
            # Once for each kind of repair, not for each message of a growing conversation.
            self._warn(f"plan:{scope}:{warning.key}", f"cachepoint: {warning}")

    # -- what happened ----------------------------------------------------------------------------

    def refused(self, refusal: Refusal) -> Effects:
        """The service refused the request.

        Whether what was added to it is the reason is known only once it was repeated as the user wrote it.
        """
        self._step("refuse")
        self._forget()
        if self._refusal is not None:  # the repeat was refused too
            self._repeat = None
            if self._refusal.error:
                self._told_of_refusals("failing", frozenset(), self._refusal)
        else:
            self._refusal = refusal
            self._repeat = self._try("what to repeat", partial(self._as_written, refusal))
        return self._effects()

    def _as_written(self, refusal: Refusal) -> Mapping[str, Any] | None:
        """The request with nothing of ours, None where that would be the same again or is known to fail too."""
        known = self.view.refusals
        if known.fail_plainly(refusal.words, self.started) and not known.is_test(self._carried):
            return None
        # With late system messages as user turns if that is news, for so it is most likely to be taken.
        return next((plain for plain in (self._plain, self.original) if plain != self.request), None)

    @property
    def can_repeat(self) -> bool:
        """Whether the refused request is to be sent once more, as the user wrote it."""
        return self.state == "refused" and self._repeat is not None

    def repeat(self) -> Effects:
        """The refused request goes out as the user wrote it; `request` is what to send."""
        self._step("repeat")
        held = [Rejected(point.where.path, "refused") for point in self.plan.checkpoints]
        rejected = (*self.plan.rejected, *held)
        carried = self._carried
        if self._repeat is self.base:  # system messages stand where they stood, so it was not they
            carried -= {SYSTEM_TURNS}
        self._drop()
        self._carried = carried  # by the request that was refused
        self.plan = Plan(rejected=rejected)
        self.request = dict(self._repeat or self.original)
        return self._effects()

    def began(self, retries: int = 0) -> Effects:
        """The response began: what the request wrote can be read from now on.

        `retries` is how many attempts were made before the one that is answered.
        """
        self._step("begin")
        self._retries = retries
        if self._in_flight:
            self._learn("began", self.sent)
        if self._refusal is not None:
            if self._refusal.error:
                self._remember(self._refusal)
        elif self.view.refusals.is_test(self._carried):
            self._told_of_refusals("taken", self._carried)
        return self._effects()

    def _remember(self, refusal: Refusal) -> None:
        """As the user wrote it the request was taken, so it was something of ours that was refused."""
        features, scope = self._carried, self.target.scope.name
        if self._repeat is not self.base and not self._by_row:
            self._told_of_refusals("taken", frozenset({SYSTEM_TURNS}))
        if not features:
            return
        self._told_of_refusals("refused", features, refusal)
        names = [_NAMES.get(feature, f"a checkpoint in {feature}") for feature in LEFT_OUT_FIRST if feature in features]
        later = "later calls go without it"
        if len(names) > 1:
            later = "each later call goes without one of these until it is known which"
        self._warn(
            f"refused:{scope}:{','.join(sorted(features))}",
            f"cachepoint: {self.target.model!r} refused {' or '.join(names)} ({refusal.error}); the call was repeated "
            f"as you wrote it, {later}, and after a day it is tried again",
        )

    def _told_of_refusals(
        self, what: Literal["refused", "taken", "failing"], features: frozenset[Feature], refusal: Refusal | None = None
    ) -> None:
        if self.target.rule is not None:  # of a model that nobody knows there is no scope to remember it for
            first, words = (refusal.first, refusal.words) if refusal else (None, b"")
            self._learn("refuse", Outcome(what, features, self.started, first, words))

    def heard(self, reported: Mapping[str, Any]) -> Effects:
        """A part of the usage came, which counts should the rest never come."""
        self._step("hear")
        self._half = reported
        return self._effects()

    def answered(self, reported: Mapping[str, Any] | None, seconds: float, price: Price) -> Effects:
        """The answer is complete; `reported` is its usage, None where the service sent none.

        `seconds` is how long the call took.
        """
        self._step("answer")
        if reported is None:
            return self._settle(self._half, None, seconds, price, at_least=True)
        return self._settle(reported, None, seconds, price)

    def ended(self, how: Ending, error: str, seconds: float, price: Price | None = None) -> Effects:
        """The response did not come to its end; what was heard of its usage counts, as the least that it cost.

        A prompt is told before its answer, and exactly; of the answer what was told by then. Without a `price` there is
        no cost.
        """
        self._step({"cut": "cut", "abandoned": "abandon", "cancelled": "give up"}[how])
        return self._settle(self._half, error, seconds, price or _unpriced, at_least=True)

    def failed(self, error: str, seconds: float, *, lost: bool = False, retries: int = 0) -> Effects:
        """The call failed before its response began; `error` is the name of the exception's class.

        `lost` says that the service may have served it all the same; `retries` is as for `began`.
        """
        self._step("fail")
        self._retries = retries
        return self._end_without_a_response(error, seconds, lost=lost, at_least=lost)

    def cancelled(self, error: str, seconds: float) -> Effects:
        """The caller was cancelled before the response began; a request on its way is served all the same."""
        on_its_way = self.state not in _BEFORE_SENDING
        self._step("cancel")
        return self._end_without_a_response(error, seconds, lost=True, at_least=on_its_way)

    def _end_without_a_response(self, error: str, seconds: float, *, lost: bool, at_least: bool) -> Effects:
        self._forget(lost=lost)
        self._make_record(None, error, seconds, _unpriced, at_least=at_least)
        return self._effects()

    def _settle(
        self,
        reported: Mapping[str, Any] | None,
        error: str | None,
        seconds: float,
        price: Price,
        *,
        at_least: bool = False,
    ) -> Effects:
        ttls = {point.ttl for point in self._sends.checkpoints}
        usage = self._try("reading the usage", lambda: self.wire.usage(reported, "1h" if ttls == {"1h"} else "5m"))
        self._warn_of_oddities(reported, usage)
        if self._in_flight:
            self._in_flight = False
            self._learn("settled", self.sent, usage, self.started)
        self._make_record(usage, error, seconds, price, at_least=at_least)
        return self._effects()

    def _warn_of_oddities(self, reported: Mapping[str, Any] | None, usage: Usage | None) -> None:
        """A gateway or a model that reports its tokens in its own way is named once, with the types of what it told."""
        odd = self._try("what is odd in the usage", partial(oddities, reported))
        if odd:
            self._warn(*told_oddly(self.target.model, odd, usage))

    def _forget(self, *, lost: bool = False) -> None:
        if self._in_flight:
            self._in_flight = False
            self._learn("failed", self.sent, lost)

    # -- the record -------------------------------------------------------------------------------

    def _make_record(
        self, usage: Usage | None, error: str | None, seconds: float, price: Price, *, at_least: bool = False
    ) -> None:
        # Each part on its own: whatever fails in it, the call is recorded.
        cost = miss = prefix = None
        if usage is not None:
            cost = self._try("pricing", partial(price, usage))
            miss = self._try("diagnosis", partial(self._miss, usage, price))
            prefix = self._try("naming the prefix", partial(self._prefix, usage))
        self.record = CallRecord(
            started=self.started,
            seconds=seconds,
            model=self.target.model,
            base_model=self.target.base_model,
            region=self.target.region,
            api=self.wire.API,
            mode=self.policy.mode,
            status=status_of(usage) if usage else None,
            usage=usage,
            cost=cost,
            checkpoints=self.plan.checkpoints,
            miss=miss,
            tags=self.tags,
            session=self.tags.get("session"),
            error=error,
            prefix=prefix or PrefixUse(),
            held=self._try("what was held", self._held) or (),
            at_least=at_least,
            retries=self._retries,
        )

    def _held(self) -> tuple[Rejected, ...]:
        """Why nothing, or no more, was placed: by the plan, or because there is none."""
        if self.plan.checkpoints or self.plan.rejected:
            return self.plan.held
        if self.policy.mode == "off":
            return (Rejected("", "mode_off"),)
        return (Rejected("", "unknown_model" if self.target.rule is None else "left_as_written"),)

    def _miss(self, usage: Usage, price: Price) -> Miss | None:
        if self.prompt is None:
            return None
        miss = diagnose(self.prompt, self._sends, self.view, usage, self.target.rule, self.started)
        if miss is None or not miss.lost_tokens:
            return miss
        return miss.priced(price(Usage(cache_read=miss.lost_tokens)))

    def _prefix(self, usage: Usage) -> PrefixUse:
        if self.prompt is None or not usage.cache_read + usage.cache_write:
            return PrefixUse()
        sent = [point.digest for point in self.sent.points]
        known = {*sent, *self.view.entries}
        ends = {digest: tokens for _, _, digest, tokens in self.prompt.boundaries if digest in known}
        return prefix_use(self.target.scope.name, ends, sent, usage, self.prompt.tokens)

    # -- steps and effects ------------------------------------------------------------------------

    def _step(self, name: str) -> None:
        allowed, after = STEPS[name]
        if self.state not in allowed:
            raise IllegalStep(f"a call that is {self.state!r} cannot {name}; it can after {sorted(allowed)}")
        self.state = after

    def _try(self, where: str, part: Callable[[], _R]) -> _R | None:
        """What a part gives; where it fails, None, and a request not yet under way goes out as the user wrote it."""
        try:
            return part()
        except Exception as problem:  # noqa: BLE001 - caching must never make a call fail; it comes out as a fault
            self._faults.append(Fault(problem, where))
            if self.state in _BEFORE_SENDING | {"sent"}:
                self._drop()
            return None

    def _drop(self) -> None:
        self.prompt, self.plan, self._observed, self.sent = None, Plan(), Plan(), Sent()
        self._carried = frozenset()
        self.request = dict(self.base)

    def _learn(self, what: Taught, *about: Any) -> None:
        self._lessons.append(Lesson(what, self.target.scope, about))

    def _warn(self, key: str, message: str) -> None:
        self._warnings.append(Warn(key, message))

    def _effects(self) -> Effects:
        if not (self._lessons or self._warnings or self._faults):
            return NO_EFFECTS
        effects = Effects(tuple(self._lessons), tuple(self._warnings), tuple(self._faults))
        self._lessons, self._warnings, self._faults = [], [], []
        return effects


def _unpriced(_: Usage) -> Cost | None:
    """No price was given."""
    return None


# -- from a plan to what goes out -----------------------------------------------------------------


def carried(prompt: Prompt, plan: Plan) -> frozenset[Feature]:
    """What a plan adds to its request that the service may refuse; what the user asked for in the same place is not."""
    written = {(prompt.ends[mark.block], mark.ttl or "5m") for mark in plan.marks if mark.block is not None}
    ours = [point for point in plan.checkpoints if (point.boundary, point.ttl) not in written]
    found: set[Feature] = {point.where.section for point in ours}
    if any(point.ttl == "1h" for point in ours):
        found.add(LONG_TTL)
    if plan.splits:
        found.add(SPLIT)
    return frozenset(found)


def sent_record(
    prompt: Prompt, plan: Plan, rule: ModelRule | None, rates: Rates, view: View, steps: Sequence[Step]
) -> Sent:
    """What the traffic keeps of a planned request until its answer."""
    splits = sorted(split.boundary for split in plan.splits)

    def record(boundary: int, ttl: TTL, tokens: float, *, exact: bool = False) -> SentPoint:
        before = tuple(prompt.boundaries[cut].digest for cut in splits if cut <= boundary)
        return SentPoint(prompt.boundaries[boundary].digest, ttl, tokens, before, exact)

    expected = plan.expected
    return Sent(
        points=tuple(record(point.boundary, point.ttl, point.tokens) for point in plan.checkpoints),
        read=None
        if expected.read_boundary is None
        else record(expected.read_boundary, expected.read_ttl or "5m", expected.read, exact=expected.read_exact),
        reaches=reaches(plan, view, steps),
        risk=plan.risk,
        estimated=prompt.tokens,
        minimum=rule.minimum if rule else 0,
        rates=rates,
        shape=Shape(
            tuple([prompt.boundaries[end][2] for end in prompt.ends]), tuple([block[3] for block in prompt.blocks]),
            (prompt.tools_end, prompt.system_end), prompt.settings, 0.0,
            plan.checkpoints[-1].ttl if plan.checkpoints else "5m", 0.0,
        ),
        cold=view.cold(steps),
        foreign=view.foreign(steps, turn_before(prompt)),
        ends_like=ending(prompt, len(prompt.blocks) - 1),
        before_ends_like=ending(prompt, prompt.previous_end),
    )  # fmt: skip


def reaches(plan: Plan, view: View, steps: Sequence[Step]) -> tuple[Reach, ...]:
    """What a planned request may read, in wire order: what is believed alive, and what other processes wrote."""
    points = {point.boundary: float(point.tokens) for point in plan.checkpoints}
    found = []
    for boundary, step in enumerate(steps):
        entry = view.entries.get(step.digest)
        if entry is None and boundary not in points:
            continue
        known = entry.tokens if entry is not None else None
        tokens = float(known) if known is not None else points.get(boundary, step.tokens * view.calibration.factor)
        found.append(Reach(step.digest, tokens, step.role))
    return tuple(found)
