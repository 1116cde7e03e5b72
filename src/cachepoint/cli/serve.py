"""`cachepoint serve`: the embedded Bedrock as a server, until interrupted."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from typing import TYPE_CHECKING

from cachepoint.errors import EmulatorError

if TYPE_CHECKING:
    from cachepoint.emulator import Bill

_PORT = 8765
_REQUESTS = 1000
_CANNOT_START = 2
"""The exit code of a server that cannot start as it was told to, which is argparse's own for wrong arguments."""


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "serve",
        help="run the embedded Bedrock as a server on this machine",
        description="Serves Bedrock Runtime's operations on the loopback interface until interrupted with Ctrl-C or "
        "ended with SIGTERM, then prints its bill.",
    )
    parser.add_argument("--port", type=int, default=_PORT, help="the port; 0 takes a free one (default %(default)s)")
    parser.add_argument(
        "--requests",
        type=int,
        default=_REQUESTS,
        metavar="N",
        help="how many of the last requests are kept one by one; the bill counts all (default %(default)s)",
    )
    parser.add_argument(
        "--log", metavar="FOLDER", help="write Bedrock's model invocation log there, without the texts of prompts"
    )
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="answer requests to this host too, such as that of a tunnel; may be given more than once",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Serve until interrupted, then print the bill; 2 where the server cannot start."""
    from cachepoint.emulator import serve

    announce = partial(print, flush=True)  # seen at once in a file or a pipe too
    if options.requests < 1:
        return _refused(f"--requests is {options.requests}; give 1 or more")
    if "" in options.allow_host:
        return _refused("--allow-host is ''; give the name of a host, such as tunnel.example")
    try:
        bill = serve(
            port=options.port,
            announce=announce,
            keep_calls=options.requests,
            log_folder=options.log,
            hosts=options.allow_host,
        )
    except EmulatorError as problem:
        return _refused(str(problem))
    announce(as_text(bill))
    return 0


def _refused(why: str) -> int:
    print(f"cachepoint: {why}", file=sys.stderr)
    return _CANNOT_START


def as_text(bill: Bill) -> str:
    """What was served, and its price, in a sentence."""
    calls, usage = len(bill.lines) + bill.earlier.calls, bill.usage
    return (
        f"Served {calls:,} call{'' if calls == 1 else 's'}: {usage.input:,} tokens of input, {usage.cache_read:,} read "
        f"from the cache, {usage.cache_write_5m:,} written for 5 minutes and {usage.cache_write_1h:,} for 1 hour, "
        f"{usage.output:,} of output; at list prices ${bill.total:.6f}."
    )
