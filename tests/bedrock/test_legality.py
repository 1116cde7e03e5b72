"""What the service refuses of a user's checkpoints is repaired or left out, and told (docs/rules.md, V1 to V7)."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError
from converse_kit import (
    DOCUMENT,
    LLAMA,
    NOVA,
    SONNET,
    SONNET_37,
    SYSTEM,
    Bedrock,
    Json,
    assistant,
    checkpoints,
    document,
    guarded,
    image,
    point,
    reasoning,
    text,
    tool,
    tool_result,
    tool_use,
    user,
    video,
)

from cachepoint import CachePolicy
from cachepoint.errors import CachepointWarning, ConfigurationError

EXPLICIT = CachePolicy(mode="explicit")
SEARCH = {"tools": [tool("search")]}


def sent(bedrock: Bedrock, request: Json, policy: CachePolicy = EXPLICIT) -> list[tuple[str, str]]:
    """Send a request; the checkpoints that went out, which the service took at the first try."""
    before = len(bedrock.calls)
    bedrock.wrapped(policy).converse(**request)
    assert bedrock.statuses[before:] == [200]
    return checkpoints(bedrock.bodies[-1])


def refused(bedrock: Bedrock, request: Json) -> str:
    """What the service says to the request without cachepoint."""
    with pytest.raises(ClientError) as error:
        bedrock.client().converse(**request)
    return str(error.value)


def asked(*content: Json | str, model: str = SONNET, **rest: object) -> Json:
    return {"modelId": model, "messages": [user(*content)], **rest}


def test_a_legal_mark_stays_where_it_was_put(bedrock: Bedrock) -> None:
    assert sent(bedrock, asked(DOCUMENT, point("1h"), "Why?")) == [("messages[0].content[1]", "1h")]


def test_a_mark_that_names_no_ttl_is_sent_without_one(bedrock: Bedrock) -> None:
    sent(bedrock, asked(DOCUMENT, point(), "Why?"))
    assert bedrock.bodies[-1]["messages"][0]["content"][1] == point()


def test_a_mark_first_in_its_message_moves_to_the_end_of_the_one_before(bedrock: Bedrock) -> None:
    messages = [user(DOCUMENT), assistant("Noted."), user(point(), "Why?")]
    request = {"modelId": SONNET, "messages": messages}
    assert "nothing available to cache" in refused(bedrock, request)
    with pytest.warns(CachepointWarning, match=r"messages\[2\].content\[0\] was moved to after messages\[1\]"):
        assert sent(bedrock, request) == [("messages[1].content[1]", "5m")]


def test_a_mark_with_nothing_before_it_at_all_is_left_out(bedrock: Bedrock) -> None:
    with pytest.warns(CachepointWarning, match=r"system\[0\] was left out"):
        assert sent(bedrock, asked("Why?", system=[point(), text(SYSTEM)])) == []


def test_a_mark_first_in_system_moves_to_the_end_of_the_tools(bedrock: Bedrock) -> None:
    with pytest.warns(CachepointWarning, match=r"moved to after tools\[0\]"):
        request = asked("Why?", system=[point(), text(SYSTEM)], toolConfig=SEARCH)
        assert sent(bedrock, request) == [("tools[1]", "5m")]


def test_two_marks_in_a_row_are_one(bedrock: Bedrock) -> None:
    assert sent(bedrock, asked(DOCUMENT, point(), point("1h"), "Why?")) == [("messages[0].content[1]", "1h")]


def test_a_mark_after_reasoning_moves_before_it(bedrock: Bedrock) -> None:
    messages = [user(DOCUMENT), assistant(reasoning(), point(), "Because."), user("And?")]
    with pytest.warns(CachepointWarning, match="reasoning"):
        assert sent(bedrock, {"modelId": SONNET, "messages": messages}) == [("messages[0].content[1]", "5m")]


def test_reasoning_elsewhere_in_the_history_is_no_obstacle(bedrock: Bedrock) -> None:
    messages = [user(DOCUMENT), assistant(reasoning(), "Because.", point()), user("And?")]
    assert sent(bedrock, {"modelId": SONNET, "messages": messages}) == [("messages[1].content[2]", "5m")]


@pytest.mark.parametrize("kind", ["csv", "txt", "md", "html", "docx", "xlsx"])
def test_a_mark_after_a_document_that_is_no_pdf_moves_before_it(bedrock: Bedrock, kind: str) -> None:
    with pytest.warns(CachepointWarning, match="not a PDF"):
        request = asked(DOCUMENT, document(kind), point(), "Why?")
        assert sent(bedrock, request) == [("messages[0].content[1]", "5m")]


def test_a_mark_after_a_pdf_with_a_text_before_it_stays(bedrock: Bedrock) -> None:
    assert sent(bedrock, asked(DOCUMENT, document("pdf"), point(), "Why?")) == [("messages[0].content[2]", "5m")]


def test_a_mark_after_a_pdf_that_stands_alone_moves_away(bedrock: Bedrock) -> None:
    request = {
        "modelId": SONNET,
        "messages": [user(DOCUMENT), assistant("Noted."), user(document("pdf"), point(), "?")],
    }
    with pytest.warns(CachepointWarning, match="nothing to cache"):
        assert sent(bedrock, request) == [("messages[1].content[1]", "5m")]


def test_a_mark_after_a_video_moves_before_it(bedrock: Bedrock) -> None:
    with pytest.warns(CachepointWarning, match="video"):
        assert sent(bedrock, asked(DOCUMENT, video(), point(), "Why?")) == [("messages[0].content[1]", "5m")]


def test_a_mark_after_an_image_stays(bedrock: Bedrock) -> None:
    assert sent(bedrock, asked(DOCUMENT, image(), point(), "Why?")) == [("messages[0].content[2]", "5m")]


def test_a_mark_after_blank_text_moves_before_it(bedrock: Bedrock) -> None:
    with pytest.warns(CachepointWarning, match="blank"):
        assert sent(bedrock, asked(DOCUMENT, "\n", point(), "Why?")) == [("messages[0].content[1]", "5m")]


def test_a_mark_inside_a_tool_result_is_hoisted_out_of_it(bedrock: Bedrock) -> None:
    result = tool_result(1, DOCUMENT, point("1h"))
    messages = [user("Search."), assistant(tool_use(1)), user(result, "Why?")]
    request = {"modelId": SONNET, "messages": messages, "toolConfig": SEARCH}
    assert sent(bedrock, request) == [("messages[2].content[1]", "1h")]
    assert bedrock.bodies[-1]["messages"][2]["content"][0]["toolResult"]["content"] == [text(DOCUMENT)]
    assert result["toolResult"]["content"][1] == point("1h")


def test_over_the_cap_the_marks_worth_least_are_left_out(bedrock: Bedrock) -> None:
    parts = [part for number in range(5) for part in (f"{number} {DOCUMENT[:9000]}", point())]
    request = asked(*parts, "Why?")
    assert "maximum of 4" in refused(bedrock, request)
    with pytest.warns(CachepointWarning, match="only 4"):
        placed = sent(bedrock, request)
    assert [path for path, _ in placed] == [f"messages[0].content[{place}]" for place in (2, 4, 6, 8)]


def test_the_users_marks_go_before_the_planners_own(bedrock: Bedrock) -> None:
    parts = [part for number in range(4) for part in (f"{number} {DOCUMENT[:9000]}", point())]
    request = asked(*parts, "Why?", system=[text(SYSTEM)], toolConfig=SEARCH)
    assert [path for path, _ in sent(bedrock, request, CachePolicy())] == [
        f"messages[0].content[{place}]" for place in (1, 3, 5, 7)
    ]


@pytest.mark.parametrize("ttl", ["1hour", "10m", "", 3600])
@pytest.mark.parametrize("mode", ["auto", "explicit"])
def test_a_ttl_that_does_not_exist_is_an_error_before_anything_is_sent(bedrock: Bedrock, ttl: Any, mode: Any) -> None:
    client = bedrock.wrapped(CachePolicy(mode=mode))
    request = asked(DOCUMENT, {"cachePoint": {"type": "default", "ttl": ttl}}, "Why?")
    with pytest.raises(ConfigurationError, match=rf"messages\[0\]\.content\[1\] has ttl={ttl!r}: write '5m' or '1h'"):
        client.converse(**request)
    assert bedrock.calls == []
    assert [record.error for record in client.ledger.records] == ["ConfigurationError"]


@pytest.mark.parametrize("mode", ["observe", "off"])
def test_where_nothing_is_changed_the_service_says_so_itself(bedrock: Bedrock, mode: Any) -> None:
    request = asked(DOCUMENT, point("1hour"), "Why?")
    with pytest.raises(ClientError, match=r"'1hour'.*enum"):
        bedrock.wrapped(CachePolicy(mode=mode)).converse(**request)


def test_a_short_mark_before_a_long_one_is_raised(bedrock: Bedrock) -> None:
    request = asked(DOCUMENT, point("1h"), "Why?", system=[text(SYSTEM), point("5m")])
    assert "must not come after" in refused(bedrock, request)
    with pytest.warns(CachepointWarning, match="raised from 5m to 1h"):
        placed = sent(bedrock, request)
    assert placed == [("system[1]", "1h"), ("messages[0].content[1]", "1h")]


def test_a_long_mark_before_a_short_one_is_as_it_should_be(bedrock: Bedrock) -> None:
    request = asked(DOCUMENT, point("5m"), "Why?", system=[text(SYSTEM), point("1h")])
    assert sent(bedrock, request) == [("system[1]", "1h"), ("messages[0].content[1]", "5m")]


def test_a_model_without_1h_gets_5m(bedrock: Bedrock) -> None:
    request = asked(DOCUMENT, point("1h"), "Why?", model=SONNET_37)
    assert "ttl: Extra inputs are not permitted" in refused(bedrock, request)
    with pytest.warns(CachepointWarning, match="lowered to 5m"):
        sent(bedrock, request)
    assert bedrock.bodies[-1]["messages"][0]["content"][1] == point()


def test_a_policy_of_1h_does_without_a_warning_where_the_model_has_none(bedrock: Bedrock) -> None:
    request = asked("Why?", system=[text(SYSTEM)], model=SONNET_37)
    assert sent(bedrock, request, CachePolicy(ttl="1h")) == [("system[1]", "5m")]


def test_nova_gets_no_checkpoint_in_tools(bedrock: Bedrock) -> None:
    tools = {"tools": [tool("search", SYSTEM), point()]}
    request = asked("Why?", system=[text(SYSTEM)], toolConfig=tools, model=NOVA)
    assert "extraneous key [cachePoint]" in refused(bedrock, request)
    with pytest.warns(CachepointWarning, match="no checkpoints in this section"):
        placed = sent(bedrock, request, CachePolicy())
    assert placed[0] == ("system[1]", "5m")


@pytest.mark.parametrize("media", [image(), document("pdf")])
def test_nova_gets_a_checkpoint_in_messages_only_after_text(bedrock: Bedrock, media: Json) -> None:
    with pytest.warns(CachepointWarning, match="only after text"):
        request = asked(DOCUMENT, media, point(), "Why?", model=NOVA)
        assert sent(bedrock, request) == [("messages[0].content[1]", "5m")]


def test_nova_gets_no_checkpoint_after_tool_results(bedrock: Bedrock) -> None:
    messages = [user(DOCUMENT), assistant(tool_use(1)), user(tool_result(1), point())]
    request = {"modelId": NOVA, "messages": messages, "toolConfig": SEARCH}
    with pytest.warns(CachepointWarning, match="only after text"):
        assert sent(bedrock, request) == [("messages[0].content[1]", "5m")]


def test_nova_gets_no_1h(bedrock: Bedrock) -> None:
    with pytest.warns(CachepointWarning, match="lowered to 5m"):
        request = asked("Why?", system=[text(SYSTEM), point("1h")], model=NOVA)
        assert sent(bedrock, request) == [("system[1]", "5m")]


def test_a_model_without_caching_gets_none(bedrock: Bedrock) -> None:
    request = asked(DOCUMENT, point(), "Why?", model=LLAMA)
    assert "did not allow prompt caching" in refused(bedrock, request)
    with pytest.warns(CachepointWarning, match="takes no checkpoints"):
        placed = sent(bedrock, request, CachePolicy())
    assert placed == []


def test_a_mark_after_guarded_content_of_the_last_turn_moves_before_it(bedrock: Bedrock) -> None:
    with pytest.warns(CachepointWarning, match="guarded"):
        request = asked(DOCUMENT, guarded("Is this safe?"), point(), "Why?")
        assert sent(bedrock, request) == [("messages[0].content[1]", "5m")]


def test_guarded_content_of_earlier_turns_is_no_obstacle(bedrock: Bedrock) -> None:
    messages = [user(DOCUMENT, guarded("Is this safe?"), point()), assistant("Yes."), user("Why?")]
    assert sent(bedrock, {"modelId": SONNET, "messages": messages}) == [("messages[0].content[2]", "5m")]


def test_the_planner_itself_never_needs_a_repair(bedrock: Bedrock) -> None:
    """A section that ends in what may carry no checkpoint is not marked there by the planner either."""
    table, notes = document("csv"), document("txt", name="notes")
    messages = [user(DOCUMENT, table), assistant(reasoning(), "Because."), user("And?", notes)]
    sent(bedrock, {"modelId": SONNET, "messages": messages}, CachePolicy())
