"""`cachepoint serve`: the embedded Bedrock as a server, until interrupted."""

from __future__ import annotations

import argparse
from functools import partial

_PORT = 8765


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "serve",
        help="run the embedded Bedrock as a server on this machine",
        description="Serves Bedrock Runtime's operations on the loopback interface until interrupted with Ctrl-C.",
    )
    parser.add_argument("--port", type=int, default=_PORT, help="the port; 0 takes a free one (default %(default)s)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Serve until interrupted."""
    from cachepoint.emulator import serve

    serve(port=options.port, announce=partial(print, flush=True))  # seen at once in a file or a pipe too
    return 0
