"""The LangChain programs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from capture_lib.prose import prose
from langchain.agents import create_agent
from langchain.agents.middleware import SummarizationMiddleware
from langchain.tools import tool
from langchain_classic.chains import create_history_aware_retriever, create_retrieval_chain
from langchain_classic.chains.combine_documents import create_stuff_documents_chain
from langchain_core.chat_history import InMemoryChatMessageHistory
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.runnables import Runnable, RunnablePassthrough
from langchain_core.runnables.history import RunnableWithMessageHistory
from langchain_core.vectorstores import InMemoryVectorStore
from langgraph.checkpoint.memory import InMemorySaver

from cachepoint.langchain import cached_context_prompt
from programs_lib import texts
from programs_lib.answers import answering, calling
from programs_lib.program import SECONDS_A_TURN, SECONDS_BETWEEN_SESSIONS, SECONDS_IN_PARALLEL, Program, converse
from programs_lib.stage import Stage
from programs_lib.supervisor import SUPERVISOR
from programs_lib.texts import GUIDE, HANDBOOK, Session

RETRIEVED = 6
TASK = (
    "You answer questions of our staff. Use the handbook and the context that was retrieved; say when you do not know."
)
HANDBOOK_TEXT = f"{TASK}\n\nHandbook:\n{HANDBOOK}"
GUIDE_TEXT = f"{TASK}\n\nHandbook:\n{GUIDE}"

Run = Callable[[Stage, Sequence[Session]], None]


class WordEmbeddings(Embeddings):
    """Vectors by words, without a model."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return list(texts.embedding(text))


@cache
def library() -> InMemoryVectorStore:
    store = InMemoryVectorStore(WordEmbeddings())
    store.add_documents([Document(text, id=f"p{number}") for number, text in enumerate(texts.passages())])
    return store


def retriever() -> Runnable[str, list[Document]]:
    return library().as_retriever(search_kwargs={"k": RETRIEVED})


def with_history(chain: Runnable[Any, Any], output: str | None) -> Callable[[], Callable[[str], object]]:
    """What begins a session of a chain whose history LangChain keeps."""
    histories: dict[str, InMemoryChatMessageHistory] = {}
    numbers = itertools.count()
    chat = RunnableWithMessageHistory(
        chain,
        lambda session_id: histories.setdefault(session_id, InMemoryChatMessageHistory()),
        input_messages_key="input",
        history_messages_key="chat_history",
        output_messages_key=output,
    )

    def start() -> Callable[[str], object]:
        config: Any = {"configurable": {"session_id": f"s{next(numbers)}"}}
        return lambda question: chat.invoke({"input": question}, config)

    return start


# -- retrieval -------------------------------------------------------------------------------------

REPHRASE = (
    "Given a chat history and the latest user question, which may refer to the history, write a question that can "
    "be understood without the history. Do not answer it; return it as it is where it stands alone."
)


def retrieval_chat(answer: Callable[[Any], Runnable[Any, Any]]) -> Run:
    """The question is rephrased, passages are found for it, and `answer` makes a chain that answers from them."""

    def run(stage: Stage, sessions: Sequence[Session]) -> None:
        model = stage.chain_model()
        rephrase = ChatPromptTemplate.from_messages(
            [("system", REPHRASE), MessagesPlaceholder("chat_history"), ("human", "{input}")]
        )
        found = create_history_aware_retriever(model, retriever(), rephrase)
        converse(stage, sessions, with_history(create_retrieval_chain(found, answer(model)), "answer"))

    return run


def in_system_string(model: Any) -> Runnable[Any, Any]:
    prompt = ChatPromptTemplate.from_messages(
        [("system", HANDBOOK_TEXT + "\n\n{context}"), MessagesPlaceholder("chat_history"), ("human", "{input}")]
    )
    chain: Runnable[Any, Any] = create_stuff_documents_chain(model, prompt)
    return chain


def in_cached_context_prompt(model: Any) -> Runnable[Any, Any]:
    chain: Runnable[Any, Any] = cached_context_prompt(GUIDE_TEXT) | model | StrOutputParser()
    return chain


def single_questions(stage: Stage, sessions: Sequence[Session]) -> None:
    """Context and question in the user's message, each question by itself."""

    def joined(documents: list[Document]) -> str:
        return "\n\n".join(document.page_content for document in documents)

    prompt = ChatPromptTemplate.from_messages(
        [("system", GUIDE_TEXT), ("human", "Question: {question}\n\nContext: {context}\n\nAnswer:")]
    )
    given: Any = {"context": retriever() | joined, "question": RunnablePassthrough()}
    chain = given | prompt | stage.chain_model() | StrOutputParser()
    converse(stage, sessions, lambda: chain.invoke)


# -- documents -------------------------------------------------------------------------------------

DOCUMENT_TASK = "You work with the documents that you are given. Use the calculator for every figure."
LOOP = 6


@tool
def calculate(expression: str) -> str:
    """Work out an arithmetic expression."""
    return prose(30, "calculated", expression)


def documents_and_tools(stage: Stage, sessions: Sequence[Session]) -> None:
    """Passages with each question, and some calls of a tool before the answer."""
    model = stage.chain_model([calculate])
    prompt = cached_context_prompt(DOCUMENT_TASK)
    find = retriever()

    def start() -> Callable[[str], object]:
        history: list[Any] = []

        def ask(question: str) -> None:
            given = {"context": find.invoke(question), "input": question, "chat_history": history}
            messages = prompt.invoke(given).to_messages()
            while (reply := model.invoke(messages)).tool_calls:
                messages += [
                    reply,
                    *(ToolMessage(calculate.invoke(c["args"]), tool_call_id=c["id"]) for c in reply.tool_calls),
                ]
            history.extend([HumanMessage(question), AIMessage(reply.text)])

        return ask

    converse(stage, sessions, start)


def batches(stage: Stage, sessions: Sequence[Session]) -> None:
    """A batch a session: each question with a document of its own, under the same instructions."""
    prompt = ChatPromptTemplate.from_messages([("system", GUIDE_TEXT), ("human", "{document}\n\n{question}")])
    chain = prompt | stage.chain_model() | StrOutputParser()
    documents = itertools.cycle(texts.documents())
    for session in sessions:
        inputs = [{"document": next(documents), "question": question} for question in session]
        # One at a time: where an answer takes no time, which calls overlap would be chance.
        chain.batch(inputs, {"max_concurrency": 1})
        stage.turn_ended(SECONDS_A_TURN + SECONDS_BETWEEN_SESSIONS)


# -- chats and agents ------------------------------------------------------------------------------


def chat(stage: Stage, sessions: Sequence[Session]) -> None:
    """A chat with its history and nothing else."""
    prompt = ChatPromptTemplate.from_messages(
        [("system", "You are a patient teacher."), MessagesPlaceholder("chat_history"), ("human", "{input}")]
    )
    converse(stage, sessions, with_history(prompt | stage.chain_model(), None))


@tool
def search(query: str) -> str:
    """Search the documentation; returns the passages that match best."""
    return prose(600, "searched", query)


@tool
def read_page(path: str) -> str:
    """Read a page of the documentation."""
    return prose(900, "read", path)


@tool
def run_query(sql: str) -> str:
    """Run a query on the sales database; returns rows."""
    return prose(300, "queried", sql)


AGENT_TOOLS = [search, read_page, run_query, calculate]
AGENT_TEXT = f"You are a careful analyst. Look everything up before you answer.\n\n{prose(2_000, 'analyst')}"


def agent(stage: Stage, sessions: Sequence[Session], middleware: Sequence[Any] = ()) -> None:
    """An agent with a checkpointer; every session is a thread of its own."""
    made: Any = create_agent(
        stage.chat_model(),
        AGENT_TOOLS,
        system_prompt=AGENT_TEXT,
        middleware=[*middleware, *stage.middleware()],
        checkpointer=InMemorySaver(),
    )
    threads = itertools.count()

    def start() -> Callable[[str], object]:
        config: Any = {"configurable": {"thread_id": f"t{next(threads)}"}, "recursion_limit": 100}
        return lambda question: made.invoke({"messages": [("human", question)]}, config)

    converse(stage, sessions, start)


def summarising_agent(stage: Stage, sessions: Sequence[Session]) -> None:
    """The same, and what is old is replaced by a summary from 6,000 tokens on."""
    summaries = SummarizationMiddleware(stage.chat_model(), trigger=("tokens", 6_000), keep=("messages", 6))
    agent(stage, sessions, [summaries])


PROGRAMS: tuple[Program, ...] = (
    Program(
        "rag_system",
        "create_stuff_documents_chain with {context} in the system string behind a handbook of 13k tokens",
        retrieval_chat(in_system_string),
        static=(HANDBOOK_TEXT,),
        short=8,
        long=20,
    ),
    Program(
        "rag_human",
        "LCEL with {context} in the user's message behind a static system prompt",
        single_questions,
        static=(GUIDE_TEXT,),
    ),
    Program(
        "documents",
        "cached_context_prompt in a retrieval chain with history",
        retrieval_chat(in_cached_context_prompt),
        static=(GUIDE_TEXT,),
    ),
    Program("documents_tools", "cached_context_prompt and a tool loop", documents_and_tools, answers=calling(LOOP)),
    Program(
        "batch",
        ".batch over documents under the same instructions",
        batches,
        static=(GUIDE_TEXT,),
        short=8,
        long=40,
        answers=answering(100),
        seconds_a_call=SECONDS_IN_PARALLEL,
    ),
    Program("chat_history", "RunnableWithMessageHistory", chat, long=30, answers=answering(250)),
    Program("agent", "create_agent with four tools", agent, static=(AGENT_TEXT,), answers=calling(3)),
    Program(
        "agent_summary",
        "create_agent with SummarizationMiddleware",
        summarising_agent,
        static=(AGENT_TEXT,),
        answers=calling(3),
    ),
    SUPERVISOR,
)
