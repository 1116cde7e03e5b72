"""ChatMessages as a Converse conversation.

- System messages before the first turn are `system` blocks, each text block one of its own: joined, they would leave
  nowhere to put a checkpoint between a static part and a volatile one.
- A system message later on never moves to the front, which would change the prefix of everything after it. It keeps
  its role and its place for the wrapped client, which knows whether the service takes it; where that changes nothing
  of requests it becomes user text between `<system>` tags.
- Turns of one role that follow each other become one, as Converse wants roles to alternate.
- A checkpoint inside a tool's result goes right behind the result: Converse takes none inside.
- Tool calls that another LLM class left in `additional_kwargs`, not in blocks, are replayed where their shape is known.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Literal

from llama_index.core.base.llms.types import ChatMessage, ContentBlock, MessageRole, ToolCallBlock
from llama_index.core.bridge.pydantic import BaseModel

from cachepoint.bedrock.expectations import PARAMETER, said_by
from cachepoint.bedrock.mending import mended
from cachepoint.bedrock.warn import warn
from cachepoint.bedrock.wire.cache_point import is_cache_point
from cachepoint.bedrock.wire.history import in_words
from cachepoint.bedrock.wire.system_turns import labelled
from cachepoint.core.planning.expectation import Expectation
from cachepoint.core.prompt.prompt import Hint, Where
from cachepoint.core.provider.rules import Replay
from cachepoint.errors import ConfigurationError
from cachepoint.llama_index._documents.templates import ContextBlock, VolatileBlock
from cachepoint.llama_index._request.blocks import BlockTranslator, ConversePart, cache_mark

Role = Literal["system", "user", "assistant", "tool"]

_ROLES: Mapping[MessageRole, Role] = {
    MessageRole.SYSTEM: "system",
    MessageRole.DEVELOPER: "system",
    MessageRole.USER: "user",
    MessageRole.ASSISTANT: "assistant",
    MessageRole.CHATBOT: "assistant",
    MessageRole.MODEL: "assistant",
    MessageRole.TOOL: "tool",
    MessageRole.FUNCTION: "tool",
}
# As Bedrock, OpenAI, Anthropic and LlamaIndex's ToolSelection and ToolCallBlock call them; OpenAI's chat API puts name
# and arguments one level down, into `function`.
_CALL_IDS = ("toolUseId", "tool_call_id", "tool_id", "call_id", "id")
_CALL_NAMES = ("name", "tool_name")
_CALL_ARGUMENTS = ("input", "arguments", "tool_kwargs")
_NO_OUTPUT = "(no output)"
"""In place of a tool's result that says nothing; reports disagree on whether Bedrock takes blank text there."""


@dataclass(frozen=True, slots=True)
class Recipient:
    """What of the model a chat goes to says how it is translated.

    `base_model` is its id without ARN and geography, None where nobody can tell. `system_role` says that it takes
    `role: "system"` in mid-conversation, `replay` what it takes back of earlier reasoning, `calls_tools` that it takes
    calls and results of tools.
    """

    base_model: str | None = None
    system_role: bool = False
    replay: Replay = "signed"
    calls_tools: bool = True

    @property
    def provider(self) -> str:
        """Who made the model; "" where nobody can tell."""
        return (self.base_model or "").partition(".")[0]


@dataclass(frozen=True, slots=True)
class Conversation:
    """The `system` and `messages` of a Converse request, and what is known of their blocks."""

    system: list[ConversePart] = field(default_factory=list)
    messages: list[ConversePart] = field(default_factory=list)
    hints: dict[Where, Hint] = field(default_factory=dict)

    def tool_names(self) -> list[str]:
        """The tools called in the conversation, each once, in the order of their first call."""
        calls = (block["toolUse"]["name"] for turn in self.messages for block in turn["content"] if "toolUse" in block)
        return list(dict.fromkeys(calls))


def to_conversation(messages: Sequence[ChatMessage], recipient: Recipient) -> Conversation:
    """Translate a chat for a model; raises ConfigurationError for what Converse has no place for."""
    system: list[ConversePart] = []
    turns: list[ConversePart] = []
    hinted: list[tuple[ConversePart, Hint]] = []
    blocks = BlockTranslator(recipient.provider)
    for message in messages:
        role = _ROLES[message.role]
        calls = _calls_beside_blocks(message) if role == "assistant" else ()
        by_block = [blocks.translate(block) for block in (*message.blocks, *calls)]
        parts = list(chain.from_iterable(by_block))
        content = list(_marked(_tool_result(message, parts) if role == "tool" else parts, message))
        if role == "system" and not turns:
            system.extend(content)
            continue
        if role == "system" and not recipient.system_role:
            content = [labelled(block) for block in content]
        seated = role == "system" and recipient.system_role
        _append(turns, "system" if seated else "assistant" if role == "assistant" else "user", content)
        if role != "tool":  # whose blocks went into a result
            hinted += [(content[item], hint) for item, hint in _hints(message.blocks, by_block)]
    if not recipient.calls_tools:
        turns = in_words(turns)
    turns = mended(turns, recipient.base_model, recipient.replay)
    for number, turn in enumerate(turns):
        _check_documents(number, turn["content"])
    return Conversation(system, turns, _placed(turns, hinted))


def _placed(turns: Sequence[ConversePart], hinted: Iterable[tuple[ConversePart, Hint]]) -> dict[Where, Hint]:
    """Hints by where their blocks stand now."""
    known = {id(block): hint for block, hint in hinted}
    return {
        Where("messages", number, item): known[id(block)]
        for number, turn in enumerate(turns)
        for item, block in enumerate(turn["content"])
        if id(block) in known
    }


def _hints(blocks: Sequence[ContentBlock], by_block: Sequence[Sequence[ConversePart]]) -> Iterator[tuple[int, Hint]]:
    """What is known of the blocks that a message's blocks became, by their index."""
    context_end: int | None = None
    at = 0
    for block, parts in zip(blocks, by_block, strict=False):  # behind those of blocks stand those of other calls
        if parts and isinstance(block, ContextBlock):
            context_end = at
        elif parts and isinstance(block, VolatileBlock):
            yield at, "volatile"
        at += len(parts)
    if context_end is not None:
        yield context_end, "context_end"


def as_chat(prompt: str) -> list[ChatMessage]:
    """A prompt as the chat that `complete` sends."""
    return [ChatMessage(role=MessageRole.USER, content=prompt)]


def with_system_prompt(messages: Sequence[ChatMessage], system_prompt: str | None) -> list[ChatMessage]:
    """The messages behind the LLM's own system prompt, unless it is already among the system messages in front.

    Some paths of LlamaIndex add it and some do not (the asynchronous structured prediction); with this, all share
    one prefix.
    """
    if not system_prompt:
        return list(messages)
    for message in messages:
        if _ROLES[message.role] != "system":
            break
        if message.content == system_prompt:
            return list(messages)
    return [ChatMessage(role=MessageRole.SYSTEM, content=system_prompt), *messages]


def said_on_messages(messages: Sequence[ChatMessage]) -> Expectation:
    """What marks say of requests to come, which are `additional_kwargs["prompt_cache_expect"]`.

    Those of system messages and of this turn count; what was said with an earlier turn was said of that.
    """
    begin = max((i for i, message in enumerate(messages) if _is_answer(message)), default=-1)
    marked = (m for i, m in enumerate(messages) if i > begin or _ROLES[m.role] == "system")
    return said_by(message.additional_kwargs.get(PARAMETER) for message in marked)


def _is_answer(message: ChatMessage) -> bool:
    calls = message.additional_kwargs.get("tool_calls")
    called = calls or any(isinstance(block, ToolCallBlock) for block in message.blocks)
    return _ROLES[message.role] == "assistant" and not called


def _calls_beside_blocks(message: ChatMessage) -> Iterator[ToolCallBlock]:
    """The tool calls in a message's `additional_kwargs["tool_calls"]` that are not among its blocks.

    A string there is the id of a call among the blocks, as in a streamed message.
    """
    known = {block.tool_call_id for block in message.blocks if isinstance(block, ToolCallBlock)}
    for given in message.additional_kwargs.get("tool_calls") or ():
        if isinstance(given, str):
            continue
        call = _call(given.model_dump() if isinstance(given, BaseModel) else given)
        if call is None:
            warn(
                f'a {type(given).__name__} in additional_kwargs["tool_calls"] was left out of the request, for it has '
                "no id and name of a tool call; make it a ToolCallBlock in the message's blocks"
            )
        elif call.tool_call_id not in known:
            yield call


def _call(given: Any) -> ToolCallBlock | None:
    if not isinstance(given, Mapping):
        return None
    function = given.get("function")
    known = {**given, **function} if isinstance(function, Mapping) else given
    call, name, arguments = (
        next((known[key] for key in keys if known.get(key)), None) for keys in (_CALL_IDS, _CALL_NAMES, _CALL_ARGUMENTS)
    )
    if not isinstance(call, str) or not isinstance(name, str):
        return None
    return ToolCallBlock(
        tool_call_id=call, tool_name=name, tool_kwargs=arguments if isinstance(arguments, str | dict) else {}
    )


def _tool_result(message: ChatMessage, content: Sequence[ConversePart]) -> Iterator[ConversePart]:
    call = message.additional_kwargs.get("tool_call_id")
    if not isinstance(call, str) or not call:
        raise ConfigurationError(
            f"a message of role {message.role.value!r} has tool_call_id {call!r}; "
            'put the id of the call it answers into additional_kwargs["tool_call_id"]'
        )
    output = [block for block in content if not is_cache_point(block)]
    result: ConversePart = {"toolUseId": call, "content": output or [{"text": _NO_OUTPUT}]}
    if status := message.additional_kwargs.get("status"):
        result["status"] = status
    yield {"toolResult": result}
    yield from [block for block in content if is_cache_point(block)][-1:]


def _marked(content: Iterable[ConversePart], message: ChatMessage) -> Iterator[ConversePart]:
    """The content, and behind it the checkpoint of a `cache_control` on the message as a whole."""
    last: ConversePart = {}
    for last in content:
        yield last
    mark = cache_mark(message.additional_kwargs.get("cache_control"))
    if mark and last and not is_cache_point(last):
        yield mark


def _check_documents(turn: int, content: Sequence[ConversePart]) -> None:
    if any("document" in block for block in content) and not any("text" in block for block in content):
        raise ConfigurationError(
            f"messages[{turn}] has a document and no text but white space, which Bedrock refuses; "
            "add a TextBlock that says what to do with the document"
        )


def _append(turns: list[ConversePart], role: str, content: list[ConversePart]) -> None:
    if all(map(is_cache_point, content)):
        # Converse refuses a turn of nothing or of a checkpoint alone; the checkpoint belongs to what is before it.
        if turns:
            turns[-1]["content"] += content
    elif turns and turns[-1]["role"] == role:
        turns[-1]["content"] += content
    else:
        turns.append({"role": role, "content": content})
