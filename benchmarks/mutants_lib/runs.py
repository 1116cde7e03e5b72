"""Runs of pytest in forked processes against a copy of the package, in which one module may be a mutant."""

from __future__ import annotations

import importlib
import json
import os
import resource
import shutil
import signal
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, Phase, settings

MEMORY = 4 * 2**30
"""Bytes of address space a run may take: a mutant that collects for ever fails instead of filling the machine."""
LEAST_SECONDS, TIMES_BASELINE = 20.0, 5.0
"""Seconds of CPU a run may take: so many at least, and so many times what its tests took in the baseline."""
BROKEN = 70
"""The exit code of a run that could not be started, which pytest has no use for."""
TIMES_CPU = 15.0
"""A run that waits instead of computing is over after so many times that on the clock: the machine may be busy."""

Function = tuple[str, int]
"""A function of the package: the path of its module and the line it starts at."""


class Observed(NamedTuple):
    """What the baseline saw of one test: the CPU it took in seconds, and which functions of core it called."""

    seconds: float
    functions: frozenset[Function]


class Recorder:
    """A pytest plugin that records of each test its time and the functions of `package` it called, in any thread."""

    def __init__(self, package: Path, report: Path) -> None:
        self._prefix, self._report = f"{package}{os.sep}", report
        self._called: set[tuple[str, int]] = set()
        self._tests: dict[str, dict[str, Any]] = {}

    def _trace(self, frame: FrameType, *_: object) -> None:
        code = frame.f_code
        if code.co_filename.startswith(self._prefix):
            self._called.add((code.co_filename, code.co_firstlineno))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Trace the calls of one test, its fixtures included."""
        self._called.clear()
        start = time.process_time()
        threading.settrace(self._trace)
        sys.settrace(self._trace)
        try:
            return (yield)
        finally:
            sys.settrace(None)
            called = sorted((path.removeprefix(self._prefix), line) for path, line in self._called)
            self._tests[item.nodeid] = {"seconds": time.process_time() - start, "functions": called}

    def pytest_unconfigure(self) -> None:
        """Write down what was seen, and what was imported for it."""
        modules = [name for name, module in sys.modules.items() if "-packages" in str(getattr(module, "__file__", ""))]
        self._report.write_text(json.dumps({"tests": self._tests, "modules": modules}))


class Chosen:
    """A pytest plugin that runs these tests only, in this order."""

    def __init__(self, tests: Sequence[str]) -> None:
        self._turn = {test: turn for turn, test in enumerate(tests)}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Drop the other tests, and sort."""
        items[:] = sorted((item for item in items if item.nodeid in self._turn), key=lambda i: self._turn[i.nodeid])


class Copy:
    """A copy of the package in a folder of its own, with one module at a time changed."""

    def __init__(self, package: Path, folder: Path) -> None:
        self.folder, self._package = folder, package
        shutil.copytree(package, folder / package.name, ignore=shutil.ignore_patterns("__pycache__"))
        self._made = 0

    def write(self, module: str, source: str) -> None:
        """Put a mutant in the place of a module. Its own time of change keeps Python from using older bytecode."""
        self._made += 1
        path = self.folder / self._package.name / module
        path.write_text(source)
        os.utime(path, (self._made, self._made))

    def restore(self, module: str) -> None:
        """Put the module back."""
        shutil.copy2(self._package / module, self.folder / self._package.name / module)


def start(copy: Path, root: Path, tests: Collection[str], *plugins: object, seconds: float | None = None) -> int:
    """Fork a process that runs tests and exits as pytest does, or is killed after `seconds` of CPU; returns its id."""
    pid = os.fork()
    if pid:
        return pid
    code = BROKEN
    try:
        os.setsid()
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        if seconds is not None:
            resource.setrlimit(resource.RLIMIT_CPU, (int(seconds), int(seconds) + 1))
        os.chdir(root)
        sys.path.insert(0, str(copy))
        os.environ["PYTHONPATH"] = str(copy)
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        # Whether a mutant is found must not hang on luck, nor on how small its counterexample can be made.
        settings.register_profile(
            "mutants", phases=[Phase.explicit, Phase.generate], derandomize=True, database=None, deadline=None,
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        files = list(dict.fromkeys(test.partition("::")[0] for test in tests))
        options = ["-x", "-q", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
        code = pytest.main([*options, "--hypothesis-profile", "mutants", *files], plugins=list(plugins))
    finally:
        os._exit(int(code))


def baseline(copy: Path, root: Path, suite: Sequence[str], core: str, report: Path) -> dict[str, Observed] | None:
    """Every test of the suite as it is without a mutant; None when one fails.

    What the tests import from elsewhere is imported here as well, so that later forks have it.
    """
    pid = start(copy, root, suite, Recorder(copy / core, report))
    if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
        return None
    seen = json.loads(report.read_text())
    for name in seen["modules"]:
        with suppress(Exception):
            importlib.import_module(name)
    return {
        test: Observed(run["seconds"], frozenset((path, line) for path, line in run["functions"]))
        for test, run in seen["tests"].items()
    }


def choose(tests: dict[str, Observed], room: str, function: Function | None) -> list[list[str]]:
    """The tests that call a function, all where it is None, the quick ones first: those of its own room, then the rest.

    Each of the two is a run of its own, so that a mutant that its room finds costs no import of what the rest takes.
    """
    able = [test for test, run in tests.items() if function is None or function in run.functions]
    own = {test for test in able if test.startswith((f"tests/core/{room}/", f"tests/core/test_{room}."))}
    parts = [own, set(able) - own]
    return [sorted(part, key=lambda test: (tests[test].seconds, test)) for part in parts if part]


def allowed(tests: dict[str, Observed], chosen: Sequence[str]) -> float:
    """The seconds of CPU that a run of these tests may take."""
    return max(LEAST_SECONDS, TIMES_BASELINE * sum(tests[test].seconds for test in chosen))


class Running(NamedTuple):
    """A run under way: whose it is, the copy it runs on, the time by which it must have ended, and what comes after."""

    job: int
    copy: Copy
    until: float
    rest: list[list[str]]


def ended(running: dict[int, Running]) -> tuple[int, Running, int | None]:
    """The next run to end: its process, itself, and pytest's exit code, None where it was out of time."""
    while True:
        for pid, run in running.items():
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                code = os.waitstatus_to_exitcode(status)
                if code == BROKEN:
                    raise RuntimeError("a run of the tests could not be started")
                return pid, run, None if code in (-signal.SIGXCPU, -signal.SIGKILL) else code
            if time.monotonic() > run.until:
                with suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                return pid, run, None
        time.sleep(0.02)


def share(killed: Sequence[tuple[str, bool]]) -> dict[str, tuple[int, int]]:
    """For each name, how many of it were killed and how many there were."""
    counts: defaultdict[str, list[bool]] = defaultdict(list)
    for name, was_killed in killed:
        counts[name].append(was_killed)
    return {name: (sum(each), len(each)) for name, each in sorted(counts.items())}
