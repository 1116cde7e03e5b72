"""Where a contender plays: an emulated Bedrock on a virtual clock, over HTTP or, for speed, in this process."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

from botocore.config import Config

from cachepoint.catalogue.table import RULES_VARIABLE, load_rules, model_prices, rates_of
from cachepoint.core.provider.prices import Rates
from cachepoint.emulator import BedrockEmulator, Clock, Latency, Options, ServedCall
from cachepoint.emulator._reading.converse import render
from cachepoint.emulator._reading.positions import RenderedPrompt
from cachepoint.emulator._reading.request import Call, Target
from cachepoint.emulator._reading.traits import traits_of
from capture_lib.prose import prose
from capture_lib.requests import Request, Workload, converse

MODEL = "global.anthropic.claude-sonnet-4-5-20250929-v1:0"
REGION = "us-east-1"
START = 1_780_000_000.0
DAY = 86_400.0
RESPONSE_BEGINS_AFTER = 1.5
"""Real seconds until a response begins where requests are sent at once, so that all are under way by then."""


def rates() -> Rates:
    """Prices of the model relative to its uncached input."""
    return rates_of(MODEL)


def output_rate() -> float:
    """The price of an output token relative to an uncached input token."""
    prices = model_prices(MODEL)
    assert prices is not None
    return float(prices.standard.output / prices.standard.input)


def rendered(request: Request, *, in_pieces: bool = False) -> RenderedPrompt:
    """The prompt as the emulator counts it."""
    rule = load_rules().resolve(MODEL)
    assert rule is not None
    target = Target("Converse", MODEL, "", REGION)
    return render(Call(target, converse(request, in_pieces=in_pieces), rule, traits_of(MODEL, rule), Options()))


@contextmanager
def minimum_of(tokens: int | None) -> Iterator[None]:
    """The model has this minimum, for the emulator and for cachepoint alike, through the user's table of rules."""
    if tokens is None:
        yield
        return
    prices = model_prices(MODEL)
    assert prices is not None
    given = {name: float(price) for name, price in asdict(prices.standard).items()}
    row = (
        f"[[model]]\nname = 'scaled'\npattern = 'anthropic.claude-sonnet-4-5'\nprovider = 'anthropic'\n"
        f"minimum = {tokens}\nttls = ['5m', '1h']\nsections = ['tools', 'system', 'messages']\ntokenizer = 'claude'\n"
        f"prices.global = {{ {', '.join(f'{name} = {price}' for name, price in given.items())} }}\n"
    )
    with TemporaryDirectory() as folder:
        path = Path(folder) / "rules.toml"
        path.write_text(row, encoding="utf-8")
        before = os.environ.get(RULES_VARIABLE)
        os.environ[RULES_VARIABLE] = str(path)
        try:
            yield
        finally:
            os.environ.pop(RULES_VARIABLE)
            if before is not None:
                os.environ[RULES_VARIABLE] = before


class Stage(Protocol):
    """What a contender gets: a client of its own for every process it plays, and the time."""

    @property
    def clock(self) -> Clock: ...
    @property
    def url(self) -> str: ...
    @property
    def arns(self) -> Sequence[str]:
        """The application inference profiles that exist."""

    def client(self, region: str = REGION) -> Any: ...
    def served(self) -> Sequence[ServedCall]: ...
    def wait_until(self, at: float) -> None: ...


Send = Callable[[Request], object]


class Contender(Protocol):
    """`open` plays a process that starts: what it returns sends one request.

    `over_http`: it needs real sockets. `concurrent` is entered around requests that are sent at once.
    `planning` fills with the CPU seconds of each call that are not the client's, where they can be told.
    """

    @property
    def name(self) -> str: ...
    @property
    def over_http(self) -> bool: ...
    @property
    def planning(self) -> list[float]: ...

    def open(self, stage: Stage) -> Send: ...
    def concurrent(self) -> AbstractContextManager[object]: ...


@dataclass(frozen=True)
class _Staged:
    clock: Clock
    start: float
    arns: Sequence[str]

    def wait_until(self, at: float) -> None:
        """Move the clock to so many seconds from the start; requests never go back in time."""
        self.clock.advance(max(self.start + at - self.clock(), 0.0))


@dataclass(frozen=True)
class EmulatedStage(_Staged):
    """An emulator behind real sockets, or for speed without: the same figures either way."""

    emulator: BedrockEmulator
    over_http: bool

    @property
    def url(self) -> str:
        return self.emulator.url

    def client(self, region: str = REGION) -> Any:
        if self.over_http:
            return self.emulator.client(region=region, config=Config(max_pool_connections=64))
        return self.emulator.local_client(region=region)

    def served(self) -> Sequence[ServedCall]:
        return self.emulator.requests


@contextmanager
def http_stage(workload: Workload, *, slow: bool = False, start: float = START) -> Iterator[Stage]:
    """Real HTTP; `slow` makes responses begin after a while, so that requests sent at once overlap."""
    with _emulator(workload, start, slow=slow) as emulator:
        yield EmulatedStage(emulator.clock, start, workload.arns, emulator, over_http=True)


@contextmanager
def direct_stage(workload: Workload, *, slow: bool = False, start: float = START) -> Iterator[Stage]:
    """The same without HTTP."""
    emulator = _emulator(workload, start, slow=slow)
    yield EmulatedStage(emulator.clock, start, workload.arns, emulator, over_http=False)


def _emulator(workload: Workload, start: float, *, slow: bool) -> BedrockEmulator:
    answer = prose(workload.answer_tokens, "answer")
    return BedrockEmulator(
        clock=Clock(lambda: start),
        replies=lambda _: answer,
        latency=_latency(slow=slow),
        profiles=dict.fromkeys(workload.arns, MODEL),
    )


StageMaker = Callable[..., AbstractContextManager[Stage]]


def _latency(*, slow: bool) -> Latency:
    return Latency(fixed=RESPONSE_BEGINS_AFTER, uncached_token=0, cached_token=0, output_token=0, sleep=slow)


@dataclass
class Stopwatch:
    """A client in passing: how long the calls underneath took, so that what is above can be told apart."""

    client: Any
    seconds: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def converse(self, **request: Any) -> Any:
        started = time.thread_time()
        try:
            return self.client.converse(**request)
        finally:
            with self._lock:
                self.seconds += time.thread_time() - started

    def __getattr__(self, name: str) -> Any:
        if name == "client":
            raise AttributeError(name)
        return getattr(self.client, name)
