"""Model invocation logs in Bedrock's own format, as it delivers them to S3.

A record has the token counts, cache reads and writes among them, and never says with which TTL a write was made
(recorded 2). Request and answer bodies are in it only when text is kept, as with Bedrock's own setting for text
delivery. The folder is laid out like the bucket, gzipped files of one JSON record a line.
"""

from __future__ import annotations

import gzip
import json
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path

from cachepoint.core.provider.rules import parse_model_id
from cachepoint.core.provider.usage import Usage
from cachepoint.emulator._reading.request import Json, Target


def account_number(account: str) -> str:
    """Twelve digits that stand for an access key, always the same."""
    digest = blake2b(account.encode(), digest_size=8).digest()
    return f"{int.from_bytes(digest, 'big') % 10**12:012d}"


@dataclass(frozen=True, slots=True)
class LogEntry:
    """What is known of a call when its record is written; `answer` is None for a refused one."""

    target: Target
    request_id: str
    at: float
    request: Json
    answer: Json | None
    usage: Usage | None
    error: str | None = None


class InvocationLog:
    """Writes records into a folder."""

    def __init__(self, folder: Path, with_text: bool) -> None:
        self._folder = folder
        self._with_text = with_text
        self._lock = threading.Lock()

    def write(self, entry: LogEntry) -> None:
        """Append one record to the file of its account, Region and hour."""
        account = account_number(entry.target.account)
        hour = datetime.fromtimestamp(entry.at, UTC).strftime("%Y/%m/%d/%H")
        folder = self._folder / "AWSLogs" / account / "BedrockModelInvocationLogs" / entry.target.region / hour
        line = json.dumps(self._record(entry, account), ensure_ascii=False) + "\n"
        with self._lock:
            folder.mkdir(parents=True, exist_ok=True)
            with gzip.open(folder / "emulator.json.gz", "at", encoding="utf-8") as file:
                file.write(line)

    def _record(self, entry: LogEntry, account: str) -> Json:
        target = entry.target
        record: Json = {
            "schemaType": "ModelInvocationLog",
            "schemaVersion": "1.0",
            "timestamp": datetime.fromtimestamp(entry.at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "accountId": account,
            "identity": {"arn": f"arn:aws:iam::{account}:user/{target.account}"},
            "region": target.region,
            "requestId": entry.request_id,
            "operation": target.operation,
            "modelId": target.model_id,
            "input": {"inputContentType": "application/json"},
        }
        if self._with_text:
            record["input"]["inputBodyJson"] = entry.request
        if entry.error is not None:
            record["errorCode"] = entry.error
        if entry.usage is not None:
            record["input"] |= {
                "inputTokenCount": entry.usage.input,
                "cacheReadInputTokenCount": entry.usage.cache_read,
                "cacheWriteInputTokenCount": entry.usage.cache_write,
            }
            record["output"] = {"outputContentType": "application/json"}
            if self._with_text:
                record["output"]["outputBodyJson"] = entry.answer
            record["output"]["outputTokenCount"] = entry.usage.output
        if parse_model_id(target.model_id).geo not in (None, "us-gov"):
            record["inferenceRegion"] = target.region
        if entry.request.get("requestMetadata"):
            record["requestMetadata"] = entry.request["requestMetadata"]
        return record
