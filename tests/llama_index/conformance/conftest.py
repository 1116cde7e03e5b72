"""The LLMs under test, and the factory fixture through which each test makes one.

To put another LLM through the suite, add a Candidate. Every test runs once for each, against an emulator of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index_kit import CHAT_METHODS, COMPLETE_METHODS, CONNECTION, METHODS, MODEL, MakeLLM

from cachepoint.emulator import BedrockEmulator
from cachepoint.llama_index import CacheAwareBedrockConverse


@dataclass(frozen=True)
class Candidate:
    """An LLM class under test.

    `make` takes the settings every Bedrock LLM of LlamaIndex has. `fails` names the tests that fail, with the reason; a
    key may carry a parameter, as in `test_name[chat]`. One that passes all the same fails the suite.
    """

    name: str
    make: MakeLLM
    fails: Mapping[str, str] = field(default_factory=dict)


def on(test: str, parameters: Iterable[str], reason: str) -> dict[str, str]:
    """The same reason for several parameters of a test."""
    return {f"{test}[{parameter}]": reason for parameter in parameters}


STREAMS = [method for method in METHODS if "stream" in method]
CAMEL_CASE = 'raw["usage"] has names TokenCountingHandler does not know, so it estimates'
TTL_DROPPED = "the TTL of a CachePoint is dropped"
BLANK_STREAM = "streamed tool calls lack the key by which LlamaIndex finds them, so every object is blank"
OUTER_EVENT = "as_structured_llm announces a second call around each, which has no usage and is estimated"
STRUCTURED = [*CHAT_METHODS, "complete", "acomplete"]
NOT_ON_THIS_PATH = "only predict, stream and the synchronous structured prediction send llm.system_prompt"

BEDROCK_CONVERSE_FAILS: Mapping[str, str] = {
    # checkpoints
    **on(
        "test_a_cache_point_is_sent_where_it_stands_with_its_ttl", ["system-1h", "user-1h", "assistant-1h"], TTL_DROPPED
    ),
    "test_a_cache_point_in_a_tools_result_is_sent_behind_it": "it is sent inside the result, which botocore refuses",
    "test_a_cache_point_of_another_providers_type_is_not_rewritten": "the caller's block is rewritten",
    "test_cache_control_on_a_message_is_a_checkpoint_behind_it": "cache_control on a message is ignored",
    "test_the_contextual_retrieval_extractor_works": "extra_headers is sent on, and the extractor swallows the error",
    "test_more_points_than_the_service_takes_are_reduced": "more than four checkpoints are sent",
    "test_a_cache_point_with_nothing_before_it_does_no_harm": "a leading checkpoint is sent",
    "test_a_cache_point_for_a_model_without_caching_does_no_harm[user]": "only those in system are checked by model",
    "test_a_tool_point_for_a_model_that_refuses_it_does_no_harm": "the checkpoint after tools is not checked by model",
    # prefixes
    "test_system_messages_stay_blocks_of_their_own": "they are joined to one text",
    "test_a_late_system_message_leaves_the_prefix_alone": "it is moved to the front, or the model id is not known",
    **on("test_the_system_prompt_reaches_the_model", METHODS, NOT_ON_THIS_PATH),
    "test_every_path_to_the_model_has_the_same_prefix": NOT_ON_THIS_PATH,
    "test_synchronous_and_asynchronous_structured_prediction_share_one_prefix": NOT_ON_THIS_PATH,
    # usage
    "test_token_counting_is_exact_and_counts_a_call_once": CAMEL_CASE,
    "test_cached_tokens_are_counted_as_prompt_tokens": CAMEL_CASE,
    "test_structured_prediction_counts_its_call_once": CAMEL_CASE,
    "test_an_agents_output_has_the_usage": "a stream's raw has the usage elsewhere than a whole response's",
    **on("test_raw_has_the_same_shape_on_every_path", STREAMS, "a stream's raw is its last event alone"),
    **on("test_instrumentation_sees_one_call_as_one", COMPLETE_METHODS, "complete calls the decorated chat"),
    **on("test_a_structured_llm_is_one_call", STRUCTURED, OUTER_EVENT),
    **on("test_a_structured_llms_tokens_are_counted_once", STRUCTURED, OUTER_EVENT),
    # tools and structured output
    **on(
        "test_a_tool_choice_is_sent_as_converse_has_it",
        ["{'tool_choice': 'auto'}-{'auto': {}}", "{'tool_choice': 'required'}-{'any': {}}"],
        "every string is taken for a tool's name",
    ),
    "test_a_model_that_thinks_is_not_forced": "a tool is forced while the model thinks, which Claude refuses",
    "test_a_stream_has_one_call_where_no_parallel_ones_are_allowed": "calls that were not allowed are streamed",
    "test_the_callers_history_does_not_grow": "the user's message is appended to the caller's list",
    "test_streamed_structured_prediction_ends_with_the_object": BLANK_STREAM,
    "test_asynchronously_streamed_structured_prediction_ends_with_the_object": BLANK_STREAM,
    "test_a_structured_llm_answers_with_the_object": BLANK_STREAM,
    "test_a_structured_llm_streams_asynchronously": BLANK_STREAM,
    "test_an_agent_that_stops_early_says_so": "tool calls in the history are sent without a toolConfig",
    # content
    "test_a_documents_title_is_made_a_name_the_service_takes": "titles are sent as they are",
    "test_documents_of_one_title_get_different_names": "titles are sent as they are",
    "test_a_citable_source_is_sent_as_a_search_result": "citable blocks are dropped",
    "test_redacted_thinking_survives_its_replay": "redacted thinking is dropped",
    # the object
    "test_a_model_nobody_has_heard_of_is_served": "an unknown model id raises ValueError",
    "test_no_region_is_needed_until_the_first_call": "the client is made at once",
    "test_it_pickles": "its client does not come back",
    "test_json_brings_back_where_it_calls_and_keeps_no_secret": "Region and endpoint are left out",
}

CANDIDATES = {"ours": Candidate("ours", CacheAwareBedrockConverse)}
try:
    from llama_index.llms.bedrock_converse import BedrockConverse
except ImportError:  # it is in the dependency group `conformance`, which not every environment has
    pass
else:
    CANDIDATES["BedrockConverse"] = Candidate("BedrockConverse", BedrockConverse, BEDROCK_CONVERSE_FAILS)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "candidate" in metafunc.fixturenames:
        metafunc.parametrize("candidate", CANDIDATES.values(), ids=CANDIDATES.keys())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        callspec = getattr(item, "callspec", None)
        if callspec is None or not isinstance(candidate := callspec.params.get("candidate"), Candidate):
            continue
        name = item.name.split("[")[0]
        parameter = "-".join(part for part in callspec.id.split("-") if part != candidate.name)
        reason = candidate.fails.get(f"{name}[{parameter}]", candidate.fails.get(name))
        if reason:
            item.add_marker(pytest.mark.xfail(reason=reason, strict=True))
        if candidate.name != "ours":
            item.add_marker(pytest.mark.long(f"{candidate.name} is not ours: what it fails changes with its releases"))


@pytest.fixture
def make_llm(candidate: Candidate, emulator: BedrockEmulator) -> MakeLLM:
    def make(**settings: Any) -> FunctionCallingLLM:
        usual = {"model": MODEL, "endpoint_url": emulator.url, "max_retries": 1, **CONNECTION}
        return candidate.make(**{**usual, **settings})

    return make


@pytest.fixture
def bedrock_converse_fails() -> Mapping[str, str]:
    return BEDROCK_CONVERSE_FAILS
