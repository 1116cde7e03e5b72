"""Where errors end that must not make a user's call fail.

Two kinds, told apart because the first is to be mended here and the second is not: a fault of cachepoint's own, after
which a call goes on as the user wrote it, and an error of what cachepoint asked for help: a sink, the control plane,
CountTokens.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from cachepoint.bedrock.warn import warn_once
from cachepoint.core.accounts.ledger import CacheLedger
from cachepoint.core.accounts.record import CallRecord

logger = logging.getLogger("cachepoint")

OnFault = Callable[[Exception, str], None]
"""Takes a fault and the name of the step it happened in."""


def swallow(fault: Exception, step: str) -> None:
    """Let a fault of cachepoint's own be; `step` names what failed. Warns, once for each kind of error."""
    _on_fault(fault, step)


def forgive(error: Exception, step: str, message: str | None = None) -> None:
    """Let an error of somebody else's be, which cachepoint can do without; `message` is warned of once, if given."""
    logger.debug("%s: %s", step, type(error).__name__)
    if message is not None:
        warn_once(f"{step}:{type(error).__name__}", message)


def deliver(ledger: CacheLedger, record: CallRecord) -> None:
    """Record a call; what the ledger's `on_call` raises is warned of once."""
    try:
        ledger.add(record)
    except Exception as error:  # noqa: BLE001 - on_call is the user's; the record is in the ledger all the same
        forgive(
            error,
            "sink",
            f"cachepoint: the ledger's on_call raised {type(error).__name__}; the call is in the ledger, but not where "
            "on_call keeps it",
        )


def report(fault: Exception, step: str) -> None:
    """Ask the user for a report, by a warning; without the error's text, which may have text of the prompt."""
    name = type(fault).__name__
    warn_once(
        f"internal:{name}",
        f"cachepoint failed inside ({name} in {step}) and left a call as it was written; please report it",
    )


_on_fault: OnFault = report
"""What becomes of a fault. The project's own tests put in its place what fails them."""
