"""What the service does not take, as boto3 raises it: the modelled exception with the reported text."""

from __future__ import annotations

import json
import urllib.request
from typing import Any, ClassVar

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from emulator.conftest import LONG_TEXT, SONNET, ask, cached_system

from cachepoint.emulator import BedrockEmulator, Options

OLD_CLAUDE = "us.anthropic.claude-3-7-sonnet-20250219-v1:0"
NEW_CLAUDE = "us.anthropic.claude-opus-4-8"
NOVA = "us.amazon.nova-pro-v1:0"
LLAMA = "us.meta.llama3-3-70b-instruct-v1:0"
POINT: dict[str, Any] = {"cachePoint": {"type": "default"}}
HOUR: dict[str, Any] = {"cachePoint": {"type": "default", "ttl": "1h"}}
TEXT = {"text": "hello"}
TOOL = {"toolSpec": {"name": "lamp", "inputSchema": {"json": {"type": "object"}}}}
USE = {"toolUse": {"toolUseId": "t1", "name": "lamp", "input": {}}}
RESULT = {"toolResult": {"toolUseId": "t1", "content": [{"text": "on"}]}}
CSV = {"document": {"name": "log", "format": "csv", "source": {"bytes": b"a,b"}}}
PDF = {"document": {"name": "log", "format": "pdf", "source": {"bytes": b"%PDF"}}}
VIDEO = {"video": {"format": "mp4", "source": {"bytes": b"mp4"}}}
REASONING = {"reasoningContent": {"reasoningText": {"text": "well", "signature": "s"}}}
NOTHING = "There is nothing available to cache. Please remove the invalid cache point and try again."


def user(*content: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(content)}


def assistant(*content: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": list(content)}


def refused(client: Any, model: str, **request: Any) -> tuple[str, int, str]:
    """The exception a call raises: its name, its status and its text."""
    request.setdefault("messages", ask())
    with pytest.raises(ClientError) as caught:
        client.converse(modelId=model, **request)
    response = caught.value.response
    assert type(caught.value).__name__ == response["Error"]["Code"]
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"], response["Error"]["Message"]


CHECKPOINTS: dict[str, tuple[str, dict[str, Any], str]] = {
    "first in system": (SONNET, {"system": [POINT, TEXT]}, NOTHING),
    "first in a message": (SONNET, {"messages": [user(POINT, TEXT)]}, NOTHING),
    "first in tools": (SONNET, {"toolConfig": {"tools": [POINT, TOOL]}}, NOTHING),
    "alone in a message": (SONNET, {"messages": [user(TEXT), assistant(POINT), user(TEXT)]}, NOTHING),
    "after nothing but a PDF": (SONNET, {"messages": [user(PDF, POINT, TEXT)]}, NOTHING),
    "after a table": (
        SONNET,
        {"messages": [user(TEXT, CSV, POINT)]},
        "The model returned the following errors: messages.0.content.2.type: Field required",
    ),
    "after a video": (SONNET, {"messages": [user(TEXT, VIDEO, POINT)]}, NOTHING),
    "after reasoning": (
        SONNET,
        {"messages": [user(TEXT), assistant(REASONING, POINT, TEXT), user(TEXT)]},
        "Cache point cannot be inserted after reasoning block. Please remove the invalid cache point and try again.",
    ),
    "an hour after five minutes": (
        SONNET,
        {"system": [TEXT, POINT], "messages": [user(TEXT, HOUR)]},
        (
            "The model returned the following errors: messages.0.content.1.cache_control.ttl: a ttl='1h' cache_control "
            "block must not come after a ttl='5m' cache_control block. Note that blocks are processed in the following "
            "order: `tools`, `system`, `messages`."
        ),
    ),
    "five of them": (
        SONNET,
        {"system": [TEXT, POINT, TEXT, POINT, TEXT, POINT], "messages": [user(TEXT, POINT, TEXT, POINT)]},
        "The model returned the following errors: A maximum of 4 blocks with cache_control may be provided. Found 5.",
    ),
    "with a TTL on an older Claude": (
        OLD_CLAUDE,
        {"system": [TEXT, HOUR]},
        "The model returned the following errors: system.1.cache_control.ephemeral.ttl: Extra inputs are not permitted",
    ),
    "with an hour on Nova": (
        NOVA,
        {"system": [TEXT, HOUR]},
        "Extended TTL prompt caching is only supported for Anthropic models",
    ),
    "in tools on Nova": (
        NOVA,
        {"toolConfig": {"tools": [TOOL, POINT]}},
        (
            "The model returned the following errors: Malformed input request: #/toolConfig/tools/1: extraneous key "
            "[cachePoint] is not permitted, please reformat your input and try again."
        ),
    ),
    "after a tool result on Nova": (
        NOVA,
        {"messages": [user(TEXT), assistant(USE), user(RESULT, POINT)], "toolConfig": {"tools": [TOOL]}},
        (
            "Malformed input request: #/messages/2/content/0: extraneous key [cachePoint] is not permitted, please "
            "reformat your input and try again."
        ),
    ),
    "with a TTL nobody knows": (
        SONNET,
        {"system": [TEXT, {"cachePoint": {"type": "default", "ttl": "10m"}}]},
        (
            "1 validation error detected: Value '10m' at 'system.1.cachePoint.ttl' failed to satisfy constraint: "
            "Member must satisfy enum value set: [5m, 1h]"
        ),
    ),
    "as Anthropic writes them": (
        SONNET,
        {"additionalModelRequestFields": {"cacheControl": {"type": "ephemeral"}}},
        "Malformed input request: extraneous key [cacheControl] is not permitted",
    ),
}


@pytest.mark.parametrize("case", sorted(CHECKPOINTS))
def test_a_checkpoint_is_refused(client: Any, case: str) -> None:
    model, request, text = CHECKPOINTS[case]
    assert refused(client, model, **request) == ("ValidationException", 400, text)


def test_a_model_without_caching_denies_a_checkpoint(client: Any) -> None:
    assert refused(client, LLAMA, system=cached_system()) == (
        "AccessDeniedException",
        403,
        (
            "You invoked an unsupported model or your request did not allow prompt caching. "
            "See the documentation for more information."
        ),
    )


def test_kimi_knows_no_such_field(client: Any) -> None:
    name, status, text = refused(client, "moonshotai.kimi-k3", system=cached_system())
    assert (name, status, text) == ("ValidationException", 400, "This model doesn't support the cachePoint field")


ACCEPTED: dict[str, tuple[str, dict[str, Any]]] = {
    "two checkpoints in a row": (SONNET, {"system": [TEXT, POINT, POINT]}),
    "a text and a PDF before one": (SONNET, {"messages": [user(TEXT, PDF, POINT)]}),
    "one after a tool result on Claude": (
        SONNET,
        {"messages": [user(TEXT), assistant(USE), user(RESULT, POINT)], "toolConfig": {"tools": [TOOL]}},
    ),
    "one in Nova's messages after text": (NOVA, {"messages": [user(TEXT, POINT)]}),
    "a leading assistant turn on Claude": (SONNET, {"messages": [assistant(TEXT), user(TEXT)]}),
    "prefill on Claude 4.5": (SONNET, {"messages": [user(TEXT), assistant(TEXT)]}),
    "an empty tool result": (
        SONNET,
        {
            "messages": [
                user(TEXT),
                assistant(USE),
                user({"toolResult": {"toolUseId": "t1", "content": [{"text": ""}]}}),
            ],
            "toolConfig": {"tools": [TOOL]},
        },
    ),
}


@pytest.mark.parametrize("case", sorted(ACCEPTED))
def test_it_is_accepted(client: Any, case: str) -> None:
    model, request = ACCEPTED[case]
    request = {"messages": ask(), **request}
    assert client.converse(modelId=model, **request)["output"]["message"]["content"]


CONVERSATIONS: dict[str, tuple[str, dict[str, Any], str]] = {
    "two turns of one role": (
        SONNET,
        {"messages": [user(TEXT), user(TEXT)]},
        (
            "A conversation must alternate between user and assistant roles. Make sure the conversation alternates "
            "between user and assistant roles and try again."
        ),
    ),
    "a leading assistant turn on Nova": (
        NOVA,
        {"messages": [assistant(TEXT), user(TEXT)]},
        "A conversation must start with a user message. Try again with a conversation that starts with a user message.",
    ),
    "prefill on a newer Claude": (
        NEW_CLAUDE,
        {"messages": [user(TEXT), assistant(TEXT)]},
        "This model does not support assistant message prefill. The conversation must end with a user message.",
    ),
    "tool blocks without tools": (
        SONNET,
        {"messages": [user(TEXT), assistant(USE), user(RESULT)]},
        "The toolConfig field must be defined when using toolUse and toolResult content blocks.",
    ),
    "a tool use nobody answers": (
        SONNET,
        {"messages": [user(TEXT), assistant(USE), user(TEXT)], "toolConfig": {"tools": [TOOL]}},
        "Expected toolResult blocks at messages.2.content for the following Ids: t1",
    ),
    "a result nobody asked for": (
        SONNET,
        {"messages": [user(RESULT)], "toolConfig": {"tools": [TOOL]}},
        "The number of toolResult blocks at messages.0.content exceeds the number of toolUse blocks of previous turn.",
    ),
    "a table beside a tool result on Claude": (
        SONNET,
        {"messages": [user(TEXT), assistant(USE), user(RESULT, TEXT, CSV)], "toolConfig": {"tools": [TOOL]}},
        (
            "The model returned the following errors: messages.1: `tool_use` ids were found without `tool_result` "
            "blocks immediately after: t1. Each `tool_use` block must have a corresponding `tool_result` block in the "
            "next message."
        ),
    ),
    "a document without a text": (
        SONNET,
        {"messages": [user(PDF)]},
        "A text block must be included when using documents.",
    ),
    "a blank text": (
        SONNET,
        {"messages": [user({"text": " "})]},
        (
            "The text field in the ContentBlock object at messages.0.content.0 is blank. Add text to the text field, "
            "and try again."
        ),
    ),
    "a blank text beside another": (
        SONNET,
        {"messages": [user({"text": "Look."}, {"text": "\n"})]},
        "The model returned the following errors: messages: text content blocks must contain non-whitespace text",
    ),
    "a message without content": (
        SONNET,
        {"messages": [user()]},
        (
            "The content field in the Message object at messages.0 is empty. Add a ContentBlock object to the content "
            "field and try again."
        ),
    ),
}


@pytest.mark.parametrize("case", sorted(CONVERSATIONS))
def test_a_conversation_is_refused(client: Any, case: str) -> None:
    model, request, text = CONVERSATIONS[case]
    assert refused(client, model, **request) == ("ValidationException", 400, text)


def test_blank_text_beside_another_may_be_allowed() -> None:
    with BedrockEmulator(options=Options(strict_blanks=False)) as emulator:
        answer = emulator.client().converse(modelId=SONNET, messages=[user(TEXT, {"text": "\n"})])
    assert answer["stopReason"] == "end_turn"


def test_blank_text_in_a_body_of_anthropic_messages_is_refused(client: Any) -> None:
    blocks = [{"type": "text", "text": "Look."}, {"type": "text", "text": " "}]
    body = {
        "anthropic_version": "bedrock-2023-05-31",
        "max_tokens": 9,
        "messages": [{"role": "user", "content": blocks}],
    }
    with pytest.raises(ClientError, match="messages: text content blocks must contain non-whitespace text"):
        client.invoke_model(modelId=SONNET, body=json.dumps(body))


def test_turns_of_one_role_may_be_allowed() -> None:
    with BedrockEmulator(options=Options(strict_roles=False)) as emulator:
        answer = emulator.client().converse(modelId=SONNET, messages=[user(TEXT), user(TEXT)])
    assert answer["stopReason"] == "end_turn"


def test_two_keys_in_one_block_are_refused_even_past_boto3(emulator: BedrockEmulator) -> None:
    unchecked = emulator.client(config=Config(parameter_validation=False))
    _, _, text = refused(unchecked, SONNET, messages=[user({**TEXT, **POINT})])
    assert text.startswith("ContentBlock object at messages.0.content.0 can only set one of the following keys: text,")


def test_a_checkpoint_inside_a_tool_result_is_ignored_past_boto3(emulator: BedrockEmulator) -> None:
    nested = {"toolResult": {"toolUseId": "t1", "content": [{"text": LONG_TEXT}, POINT]}}
    body = {"messages": [user(TEXT), assistant(USE), user(nested)], "toolConfig": {"tools": [TOOL]}}
    request = urllib.request.Request(
        f"{emulator.url}/model/{SONNET}/converse",
        data=json.dumps(body).encode(),
        headers={"Authorization": "Bearer some-key", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as answer:
        assert json.load(answer)["usage"]["cacheWriteInputTokens"] == 0
    assert emulator.requests[0].account != "some-key"


def test_an_unknown_model_and_an_unknown_profile_are_invalid(emulator: BedrockEmulator) -> None:
    profile = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc"
    for model in ("claude", profile):
        assert refused(emulator.client(), model)[2] == "The provided model identifier is invalid."
    with BedrockEmulator(profiles={profile: SONNET}) as knowing:
        answer = knowing.client().converse(modelId=profile, system=cached_system(), messages=ask())
        assert answer["usage"]["cacheWriteInputTokens"] > 0
        assert knowing.bill().total > 0


def test_refusals_are_recorded_and_cost_nothing(emulator: BedrockEmulator, client: Any) -> None:
    refused(client, SONNET, system=[POINT, TEXT])
    (request,) = emulator.requests
    assert (request.status, request.error, request.usage) == (400, "ValidationException", None)
    assert emulator.bill().total == 0


class TestInvokeModel:
    BODY: ClassVar[dict[str, Any]] = {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 64}
    MARK: ClassVar[dict[str, Any]] = {"cache_control": {"type": "ephemeral"}}

    def refusal(self, client: Any, model: str, **body: Any) -> str:
        body = {**self.BODY, "messages": [{"role": "user", "content": "hello"}], **body}
        with pytest.raises(client.exceptions.ValidationException) as caught:
            client.invoke_model(modelId=model, body=json.dumps(body))
        return str(caught.value.response["Error"]["Message"])

    def blocks(self, *marks: dict[str, Any]) -> list[dict[str, Any]]:
        content = [{"type": "text", "text": f"part {index}", **mark} for index, mark in enumerate(marks)]
        return [{"role": "user", "content": content}]

    @pytest.mark.parametrize(
        "more",
        [
            {},
            {"thinking": {"type": "enabled", "budget_tokens": 1024}},
            {"output_config": {"format": {"type": "json_schema"}}},
            {"tools": [{"name": "find", "input_schema": {"type": "object"}}], "tool_choice": {"type": "any"}},
        ],
        ids=["nothing", "thinking", "schema", "forced tool"],
    )
    def test_no_output_at_all_may_be_asked_for_where_nothing_takes_some(
        self, emulator: BedrockEmulator, client: Any, more: dict[str, Any]
    ) -> None:
        if more:
            assert (
                self.refusal(client, SONNET, max_tokens=0, **more) == "max_tokens: must be greater than or equal to 1"
            )
            return
        body = {**self.BODY, "max_tokens": 0, "messages": [{"role": "user", "content": "hello"}]}
        answer = json.loads(client.invoke_model(modelId=SONNET, body=json.dumps(body))["body"].read())
        assert (answer["content"], answer["stop_reason"], answer["usage"]["output_tokens"]) == ([], "max_tokens", 0)
        with pytest.raises(ClientError, match="greater than or equal to 1"):
            client.invoke_model_with_response_stream(modelId=SONNET, body=json.dumps(body))

    def test_top_level_cache_control_is_refused_by_older_models_only(self, client: Any) -> None:
        assert (
            self.refusal(client, SONNET, cache_control={"type": "ephemeral"})
            == "cache_control: Extra inputs are not permitted"
        )
        body = {**self.BODY, "messages": self.blocks({}), "cache_control": {"type": "ephemeral"}}
        assert client.invoke_model(modelId=NEW_CLAUDE, body=json.dumps(body))["body"].read()

    def test_five_marks_are_refused(self, client: Any) -> None:
        assert (
            self.refusal(client, SONNET, messages=self.blocks(*[self.MARK] * 5))
            == "A maximum of 4 blocks with cache_control may be provided. Found 5."
        )

    def test_an_hour_after_five_minutes_is_refused(self, client: Any) -> None:
        hour = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
        text = self.refusal(client, SONNET, messages=self.blocks(self.MARK, hour))
        assert text.startswith("messages.0.content.1.cache_control.ttl: a ttl='1h' cache_control block must not")

    def test_a_ttl_is_refused_by_older_models(self, client: Any) -> None:
        five = {"cache_control": {"type": "ephemeral", "ttl": "5m"}}
        text = self.refusal(client, OLD_CLAUDE, messages=self.blocks(five))
        assert text == "messages.0.content.0.cache_control.ephemeral.ttl: Extra inputs are not permitted"

    def test_an_unanswered_tool_use_is_refused(self, client: Any) -> None:
        use = [{"type": "tool_use", "id": "t1", "name": "lamp", "input": {}}]
        messages = [{"role": "assistant", "content": use}, {"role": "user", "content": "hello"}]
        assert "`tool_use` ids were found without `tool_result` blocks" in self.refusal(
            client, SONNET, messages=messages
        )

    def test_a_body_of_another_model_is_refused(self, client: Any) -> None:
        assert "Anthropic Messages bodies only" in self.refusal(client, NOVA)


class TestCountTokens:
    INPUT: ClassVar[dict[str, Any]] = {"converse": {"messages": ask(), "system": cached_system()}}

    def test_a_base_model_counts_and_a_checkpoint_costs_nothing(self, client: Any) -> None:
        base = SONNET.removeprefix("us.")
        marked = client.count_tokens(modelId=base, input=self.INPUT)["inputTokens"]
        plain = {"converse": {"messages": ask(), "system": [{"text": LONG_TEXT}]}}
        assert client.count_tokens(modelId=base, input=plain)["inputTokens"] == marked > 1024

    def test_it_counts_what_converse_bills(self, client: Any) -> None:
        counted = client.count_tokens(modelId=SONNET.removeprefix("us."), input=self.INPUT)["inputTokens"]
        usage = client.converse(modelId=SONNET, messages=ask(), system=cached_system())["usage"]
        assert counted == usage["inputTokens"] + usage["cacheWriteInputTokens"]

    @pytest.mark.parametrize("model", [SONNET, LLAMA, "anthropic.claude-opus-4-8"])
    def test_profiles_and_other_models_do_not_count(self, client: Any, model: str) -> None:
        with pytest.raises(client.exceptions.ValidationException, match="doesn't support counting tokens"):
            client.count_tokens(modelId=model, input=self.INPUT)
