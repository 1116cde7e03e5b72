"""A LangGraph supervisor with three agents, which hand the whole conversation over and back by tools."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Annotated, Any

from capture_lib.prose import prose
from langchain.agents import create_agent
from langchain.tools import InjectedState, InjectedToolCallId, tool
from langchain_core.messages import AIMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command

from programs_lib.answers import supervising
from programs_lib.program import Program, converse
from programs_lib.stage import Stage
from programs_lib.texts import Session

NAMES = ("mathematician", "researcher", "writer")
SUPERVISOR_TEXT = f"You supervise a mathematician, a researcher and a writer.\n\n{prose(1_900, 'supervisor')}"
AGENT_TEXTS = {name: f"You are a {name}.\n\n{prose(1_800, name)}" for name in NAMES}


@tool
def calculate(expression: str) -> str:
    """Work out an arithmetic expression."""
    return prose(30, "calculated", expression)


@tool
def look_up(topic: str) -> str:
    """Look up a topic."""
    return prose(900, "looked up", topic)


@tool
def write(text: str) -> str:
    """Write a file."""
    return prose(30, "written", text)


TOOLS = dict(zip(NAMES, (calculate, look_up, write), strict=True))


def handover(name: str) -> Any:
    """The tool by which the supervisor hands over to an agent."""

    @tool(f"transfer_to_{name}", description=f"Hand over to the {name}.")
    def transfer(
        state: Annotated[dict[str, Any], InjectedState], tool_call_id: Annotated[str, InjectedToolCallId]
    ) -> Command[Any]:
        told = ToolMessage(f"Transferred to the {name}.", name=f"transfer_to_{name}", tool_call_id=tool_call_id)
        return Command(goto=name, update={"messages": [*state["messages"], told]}, graph=Command.PARENT)

    return transfer


def agent_node(agent: Any, name: str) -> Callable[[MessagesState], dict[str, Any]]:
    """An agent that says, when it is done, that it hands back."""

    def call(state: MessagesState) -> dict[str, Any]:
        messages = agent.invoke({"messages": state["messages"]})["messages"]
        back = f"back_{len(messages)}"
        name_back = "transfer_back_to_supervisor"
        calls: Any = [{"name": name_back, "args": {}, "id": back}]
        told = ToolMessage("Back at the supervisor.", name=name_back, tool_call_id=back)
        return {"messages": [*messages, AIMessage("Handing back.", tool_calls=calls, name=name), told]}

    return call


def build(stage: Stage) -> Any:
    """The graph: the supervisor in the middle, every agent returns to it."""
    model = stage.chat_model()
    supervisor = create_agent(
        model,
        [handover(name) for name in NAMES],
        system_prompt=SUPERVISOR_TEXT,
        middleware=stage.middleware(),
        name="supervisor",
    )
    graph: Any = StateGraph(MessagesState)
    graph.add_node("supervisor", supervisor, destinations=NAMES)
    graph.add_edge(START, "supervisor")
    for name in NAMES:
        agent = create_agent(
            model, [TOOLS[name]], system_prompt=AGENT_TEXTS[name], middleware=stage.middleware(), name=name
        )
        graph.add_node(name, agent_node(agent, name))
        graph.add_edge(name, "supervisor")
    return graph.compile(checkpointer=InMemorySaver())


def supervised(stage: Stage, sessions: Sequence[Session]) -> None:
    """Every session is a thread of its own."""
    graph = build(stage)
    threads = itertools.count()

    def start() -> Callable[[str], object]:
        config: Any = {"configurable": {"thread_id": f"t{next(threads)}"}, "recursion_limit": 100}
        return lambda question: graph.invoke({"messages": [("human", question)]}, config)

    converse(stage, sessions, start)


SUPERVISOR = Program(
    "supervisor",
    "LangGraph supervisor with three agents",
    supervised,
    static=(SUPERVISOR_TEXT, *AGENT_TEXTS.values()),
    short=3,
    long=10,
    answers=supervising,
)
