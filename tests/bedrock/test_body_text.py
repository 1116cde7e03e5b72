"""The body of InvokeModel as text: what cachepoint does not change goes out, and comes back, byte for byte."""

from __future__ import annotations

import io
import json
import re
from functools import reduce
from operator import getitem
from types import SimpleNamespace
from typing import Any

import pytest
from converse_kit import DOCUMENT, SONNET, SYSTEM, Bedrock
from hypothesis import example, given
from hypothesis import strategies as st
from messages_kit import EPHEMERAL, Json, assistant, body, request, text, tool, tool_result, tool_use, user

import cachepoint
from cachepoint import CachePolicy
from cachepoint.bedrock.wire.json_text import JsonText, Raw, parsed
from cachepoint.bedrock.wire.renewal import renewal

EXPLICIT = CachePolicy(mode="explicit")
LONG = json.dumps(SYSTEM)
POINT = '"cache_control":{"type":"ephemeral"}'
NUMBERS = "[1e400, -1E-400, 1.0, 1.00, -0, 1e5, 12345678901234567890123456789012345678901, 0.1000000000000000055]"
LETTERS = r'"\u00e9é\ud83d\ude00😀\ud83d \/\" \\u0041 \b"'
ODD = (
    '\r\n{ "max_tokens" : 30,"anthropic_version":"bedrock-2023-05-31",\t"system":%s, "messages"  :[\n'
    '{"role": "user",  "content":"Hi"}, {"content":[ {"input":{"n":' + NUMBERS + ', "s": ' + LETTERS + ', "none":null},'
    '"name":"search","id":"use-0","type":"tool_use" }],"role":"assistant" },{"role":"user", "content": [ {"type":'
    '"tool_result", "tool_use_id":"use-0","content":"found" } ] } ], "tools": [{"name": "search","input_schema":'
    '{"type": "object"} , "description":"d\\u00e9" }] } \n'
)  # fmt: skip
"""A body of odd numbers, letters, blanks and order, with a place for its system prompt."""
PLANNED = (ODD % f'[{{"type":"text","text":{LONG},{POINT}}}]').replace(
    '"content":"found"', f'"content":"found",{POINT}'
)


def went_out(bedrock: Bedrock, given: Any, policy: CachePolicy | None = None, times: int = 1) -> bytes:
    """The bytes on the wire of the last of some calls with a body, all of which the service took."""
    client, seen = bedrock.client(), list[bytes]()
    client.meta.events.register("before-send.bedrock-runtime", lambda request, **_: seen.append(bytes(request.body)))
    wrapped = cachepoint.wrap(client, policy, clock=bedrock.clock)
    for _ in range(times):
        assert wrapped.invoke_model(modelId=SONNET, body=given)["promptCache"]
    assert len(seen) == times
    return seen[-1]


def raw_forms(text: str) -> list[Raw]:
    return [text, text.encode(), bytearray(text.encode())]


# -- what goes out ------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", range(3), ids=["str", "bytes", "bytearray"])
def test_a_body_with_a_checkpoint_is_the_users_but_for_that(bedrock: Bedrock, form: int) -> None:
    """The string becomes a list of one block, a block gets a member, and all the rest is what the user wrote."""
    assert went_out(bedrock, raw_forms(ODD % LONG)[form]) == PLANNED.encode()


def test_so_is_one_that_begins_with_a_byte_order_mark(bedrock: Bedrock) -> None:
    marked = b"\xef\xbb\xbf"
    assert went_out(bedrock, marked + (ODD % LONG).encode()) == marked + PLANNED.encode()


def test_half_a_pair_of_surrogates_goes_out_as_it_came(bedrock: Bedrock) -> None:
    """As bytes that UTF-8 does not have, which Python's decoder lets pass; as text it is boto3's to refuse."""
    half, given = b"\xed\xa0\xbd", ODD % LONG
    odd = given.encode().replace(b'"found"', b'"' + half + b'"')
    assert went_out(bedrock, odd) == PLANNED.encode().replace(b'"found"', b'"' + half + b'"')
    for client in (bedrock.client(), bedrock.wrapped()):
        with pytest.raises(UnicodeEncodeError):
            client.invoke_model(modelId=SONNET, body=given.replace('"found"', '"\ud83d"'))


class Taking:
    """A client that keeps the bodies it is given and answers each alike."""

    def __init__(self, answer: bytes = b"{}") -> None:
        self.bodies: list[Any] = []
        self._answer = answer

    def converse(self, **_: Any) -> Json:
        raise NotImplementedError

    def invoke_model(self, **request: Any) -> Json:
        self.bodies.append(request["body"])
        return {"body": io.BytesIO(self._answer)}


@pytest.mark.parametrize("form", range(3), ids=["str", "bytes", "bytearray"])
def test_a_body_without_one_is_handed_on_itself(form: int) -> None:
    given, client = raw_forms(ODD % '"Short."')[form], Taking()
    cachepoint.wrap(client).invoke_model(modelId=SONNET, body=given)
    assert client.bodies[0] is given


def test_a_body_in_a_file_is_handed_on_unread() -> None:
    given, client = io.BytesIO((ODD % LONG).encode()), Taking()
    cachepoint.wrap(client).invoke_model(modelId=SONNET, body=given)
    assert client.bodies == [given]
    assert given.tell() == 0


@pytest.mark.parametrize(
    "twice",
    [
        ODD.replace('"max_tokens" : 30', '"max_tokens" : 30, "max_tokens":40'),
        ODD.replace('"none":null', '"none":null,"none":1'),
        ODD.replace('"system":', '"system":"Be short.","system":'),
        ODD.replace('"role": "user"', '"role": "user","cache_control":null,"cache_control":null'),
    ],
    ids=["top", "tool input", "system", "message"],
)
def test_a_body_with_a_key_twice_goes_out_as_it_is(bedrock: Bedrock, twice: str) -> None:
    assert went_out(bedrock, twice % LONG) == (twice % LONG).encode()


@pytest.mark.parametrize(
    "literal", ["NaN", "Infinity", "1" * 5000, '"\x01"', "[" * 100_000 + "]" * 100_000], ids=lambda value: value[:8]
)
def test_what_is_no_json_is_left_to_the_service(literal: str) -> None:
    text = (ODD % LONG).replace('"none":null', f'"none":{literal}')
    client = Taking()
    cachepoint.wrap(client).invoke_model(modelId=SONNET, body=text)
    assert client.bodies[0] is text


JUNK: list[Any] = [None, 5, "x", True, [], {}, [None], ["a"], [[]], [5], {"type": 5}, {"ttl": 5}]
PLACES: list[tuple[Any, ...]] = [
    ("messages",), ("messages", 0), ("messages", 0, "role"), ("messages", 0, "content"), ("messages", 0, "content", 0),
    ("messages", 0, "content", 1), ("messages", 0, "content", 1, "type"), ("messages", 0, "content", 1, "text"),
    ("messages", 2, "content", 0, "content"), ("messages", 2, "content", 0, "content", 0), ("system",), ("system", 0),
    ("tools",), ("tools", 0), ("tools", 0, "type"), ("tool_choice",), ("thinking",), ("output_config",),
]  # fmt: skip


@pytest.mark.parametrize("place", PLACES, ids=lambda place: ".".join(map(str, place)))
def test_a_body_of_another_shape_goes_out_as_json_and_without_a_fault(place: tuple[Any, ...]) -> None:
    client = Taking()
    wrapped = cachepoint.wrap(client)
    for junk in JUNK:
        given = body(
            user(text(DOCUMENT), "Why?"), assistant(tool_use()), user(tool_result(0, text("a", EPHEMERAL))),
            system=[text(SYSTEM)], tools=[{**tool(), "type": "custom"}], tool_choice={"type": "auto"},
            thinking={"type": "enabled", "budget_tokens": 1024}, output_config={"effort": "high"},
        )  # fmt: skip
        *above, last = place
        reduce(getitem, above, given)[last] = junk
        wrapped.invoke_model(**request(given))
        assert reduce(getitem, above, without_marks(json.loads(client.bodies[-1])))[last] == without_marks(junk)


def without_marks(value: Any) -> Any:
    """A value without checkpoints, and a list of one text as that text."""
    if isinstance(value, list):
        return [without_marks(each) for each in value]
    if isinstance(value, dict):
        return {name: without_marks(each) for name, each in value.items() if name != "cache_control"}
    return value


# -- marks of the user's ------------------------------------------------------------------------------


def with_block(block: str) -> str:
    return (
        '{"anthropic_version":"bedrock-2023-05-31","max_tokens":30, "messages":[{"role":"user","content":[ '
        + block
        + ' , {"type":"text","text":"Why?"} ]}]}'
    )


@pytest.mark.parametrize(
    "control",
    ['{ "type" : "ephemeral" }', '{"ttl":"5m",  "type":"ephemeral"}', '{"type":"ephemeral","ttl": "\\u0031h"}'],
)
def test_a_mark_that_stays_keeps_its_text(bedrock: Bedrock, control: str) -> None:
    text = with_block(f'{{"cache_control" : {control}, "type":"text","text":{LONG}}}')
    assert went_out(bedrock, text, EXPLICIT) == text.encode()


def test_a_mark_whose_ttl_changes_keeps_the_rest_of_its_text(bedrock: Bedrock) -> None:
    text = with_block(f'{{ "text":{LONG}, "cache_control" : {{"ttl" :"1h" , "type": "ephemeral"}},"type":"text" }}')
    later = text.replace('"Why?"', '"Why?","cache_control":{"ttl":"1h","type":"ephemeral"}')
    short = with_block(f'{{ "text":{LONG}, "cache_control" : {{ "type": "ephemeral"}},"type":"text" }}')
    assert went_out(bedrock, text, EXPLICIT) == text.encode()
    assert went_out(bedrock, later, EXPLICIT).startswith(text[:40].encode())
    raised = short.replace('"Why?"', f'"{"Why? " * 2000}", "cache_control": {{"type":"ephemeral","ttl":"1h"}}')
    expected = raised.replace('{ "type": "ephemeral"}', '{ "type": "ephemeral","ttl":"1h"}')
    with pytest.warns(cachepoint.errors.CachepointWarning, match="1h"):
        assert went_out(bedrock, raised, EXPLICIT) == expected.encode()


def test_a_mark_that_goes_takes_its_comma_along(bedrock: Bedrock) -> None:
    """From each of three places in a block, and from the body's top."""
    bare = with_block('{ "type":"text", "text":"Short." }')
    for marked in (
        bare.replace('"text":"Short."', '"text":"Short.", "cache_control": {"type":"ephemeral"}'),
        bare.replace('"text":"Short."', '"cache_control": {"type":"ephemeral" },"text":"Short."').replace(", ,", ","),
        bare.replace('{ "type":"text", ', '{ "cache_control": {"type":"ephemeral" }, "type":"text", '),
        bare.replace("}]}]}", '}]}]  , "cache_control":{"type":"ephemeral"}}'),
    ):
        sent = went_out(bedrock, marked, CachePolicy(max_checkpoints=0))
        assert json.loads(sent) == json.loads(bare)
        assert b"cache_control" not in sent


def test_an_empty_mark_stays_null_unless_a_checkpoint_takes_its_place(bedrock: Bedrock) -> None:
    null = with_block(f'{{"type":"text","cache_control": null ,"text":{LONG}}}')
    assert went_out(bedrock, null, EXPLICIT) == null.encode()
    tools = (
        f'[ {{"name":"search", "cache_control" : null, "input_schema":{{"type":"object"}}, "description":{LONG} }} ]'
    )
    text = null.replace(LONG, '"Hi"').replace('"max_tokens"', f'"tools": {tools}, "max_tokens"')
    planned = text.replace('"cache_control" : null', POINT.replace(":", " : ", 1))
    assert went_out(bedrock, text) == planned.replace('"Why?"', f'"Why?",{POINT}').encode()


def test_a_text_is_split_inside_its_literal(bedrock: Bedrock) -> None:
    """Questions about one document: it is sent in two blocks, between which nothing of the text is lost."""
    wrapped, seen = bedrock.client(), list[bytes]()
    wrapped.meta.events.register("before-send.bedrock-runtime", lambda request, **_: seen.append(bytes(request.body)))
    client = cachepoint.wrap(wrapped, clock=bedrock.clock)
    document = json.dumps("é" + DOCUMENT).replace("/", "\\/")
    for words in ("What is a field?", "A conversion?", "A flag?", "A sign?"):
        content = '[ {"text": ' + document[:-1] + r"\n\n\u0051: " + words + '" ,"type":"text"} ]'
        text = '{ "max_tokens":30,"anthropic_version":"bedrock-2023-05-31","messages":[{"role":"user","content":%s}] }'
        text = text.replace("%s", content)
        client.invoke_model(modelId=SONNET, body=text)
    split = re.compile(rf'","type":"text"(,{POINT})?}},{{"text":"')
    assert any(found[1] for found in split.finditer(seen[-1].decode()))
    assert split.sub("", seen[-1].decode()) == text


# -- places in a text ---------------------------------------------------------------------------------


@given(
    pieces=st.lists(
        st.one_of(
            st.sampled_from(
                ["\\n", "\\\\", '\\"', "\\/", "\\u00e9", "\\ud83d\\ude00", "\\ud83d", "\\ude00", "\\uD83D "]
            ),
            st.sampled_from(["a", " ", "é", "😀", "u0041", "d83d"]),
        ),
        max_size=40,
    ),
    data=st.data(),
)
@example(pieces=["\\ud83d", "\\ud83d\\ude00", "\\ude00"], data=None)
def test_every_character_of_a_string_is_found_in_its_literal(pieces: list[str], data: Any) -> None:
    literal = '"' + "".join(pieces) + '"'
    document = JsonText(literal, [])
    value = json.loads(literal)
    places = document.characters(0, range(len(value) + 1))
    for offset, place in enumerate(places):
        assert json.loads(literal[:place] + '"') == value[:offset]
        assert json.loads('"' + literal[place:]) == value[offset:]
    assert [document.characters(0, [offset]) for offset in range(len(value) + 1)] == [[place] for place in places]


@pytest.mark.parametrize("text", ["[]", "1", '{"a":1,"a":1}', '{"a":[{"b":1,"b":2}]}', "{", "", "\ufeff{}"])
def test_a_document_whose_meaning_is_not_clear_is_not_edited(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parsed(text)


# -- other ways of a body -----------------------------------------------------------------------------


def test_a_renewal_is_the_beginning_of_the_body_byte_for_byte() -> None:
    """What is kept alive is a prefix: an odd number in it stays what it was, and `1e400` is JSON still."""
    text = (ODD % LONG).replace('"type":"tool_use" }]', f'"type":"tool_use" }}, {{"type":"text","text":"a",{POINT}}}]')
    whole = renewal("invoke_model", {"modelId": SONNET, "body": text})
    assert whole is not None
    assert whole.request["body"] == text.replace('"max_tokens" : 30', '"max_tokens" : 1')  # results stay with calls
    text = text.replace('"found" } ]', f'"found" , {POINT}}} , {{"type":"text","text":"Why?"}} ]')
    shorter = renewal("invoke_model", {"modelId": SONNET, "body": text.encode()})
    assert shorter is not None
    kept = text.replace(' , {"type":"text","text":"Why?"} ', "").replace('"max_tokens" : 30', '"max_tokens" : 1')
    assert shorter.request["body"] == kept.replace("} ], ", "}], ").encode()


def test_an_answer_comes_back_byte_for_byte() -> None:
    odd = b' { "usage" : {"input_tokens": 10, "output_tokens":2}, "id":"\\u00e9", "id": 1e400 }\n'
    wrapped = cachepoint.wrap(
        SimpleNamespace(invoke_model=lambda **_: {"body": io.BytesIO(odd)}, converse=lambda: None)
    )
    assert wrapped.invoke_model(**request(body(user("Hi"))))["body"].read() == odd


def test_the_chunks_of_a_stream_come_back_as_they_came(bedrock: Bedrock) -> None:
    client = bedrock.client()
    asked = request(body(user("Hi"), system=SYSTEM, tools=[tool()]))
    plain = [event["chunk"] for event in client.invoke_model_with_response_stream(**asked)["body"]]
    seen: list[Json] = []

    def keeping(**request: Any) -> Json:
        response: Json = client.invoke_model_with_response_stream(**request)
        events = list(response["body"])
        seen.extend(event["chunk"] for event in events)
        return {**response, "body": events}

    wrapped = cachepoint.wrap(
        SimpleNamespace(meta=client.meta, invoke_model_with_response_stream=keeping, converse=client.converse)
    )
    events = list(wrapped.invoke_model_with_response_stream(**asked)["body"])
    assert [set(event) for event in events] == [*[{"chunk"}] * (len(plain) - 1), {"chunk", "promptCache"}]
    assert all(event["chunk"] is chunk for event, chunk in zip(events, seen, strict=True))
