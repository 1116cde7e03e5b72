"""A program of the kind that documentation teaches, and the forms in which it is run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from programs_lib.answers import Answers, answering
from programs_lib.stage import SECONDS_A_CALL, Stage
from programs_lib.texts import Session

SECONDS_A_TURN = 20.0
SECONDS_BETWEEN_SESSIONS = 60.0
SECONDS_IN_PARALLEL = SECONDS_A_CALL / 4
"""From call to call where four are under way, LlamaIndex's number of workers."""


@dataclass(frozen=True)
class Form:
    """How many sessions, one after another in one process, of how many turns."""

    name: str
    sessions: int
    turns: int


@dataclass(frozen=True)
class Program:
    """A program; `run` plays its sessions on a stage.

    `static`: the texts that stand still in its prompts, for whoever places checkpoints by hand.
    `short` and `long` are the turns of a session; `answers` is the emulated model, which must depend on the
    question alone. `marks_itself`: the framework asks for checkpoints in it without being
    told; what it asks for is the peer, and no caching is the same requests without.
    """

    name: str
    title: str
    run: Callable[[Stage, Sequence[Session]], None]
    static: tuple[str, ...] = ()
    short: int = 5
    long: int = 15
    answers: Answers = field(default_factory=answering)
    marks_itself: bool = False
    seconds_a_call: float = SECONDS_A_CALL

    @property
    def forms(self) -> tuple[Form, ...]:
        return (Form("short", 1, self.short), Form("long", 1, self.long), Form("ten", 10, self.short))


def converse(stage: Stage, sessions: Sequence[Session], start: Callable[[], Callable[[str], object]]) -> None:
    """Ask all questions of all sessions; `start` begins a session and returns what asks a question in it."""
    for session in sessions:
        ask = start()
        for question in session:
            ask(question)
            stage.turn_ended(SECONDS_A_TURN)
        stage.emulator.clock.advance(SECONDS_BETWEEN_SESSIONS)
