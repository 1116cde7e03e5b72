"""Do the tests bite? Puts one small mistake after another into `cachepoint.core` and counts those the tests find.

`make mutants`, or `python benchmarks/mutants.py --seed 1 --count 200`. A mutant is one change of one place: a
comparison, an operator, a constant, a condition, a dropped statement, swapped arguments. It is killed when a test
fails or a run takes too long; one that cannot change any behaviour counts as a survivor all the same, so the share
is a lower bound. The sample is fixed by the seed and the source, property tests draw the same examples every time,
and the working tree is never touched: mutants are written into a copy.

A baseline run without a mutant notes which functions each test calls; a mutant is met by the tests that call its
function, those of its own room first, and one outside any function by all of them.
"""

from __future__ import annotations

import argparse
import ast
import json
import random
import sys
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mutants_lib.changes import Change, changes, literals
from mutants_lib.runs import TIMES_CPU, Chosen, Copy, Observed, Running, allowed, baseline, choose, ended, share, start

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "cachepoint"
CORE = "core"
SUITE = (
    "tests/core", "tests/planner", "tests/store", "tests/bedrock/test_misses.py", "tests/bedrock/test_legality.py",
    "tests/bedrock/test_converse_prompt.py",
)  # fmt: skip
"""The tests of core, and the stories told through the store and the client that core decides."""


@dataclass(frozen=True)
class Mutant:
    """A change of a module of core; `index` is its place among the module's changes."""

    module: str
    index: int
    change: Change

    @property
    def room(self) -> str:
        """The folder of core it is in, or the module that stands there alone."""
        return self.module.removeprefix(f"{CORE}/").split("/")[0].removesuffix(".py")

    def to_dict(self) -> dict[str, Any]:
        """Where it is and what it does, as plain JSON types."""
        change = self.change
        return {
            "module": self.module, "line": change.line, "kind": change.kind, "before": change.before,
            "after": change.after,
        }  # fmt: skip


class Source:
    """The modules of core, and every mutant of them."""

    def __init__(self) -> None:
        paths = sorted((PACKAGE / CORE).rglob("*.py"))
        self._texts = {path.relative_to(PACKAGE).as_posix(): path.read_text() for path in paths}
        self._words = literals(map(ast.parse, self._texts.values()))

    def mutants(self) -> list[Mutant]:
        """All mutants of all rooms, always in the same order."""
        return [
            Mutant(module, index, change)
            for module, text in self._texts.items()
            for index, change in enumerate(changes(ast.parse(text), self._words))
        ]

    def of(self, mutant: Mutant) -> str:
        """The source of a mutant's module with its change in it."""
        tree = ast.parse(self._texts[mutant.module])
        changes(tree, self._words)[mutant.index].make()
        return ast.unparse(ast.fix_missing_locations(tree))


def run_all(
    mutants: Sequence[Mutant], source: Source, tests: dict[str, Observed], copies: list[Copy]
) -> list[dict[str, Any]]:
    """Meet every mutant with its tests, as many at a time as there are copies."""
    results: list[dict[str, Any]] = [{**mutant.to_dict(), "room": mutant.room} for mutant in mutants]
    waiting: deque[tuple[int, list[list[str]]]] = deque()
    running: dict[int, Running] = {}
    for job, mutant in enumerate(mutants):
        line = mutant.change.function
        function = None if line is None else (mutant.module.removeprefix(f"{CORE}/"), line)
        waiting.append((job, choose(tests, mutant.room, function)))
    while waiting or running:
        while waiting and copies:
            job, parts = waiting.popleft()
            if not parts:
                results[job].setdefault("end", "no test calls it")
                continue
            copy, mutant = copies.pop(), mutants[job]
            copy.write(mutant.module, source.of(mutant))
            seconds = allowed(tests, parts[0])
            pid = start(copy.folder, ROOT, parts[0], Chosen(parts[0]), seconds=seconds)
            running[pid] = Running(job, copy, time.monotonic() + TIMES_CPU * seconds, parts[1:])
        if running:
            pid, run, code = ended(running)
            del running[pid]
            run.copy.restore(mutants[run.job].module)
            copies.append(run.copy)
            passed = code in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)
            results[run.job]["end"] = "out of time" if code is None else "passed" if passed else "failed"
            if passed:
                waiting.appendleft((run.job, run.rest))
            print(f"\r{len(mutants) - len(waiting) - len(running)}/{len(mutants)} ", end="", file=sys.stderr)
    print(file=sys.stderr)
    return results


def report(results: list[dict[str, Any]]) -> str:
    """A line for each room and kind, the sum, and the survivors."""
    lines = []
    for by in ("room", "kind"):
        shares = share([(each[by], each["killed"]) for each in results])
        lines += [
            f"{name:<12} {killed:>4} of {all_:>4}  {killed / all_:>6.1%}" for name, (killed, all_) in shares.items()
        ]
        lines.append("")
    killed = sum(each["killed"] for each in results)
    lines.append(f"{'all':<12} {killed:>4} of {len(results):>4}  {killed / len(results):>6.1%}")
    survivors = [each for each in results if not each["killed"]]
    lines += ["", "survivors:"] if survivors else []
    lines += [
        f"  src/cachepoint/{each['module']}:{each['line']}  {each['kind']}: {each['before']}  ->  {each['after']}"
        f"  ({each['end']})"
        for each in survivors
    ]
    return "\n".join(lines)


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=200, help="how many mutants; 0 for all there are")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rooms", nargs="+", metavar="ROOM", help="folders of core, or modules; all by default")
    parser.add_argument("--tests", nargs="+", default=SUITE, metavar="PATH", help="which tests may kill")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every mutant and its end there")
    return parser.parse_args()


def main() -> int:
    """Sample, run, report."""
    given = arguments()
    source, began = Source(), time.monotonic()
    able = [mutant for mutant in source.mutants() if not given.rooms or mutant.room in given.rooms]
    wanted = min(given.count or len(able), len(able))
    sample = sorted(random.Random(given.seed).sample(range(len(able)), wanted))
    with tempfile.TemporaryDirectory() as scratch:
        copies = [Copy(PACKAGE, Path(scratch) / str(number)) for number in range(given.workers)]
        core = f"{PACKAGE.name}/{CORE}"
        tests = baseline(copies[0].folder, ROOT, given.tests, core, Path(scratch) / "baseline.json")
        if tests is None:
            print("The tests fail without a mutant; run pytest first.", file=sys.stderr)
            return 1
        took = time.monotonic() - began
        results = run_all([able[index] for index in sample], source, tests, copies)
    for each in results:
        each["killed"] = each["end"] in ("failed", "out of time")
    print(f"{len(sample)} of {len(able)} mutants, seed {given.seed}, {len(tests)} tests", end=", ")
    print(f"{took:.0f} s for the baseline and {time.monotonic() - began - took:.0f} s for the mutants\n")
    print(report(results))
    if given.json:
        given.json.write_text(json.dumps({"seed": given.seed, "of": len(able), "mutants": results}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
