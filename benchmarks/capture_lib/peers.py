"""The peers, each through its own public face; one that is not installed is left out.

They are told no more than their documentation asks for: which sections to cache, and where one is offered, a TTL.
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, NamedTuple

from capture_lib.requests import Message, Request, Text, Tool, ToolResult, ToolUse, converse
from capture_lib.stage import MODEL, REGION, Contender, Send, Stage

MAX_TOKENS = 4096


@dataclass(frozen=True)
class Peer:
    """A framework's model; `start` makes one for a process and returns what sends a request."""

    name: str
    start: Callable[[Stage], Send]
    over_http: bool = True
    planning: list[float] = field(default_factory=list)

    def open(self, stage: Stage) -> Send:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return self.start(stage)

    def concurrent(self) -> AbstractContextManager[object]:
        return nullcontext()


# -- LangChain -------------------------------------------------------------------------------------


def langchain_messages(request: Request) -> list[Any]:
    from langchain_core.messages import SystemMessage

    system = [SystemMessage(_langchain_content(request.system))] if request.system else []
    return [*system, *(made for message in request.messages for made in _langchain_message(message))]


def _langchain_content(texts: tuple[Text, ...]) -> Any:
    return texts[0].whole if len(texts) == 1 else [{"type": "text", "text": part.whole} for part in texts]


def _langchain_message(message: Message) -> Iterator[Any]:
    from langchain_core.messages import AIMessage, HumanMessage, ToolMessage

    texts = tuple(part for part in message.content if isinstance(part, Text))
    if message.role == "assistant":
        calls = [
            {"name": part.name, "args": part.input, "id": part.id}
            for part in message.content
            if isinstance(part, ToolUse)
        ]
        yield AIMessage(_langchain_content(texts), tool_calls=calls)
        return
    for part in message.content:
        if isinstance(part, ToolResult):
            yield ToolMessage(part.text, tool_call_id=part.id)
    if texts:
        yield HumanMessage(_langchain_content(texts))


def langchain_tools(tools: tuple[Tool, ...]) -> list[dict[str, Any]]:
    return [
        {
            "type": "function",
            "function": {"name": tool.name, "description": tool.description, "parameters": tool.schema},
        }
        for tool in tools
    ]


def langchain_send(model: Any, **arguments: Any) -> Send:
    def send(request: Request) -> object:
        runnable = model.bind_tools(langchain_tools(request.tools)) if request.tools else model
        return runnable.invoke(langchain_messages(request), **arguments)

    return send


def _chat_bedrock_converse(cache_control: Mapping[str, str] | None) -> Callable[[Stage], Send]:
    def start(stage: Stage) -> Send:
        from langchain_aws import ChatBedrockConverse

        model = ChatBedrockConverse(model=MODEL, client=stage.client(), region_name=REGION, max_tokens=MAX_TOKENS)
        return langchain_send(model, **({"cache_control": dict(cache_control)} if cache_control else {}))

    return start


# -- LlamaIndex ------------------------------------------------------------------------------------


def llama_index_messages(request: Request) -> list[Any]:
    from llama_index.core.llms import ChatMessage, MessageRole, TextBlock

    def blocks(texts: tuple[Text, ...]) -> list[Any]:
        return [TextBlock(text=part.whole) for part in texts]

    system = [ChatMessage(role=MessageRole.SYSTEM, blocks=blocks(request.system))] if request.system else []
    return [*system, *(made for message in request.messages for made in _llama_index_message(message))]


def _llama_index_message(message: Message) -> Iterator[Any]:
    from llama_index.core.base.llms.types import ToolCallBlock
    from llama_index.core.llms import ChatMessage, MessageRole, TextBlock

    blocks: list[Any] = []
    for part in message.content:
        if isinstance(part, Text):
            blocks.append(TextBlock(text=part.whole))
        elif isinstance(part, ToolUse):
            blocks.append(ToolCallBlock(tool_call_id=part.id, tool_name=part.name, tool_kwargs=part.input))
        else:
            yield ChatMessage(
                role=MessageRole.TOOL, content=part.text, additional_kwargs={"tool_call_id": part.id, "name": part.name}
            )
    if blocks:
        yield ChatMessage(role=MessageRole(message.role), blocks=blocks)


def llama_index_tools(tools: tuple[Tool, ...]) -> list[Any]:
    from llama_index.core.tools import FunctionTool, ToolMetadata
    from pydantic import Field, create_model

    schema = {tool.name: create_model(tool.name, **_fields(tool, Field)) for tool in tools}
    return [
        FunctionTool(lambda query: query, ToolMetadata(tool.description, tool.name, schema[tool.name]))
        for tool in tools
    ]


def _fields(tool: Tool, field: Callable[..., Any]) -> dict[str, Any]:
    return {name: (str, field(description=found["description"])) for name, found in tool.schema["properties"].items()}


def llama_index_send(model: Any) -> Send:
    made: dict[tuple[str, ...], list[Any]] = {}

    def send(request: Request) -> object:
        messages = llama_index_messages(request)
        if not request.tools:
            return model.chat(messages)
        names = tuple(tool.name for tool in request.tools)
        tools = made.get(names) or made.setdefault(names, llama_index_tools(request.tools))
        return model.chat_with_tools(tools, chat_history=messages, allow_parallel_tool_calls=True)

    return send


def _llama_index(stage: Stage) -> Send:
    from llama_index.llms.bedrock_converse import BedrockConverse

    model = BedrockConverse(
        model=MODEL, client=stage.client(), max_tokens=MAX_TOKENS, system_prompt_caching=True, tool_caching=True
    )
    return llama_index_send(model)


# -- pydantic-ai -----------------------------------------------------------------------------------


def _pydantic_ai(stage: Stage) -> Send:
    from pydantic_ai.direct import model_request
    from pydantic_ai.models import ModelRequestParameters
    from pydantic_ai.models.bedrock import BedrockConverseModel, BedrockModelSettings
    from pydantic_ai.providers.bedrock import BedrockProvider
    from pydantic_ai.tools import ToolDefinition

    settings = BedrockModelSettings(
        max_tokens=MAX_TOKENS,
        bedrock_cache_tool_definitions=True,
        bedrock_cache_instructions=True,
        bedrock_cache_messages=True,
    )
    model = BedrockConverseModel(MODEL, provider=BedrockProvider(bedrock_client=stage.client()), settings=settings)

    def send(request: Request) -> object:
        tools = [
            ToolDefinition(name=tool.name, parameters_json_schema=tool.schema, description=tool.description)
            for tool in request.tools
        ]
        parameters = ModelRequestParameters(function_tools=tools)
        return asyncio.run(model_request(model, _pydantic_ai_messages(request), model_request_parameters=parameters))

    return send


def _pydantic_ai_messages(request: Request) -> list[Any]:
    from pydantic_ai.messages import ModelRequest, ModelResponse, SystemPromptPart

    made: list[Any] = []
    for message in request.messages:
        parts = list(_pydantic_ai_parts(message))
        made.append(ModelResponse(parts=parts) if message.role == "assistant" else ModelRequest(parts=parts))
    made[0].parts[:0] = [SystemPromptPart(part.whole) for part in request.system]
    return made


def _pydantic_ai_parts(message: Message) -> Iterator[Any]:
    from pydantic_ai.messages import TextPart, ToolCallPart, ToolReturnPart, UserPromptPart

    texts = [part.whole for part in message.content if isinstance(part, Text)]
    if message.role == "assistant":
        yield from (TextPart(each) for each in texts)
    for part in message.content:
        if isinstance(part, ToolUse):
            yield ToolCallPart(tool_name=part.name, args=part.input, tool_call_id=part.id)
        elif isinstance(part, ToolResult):
            yield ToolReturnPart(tool_name=part.name, content=part.text, tool_call_id=part.id)
    if message.role == "user" and texts:
        yield UserPromptPart(texts[0] if len(texts) == 1 else texts)


# -- Strands ---------------------------------------------------------------------------------------


def _strands(stage: Stage) -> Send:
    import boto3
    from strands.models import BedrockModel, CacheConfig

    session = boto3.Session(aws_access_key_id="EMULATOR", aws_secret_access_key="emulator", region_name=REGION)
    model = BedrockModel(
        boto_session=session,
        endpoint_url=stage.url,
        model_id=MODEL,
        max_tokens=MAX_TOKENS,
        streaming=False,
        cache_config=CacheConfig(strategy="auto"),
    )

    async def consume(request: Request) -> None:
        sent = converse(request)
        tools = [tool["toolSpec"] for tool in sent.get("toolConfig", {}).get("tools", [])]
        async for _ in model.stream(sent["messages"], tools or None, system_prompt_content=sent.get("system")):
            pass

    return lambda request: asyncio.run(consume(request))


class _Entry(NamedTuple):
    package: str
    name: str
    start: Callable[[Stage], Send]


_PEERS = (
    _Entry("langchain_aws", "ChatBedrockConverse", _chat_bedrock_converse(None)),
    _Entry("langchain_aws", "ChatBedrockConverse 5m", _chat_bedrock_converse({"type": "ephemeral", "ttl": "5m"})),
    _Entry("langchain_aws", "ChatBedrockConverse 1h", _chat_bedrock_converse({"type": "ephemeral", "ttl": "1h"})),
    _Entry("llama_index.llms.bedrock_converse", "LlamaIndex", _llama_index),
    _Entry("pydantic_ai.models.bedrock", "pydantic-ai", _pydantic_ai),
    _Entry("strands", "Strands", _strands),
)


def peers() -> tuple[list[Contender], list[str]]:
    """The peers that are installed, and the names of those that are not."""
    there: list[Contender] = []
    missing: list[str] = []
    for package, name, start in _PEERS:
        if _installed(package):
            there.append(Peer(name, start))
        else:
            missing.append(name)
    return there, missing


def _installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:
        return False
