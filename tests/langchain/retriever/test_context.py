"""Documents as content blocks, prompts that put them where they can be cached, and what spoils it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.runnables import RunnablePassthrough
from langchain_kit import EPHEMERAL_1H, POINT_1H, MakeModel, sent, told
from langgraph.graph import START, MessagesState, StateGraph
from retriever_kit import PAGES, Found

from cachepoint.core.planning.policy import CachePolicy
from cachepoint.emulator import BedrockEmulator
from cachepoint.errors import CachepointWarning
from cachepoint.langchain import StableOrderRetriever, cached_context_prompt, context_blocks, stable_order

Json = dict[str, Any]
CHAPTERS = tuple(Document(f"{page.page_content} " * 60, id=page.id) for page in PAGES[:3])
"""About 900 tokens each."""
HISTORY = [HumanMessage("Hello?"), AIMessage("Hello.")]


def texts(message: BaseMessage) -> list[str]:
    return [block["text"] for block in message.content if isinstance(block, dict)]


class TestBlocks:
    def test_each_document_is_a_block_under_a_label_made_of_its_content(self) -> None:
        alone, first = context_blocks(CHAPTERS[:1])[0], context_blocks(CHAPTERS)[0]
        assert alone["text"] == first["text"]
        assert context_blocks(CHAPTERS[1:])[0]["text"] == context_blocks(CHAPTERS)[1]["text"]

    def test_a_source_is_named_and_a_user_may_write_the_text(self) -> None:
        found = Document("Tea is a drink.", metadata={"source": 'the "tea" page'})
        assert "source='the \"tea\" page'" in context_blocks([found])[0]["text"]
        assert context_blocks([found], render=lambda document: document.page_content)[0]["text"] == "Tea is a drink."

    def test_only_the_last_is_said_to_end_the_context(self) -> None:
        assert [("extras" in block) for block in context_blocks(CHAPTERS)] == [False, False, True]
        assert context_blocks([]) == []

    def test_blocks_are_plain_json(self) -> None:
        blocks = context_blocks(CHAPTERS, ttl="1h")
        assert json.loads(json.dumps(blocks)) == blocks


class TestWhatTheModelIsTold:
    def asked(self, make_model: MakeModel, mode: Any = "auto", **blocks: Any) -> AIMessage:
        model = make_model(prompt_cache=CachePolicy(mode=mode))
        return model.invoke([HumanMessage([*context_blocks(CHAPTERS, **blocks), {"type": "text", "text": "Why?"}])])

    def test_the_planner_puts_a_checkpoint_where_the_context_ends(self, make_model: MakeModel) -> None:
        [point] = told(self.asked(make_model))["checkpoints"]
        assert point["path"] == "messages[0].content[3]"
        assert "end of a context block" in point["why"]

    def test_and_leaves_it_where_it_does_not_pay(self, make_model: MakeModel, emulator: BedrockEmulator) -> None:
        model = make_model()
        for number in range(30):
            pages = [Document(f"{number}: {chapter.page_content}") for chapter in CHAPTERS]
            answer = model.invoke([HumanMessage([*context_blocks(pages), {"type": "text", "text": "Why?"}])])
        assert told(answer)["checkpoints"] == []

    def test_a_ttl_asks_for_a_checkpoint(self, make_model: MakeModel, emulator: BedrockEmulator) -> None:
        self.asked(make_model, "explicit", ttl="1h")
        assert sent(emulator)[0]["messages"][0]["content"][3] == POINT_1H

    @pytest.mark.parametrize("mode", ["explicit", "observe", "off"])
    def test_nothing_of_it_goes_over_the_wire(
        self, make_model: MakeModel, emulator: BedrockEmulator, mode: str
    ) -> None:
        self.asked(make_model, mode)
        assert sent(emulator)[0]["messages"] == [
            {
                "role": "user",
                "content": [*({"text": block["text"]} for block in context_blocks(CHAPTERS)), {"text": "Why?"}],
            }
        ]

    def test_observe_predicts_what_auto_does(self, make_model: MakeModel) -> None:
        observed, done = (told(self.asked(make_model, mode)) for mode in ("observe", "auto"))
        assert observed["checkpoints"] == done["checkpoints"]

    def test_a_context_in_the_system_prompt_ends_there(self, make_model: MakeModel) -> None:
        system = SystemMessage([*context_blocks(CHAPTERS), {"type": "text", "text": "It is 2026-11-22 10:15."}])
        answer = make_model().invoke([system, HumanMessage("Why?")])
        # the third chapter, behind two checkpoints that cost nothing
        assert [point["path"] for point in told(answer)["checkpoints"]] == ["system[1]", "system[3]", "system[5]"]

    async def test_every_way_to_call_is_told(self, make_model: MakeModel) -> None:
        def about(question: str) -> list[HumanMessage]:
            return [HumanMessage([*context_blocks(CHAPTERS), {"type": "text", "text": question}])]

        model = make_model()
        model.invoke(about("Why?"))
        await model.ainvoke(about("When?"))
        list(model.stream(about("Who?")))
        assert [chunk async for chunk in model.astream(about("Where?"))]
        assert [record.status for record in model.ledger.records] == ["written", "hit", "hit", "hit"]


class TestPrompt:
    def test_documents_and_question_come_last_by_default(self) -> None:
        said = {"context": CHAPTERS, "input": "Why {this}?", "chat_history": HISTORY}
        system, *history, last = cached_context_prompt("Be {brief}.").invoke(said).to_messages()
        assert system.content == "Be {brief}."
        assert history == HISTORY
        assert texts(last)[-1] == "Why {this}?"
        assert len(last.content) == 4

    def test_documents_come_first_where_all_questions_are_about_them(self) -> None:
        prompt = cached_context_prompt(documents="first")
        first = prompt.invoke({"context": CHAPTERS, "input": "Hello?"}).to_messages()
        second = prompt.invoke({"context": CHAPTERS, "input": "Why?", "chat_history": HISTORY}).to_messages()
        assert second[:2] == first
        assert second[-1].content == [{"type": "text", "text": "Why?"}]

    def test_the_context_may_be_text_or_blocks_and_the_variables_have_any_name(self) -> None:
        prompt = cached_context_prompt(context="found", question="question", history="before")
        for context in ("Tea is a drink.", context_blocks([Document("Tea is a drink.")])):
            said = {"found": context, "question": "Tea?", "before": [("human", "Hi"), ("ai", "Hi.")]}
            assert "Tea is a drink." in texts(prompt.invoke(said).to_messages()[-1])[0]
        assert cached_context_prompt().input_variables == ["context", "input"]

    def test_the_end_of_the_context_is_told_where_the_same_documents_come_again(self) -> None:
        for context in ("Tea is a drink.", CHAPTERS):
            for documents, recurring in (("first", True), ("last", False)):
                prompt = cached_context_prompt(documents="first" if documents == "first" else "last")
                assert ("context_end" in str(prompt.invoke({"context": context, "input": "Why?"}))) is recurring

    def test_no_documents_are_no_block(self) -> None:
        [_, asked] = cached_context_prompt().invoke({"context": [], "input": "Why?"}).to_messages()
        assert asked.content == [{"type": "text", "text": "Why?"}]

    def test_a_chain_reads_documents_that_come_again_in_any_order(self, make_model: MakeModel) -> None:
        found = iter([CHAPTERS, CHAPTERS[::-1], (CHAPTERS[1], *CHAPTERS[::2]), CHAPTERS])
        retriever = StableOrderRetriever(retriever=lambda _: next(found))
        chain = {"context": retriever, "input": RunnablePassthrough()} | cached_context_prompt() | make_model()
        statuses = [told(chain.invoke(question))["status"] for question in ("Why?", "When?", "Who?", "Where?")]
        assert statuses == ["uncached", "written", "hit", "hit"]

    def test_documents_that_never_come_again_are_never_written(self, make_model: MakeModel) -> None:
        model = make_model()
        chain = cached_context_prompt() | model
        for number in range(12):
            pages = [Document(f"{number}: {chapter.page_content}") for chapter in CHAPTERS]
            chain.invoke({"context": pages, "input": "Why?"})
        assert model.ledger.totals().usage.cache_write == 0

    def test_questions_about_one_document_read_it_and_the_history(self, make_model: MakeModel) -> None:
        chain = cached_context_prompt(documents="first") | make_model()
        history: list[Any] = []
        statuses = []
        for question in ("Why?", "When?", "Who?"):
            answer = chain.invoke({"context": CHAPTERS, "input": question, "chat_history": history})
            history += [HumanMessage(question), answer]
            statuses.append(told(answer)["status"])
        assert statuses[0] == "written"
        assert not {"written", "uncached"} & set(statuses[1:])

    def test_the_documents_of_a_turn_are_not_written_however_long_a_question_was(
        self, make_model: MakeModel, emulator: BedrockEmulator
    ) -> None:
        chain = cached_context_prompt("Be brief.") | make_model()
        history: list[Any] = []
        for number in range(8):
            pages = [Document(f"{number}: {chapter.page_content}") for chapter in CHAPTERS]
            question = f"Why {number}? " * (1 if number else 400)
            answer = chain.invoke({"context": pages, "input": question, "chat_history": history})
            history += [HumanMessage(question), answer]
        last_turns = [body["messages"][-1]["content"] for body in sent(emulator)]
        assert [sum("cachePoint" in block for block in content) for content in last_turns] == [0] * 8
        assert told(answer)["status"] in ("hit", "extended")

    def test_a_history_with_the_same_documents_again_and_again_reads_them(self, make_model: MakeModel) -> None:
        chain = cached_context_prompt("Be brief.") | make_model()
        said = {"context": CHAPTERS, "input": "Why?", "chat_history": HISTORY}
        assert [told(chain.invoke(said))["status"] for _ in range(5)][-1] == "hit"

    def test_a_retrieval_chain_takes_it(self, make_model: MakeModel) -> None:
        chains = pytest.importorskip("langchain_classic.chains", reason="langchain-classic is not installed")
        combine = pytest.importorskip("langchain_classic.chains.combine_documents")
        retriever = StableOrderRetriever(retriever=Found(documents=CHAPTERS))
        model = make_model()
        for answering in (
            cached_context_prompt() | model | StrOutputParser(),
            combine.create_stuff_documents_chain(model, cached_context_prompt()),
        ):
            chain = chains.create_retrieval_chain(retriever, answering)
            for _ in range(3):
                assert chain.invoke({"input": "Why?"})["answer"]
        assert [model.ledger.records[last].status for last in (2, 5)] == ["hit", "hit"]

    def test_a_graph_takes_it(self, make_model: MakeModel) -> None:
        retriever = StableOrderRetriever(retriever=Found(documents=CHAPTERS))
        answering = cached_context_prompt() | make_model()

        def answer(state: MessagesState) -> Json:
            *history, asked = state["messages"]
            question = asked.text
            said = {"context": retriever.invoke(question), "input": question, "chat_history": history}
            return {"messages": [answering.invoke(said)]}

        graph = StateGraph(MessagesState).add_node(answer).add_edge(START, "answer").compile()
        first = graph.invoke({"messages": [HumanMessage("Why?")]})
        second = graph.invoke({"messages": [*first["messages"], HumanMessage("When?")]})
        assert len(second["messages"]) == 4
        assert "document id=" not in str(second["messages"])


class TestWarnings:
    def test_a_later_step_that_reorders_is_told(self) -> None:
        with pytest.warns(CachepointWarning, match="reordered"):
            context_blocks(stable_order(CHAPTERS)[::-1])

    def test_langchains_own_reordering_is_told(self) -> None:
        transformers = pytest.importorskip(
            "langchain_community.document_transformers", reason="langchain-community is not installed"
        )
        with pytest.warns(CachepointWarning, match="LongContextReorder"):
            context_blocks(transformers.LongContextReorder().transform_documents(stable_order(PAGES)))

    def test_scores_in_the_text_are_told(self) -> None:
        scored = [
            document.model_copy(update={"page_content": f"{document.page_content}\nRelevance score: 0.8{number}"})
            for number, document in enumerate(stable_order(CHAPTERS))
        ]
        with pytest.warns(CachepointWarning, match="scores"):
            context_blocks(scored)

    def test_steps_that_keep_the_order_pass(self) -> None:
        shorter = [
            document.model_copy(update={"page_content": document.page_content[:50]})
            for document in stable_order(CHAPTERS)[1:]
        ]
        assert len(context_blocks(shorter)) == 2

    def test_two_ordered_lists_side_by_side_pass(self) -> None:
        assert len(context_blocks([*stable_order(CHAPTERS), *stable_order(PAGES[3:])])) == 8

    def test_reordering_is_told_also_beside_another_list(self) -> None:
        last, *_, first = stable_order(CHAPTERS)[::-1]
        with pytest.warns(CachepointWarning, match="reordered"):
            context_blocks([last, *stable_order(PAGES[3:]), first])

    def test_documents_that_were_never_ordered_pass(self) -> None:
        assert len(context_blocks([Document("Similarity: 0.93 was the score.")])) == 1


def test_a_mark_of_the_users_own_stays_behind_its_block(make_model: MakeModel, emulator: BedrockEmulator) -> None:
    *before, last = context_blocks(CHAPTERS)
    marked = {**last, "cache_control": EPHEMERAL_1H}
    make_model().invoke([HumanMessage([*before, marked, {"type": "text", "text": "Why?"}])])
    assert sent(emulator)[0]["messages"][0]["content"][3] == POINT_1H
