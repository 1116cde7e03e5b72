"""The LlamaIndex programs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from llama_index.core import VectorStoreIndex
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.memory import Memory
from llama_index.core.memory.memory import BaseMemoryBlock
from llama_index.core.schema import TextNode
from llama_index.core.tools import FunctionTool
from programs_lib import texts
from programs_lib.langchain_programs import looping
from programs_lib.program import Program, converse
from programs_lib.stage import Stage
from programs_lib.texts import GUIDE, Session

RETRIEVED = 5
SYSTEM = f"You are an expert of our products.\n\n{GUIDE}"


class WordEmbedding(BaseEmbedding):
    """Vectors by words, without a model."""

    def _get_text_embedding(self, text: str) -> list[float]:
        return list(texts.embedding(text))

    def _get_query_embedding(self, query: str) -> list[float]:
        return list(texts.embedding(query))

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_query_embedding(query)


@cache
def index() -> VectorStoreIndex:
    nodes = [TextNode(text=text, id_=f"p{number}") for number, text in enumerate(texts.passages())]
    return VectorStoreIndex(nodes, embed_model=WordEmbedding())


# -- chat engines ----------------------------------------------------------------------------------


def chat_engine(mode: str, **settings: Any) -> Callable[[Stage, Sequence[Session]], None]:
    """The index as a chat engine."""

    def run(stage: Stage, sessions: Sequence[Session]) -> None:
        llm = stage.llm()

        def start() -> Callable[[str], object]:
            engine = index().as_chat_engine(chat_mode=mode, llm=llm, similarity_top_k=RETRIEVED, **settings)
            return engine.chat

        converse(stage, sessions, start)

    return run


def _chat(mode: str, title: str, **settings: Any) -> Program:
    return Program(f"chat_{mode}", title, chat_engine(mode, **settings), static=(SYSTEM,) if settings else ())


CHAT_ENGINES = (
    _chat("context", "as_chat_engine(context) with a system prompt", system_prompt=SYSTEM),
    _chat("condense_plus_context", "as_chat_engine(condense_plus_context) with a system prompt", system_prompt=SYSTEM),
    _chat("condense_question", "as_chat_engine(condense_question)"),
    _chat("best", "as_chat_engine() as it comes"),
)


# -- an agent with a memory that changes -----------------------------------------------------------


class Recall(BaseMemoryBlock[str]):
    """What is remembered of earlier talks: other things each time."""

    name: str = "recall"
    times: int = 0

    async def _aget(self, messages: Any = None, **_: Any) -> str:
        self.times += 1
        return texts.prose(700, "recalled", self.times)

    async def _aput(self, messages: Any) -> None:
        return None


def look_up(topic: str) -> str:
    """Look up a topic."""
    return texts.prose(400, "looked up", topic)


def memory_agent(stage: Stage, sessions: Sequence[Session]) -> None:
    llm = stage.llm()
    agent = FunctionAgent(tools=[FunctionTool.from_defaults(look_up)], llm=llm, system_prompt=SYSTEM)

    def start() -> Callable[[str], object]:
        memory = Memory.from_defaults(session_id="session", token_limit=40_000, memory_blocks=[Recall()])

        async def answered(question: str) -> object:
            return await agent.run(question, memory=memory)

        return lambda question: asyncio.run(answered(question))

    converse(stage, sessions, start)


MEMORY_AGENT = Program(
    "memory_agent",
    "FunctionAgent with a Memory block that changes",
    memory_agent,
    static=(SYSTEM,),
    answers=looping(1),
)

PROGRAMS: tuple[Program, ...] = (*CHAT_ENGINES, MEMORY_AGENT)
