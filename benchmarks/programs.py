"""What LangChain and LlamaIndex programs cost, as their documentation teaches them, in USD; see docs/benchmark.md.

Each runs through the real framework against the embedded emulator, on a virtual clock, in three forms: one short
session, one long, ten short ones. Beside its bill stand that without caching, that with checkpoints placed by hand
by someone who knows which text stands still, and that of the framework's own caching.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

from programs_lib.langchain_programs import PROGRAMS as LANGCHAIN
from programs_lib.llama_index_programs import PROGRAMS as LLAMA_INDEX
from programs_lib.measure import measure
from programs_lib.report import HEADER, line
from programs_lib.targets import QUICK, told

PROGRAMS = {program.name: program for program in (*LANGCHAIN, *LLAMA_INDEX)}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", default="", metavar="A,B", help=f"these alone, of {', '.join(PROGRAMS)}")
    parser.add_argument("--quick", action="store_true", help="those that have something to reach, short and long")
    parser.add_argument("--forms", default="short,long,ten", metavar="A,B", help="these alone, of short, long, ten")
    parser.add_argument("--seed", type=int, default=0, help="other questions, and so other passages")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there too")
    given = parser.parse_args(arguments)
    names = given.programs.split(",") if given.programs else list(QUICK if given.quick else PROGRAMS)
    forms = ("short", "long") if given.quick else given.forms.split(",")
    if unknown := [name for name in names if name not in PROGRAMS]:
        parser.error(f"no program is called {', '.join(unknown)}; there are {', '.join(PROGRAMS)}")
    rows = []
    began = time.monotonic()
    print(HEADER)
    for program in (PROGRAMS[name] for name in names):
        for form in program.forms:
            if form.name in forms:
                rows.append(measure(program, form, given.seed))
                print(line(rows[-1]), flush=True)
    print(*told(rows), sep="\n")
    print(f"{time.monotonic() - began:.0f} seconds")
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
