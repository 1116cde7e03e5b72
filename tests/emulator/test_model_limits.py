"""What one model takes and another refuses, by the model table; ended and unknown models; stored prompts."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError
from emulator.conftest import LONG_TEXT, SONNET, ask

import cachepoint
from cachepoint.catalogue.table import load_rules
from cachepoint.core.provider.rules import ModelRule
from cachepoint.emulator import BedrockEmulator, Clock, Options

# By the model table: thinks always and takes no forced tool; thinks always but can be forced; thinks by default.
SONNET_5_5, FABLE_5, SONNET_5 = (f"us.anthropic.claude-{name}" for name in ("sonnet-5-5", "fable-5", "sonnet-5"))
OPUS_4_8, OPUS_4_7 = "us.anthropic.claude-opus-4-8", "us.anthropic.claude-opus-4-7"
HAIKU_4_5 = "us.anthropic.claude-haiku-4-5-20251001-v1:0"
NOVA = "us.amazon.nova-pro-v1:0"

ALWAYS_THINKS = (
    '"thinking.type.disabled" is not supported for this model. Thinking defaults to adaptive mode when not specified; '
    'use "thinking.type.enabled" with "budget_tokens" for extended thinking.'
)
NO_FORCED_TOOL = 'tool_choice: type "tool" and "any" are not supported for this model.'
NO_SYSTEM_ROLE = "role 'system' is not supported on this model"
UNEXPECTED_ROLE = (
    'messages: Unexpected role "system". The Messages API accepts a top-level `system` parameter, not "system" as an '
    "input message role."
)

DISABLED: dict[str, Any] = {"thinking": {"type": "disabled"}}
LAMP = {"toolSpec": {"name": "lamp", "inputSchema": {"json": {"type": "object"}}}}
LATE = [{"role": "user", "content": [{"text": "Hello"}]}, {"role": "system", "content": [{"text": "Be brief."}]}]


def refusal(call: Callable[[], Any]) -> str:
    """The text a call is refused with, "" where it is served."""
    try:
        call()
    except ClientError as refused:
        error = refused.response["Error"]
        return str(error["Message"]) if error["Code"] == "ValidationException" else repr(refused)
    return ""


def converse(client: Any, model: str, **request: Any) -> str:
    return refusal(lambda: client.converse(**{"modelId": model, "messages": ask(), **request}))


def invoke(client: Any, model: str, **body: Any) -> str:
    usual = {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 9}
    body = {**usual, "messages": [{"role": "user", "content": "Hello"}], **body}
    return refusal(lambda: client.invoke_model(modelId=model, body=json.dumps(body)))


def prefixed(text: str) -> str:
    """A model's refusal as Converse passes it on."""
    return text and f"The model returned the following errors: {text}"


@pytest.mark.parametrize(("model", "text"), [(SONNET_5_5, ALWAYS_THINKS), (FABLE_5, ALWAYS_THINKS), (SONNET_5, "")])
def test_thinking_that_is_always_on_cannot_be_turned_off(client: Any, model: str, text: str) -> None:
    assert converse(client, model, additionalModelRequestFields=DISABLED) == prefixed(text)
    assert invoke(client, model, **DISABLED) == text


@pytest.mark.parametrize("fields", [{}, {"thinking": {"type": "adaptive"}}], ids=["absent", "adaptive"])
def test_thinking_that_is_always_on_need_not_be_named(client: Any, fields: dict[str, Any]) -> None:
    assert converse(client, SONNET_5_5, additionalModelRequestFields=fields) == ""


@pytest.mark.parametrize("choice", [{"any": {}}, {"tool": {"name": "lamp"}}, {"auto": {}}], ids=["any", "tool", "auto"])
@pytest.mark.parametrize(("model", "forces"), [(SONNET_5_5, False), (FABLE_5, True), (SONNET, True)])
def test_a_forced_tool_is_refused_by_the_models_that_take_none(
    client: Any, model: str, forces: bool, choice: dict[str, Any]
) -> None:
    kind = next(iter(choice))
    text = "" if forces or kind == "auto" else NO_FORCED_TOOL
    assert converse(client, model, toolConfig={"tools": [LAMP], "toolChoice": choice}) == prefixed(text)
    tools = [{"name": "lamp", "input_schema": {"type": "object"}}]
    assert invoke(client, model, tools=tools, tool_choice={"type": kind, **choice[kind]}) == text


SAID = [{"role": "user", "content": "Hello"}, {"role": "system", "content": "Be brief."}]


@pytest.mark.parametrize(
    ("model", "text", "to_invoke_model"),
    [
        (OPUS_4_8, NO_SYSTEM_ROLE, ""),  # InvokeModel by the table; of Converse sources disagree
        (SONNET_5_5, NO_SYSTEM_ROLE, NO_SYSTEM_ROLE),  # of both sources disagree
        (SONNET_5, NO_SYSTEM_ROLE, NO_SYSTEM_ROLE),
        (OPUS_4_7, NO_SYSTEM_ROLE, NO_SYSTEM_ROLE),
        (HAIKU_4_5, UNEXPECTED_ROLE, UNEXPECTED_ROLE),
    ],
)
def test_late_system_messages_are_taken_where_a_row_says_so(
    client: Any, model: str, text: str, to_invoke_model: str
) -> None:
    assert converse(client, model, messages=LATE) == prefixed(text)
    assert invoke(client, model, messages=SAID) == to_invoke_model


@pytest.mark.parametrize(("model", "text"), [(OPUS_4_8, ""), (SONNET_5_5, ""), (SONNET_5, NO_SYSTEM_ROLE)])
def test_where_sources_disagree_an_option_has_them_taken(model: str, text: str) -> None:
    with BedrockEmulator(options=Options(disputed_system_turns=True)) as emulator:
        client = emulator.client()
        assert converse(client, model, messages=LATE) == prefixed(text)
        assert invoke(client, model, messages=SAID) == text


def test_late_system_messages_are_refused_by_other_models(client: Any) -> None:
    assert converse(client, NOVA, messages=LATE) == prefixed(NO_SYSTEM_ROLE)


TOOLS: dict[str, Any] = {"tools": [LAMP]}
LLAMA, R1 = "us.meta.llama3-3-70b-instruct-v1:0", "us.deepseek.r1-v1:0"
BUDGET: dict[str, Any] = {"thinking": {"type": "enabled", "budget_tokens": 1024}}
ADAPTIVE: dict[str, Any] = {"thinking": {"type": "adaptive"}}
NO_BUDGET = (
    '"thinking.type.enabled" is not supported for this model. Use "thinking.type.adaptive" and "output_config.effort" '
    "to control thinking behavior."
)
NO_ADAPTIVE = (
    "thinking: Input tag 'adaptive' found using 'type' does not match any of the expected tags: 'disabled', 'enabled'"
)
FORCED = {"tools": [LAMP], "toolChoice": {"any": {}}}


@pytest.mark.parametrize(
    "model",
    [R1, "amazon.titan-text-express-v1", "mistral.mistral-7b-instruct-v0:2", "meta.llama3-8b-instruct-v1:0"],
)
def test_tools_are_refused_by_models_that_call_none(client: Any, model: str) -> None:
    assert converse(client, model, toolConfig=TOOLS) == "This model doesn't support tool use."
    streamed = refusal(lambda: client.converse_stream(modelId=model, messages=ask(), toolConfig=TOOLS))
    assert streamed == "This model doesn't support tool use in streaming mode."
    assert converse(client, model) == ""


@pytest.mark.parametrize("model", [LLAMA, "us.meta.llama4-scout-17b-instruct-v1:0"])
def test_llama_takes_tools_but_no_choice_of_any(client: Any, model: str) -> None:
    field = "toolConfig.toolChoice.any"
    text = f"This model doesn't support the {field} field. Remove {field} and try again."
    assert converse(client, model, toolConfig=FORCED) == text
    assert converse(client, model, toolConfig={"tools": [LAMP], "toolChoice": {"auto": {}}}) == ""


@pytest.mark.parametrize(
    ("model", "fields", "text"),
    [
        (SONNET, BUDGET, "Thinking may not be enabled when tool_choice forces tool use."),
        (SONNET, DISABLED, ""),
        (OPUS_4_8, ADAPTIVE, ""),
    ],
)
def test_a_forced_tool_with_thinking(client: Any, model: str, fields: dict[str, Any], text: str) -> None:
    assert converse(client, model, toolConfig=FORCED, additionalModelRequestFields=fields) == prefixed(text)
    tools = [{"name": "lamp", "input_schema": {"type": "object"}}]
    assert invoke(client, model, tools=tools, tool_choice={"type": "any"}, **fields) == text


@pytest.mark.parametrize(
    ("model", "fields", "text"),
    [
        (SONNET, ADAPTIVE, prefixed(NO_ADAPTIVE)),
        (OPUS_4_7, BUDGET, prefixed(NO_BUDGET)),
        (SONNET_5, BUDGET, prefixed(NO_BUDGET)),
        ("us.anthropic.claude-sonnet-4-6", ADAPTIVE, ""),
        ("us.anthropic.claude-sonnet-4-6", BUDGET, ""),
        (NOVA, BUDGET, prefixed("Malformed input request: #: extraneous key [thinking] is not permitted")),
    ],
)
def test_thinking_is_taken_as_far_as_the_model_has_it(
    client: Any, model: str, fields: dict[str, Any], text: str
) -> None:
    assert converse(client, model, additionalModelRequestFields=fields) == text


def test_thinking_is_refused_by_claude_before_3_7(client: Any) -> None:
    model = "anthropic.claude-3-5-sonnet-20241022-v2:0"
    assert converse(client, model, additionalModelRequestFields=BUDGET).endswith("does not support thinking.")
    assert converse(client, model, additionalModelRequestFields=DISABLED) == ""


@pytest.mark.parametrize(
    ("model", "tokens", "text"),
    [
        (SONNET, 200_000, "prompt is too long: "),
        (NOVA, 300_000, "Input Tokens Exceeded"),
        ("amazon.titan-text-express-v1", 8_192, "This model's maximum context length is 8192 tokens."),
        ("cohere.command-text-v14", 4_096, "This model's maximum context length is 4096 tokens."),
        ("mistral.mixtral-8x7b-instruct-v0:1", 32_000, "This model's maximum context length is 32000 tokens."),
    ],
)
def test_a_prompt_longer_than_the_context_window_is_refused(client: Any, model: str, tokens: int, text: str) -> None:
    # A word is about a token, and on Nova four fifths of one.
    longer, shorter = "word " * (tokens * 3 // 2), "word " * (tokens // 4)
    for said, refused in ((longer, True), (shorter, False)):
        answer = converse(client, model, messages=[{"role": "user", "content": [{"text": said}]}])
        assert (prefixed(text) in answer) if refused else answer == ""


@pytest.mark.parametrize(
    "model",
    [
        "us.unheard-of.model-v1:0",
        "anthropic.claude-does-not-exist-v1:0",
        "us.anthropic.claude-sonnet-99-v1:0",
        "amazon.nova-ultra-v1:0",
        "claude-sonnet-4-5",
    ],
)
def test_an_unknown_model_is_refused(client: Any, model: str) -> None:
    assert converse(client, model) == "The provided model identifier is invalid."
    assert invoke(client, model) == "The provided model identifier is invalid."


def test_an_unknown_model_is_served_where_the_test_says_what_it_is() -> None:
    model = "vendor.our-own-v1:0"
    row = ModelRule(name="ours", pattern=r"vendor\.our-own", explicit=False)
    for emulator in (BedrockEmulator(profiles={model: SONNET}), BedrockEmulator(rules=load_rules([row]))):
        assert converse(emulator.local_client(), model) == ""


# Nova Premier ended on 2026-09-14, which began at 1,789,344,000 seconds.
@pytest.mark.parametrize(("now", "ended"), [(1_789_343_999.0, False), (1_789_344_000.0, True)])
def test_a_model_is_served_until_its_end_of_life(now: float, ended: bool) -> None:
    client = BedrockEmulator(clock=Clock(lambda: now)).local_client()
    try:
        client.converse(modelId="us.amazon.nova-premier-v1:0", messages=ask())
        said = ""
    except client.exceptions.ResourceNotFoundException as refused:
        said = refused.response["Error"]["Message"]
    text = "This model version has reached the end of its life. Please refer to the AWS documentation for more details."
    assert said == (text if ended else "")


def test_ended_models_are_served_where_that_is_asked_for() -> None:
    emulator = BedrockEmulator(clock=Clock(lambda: 1_800_000_000.0), options=Options(serve_ended=True))
    assert converse(emulator.local_client(), "us.amazon.nova-premier-v1:0") == ""


def test_converse_is_refused_by_models_it_does_not_serve(client: Any) -> None:
    text = "This action doesn't support the model that you provided. Try again with a supported text or chat model."
    assert converse(client, "openai.gpt-5.4") == text


def test_who_may_speak_first_goes_by_model(client: Any) -> None:
    first = [{"role": "assistant", "content": [{"text": "Hello"}]}, {"role": "user", "content": [{"text": "Hi"}]}]
    text = (
        "A conversation must start with a user message. Try again with a conversation that starts with a user message."
    )
    claude_3 = "anthropic.claude-3-haiku-20240307-v1:0"
    said = {model: converse(client, model, messages=first) for model in (NOVA, LLAMA, claude_3, SONNET)}
    assert said == {NOVA: text, LLAMA: text, claude_3: text, SONNET: ""}
    plain = [{"role": "assistant", "content": "Hello"}, {"role": "user", "content": "Hi"}]
    assert invoke(client, claude_3, messages=plain) == 'messages: first message must use the "user" role'
    assert invoke(client, SONNET, messages=plain) == ""


class TestStoredPrompt:
    """A prompt of Prompt management brings its own messages (API model, `Converse`)."""

    ARN = "arn:aws:bedrock:us-east-1:123456789012:prompt/ABCDEFGHIJ:1"

    def test_it_is_called_without_messages(self) -> None:
        with BedrockEmulator(profiles={self.ARN: SONNET}) as emulator:
            client = emulator.client()
            short = client.converse(modelId=self.ARN, promptVariables={"topic": {"text": "lamps"}})
            long = client.converse(modelId=self.ARN, promptVariables={"topic": {"text": LONG_TEXT}})
        assert short["stopReason"] == "end_turn"
        # The variables count; the text they are filled into is not in the request.
        assert long["usage"]["inputTokens"] > 1024 > short["usage"]["inputTokens"] > 0

    def test_it_streams_without_messages(self) -> None:
        with BedrockEmulator(profiles={self.ARN: NOVA}) as emulator:
            events = list(emulator.client().converse_stream(modelId=self.ARN)["stream"])
        assert [event["messageStop"]["stopReason"] for event in events if "messageStop" in event] == ["end_turn"]

    def test_a_wrapped_client_calls_it_without_messages(self) -> None:
        with BedrockEmulator(profiles={self.ARN: SONNET}) as emulator:
            client = cachepoint.wrap(emulator.client(), base_models={self.ARN: SONNET})
            answer = client.converse(modelId=self.ARN, promptVariables={"topic": {"text": LONG_TEXT}})
        assert answer["promptCache"]["usage"]["input"] > 1024

    def test_any_other_call_needs_messages(self) -> None:
        profile = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc"
        with BedrockEmulator(profiles={profile: SONNET}) as knowing:
            for model in (SONNET, profile):
                assert converse(knowing.client(), model, messages=[]) == "messages: at least one message is required"
