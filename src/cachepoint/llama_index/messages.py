"""ChatMessages as a Converse conversation.

- System messages before the first turn are `system` blocks, each text block one of its own: joined, they would leave
  nowhere to put a checkpoint between a static part and a volatile one.
- A system message later on never moves to the front, which would change the prefix of everything after it. Where the
  model takes the role it stays as it is; elsewhere it stays in place as user text between `<system>` tags.
- Turns of one role that follow each other become one, as Converse wants roles to alternate.
- A checkpoint inside a tool's result goes right behind the result: Converse takes none inside.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from llama_index.core.base.llms.types import ChatMessage, MessageRole

from cachepoint.core.prompt import Where
from cachepoint.errors import ConfigurationError
from cachepoint.llama_index.blocks import BlockTranslator, Wire, cache_mark
from cachepoint.llama_index.layout import CONTEXT_BLOCKS

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


@dataclass(frozen=True, slots=True)
class Conversation:
    """The `system` and `messages` of a Converse request, and the blocks at which a message's context ends."""

    system: list[Wire] = field(default_factory=list)
    messages: list[Wire] = field(default_factory=list)
    context_ends: list[Where] = field(default_factory=list)

    def tool_names(self) -> list[str]:
        """The tools called in the conversation, each once, in the order of their first call."""
        calls = (block["toolUse"]["name"] for turn in self.messages for block in turn["content"] if "toolUse" in block)
        return list(dict.fromkeys(calls))


def to_conversation(messages: Sequence[ChatMessage], *, system_role: bool) -> Conversation:
    """Translate a chat; `system_role` says that the model takes `role: "system"` in mid-conversation."""
    conversation = Conversation()
    blocks = BlockTranslator()
    for message in messages:
        role = _ROLES[message.role]
        content = list(_marked(_tool_result(message, blocks) if role == "tool" else _content(message, blocks), message))
        if role == "system" and not conversation.messages:
            conversation.system.extend(content)
            continue
        if role == "system" and not system_role:
            content = [_labelled(block) for block in content]
        wire_role = "system" if role == "system" and system_role else "assistant" if role == "assistant" else "user"
        _append(conversation.messages, wire_role, content)
        if context := message.additional_kwargs.get(CONTEXT_BLOCKS):
            turn = len(conversation.messages) - 1
            before = len(conversation.messages[turn]["content"]) - len(content)
            conversation.context_ends.append(Where("messages", turn, before + context - 1))
    return conversation


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


def _content(message: ChatMessage, blocks: BlockTranslator) -> Iterator[Wire]:
    for block in message.blocks:
        yield from blocks.translate(block)


def _tool_result(message: ChatMessage, blocks: BlockTranslator) -> Iterator[Wire]:
    call = message.additional_kwargs.get("tool_call_id")
    if not isinstance(call, str) or not call:
        raise ConfigurationError(
            f"a message of role {message.role.value!r} has tool_call_id {call!r}; "
            'put the id of the call it answers into additional_kwargs["tool_call_id"]'
        )
    content = list(_content(message, blocks))
    result: Wire = {"toolUseId": call, "content": [block for block in content if "cachePoint" not in block]}
    if status := message.additional_kwargs.get("status"):
        result["status"] = status
    yield {"toolResult": result}
    yield from [block for block in content if "cachePoint" in block][-1:]


def _marked(content: Iterator[Wire], message: ChatMessage) -> Iterator[Wire]:
    """The content, and behind it the checkpoint of a `cache_control` on the message as a whole."""
    last: Wire = {}
    for last in content:
        yield last
    mark = cache_mark(message.additional_kwargs.get("cache_control"))
    if mark and last and "cachePoint" not in last:
        yield mark


def _labelled(block: Wire) -> Wire:
    return {"text": f"<system>\n{block['text']}\n</system>"} if "text" in block else block


def _append(turns: list[Wire], role: str, content: list[Wire]) -> None:
    if all(_is_blank(block) for block in content):
        # Converse refuses a turn of white space or of a checkpoint alone; the checkpoint belongs to what is before it.
        if turns:
            turns[-1]["content"] += [block for block in content if "cachePoint" in block]
    elif turns and turns[-1]["role"] == role:
        turns[-1]["content"] += content
    else:
        turns.append({"role": role, "content": content})


def _is_blank(block: Wire) -> bool:
    return "cachePoint" in block or ("text" in block and not block["text"].strip())
