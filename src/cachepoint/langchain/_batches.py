"""Many calls at once: a batch writes a shared cold prefix once, and async calls wait on the event loop."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, TypeVar

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.runnables.config import run_in_executor

from cachepoint.bedrock.client import Paused
from cachepoint.bedrock.fan_out import fan_out

_R = TypeVar("_R")


async def in_thread(run: Callable[[], _R]) -> _R:
    """What `run` returns in a worker thread; where a call has a leader to wait for, the wait is the loop's."""
    while True:
        try:
            return await run_in_executor(None, run)
        except Paused as paused:
            await paused.flight.wait_async()


class FanningOut(BaseChatModel):
    """A chat model whose batches open a `fan_out()` block of their own."""

    def batch(self, inputs: list[Any], *args: Any, **kwargs: Any) -> list[AIMessage]:
        """As the parent's; of calls on one cold prefix the first to arrive writes it and the others read."""
        with fan_out():
            return super().batch(inputs, *args, **kwargs)

    async def abatch(self, inputs: list[Any], *args: Any, **kwargs: Any) -> list[AIMessage]:
        """As `batch`; calls that wait do so on the event loop."""
        with fan_out():
            return await super().abatch(inputs, *args, **kwargs)

    def batch_as_completed(self, inputs: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
        """As `batch`, in the order of completion."""
        with fan_out():
            yield from super().batch_as_completed(inputs, *args, **kwargs)

    async def abatch_as_completed(self, inputs: Any, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        """As `abatch`, in the order of completion."""
        with fan_out():
            async for result in super().abatch_as_completed(inputs, *args, **kwargs):
                yield result
