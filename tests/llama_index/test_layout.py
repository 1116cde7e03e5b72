"""Question and answer: what stands where in a prompt, so that the next one begins alike."""

from __future__ import annotations

from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatMessage, TextBlock
from llama_index.core.prompts import BasePromptTemplate, ChatPromptTemplate, PromptTemplate, RichPromptTemplate
from llama_index.core.prompts.default_prompt_selectors import DEFAULT_TEXT_QA_PROMPT_SEL
from llama_index.core.query_engine import CitationQueryEngine, RetrieverQueryEngine
from llama_index_kit import CONNECTION, LONG, MODEL, sent, without_points
from nodes_kit import Shuffled, model

from cachepoint.emulator import BedrockEmulator
from cachepoint.errors import ConfigurationError
from cachepoint.llama_index import (
    CacheAwareBedrockConverse,
    CachedContextSynthesizer,
    StableOrderPostprocessor,
    cached_qa_template,
)


@pytest.fixture
def llm(emulator: BedrockEmulator) -> CacheAwareBedrockConverse:
    return model(emulator)


def query_engine(llm: CacheAwareBedrockConverse, **settings: Any) -> RetrieverQueryEngine:
    return RetrieverQueryEngine.from_args(
        Shuffled(), llm=llm, node_postprocessors=[StableOrderPostprocessor()], **settings
    )


def test_the_template_gives_the_question_a_block_of_its_own(
    llm: CacheAwareBedrockConverse, emulator: BedrockEmulator
) -> None:
    engine = query_engine(llm, text_qa_template=cached_qa_template())
    engine.query("Where is beta?")
    engine.query("Where is gamma?")
    content = sent(emulator)[-1]["messages"][0]["content"]
    assert [block for block in content if "text" in block][-1] == {"text": "Question: Where is gamma?"}
    assert llm.ledger.records[-1].usage.cache_read > 1_200  # type: ignore[union-attr]


def test_the_template_as_a_completion_prompt_is_text_alone() -> None:
    prompt = cached_qa_template().format(context_str="Tea is a drink.", query_str="What is tea?")
    assert prompt.endswith("user: Context:\nTea is a drink.\nQuestion: What is tea?\nassistant: ")


def test_the_synthesizer_gives_each_document_a_block(llm: CacheAwareBedrockConverse, emulator: BedrockEmulator) -> None:
    engine = query_engine(llm, response_synthesizer=CachedContextSynthesizer(llm=llm))
    engine.query("Where is beta?")
    engine.query("Where is gamma?")
    blocks = [block["text"] for block in sent(emulator)[-1]["messages"][0]["content"] if "text" in block]
    assert [block.split()[0] for block in blocks[1:5]] == ["alpha", "beta", "delta", "gamma"]
    assert blocks[5] == "Question: Where is gamma?"
    assert llm.ledger.records[-1].usage.cache_read > 1_200  # type: ignore[union-attr]


async def test_the_synthesizer_streams_and_awaits(llm: CacheAwareBedrockConverse, emulator: BedrockEmulator) -> None:
    emulator.script(*["In part two."] * 3)
    whole = query_engine(llm, response_synthesizer=CachedContextSynthesizer(llm=llm))
    streaming = query_engine(llm, response_synthesizer=CachedContextSynthesizer(llm=llm, streaming=True))
    assert str(await whole.aquery("Where?")) == "In part two."
    assert str(streaming.query("Where?")) == "In part two."
    asynchronous: Any = await streaming.aquery("Where?")
    assert "".join([token async for token in asynchronous.async_response_gen()]) == "In part two."


def test_braces_in_documents_and_questions_are_left_alone(
    llm: CacheAwareBedrockConverse, emulator: BedrockEmulator
) -> None:
    CachedContextSynthesizer(llm=llm).get_response("What is {context_str}?", ["a {query_str} template"])
    blocks = [block["text"] for block in sent(emulator)[-1]["messages"][0]["content"] if "text" in block]
    assert blocks == ["Context:\n", "a {query_str} template\n\n", "Question: What is {context_str}?"]


@pytest.mark.parametrize("question", ["Why?", f"Why? {LONG}"], ids=["short", "long"])
def test_too_many_documents_are_read_in_rounds_that_do_not_depend_on_the_question(
    question: str, emulator: BedrockEmulator
) -> None:
    llm = CacheAwareBedrockConverse(model=MODEL, endpoint_url=emulator.url, context_window=8_000, **CONNECTION)
    emulator.script("First answer.", "Better answer.")
    found = [f"{name} {LONG}" for name in ("alpha", "beta")]
    assert CachedContextSynthesizer(llm=llm).get_response(question, found) == "Better answer."
    first, second = (str(request["messages"]) for request in sent(emulator))
    assert ("alpha" in first, "beta" in first) == (True, False)
    assert ("beta" in second, "First answer." in second) == (True, True)


# -- templates -------------------------------------------------------------------------------------

TEMPLATES: dict[str, BasePromptTemplate] = {
    "text": PromptTemplate("{context_str}\nIn {words} words: {query_str}").partial_format(words="ten"),
    "rich": RichPromptTemplate("{{ context_str }}\nIn ten words: {{ query_str }}"),
    "rich chat": RichPromptTemplate(
        '{% chat role="system" %}Be brief.{% endchat %}'
        '{% chat role="user" %}{{ context_str }}\nIn ten words: {{ query_str }}{% endchat %}'
    ),
    "chat": ChatPromptTemplate.from_messages([("system", "Be brief."), ("user", "{context_str} {query_str}")]),
    "by model": DEFAULT_TEXT_QA_PROMPT_SEL,
    "other names": PromptTemplate(
        "{found} {query_str}",
        template_var_mappings={"context_str": "found"},
        function_mappings={"query_str": lambda query_str, **_: f"Please: {query_str}"},
    ),
}


@pytest.mark.parametrize("kind", TEMPLATES)
def test_any_template_has_a_block_a_document_and_the_question_behind_them(
    kind: str, llm: CacheAwareBedrockConverse, emulator: BedrockEmulator
) -> None:
    synthesizer = CachedContextSynthesizer(llm=llm, text_qa_template=TEMPLATES[kind])
    synthesizer.get_response("Where is {{ tea }}?", ["{query_str} one", "{{ context_str }} two"])
    blocks = [block["text"] for block in sent(emulator)[-1]["messages"][-1]["content"] if "text" in block]
    assert blocks[-3:-1] == ["{query_str} one\n\n", "{{ context_str }} two\n\n"]
    assert "Where is {{ tea }}?" in blocks[-1]


def test_a_query_engines_templates_can_be_exchanged(llm: CacheAwareBedrockConverse, emulator: BedrockEmulator) -> None:
    engine = query_engine(llm, response_synthesizer=CachedContextSynthesizer(llm=llm))
    engine.update_prompts({"response_synthesizer:text_qa_template": TEMPLATES["rich"]})
    engine.query("Where?")
    assert "In ten words: Where?" in str(sent(emulator)[-1]["messages"])


@pytest.mark.parametrize("given", ["{context_str} {query_str}", 7])
def test_what_is_no_template_is_refused(given: Any, llm: CacheAwareBedrockConverse) -> None:
    with pytest.raises(ConfigurationError, match=rf"text_qa_template is a {type(given).__name__}.*PromptTemplate"):
        CachedContextSynthesizer(llm=llm, text_qa_template=given)


def test_a_template_without_a_place_for_documents_is_refused(
    llm: CacheAwareBedrockConverse, emulator: BedrockEmulator
) -> None:
    synthesizer = CachedContextSynthesizer(llm=llm, text_qa_template=PromptTemplate("{found}: {query_str}"))
    with pytest.raises(ConfigurationError, match=r"'found', 'query_str'.*needs context_str.*template_var_mappings"):
        synthesizer.get_response("Where?", ["one"])
    assert sent(emulator) == []


def test_white_space_around_the_documents_is_no_block(
    llm: CacheAwareBedrockConverse, emulator: BedrockEmulator
) -> None:
    template = ChatPromptTemplate(
        message_templates=[ChatMessage(blocks=[TextBlock(text="\n{context_str}\n"), TextBlock(text="{query_str}")])]
    )
    CachedContextSynthesizer(llm=llm, text_qa_template=template).get_response("Where?", ["one"])
    assert sent(emulator)[-1]["messages"][0]["content"] == [{"text": "one\n\n"}, {"text": "Where?"}]


# -- citations -------------------------------------------------------------------------------------


def test_the_template_asks_for_the_labels_that_documents_have(
    llm: CacheAwareBedrockConverse, emulator: BedrockEmulator
) -> None:
    engine = RetrieverQueryEngine.from_args(
        Shuffled(),
        llm=llm,
        node_postprocessors=[StableOrderPostprocessor(labels=True)],
        response_synthesizer=CachedContextSynthesizer(llm=llm, text_qa_template=cached_qa_template(cite=True)),
    )
    response: Any = engine.query("Where is beta?")
    request = sent(emulator)[-1]
    assert "cite_as in square brackets" in request["system"][0]["text"]
    labels = [item.node.metadata["cite_as"] for item in response.source_nodes]
    blocks = [block["text"] for block in request["messages"][0]["content"] if "text" in block][1:-1]
    assert [block.partition("\n")[0] for block in blocks] == [f"cite_as: {label}" for label in labels]


async def test_a_citation_engine_has_the_same_numbers_for_the_same_sources(
    llm: CacheAwareBedrockConverse, emulator: BedrockEmulator
) -> None:
    def engine() -> CitationQueryEngine:
        retriever = Shuffled()
        retriever.retrieve("so that the next one finds another order")
        return CitationQueryEngine(retriever, llm=llm, node_postprocessors=[StableOrderPostprocessor()])

    first: Any = engine().query("Where?")
    second: Any = await engine().aquery("Where?")
    assert [item.node.get_content() for item in first.source_nodes] == [
        item.node.get_content() for item in second.source_nodes
    ]
    one, other = (without_points(request)["messages"] for request in sent(emulator))
    assert one == other


@pytest.mark.parametrize("given", [PromptTemplate("Be {how}.", how="brief"), RichPromptTemplate("Be brief.")])
def test_the_system_text_may_be_a_template_that_is_filled(given: BasePromptTemplate) -> None:
    assert cached_qa_template(given).message_templates[0].content == "Be brief."


def test_a_system_text_that_is_not_filled_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"system is a template whose variables \['how'\].*partial_format"):
        cached_qa_template(PromptTemplate("Be {how}."))
