"""The invocation log: what is logged, each field of a record, and where bodies and files lie."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from emulator.conftest import LONG_TEXT, SONNET, ask, cached_system

from cachepoint.emulator import BedrockEmulator, Clock, Latency, Reply, Text, throttled

NOON = 1_790_856_000.0  # 2026-10-01T12:00:00Z
NOVA = "us.amazon.nova-lite-v1:0"
HAIKU = "anthropic.claude-haiku-4-5-20251001-v1:0"
PROFILE = "arn:aws:bedrock:us-west-2:111122223333:inference-profile"
ANY_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
# How readers of real buckets find the files of records among all that lies there.
RECORDS = re.compile(r"AWSLogs/\d{12}/BedrockModelInvocationLogs/[a-z0-9-]+/\d{4}/\d\d/\d\d/\d\d/[^/]+\.json\.gz$")
MESSAGES = {
    "anthropic_version": "bedrock-2023-05-31",
    "max_tokens": 64,
    "system": [{"type": "text", "text": LONG_TEXT, "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
    "messages": [{"role": "user", "content": [{"type": "text", "text": "Is it?"}]}],
}


class Logged:
    """An emulator without a server that writes its log into a folder, and what it wrote."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        latency = Latency(fixed=1.9, uncached_token=0, cached_token=0, output_token=0)
        self.folder = folder
        self.emulator = BedrockEmulator(
            clock=Clock(lambda: NOON), latency=latency, replies=lambda _: "Yes.", log_folder=folder,
            **{"keep_text": True, **settings},
        )  # fmt: skip
        self.client = self.emulator.local_client(region="us-west-2", account="ASIACHAT")

    def files(self) -> list[str]:
        return sorted(file.relative_to(self.folder).as_posix() for file in self.folder.rglob("*") if file.is_file())

    def records(self) -> list[dict[str, Any]]:
        return [record for file in self.files() if RECORDS.search(file) for record in read(self.folder / file)]


def read(file: Path) -> list[Any]:
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


@pytest.fixture
def logged(tmp_path: Path) -> Logged:
    return Logged(tmp_path)


def use_every_operation(client: Any) -> None:
    """Converse and InvokeModel, each whole and as a stream, each on a prefix of its own, then read again."""
    converse: dict[str, Any] = {"modelId": SONNET, "system": cached_system(), "messages": ask("Is it?")}
    invoke: dict[str, Any] = {"modelId": SONNET, "body": json.dumps(MESSAGES)}
    client.converse(**converse, requestMetadata={"team": "support"})
    list(client.converse_stream(**converse, requestMetadata={"team": "support"})["stream"])
    client.invoke_model(**invoke, requestMetadata='{"team": "docs"}', performanceConfigLatency="optimized")
    list(client.invoke_model_with_response_stream(**invoke)["body"])


def test_a_record_of_converse_is_the_services_to_the_last_field(logged: Logged) -> None:
    answer = logged.client.converse(
        modelId=SONNET, system=cached_system(), messages=ask("Is it?"), requestMetadata={"team": "support"}
    )
    (record,) = logged.records()
    used = answer["usage"]
    account = record["accountId"]
    assert re.fullmatch(r"\d{12}", account)
    assert record["inferenceRegion"] in ("us-east-1", "us-east-2")
    body = {"messages": ask("Is it?"), "system": cached_system(), "requestMetadata": {"team": "support"}}
    expected = {
        "timestamp": "2026-10-01T12:00:00Z",
        "accountId": account,
        "region": "us-west-2",
        "requestId": answer["ResponseMetadata"]["RequestId"],
        "operation": "Converse",
        "modelId": SONNET,
        "input": {
            "inputContentType": "application/json",
            "inputBodyJson": body,
            "inputTokenCount": used["inputTokens"],
            "cacheReadInputTokenCount": 0,
            "cacheWriteInputTokenCount": used["cacheWriteInputTokens"],
        },
        "output": {
            "outputContentType": "application/json",
            "outputBodyJson": {
                "output": {"message": {"role": "assistant", "content": [{"text": "Yes."}]}},
                "stopReason": "end_turn",
                "metrics": {"latencyMs": 1900},
                "usage": {
                    "inputTokens": used["inputTokens"],
                    "cacheReadInputTokens": 0,
                    "cacheWriteInputTokens": used["cacheWriteInputTokens"],
                    "outputTokens": used["outputTokens"],
                    "totalTokens": used["totalTokens"],
                },
            },
            "outputTokenCount": used["outputTokens"],
        },
        "identity": {"arn": f"arn:aws:sts::{account}:assumed-role/ASIACHAT/session"},
        "requestMetadata": {"team": "support"},
        "inferenceRegion": record["inferenceRegion"],
        "schemaType": "ModelInvocationLog",
        "schemaVersion": "1.0",
    }
    assert record == expected
    assert used["cacheWriteInputTokens"] > 1024
    assert fields(record) == fields(expected)  # in the same order too


def test_a_stream_is_logged_whole_by_converse_and_by_events_by_invoke_model(logged: Logged) -> None:
    use_every_operation(logged.client)
    whole, streamed, invoked, events = (record["output"]["outputBodyJson"] for record in logged.records())
    assert streamed.keys() == whole.keys()
    assert streamed["output"] == whole["output"]
    assert streamed["usage"]["cacheReadInputTokens"] == whole["usage"]["cacheWriteInputTokens"] > 1024
    assert invoked["content"] == [{"type": "text", "text": "Yes."}]
    assert invoked["usage"]["cache_creation"] == {
        "ephemeral_5m_input_tokens": 0,
        "ephemeral_1h_input_tokens": invoked["usage"]["cache_creation_input_tokens"],
    }
    assert [event["type"] for event in events] == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    metrics = events[-1]["amazon-bedrock-invocationMetrics"]
    assert metrics["cacheReadInputTokenCount"] == invoked["usage"]["cache_creation_input_tokens"] > 1024


def test_what_was_logged_is_what_was_answered(logged: Logged) -> None:
    answer = logged.client.invoke_model(modelId=SONNET, body=json.dumps(MESSAGES))
    stream = logged.client.invoke_model_with_response_stream(modelId=SONNET, body=json.dumps(MESSAGES))
    events = [json.loads(event["chunk"]["bytes"]) for event in stream["body"]]
    first, second = (record["output"]["outputBodyJson"] for record in logged.records())
    assert first == json.loads(answer["body"].read())
    assert second == events


def test_invoke_models_pairs_and_latency_come_from_its_headers(logged: Logged) -> None:
    use_every_operation(logged.client)
    records = logged.records()
    assert [record.get("requestMetadata") for record in records] == [
        {"team": "support"},
        {"team": "support"},
        {"team": "docs"},
        None,
    ]
    assert [record.get("performanceConfig") for record in records] == [None, None, {"latency": "optimized"}, None]


def test_a_failed_call_has_its_error_and_neither_bodies_nor_counts(logged: Logged) -> None:
    client = logged.emulator.local_client(region="us-west-2", config=Config(retries={"total_max_attempts": 1}))
    logged.emulator.fail_next(throttled())
    with pytest.raises(ClientError) as caught:
        client.converse(modelId=HAIKU, messages=ask())
    with pytest.raises(ClientError, match="is blank") as refused:
        logged.client.converse(modelId=HAIKU, messages=ask(" "), requestMetadata={"team": "support"})
    records = {record["errorCode"]: record for record in logged.records()}
    throttle, last = records["ThrottlingException"], records["ValidationException"]
    assert throttle["requestId"] == caught.value.response["ResponseMetadata"]["RequestId"]
    account = last["accountId"]
    assert last == {
        "timestamp": "2026-10-01T12:00:00Z",
        "accountId": account,
        "region": "us-west-2",
        "requestId": refused.value.response["ResponseMetadata"]["RequestId"],
        "operation": "Converse",
        "modelId": HAIKU,
        "input": {},
        "output": {},
        "errorCode": "ValidationException",
        "identity": {"arn": f"arn:aws:sts::{account}:assumed-role/ASIACHAT/session"},
        "schemaType": "ModelInvocationLog",
        "schemaVersion": "1.0",
    }


def test_counting_tokens_is_never_logged(logged: Logged) -> None:
    logged.client.count_tokens(modelId=HAIKU, input={"converse": {"messages": ask()}})
    with pytest.raises(ClientError, match="doesn't support counting"):
        logged.client.count_tokens(modelId=NOVA, input={"converse": {"messages": ask()}})
    assert logged.files() == []


def test_without_text_the_counts_stay_and_no_body_does(tmp_path: Path) -> None:
    logged = Logged(tmp_path, keep_text=False)
    use_every_operation(logged.client)
    for record in logged.records():
        assert list(record["input"]) == [
            "inputContentType",
            "inputTokenCount",
            "cacheReadInputTokenCount",
            "cacheWriteInputTokenCount",
        ]
        assert list(record["output"]) == ["outputContentType", "outputTokenCount"]


def test_nova_without_checkpoints_has_counts_of_zero_and_no_cache_keys_in_its_usage(logged: Logged) -> None:
    logged.client.converse(modelId=NOVA, messages=ask())
    (record,) = logged.records()
    assert list(record["output"]["outputBodyJson"]["usage"]) == ["inputTokens", "outputTokens", "totalTokens"]
    assert record["input"]["cacheReadInputTokenCount"] == record["input"]["cacheWriteInputTokenCount"] == 0


def test_a_model_without_caching_has_no_cache_counts(logged: Logged) -> None:
    logged.client.converse(modelId="meta.llama3-3-70b-instruct-v1:0", messages=ask())
    (record,) = logged.records()
    assert list(record["input"]) == ["inputContentType", "inputBodyJson", "inputTokenCount"]
    assert "inferenceRegion" not in record


def test_long_bodies_lie_beside_the_records(logged: Logged) -> None:
    logged.emulator.script(Reply((Text("Long. " * 20_000),)))
    long_question = "Why? " * 30_000  # 150 kB
    logged.client.converse(modelId=SONNET, messages=ask(long_question), inferenceConfig={"maxTokens": 60_000})
    logged.client.converse(modelId=SONNET, messages=ask("Short?"))
    asides, (record, short) = [file for file in logged.files() if "/data/" in file], logged.records()
    folder = f"AWSLogs/{record['accountId']}/BedrockModelInvocationLogs/us-west-2/2026/10/01/12/data"
    request_id = record["requestId"]
    assert asides == [f"{folder}/{request_id}_input.json.gz", f"{folder}/{request_id}_output.json.gz"]
    assert list(record["input"])[:2] == ["inputContentType", "inputBodyS3Path"]
    assert list(record["output"]) == ["outputContentType", "outputBodyS3Path", "outputTokenCount"]
    for way, at in (("input", 0), ("output", 1)):
        bucket, _, key = record[way][f"{way}BodyS3Path"].removeprefix("s3://").partition("/")
        assert (bucket, key) == ("emulator-logs", asides[at])
    (request,), (answer,) = (read(logged.folder / aside) for aside in asides)
    assert request["messages"] == ask(long_question)
    assert answer["output"]["message"]["content"][0]["text"].startswith("Long. Long.")
    assert "inputBodyJson" in short["input"]


def test_files_hold_a_few_minutes_each_and_the_bucket_what_is_no_record(logged: Logged) -> None:
    for seconds in (0, 60, 300):
        logged.emulator.clock.advance(seconds)
        logged.client.converse(modelId=SONNET, messages=ask())
    first, second, check = logged.files()
    assert re.search(r"/20261001T120000000Z_[0-9a-f]{16}\.json\.gz$", first)
    assert re.search(r"/20261001T120500000Z_[0-9a-f]{16}\.json\.gz$", second)
    assert check.endswith("/us-west-2/amazon-bedrock-logs-permission-check")
    assert [len(read(logged.folder / file)) for file in (first, second)] == [2, 1]


@pytest.mark.parametrize(
    ("account", "region", "arn"),
    [
        ("AKIAOPS", "us-west-2", "arn:aws:iam::{}:user/AKIAOPS"),
        ("EMULATOR", "us-west-2", "arn:aws:sts::{}:assumed-role/EMULATOR/session"),
        ("ASIACHAT", "us-gov-west-1", "arn:aws-us-gov:sts::{}:assumed-role/ASIACHAT/session"),
    ],
)
def test_a_long_term_key_is_a_users_and_any_other_a_roles(logged: Logged, account: str, region: str, arn: str) -> None:
    logged.emulator.local_client(account=account, region=region).converse(modelId=SONNET, messages=ask())
    (record,) = logged.records()
    assert record["identity"]["arn"] == arn.format(record["accountId"])


@pytest.mark.parametrize(
    ("model_id", "region", "served_in"),
    [
        (HAIKU, "us-west-2", {None}),
        (f"us-gov.{HAIKU}", "us-gov-west-1", {"us-gov-east-1"}),
        (f"jp.{HAIKU}", "ap-northeast-1", {"ap-northeast-3"}),
        (f"{PROFILE}/us.{HAIKU}", "us-west-2", {"us-east-1", "us-east-2"}),
        (f"ca.{HAIKU}", "ca-central-1", {"ca-central-1"}),
    ],
)  # fmt: skip
def test_a_profile_is_served_in_a_region_of_its_geography(
    logged: Logged, model_id: str, region: str, served_in: set[str | None]
) -> None:
    logged.emulator.local_client(region=region).converse(modelId=model_id, messages=ask())
    (record,) = logged.records()
    assert record["modelId"] == model_id
    assert record.get("inferenceRegion") in served_in


def test_half_a_surrogate_pair_can_be_logged(logged: Logged) -> None:
    logged.client.invoke_model(modelId=SONNET, body=json.dumps({**MESSAGES, "system": "\ud800 alone"}))
    (record,) = logged.records()
    assert record["input"]["inputBodyJson"]["system"] == "\ud800 alone"


# -- against samples in the shape of published records --------------------------------------------


def fields(value: Any, path: str = "") -> dict[str, str]:
    """Every field of a record with its type, in order; events by their kind, elements of other lists as one."""
    if isinstance(value, dict):
        inner: Iterator[tuple[str, Any]] = ((f"{path}.{key}", each) for key, each in value.items())
    elif isinstance(value, list):
        inner = ((f"{path}[{each.get('type', '')}]", each) for each in value)
    else:
        return {path: "null" if value is None else type(value).__name__}
    below = {at: kind for place, each in inner for at, kind in fields(each, place).items()}
    return {path: type(value).__name__, **below}


# What a sample lacks or has beyond a record of ours, with the reason.
NEWER = {  # recorded from October 2026 on; the sample's delta has output_tokens alone
    f".output.outputBodyJson[message_delta].usage.{name}"
    for name in ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "cache_creation",
                 "cache_creation.ephemeral_5m_input_tokens", "cache_creation.ephemeral_1h_input_tokens")
}  # fmt: skip


@pytest.fixture
def samples(shared_data: Path) -> dict[str, dict[str, Any]]:
    lines = (shared_data / "records" / "invocation_log.jsonl").read_text("utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    claude = (record for record in records if "claude" in record["modelId"])
    return {record.get("errorCode") or record["operation"]: record for record in claude}


def sampled(logged: Logged) -> dict[str, dict[str, Any]]:
    """Our records of the samples' calls."""
    for _ in range(2):
        use_every_operation(logged.client)
    logged.client.converse(modelId=SONNET, system=cached_system(), messages=ask(), requestMetadata={"team": "support"})
    return {record["operation"]: record for record in logged.records()}


@pytest.mark.parametrize("operation", ["Converse", "ConverseStream", "InvokeModel", "InvokeModelWithResponseStream"])
def test_records_have_the_fields_of_the_samples(
    logged: Logged, samples: dict[str, dict[str, Any]], operation: str
) -> None:
    ours, sample = sampled(logged)[operation], samples[operation]
    for record in (ours, sample):
        record["input"].pop("inputBodyJson", None)  # the caller's
        record["input"].pop("inputBodyS3Path", None)
        for told in ("requestMetadata", "performanceConfig"):  # the caller's too
            record.pop(told, None)
    mine, its = fields(ours), fields(sample)
    assert mine.keys() - its.keys() == (NEWER if operation == "InvokeModelWithResponseStream" else set())
    assert {field: kind for field, kind in mine.items() if field not in NEWER} == its
    assert list(ours) == list(sample)
    for way in ("input", "output"):
        assert list(ours[way]) == list(sample[way])


def test_a_failed_call_has_the_fields_of_the_sample(logged: Logged, samples: dict[str, dict[str, Any]]) -> None:
    with pytest.raises(ClientError):
        logged.client.converse(modelId=HAIKU, messages=ask(" "))
    (ours,) = logged.records()
    assert list(fields(ours).items()) == list(fields(samples["ResourceNotFoundException"]).items())


def test_files_are_named_as_the_samples_are(logged: Logged, shared_data: Path) -> None:
    logged.client.converse(modelId=SONNET, messages=ask("Why? " * 30_000))
    samples = [file.relative_to(shared_data / "records").as_posix() for file in (shared_data / "records").rglob("*")
               if file.is_file() and "AWSLogs" in file.parts]  # fmt: skip
    assert {kind_of(file) for file in logged.files()} == {kind_of(file) for file in samples}


def kind_of(file: str) -> str:
    named = ANY_ID.sub("ID", re.sub(r"\d{8}T\d{9}Z_[0-9a-f]{16}", "TIME_HEX", file))
    return re.sub(r"\d+", "N", named)
