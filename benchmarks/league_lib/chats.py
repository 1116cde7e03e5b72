"""Conversations: at four paces, with forks, compaction, trimming, tenants, code files and changing context."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial

from capture_lib.requests import Knobs, Message, Request, Workload, assistant, in_order, text, user

from league_lib.talk import HOUR, dialogue, exchange, human_gap, kept, new, rng_of


def paced(row: str, median: float, chats: int, turns: int, system_tokens: float, knobs: Knobs) -> Iterator[Request]:
    """Overlapping chats behind one system prompt; a person's gaps with this median."""
    rng = rng_of(knobs, row)
    found: list[Request] = []
    system = (text(kept(knobs, system_tokens, "shared system")),)
    for chat in range(knobs.many(chats)):
        at = rng.uniform(0, 2 * HOUR) * knobs.gaps
        for _, messages in dialogue(knobs, (row, chat), turns, asked=80, answered=250):
            found.append(Request(at, messages, system))
            at += human_gap(knobs, rng, median)
    return in_order(found)


def forks(knobs: Knobs) -> Iterator[Request]:
    """After a turn the answer may be asked for again, or an earlier question edited and the rest dropped."""
    rng = rng_of(knobs, "forks")
    found: list[Request] = []
    system = (text(kept(knobs, 2_000, "fork system")),)
    for chat in range(knobs.many(12)):
        at = rng.uniform(0, HOUR) * knobs.gaps
        history: list[Message] = []
        for turn in range(25):
            chance = rng.random()
            if history and chance < 0.2:
                history = history[:-2]
                question = found[-1].messages[-1]  # asked again as it was
            else:
                if len(history) > 4 and chance < 0.35:
                    history = history[: -2 * rng.randint(1, 3) or None]
                question = user(new(knobs, 80, "fork asks", chat, turn))
            found.append(Request(at, (*history, question), system))
            history = [*history, question, assistant(new(knobs, 300, "fork answers", chat, turn))]
            at += human_gap(knobs, rng, 45)
    return in_order(found)


def compaction(knobs: Knobs) -> Iterator[Request]:
    """A history above 9,000 tokens becomes a summary and its last two exchanges."""
    rng = rng_of(knobs, "compaction")
    found: list[Request] = []
    system = (text(kept(knobs, 2_500, "compaction system")),)
    for chat in range(knobs.many(6)):
        at = rng.uniform(0, HOUR) * knobs.gaps
        history: list[Message] = []
        for turn in range(50):
            question, answer = exchange(knobs, ("compaction", chat), turn, asked=100, answered=400)
            found.append(Request(at, (*history, question), system))
            history += [question, answer]
            if len(history) > 36:
                summary = new(knobs, 500, "summary", chat, turn)
                history = [user(f"Summary so far: {summary}"), assistant("Understood."), *history[-4:]]
            at += human_gap(knobs, rng, 30)
    return in_order(found)


def trimmed(knobs: Knobs) -> Iterator[Request]:
    """Only the last ten messages are sent, behind a system prompt of 1,500 tokens."""
    rng = rng_of(knobs, "trimmed")
    found: list[Request] = []
    system = (text(kept(knobs, 1_500, "trimming system")),)
    for chat in range(knobs.many(8)):
        at = rng.uniform(0, HOUR) * knobs.gaps
        for _, messages in dialogue(knobs, ("trimmed", chat), 30, asked=100, answered=300):
            found.append(Request(at, messages[-11:], system))
            at += human_gap(knobs, rng, 40)
    return in_order(found)


def tenant_chats(knobs: Knobs) -> Iterator[Request]:
    """Forty tenants with system prompts of their own and short chats."""
    rng = rng_of(knobs, "tenant-chats")
    found: list[Request] = []
    for tenant in range(knobs.many(40)):
        system = (text(kept(knobs, 4_000, "tenant", tenant)),)
        for chat in range(2):
            at = rng.uniform(0, 2 * HOUR) * knobs.gaps
            for _, messages in dialogue(knobs, ("tenant", tenant, chat), rng.randint(3, 8)):
                found.append(Request(at, messages, system))
                at += human_gap(knobs, rng, 60)
    return in_order(found)


def code_files(knobs: Knobs) -> Iterator[Request]:
    """Files in the first user message, edited in place between turns; the questions and answers come after them."""
    rng = rng_of(knobs, "code-files")
    found: list[Request] = []
    system = (text(kept(knobs, 2_000, "coder system")),)
    for session in range(knobs.many(8)):
        at = rng.uniform(0, HOUR) * knobs.gaps
        parts = [kept(knobs, 400, "code", session, number) + "\n\n" for number in range(15)]
        history: list[Message] = []
        for turn in range(20):
            question, answer = exchange(knobs, ("code", session), turn, asked=100, answered=250)
            opening = [user(text(*parts)), assistant("I have read the files.")]
            found.append(Request(at, (*opening, *history, question), system))
            history += [question, answer]
            if rng.random() < 0.6:  # the rest of the turns only talks
                # Work goes on where it went on before, mostly late in the files.
                place = min(int(rng.triangular(0, 15, 13)), 14)
                parts[place] = new(knobs, 400, "edit", session, turn) + "\n\n"
            at += human_gap(knobs, rng, 50)
    return in_order(found)


def condense(knobs: Knobs) -> Iterator[Request]:
    """Each turn condenses history and question in one prompt, then answers with documents in the system prompt."""
    rng = rng_of(knobs, "condense")
    found: list[Request] = []
    static = kept(knobs, 1_500, "answering system")
    for chat in range(knobs.many(10)):
        at = rng.uniform(0, HOUR) * knobs.gaps
        for turn, messages in dialogue(knobs, ("condense", chat), 12, asked=50, answered=200):
            if turn:
                lines = [f"{message.role}: {message.content[0].whole}\n" for message in messages]  # type: ignore[union-attr]
                head = kept(knobs, 150, "condensing instructions")
                found.append(Request(at, (user(text(head, "\n\n", *lines, "Standalone question:")),)))
            documents = new(knobs, 2_000, "condensed documents", chat, turn)
            found.append(Request(at + 3, messages, (text(static, "\n\nContext:\n", documents),)))
            at += human_gap(knobs, rng, 60)
    return in_order(found)


def few_shot(row: str, knobs: Knobs, *, in_one: bool) -> Iterator[Request]:
    """Five of twelve examples, picked and ordered anew for each input, behind static instructions."""
    rng, at = rng_of(knobs, row), 0.0
    instructions = kept(knobs, 2_000, "instructions")
    examples = [kept(knobs, 300, "example", number) for number in range(12)]
    for number in range(knobs.many(250)):
        picked = [f"\n\n{example}" for example in rng.sample(examples, 5)]
        system = (text(instructions, *picked),) if in_one else (text(instructions), text(*picked))
        yield Request(at, (user(new(knobs, 60, "input", number)),), system)
        at += rng.expovariate(1 / 15) * knobs.gaps


def diurnal(knobs: Knobs) -> Iterator[Request]:
    """One system prompt over two days: a request a minute at noon, one in forty minutes at night."""
    rng, at, number = rng_of(knobs, "diurnal"), 0.0, 0
    system = (text(kept(knobs, 6_000, "diurnal system")),)
    while number < knobs.many(500):
        yield Request(at, (user(new(knobs, 60, "diurnal", number)),), system)
        hour = at / knobs.gaps / HOUR % 24
        at += rng.expovariate(1 / (90 if 8 <= hour < 18 else 600 if 6 <= hour < 22 else 2_400)) * knobs.gaps
        number += 1


def steady(row: str, tokens: float, gap: float, count: int, knobs: Knobs) -> Iterator[Request]:
    """Lone questions behind one system prompt, at random times with this mean gap."""
    rng, at = rng_of(knobs, row), 0.0
    system = (text(kept(knobs, tokens, row, "system")),)
    for number in range(knobs.many(count)):
        yield Request(at, (user(new(knobs, 60, row, number)),), system)
        at += rng.expovariate(1 / gap) * knobs.gaps


def canary(knobs: Knobs) -> Iterator[Request]:
    """Two versions of a prompt that take turns by the hour; a request every two minutes."""
    versions = [kept(knobs, 5_000, "version", number) for number in range(2)]
    for number in range(knobs.many(360)):
        at = number * 120 * knobs.gaps
        yield Request(at, (user(new(knobs, 100, "canary", number)),), (text(versions[int(at // HOUR) % 2]),))


def a_or_b(knobs: Knobs) -> Iterator[Request]:
    """Two versions of a prompt, drawn for each request; a request every two minutes."""
    rng, at = rng_of(knobs, "a-or-b"), 0.0
    versions = [kept(knobs, 5_000, "variant", number) for number in range(2)]
    for number in range(knobs.many(300)):
        yield Request(at, (user(new(knobs, 100, "drawn", number)),), (text(rng.choice(versions)),))
        at += rng.expovariate(1 / 120) * knobs.gaps


def evaluation(row: str, knobs: Knobs, *, by_sample: bool) -> Iterator[Request]:
    """Forty prompts, fifteen samples of each: all prompts again and again, or prompt by prompt."""
    rng, at = rng_of(knobs, row), 0.0
    system = (text(kept(knobs, 1_500, "evaluated system")),)
    prompts = [kept(knobs, 2_000, "evaluated", number) for number in range(knobs.many(40))]
    order = [(sample, number) for sample in range(15) for number in range(len(prompts))]
    if not by_sample:
        order.sort(key=lambda each: each[1])
    for _, number in order:
        yield Request(at, (user(prompts[number]),), system)
        at += rng.uniform(2, 4) * knobs.gaps


def clock_last(knobs: Knobs) -> Iterator[Request]:
    """The time of day ends a system prompt of 4,000 tokens, in chats of 12 turns."""
    rng = rng_of(knobs, "clock-last")
    found: list[Request] = []
    static = kept(knobs, 4_000, "clock system")
    for chat in range(knobs.many(12)):
        at = rng.uniform(0, 2 * HOUR) * knobs.gaps
        for _, messages in dialogue(knobs, ("clock", chat), 12):
            stamp = f"\n\nCurrent time: 2026-11-{22 - knobs.day}T{int(at // 3600) + 8:02}:{int(at // 60) % 60:02}"
            found.append(Request(at, messages, (text(static, stamp),)))
            at += human_gap(knobs, rng, 60)
    return in_order(found)


def abandoned(knobs: Knobs) -> Iterator[Request]:
    """Most chats end after a question or two, a few go on for long."""
    rng = rng_of(knobs, "abandoned")
    found: list[Request] = []
    system = (text(kept(knobs, 2_000, "abandoned system")),)
    for chat in range(knobs.many(80)):
        at = rng.uniform(0, 3 * HOUR) * knobs.gaps
        turns = rng.randint(12, 20) if rng.random() < 0.12 else rng.randint(1, 2)
        for _, messages in dialogue(knobs, ("abandoned", chat), turns, asked=300, answered=300):
            found.append(Request(at, messages, system))
            at += human_gap(knobs, rng, 60)
    return in_order(found)


def document_chats(knobs: Knobs) -> Iterator[Request]:
    """A document of 15,000 tokens in the first message, then a few questions on it."""
    rng = rng_of(knobs, "document-chats")
    found: list[Request] = []
    system = (text(kept(knobs, 300, "document chat system")),)
    for chat in range(knobs.many(25)):
        at = rng.uniform(0, 3 * HOUR) * knobs.gaps
        document = new(knobs, 15_000, "talked of", chat)
        for _, messages in dialogue(knobs, ("document", chat), rng.choice((1, 1, 2, 3, 5, 8))):
            first = Message("user", (text(document), *messages[0].content))
            found.append(Request(at, (first, *messages[1:]), system))
            at += human_gap(knobs, rng, 90)
    return in_order(found)


def releases(knobs: Knobs) -> Iterator[Request]:
    """A new version of the system prompt every three hours, the old one never again; a question in 3 minutes."""
    rng, at = rng_of(knobs, "releases"), 0.0
    for number in range(knobs.many(300)):
        version = int(at / knobs.gaps // (3 * HOUR))
        system = (text(new(knobs, 5_000, "release", version)),)
        yield Request(at, (user(new(knobs, 80, "released", number)),), system)
        at += rng.expovariate(1 / 180) * knobs.gaps


def user_first(knobs: Knobs) -> Iterator[Request]:
    """A text on the user opens the system string, before 3,000 tokens that are the same for everyone."""
    rng = rng_of(knobs, "user-first")
    found: list[Request] = []
    static = kept(knobs, 3_000, "after the user")
    for person in range(knobs.many(40)):
        system = (text(new(knobs, 60, "person", person), "\n\n", static),)
        at = rng.uniform(0, 2 * HOUR) * knobs.gaps
        for _, messages in dialogue(knobs, ("person", person), rng.randint(1, 10)):
            found.append(Request(at, messages, system))
            at += human_gap(knobs, rng, 50)
    return in_order(found)


def resumed(knobs: Knobs) -> Iterator[Request]:
    """Chats in sittings of three or four turns, with half an hour to five hours between sittings."""
    rng = rng_of(knobs, "resumed")
    found: list[Request] = []
    system = (text(kept(knobs, 1_500, "resumed system")),)
    for chat in range(knobs.many(12)):
        at = rng.uniform(0, 4 * HOUR) * knobs.gaps
        left = rng.randint(3, 4)
        for _, messages in dialogue(knobs, ("resumed", chat), 20, asked=100, answered=300):
            found.append(Request(at, messages, system))
            left -= 1
            at += human_gap(knobs, rng, 50) if left else rng.uniform(0.5, 5) * HOUR * knobs.gaps
            left = left or rng.randint(3, 4)
    return in_order(found)


def mixed(knobs: Knobs) -> Iterator[Request]:
    """Chats, lone questions and single prompts in one process, none knowing of the others."""
    found = [
        *paced("mixed chats", 60, 8, 15, 3_000, knobs),
        *steady("mixed questions", 5_000, 90, 80, knobs),
        *_singles(knobs, rng_of(knobs, "mixed singles")),
    ]
    return in_order(found)


def _singles(knobs: Knobs, rng: random.Random) -> Iterator[Request]:
    for number in range(knobs.many(80)):
        yield Request(rng.uniform(0, 2 * HOUR) * knobs.gaps, (user(new(knobs, 2_500, "single", number)),))


def _paced(median: int, chats: int = 15, turns: int = 20, tokens: int = 6_000) -> Workload:
    name = f"chats-{median}s"
    return Workload(
        name, f"chats of {turns} turns, {tokens // 1000}k shared, a median of {median} s apart",
        partial(paced, name, median, chats, turns, tokens), 250,
    )  # fmt: skip


ROWS: tuple[Workload, ...] = (
    *(_paced(median) for median in (20, 55, 120, 200)),
    Workload(
        "chats-short",
        "60 chats of 1 to 3 turns behind 1,500 tokens",
        partial(paced, "chats-short", 45, 60, 2, 1_500),
        250,
    ),
    Workload("forks", "chats with edits and regenerations", forks, 300),
    Workload("compaction", "long chats, summarised above 9,000 tokens", compaction, 400),
    Workload("trimmed", "chats of which only the last ten messages are sent", trimmed, 300),
    Workload("tenant-chats", "40 tenants, each its own system prompt and two chats", tenant_chats, 200),
    Workload("code-files", "files in the first message, edited between turns", code_files, 250),
    Workload("condense", "a condensing call before each answer", condense, 200),
    Workload(
        "few-shot-string",
        "examples drawn anew for each input, in one string",
        partial(few_shot, "few-shot-string", in_one=True),
    ),
    Workload(
        "few-shot-blocks",
        "examples drawn anew for each input, in a block",
        partial(few_shot, "few-shot-blocks", in_one=False),
    ),
    Workload("diurnal", "two days of one prompt, busy at noon and quiet at night", diurnal),
    Workload("classify-10s", "lone questions behind 3k, 10 s apart", partial(steady, "classify-10s", 3_000, 10, 300)),
    Workload(
        "classify-4min", "lone questions behind 8k, 4 minutes apart", partial(steady, "classify-4min", 8_000, 240, 200)
    ),
    Workload(
        "classify-15min",
        "lone questions behind 8k, 15 minutes apart",
        partial(steady, "classify-15min", 8_000, 900, 150),
    ),
    Workload("canary", "two prompt versions that take turns by the hour", canary),
    Workload("a-or-b", "two prompt versions drawn at random", a_or_b),
    Workload(
        "eval-samples",
        "40 prompts × 15 samples, all prompts again and again",
        partial(evaluation, "eval-samples", by_sample=True),
    ),
    Workload(
        "eval-prompts",
        "40 prompts × 15 samples, prompt by prompt",
        partial(evaluation, "eval-prompts", by_sample=False),
    ),
    Workload("clock-last", "the time of day at the end of the system string", clock_last, 200),
    Workload("abandoned", "chats that mostly end after a question or two", abandoned, 300),
    Workload("document-chats", "15k of document in the first message, 1 to 8 questions", document_chats, 200),
    Workload("releases", "a new system prompt every three hours", releases),
    Workload("user-first", "a text on the user before the static text of the system string", user_first, 200),
    Workload("resumed", "chats in sittings, hours apart", resumed, 300),
    Workload("mixed", "chats, lone questions and single prompts together", mixed, 250),
)
