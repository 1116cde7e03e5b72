"""The LlamaIndex programs."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from capture_lib.prose import prose
from llama_index.core import Document, VectorStoreIndex
from llama_index.core.agent.workflow import FunctionAgent, ReActAgent
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.extractors import (
    DocumentContextExtractor,
    QuestionsAnsweredExtractor,
    SummaryExtractor,
    TitleExtractor,
)
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.memory import Memory
from llama_index.core.memory.memory import BaseMemoryBlock
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import TextNode
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.tools import FunctionTool
from llama_index.core.workflow import Context

from programs_lib import texts
from programs_lib.answers import calling, reasoning_and_acting
from programs_lib.program import SECONDS_A_TURN, SECONDS_BETWEEN_SESSIONS, SECONDS_IN_PARALLEL, Program, converse
from programs_lib.stage import Stage
from programs_lib.texts import GUIDE, Session

RETRIEVED = 5
SYSTEM = f"You are an expert of our products.\n\n{GUIDE}"
NODE_TOKENS = 1_024
"""What LlamaIndex's splitter makes by default."""
ONE_BY_ONE: dict[str, Any] = {"num_workers": 1, "show_progress": False}
"""Where an answer takes no time, which of an extractor's calls overlap would be chance."""

Run = Callable[[Stage, Sequence[Session]], None]


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


# -- questions over an index -----------------------------------------------------------------------


def chat_engine(mode: str, *, of_llm: str | None = SYSTEM, of_engine: str | None = None) -> Run:
    """The index as a chat engine, with a system prompt of the LLM's or of the engine's."""

    def run(stage: Stage, sessions: Sequence[Session]) -> None:
        llm = stage.llm(of_llm)
        settings = {"system_prompt": of_engine} if of_engine else {}

        def start() -> Callable[[str], object]:
            engine: Any = index().as_chat_engine(mode, llm=llm, similarity_top_k=RETRIEVED, **settings)  # type: ignore[arg-type]
            return engine.chat  # type: ignore[no-any-return]

        converse(stage, sessions, start)

    return run


def query_engine(stage: Stage, sessions: Sequence[Session]) -> None:
    """Each question by itself."""
    engine = RetrieverQueryEngine.from_args(index().as_retriever(similarity_top_k=RETRIEVED), llm=stage.llm())
    converse(stage, sessions, lambda: engine.query)


# -- agents ----------------------------------------------------------------------------------------


class Recall(BaseMemoryBlock[str]):
    """What is remembered of earlier talks: other things each time."""

    name: str = "recall"
    of: str
    times: int = 0

    async def _aget(self, *_: Any, **__: Any) -> str:
        self.times += 1
        return prose(600, "recalled", self.of, self.times)

    async def _aput(self, *_: Any, **__: Any) -> None:
        return None


def look_up(topic: str) -> str:
    """Look up a topic."""
    return prose(300, "looked up", topic)


TOOL = FunctionTool.from_defaults(look_up)


def memory_agent(stage: Stage, sessions: Sequence[Session]) -> None:
    agent = FunctionAgent(tools=[TOOL], llm=stage.llm(), system_prompt=SYSTEM)
    numbers = itertools.count()

    def start() -> Callable[[str], object]:
        name = f"s{next(numbers)}"
        memory = Memory.from_defaults(session_id=name, token_limit=40_000, memory_blocks=[Recall(of=name)])
        return lambda question: _finished(lambda: agent.run(question, memory=memory))

    converse(stage, sessions, start)


def react_agent(stage: Stage, sessions: Sequence[Session]) -> None:
    agent = ReActAgent(tools=[TOOL], llm=stage.llm(), system_prompt=SYSTEM)

    def start() -> Callable[[str], object]:
        context = Context(agent)
        return lambda question: _finished(lambda: agent.run(question, ctx=context))

    converse(stage, sessions, start)


def _finished(begin: Callable[[], Any]) -> object:
    """The result of a workflow, which wants an event loop to begin in."""

    async def finished() -> object:
        return await begin()

    return asyncio.run(finished())


# -- ingestion -------------------------------------------------------------------------------------


def collections(stage: Stage, sessions: Sequence[Session], ingest: Callable[[list[Document]], object]) -> None:
    """A collection of documents a session, as many as it has turns."""
    numbered = itertools.cycle(enumerate(texts.documents()))
    for session in sessions:
        ingest([Document(text=text, doc_id=f"d{number}") for number, text in itertools.islice(numbered, len(session))])
        stage.turn_ended(SECONDS_A_TURN + SECONDS_BETWEEN_SESSIONS)


def ingestion(stage: Stage, sessions: Sequence[Session]) -> None:
    """Metadata for every node: a title, questions that it answers, summaries."""
    llm = stage.llm()
    pipeline = IngestionPipeline(
        transformations=[
            SentenceSplitter(chunk_size=NODE_TOKENS),
            TitleExtractor(llm=llm, **ONE_BY_ONE),
            QuestionsAnsweredExtractor(llm=llm, questions=3, **ONE_BY_ONE),
            SummaryExtractor(llm=llm, summaries=["prev", "self"], **ONE_BY_ONE),
        ]
    )
    collections(stage, sessions, lambda documents: pipeline.run(documents=documents))


def contextual_nodes(stage: Stage, sessions: Sequence[Session]) -> None:
    """For every node its place in its document, which is sent whole."""
    llm = stage.llm()

    def ingest(documents: list[Document]) -> None:
        store = SimpleDocumentStore()
        store.add_documents(documents)
        settings: dict[str, Any] = {"max_context_length": 200_000, "max_output_tokens": 100, **ONE_BY_ONE}
        extractor = DocumentContextExtractor(docstore=store, llm=llm, **settings)
        nodes = SentenceSplitter(chunk_size=NODE_TOKENS // 2).get_nodes_from_documents(documents)
        extractor.extract(nodes)

    collections(stage, sessions, ingest)


def _chat(name: str, title: str, run: Run, *, is_static: bool = True) -> Program:
    return Program(f"chat_{name}", title, run, static=(SYSTEM,) if is_static else ())


PROGRAMS: tuple[Program, ...] = (
    _chat("context", "as_chat_engine(context), system prompt of the LLM", chat_engine("context")),
    _chat("condense_question", "as_chat_engine(condense_question), the same", chat_engine("condense_question")),
    _chat("condense_context", "as_chat_engine(condense_plus_context), the same", chat_engine("condense_plus_context")),
    _chat(
        "context_first",
        "as_chat_engine(context), system prompt of the engine, which puts it behind the context",
        chat_engine("context", of_llm=None, of_engine=SYSTEM),
        is_static=False,
    ),
    _chat(
        "best",
        "as_chat_engine() as it comes, without a system prompt",
        chat_engine("best", of_llm=None),
        is_static=False,
    ),
    Program(
        "memory_agent",
        "FunctionAgent with a Memory block that changes",
        memory_agent,
        static=(SYSTEM,),
        answers=calling(1),
    ),
    Program(
        "react_agent", "ReActAgent", react_agent, static=(SYSTEM,), answers=reasoning_and_acting("look_up", "topic", 2)
    ),
    Program("query_engine", "RetrieverQueryEngine", query_engine),
    Program(
        "ingestion",
        "IngestionPipeline with three extractors",
        ingestion,
        short=2,
        long=6,
        seconds_a_call=SECONDS_IN_PARALLEL,
    ),
    Program(
        "contextual_nodes",
        "DocumentContextExtractor",
        contextual_nodes,
        static=texts.documents(),
        short=2,
        long=6,
        marks_itself=True,  # and LlamaIndex's own class fails on an argument that it passes, `extra_headers`
        seconds_a_call=SECONDS_IN_PARALLEL,
    ),
)
