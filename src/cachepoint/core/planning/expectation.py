"""What a user knows of requests to come and has said: it goes before what was learned of the boundaries it names.

It is about the conversation (its history and its tail: does it go on, and when is it back) or about a context such as a
document (how often it comes). All other boundaries keep what was learned of them, but for what follows from it: whoever
comes back passes everything before, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from math import inf
from typing import Any, Literal

from cachepoint._cached import cached_property
from cachepoint.core.prompt.prompt import Prompt
from cachepoint.core.provider.rules import TTL_SECONDS
from cachepoint.core.traffic.kinds import Role
from cachepoint.core.traffic.return_curves import Outlook
from cachepoint.errors import ConfigurationError

Subject = Literal["conversation", "context"]
"""What an expectation is about."""

_CONVERSATION: frozenset[Role] = frozenset({"history_end", "tail_single", "tail_turns", "tail_stuffed", "tail_tools"})
_NEVER = Outlook(0.0, 0.0, 0.0)
QUESTION_SHARE = 1 / 16
"""Of a string that has both a document and the question, at least this share is taken for the question."""


_MOST = 1e15
"""More seconds, or requests, than anybody waits for; the sums of the planner stay numbers up to there."""


@dataclass(frozen=True, slots=True)
class Expectation:
    """What a user says of requests to come; None where nothing is said.

    - `ends`: True where no turn of this conversation follows, False where one does.
    - `back_in`: within how many seconds from now the next one comes; of the conversation, which then goes on, or of the
      context where `times` is given.
    - `times`: how often a context comes in all, this request included. A context is what was marked as one, else the
      system prompt and the largest block in front of the question, or of one string with both all but its end.

    Raises ConfigurationError on any other value, and for the end of a conversation that is back.
    """

    ends: bool | None = None
    back_in: float | None = None
    times: int | None = None

    def __post_init__(self) -> None:
        if self.ends is not None and not isinstance(self.ends, bool):
            raise ConfigurationError(f"expect(ends={self.ends!r}): write True, or False where the conversation goes on")
        seconds = isinstance(self.back_in, int | float) and not isinstance(self.back_in, bool)
        if self.back_in is not None and not (seconds and (0 <= self.back_in <= _MOST or self.back_in == inf)):
            raise ConfigurationError(f"expect(back_in={self.back_in!r:.80}): give seconds from now, 0 or more")
        if self.times is not None and not (type(self.times) is int and 1 <= self.times <= _MOST):
            raise ConfigurationError(f"expect(times={self.times!r:.80}): give how often it comes in all, 1 or more")
        if self.ends and self.back_in is not None and self.times is None:
            raise ConfigurationError(
                f"expect(ends=True, back_in={self.back_in!r}): a conversation that ends is not back; leave one out"
            )

    @classmethod
    def of(cls, given: Any) -> Expectation:
        """The expectation that a user writes as a dict, or passes as it is; None says nothing."""
        if given is None or isinstance(given, Expectation):
            return given or NOTHING_SAID
        names = [field.name for field in fields(cls)]
        if not isinstance(given, Mapping):
            raise ConfigurationError(f"{given!r:.80} is no expectation: give a dict of any of {names}")
        if unknown := [name for name in given if name not in names]:
            raise ConfigurationError(f"an expectation has no {unknown[0]!r}; it has {names}")
        return cls(**given)

    def inside(self, outer: Expectation) -> Expectation:
        """Both, where this one is said inside the other and goes before it."""
        silent = self._end is None and self.back_in is None
        return Expectation(
            ends=outer._end if self._end is None else self._end,
            back_in=outer.back_in if silent else self.back_in,
            times=outer.times if self.times is None else self.times,
        )

    @property
    def goes_on(self) -> bool:
        """Whether another request of the conversation follows."""
        return self._end is False

    @property
    def _end(self) -> bool | None:
        implied = self.ends is None and self.back_in is not None and self.times is None
        return False if implied else self.ends


NOTHING_SAID = Expectation()

WITHIN_1H = 0.98
"""The chance that what was said to come back does so within the hour, where no time was said: as of any prefix."""


@dataclass(frozen=True)
class Said:
    """An expectation of one prompt; `named` are the boundaries that the prompt's structure names."""

    expected: Expectation
    prompt: Prompt
    named: Mapping[int, Role]

    @cached_property
    def subjects(self) -> Mapping[int, Subject]:
        """The boundaries that come back, with what is said to.

        Behind documents that are of one turn alone nothing of a conversation does.
        """
        found: dict[int, Subject] = {}
        if self.expected.goes_on:
            blocks = self.prompt.blocks
            hinted = (i for i, each in enumerate(blocks) if each.volatile and each.where.section == "messages")
            kept, boundaries = next(hinted, len(blocks)), self.prompt.boundaries
            conversation = (i for i, role in self.named.items() if role in _CONVERSATION)
            found.update((i, "conversation") for i in conversation if boundaries[i].block < kept)
        if self.expected.times is not None:
            found.update((i, "context") for i in self._contexts())
        return found

    def decides(self, boundary: int, visits: int) -> bool:
        """Whether the outlook of a boundary is what was said, not what was learned."""
        if self.subjects.get(boundary) == "context":
            return self._left(visits) >= 0
        return boundary in self.subjects or (self._ends_with(boundary, visits) and not self._loops)

    def outlook(self, boundary: int, learned: Outlook, visits: int) -> Outlook:
        """What to expect of a boundary, given what was learned of it and how often it was visited before."""
        subject = self.subjects.get(boundary)
        if subject == "context":
            left = self._left(visits)
            return learned if left < 0 else self._timed(learned._replace(visits=float(left)))
        if subject == "conversation":  # what is expected of any visit is expected of the one that is sure to come
            return self._timed(learned._replace(visits=1 + learned.visits))
        if self._ends_with(boundary, visits):
            # No turn follows, but where the model may call tools this one goes on, and within seconds.
            return learned._replace(within_1h=learned.within_5m) if self._loops else _NEVER
        return self._passed(learned) if self.expected.goes_on and boundary < max(self.subjects, default=-1) else learned

    @property
    def _loops(self) -> bool:
        return self.prompt.tools_end >= 0

    def _left(self, visits: int) -> int:
        """How many more visits of a context follow."""
        return (self.expected.times or 0) - 1 - visits

    def _ends_with(self, boundary: int, visits: int) -> bool:
        """Whether a boundary belongs to a conversation that ends, and to no other.

        Each answer behind it was given to a request that passed it; who was seen more often is shared with others.
        """
        blocks, block = self.prompt.blocks, self.prompt.boundaries[boundary].block
        if not self.expected.ends or blocks[block].where.section != "messages":
            return False
        answers = {each.where.message for each in blocks[block + 1 :] if each.role == "assistant"}
        passed = len(answers - {blocks[block].where.message})
        return visits <= passed or boundary == len(self.prompt.boundaries) - 1

    def _timed(self, outlook: Outlook) -> Outlook:
        """The outlook of what is back by the time that was said, or within the hour where none was."""
        back_in = self.expected.back_in
        if back_in is None:
            return outlook._replace(within_1h=max(outlook.within_1h, WITHIN_1H))
        return Outlook(outlook.visits, float(back_in <= TTL_SECONDS["5m"]), float(back_in <= TTL_SECONDS["1h"]))

    def _passed(self, learned: Outlook) -> Outlook:
        """The outlook of what others visit too: of its visits one comes by then, and the others as ever."""
        visits, sure = max(learned.visits, 1.0), _NEVER if self.expected.back_in is None else self._timed(_NEVER)
        soon = learned.within_5m + sure.within_5m * (1 - learned.within_5m) / visits
        later = learned.within_1h + sure.within_1h * (1 - learned.within_1h) / visits
        return Outlook(visits, soon, later)

    def _contexts(self) -> list[int]:
        """Where context ends: as the prompt says, else behind the system prompt and the largest block of the turn."""
        marked = [i for i, role in self.named.items() if role == "context_end"]
        if marked:
            return marked
        blocks, ends = self.prompt.blocks, self.prompt.ends
        system = [i for i, role in self.named.items() if role == "system_end"]
        turn = [i for i, block in enumerate(blocks) if block.where.message == self.prompt.last_user >= 0]
        if len(turn) > 1:
            return [*system, ends[max(turn[:-1], key=lambda i: blocks[i].tokens)]]
        end, size = (self.prompt.end(turn[0]).tokens, blocks[turn[0]].tokens) if turn else (0.0, 0.0)
        cuts = [i for i, each in enumerate(self.prompt.boundaries) if each.offset is not None and each.block in turn]
        return [*system, *[i for i in cuts if end - self.prompt.boundaries[i].tokens >= QUESTION_SHARE * size][-1:]]
