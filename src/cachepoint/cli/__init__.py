"""The command line: `cachepoint demo`, `serve` and `rules`.

Every command is a module with `add(subparsers)`, which also says what runs it; what a command
needs is imported when it runs, so that `cachepoint --help` is quick and needs no extra.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from cachepoint.cli import demo, rules, serve
from cachepoint.errors import CachepointError

_COMMANDS = (demo, serve, rules)


def parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    commands = argparse.ArgumentParser(
        prog="cachepoint", description="Prompt caching on Amazon Bedrock that works by itself."
    )
    subparsers = commands.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in _COMMANDS:
        command.add(subparsers)
    return commands


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 1 on a named error, 2 on wrong arguments, 130 when interrupted."""
    options = parser().parse_args(arguments)
    try:
        code: int = options.run(options)
    except CachepointError as problem:
        print(f"cachepoint: {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of a pipe, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code
