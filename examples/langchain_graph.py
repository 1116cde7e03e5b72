"""A LangGraph of two nodes, retrieve and answer, with a memory: documents are sent last and stay out of the history.

python examples/langchain_graph.py [--live]
"""

from __future__ import annotations

from typing import Any

from langchain_common import MODEL, bedrock, reference, told
from langchain_core.documents import Document
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph

from cachepoint.langchain import CacheAwareChatBedrockConverse, StableOrderRetriever, cached_context_prompt

CHAPTERS = {"format": "formatstrings", "method": "string-methods"}
TURNS = ("What is a format string?", "Which method takes one?", "And which methods are like it?")


class State(MessagesState):
    """The conversation, and the documents of its last question: they are no part of the history."""

    found: list[Document]


def chapters(question: str) -> list[Document]:
    """The chapters about the words of a question."""
    return reference(*(chapter for word, chapter in CHAPTERS.items() if word in question))


if __name__ == "__main__":
    with bedrock() as client:
        retriever = StableOrderRetriever(retriever=chapters, order="session")
        answering = cached_context_prompt() | CacheAwareChatBedrockConverse(model=MODEL, client=client)

        def retrieve(state: State) -> dict[str, Any]:
            return {"found": retriever.invoke(state["messages"][-1].text)}

        def answer(state: State) -> dict[str, Any]:
            *history, asked = state["messages"]
            said = {"context": state["found"], "input": asked.text, "chat_history": history}
            return {"messages": [answering.invoke(said)]}

        nodes = StateGraph(State).add_sequence([retrieve, answer]).add_edge(START, "retrieve")
        graph: Any = nodes.compile(checkpointer=InMemorySaver())
        # A turn's documents stay out of the history and don't come back in their thread, so later turns go uncached
        # and say why. A first question has no history: the second thread asks it again and writes it, the third reads.
        for thread in ("one", "two", "three"):
            for turn in TURNS:
                state = graph.invoke({"messages": [HumanMessage(turn)]}, {"configurable": {"thread_id": thread}})
                print(f"{thread}: {turn:32}{told(state['messages'][-1])}")
                contract = state["messages"][-1].response_metadata["prompt_cache"]
                if contract["status"] == "uncached":
                    held = contract["held"][-1]
                    print(f"       no checkpoint after {held['path']}: {held['why']}")
