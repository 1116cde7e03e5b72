"""`BedrockEmulator`: Bedrock Runtime on a loopback port of this process."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, get_args

from cachepoint._forks import Lock
from cachepoint.catalogue.table import load_rules
from cachepoint.core.provider.cache_model import CacheModel, CacheSwitches
from cachepoint.core.provider.rules import Rules, Section
from cachepoint.emulator._bill import Bill, ServedCall
from cachepoint.emulator._calls import Calls
from cachepoint.emulator._clock import Clock, Latency
from cachepoint.emulator._http import is_host, is_loopback
from cachepoint.emulator._invocation_log import InvocationLog
from cachepoint.emulator._reading.request import Operation, Options
from cachepoint.emulator._service import Service
from cachepoint.emulator.faults import Fault
from cachepoint.emulator.replies import Question, Script, Scripted
from cachepoint.errors import EmulatorError, MissingDependencyError

if TYPE_CHECKING:
    from cachepoint.emulator._uvicorn_server import PromptServer

_START_SECONDS = 10.0
_LAST_PORT = 65_535
# Names no host, so that a request which escaped a local client would go nowhere (RFC 2606).
LOCAL_ENDPOINT = "http://emulator.invalid"


class BedrockEmulator:
    """A local Bedrock Runtime for real boto3: `endpoint_url=emulator.url`, or `emulator.client()`.

    A context manager; `start` and `stop` do the same by hand. Serves Converse, ConverseStream, InvokeModel and
    InvokeModelWithResponseStream (Anthropic Messages) and CountTokens. Needs the extra `emulator`.

    - `port`: 0 takes a free one. `host`: loopback only, else EmulatorError.
    - `hosts`: other names it may be called by, such as that of a tunnel to it; a request that names another host than
      loopback's is refused, for a web page may have made it.
    - `clock`: seconds since the epoch; what is given runs inside a `Clock`, which `advance` moves.
    - `replies`: makes every reply that `script` did not; see `replies.Question`.
    - `latency`: reported as `latencyMs`, slept only with `Latency(sleep=True)`.
    - `switches`: what public sources leave open about the cache; `options`: the same about the rest.
    - `profiles`: model ids behind application-profile and other opaque ARNs.
    - `rules`: the model table; by default the shipped one with the user's rows.
    - `log_folder`: writes model invocation logs there, in Bedrock's format; EmulatorError where it cannot.
    - `keep_text`: keep requests in `requests` and texts in the logs; by default no prompt text is kept.
    - `keep_calls`: how many of the last calls stay in `requests` and on the bill's lines; None keeps all, about
      a kilobyte each. The bill's total and usage count every call either way.
    """

    def __init__(
        self,
        port: int = 0,
        *,
        host: str = "127.0.0.1",
        hosts: Iterable[str] = (),
        clock: Callable[[], float] | None = None,
        replies: Callable[[Question], Any] | None = None,
        latency: Latency | None = None,
        switches: CacheSwitches | None = None,
        options: Options | None = None,
        profiles: Mapping[str, str] | None = None,
        rules: Rules | None = None,
        log_folder: str | PathLike[str] | None = None,
        keep_text: bool = False,
        keep_calls: int | None = None,
    ) -> None:
        self._address = (_loopback(host), _valid_port(port))
        self._hosts = _named(hosts)
        self.clock = clock if isinstance(clock, Clock) else Clock(time.time if clock is None else clock)
        self._service = Service(
            rules=rules or load_rules(),
            cache=CacheModel(switches or CacheSwitches()),
            clock=self.clock,
            latency=latency or Latency(),
            options=options or Options(),
            script=Script(_replier(replies)),
            profiles=_profiles(profiles),
            keep_text=keep_text,
            log=None if log_folder is None else _checked_log(Path(log_folder), with_text=keep_text),
            calls=Calls(keep_calls),
        )
        self._server: PromptServer | None = None
        self._thread: threading.Thread | None = None

    # -- life --------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Bind the port and serve from a thread of this process."""
        if self._thread is not None:
            raise EmulatorError("the emulator runs already; stop it first or make another")
        self._server = server = _uvicorn_server(self._service, self._hosts)
        listening = _listen(self._address)
        self._address = (self._address[0], listening.getsockname()[1])
        self._thread = threading.Thread(
            target=server.run, kwargs={"sockets": [listening]}, name="cachepoint-emulator", daemon=True
        )
        self._thread.start()
        deadline = time.monotonic() + _START_SECONDS
        while not server.started:
            if not self._thread.is_alive() or time.monotonic() > deadline:
                self.stop()
                raise EmulatorError(
                    f"the emulator did not start on {self.url} within {_START_SECONDS:g} seconds; try again"
                )
            time.sleep(0.002)
        return self

    def stop(self) -> None:
        """Stop serving and close the port; what was served stays readable."""
        if self._server is not None:
            self._server.leave()
        if self._thread is not None:
            self._thread.join()
        self._server = self._thread = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    # -- for callers -------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """What boto3 takes as `endpoint_url`."""
        host, port = self._address
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def client(self, *, region: str = "us-east-1", account: str = "EMULATOR", **settings: Any) -> Any:
        """A boto3 `bedrock-runtime` client of this emulator with made-up credentials.

        `account` is the access key, which stands for the account; `settings` go to `boto3.client`.
        """
        return self._boto3_client(region, account, self.url, settings)

    def local_client(self, *, region: str = "us-east-1", account: str = "EMULATOR", **settings: Any) -> Any:
        """A client like `client()` whose requests are answered in this process, without a socket.

        boto3's own in everything but the sending: the same answers, errors and streams in half the time. The
        emulator need not be started, nor its extra be installed. A stream is delivered as far as it is read.
        """
        from cachepoint.emulator._local_client import answer_locally

        client = self._boto3_client(region, account, LOCAL_ENDPOINT, settings)
        return answer_locally(client, self._service)

    def _boto3_client(self, region: str, account: str, url: str, settings: Mapping[str, Any]) -> Any:
        with _SESSION_LOCK.held:  # boto3 sessions are not thread-safe
            return _boto3_session().client(
                "bedrock-runtime",
                region_name=region,
                endpoint_url=url,
                aws_access_key_id=account,
                aws_secret_access_key="emulator",
                **settings,
            )

    @property
    def requests(self) -> list[ServedCall]:
        """What came in, in order: served, refused and failed; with `keep_calls`, the last ones."""
        return self._service.kept_calls()

    def bill(self) -> Bill:
        """What all served calls cost, from the model table's prices."""
        return self._service.bill()

    # -- for tests ---------------------------------------------------------------------------------

    def script(self, *replies: Scripted) -> None:
        """Answer the next calls with these, one each; EmulatorError where one of them is no reply."""
        with self._service.lock:
            self._service.script.add(replies)

    def fail_next(
        self, fault: Fault, times: int = 1, *, operation: Operation | None = None, model_id: str | None = None
    ) -> None:
        """Play a fault (see `cachepoint.emulator.faults`) on the next calls, of one operation or model if given."""
        with self._service.lock:
            self._service.faults.add(fault, times, operation, model_id)

    def evict(self) -> int:
        """Drop every cache entry, as the service may at any time; returns how many there were."""
        with self._service.lock:
            return self._service.cache.evict()

    def refuse_checkpoints(
        self, section: Section, model_id: str | None = None, message: str | None = None, *, denied: bool = False
    ) -> None:
        """Refuse checkpoints in a section from now on, with Nova's text unless a message is given.

        `denied`: with an AccessDeniedException in place of a ValidationException. Raises EmulatorError where
        there is no such section.
        """
        if section not in get_args(Section):
            raise EmulatorError(f"section is {section!r:.80}; use one of {', '.join(get_args(Section))}")
        if not isinstance(message, str | None):
            raise EmulatorError(f"the message of a refusal is {message!r:.80}; give text, or None for Nova's")
        with self._service.lock:
            self._service.refused[section, model_id] = (message, denied)

    def accept_checkpoints(self) -> None:
        """Take back every `refuse_checkpoints`."""
        with self._service.lock:
            self._service.refused.clear()


def serve(
    host: str = "127.0.0.1",
    port: int = 8765,
    *,
    announce: Callable[[str], None] = print,
    keep_calls: int | None = 1000,
    **settings: Any,
) -> Bill:
    """Run an emulator until interrupted or told to end (SIGTERM), then return its bill.

    `announce` gets the lines that connect a client of boto3, and a whole environment; `settings` are those of
    BedrockEmulator. The last thousand calls are kept one by one, so that a server that runs for weeks stays small.
    """
    with _ended_like_interrupted(), BedrockEmulator(port, host=host, keep_calls=keep_calls, **settings) as emulator:
        announce(
            f'boto3.client("bedrock-runtime", region_name="us-east-1", endpoint_url="{emulator.url}", '
            'aws_access_key_id="EMULATOR", aws_secret_access_key="emulator")'
        )
        announce(f"or, for any program: export AWS_ENDPOINT_URL_BEDROCK_RUNTIME={emulator.url}")
        announce("Ctrl-C stops it.")
        with suppress(KeyboardInterrupt):
            threading.Event().wait()
        return emulator.bill()


@contextmanager
def _ended_like_interrupted() -> Iterator[None]:
    """While this runs, SIGTERM interrupts as Ctrl-C does; signals are the main thread's."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _loopback(host: str) -> str:
    if not is_loopback(host):
        raise EmulatorError(f"host is {host!r}; the emulator listens on loopback only, use 127.0.0.1 or ::1")
    return "127.0.0.1" if host == "localhost" else host


def _valid_port(port: int) -> int:
    if not (type(port) is int and 0 <= port <= _LAST_PORT):
        raise EmulatorError(f"port is {port!r:.80}; give 0 to {_LAST_PORT}, where 0 takes a free one")
    return port


def _named(hosts: Iterable[str]) -> frozenset[str]:
    given: Any = hosts
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise EmulatorError(f"hosts is {given!r:.80}; give several names, such as ('tunnel.example',)")
    names = list(given)
    for name in names:
        if not is_host(name):
            raise EmulatorError(f"{name!r:.80} is no host; give its name, without scheme and port: tunnel.example")
    return frozenset(map(str.lower, names))


def _replier(replies: Callable[[Question], Any] | None) -> Callable[[Question], Any] | None:
    if replies is not None and not callable(replies):
        raise EmulatorError(f"replies is {replies!r:.80}; give a function of a Question, or call script() with replies")
    return replies


def _profiles(profiles: Mapping[str, str] | None) -> dict[str, str]:
    given: Any = {} if profiles is None else profiles
    if not isinstance(given, Mapping) or not all(isinstance(each, str) for pair in given.items() for each in pair):
        raise EmulatorError(f"profiles is {given!r:.80}; give a mapping from ARN to model id, both of them text")
    return dict(given)


def _checked_log(folder: Path, *, with_text: bool) -> InvocationLog:
    log = InvocationLog(folder, with_text=with_text)
    try:
        log.check()
    except OSError as problem:
        raise EmulatorError(
            f"the invocation log cannot be written in {str(folder)!r} ({problem.strerror}); name a folder that can be "
            "written in"
        ) from None
    return log


def _listen(address: tuple[str, int]) -> socket.socket:
    host, port = address
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named, asyncio switches Nagle's algorithm off; without, every answer waits 40 ms.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(address)
    except OSError as problem:
        listening.close()
        why = f"port {port} on {host} cannot be bound ({problem.strerror})"
        raise EmulatorError(f"{why}; use port=0, or --port 0 on the command line") from None
    return listening


def _uvicorn_server(service: Service, hosts: Collection[str]) -> PromptServer:
    try:
        from cachepoint.emulator._uvicorn_server import uvicorn_server
    except ModuleNotFoundError as problem:
        if problem.name != "uvicorn":
            raise
        raise MissingDependencyError("the emulator needs uvicorn; run: pip install 'cachepoint[emulator]'") from None
    return uvicorn_server(service, hosts)


_SESSION_LOCK = Lock(waited_for=False)


@cache
def _boto3_session() -> Any:
    # One for all clients: a session of its own reads the service's model anew for each.
    import boto3

    return boto3.Session()
