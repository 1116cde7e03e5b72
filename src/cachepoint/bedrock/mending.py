"""A framework's messages as the service takes them, mended before the wrapped client has them.

Both adapters build requests from histories that were trimmed, broken off and moved between models; a user of boto3
writes requests himself, and they are left as he wrote them.
"""

from __future__ import annotations

from cachepoint.bedrock.warn import warn_once
from cachepoint.bedrock.wire import documents, history
from cachepoint.bedrock.wire.history import Message
from cachepoint.core.provider.rules import Replay


def mended(messages: list[Message], base_model: str | None, replay: Replay) -> list[Message]:
    """The messages without what the service is known to refuse of turns and documents, themselves where it is nothing.

    Warns once of each kind of repair. Raises ConfigurationError for what no request can carry.
    """
    whole = history.mended(messages, replay)
    taken = documents.mended(whole.messages, base_model)
    for warning in (*whole.warnings, *taken.warnings):
        warn_once(*warning)
    return taken.messages
