"""Frames of `application/vnd.amazon.eventstream`.

A frame is: total length and headers' length (4 bytes each, big-endian), CRC-32 of those eight bytes, headers,
payload, CRC-32 of everything before. A header is its name's length (1 byte), the name, a type (7 is string),
the value's length (2 bytes) and the value.
"""

from __future__ import annotations

import json
from binascii import crc32
from collections.abc import Mapping
from struct import pack

_STRING = 7


def encode_frame(headers: Mapping[str, str], payload: bytes) -> bytes:
    """One frame with string headers."""
    head = b"".join(_header(name, value) for name, value in headers.items())
    prelude = pack("!II", 16 + len(head) + len(payload), len(head))
    body = prelude + pack("!I", crc32(prelude)) + head + payload
    return body + pack("!I", crc32(body))


def event_frame(kind: str, payload: object) -> bytes:
    """A frame that carries an event."""
    headers = {":event-type": kind, ":content-type": "application/json", ":message-type": "event"}
    return encode_frame(headers, json.dumps(payload, separators=(",", ":")).encode())


def exception_frame(kind: str, message: str) -> bytes:
    """A frame that ends a stream with a modelled exception."""
    headers = {":exception-type": kind, ":content-type": "application/json", ":message-type": "exception"}
    return encode_frame(headers, json.dumps({"message": message}).encode())


def _header(name: str, value: str) -> bytes:
    raw, text = name.encode(), value.encode()
    return pack("!B", len(raw)) + raw + pack("!BH", _STRING, len(text)) + text
