"""How many tokens the service counts, where the user's policy has it asked in the path of a call.

It is a help and no need: some models, policies and endpoints do not have CountTokens. So it is waited for a little
while, and one that failed is not asked again for a while.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Mapping
from contextvars import copy_context
from queue import Empty, SimpleQueue
from typing import Any

from cachepoint.bedrock.bounded import Bounded
from cachepoint.bedrock.opaque_models import ASK_AGAIN_SECONDS
from cachepoint.bedrock.swallowed import forgive

GIVE_UP_SECONDS = 2.0
"""An answer takes a few tenths of a second. A call would not wait longer for it than a user notices."""
MODELS_KEPT = 1_000
"""More than there are; one forgotten is asked about once more."""

_failed: Bounded[str, float] = Bounded(MODELS_KEPT)
"""When CountTokens failed for a model."""


class Count:
    """The tokens of a request; None where the service does not tell them in time."""

    def __init__(self, client: Any, question: Mapping[str, Any]) -> None:
        self._client, self._question = client, question
        self._model = str(question["modelId"])

    @property
    def is_pointless(self) -> bool:
        """Whether the service has failed to count for this model a while ago."""
        failed = _failed.get(self._model)
        return failed is not None and time.monotonic() - failed < ASK_AGAIN_SECONDS

    def wait(self) -> int | None:
        """Block this thread, while another asks: the user's client may have time-outs of minutes."""
        answers: SimpleQueue[int | Exception] = SimpleQueue()
        asking = threading.Thread(
            target=copy_context().run, args=(self._ask, answers), name="cachepoint-count", daemon=True
        )
        try:
            asking.start()
            answer = answers.get(timeout=GIVE_UP_SECONDS)
        except (Empty, RuntimeError) as error:  # no thread can be had now
            answer = error
        if isinstance(answer, Exception):
            self._note(answer)
            return None
        return answer

    async def wait_async(self) -> int | None:
        """The same on the event loop."""
        try:
            counting = self._client.count_tokens(**self._question)
            return _tokens(await asyncio.wait_for(counting, GIVE_UP_SECONDS))
        except Exception as error:  # noqa: BLE001 - whatever it is, the call goes on by the estimate
            self._note(error)
            return None

    def _ask(self, answers: SimpleQueue[int | Exception]) -> None:
        try:
            answers.put(_tokens(self._client.count_tokens(**self._question)))
        except Exception as error:  # noqa: BLE001 - as above
            answers.put(error)

    def _note(self, error: Exception) -> None:
        forgive(error, "CountTokens")
        _failed[self._model] = time.monotonic()


def _tokens(answer: Mapping[str, Any]) -> int:
    return int(answer["inputTokens"])
