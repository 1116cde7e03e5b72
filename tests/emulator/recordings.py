"""Recorded Bedrock traffic, as cassettes that can be played against the emulator with real boto3."""

from __future__ import annotations

import base64
import gzip
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

RECORDINGS = Path(__file__).resolve().parents[3] / "shared" / "data" / "recordings" / "recordings.jsonl.gz"
_SECONDS_BETWEEN_CALLS = 2.0


@dataclass(frozen=True)
class Tokens:
    """Input tokens of one call by class, recorded or served."""

    input: int
    read: int
    write: int

    @property
    def kind(self) -> str:
        if self.read:
            return "read+write" if self.write else "read"
        return "write" if self.write else "nothing"

    @property
    def shares(self) -> tuple[float, float, float]:
        total = max(self.input + self.read + self.write, 1)
        return self.input / total, self.read / total, self.write / total


@dataclass(frozen=True)
class Recorded:
    """One recorded call."""

    seq: int
    operation: str
    model_id: str
    region: str
    request: Mapping[str, Any]
    tokens: Tokens
    at: float | None
    gap: float | None


@dataclass(frozen=True)
class Cassette:
    """Calls recorded together, in order."""

    name: str
    calls: tuple[Recorded, ...]
    warm_at_start: bool
    elided: bool

    def times(self) -> Iterator[float]:
        """When each call was made, in seconds; where that was not recorded, two seconds after the one before."""
        now = 1_700_000_000.0
        for call in self.calls:
            if call.at is not None:
                now = max(now, call.at)
            else:
                now += call.gap if call.gap is not None else _SECONDS_BETWEEN_CALLS
            yield now


def read_cassettes() -> list[Cassette]:
    """All cassettes, in the order of the file."""
    grouped: dict[str, list[dict[str, Any]]] = defaultdict(list)
    with gzip.open(RECORDINGS, "rt", encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            grouped[row["cassette"]].append(row)
    return [
        Cassette(
            name=name,
            calls=tuple(_recorded(row) for row in rows),
            warm_at_start=any(row["warm_at_start"] for row in rows),
            elided=any(row["request_elided"] or row["request"] is None for row in rows),
        )
        for name, rows in grouped.items()
    ]


def _recorded(row: Mapping[str, Any]) -> Recorded:
    usage = row["usage"] or {}
    moment = row["sent_at"] or row["recorded_at"]
    return Recorded(
        seq=row["seq"],
        operation=row["operation"],
        model_id=row["model_id"],
        region=(row["region"] or "us-east-1").split(" ")[0],
        request=row["request"] or {},
        tokens=Tokens(usage.get("input") or 0, usage.get("read") or 0, usage.get("write") or 0),
        at=datetime.fromisoformat(moment).timestamp() if moment else None,
        gap=row["gap_s"],
    )


def play(client: Any, call: Recorded) -> Tokens:
    """Send a recorded call with boto3 and return the tokens that came back."""
    if call.operation == "CountTokens":
        counted = client.count_tokens(modelId=call.model_id, **_with_media(call.request))
        return Tokens(counted["inputTokens"], 0, 0)
    if call.operation.startswith("Converse"):
        return _play_converse(client, call)
    body = json.dumps(_filled(call.request))
    if call.operation == "InvokeModel":
        answer = client.invoke_model(modelId=call.model_id, body=body)
        usage = json.loads(answer["body"].read())["usage"]
    else:
        answer = client.invoke_model_with_response_stream(modelId=call.model_id, body=body)
        events = [json.loads(event["chunk"]["bytes"]) for event in answer["body"]]
        usage = next(event["message"]["usage"] for event in events if event["type"] == "message_start")
    return Tokens(usage["input_tokens"], usage["cache_read_input_tokens"], usage["cache_creation_input_tokens"])


def _play_converse(client: Any, call: Recorded) -> Tokens:
    request = _with_media(call.request)
    if call.operation == "Converse":
        usage = client.converse(modelId=call.model_id, **request)["usage"]
    else:
        events = list(client.converse_stream(modelId=call.model_id, **request)["stream"])
        usage = events[-1]["metadata"]["usage"]
    return Tokens(usage["inputTokens"], usage.get("cacheReadInputTokens", 0), usage.get("cacheWriteInputTokens", 0))


def _with_media(value: Any) -> Any:
    """A Converse request for boto3, which takes media as bytes where the recording has base64."""
    if isinstance(value, dict):
        source = value.get("bytes")
        if isinstance(source, str):
            return {**value, "bytes": base64.b64decode(source)}
        if isinstance(source, dict):
            return {**value, "bytes": _blob(source)}
        return {name: _with_media(each) for name, each in value.items()}
    return [_with_media(each) for each in value] if isinstance(value, list) else value


def _filled(value: Any) -> Any:
    """An InvokeModel body with its cut-out media filled in, as base64."""
    if isinstance(value, dict):
        if "$blob" in value:
            return base64.b64encode(_blob(value)).decode()
        return {name: _filled(each) for name, each in value.items()}
    return [_filled(each) for each in value] if isinstance(value, list) else value


def _blob(value: Mapping[str, Any]) -> bytes:
    """Bytes in place of media that were cut out: the same for the same hash, as many as there were."""
    cut = value["$blob"]
    seed = cut["sha256_of_base64"].encode()
    length = cut["base64_len"] * 3 // 4
    return bytes((seed * (length // len(seed) + 1))[:length])
