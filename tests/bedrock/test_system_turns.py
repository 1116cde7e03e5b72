"""Late system messages: where the service takes them, whoever sends them and through whichever API."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pytest
from botocore.exceptions import ClientError
from converse_kit import DOCUMENT, Bedrock, Json, assistant, point, question, text, tool, tool_result, tool_use, user
from hypothesis import given
from hypothesis import strategies as st

import cachepoint
from cachepoint import CachePolicy
from cachepoint.bedrock.wire import converse, invoke_model
from cachepoint.bedrock.wire.system_turns import placed
from cachepoint.core.prompt.prompt import Where
from cachepoint.emulator import BedrockEmulator, Options, failed
from cachepoint.errors import CachepointWarning

OPUS = "us.anthropic.claude-opus-4-8"
SONNET_5 = "us.anthropic.claude-sonnet-5"
SPOKEN = text("<system>\nBe brief.\n</system>")
TOOLS = {"tools": [tool("search", DOCUMENT[:9000])]}


def late(*content: Json | str) -> Json:
    return {**user(*content or ("Be brief.",)), "role": "system"}


def talk(*messages: Json, model: str = OPUS, **more: Any) -> Json:
    return {**question(model=model), "messages": list(messages), **more}


def turns(bedrock: Bedrock) -> list[list[tuple[str, list[Json]]]]:
    """The messages of each request that was served, without checkpoints."""
    return [
        [(m["role"], [block for block in m["content"] if "cachePoint" not in block]) for m in body["messages"]]
        for body in bedrock.bodies
    ]


@pytest.fixture
def takes_them() -> Iterator[Bedrock]:
    """A service that takes system messages where sources disagree."""
    with BedrockEmulator(keep_text=True, options=Options(disputed_system_turns=True)) as emulator:
        yield Bedrock(emulator, "AKIDTAKES")


# -- Converse -------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["auto", "explicit"])
def test_on_converse_it_is_said_by_the_user_in_its_place(bedrock: Bedrock, mode: Any) -> None:
    client = bedrock.wrapped(CachePolicy(mode=mode))
    client.converse(**talk(user("One?"), assistant("One."), user("Two?"), late()))
    assert bedrock.statuses == [200]
    assert turns(bedrock)[0][-1] == ("user", [text("Two?"), SPOKEN])


def test_it_leaves_the_prefix_before_it_readable(bedrock: Bedrock) -> None:
    client = bedrock.wrapped()
    history = [user(DOCUMENT), assistant("One."), user("Two?")]
    client.converse(**talk(*history))
    told = client.converse(**talk(*history, late()))["promptCache"]
    assert told["status"] in ("hit", "extended")
    assert told["miss"] is None


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([user("a"), late(), user("b")], [("user", [text("a"), SPOKEN, text("b")])]),
        ([user("a"), assistant("b"), late()], [("user", [text("a")]), ("assistant", [text("b")]), ("user", [SPOKEN])]),
        ([user("a"), late(), late("More.")], [("user", [text("a"), SPOKEN, text("<system>\nMore.\n</system>")])]),
        ([late(), user("a")], [("user", [SPOKEN, text("a")])]),
        (
            [user("a"), assistant(tool_use(1)), late(), user(tool_result(1), "b")],
            [
                ("user", [text("a")]),
                ("assistant", [tool_use(1)]),
                ("user", [tool_result(1), SPOKEN, text("b")]),
            ],
        ),
    ],
    ids=["between", "behind an answer", "two in a row", "first", "between a call and its result"],
)
def test_roles_alternate_and_results_come_first(bedrock: Bedrock, messages: list[Json], expected: Any) -> None:
    bedrock.wrapped().converse(**talk(*messages, toolConfig=TOOLS))
    assert turns(bedrock) == [expected]


def test_a_mark_on_it_is_kept(bedrock: Bedrock) -> None:
    bedrock.wrapped(CachePolicy(mode="explicit")).converse(**talk(user(DOCUMENT), late("Be brief.", point())))
    assert bedrock.bodies[0]["messages"] == [user(DOCUMENT, SPOKEN, point())]


@pytest.mark.parametrize("mode", ["off", "observe"])
def test_where_requests_go_as_written_it_is_the_services_to_take(bedrock: Bedrock, mode: Any) -> None:
    with pytest.raises(ClientError, match="role 'system' is not supported"):
        bedrock.wrapped(CachePolicy(mode=mode)).converse(**talk(user("a"), late()))
    assert bedrock.statuses == [400]


def test_a_refused_checkpoint_beside_it_is_healed(bedrock: Bedrock) -> None:
    """The repeat has the message as a user turn still: in its own role the model takes none."""
    bedrock.emulator.refuse_checkpoints("system", OPUS, "Unexpected field type.")
    with pytest.warns(CachepointWarning, match=r"refused a checkpoint in system \(ValidationException\);"):
        bedrock.wrapped().converse(**talk(user("a"), late()))
    assert bedrock.statuses == [400, 200]


async def test_the_asynchronous_client_does_the_same(bedrock: Bedrock) -> None:
    aiobotocore = pytest.importorskip("aiobotocore.session")
    session = aiobotocore.get_session()
    given = {"aws_access_key_id": bedrock.account, "aws_secret_access_key": "x", "region_name": "us-east-1"}
    raw = session.create_client("bedrock-runtime", endpoint_url=bedrock.emulator.url, **given)
    async with cachepoint.wrap_async(raw, clock=bedrock.clock) as client:
        await client.converse(**talk(user("a"), late()))
    assert turns(bedrock) == [[("user", [text("a"), SPOKEN])]]


# -- where a row says that the role is taken ------------------------------------------------------


@pytest.fixture
def known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "rules.toml"
    own.write_text('[[model]]\nname = "Claude Opus 4.8"\nsystem_role = ["converse", "invoke_model"]\n')
    monkeypatch.setenv("CACHEPOINT_RULES", str(own))


@pytest.mark.usefixtures("known")
def test_a_row_says_otherwise(takes_them: Bedrock) -> None:
    takes_them.wrapped().converse(**talk(user("a"), late(), assistant("b"), user("c"), late()))
    roles = [role for role, _ in turns(takes_them)[0]]
    assert roles == ["user", "system", "assistant", "user", "system"]


@pytest.mark.usefixtures("known")
def test_what_is_taken_nowhere_is_said_by_the_user_all_the_same(takes_them: Bedrock) -> None:
    """Behind an answer, and before a question: AWS takes it only behind a user's turn, last or before an answer."""
    takes_them.wrapped().converse(**talk(user("a"), assistant("b"), late(), user("c")))
    assert [role for role, _ in turns(takes_them)[0]] == ["user", "assistant", "user"]


@pytest.mark.usefixtures("known")
def test_where_the_service_refuses_the_role_after_all_it_is_asked_once(bedrock: Bedrock) -> None:
    client = bedrock.wrapped()
    with pytest.warns(CachepointWarning, match="refused a system message in the conversation"):
        for number in range(4):
            client.converse(**talk(user(f"{number}?"), late()))
    assert bedrock.statuses == [400, 200, 200, 200, 200]
    assert [said[-1][1][-1] for said in turns(bedrock)] == [SPOKEN] * 4
    assert [bool(record.checkpoints) for record in client.ledger.records] == [False, True, True, True]


# -- InvokeModel ----------------------------------------------------------------------------------


def body(*messages: Json, **more: Any) -> Json:
    made = {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 9, "messages": list(messages), **more}
    return {"body": json.dumps(made)}


SAY = {"role": "user", "content": "Two?"}
LATE = {"role": "system", "content": "Be brief."}


def test_on_invoke_model_the_role_stays_where_it_is_known_to_be_taken(bedrock: Bedrock) -> None:
    bedrock.wrapped().invoke_model(modelId=OPUS, **body(SAY, LATE))
    assert bedrock.bodies[0]["messages"] == [SAY, LATE]


@pytest.mark.parametrize("model", [SONNET_5, "us.anthropic.claude-sonnet-4-5-20250929-v1:0"])
def test_on_invoke_model_it_is_said_by_the_user_elsewhere(bedrock: Bedrock, model: str) -> None:
    bedrock.wrapped().invoke_model(modelId=model, **body(SAY, LATE))
    spoken = [{"type": "text", "text": "Two?"}, {"type": "text", "text": "<system>\nBe brief.\n</system>"}]
    assert bedrock.statuses == [200]
    assert bedrock.bodies[0]["messages"] == [{"role": "user", "content": spoken}]


def test_a_refused_role_on_invoke_model_is_repeated_as_a_user_turn(bedrock: Bedrock) -> None:
    bedrock.emulator.fail_next(failed("ValidationException", "role 'system' is not supported on this model"))
    with pytest.warns(CachepointWarning, match="a system message in the conversation"):
        bedrock.wrapped().invoke_model(modelId=OPUS, **body(SAY, LATE))
    assert [message["role"] for message in bedrock.bodies[0]["messages"]] == ["user"]


def test_on_invoke_model_the_rest_of_the_body_keeps_its_bytes(bedrock: Bedrock) -> None:
    """Numbers, blanks, escapes and order: only the two messages become one, of which each text stays as it was."""
    raw = (
        '{ "max_tokens":9 ,"messages" : [ {"content":"T\\u0077o?" , "role":"user"}, {"role":"system","content":[\n'
        '{"text":"Be \\u0062rief.", "type":"text"} ]}\t],"anthropic_version":"bedrock-2023-05-31", "temperature":1e-1}'
    )
    seen, client = list[bytes](), bedrock.client()
    client.meta.events.register("before-send.bedrock-runtime", lambda request, **_: seen.append(bytes(request.body)))
    cachepoint.wrap(client, clock=bedrock.clock).invoke_model(modelId=SONNET_5, body=raw)
    blocks = '[{"type":"text","text":"T\\u0077o?"},{"text":"<system>\\nBe \\u0062rief.\\n</system>", "type":"text"}]'
    begin, end = raw.index('"T'), raw.index("\t]")
    assert seen == [f'{raw[:begin]}{blocks} , "role":"user"}}{raw[end:]}'.encode()]


@pytest.mark.parametrize("odd", ['"temperature": 1, "temperature": 1', '"temperature": NaN'])
def test_a_body_whose_meaning_is_not_clear_stays_as_it_is(odd: str) -> None:
    request = {"body": body(SAY, LATE, temperature=1)["body"].replace('"temperature": 1', odd)}
    assert invoke_model.place_system_turns(request, {}, taken=False)[0] is request


# -- the text of a body, however it is written ----------------------------------------------------

NUMBERS = ["1e400", "-1E-400", "1.00", "-0", "12345678901234567890123456789012345678901"]
LETTERS = ["a", "é", "😀", " ", "\\u0041", "\\ud83d", "\\ude00", "\\/", '\\"', "\\\\", "\\n", "{", "]", ","]


@dataclass
class Written:
    """A body in odd writing: blanks, escapes and the order of members are drawn."""

    draw: Random

    def joined(self, parts: Sequence[str], ends: str) -> str:
        blank = [self.draw.choice(["", "", " ", "\r\n\t"]) for _ in range(2 * len(parts) + 1)]
        inner = ",".join(f"{blank[2 * n]}{part}{blank[2 * n + 1]}" for n, part in enumerate(parts))
        return f"{ends[0]}{inner or blank[-1]}{ends[1]}"

    def members(self, **members: str) -> str:
        pairs = [
            f'"{name}"{self.draw.choice(["", " "])}:{self.draw.choice(["", " "])}{v}' for name, v in members.items()
        ]
        return self.joined(self.draw.sample(pairs, len(pairs)), "{}")

    def words(self) -> str:
        return f'"{"".join(self.draw.choices(LETTERS, k=self.draw.randrange(6)))}"'

    def block(self, role: str) -> str:
        odd = self.members(n=self.draw.choice(NUMBERS), s=self.words(), text="null")
        kind = self.draw.choice(
            ["text", "marked", "image", {"user": "tool_result", "assistant": "tool_use"}.get(role, "text")]
        )
        if kind in ("text", "marked"):
            mark = {"cache_control": '{"type": "ephemeral"}'} if kind == "marked" else {}
            return self.members(type='"text"', text=self.words(), **mark)
        more = {"text": "null"} if self.draw.random() < 0.2 else {}
        return self.members(type=f'"{kind}"', input=odd, **more)

    def message(self, role: str) -> tuple[str, list[str]]:
        """The text of a message, and of each of its blocks."""
        if self.draw.random() < 0.3:
            words = self.words()
            return self.members(role=f'"{role}"', content=words), [words]
        blocks = [self.block(role) for _ in range(self.draw.randrange(4))]
        odd = {"odd": self.words()} if self.draw.random() < 0.2 else {}
        return self.members(role=f'"{role}"', content=self.joined(blocks, "[]"), **odd), blocks


@given(
    st.text(alphabet="uas", max_size=9),
    st.booleans(),
    st.randoms(use_true_random=True),
    st.sampled_from([str, str.encode]),
)
def test_the_text_of_a_body_says_the_same_and_keeps_what_did_not_change(
    kinds: str, taken: bool, draw: Random, form: Callable[[str], Any]
) -> None:
    written = Written(draw)
    roles = [{"u": "user", "a": "assistant", "s": "system"}[kind] for kind in kinds]
    messages = [written.message(role) for role in roles]
    listed = written.joined([said for said, _ in messages], "[]")
    raw = written.members(anthropic_version='"bedrock-2023-05-31"', odd=written.block("user"), messages=listed)
    given, request = json.loads(raw), {"body": form(raw)}
    sent = invoke_model.place_system_turns(request, {}, taken=taken)[0]["body"]
    expected = placed(given["messages"], taken=taken)
    assert expected is not None
    assert json.loads(sent) == {**given, "messages": expected.messages}
    if expected.messages == given["messages"]:
        assert sent is request["body"]
        return
    result, begin = sent if isinstance(sent, str) else sent.decode(), raw.index(listed) + 1
    assert result.startswith(raw[: raw.index("{", begin)])
    assert result.endswith(raw[begin + listed[1:].rindex("}") + 1 :])
    for message, (said, blocks), role in zip(given["messages"], messages, roles, strict=True):
        if any(message is each for each in expected.messages):
            assert said in result
        for block in blocks:
            assert role == "system" or block in result


# -- whatever the conversation --------------------------------------------------------------------


@given(st.text(alphabet="uas", max_size=9), st.booleans())
def test_nothing_is_lost_and_roles_are_where_the_service_takes_them(kinds: str, taken: bool) -> None:
    make = {"u": user, "a": assistant, "s": late}
    messages = [make[kind](f"{kind}{number}") for number, kind in enumerate(kinds)]
    found = placed(messages, taken=taken)
    assert found is not None
    said = [block["text"].removeprefix("<system>\n").removesuffix("\n</system>")
            for message in found.messages for block in message["content"]]  # fmt: skip
    assert said == [f"{kind}{number}" for number, kind in enumerate(kinds)]
    roles = "".join(message["role"][0] for message in found.messages)
    assert taken or "s" not in roles
    for number, role in enumerate(roles):
        if role == "s":
            assert roles[number - 1 : number] == "u"
            assert roles[number + 1 : number + 2] in ("", "a")
    # Hints go with their blocks.
    places = {Where("messages", at, 0): f"{kind}{at}" for at, kind in enumerate(kinds)}
    hints = found.hints(places)  # type: ignore[arg-type]
    for where, words in hints.items():
        assert where.message is not None
        assert words in found.messages[where.message]["content"][where.item]["text"]


@pytest.mark.parametrize("messages", [None, 5, "text", [5], [{"role": "system"}], [{"role": "system", "content": [5]}]])
def test_what_is_no_conversation_is_left_as_it_is(messages: Any) -> None:
    request = {"messages": messages}
    assert converse.place_system_turns(request, taken=False)[0] is request
