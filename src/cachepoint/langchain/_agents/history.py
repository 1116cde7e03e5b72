"""A conversation shortened in chunks: what is left of it begins the same from one request to the next.

LangChain's own edits look at the newest messages and so change the oldest on every call once a limit is passed, and
nothing behind the change is read. These depend on all messages there ever were; give them the whole history each time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.messages.utils import count_tokens_approximately

from cachepoint.core.retrieval.trimming import cleared_in_chunks, start_in_chunks
from cachepoint.errors import ConfigurationError

CLEARED = "[cleared]"
KEEP = 0.5

Count = Callable[[BaseMessage], int]
"""Tokens of a message; the same message must always count the same."""


def estimated_tokens(message: BaseMessage) -> int:
    """LangChain's estimate, by characters."""
    return count_tokens_approximately([message])


def trim_in_chunks(
    messages: Sequence[BaseMessage], limit: int, *, keep: float = KEEP, count: Count = estimated_tokens
) -> list[BaseMessage]:
    """The messages without the oldest, dropped down to a share `keep` of `limit` tokens whenever they exceed it.

    Tool results go with their calls. Leading system messages stay and do not count; so does the question that the
    first remaining answer belongs to.
    """
    start = start_of_chunk(messages, limit, keep=keep, count=count)
    leading, _ = _steps(messages)
    return [*leading, *with_question(messages, start)] if start else list(messages)


def clear_in_chunks(
    messages: Sequence[BaseMessage],
    limit: int,
    *,
    keep: float = KEEP,
    keep_steps: int = 1,
    exclude: Collection[str] = (),
    placeholder: str = CLEARED,
    count: Count = estimated_tokens,
) -> list[BaseMessage]:
    """The messages with the oldest tool results cleared, down to a share `keep` of `limit` tokens when they exceed it.

    Results of the last `keep_steps` answers stay, at least those the model has not seen yet, and those of the tools
    named in `exclude`. Calls stay, and a cleared result says so by `placeholder`. Nothing is cleared while that would
    free little: the limit is passed then.
    """
    leading, steps = _steps(messages)

    def cleared(message: BaseMessage) -> BaseMessage:
        if not isinstance(message, ToolMessage) or message.name in exclude:
            return message
        # LangChain's own mark of a cleared result, which its middleware then leaves alone.
        metadata = {**message.response_metadata, "context_editing": {"cleared": True, "strategy": "clear_in_chunks"}}
        return message.model_copy(update={"content": placeholder, "artifact": None, "response_metadata": metadata})

    sizes = _sizes(steps, count)
    shorter = _sizes([[cleared(message) for message in step] for step in steps], count)
    freed = [max(size - less, 0) for size, less in zip(sizes, shorter, strict=True)]
    end = cleared_in_chunks(sizes, freed, limit, _kept(limit, keep), max(keep_steps, 1))
    return [
        *leading,
        *(cleared(message) for step in steps[:end] for message in step),
        *(message for step in steps[end:] for message in step),
    ]


def start_of_chunk(
    messages: Sequence[BaseMessage], limit: int, *, keep: float = KEEP, count: Count = estimated_tokens
) -> int:
    """The index of the first message that `trim_in_chunks` keeps; 0 where it keeps all."""
    leading, steps = _steps(messages)
    start = start_in_chunks(_sizes(steps, count), limit, _kept(limit, keep))
    return len(leading) + sum(map(len, steps[:start])) if start else 0


def with_question(messages: Sequence[BaseMessage], start: int) -> list[BaseMessage]:
    """The messages from an index on, after the question that the first answer among them belongs to."""
    if start and isinstance(messages[start], AIMessage):
        asked = next((each for each in reversed(messages[:start]) if isinstance(each, HumanMessage)), None)
        return [*([asked] if asked else []), *messages[start:]]
    return list(messages[start:])


def _steps(messages: Sequence[BaseMessage]) -> tuple[list[BaseMessage], list[list[BaseMessage]]]:
    """The leading system messages, and the rest in steps: a question, or an answer with its tools' results."""
    leading = next((i for i, each in enumerate(messages) if not isinstance(each, SystemMessage)), len(messages))
    steps: list[list[BaseMessage]] = []
    for message in messages[leading:]:
        if not steps or isinstance(message, HumanMessage | AIMessage):
            steps.append([])
        steps[-1].append(message)
    return list(messages[:leading]), steps


def _sizes(steps: Iterable[Iterable[BaseMessage]], count: Count) -> list[int]:
    return [sum(map(count, step)) for step in steps]


def _kept(limit: int, keep: float) -> int:
    if limit < 1 or not 0 < keep < 1:
        raise ConfigurationError(f"limit={limit!r}, keep={keep!r}: give a limit of 1 token or more and a share of it")
    return int(limit * keep)
