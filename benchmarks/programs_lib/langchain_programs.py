"""The LangChain programs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from langchain.agents import create_agent
from langchain.tools import tool
from langchain_classic.chains import create_history_aware_retriever, create_retrieval_chain
from langchain_classic.chains.combine_documents import create_stuff_documents_chain
from langchain_core.chat_history import InMemoryChatMessageHistory
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.runnables.history import RunnableWithMessageHistory
from langchain_core.vectorstores import InMemoryVectorStore
from programs_lib import texts
from programs_lib.program import Program, converse
from programs_lib.stage import Stage
from programs_lib.texts import GUIDE, HANDBOOK, Session

from cachepoint.emulator import Question, ToolCall
from cachepoint.langchain import cached_context_prompt

RETRIEVED = 6
REPHRASE = (
    "Given a chat history and the latest user question, which may refer to the history, write a question that can "
    "be understood without the history. Do not answer it; return it as it is where it stands alone."
)
TASK = "You answer questions of our staff. Use the handbook and the context that was retrieved; say when you do not know."


class WordEmbeddings(Embeddings):
    def embed_documents(self, texts_: list[str]) -> list[list[float]]:
        return [list(texts.embedding(text)) for text in texts_]

    def embed_query(self, text: str) -> list[float]:
        return list(texts.embedding(text))


@cache
def library() -> InMemoryVectorStore:
    store = InMemoryVectorStore(WordEmbeddings())
    store.add_documents(documents())
    return store


@cache
def documents() -> list[Document]:
    return [
        Document(text, id=f"p{number}", metadata={"source": f"p{number}"})
        for number, text in enumerate(texts.passages())
    ]


def retriever() -> Any:
    return library().as_retriever(search_kwargs={"k": RETRIEVED})


# -- retrieval chains ------------------------------------------------------------------------------


def retrieval_chat(prompt: ChatPromptTemplate) -> Callable[[Stage, Sequence[Session]], None]:
    """The question is rephrased, passages are found for it, and the answer is made of them; the history is kept."""

    def run(stage: Stage, sessions: Sequence[Session]) -> None:
        model = stage.chain_model()
        rephrase = ChatPromptTemplate.from_messages(
            [("system", REPHRASE), MessagesPlaceholder("chat_history"), ("human", "{input}")]
        )
        chain = create_retrieval_chain(
            create_history_aware_retriever(model, retriever(), rephrase), create_stuff_documents_chain(model, prompt)
        )
        histories: dict[str, InMemoryChatMessageHistory] = {}
        chat = RunnableWithMessageHistory(
            chain,
            lambda session_id: histories.setdefault(session_id, InMemoryChatMessageHistory()),
            input_messages_key="input",
            history_messages_key="chat_history",
            output_messages_key="answer",
        )
        numbers = itertools.count()

        def start() -> Callable[[str], object]:
            config: Any = {"configurable": {"session_id": f"s{next(numbers)}"}}
            return lambda question: chat.invoke({"input": question}, config)

        converse(stage, sessions, start)

    return run


HANDBOOK_TEXT = f"{TASK}\n\nHandbook:\n{HANDBOOK}"
GUIDE_TEXT = f"{TASK}\n\nHandbook:\n{GUIDE}"

RAG_IN_SYSTEM = Program(
    "rag_system",
    "create_stuff_documents_chain, context in the system string behind a 13k handbook",
    retrieval_chat(
        ChatPromptTemplate.from_messages(
            [("system", HANDBOOK_TEXT + "\n\n{context}"), MessagesPlaceholder("chat_history"), ("human", "{input}")]
        )
    ),
    static=(HANDBOOK_TEXT,),
    short=8,
    long=20,
)


# -- documents and a tool loop ---------------------------------------------------------------------

LOOP = 6
DOCUMENT_TASK = "You work with the documents that you are given. Use the calculator for every figure."


@tool
def calculate(expression: str) -> str:
    """Work out an arithmetic expression."""
    return texts.prose(30, "calculated", expression)


def looping(steps: int) -> Callable[[Question], Any]:
    """A model that calls a tool so many times before it answers."""

    def reply(asked: Question) -> Any:
        done = texts.tool_results(asked)
        if not asked.tools or done >= steps:
            return texts.answer(asked)
        names = sorted(asked.tools)
        name = names[int(asked.digest, 16) % len(names)]
        (argument,) = list(asked.tools[name]["properties"])[:1]
        return ToolCall(name, {argument: asked.digest[:8]})

    return reply


def documents_and_tools(stage: Stage, sessions: Sequence[Session]) -> None:
    tools = [calculate]
    model = stage.chain_model(tools)
    prompt = cached_context_prompt(DOCUMENT_TASK)
    find = retriever()

    def start() -> Callable[[str], object]:
        history: list[Any] = []

        def ask(question: str) -> None:
            given = {"context": find.invoke(question), "input": question, "chat_history": history}
            messages = prompt.invoke(given).to_messages()
            while (reply := model.invoke(messages)).tool_calls:
                results = [ToolMessage(calculate.invoke(call["args"]), tool_call_id=call["id"]) for call in reply.tool_calls]
                messages = [*messages, reply, *results]
            history.extend([HumanMessage(question), AIMessage(reply.text)])

        return ask

    converse(stage, sessions, start)


DOCUMENTS_AND_TOOLS = Program(
    "documents_tools",
    "cached_context_prompt and a tool loop",
    documents_and_tools,
    answers=looping(LOOP),
)


# -- a supervisor ----------------------------------------------------------------------------------

SUPERVISOR_TEXT = f"You supervise a researcher, a mathematician and a writer. Give each its part of the work.\n\n{texts.prose(1_900, 'supervisor')}"
AGENT_TEXTS = {
    name: f"You are a {name}. Do the part of the work that is yours.\n\n{texts.prose(1_800, name)}"
    for name in ("researcher", "mathematician", "writer")
}
PROGRAMS: tuple[Program, ...] = (RAG_IN_SYSTEM, DOCUMENTS_AND_TOOLS)
