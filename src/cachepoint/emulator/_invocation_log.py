"""Model invocation logs as Bedrock delivers them to S3, in a folder laid out like the bucket.

How sure a field is stands beside it: D documented by AWS (user guide, "Monitor model invocation", November 2026), F
seen in a published record (April to September 2026), C read by public code that works on real logs
(bedrock-usage-analyzer, semantr, Panther's schema), A assumed. Records say what the service counted and never with
which TTL Converse wrote.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from cachepoint._forks import Lock
from cachepoint.core.provider.rules import parse_model_id
from cachepoint.core.provider.usage import Usage
from cachepoint.emulator._reading.request import Json, Operation, Target

# CountTokens is not logged, refused or not (D).
LOGGED: frozenset[Operation] = frozenset(
    ("Converse", "ConverseStream", "InvokeModel", "InvokeModelWithResponseStream"),
)
# Longer bodies go to files of their own (D); whether a KB is 1,000 bytes or 1,024 is not documented (A).
_LONGEST_BODY = 100 * 1024
_BUCKET = "emulator-logs"  # stands in `s3://` addresses for the log folder
# The service delivers several files an hour (D); so many seconds' records in each is assumed.
_SECONDS_A_FILE = 300
# Every log prefix has this object, which is no record (D); it is what a reader must step over.
_PERMISSION_CHECK = "amazon-bedrock-logs-permission-check"
# Regions that profiles of a geography send calls to. From us-west-2 to us-east-2 is F, the others by AWS's list of
# inference profiles as of 2026 (A: the list changes and differs between models).
_REACHED: Mapping[str, tuple[str, ...]] = {
    "us": ("us-east-1", "us-east-2", "us-west-2"),
    "us-gov": ("us-gov-east-1", "us-gov-west-1"),
    "eu": ("eu-central-1", "eu-north-1", "eu-west-1", "eu-west-3"),
    "apac": ("ap-northeast-1", "ap-south-1", "ap-southeast-1", "ap-southeast-2"),
    "jp": ("ap-northeast-1", "ap-northeast-3"),
    "au": ("ap-southeast-2", "ap-southeast-4"),
    "global": ("us-east-1", "us-west-2", "eu-west-1", "ap-northeast-1"),
}


def account_number(account: str) -> str:
    """Twelve digits that stand for an access key, always the same."""
    return f"{_number(account) % 10**12:012d}"


def _number(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")


@dataclass(frozen=True, slots=True)
class ServedBodies:
    """Request and answer of a served call, and its tokens; `caches`: the model has cache counters."""

    request: Json
    answer: Json | list[Json]
    usage: Usage
    caches: bool


@dataclass(frozen=True, slots=True)
class LogEntry:
    """A call for the log: what was served, or the name of the error."""

    target: Target
    request_id: str
    at: float
    served: ServedBodies | None = None
    error: str | None = None


class InvocationLog:
    """Writes records into a folder; with `with_text` their bodies too, as the service's own setting has it."""

    def __init__(self, folder: Path, *, with_text: bool) -> None:
        self._folder = folder
        self._with_text = with_text
        self._lock = Lock(waited_for=False)

    def check(self) -> None:
        """Make the folder and see that files can be made in it; raises OSError where they cannot."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=self._folder):
            pass

    def write(self, entry: LogEntry) -> None:
        """Append one record to the file of its account, Region and time; bodies too long for it stand beside."""
        if entry.target.operation not in LOGGED:
            return
        hour = _hour(entry)
        with self._lock.held:
            line = json.dumps(self._record(entry, hour), ensure_ascii=False) + "\n"
            check = self._folder / hour.parents[3] / _PERMISSION_CHECK
            self._append(hour / _file_name(entry), line)
            if not check.exists():
                check.touch()

    def _append(self, path: Path, text: str) -> None:
        file = self._folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        # Half a surrogate pair, which JSON may carry and UTF-8 may not, becomes JSON's own escape.
        with gzip.open(file, "at", encoding="utf-8", errors="backslashreplace") as opened:
            opened.write(text)

    def _record(self, entry: LogEntry, hour: Path) -> Json:
        """The fields in the order of 2026's records (F)."""
        target, served = entry.target, entry.served
        account = account_number(target.account)
        return {
            "timestamp": _utc(entry.at, "%Y-%m-%dT%H:%M:%SZ"),  # F whole seconds; A of the request's arrival
            "accountId": account,  # F
            "region": target.region,  # F the Region that was called
            "requestId": entry.request_id,  # F the answer's x-amzn-requestid
            "operation": target.operation,  # F
            "modelId": target.model_id,  # F as the caller named it: id, profile id or ARN
            "input": self._input(entry, served, hour) if served else {},  # C empty where the call failed
            "output": self._output(entry, served, hour) if served else {},  # C
            **({"errorCode": entry.error} if entry.error else {}),  # C the error's name; absent on good calls
            "identity": {"arn": _identity(target, account)},  # F
            **(_set_by_the_caller(target, served.request) if served else {}),  # A not on failed calls
            **(_served_in(entry) if served else {}),  # F optional; A not on failed calls
            "schemaType": "ModelInvocationLog",  # F
            "schemaVersion": "1.0",  # F
            # `status` stands in one public schema (C); nobody says with which values, so it is left out.
        }

    def _input(self, entry: LogEntry, served: ServedBodies, hour: Path) -> Json:
        # F uncached tokens only, reads and writes beside them (5m and 1h in one), the counts after the body. Records
        # of a model that caches may lack the two cache counts (F, Nova Micro, September 2026); here those of models
        # without caching do (A).
        cached = {
            "cacheReadInputTokenCount": served.usage.cache_read,
            "cacheWriteInputTokenCount": served.usage.cache_write,
        }
        return {
            "inputContentType": "application/json",
            **self._body(entry, hour, "input", served.request),
            "inputTokenCount": served.usage.input,
            **(cached if served.caches else {}),
        }

    def _output(self, entry: LogEntry, served: ServedBodies, hour: Path) -> Json:
        return {
            "outputContentType": "application/json",
            **self._body(entry, hour, "output", served.answer),
            "outputTokenCount": served.usage.output,
        }

    def _body(self, entry: LogEntry, hour: Path, way: str, body: Json | list[Json]) -> Json:
        """The body, or where it lies (D); nothing where text is not delivered (C)."""
        if not self._with_text:
            return {}
        text = json.dumps(body, ensure_ascii=False)
        if len(text.encode("utf-8", "backslashreplace")) <= _LONGEST_BODY:
            return {f"{way}BodyJson": body}
        aside = hour / "data" / f"{entry.request_id}_{way}.json.gz"
        self._append(aside, text)
        return {f"{way}BodyS3Path": f"s3://{_BUCKET}/{aside.as_posix()}"}


def _hour(entry: LogEntry) -> Path:
    account = account_number(entry.target.account)
    region = Path("AWSLogs", account, "BedrockModelInvocationLogs", entry.target.region)
    return region / _utc(entry.at, "%Y/%m/%d/%H")  # D


def _file_name(entry: LogEntry) -> str:
    # C a time and hex digits; here the time at which the file's records begin, so that an hour keeps its own.
    begins = entry.at - entry.at % _SECONDS_A_FILE
    number = _number(f"{entry.target.account} {entry.target.region} {begins}")
    return f"{_utc(begins, '%Y%m%dT%H%M%S000Z')}_{number:016x}.json.gz"


def _utc(seconds: float, form: str) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime(form)


def _identity(target: Target, account: str) -> str:
    """A user for a long-term access key, else an assumed role, as most callers are (F)."""
    partition = "aws-us-gov" if target.region.startswith("us-gov-") else "aws"
    if target.account.startswith("AKIA"):  # AWS: AKIA are long-term keys, ASIA temporary ones
        return f"arn:{partition}:iam::{account}:user/{target.account}"
    return f"arn:{partition}:sts::{account}:assumed-role/{target.account}/session"


def _set_by_the_caller(target: Target, request: Json) -> Json:
    """What a request carries for the log: pairs of its own on all four operations (D), and the latency (C)."""
    if target.operation.startswith("Converse"):
        metadata, performance = request.get("requestMetadata"), request.get("performanceConfig")
        latency = performance.get("latency") if isinstance(performance, dict) else None
    else:
        metadata, latency = _pairs(target.metadata), target.latency
    return {
        **({"requestMetadata": metadata} if metadata else {}),
        **({"performanceConfig": {"latency": latency}} if latency else {}),
    }


def _pairs(header: str | None) -> Any:
    try:
        return json.loads(header or "null")
    except ValueError:
        return None


def _served_in(entry: LogEntry) -> Json:
    """The Region that answered, on calls through a profile: one of the geography's, not the caller's if it can be."""
    geo = parse_model_id(entry.target.model_id).geo
    if geo is None or entry.target.region == "":
        return {}
    others = [region for region in _REACHED.get(geo, ()) if region != entry.target.region] or [entry.target.region]
    return {"inferenceRegion": others[_number(entry.request_id) % len(others)]}
