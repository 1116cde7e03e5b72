"""What one model takes and another refuses, by the model table; and stored prompts, which need no messages."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError
from emulator.conftest import LONG_TEXT, SONNET, ask

import cachepoint
from cachepoint.emulator import BedrockEmulator, Options

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
