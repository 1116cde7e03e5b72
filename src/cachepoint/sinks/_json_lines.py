"""Where records go beside the ledger: JSON lines in a file, or on standard output."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import IO, Self

from cachepoint._forks import Lock
from cachepoint.core.accounts.record import CallRecord
from cachepoint.errors import ConfigurationError


class JsonLines:
    """Writes each call as one line of JSON: `CacheLedger(on_call=JsonLines("calls.jsonl"))`.

    `target` is a path, to which lines are appended, or an open text file; by default standard output,
    which is what a Lambda function keeps. A line is flushed at once, as a function may be frozen after
    its answer. Amounts are strings, in USD. Close a file that it opened with `close()` or as a context manager.
    Raises OSError when the file cannot be opened.
    """

    def __init__(self, target: str | os.PathLike[str] | IO[str] | None = None) -> None:
        self._lock = Lock()
        self._opened = isinstance(target, str | os.PathLike)
        self._file: IO[str] | None
        if isinstance(target, str | os.PathLike):
            self._file = Path(target).open("a", encoding="utf-8")  # noqa: SIM115 - as long as the sink
        elif target is None or callable(getattr(target, "write", None)):
            self._file = target
        else:
            raise ConfigurationError(f"JsonLines({target!r:.80}): give a path, or an open text file")

    def __call__(self, record: CallRecord) -> None:
        """Write a call."""
        line = json.dumps(record.to_dict(), ensure_ascii=False, separators=(",", ":")) + "\n"
        with self._lock.held:
            file = self._file or sys.stdout  # looked up now: Lambda and tests replace it
            file.write(line)
            file.flush()

    def close(self) -> None:
        """Close the file that the sink opened; others stay open."""
        if self._opened and self._file is not None:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
